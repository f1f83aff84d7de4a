"""Training a backbone, or updates of low rank beside it, until it says given answers; measured after every epoch.

The objective is the loss of the answer's tokens and END, summed over a fact and averaged over a minibatch. Losses are
measured in a pass of their own after each epoch, with the weights that the epoch left: the losses that training sees
belong to weights that change within the epoch, and whether a fact is stored must not rest on them.

Adafactor (arXiv 1804.04235) is used without scaling by the size of a weight: LoRA's `up` begins at zero.

Letters: n facts, e epochs, m minibatches of b facts each, t, A, V as in `order`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int32

from sims.adapting.losses import Curves, FactLosses, token_losses
from sims.adapting.memories import Recalling, adapt_experts
from sims.adapting.methods import Full, LowRank, MemoryExperts, Method, Recipe
from sims.adapting.order import Halves, Minibatches, Rows, Widths, rows_of
from sims.measures import STORED_BELOW_NATS
from sims.memory.backbone import Adaptable, Backbone
from sims.tokens import TokenizedFacts

_RULES = {
    "adafactor": lambda: optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2), optax.clip_by_block_rms(1.0)
    ),
    "adam": optax.scale_by_adam,
    "sgd": optax.identity,
}


@dataclass(frozen=True, eq=False)
class Adapted:
    """What adaptation came to. Row e of the curves is after e epochs; row 0 is the backbone as it was."""

    backbone: Backbone  # that reads now; with memory experts the frozen one
    loss_nats: Float32[np.ndarray, "e+1 n"]  # summed over the answer's tokens and END
    largest_token_loss_nats: Float32[np.ndarray, "e+1 n"]
    greedy_correct: Bool[np.ndarray, " n"]  # at the end: every token is the unique argmax after the right ones
    when_stored: Backbone | None = None  # its weights, where they are trained, as `epochs_until_stored` found them
    recalling: Recalling | None = None  # the memory, where there is one
    rows_per_fact: float | None = None  # experts of a fact's tokens that were written, mean over facts

    @property
    def finite(self) -> bool:
        """Whether there are numbers at the end."""
        return bool(np.isfinite(self.loss_nats[-1]).all())


def adapt(backbone: Adaptable, method: Method, facts: TokenizedFacts, recipe: Recipe) -> Adapted:
    """Train with this method and recipe for its number of epochs; deterministic in its arguments on one machine.

    Raises ValueError if the facts are longer than the backbone's context or the optimizer is none of the method's.
    """
    if facts.tokens.shape[1] > backbone.context:
        raise ValueError(f"facts of {facts.tokens.shape[1]} tokens do not fit a context of {backbone.context}")
    if isinstance(method, MemoryExperts):
        losses, recalling, rows = adapt_experts(backbone, method, facts, recipe)
        return Adapted(backbone, *losses, recalling=recalling, rows_per_fact=rows)
    return _adapt_weights(backbone, method, facts, recipe)


def epochs_until_stored(largest_token_loss_nats: Float[np.ndarray, "e n"]) -> int | None:
    """The first epoch at whose end every token of every fact is under ln 2 (by the margin of `measures`); else None.

    >>> epochs_until_stored(np.array([[5.0, 4.0], [0.1, 0.9], [0.1, 0.2]]))
    2
    """
    stored = np.all(largest_token_loss_nats < STORED_BELOW_NATS, axis=1)
    return int(np.argmax(stored)) if stored.any() else None


class _State(NamedTuple):
    trained: Any
    moments: Any


def _adapt_weights(backbone: Adaptable, method: Full | LowRank, facts: TokenizedFacts, recipe: Recipe) -> Adapted:
    if recipe.optimizer not in _RULES:
        raise ValueError(f"{recipe.optimizer} is no optimizer of weights; they have {', '.join(_RULES)}")
    halves, rows = Halves(facts, recipe.minibatch), rows_of(facts)
    trained = method.start(backbone, jax.random.key(recipe.seed))
    state = _State(trained, _RULES[recipe.optimizer]().init(trained))
    measured = partial(_measured, method, halves.widths, backbone, rows=rows, minibatches=halves.in_order())
    curves = Curves(len(facts.tokens), halves.in_order())
    curves.add(measured(trained=state.trained))
    first_stored = None
    for epoch in range(recipe.epochs):
        if first_stored is None and curves.stored:
            first_stored = jax.tree.map(jnp.copy, state.trained)  # the state itself is donated to the next epoch
        order = halves.of_epoch(recipe.seed, epoch)
        state = _epoch(method, recipe.optimizer, halves.widths, backbone, state, rows, order, recipe.rate(epoch))
        curves.add(measured(trained=state.trained))
    if first_stored is None and curves.stored:
        first_stored = state.trained
    when_stored = None if first_stored is None else method.built(backbone, first_stored)
    return Adapted(method.built(backbone, state.trained), *curves.arrays, when_stored)


@partial(jax.jit, static_argnames=("method", "optimizer", "widths"), donate_argnames="state")
def _epoch(
    method: Full | LowRank,
    optimizer: str,
    widths: tuple[Widths, ...],
    backbone: Adaptable,
    state: _State,
    rows: Rows,
    minibatches: Minibatches,
    rate: Float[Array, ""] | float,
) -> _State:
    rule = _RULES[optimizer]()

    def gradient_of(width: Widths) -> Callable[..., Any]:
        def objective(trained: Any, some: Rows) -> Array:
            losses, _ = _losses(method.built(backbone, trained), some, width)
            return jnp.sum(losses) / jnp.maximum(1.0, jnp.sum(some.targets[:, 0] >= 0).astype(losses.dtype))

        return jax.grad(objective)

    branches = [gradient_of(width) for width in widths]

    def step(state: _State, minibatch: Minibatches) -> tuple[_State, None]:
        some = Rows(*(leaf[minibatch.facts] for leaf in rows))
        gradient = jax.lax.switch(minibatch.half, branches, state.trained, some)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
            update, moments = rule.update(gradient, state.moments, state.trained)
        trained = jax.tree.map(lambda weight, change: weight - rate * change, state.trained, update)
        return _State(trained, moments), None

    return jax.lax.scan(step, state, minibatches)[0]


@partial(jax.jit, static_argnames=("method", "widths"))
def _measured(
    method: Full | LowRank,
    widths: tuple[Widths, ...],
    backbone: Adaptable,
    trained: Any,
    rows: Rows,
    minibatches: Minibatches,
) -> FactLosses:
    network = method.built(backbone, trained)
    branches = [lambda some, width=width: FactLosses.of(*_losses(network, some, width)) for width in widths]

    def one(minibatch: Minibatches) -> FactLosses:
        some = Rows(*(leaf[minibatch.facts] for leaf in rows))
        return jax.lax.switch(minibatch.half, branches, some)

    return jax.lax.map(one, minibatches)


def _losses(network: Backbone, some: Rows, width: Widths) -> tuple[Float[Array, "b A"], Bool[Array, "b A"]]:
    """Of each token that is due, in rows cut to a width."""

    def states(tokens: Int32[Array, " t"], places: Int32[Array, " A"]) -> Float[Array, "A W"]:
        return network.hidden(tokens)[places]

    tokens, places, targets = (
        some.tokens[:, : width.tokens],
        some.places[:, : width.answers],
        some.targets[:, : width.answers],
    )
    logits = jax.vmap(jax.vmap(network.unembed))(jax.vmap(states)(tokens, places))
    return token_losses(logits.astype(jnp.float32), targets)

"""Bringing facts under a loss: a trained network is tuned on them alone, in all its weights or in memory experts.

Letters: k facts, r other examples, R learning rates, V answers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from mome_jax.experts import Values, read
from mome_jax.index import ProductKeys, Selection, select
from sims.measures import STORED_BELOW_NATS
from sims.networks import Architecture, Parameters, network
from sims.training import answer_loss

Apply = Callable[[Any, Any], Float[Array, " V"]]  # (what is tuned, one input) -> logits


class Tuning(NamedTuple):
    """One entry a learning rate."""

    tuned: Any  # leaves [R ...]
    passes: Int[Array, " R"]  # over the facts, until all were stored if stored ones are skipped
    facts_shown: Int[Array, " R"]  # facts that gave a gradient, with repetition


@partial(jax.jit, static_argnames=("apply", "passes"))
def tune(
    apply: Apply,
    start: Any,
    inputs: Any,
    labels: Int[Array, " k"],
    rates: Float[Array, " R"],
    *,
    passes: int,
    skip_stored: bool | Bool[Array, ""],
    replayed: tuple[Any, Int[Array, " r"]] | None = None,
) -> Tuning:
    """Adam at a constant rate, all facts in a step, from the same start at every rate.

    With `skip_stored` a fact under ln 2 (by the margin of `sims.measures`) gives no gradient until it is above again,
    and nothing moves once every fact is under it. The mean loss of `replayed` (inputs, labels) is added to every step.
    """
    adam = optax.scale_by_adam()

    def objective_of(tuned: Any) -> tuple[Float[Array, ""], Array]:
        def losses_of(questions: Any, answers: Array) -> Array:
            return jax.vmap(lambda one, answer: answer_loss(apply(tuned, one), answer))(questions, answers)

        losses = losses_of(inputs, labels)
        open_facts = (jax.lax.stop_gradient(losses) >= STORED_BELOW_NATS) | ~jnp.asarray(skip_stored)
        objective = jnp.sum(jnp.where(open_facts, losses, 0.0)) / len(labels)
        return (objective if replayed is None else objective + jnp.mean(losses_of(*replayed))), open_facts

    def at(rate: Float[Array, ""]) -> Tuning:
        def one_pass(state: tuple, _: None) -> tuple[tuple, None]:
            tuned, moments, done, shown = state
            gradient, open_facts = jax.grad(objective_of, has_aux=True)(tuned)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
                update, changed = adam.update(gradient, moments)
            moved = jax.tree.map(lambda weight, change: weight - rate * change, tuned, update)
            going = jnp.any(open_facts)
            tuned, moments = jax.tree.map(
                lambda new, old: jnp.where(going, new, old), (moved, changed), (tuned, moments)
            )
            return (
                tuned,
                moments,
                done + going.astype(done.dtype),
                shown + jnp.sum(open_facts, dtype=shown.dtype),
            ), None

        nothing = jnp.zeros((), jnp.int32)
        (tuned, _, done, shown), _ = jax.lax.scan(
            one_pass, (start, adam.init(start), nothing, nothing), None, length=passes
        )
        return Tuning(tuned, done, shown)

    return jax.vmap(at)(rates)


def all_weights(architecture: Architecture) -> Apply:
    """The network itself."""
    return network(architecture).apply


class Experts(NamedTuple):
    """Memory experts beside a frozen network: whose scores they add to, and how they are chosen."""

    frozen: Parameters
    keys: ProductKeys
    chosen: int  # of the experts, for each question

    @classmethod
    def create(cls, seed: int, frozen: Parameters, experts: int, width: int, chosen: int) -> "Experts":
        """Random keys, which are never trained."""
        key = jax.random.fold_in(jax.random.key(seed), 2)  # 0 is the data's, 1 the network's
        return cls(frozen, ProductKeys.create(key, experts, width), chosen)

    def inputs(self, architecture: Architecture, features: np.ndarray) -> tuple[Array, Selection]:
        """(scores of the frozen network, selection) of each question: what `with_experts` reads."""
        return _scores_and_selections(architecture, self.frozen, self.keys, self.chosen, features)


@partial(jax.jit, static_argnames=("architecture", "chosen"))
def _scores_and_selections(
    architecture: Architecture, frozen: Parameters, keys: ProductKeys, chosen: int, features: Array
) -> tuple[Array, Selection]:
    scores = jax.vmap(network(architecture).apply, (None, 0))(frozen, features)
    return scores, jax.vmap(select, (0, None, None))(features, keys, chosen)


def with_experts(bank: Values, question: tuple[Float[Array, " V"], Selection]) -> Float[Array, " V"]:
    """Scores of the frozen network plus what the chosen experts say."""
    scores, selection = question
    return scores + read(bank, selection)


def logits_of(apply: Apply, tuned: Any, inputs: Any) -> Float[np.ndarray, "R n V"]:
    """Scores of every input at every rate, as NumPy."""
    return np.asarray(_every(apply, tuned, inputs))


@partial(jax.jit, static_argnames="apply")
def _every(apply: Apply, tuned: Any, inputs: Any) -> Array:
    return jax.vmap(jax.vmap(apply, (None, 0)), (0, None))(tuned, inputs)

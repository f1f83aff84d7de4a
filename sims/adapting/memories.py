"""Memory experts beside a backbone that stays as it is: the values that exact contexts choose, trained row by row.

The backbone reads each fact once; after that an epoch is one pass over the tokens that are due, in the same minibatches
of facts as for other methods. Each optimizer of mome_jax writes the chosen rows alone. "writes" solves for the values
instead (mome_jax.cross_entropy): an epoch is one pass over the open tokens, and none is left to do when all are under
the threshold. A question is known if it is one of those stored, to the last token; an unknown one reads nothing.

Letters: n facts, A tokens of the longest answer with END, k experts a token, s tokens due, W width of a state,
M experts, m minibatches of b facts, v = W.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from mome_jax.addresses import ExactAddresses
from mome_jax.cross_entropy import memorizing
from mome_jax.experts import Values
from mome_jax.index import NULL
from mome_jax.optimizers import SGD, Adafactor, Adam, Optimizer, Table, begin, loss_and_gradients, update
from mome_jax.writing import read_batch
from sims.adapting.losses import Curves, FactLosses, token_losses
from sims.adapting.methods import MemoryExperts, Recipe
from sims.adapting.order import Halves, Minibatches, rows_of
from sims.memory.addressing import Addressing, Asked, question_fingerprint
from sims.memory.backbone import Backbone, hidden_states
from sims.memory.due import Due, tokens_due
from sims.tokens import TokenizedFacts

_OPTIMIZERS = {"adafactor": Adafactor, "adam": Adam, "sgd": SGD}


@dataclass(frozen=True, eq=False)
class Recalling:
    """A memory as it is read: addresses from the seed, the values, and which questions are known."""

    values: Float32[Array, "M v"]
    chosen: int
    seed: int
    identities: UInt32[np.ndarray, "n 2"]  # of the stored questions

    def due(self, facts: TokenizedFacts, *, open_gate: bool = False) -> tuple[Due, Bool[np.ndarray, " s"]]:
        """The tokens due of these facts with their experts, and whether the question of each is known."""
        found = identities_of(facts, self.seed)
        known = np.isin(_words(found), _words(self.identities)) | open_gate
        asked = Asked(found, np.zeros((len(found), 1), np.float32), known, known)  # pyright: ignore[reportArgumentType]
        due = tokens_due(facts, asked, addresses(len(self.values), self.seed), self.chosen, self.seed)
        return due, known[due.facts]

    def read(
        self, facts: TokenizedFacts, *, open_gate: bool = False
    ) -> Callable[[Float32[np.ndarray, "s v"]], Float32[np.ndarray, "s v"]]:
        """What becomes of the states that predict these facts' tokens; with an open gate every question is known."""
        due, known = self.due(facts, open_gate=open_gate)
        experts, weights = (jnp.asarray(np.asarray(half)) for half in due.selection)

        def after(states: Float32[np.ndarray, "s v"]) -> Float32[np.ndarray, "s v"]:
            return np.where(known[:, None], states + np.asarray(_read(self.values, experts, weights)), states)

        return after


class _Tokens(NamedTuple):
    """What is due of each fact; a row more than facts, in which nothing is."""

    states: Float32[Array, "n+1 A v"]
    targets: Int32[Array, "n+1 A"]
    experts: Int32[Array, "n+1 A k"]
    weights: Float32[Array, "n+1 A k"]


def adapt_experts(
    backbone: Backbone, method: MemoryExperts, facts: TokenizedFacts, recipe: Recipe
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Recalling, float]:
    """Write the facts: the arrays of their curves, the memory, and the rows written per fact.

    Raises ValueError for an optimizer that the experts do not have.
    """
    empty = Values.create(method.experts, backbone.width)
    memory = Recalling(empty.values, method.chosen, recipe.seed, identities_of(facts, recipe.seed))
    due, _ = memory.due(facts)
    states = hidden_states(backbone, facts.tokens, facts.answer_mask)
    if recipe.optimizer == "writes":
        curves, values = _written(backbone, empty, due, states, recipe.epochs, len(facts.tokens))
    elif recipe.optimizer in _OPTIMIZERS:
        curves, values = _trained(backbone, empty, _by_fact(facts, due, states), facts, recipe)
    else:
        raise ValueError(f"{recipe.optimizer} is no optimizer of experts; they have writes, {', '.join(_OPTIMIZERS)}")
    written = np.asarray(jnp.any(values != 0.0, axis=1))
    memory = Recalling(values, method.chosen, recipe.seed, memory.identities)
    return curves, memory, _rows_per_fact(due, written, len(facts.tokens))


def addresses(experts: int, seed: int) -> Addressing:
    """By the exact context alone."""
    return Addressing(ExactAddresses(experts, seed), None, "exact")


def identities_of(facts: TokenizedFacts, seed: int) -> UInt32[np.ndarray, "n 2"]:
    """The fingerprint of each prompt."""
    lengths = jnp.asarray(facts.prompt_lengths.astype(np.int32))
    return np.asarray(_identities(jnp.asarray(facts.tokens), lengths, seed))


def _trained(
    backbone: Backbone, empty: Values, tokens: _Tokens, facts: TokenizedFacts, recipe: Recipe
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Float32[Array, "M v"]]:
    halves = Halves(facts, recipe.minibatch)
    optimizer = _OPTIMIZERS[recipe.optimizer]
    table, in_order = begin(optimizer(0.0), empty), halves.in_order()
    curves = Curves(len(facts.tokens), in_order)
    curves.add(_measured(backbone, table, tokens, in_order))
    for epoch in range(recipe.epochs):
        table = _epoch(optimizer(recipe.rate(epoch)), backbone, table, tokens, halves.of_epoch(recipe.seed, epoch))
        curves.add(_measured(backbone, table, tokens, in_order))
    return curves.arrays, table.bank().values


def _written(
    backbone: Backbone,
    empty: Values,
    due: Due,
    states: Float32[np.ndarray, "s v"],
    epochs: int,
    count: int,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Float32[Array, "M v"]]:
    """Projection writes; once all is stored the curves stay where they are."""
    losses, largest, state = [], [], None
    for state in memorizing(
        empty.values, states, due.targets, due.selection, Partial(_unembed, backbone), most_passes=epochs
    ):
        losses.append(np.bincount(due.facts, state.losses_nats, count))
        largest.append(np.zeros(count))
        np.maximum.at(largest[-1], due.facts, state.losses_nats)
    assert state is not None  # there is one before the first pass
    experts, weights = (jnp.asarray(np.asarray(half)) for half in due.selection)
    read = jnp.asarray(states) + _read(state.values, experts, weights)
    _, right = _token_losses(backbone, read, jnp.asarray(due.targets))
    greedy = np.bincount(due.facts, ~np.asarray(right), count) == 0
    filled = [np.stack(rows + rows[-1:] * (epochs + 1 - len(rows))).astype(np.float32) for rows in (losses, largest)]
    return (*filled, greedy), state.values  # pyright: ignore[reportReturnType]


@partial(jax.jit, donate_argnames="table")
def _epoch(optimizer: Optimizer, backbone: Backbone, table: Table, tokens: _Tokens, minibatches: Minibatches) -> Table:
    def objective(rows: Values, some: _Tokens) -> Array:
        shifts = jnp.einsum("sk,skv->sv", some.weights.reshape(-1, some.weights.shape[-1]), rows.values)
        losses, _ = _token_losses(backbone, some.states.reshape(shifts.shape) + shifts, some.targets.reshape(-1))
        return jnp.sum(losses)

    def step(table: Table, minibatch: Minibatches) -> tuple[Table, None]:
        some = _Tokens(*(leaf[minibatch.facts] for leaf in tokens))
        experts = some.experts.reshape(-1, some.experts.shape[-1])
        _, gradients = loss_and_gradients(objective, table, experts, some)
        return update(optimizer, table, experts, gradients), None

    return jax.lax.scan(step, table, minibatches)[0]


@jax.jit
def _measured(backbone: Backbone, table: Table, tokens: _Tokens, minibatches: Minibatches) -> FactLosses:
    def one(minibatch: Minibatches) -> FactLosses:
        some = _Tokens(*(leaf[minibatch.facts] for leaf in tokens))
        rows = table.gather(some.experts).values
        states = some.states + jnp.einsum("bak,bakv->bav", some.weights, rows)
        flat = _token_losses(backbone, states.reshape(-1, states.shape[-1]), some.targets.reshape(-1))
        return FactLosses.of(*(leaf.reshape(some.targets.shape) for leaf in flat))

    return jax.lax.map(one, minibatches)


@jax.jit
def _token_losses(
    backbone: Backbone, states: Float[Array, "s v"], targets: Int32[Array, " s"]
) -> tuple[Float[Array, " s"], Bool[Array, " s"]]:
    return token_losses(jax.vmap(backbone.unembed)(states).astype(jnp.float32), targets)


_read = jax.jit(read_batch)


def _by_fact(facts: TokenizedFacts, due: Due, states: Float32[np.ndarray, "s v"]) -> _Tokens:
    rows = rows_of(facts)
    fact, place = np.nonzero(np.asarray(rows.targets) >= 0)  # fact by fact, as they are due
    experts, weights = (np.asarray(half) for half in due.selection)

    def laid_out(values: np.ndarray, empty: float) -> Array:
        whole = np.full((*rows.targets.shape, values.shape[1]), empty, values.dtype)
        whole[fact, place] = values
        return jnp.asarray(whole)

    return _Tokens(laid_out(states, 0.0), rows.targets, laid_out(experts, NULL), laid_out(weights, 0.0))


def _rows_per_fact(due: Due, written: Bool[np.ndarray, " M"], count: int) -> float:
    """Experts of a fact's tokens that hold something; one that two facts share counts for both."""
    experts = np.asarray(due.selection.experts)
    facts = np.repeat(due.facts, experts.shape[1])
    pairs = np.unique(np.stack([facts, experts.ravel()], axis=1)[written[experts.ravel()]], axis=0)
    return len(pairs) / count


@partial(jax.jit, static_argnames="seed")
def _identities(tokens: Int32[Array, "n t"], lengths: Int32[Array, " n"], seed: int) -> UInt32[Array, "n 2"]:
    return jax.vmap(lambda row, length: question_fingerprint(row, length, seed))(tokens, lengths)


def _unembed(backbone: Backbone, state: Float[Array, " v"]) -> Float[Array, " V"]:
    return backbone.unembed(state)


def _words(identities: UInt32[np.ndarray, "n 2"]) -> np.ndarray:
    return identities.astype(np.uint64) @ np.array([1 << 32, 1], np.uint64)

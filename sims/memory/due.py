"""The tokens that a memory has to store: one for each token of each answer and one for its end.

Letters: n facts, t tokens of a row, s tokens that are due, k experts chosen, v width of a state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, UInt32

from mome_jax.index import Selection
from sims.memory.addressing import Addressing, Asked, answers_so_far
from sims.tokens import TokenizedFacts

_ROWS_AT_ONCE, _TOKENS_AT_ONCE, _FEW = 2048, 16384, 64


@dataclass(frozen=True, eq=False)
class Due:
    """Tokens due, fact by fact, and the experts of each; arrays of NumPy."""

    facts: Int32[np.ndarray, " s"]  # whose token it is
    targets: Int32[np.ndarray, " s"]
    selection: Selection  # [s k]

    def __len__(self) -> int:
        return len(self.targets)

    def of(self, facts: Sequence[int]) -> "Due":
        """The tokens of some facts, fact by fact."""
        which = np.flatnonzero(np.isin(self.facts, facts))
        return Due(self.facts[which], self.targets[which], Selection(*(half[which] for half in self.selection)))


def tokens_due(
    facts: TokenizedFacts,
    asked: Asked,
    addressing: Addressing,
    chosen: int,
    seed: int,
    advance: Callable[[float], None] = lambda work: None,
) -> Due:
    """What is due of these facts; row i of `asked` belongs to fact i. `advance` is told the tokens done."""
    rows, places = np.nonzero(facts.answer_mask)
    so_far = answers_before(facts.tokens, facts.prompt_lengths.astype(np.int32), seed)[rows, places]
    selection = experts_of(rows, so_far, asked, addressing, chosen, advance)
    return Due(rows.astype(np.int32), facts.tokens[rows, places], selection)


def experts_of(
    rows: Int[np.ndarray, " s"],
    so_far: UInt32[np.ndarray, "s 2"],
    asked: Asked,
    addressing: Addressing,
    chosen: int,
    advance: Callable[[float], None] = lambda work: None,
) -> Selection:
    """The experts [s k] of tokens that come after answers so far, to the questions in these rows of `asked`."""
    experts = np.zeros((len(rows), chosen), np.int32)
    weights = np.zeros((len(rows), chosen), np.float32)
    size = _FEW if len(rows) <= _FEW else _TOKENS_AT_ONCE  # two shapes are two compilations
    for start in range(0, len(rows), size):
        some = slice(start, min(len(rows), start + size))
        filled = np.resize(np.arange(some.start, some.stop), size)
        of_rows = Asked(*(jnp.asarray(np.asarray(leaf)[rows[filled]]) for leaf in asked))
        selection = _selected(addressing, of_rows, jnp.asarray(so_far[filled]), chosen)
        count = some.stop - some.start
        experts[some], weights[some] = (np.asarray(half)[:count] for half in selection)
        advance(count)
    return Selection(experts, weights)  # pyright: ignore[reportArgumentType]


def answers_before(
    tokens: Int32[np.ndarray, "n t"], asked: Int32[np.ndarray, " n"], seed: int
) -> UInt32[np.ndarray, "n t 2"]:
    """The fingerprint of the answer before each token; `asked` is the number of tokens up to and with ASK."""
    parts = []
    size = min(_ROWS_AT_ONCE, len(asked))
    for start in range(0, len(asked), size or 1):
        filled = np.resize(np.arange(start, min(len(asked), start + size)), size)
        part = _answers_of_rows(jnp.asarray(tokens[filled]), jnp.asarray(asked[filled]), seed)
        parts.append(np.asarray(part)[: len(asked) - start])
    return np.concatenate(parts) if parts else np.zeros((*tokens.shape, 2), np.uint32)


@partial(jax.jit, static_argnames="seed")
def _answers_of_rows(tokens: Int32[Array, "b t"], asked: Int32[Array, " b"], seed: int) -> UInt32[Array, "b t 2"]:
    return jax.vmap(lambda row, count: answers_so_far(row, count, seed))(tokens, asked)


@partial(jax.jit, static_argnames="chosen")
def _selected(addressing: Addressing, asked: Asked, answers: UInt32[Array, "b 2"], chosen: int) -> Selection:
    return jax.vmap(lambda one, answer: addressing.select(one, answer, chosen))(asked, answers)

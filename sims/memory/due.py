"""The tokens that a memory has to store: one for each token of each answer and one for its end.

Letters: n facts, t tokens of a row, s tokens that are due, k experts chosen, v width of a state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32

from mome_jax.index import Selection
from sims.memory.addressing import Addressing, Asked, answers_so_far
from sims.tokens import TokenizedFacts

_ROWS_AT_ONCE, _TOKENS_AT_ONCE = 2048, 16384


@dataclass(frozen=True, eq=False)
class Due:
    """Tokens due, fact by fact, and the experts of each; arrays of NumPy."""

    facts: Int32[np.ndarray, " s"]  # whose token it is
    targets: Int32[np.ndarray, " s"]
    selection: Selection  # [s k]

    def __len__(self) -> int:
        return len(self.targets)


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
    so_far = _answers(facts, seed)[rows, places]
    experts = np.zeros((len(rows), chosen), np.int32)
    weights = np.zeros((len(rows), chosen), np.float32)
    for start in range(0, len(rows), _TOKENS_AT_ONCE):
        some = slice(start, min(len(rows), start + _TOKENS_AT_ONCE))
        filled = np.resize(np.arange(some.start, some.stop), _TOKENS_AT_ONCE)  # one shape is one compilation
        of_rows = Asked(*(jnp.asarray(leaf[rows[filled]]) for leaf in asked))
        selection = _selected(addressing, of_rows, jnp.asarray(so_far[filled]), chosen)
        count = some.stop - some.start
        experts[some], weights[some] = (np.asarray(half)[:count] for half in selection)
        advance(count)
    return Due(rows.astype(np.int32), facts.tokens[rows, places], Selection(experts, weights))  # pyright: ignore[reportArgumentType]


def _answers(facts: TokenizedFacts, seed: int) -> UInt32[np.ndarray, "n t 2"]:
    """The fingerprint of the answer before each token."""
    asked = np.argmax(facts.tokens == facts.ask, axis=1).astype(np.int32) + 1
    parts = []
    for start in range(0, len(asked), _ROWS_AT_ONCE):
        filled = np.resize(np.arange(start, min(len(asked), start + _ROWS_AT_ONCE)), min(_ROWS_AT_ONCE, len(asked)))
        part = _answers_of_rows(jnp.asarray(facts.tokens[filled]), jnp.asarray(asked[filled]), seed)
        parts.append(np.asarray(part)[: len(asked) - start])
    return np.concatenate(parts) if parts else np.zeros((*facts.tokens.shape, 2), np.uint32)


@partial(jax.jit, static_argnames="seed")
def _answers_of_rows(tokens: Int32[Array, "b t"], asked: Int32[Array, " b"], seed: int) -> UInt32[Array, "b t 2"]:
    return jax.vmap(lambda row, count: answers_so_far(row, count, seed))(tokens, asked)


@partial(jax.jit, static_argnames="chosen")
def _selected(addressing: Addressing, asked: Asked, answers: UInt32[Array, "b 2"], chosen: int) -> Selection:
    return jax.vmap(lambda one, answer: addressing.select(one, answer, chosen))(asked, answers)

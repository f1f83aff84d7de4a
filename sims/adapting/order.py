"""Facts as rows for training: which are read together, in which order, and where their answers are due.

Facts are cut into halves by the length of their questions, and a minibatch holds facts of one half, so that short ones
are not padded to the longest. Questions alone decide the halves and the order: they are the same whatever the answers.

Letters: n facts, t tokens of the longest, A tokens of the longest answer with END, b facts of a minibatch,
m minibatches, h facts of a half.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from sims.keyed import keyed_order
from sims.tokens import TokenizedFacts

_STEP = 16  # widths are multiples of this: few shapes


class Rows(NamedTuple):
    """Token rows and where their answers are due; one row more than facts, in which nothing is due."""

    tokens: Int32[Array, "n+1 t"]
    places: Int32[Array, "n+1 A"]  # of the states that predict the answer's tokens
    targets: Int32[Array, "n+1 A"]  # -1 where nothing is due


class Widths(NamedTuple):
    """How much of the rows of one half is read."""

    tokens: int
    answers: int


class Minibatches(NamedTuple):
    """Which facts are read together; n fills a minibatch that is not full."""

    half: Int32[np.ndarray, " m"]
    facts: Int32[np.ndarray, "m b"]


class Halves:
    """The facts of shorter and of longer questions; one part where there are too few for two."""

    def __init__(self, facts: TokenizedFacts, minibatch: int):
        self._minibatch, self._count = minibatch, len(facts.tokens)
        by_question = np.argsort(facts.prompt_lengths, kind="stable")
        self._parts = np.array_split(by_question, 2 if self._count >= 2 * minibatch else 1)
        reach, answers = facts.lengths - 1, facts.answer_lengths  # END predicts nothing
        self.widths = tuple(
            Widths(min(_rounded(reach[part].max()), facts.tokens.shape[1]), int(answers[part].max()))
            for part in self._parts
        )

    def in_order(self) -> Minibatches:
        """Every fact once, for measuring."""
        return self._cut([np.arange(len(part)) for part in self._parts], None)

    def of_epoch(self, seed: int, epoch: int) -> Minibatches:
        """Every fact once, in an order of this epoch's own."""
        orders = [
            keyed_order(seed, f"half {number} of epoch {epoch}", len(part)) for number, part in enumerate(self._parts)
        ]
        return self._cut(orders, (seed, f"minibatches of epoch {epoch}"))

    def _cut(self, orders: list[Int[np.ndarray, " h"]], shuffled: tuple[int, str] | None) -> Minibatches:
        halves, facts = [], []
        for number, (part, order) in enumerate(zip(self._parts, orders, strict=True)):
            steps = -(-len(part) // self._minibatch)
            filled = np.full(steps * self._minibatch, self._count, np.int32)
            filled[: len(part)] = part[order]
            facts.append(filled.reshape(steps, self._minibatch))
            halves.append(np.full(steps, number, np.int32))
        half, rows = np.concatenate(halves), np.concatenate(facts)
        if shuffled is not None:
            order = keyed_order(*shuffled, len(half))
            half, rows = half[order], rows[order]
        return Minibatches(half, rows)


def rows_of(facts: TokenizedFacts) -> Rows:
    """The rows of these facts."""
    count, longest = len(facts.tokens), int(facts.answer_lengths.max(initial=1))
    tokens = np.concatenate([facts.tokens, np.zeros_like(facts.tokens, shape=(1, facts.tokens.shape[1]))])
    after = np.arange(longest)
    places = np.zeros((count + 1, longest), np.int32)
    places[:count] = facts.prompt_lengths[:, None] - 1 + after
    due = np.zeros(places.shape, bool)
    due[:count] = after < facts.answer_lengths[:, None]
    places = np.where(due, places, 0)
    targets = np.where(due, np.take_along_axis(tokens, places + 1, axis=1), -1)
    return Rows(*(jnp.asarray(array.astype(np.int32)) for array in (tokens, places, targets)))


def _rounded(length: int) -> int:
    return -(-int(length) // _STEP) * _STEP

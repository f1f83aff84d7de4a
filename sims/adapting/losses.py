"""Losses of tokens and of facts, as they are collected epoch by epoch.

Letters: n facts, e epochs, m minibatches of b facts each, A tokens of an answer with END, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from sims.adapting.order import Minibatches
from sims.measures import STORED_BELOW_NATS


def token_losses(
    logits: Float[Array, "*b V"], targets: Int32[Array, "*b"]
) -> tuple[Float[Array, "*b"], Bool[Array, "*b"]]:
    """Loss in nats of each target, and whether it is the unique argmax; 0 and True where the target is negative."""
    # Found by comparison, not by indexing: the gradient of an index is a scatter, slow on CPUs.
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == targets[..., None]
    own = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - own
    right = jnp.sum(logits >= own[..., None], axis=-1) == 1
    due = targets >= 0
    return jnp.where(due, losses, 0.0), right | ~due


class FactLosses(NamedTuple):
    """One entry a fact."""

    loss_nats: Float[Array, "*b"]  # summed over the answer's tokens and END
    largest_token_loss_nats: Float[Array, "*b"]
    greedy_correct: Bool[Array, "*b"]  # every token is the unique argmax after the right ones

    @classmethod
    def of(cls, losses: Float[Array, "*b A"], right: Bool[Array, "*b A"]) -> "FactLosses":
        """Of the losses of its tokens, zero where none is due."""
        return cls(jnp.sum(losses, axis=-1), jnp.max(losses, axis=-1), jnp.all(right, axis=-1))


class Curves:
    """What was measured after each epoch, in the order of the facts."""

    def __init__(self, facts: int, measured: Minibatches):
        self._facts, self._rows = facts, measured.facts.ravel()
        self._losses: list[FactLosses] = []

    def add(self, losses: FactLosses) -> None:
        """What one epoch came to, minibatch by minibatch."""
        ordered = []
        for leaf in losses:
            values = np.asarray(leaf).ravel()
            one = np.empty(self._facts + 1, values.dtype)
            one[self._rows] = values  # what fills a minibatch goes to the row that is left out
            ordered.append(one[:-1])
        self._losses.append(FactLosses(*ordered))

    @property
    def stored(self) -> bool:
        """Whether every token of every fact was under ln 2, by the margin of `measures`, when last measured."""
        return bool(np.all(self._losses[-1].largest_token_loss_nats < STORED_BELOW_NATS))

    @property
    def arrays(self) -> tuple[Float32[np.ndarray, "e+1 n"], Float32[np.ndarray, "e+1 n"], Bool[np.ndarray, " n"]]:
        """Losses, the largest loss of a token, and at the end whether greedy decoding is right."""
        loss, largest, right = zip(*self._losses, strict=True)
        return np.stack(loss), np.stack(largest), right[-1]

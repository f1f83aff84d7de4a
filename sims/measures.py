"""What a trained network says about its facts, in float64: losses, rights and wrongs, confidence.

Letters: n facts, S positions (none for classifiers), V answers. Right and wrong are decided on logits, never on
probabilities; a tie counts as an error.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

STORED_MARGIN_NATS = 0.01  # a fact is stored when each token is under ln 2 by this margin: float32 cannot undo it
STORED_BELOW_NATS = float(np.log(2.0)) - STORED_MARGIN_NATS


@dataclass(frozen=True)
class FactMeasures:
    """One entry a fact."""

    loss_nats: Float[np.ndarray, " n"]  # summed over the answer's tokens
    largest_token_loss_nats: Float[np.ndarray, " n"]
    greedy_correct: Bool[np.ndarray, " n"]  # every token is the unique argmax after the right prefix

    @property
    def stored(self) -> Bool[np.ndarray, " n"]:
        """Every token of the answer is under ln 2 with a margin: greedy decoding gives it for certain (T1, T4)."""
        return self.largest_token_loss_nats < STORED_BELOW_NATS

    def where(self, wanted: Bool[np.ndarray, " n"], other: "FactMeasures") -> "FactMeasures":
        """These where wanted, the other's elsewhere: of a memory behind a gate."""
        return FactMeasures(
            np.where(wanted, self.loss_nats, other.loss_nats),
            np.where(wanted, self.largest_token_loss_nats, other.largest_token_loss_nats),
            np.where(wanted, self.greedy_correct, other.greedy_correct),
        )


def measure(logits: Float32[np.ndarray, "n *S V"], targets: Int[np.ndarray, "n *S"]) -> FactMeasures:
    """Measure facts from the float32 logits of their answers; targets below zero are positions to leave out."""
    scores = logits.astype(np.float64)
    known = targets >= 0
    answer = np.take_along_axis(scores, np.where(known, targets, 0)[..., None], axis=-1)[..., 0]
    loss = np.where(known, _log_sum_exp(scores) - answer, 0.0).reshape(len(targets), -1)
    rivals = np.count_nonzero(scores >= answer[..., None], axis=-1)  # the answer itself is one
    right = np.where(known, rivals == 1, True).reshape(len(targets), -1)
    return FactMeasures(loss.sum(axis=1), loss.max(axis=1), np.asarray(right.all(axis=1)))


def confidence(logits: Float32[np.ndarray, "n V"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Largest probability and entropy in nats of each row: how sure a network is where no answer is right."""
    scores = logits.astype(np.float64)
    log_probability = scores - _log_sum_exp(scores)[..., None]
    probability = np.exp(log_probability)
    return probability.max(axis=-1), -np.sum(probability * log_probability, axis=-1)


def _log_sum_exp(scores: np.ndarray) -> np.ndarray:
    # scipy's version handles signs and weights that never occur here, at four times the time.
    largest = scores.max(axis=-1)
    return largest + np.log(np.exp(scores - largest[..., None]).sum(axis=-1))

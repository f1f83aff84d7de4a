"""How many bits per fact a log-loss costs and how many an error rate costs, and the gap between the two (T10).

Letters: uniform labels over V answers, R bits per fact, L mean loss in nats, e an error rate, D(R) its least value
(`capacity.distortion`). The rate of log-loss is a straight line, that of errors is convex. A memory at the least loss
that R bits allow may err as little as D(R), or as much as one that stores some facts and guesses the rest: the loss
leaves it open. Statement and proof are the claim T10 of `theory.coverage_claims`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory import capacity
from theory.rounding import LN2, above, below, counted, non_negative

Floats = NDArray[np.float64]


def loss_at_rate_nats(rate_bits_per_fact: ArrayLike, answers: ArrayLike) -> Floats:
    """Least mean loss ln V - R ln 2 at R bits per fact, nats, at least 0; not rounded to a side.

    >>> loss_at_rate_nats([0.0, 1.0, 2.0], 4).round(12).tolist() == [round(2 * LN2, 12), round(LN2, 12), 0.0]
    True
    """
    rate = non_negative("rate_bits_per_fact", rate_bits_per_fact)
    return np.maximum(0.0, np.log(counted("answers", answers, least=2)) - rate * LN2)


def rate_at_loss_bits(mean_loss_nats: ArrayLike, answers: ArrayLike) -> Floats:
    """Bits per fact log2 V - L / ln 2 that a mean loss costs, at least 0; not rounded to a side.

    >>> float(rate_at_loss_bits(0.0, 32))
    5.0
    """
    loss = non_negative("mean_loss_nats", mean_loss_nats)
    return np.maximum(0.0, np.log2(counted("answers", answers, least=2)) - loss / LN2)


def errors_left_open(rate_bits_per_fact: ArrayLike, answers: ArrayLike) -> tuple[Floats, Floats]:
    """Smallest and largest H_map of calibrated memories at the least loss of R bits per fact; rounded outward.

    From D(R) to (1 - R/log2 V)(1 - 1/V). Guessed facts are ties: counted as errors they make the larger end
    1 - R/log2 V.

    >>> low, high = errors_left_open(1.0, 4)
    >>> round(float(low), 3), round(float(high), 3)
    (0.189, 0.375)
    """
    rate, v = non_negative("rate_bits_per_fact", rate_bits_per_fact), counted("answers", answers, least=2)
    unstored = np.maximum(0.0, 1.0 - below(rate / np.log2(v)))
    return capacity.distortion(rate, v), above(unstored * (1.0 - 1.0 / v))

"""From loss to hallucination for calibrated models: the envelopes T5 and the region T6b between them.

A model is calibrated here if the facts that share a row have answers distributed as that row says. Then its mean loss
is the mean entropy of its rows, and its error is one minus the mean of its largest probabilities.

Letters: V answers, L mean loss in nats; pi the greedy error H_map = mean(1 - max row), ties broken without looking at
the label; g the sampled error H_sampled = mean(1 - sum row^2). Both obey phi(e) <= L, where phi joins the uniform rows
over 1, 2, 3, ... answers by straight lines; from above pi obeys Fano and g the concave hull psi_V. Statements and
proofs are the claims T5 and T6b of `theory.calibration_claims`. Arguments broadcast as NumPy arrays do; intervals are
rounded outward (`theory.rounding`).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy

from theory.rounding import LN2, above, below, counted, non_negative

Floats = NDArray[np.float64]
Decoding = Literal["greedy", "sampled"]


def least_entropy_nats(error_rate: ArrayLike) -> Floats:
    """Least mean entropy phi, nats, of rows whose error rate, greedy or sampled, is e in [0, 1); not rounded.

    ln i + (i + 1) ln(1 + 1/i) (1 - i(1 - e)) for (i-1)/i <= e <= i/(i+1) (Feder & Merhav 1994); at least 2 e ln 2.

    >>> np.exp(least_entropy_nats([0.0, 0.5, 0.75])).round(12).tolist()
    [1.0, 2.0, 4.0]
    """
    e = _rates(error_rate)
    i = np.floor(1.0 / (1.0 - e))
    beyond = np.where(i == 1.0, e, 1.0 - i * (1.0 - e))  # 1 - e is exact from 1/2 on
    return np.log(i) + (i + 1.0) * np.log1p(1.0 / i) * np.maximum(0.0, beyond)


def greatest_entropy_nats(error_rate: ArrayLike, *, answers: ArrayLike, decoding: Decoding) -> Floats:
    """Greatest mean entropy of rows with this error rate, nats; not rounded. ValueError beyond 1 - 1/V.

    Greedy: h(pi) + pi ln(V - 1) (Fano). Sampled: psi_V, the same at the error 1 - a of the row (a, b, ..., b) whose
    sampled error is g, and from g* = (2V - 3)/(V(V - 1)) on the tangent that ends at (1 - 1/V, ln V).

    >>> at_the_end = greatest_entropy_nats(0.75, answers=4, decoding="sampled")
    >>> bool(np.isclose(at_the_end, np.log(4)))
    True
    """
    e, v = np.broadcast_arrays(_rates(error_rate), counted("answers", answers, least=2))
    end = 1.0 - 1.0 / v
    if np.any(e > above(end)):
        raise ValueError("error_rate must be <= 1 - 1/answers: a calibrated model does not err more")
    e = np.minimum(e, end)
    return _fano(e, v) if decoding == "greedy" else _sampled_hull(e, v)


def _fano(e: Floats, v: Floats) -> Floats:
    return -xlogy(e, e) - xlog1py(1.0 - e, -e) + xlogy(e, v - 1.0)


def _sampled_hull(g: Floats, v: Floats) -> Floats:
    curve = _fano(peaked_row_error(g, v), v)
    steepness = (v - 1.0) * np.log(v - 1.0) / np.where(v > 2.0, v - 2.0, 1.0)
    tangent = _fano(1.0 / v, v) + steepness * np.maximum(0.0, g - tangent_point(v))
    return np.where(g <= tangent_point(v), curve, tangent)


def tangent_point(answers: ArrayLike) -> Floats:
    """g*, the sampled error of the row (1 - 1/V, b, ..., b), where psi_V turns from the curve into its tangent."""
    v = np.asarray(answers, dtype=np.float64)
    return (2.0 * v - 3.0) / (v * (v - 1.0))


def peaked_row_error(sampled_error: ArrayLike, answers: ArrayLike) -> Floats:
    """1 - a of the row (a, b, ..., b), b = (1 - a)/(V - 1), a >= 1/V, whose sampled error is g <= 1 - 1/V."""
    v = np.asarray(answers, dtype=np.float64)
    share = np.minimum(1.0, np.asarray(sampled_error) * v / (v - 1.0))
    return (v - 1.0) / v * share / (1.0 + np.sqrt(1.0 - share))  # (1 - sqrt(1 - share)) without cancellation


def calibrated_loss_range(error_rate: ArrayLike, *, answers: ArrayLike, decoding: Decoding) -> tuple[Floats, Floats]:
    """Smallest and largest mean loss, nats, of a calibrated model with this error rate (T5); rounded outward.

    >>> low, high = calibrated_loss_range(0.5, answers=32, decoding="greedy")
    >>> round(float(low), 4), round(float(high), 4)
    (0.6931, 2.4101)
    """
    rate, least = _rates(error_rate), np.finfo(float).tiny
    subnormal = (rate > 0.0) & (rate < least)  # has no digits left to round in: taken to lie anywhere in (0, least)
    high = greatest_entropy_nats(np.where(subnormal, least, rate), answers=answers, decoding=decoding)
    low = least_entropy_nats(np.where(subnormal, 0.0, np.minimum(rate, 1.0 - 1.0 / np.asarray(answers))))
    return below(low), above(above(high))


def calibrated_error_rates(
    mean_loss_nats: ArrayLike, *, answers: ArrayLike, decoding: Decoding
) -> tuple[Floats, Floats]:
    """Smallest and largest error rate of a calibrated model with this mean loss (T5); rounded outward.

    `decoding` "greedy" is H_map, "sampled" H_sampled; the largest is the same for both and at most L/(2 ln 2).
    ValueError above ln V, which no calibrated model reaches. The smallest rate is ill-conditioned near ln V, where the
    entropy is flat: there an ulp of L moves it by 1e-8, outward.

    >>> low, high = calibrated_error_rates(LN2, answers=32, decoding="greedy")
    >>> round(float(low), 4), round(float(high), 4)
    (0.1044, 0.5)
    """
    loss, v = np.broadcast_arrays(non_negative("mean_loss_nats", mean_loss_nats), counted("answers", answers, least=2))
    if np.any(below(loss) > above(np.log(v))):
        raise ValueError("mean_loss_nats must be <= ln(answers): a calibrated model does not lose more")
    loss = np.minimum(loss, np.log(v))
    i = np.clip(np.floor(np.exp(loss)), 1.0, v - 1.0)
    most = (i - 1.0) / i + (loss - np.log(i)) / (i * (i + 1.0) * np.log1p(1.0 / i))
    upper = _fano if decoding == "greedy" else _sampled_hull
    fewest = _largest_below(lambda e: upper(e, v) <= below(loss) - 8 * np.spacing(loss), 1.0 - 1.0 / v)
    return fewest, np.minimum(1.0 - 1.0 / v, above(most))


def calibrated_error_upper(mean_loss_nats: ArrayLike) -> Floats:
    """Largest error of a calibrated model whatever V, greedy or sampled: min(1, L/(2 ln 2)), half its entropy in bits.

    >>> float(calibrated_error_upper(LN2)) - 0.5 < 1e-12
    True
    """
    return np.minimum(1.0, above(above(non_negative("mean_loss_nats", mean_loss_nats)) / (2.0 * LN2)))


def calibrated_region_contains(
    mean_loss_nats: ArrayLike, error_rate: ArrayLike, *, answers: ArrayLike, decoding: Decoding
) -> NDArray[np.bool_]:
    """Whether some calibrated model, its facts weighted as it likes, is at this point (T6b); exact but for rounding.

    For n equally weighted facts the region is an outer bound: only finitely many of its points belong to them.

    >>> calibrated_region_contains(LN2, [0.09, 0.3, 0.51], answers=32, decoding="greedy").tolist()
    [False, True, False]
    """
    rate = _rates(error_rate)
    v = counted("answers", answers, least=2)
    inside = rate <= above(1.0 - 1.0 / v)
    low, high = calibrated_loss_range(np.where(inside, rate, 0.0), answers=v, decoding=decoding)
    loss = non_negative("mean_loss_nats", mean_loss_nats)
    return inside & (low <= loss) & (loss <= high)


def _largest_below(holds: Callable[[Floats], NDArray[np.bool_]], end: Floats) -> Floats:
    """Largest float64 in [0, end] of a condition that holds up to some number; 0 where it never does.

    Bisection over the floats themselves, whose bit patterns are ordered as they are: exact after 63 halvings.
    """
    low, high = np.zeros(np.shape(end), dtype=np.int64), np.array(end, dtype=np.float64).view(np.int64)
    for _ in range(63):
        middle = np.asarray(low + (high - low) // 2)
        good = holds(middle.view(np.float64))
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return low.view(np.float64)


def _rates(error_rate: ArrayLike) -> Floats:
    rate = non_negative("error_rate", error_rate)
    if not np.all(rate < 1.0):
        raise ValueError("error_rate must be < 1")
    return rate

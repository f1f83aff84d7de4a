"""Are two kinds of loss curves alike? A simultaneous band for their difference, an exact test, and a yardstick.

Runs come in pairs, one of each kind, that share everything else; curve by curve their difference is taken, so what runs
share does not blur it. Two things are drawn at random: which runs were made, and which questions were asked. Facts that
one network learns together are not independent, so questions alone say nothing about other runs; the band has both
(Owen 2007: adding the two variances counts their interaction twice, which errs on the wide side).

To be alike is to lie within a margin fixed beforehand over the whole band, not to show no significant difference.

Letters: s pairs of runs, e epochs with the start, n questions, u units that are swapped.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_DRAWS = 2000  # Gaussian curves from which the band's width is read
_ALL_SWAPS = 12  # units up to which every swap is tried
_RANDOM_SWAPS = 9999


class Band(NamedTuple):
    """A mean curve, and ends between which the whole true curve lies with the wanted probability."""

    middle: Float[np.ndarray, " e"]
    low: Float[np.ndarray, " e"]
    high: Float[np.ndarray, " e"]

    def within(self, margin: float) -> Bool[np.ndarray, " e"]:
        """Where the band lies inside of +-margin: there the two kinds are alike."""
        return (self.low > -margin) & (self.high < margin)

    @property
    def apart(self) -> Bool[np.ndarray, " e"]:
        """Where the band leaves zero out: there the two kinds differ."""
        return (self.low > 0) | (self.high < 0)


def band(differences: Float[np.ndarray, "s e n"], *, level: float = 0.95, seed: int = 0) -> Band:
    """Mean over runs and questions at every epoch, with a band that holds at all epochs at once (max-|t|).

    Its width is the quantile of the largest of e correlated standardized deviations, drawn with the covariances that
    the curves have: over questions as normals, over s runs as Student's t with s - 1 degrees of freedom. For one epoch
    and question it is Student's interval. One run (one question) says nothing of others: then the band is over
    questions (runs) alone. Raises ValueError for a single curve or NaN.

    >>> found = band(np.arange(6.0).reshape(2, 1, 3))
    >>> found.middle.tolist(), found.apart.tolist()
    ([2.5], [False])
    """
    runs, epochs, questions = differences.shape
    if max(runs, questions) < 2 or not np.isfinite(differences).all():
        raise ValueError(f"a band needs two runs or two questions, and finite losses; got {runs} and {questions}")
    middle = differences.mean(axis=(0, 2))
    generator = np.random.default_rng(seed)
    draws, variance = np.zeros((_DRAWS, epochs)), np.zeros(epochs)
    for curves, heavy in ((differences.mean(axis=2), True), (differences.mean(axis=0).T, False)):
        count = len(curves)
        if count < 2:
            continue
        deviations = (curves - middle) / math.sqrt(count * (count - 1))
        tails = np.sqrt(generator.chisquare(count - 1, (_DRAWS, 1)) / (count - 1)) if heavy else 1.0
        draws += generator.standard_normal((_DRAWS, count)) @ deviations / tails
        variance += np.square(deviations).sum(axis=0)
    error = np.sqrt(variance)
    there = error > 0  # where every curve is the same there is nothing to be unsure of
    largest = np.abs(draws[:, there] / error[there]).max(axis=1, initial=0.0)
    half = np.quantile(largest, level) * error
    return Band(middle, middle - half, middle + half)


def alike_from(found: Band, margin: float) -> int | None:
    """The first epoch from which on, to the end, the band lies inside of +-margin; None if it never stays there.

    >>> alike_from(Band(np.zeros(3), np.array([-2.0, -1.0, -0.1]), np.array([2.0, 0.1, 0.1])), 0.5)
    2
    """
    outside = np.flatnonzero(~found.within(margin))
    first = int(outside[-1]) + 1 if len(outside) else 0
    return first if first < len(found.middle) else None


def swap_test(differences: Float[np.ndarray, "u e"]) -> float:
    """p-value of "in every unit the two kinds could as well be swapped", by the largest deviation over epochs.

    The deviation at an epoch is |sum of differences| over the root of their summed squares, which no swap changes.
    Every swap is tried up to 12 units, else 9999 at random (Phipson and Smyth 2010): under the null Pr[p <= a] <= a.
    Units must be able to be swapped one by one: runs are; questions of one run only if they do not touch each other.

    >>> swap_test(np.ones((3, 2)))
    0.25
    """
    units = len(differences)
    scale = np.sqrt(np.square(differences).sum(axis=0))
    scaled = differences[:, scale > 0] / scale[scale > 0]
    if units <= _ALL_SWAPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=units)))
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (_RANDOM_SWAPS, units))
        signs = np.concatenate([np.ones((1, units)), 2.0 * drawn - 1.0])
    largest = np.abs(signs @ scaled).max(axis=1, initial=0.0)
    return float((largest >= largest[0] * (1 - 1e-9)).mean())


def typical_distance(curves: Float[np.ndarray, "s e"]) -> Float[np.ndarray, " e"]:
    """Root mean square difference between two curves of one kind at every epoch: the yardstick; NaN for one curve.

    >>> typical_distance(np.array([[1.0], [3.0]])).tolist()
    [2.0]
    """
    if len(curves) < 2:
        return np.full(curves.shape[1], math.nan)
    return np.sqrt(2.0 * curves.var(axis=0, ddof=1))


def area(curve: Float[np.ndarray, " e"]) -> float:
    """What a fact costs on the way down: the loss summed over epochs (trapezoids).

    >>> area(np.array([4.0, 2.0, 0.0]))
    4.0
    """
    return float(np.trapezoid(curve))

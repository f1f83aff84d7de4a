"""An estimate and how sure we are of it: intervals for shares and means, differences and ratios of estimates.

Letters: w worlds or seeds, q questions.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri
from scipy.stats import t as student


class Interval(NamedTuple):
    """An estimate and the interval around it."""

    mean: float
    low: float
    high: float


def wilson(successes: np.ndarray | float, trials: np.ndarray | float, level: float = 0.95) -> tuple:
    """Ends of Wilson's score interval for a share (Wilson 1927); 0 and 1 without trials.

    >>> [round(float(end), 4) for end in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    low, mirrored = (_wilson_low(count, trials, level) for count in (successes, trials - successes))
    return np.where(trials > 0, low, 0.0), np.where(trials > 0, 1.0 - mirrored, 1.0)


def _wilson_low(successes: np.ndarray, trials: np.ndarray, level: float) -> np.ndarray:
    """The lower end, as product of the two ends over the upper one: nothing cancels, so that it is 0 where none won."""
    z = -ndtri((1.0 - level) / 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = successes / trials
        above = share + z**2 / (2 * trials) + z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
        return share**2 / above


def mean_interval(values: Float[np.ndarray, " w"], level: float = 0.95) -> Interval:
    """Mean over worlds with Student's interval; without width information (one world) the ends are NaN."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(student.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def paired_difference(before: Bool[np.ndarray, " q"], after: Bool[np.ndarray, " q"], level: float = 0.95) -> Interval:
    """Share of successes before less the share after, of the same q trials (Agresti & Min 2005).

    The ends are those of Wald's interval with half a trial more in each of the four cells, so that they are apart
    even where no trial changed; no more than all are lost or won.

    >>> found = paired_difference(np.array([True] * 9 + [False]), np.array([True] * 5 + [False] * 5))
    >>> [round(end, 4) for end in found]
    [0.4, 0.0206, 0.6461]
    """
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    lost, won = int(np.sum(before & ~after)), int(np.sum(~before & after))
    trials = len(before) + 2.0
    middle = (lost - won) / trials
    half = -ndtri((1.0 - level) / 2.0) * math.sqrt(lost + won + 1.0 - trials * middle**2) / trials
    return Interval((lost - won) / len(before), float(max(-1.0, middle - half)), float(min(1.0, middle + half)))


def difference(more: Interval, less: Interval) -> Interval:
    """The first less the second, of independent estimates: half widths add in squares."""
    mean = more.mean - less.mean
    half = math.hypot(more.high - more.low, less.high - less.low) / 2
    return Interval(mean, mean - half, mean + half)


def ratio(over: Interval, under: Interval) -> Interval:
    """The first over the second, of independent estimates: relative half widths, if small, add in squares.

    The first may be zero, the second not.

    >>> ratio(Interval(1.0, 0.9, 1.1), Interval(2.0, 2.0, 2.0))
    Interval(mean=0.5, low=0.45, high=0.55)
    >>> ratio(Interval(0.0, -0.1, 0.1), Interval(2.0, 1.9, 2.1))
    Interval(mean=0.0, low=-0.05, high=0.05)
    """
    mean = over.mean / under.mean
    half = math.hypot(over.high - over.low, mean * (under.high - under.low)) / abs(2 * under.mean)
    return Interval(mean, round(mean - half, 12), round(mean + half, 12))

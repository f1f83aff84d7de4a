"""A finding: what a paper claims and where, what was measured, and whether the two agree."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sims.intervals import Interval, mean_interval

Verdict = Literal["agrees", "disagrees", "depends on"]
PAPER = "arXiv 2406.17642"
CHANCE = "chance: more seeds are needed to say"


@dataclass(frozen=True)
class Finding:
    """One line of an experiment's table. `expected` is fixed before anything is measured."""

    claim: str
    source: str  # where it is printed, or from what it follows
    expected: str
    measured: Interval
    unit: str
    verdict: Verdict
    on: str = ""  # what the answer depends on, or why it is what it is
    over: str = "seeds"  # what the interval is over
    at: str = ""  # the setting, where a claim is tested at several

    @property
    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"measured": self.measured._asdict()}


def within(measured: Interval, low: float, high: float) -> tuple[Verdict, str]:
    """Agrees if the whole interval lies between `low` and `high`, disagrees if none of it, else chance decides.

    An infinite end is no end: `within(measured, 0, math.inf)` asks for more than nothing, and nothing in every seed
    is not more. Without an interval (one seed, or a number that was computed) nothing can be said against chance.

    >>> within(Interval(0.5, 0.4, 0.6), 0.3, 0.7)[0], within(Interval(0.5, 0.4, 0.6), 0.7, 1.0)[0]
    ('agrees', 'disagrees')
    >>> within(Interval(0.5, 0.4, 0.6), -math.inf, 0.5)
    ('depends on', 'chance: more seeds are needed to say')
    """
    if low < measured.low and measured.high < high:
        return "agrees", ""
    if measured.low >= high or measured.high <= low:
        return "disagrees", ""
    return "depends on", CHANCE


def over_seeds(values: Iterable[float]) -> Interval:
    """Mean and Student's 95 % interval; NaN ends for a single value.

    >>> over_seeds([1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    return mean_interval(np.array(list(values), float))


def geometric_over_seeds(values: Iterable[float]) -> Interval:
    """Geometric mean and Student's 95 % interval of the logarithm: for factors and multiples.

    >>> geometric_over_seeds([2.0, 2.0]).mean.__round__(12)
    2.0
    """
    return Interval(*(math.exp(end) for end in over_seeds(np.log(list(values)))))


def share_over_seeds(values: Iterable[float]) -> Interval:
    """The same of shares, cut off at 0 and 1.

    >>> share_over_seeds([0.0, 0.5])
    Interval(mean=0.25, low=0.0, high=1.0)
    """
    mean, low, high = over_seeds(values)
    return Interval(mean, *np.clip([low, high], 0.0, 1.0).tolist())


def percent(share: float, decimals: int = 0) -> str:
    """A share as text; what is not all is less than 100 %.

    >>> percent(1.0), percent(816 / 817), percent(0.9996, 1), percent(0.8)
    ('100%', '99%', '99.9%', '80%')
    """
    return f"{share if share >= 1.0 else min(share, 1.0 - 10.0 ** -(decimals + 2)):.{decimals}%}"


def exactly(value: float) -> Interval:
    """A number without an interval: it was computed, not sampled."""
    return Interval(value, math.nan, math.nan)


def extremes(values: Sequence[float], of: float) -> Interval:
    """`of`, with the least and the most of other settings around it; say in `over` which these are."""
    return Interval(of, min(values), max(values))

"""Tuned baselines: the best learning rate of a grid, and whether it lies on the grid's edge."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sims.store import Result


@dataclass(frozen=True)
class Tuned:
    """The best of several learning rates: the smallest mean of what is minimized over the seeds."""

    rate: float
    values: tuple[float, ...]  # what is minimized, one a seed
    runs: tuple[Result, ...]
    at_edge: bool  # a better rate may lie outside the grid

    def metric(self, name: str) -> list[float]:
        """A metric of each seed's run; NaN where it has no such number or diverged.

        >>> Tuned(0.1, (0.0,), (Result("test", {}, "diverged", {}),), at_edge=False).metric("loss")
        [nan]
        """
        values = [run.metrics.get(name) for run in self.runs]
        return [math.nan if value is None else float(value) for value in values]


def tuned(results: Iterable[Result], minimized: Callable[[Result], float]) -> Tuned:
    """The best rate of these runs, which differ in rate and seed alone; `minimized` may be infinite (not reached).

    Among rates for which some seeds are infinite, the fewer the better.
    """
    by_rate: dict[float, list[Result]] = {}
    for result in results:
        by_rate.setdefault(result.spec["learning_rate"], []).append(result)

    def order(rate: float) -> tuple[int, float]:
        values = [minimized(run) for run in by_rate[rate]]
        reached = [value for value in values if math.isfinite(value)]
        return len(values) - len(reached), sum(reached) / max(1, len(reached))

    rates = sorted(by_rate)
    best = min(rates, key=order)
    runs = tuple(sorted(by_rate[best], key=lambda run: run.spec["seed"]))
    edge = len(rates) > 1 and best in (rates[0], rates[-1])
    return Tuned(best, tuple(minimized(run) for run in runs), runs, edge)

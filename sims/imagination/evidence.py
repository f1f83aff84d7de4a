"""What the stored runs of a study say: any number of any role, over the worlds that have it, with its interval."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sims.imagination.study import Case
from sims.intervals import Interval, mean_interval
from sims.store import Result, Store

World = Mapping[str, Result]  # results by role
_ENDS = ("", "_low", "_high")


def metric_of(world: World, role: str, name: str) -> float:
    """A metric of a world's run of this role; NaN where it is not defined, KeyError where there is no such run."""
    value = world[role].metrics[name]
    return math.nan if value is None else float(value)


class Evidence:
    """Finished results by world and role; diverged ones are left out, and counted."""

    def __init__(self, cases: Iterable[Case], store: Store):
        planned = list(cases)
        results = {one.fingerprint: one for one in store.results(names={case.fingerprint for case in planned})}
        self.diverged = sum(one.status != "finished" for one in results.values())
        self._worlds: dict[int, dict[str, Result]] = {}
        self._store = store
        for case in planned:
            result = results.get(case.fingerprint)
            if result is not None and result.status == "finished":
                self._worlds.setdefault(case.what.world.seed, {})[case.role] = result

    @property
    def worlds(self) -> Sequence[World]:
        """Results by role, one mapping a world."""
        return list(self._worlds.values())

    def roles(self, word: str) -> list[str]:
        """Roles that begin with this word and end with a number, by the number."""
        known = {role for world in self.worlds for role in world if role.rpartition(" ")[0] == word}
        return sorted(known, key=lambda role: float(role.rpartition(" ")[2]))

    def metric(self, role: str, name: str) -> Interval:
        """A metric over the worlds; of one world with the interval that was stored beside it, if there is one."""
        found = [world[role] for world in self.worlds if role in world]
        if len(found) == 1:
            ends = (found[0].metrics.get(f"{name}{end}") for end in _ENDS)
            mean, low, high = (math.nan if one is None else float(one) for one in ends)
            return Interval(mean, low, high)
        return self.value(lambda world: metric_of(world, role, name))

    def value(self, of_world: Callable[[World], float]) -> Interval:
        """A number computed in each world that has what it takes, and the interval of its mean over worlds."""
        values = []
        for world in self.worlds:
            try:
                values.append(of_world(world))
            except KeyError:
                continue
        return mean_interval(np.array(values)) if values else Interval(math.nan, math.nan, math.nan)

    def combined(
        self, operation: Callable[[Interval, Interval], Interval], first: tuple[str, str], second: tuple[str, str]
    ) -> Interval:
        """`operation` on two metrics (role, name): world by world, or on their intervals where there is one world."""
        if len(self.worlds) == 1:
            return operation(self.metric(*first), self.metric(*second))

        def exact(value: float) -> Interval:
            return Interval(value, value, value)

        return self.value(
            lambda world: operation(exact(metric_of(world, *first)), exact(metric_of(world, *second))).mean
        )

    def along(self, role: str, name: str, nats: float) -> Interval:
        """A curve of a role where its loss first is this low, between snapshots by the logarithm of the loss."""
        ends = [self.value(lambda world, end=end: self._at(world, role, f"{name}{end}", nats)) for end in _ENDS]
        return Interval(*(end.mean for end in ends)) if len(self.worlds) == 1 else ends[0]

    def _at(self, world: World, role: str, name: str, nats: float) -> float:
        arrays = self.arrays(world[role])
        losses, values = np.log(arrays["curve_loss_nats"]), arrays[f"curve_{name}"]
        below = np.flatnonzero(losses <= np.log(nats))
        if not len(below) or below[0] == 0:
            raise KeyError(f"the loss of {role} does not come down to {nats}")  # leaves this world out
        after, before = below[0], below[0] - 1
        share = (losses[before] - np.log(nats)) / (losses[before] - losses[after])
        return float((1 - share) * values[before] + share * values[after])

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        """The arrays of a run."""
        return self._store.arrays(result.fingerprint)

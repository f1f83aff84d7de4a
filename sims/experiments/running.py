"""Running the cases that a store lacks: networks that learn facts in the sweep's lanes, the rest side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sims.cases import side_by_side
from sims.experiments.experiment import Case
from sims.grid import Planned
from sims.lanes import Lanes
from sims.runs import outcome
from sims.store import Result, Store
from sims.sweep import sweep

# Seen on a core of the machine of the README, for networks of this size; audit and measurements of one run.
SECONDS_PER_GIGAFLOP = {"linear": 0.35, "mlp": 0.13, "transformer": 0.15}
SECONDS_PER_RUN = 0.25


@dataclass(frozen=True)
class FactRun:
    """A case that the sweep knows how to train: the same run in a grid and in an experiment is one run."""

    role: str
    planned: Planned

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return self.planned.run.fingerprint

    @property
    def seconds(self) -> float:
        """Expected on one core; less where a run stops early."""
        run = self.planned.run
        return run.flops / 2**30 * SECONDS_PER_GIGAFLOP[run.architecture.name] + SECONDS_PER_RUN

    def run(self) -> Result:
        """Train it by itself; `run_cases` does it faster, in company."""
        queue = [(self.planned.run, self.planned.examples())]
        lanes = Lanes(self.planned.run.architecture, self.planned.run.recipe, lambda: queue.pop() if queue else None)
        (trained,) = lanes.trained()
        return outcome(trained)


def run_cases(todo: Sequence[Case], store: Store, advanced: Callable[[float], object]) -> Iterator[Result]:
    """Run these cases on every core, keep each as soon as it is there, tell `advanced` its seconds, yield it.

    An interrupt or an error drops what has not begun; what was yielded is kept.
    """
    unique = list({case.fingerprint: case for case in todo}.values())
    trained = [case for case in unique if isinstance(case, FactRun)]
    if trained:
        due = {case.fingerprint: case.seconds for case in trained}
        for result in sweep([case.planned for case in trained], store, audits=len(trained)):
            advanced(due[result.fingerprint])
            yield result
    others = [case for case in unique if not isinstance(case, FactRun)]
    yield from side_by_side(others, store, lambda case: case.seconds, advanced)

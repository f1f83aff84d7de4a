"""The engine of this project under measurement: `sims.sweep.sweep` with all its workers, into a store."""

import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tasks import ANSWERS, FEATURES, Task

import sims.lanes
import sims.sweep
from sims.facts import synthetic_facts
from sims.grid import Grid, Planned, planned_runs
from sims.networks import LANES
from sims.runtime import set_up
from sims.store import Result, Store
from sims.training import Recipe

set_up()  # as the command does, before JAX starts


def planned(task: Task, *, seeds: Sequence[int] = (0,), exposures: int | None = None) -> list[Planned]:
    """The task's runs, once a seed; their data sets are made when first asked for."""
    grid = Grid(
        network=task.network,
        sizes=(task.size,),
        widths=(task.width,),
        answers=(ANSWERS,),
        seeds=tuple(seeds),
        learning_rates=task.learning_rates,
        exposures=(exposures or task.exposures,),
        recipe=Recipe(minibatch=task.minibatch),
    )
    return planned_runs(grid, lambda seed, _: synthetic_facts(task.size, seed=seed, feature_dim=FEATURES))


def _swept(runs: Sequence[Planned]) -> tuple[float, list[Result]]:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "runs.sqlite") as store:
        began = time.perf_counter()
        results = list(sims.sweep.sweep(runs, store, audits=len(runs)))
        return time.perf_counter() - began, results


def _warm(task: Task) -> list[Planned]:
    """Compile everything, make the data, and give back the runs to time."""
    _swept(planned(task, seeds=(10**6,), exposures=1))
    runs = planned(task)
    for one in runs:
        one.examples()
    return runs


class _Stopwatch:
    """Seconds that the workers spend in some functions of the engine, summed over threads."""

    def __init__(self):
        self.seconds = 0.0
        self._inside = threading.local()
        self._lock = threading.Lock()

    def around(self, function: Callable) -> Callable:
        """The same function, timed; a call from within a timed call is not counted twice."""

        def timed(*arguments: Any, **options: Any) -> Any:
            if getattr(self._inside, "yes", False):
                return function(*arguments, **options)
            self._inside.yes, began = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._inside.yes = False
                with self._lock:
                    self.seconds += time.perf_counter() - began

        return timed


def sweep(*, lanes: int | None = None, **task_spec: Any) -> Callable[[], dict[str, Any]]:
    """Time the task's runs from the first step to the last result in the store.

    What is timed is more than the peers do: every run is measured, audited in five formats and stored. Seconds spent
    on that are reported too, per worker. `lanes` takes the place of the constant of this network.
    """
    task = Task(**task_spec)
    if lanes is not None:
        LANES[task.network] = lanes
    runs = _warm(task)
    watch = _Stopwatch()
    sims.lanes.measure_facts = watch.around(sims.lanes.measure_facts)
    sims.sweep.outcome = watch.around(sims.sweep.outcome)

    def measurement() -> dict[str, Any]:
        seconds, results = _swept(runs)
        return {
            "fact_steps": task.fact_steps,
            "seconds": seconds,
            "measuring_seconds": watch.seconds / sims.sweep.workers(),
            "loss_nats": _median_loss(results),
        }

    return measurement


def _median_loss(results: Sequence[Result]) -> float:
    losses = [loss for result in results if isinstance(loss := result.metrics.get("loss_nats"), float)]
    return float(np.median(losses))


def memory(*, seeds: int, **task_spec: Any) -> Callable[[], dict[str, Any]]:
    """The largest resident memory of a process that sweeps the task's runs for so many seeds, in megabytes."""
    runs = planned(Task(**task_spec), seeds=range(seeds))

    def measurement() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "runs.sqlite") as store:
            trained = sum(1 for _ in sims.sweep.sweep(runs, store, audits=len(runs)))
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
        return {"runs": trained, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}

    return measurement

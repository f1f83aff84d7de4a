"""What `sweep --plan` prints: the grid, what is missing, the expected time and memory; it trains nothing."""

import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from sims.facts import Dataset
from sims.grid import DATASETS_KEPT, Grid, MakeDataset, Planned, predicted_critical_sizes
from sims.store import Store
from sims.sweep import missing, workers
from sims.training import CHUNK
from theory.console import print_json

# Share of the matrix product rate that a sweep reaches: the default grid on two cores; rough for other networks.
_SHARE_OF_PEAK = {"linear": 0.1, "mlp": 0.28, "transformer": 0.25}
_SECONDS_PER_PROGRAM = 2.0  # compilation


def print_plan(
    grid: Grid, make: MakeDataset, planned: Sequence[Planned], path: Path, *, fresh: bool, as_json: bool
) -> None:
    """Print the grid, the runs that are missing, expected time and memory, and where to look for the threshold."""
    todo = list(planned)
    if path.exists() and not fresh:
        with Store(path) as store:
            todo = missing(planned, store)
    facts = make(grid.seeds[0], grid.answers[0])
    flops = sum(one.run.flops for one in todo)
    rate = _matrix_rate()
    programs = len({(one.run.architecture, one.run.recipe.optimizer) for one in todo})
    seconds = flops / (rate * _SHARE_OF_PEAK[grid.network]) + programs * _SECONDS_PER_PROGRAM
    critical = [
        {"width": a.width, "parameters": a.parameters, "exposures": exposures, "predicted_critical_size": size}
        for a, exposures, size in predicted_critical_sizes(grid, make)
    ]
    plan = {
        "facts": facts.name,
        "answers": list(grid.answers),
        "network": grid.network,
        "sizes": list(grid.sizes),
        "widths": list(grid.widths),
        "seeds": list(grid.seeds),
        "learning_rates": list(grid.learning_rates),
        "exposures": list(grid.exposures),
        "runs": len(planned),
        "missing": len(todo),
        "fact_steps": sum(one.run.fact_steps for one in todo),
        "flops": flops,
        "expected_seconds": seconds,
        "expected_megabytes": _megabytes(facts, planned, len(grid.seeds) * len(grid.answers)),
        "critical_sizes": critical,
        "store": str(path),
    }
    if as_json:
        print_json(plan)
        return
    del plan["critical_sizes"]
    for name, value in plan.items():
        click.echo(f"  {name.replace('_', ' '):<20}{_text(value)}")
    for one in critical:
        inside = min(grid.sizes) < one["predicted_critical_size"] < max(grid.sizes)
        click.echo(
            f"  width {one['width']}: {one['parameters']:,} parameters, {one['exposures']} exposures, loss should "
            f"leave zero near {one['predicted_critical_size']:,.0f} facts" + ("" if inside else ", outside these sizes")
        )


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _matrix_rate() -> float:
    """This machine's float32 matrix product rate in FLOP/s: median of a few products of 1024 x 1024."""
    square = np.ones((1024, 1024), dtype=np.float32)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        np.matmul(square, square)
        seconds.append(time.perf_counter() - began)
    return 2 * 1024**3 / float(np.median(seconds))


def _megabytes(facts: Dataset, planned: Sequence[Planned], datasets: int) -> float:
    """Data sets in memory, and for each worker its lanes (weights, two moments, gradient) and minibatches."""
    row = facts.features.shape[1] * 4 + 8
    largest = max((one.run for one in planned), key=lambda run: run.architecture.parameters)
    lanes = largest.architecture.lanes * (16 * largest.architecture.parameters + CHUNK * largest.recipe.minibatch * row)
    return (min(datasets, DATASETS_KEPT) * len(facts) * row + workers() * lanes) / 1e6 + 250  # 250: Python with JAX

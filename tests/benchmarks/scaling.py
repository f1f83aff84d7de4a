"""Cost against work: seconds a fact-step as data sets grow, memory as grids grow.

python tests/benchmarks/scaling.py [--quick] [--markdown]
"""

from dataclasses import replace

import click
from processes import Measured, Spread, alternate, machine, print_table
from tasks import Task

SIZES = tuple(2**power for power in range(7, 15))
FACT_STEPS_AT_LEAST = 4_000_000  # at each size, so that a measurement lasts more than a second
FLAT_WITHIN = 1.2
_RUNS_AT_ONCE = 16  # a multiple of lanes times workers on machines up to 4 cores
# One row: (what grows, runs before, after) as learning rates and seeds.
_FEW_MANY = {"learning rates": ((8, 2), (80, 2)), "seeds": ((8, 2), (8, 20))}


def _task_of(size: int, exposures: int, least: int) -> Task:
    """Enough runs of this size to fill every lane, several times over where a run is short."""
    times = max(1, round(least / (size * exposures * _RUNS_AT_ONCE)))
    return Task(size=size, exposures=exposures, runs=times * _RUNS_AT_ONCE)


def _flatness(rounds: int, quick: bool, markdown: bool) -> None:
    sizes = SIZES[:3] if quick else SIZES
    tasks = [_task_of(size, 20 if quick else 250, 1 if quick else FACT_STEPS_AT_LEAST) for size in sizes]
    peers = {f"{task.size} facts, {task.runs} runs": Measured("engine:sweep", task.spec) for task in tasks}
    answers = alternate(peers, rounds).values()
    whole, training = [], []
    for task, of_size in zip(tasks, answers, strict=True):
        whole.append(Spread(tuple(1e9 * one["seconds"] / task.fact_steps for (one,) in of_size)))
        seconds = [one["seconds"] - one["measuring_seconds"] for (one,) in of_size]
        training.append(Spread(tuple(1e9 * second / task.fact_steps for second in seconds)))
    rows: list[tuple[object, ...]] = [
        (task.size, task.runs, *both) for task, *both in zip(tasks, whole, training, strict=True)
    ]
    rows.append(("largest / smallest", "", *(f"{_ratio(column):.2f}" for column in (whole, training))))
    rows.append((f"wanted <= {FLAT_WITHIN}", "", *(_verdict(_ratio(column)) for column in (whole, training))))
    headings = ("facts", "runs", "ns a fact-step", "training alone")
    print_table("Time, median (smallest-largest)", headings, rows, markdown=markdown)


def _ratio(column: list[Spread]) -> float:
    return max(one.median for one in column) / min(one.median for one in column)


def _verdict(ratio: float) -> str:
    return "met" if ratio <= FLAT_WITHIN else "NOT MET"


def _memory(quick: bool, markdown: bool) -> None:
    task = Task(size=512, exposures=1 if quick else 10)
    rows = []
    for grown, pair in _FEW_MANY.items():
        few, many = (
            Measured("engine:memory", {**replace(task, runs=rates).spec, "seeds": seeds}).once()[0]
            for rates, seeds in pair
        )
        more = many["megabytes"] - few["megabytes"]
        megabytes = (f"{one['megabytes']:.0f}" for one in (few, many))
        rows.append((grown, few["runs"], many["runs"], *megabytes, f"{1e3 * more / (many['runs'] - few['runs']):.0f}"))
    headings = ("what grows tenfold", "runs", "then", "megabytes", "then", "kilobytes a further run")
    print_table("Largest resident memory of a sweep", headings, rows, markdown=markdown)


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="Tiny, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, quick: bool, markdown: bool) -> None:
    """Time a fact-step from 2^7 to 2^14 facts; memory of a grid of few and of ten times as many runs."""
    _flatness(rounds, quick, markdown)
    _memory(quick, markdown)


if __name__ == "__main__":
    main()

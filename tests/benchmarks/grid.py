"""The default grid of `loss-threshold sweep` beside the same grid run after run in PyTorch.

    python tests/benchmarks/grid.py [--quick] [--markdown]

Ours is the whole command, from process start to the picture. PyTorch trains a few sizes of every width, one run each;
the rest is extrapolated by fact-steps, width by width, which leaves out PyTorch's own start and the making of data.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from processes import Measured, alternate, machine, print_table, worker_environment
from tasks import Task

WANTED = 5.0
_SECONDS_AT_MOST = 12.0  # for one measurement of PyTorch; what is done by then counts
_COMMAND = [sys.executable, "-c", "from figures.cli import main; main()", "sweep"]
_QUICK = ["--sizes", "128,256", "--seeds", "1"]


def _whole_command(flags: list[str], folder: Path, cache: Path) -> float:
    """Seconds of the command with a new store in `folder`; compiled programs and fonts are kept in `cache`."""
    environment = {**worker_environment(), "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.perf_counter()
    subprocess.run(
        [*_COMMAND, *flags, "--out", str(folder), "--quiet"], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def _plan(flags: list[str]) -> dict[str, Any]:
    """What the command would train, in its own words."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*_COMMAND, *flags, "--plan", "--json", "--out", folder]
        said = subprocess.run(command, env=worker_environment(), check=True, capture_output=True, text=True)
    return json.loads(said.stdout)


def _sampled(sizes: list[int]) -> list[int]:
    """A small, a middling and a large size."""
    return sorted({sizes[0], sizes[len(sizes) // 2], sizes[(5 * len(sizes)) // 6]})


def _pytorch_seconds(plan: dict[str, Any], rounds: int, cores: int) -> tuple[float, float, list[tuple[object, ...]]]:
    """Seconds for the whole grid in one process and in one a core, and a row for each width.

    One process has 1 thread or one a core, whichever was faster in a round.
    """
    (exposures,) = plan["exposures"]
    sizes = _sampled(plan["sizes"])
    fact_steps = sum(plan["sizes"]) * exposures * len(plan["seeds"]) * len(plan["learning_rates"])
    alone, beside, rows = 0.0, 0.0, []
    for width in plan["widths"]:
        spec = {**Task(exposures=exposures, width=width).spec, "sizes": sizes, "seconds_at_most": _SECONDS_AT_MOST}
        peers = {
            f"PyTorch, width {width}, 1 thread": Measured("pytorch_loop:train", spec),
            f"PyTorch, width {width}, {cores} threads": Measured("pytorch_loop:train", {**spec, "threads": cores}),
            f"PyTorch, width {width}, {cores} processes": Measured("pytorch_loop:train", spec, copies=cores),
        }
        one, several, processes = (
            [sum(run["fact_steps"] for run in runs) / max(run["seconds"] for run in runs) for runs in of_peer]
            for of_peer in alternate(peers, rounds).values()
        )
        rate, side_by_side = median(map(max, one, several)), median(processes)
        alone, beside = alone + fact_steps / rate, beside + fact_steps / side_by_side
        medians = (f"{median(rates):,.0f}" for rates in (one, several, processes))
        rows.append((width, ", ".join(map(str, sizes)), *medians, f"{fact_steps / rate:.0f}"))
    return alone, beside, rows


@click.command()
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="How often PyTorch is timed.")
@click.option("--quick", is_flag=True, help="A tiny grid, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, quick: bool, markdown: bool) -> None:
    """Seconds for the default grid: the whole command, and PyTorch run after run."""
    flags = _QUICK if quick else []
    plan = _plan(flags)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cold = _whole_command(flags, folder / "cold", folder / "cache")
        warm = _whole_command(flags, folder / "warm", folder / "cache")
    cores = os.cpu_count() or 1
    alone, side_by_side, rows = _pytorch_seconds(plan, rounds, cores)
    headings = ("width", "sizes trained", "facts/s, 1 thread", f"{cores} threads", f"{cores} processes", "seconds")
    print_table("PyTorch, seconds extrapolated from the sizes trained", headings, rows, markdown=markdown)
    judged = [
        (name, f"{seconds:.1f}", f"{alone / seconds:.1f}", f"{side_by_side / seconds:.1f}", f">= {WANTED:g}", verdict)
        for name, seconds in (("nothing compiled before", cold), ("compiled before", warm))
        for verdict in ["met" if alone / seconds >= WANTED else "NOT MET"]
    ]
    work = f"{plan['runs']} runs, {plan['fact_steps']:,} fact-steps"
    print_table(
        f"{work}; PyTorch run after run {alone:.0f} s, {cores} at once {side_by_side:.0f} s",
        ("loss-threshold sweep", "seconds", "over PyTorch", f"over {cores} PyTorch at once", "wanted", "verdict"),
        judged,
        markdown=markdown,
    )


if __name__ == "__main__":
    main()

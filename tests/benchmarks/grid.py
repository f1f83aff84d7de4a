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
from typing import Any

import click
from processes import Measured, alternate, print_machine, print_table, worker_environment
from tasks import Task

WANTED = 5.0
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


def _pytorch_seconds(plan: dict[str, Any], rounds: int, copies: int) -> tuple[float, list[tuple[object, ...]]]:
    """Seconds for the whole grid in so many processes side by side, and a row for each width."""
    (exposures,) = plan["exposures"]
    sizes = _sampled(plan["sizes"])
    peers = {
        f"PyTorch, width {width}, {copies} at once": Measured(
            "pytorch_loop:train_sizes",
            {**Task(exposures=exposures, width=width).spec, "sizes": sizes} | ({"threads": [1]} if copies > 1 else {}),
            copies,
        )
        for width in plan["widths"]
    }
    answers = alternate(peers, rounds)
    repeats = len(plan["seeds"]) * len(plan["learning_rates"])
    fact_steps = sum(plan["sizes"]) * exposures * repeats
    rows, total = [], 0.0
    for width, of_peer in zip(plan["widths"], answers.values(), strict=True):
        rates = [sum(one["fact_steps"] for one in beside) / max(one["seconds"] for one in beside) for beside in of_peer]
        rate = sorted(rates)[len(rates) // 2]
        total += fact_steps / rate
        rows.append((width, copies, ", ".join(map(str, sizes)), f"{rate:,.0f}", f"{fact_steps / rate:.0f}"))
    return total, rows


@click.command()
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="How often PyTorch is timed.")
@click.option("--quick", is_flag=True, help="A tiny grid, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
def main(rounds: int, quick: bool, markdown: bool) -> None:
    """Seconds for the default grid: the whole command, and PyTorch run after run."""
    print_machine()
    flags = _QUICK if quick else []
    plan = _plan(flags)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cold = _whole_command(flags, folder / "cold", folder / "cache")
        warm = _whole_command(flags, folder / "warm", folder / "cache")
    alone, rows = _pytorch_seconds(plan, rounds, copies=1)
    cores = os.cpu_count() or 1
    side_by_side, more_rows = _pytorch_seconds(plan, rounds, copies=cores)
    print_table(
        "PyTorch, extrapolated from the sizes trained",
        ("width", "processes", "sizes trained", "facts/s", "seconds for its share of the grid"),
        rows + more_rows,
        markdown=markdown,
    )
    judged = [
        (name, f"{seconds:.1f}", f"{alone / seconds:.1f}", f"{side_by_side / seconds:.1f}", f">= {WANTED:g}", verdict)
        for name, seconds in (("nothing compiled before", cold), ("compiled before", warm))
        for verdict in ["met" if alone / seconds >= WANTED else "NOT MET"]
    ]
    work = f"{plan['runs']} runs, {plan['fact_steps']:,} fact-steps"
    print_table(
        f"{work}; PyTorch run after run {alone:.0f} s, {cores} at once {side_by_side:.0f} s",
        ("loss-threshold sweep", "seconds", "over PyTorch", f"over {cores} PyTorch at once", "wanted", ""),
        judged,
        markdown=markdown,
    )


if __name__ == "__main__":
    main()

"""Measurements in processes of their own, and how they are compared: round by round, so that both sides of a ratio
saw the same machine.
"""

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

_HERE = Path(__file__).resolve().parent
_READY = "ready"
_QUIET_CORES = 0.1


@dataclass(frozen=True)
class Spread:
    """Several measurements of one number."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.values):.3g}-{max(self.values):.3g})"


@dataclass(frozen=True)
class Measured:
    """A measurement of worker.py: which function, with which arguments, in how many processes side by side."""

    function: str
    arguments: Mapping[str, Any]
    copies: int = 1

    def once(self) -> list[dict[str, Any]]:
        """Start the processes, wait until all are warm, time them together; one dictionary a process."""
        command = [sys.executable, str(_HERE / "worker.py"), self.function, json.dumps(dict(self.arguments))]
        environment = worker_environment()
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(self.copies)
        ]
        for worker in workers:
            _read_until(worker, lambda line: line == _READY)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        answers = [json.loads(_read_until(worker, lambda line: line.startswith("{"))) for worker in workers]
        for worker in workers:
            worker.communicate()
        return answers


def worker_environment() -> dict[str, str]:
    """This environment, with JAX on the CPU as PyTorch is, and the repository importable."""
    places = [str(_HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": os.pathsep.join(places)}


def _read_until(worker: subprocess.Popen, wanted: Callable[[str], bool]) -> str:
    assert worker.stdout is not None
    for line in worker.stdout:
        if wanted(line.strip()):
            return line.strip()
    raise SystemExit(f"a worker ended early with status {worker.wait()}: {worker.args}")


def alternate(peers: Mapping[str, Measured], rounds: int) -> dict[str, list[list[dict[str, Any]]]]:
    """Every peer once a round, A B C A B C: answers by peer, round and process."""
    answers: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in peers}
    for number in range(rounds):
        for name, peer in peers.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            answers[name].append(peer.once())
    return answers


def quotients(above: Iterable[float], below: Iterable[float]) -> Spread:
    """Ratios of what was measured in the same round."""
    return Spread(tuple(a / b for a, b in zip(above, below, strict=True)))


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *, markdown: bool) -> None:
    """Print rows under headings, aligned for a terminal or as a Markdown table."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    text = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    edge, between = ("| ", " | ") if markdown else ("", "  ")
    print(f"\n**{title}**\n" if markdown else f"\n{title}")
    for number, line in enumerate(text):
        print((edge + between.join(line) + (" |" if markdown else "")).rstrip())
        if markdown and number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


@contextmanager
def machine() -> Iterator[None]:
    """Print on what is measured, and afterwards whether something else was running meanwhile."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    packages = ", ".join(f"{name} {_version(name)}" for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch"))
    print(f"{_processor()}, {cores} cores; Python {platform.python_version()}, {packages}")
    began, others = time.perf_counter(), _seconds_of_others()
    yield
    used = (_seconds_of_others() - others) / (time.perf_counter() - began)
    if used > _QUIET_CORES:
        print(f"\nNot a quiet machine: other programs used {used:.2f} cores meanwhile. Measure again before quoting.")
    else:
        print(f"\nOther programs used {max(0.0, used):.2f} cores meanwhile.")


def _seconds_of_others() -> float:
    """CPU seconds that all but this process and its children have used; NaN where the system does not say."""
    try:
        user, nice, system, _, _, interrupts, soft, steal = map(
            int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        )
    except (OSError, ValueError):
        return math.nan
    ours = os.times()
    all_seconds = (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")
    return all_seconds - (ours.user + ours.system + ours.children_user + ours.children_system)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

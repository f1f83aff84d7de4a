"""A bank on disk of eight times the memory given to the process: lookups a second from a warm page cache.

python tests/benchmarks/disk.py [--limit-mebibytes 512] [--folder FOLDER] [--quick] [--markdown]

RLIMIT_DATA bounds what the process may allocate; the bank is opened unmapped, so that the process holds only the
checksums, 1/64 of the file; and the kernel's own record of the peak of everything resident (VmHWM) is compared with the
limit. The page cache is the system's and holds the whole file.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from disk_peers import CHOSEN, WIDTH
from peers import largest, limits
from processes import Measured, Spread, alternate, machine, print_table

from mome_jax.container import decode
from mome_jax.disk import DiskBank

LIMITED, UNLIMITED, ROWS = "ours, under the limit", "ours, mapped, no limit", "ours, mapped, rows alone"
PREAD, MAPPED = "pread, unchecked", "memmap, unchecked"
WANTED = 1000.0
_TIMES = 8


def _make(path: Path, experts: int) -> int:
    """A bank of random numbers, wholly in the page cache; the byte at which its values begin."""
    random, rows = np.random.default_rng(0), 1 << 18
    DiskBank.create(path, experts, WIDTH).close()
    with DiskBank.open(path, writable=True) as bank:
        for start in range(0, experts, rows):
            ids = np.arange(start, min(start + rows, experts))
            bank.write_rows(ids, random.standard_normal((ids.size, WIDTH), np.float32))
    with path.open("rb") as file:
        offset = decode(path, file).places["values"].offset
        while file.read(1 << 24):  # warm
            pass
    return offset


def _peers(path: Path, experts: int, offset: int, questions: int, limit_bytes: int) -> dict[str, Measured]:
    task = {"path": str(path), "experts": experts, "questions": questions}
    return {
        LIMITED: Measured("disk_peers:bank", {**task, "limit_bytes": limit_bytes}),
        UNLIMITED: Measured("disk_peers:bank", {**task, "limit_bytes": None}),
        ROWS: Measured("disk_peers:rows_only", task),
        PREAD: Measured("disk_peers:pread", {**task, "offset": offset}),
        MAPPED: Measured("disk_peers:mapped", {**task, "offset": offset}),
    }


def _rows(answers: Mapping[str, list[list[dict[str, Any]]]], questions: int, copied: float) -> list[tuple[object, ...]]:
    rows = []
    for name, rounds in answers.items():
        rate = Spread(tuple(one["questions"] / one["seconds"] for (one,) in rounds))
        bytes_a_second = rate.median * CHOSEN * WIDTH * 4
        peak = max(one["peak_bytes"] for (one,) in rounds)
        share = f"{bytes_a_second / copied:.2%}"
        rows.append((questions, name, rate, f"{bytes_a_second / 1e9:.3f}", share, f"{peak / 2**20:.0f}"))
    return rows


@click.command()
@click.option("--limit-mebibytes", default=512, show_default=True, type=click.IntRange(256), help="Of the process.")
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where the bank is made, and removed.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--quick", is_flag=True, help="One round; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(limit_mebibytes: int, folder: str | None, rounds: int, quick: bool, markdown: bool) -> None:
    """Lookups of 32 rows a second, one question at a time and 256 at a time, every peer in a process of its own."""
    limit_bytes, rounds = limit_mebibytes * 2**20, 1 if quick else rounds
    experts = _TIMES * limit_bytes // (4 * WIDTH)
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "bank"
        offset = _make(path, experts)
        for questions in (1, 256):
            peers = _peers(path, experts, offset, questions, limit_bytes)
            answers = alternate({**peers, "copy": limits()["copy"]}, rounds)
            copied = largest(answers.pop("copy"), "bytes_per_second")
            rows += _rows(answers, questions, copied)
            if questions == 1:
                single = answers[LIMITED]
    headings = ("questions", "how", "lookups a second", "GB/s", "of copying", "peak MiB")
    title = f"{experts:,} experts of width {WIDTH}, {_TIMES} times {limit_mebibytes} MiB, {CHOSEN} rows a lookup"
    print_table(title, headings, rows, markdown=markdown)
    rate = Spread(tuple(one["questions"] / one["seconds"] for (one,) in single))
    peak = max(one["peak_bytes"] for (one,) in single)
    within = "within the limit" if peak < limit_bytes else "OVER THE LIMIT"
    verdict = "met" if rate.median >= WANTED and peak < limit_bytes else "NOT MET"
    print(f"\nSingle lookups a second: wanted >= {WANTED:.0f}, measured {rate}, {within}: {verdict}.")


if __name__ == "__main__":
    main()

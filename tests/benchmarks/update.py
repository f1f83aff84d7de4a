"""A row-sparse step beside dense Adam and PyTorch's SparseAdam, from 2^12 to 2^22 experts, and the whole step.

python tests/benchmarks/update.py [--quick] [--markdown] [--gpu] [--huge-pages] [--part update|whole]

Rows are scattered over memory, so that finding their pages costs about as much as their bytes. Where the system leaves
the size of pages to the program (Linux: transparent_hugepage is `madvise`), glibc can ask for large ones.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
from peers import largest, limits, seconds_of
from processes import Measured, Spread, alternate, machine, print_table, quotients
from update_peers import CHOSEN, QUERIES, ROWS, WIDTH

ADAM, SGD, ADAFACTOR = "Adam, rows", "SGD, rows", "Adafactor, rows"
DENSE, TORCH = "optax Adam, dense", "PyTorch SparseAdam"
OURS, TORCH_WHOLE, TORCH_DENSE = "ours, whole step", "PyTorch, sparse", "PyTorch, dense"
COPY = "copy"
# Bytes of a row that must come and go: the value and its moments there and back.
_ROW_BYTES = {ADAM: 2 * 3 * 4 * WIDTH, SGD: 2 * 4 * WIDTH, ADAFACTOR: 2 * 4 * WIDTH}
_OVER_DENSE = {2**20: 40.0, 2**22: 200.0}
_OVER_SPARSE_TORCH, _COPIES, _EXPONENT = 2.0, 5.0, 0.1
_WHOLE_OVER_TORCH, _WHOLE_EXPONENT = {2**12: 1.0, 2**20: 2.0}, 0.25

Seconds = dict[int, dict[str, Spread]]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _update_peers(experts: int, with_torch: bool) -> dict[str, Measured]:
    sparse = "update_peers:sparse_jax"
    peers = {
        name: Measured(sparse, {"optimizer": optimizer, "experts": experts})
        for name, optimizer in ((ADAM, "Adam"), (SGD, "SGD"), (ADAFACTOR, "Adafactor"))
    }
    peers[DENSE] = Measured("update_peers:dense_jax", {"experts": experts})
    for threads in {1, _threads()} if with_torch else set():
        arguments = {"experts": experts, "threads": threads}
        peers[f"{TORCH}, {threads}"] = Measured("update_peers:sparse_torch", arguments)
    return peers


def _whole_peers(experts: int, with_torch: bool) -> dict[str, Measured]:
    peers = {OURS: Measured("update_peers:whole_jax", {"experts": experts})}
    for threads in {1, _threads()} if with_torch else set():
        arguments = {"experts": experts, "threads": threads}
        peers[f"{TORCH_WHOLE}, {threads}"] = Measured("update_peers:whole_torch", {**arguments, "sparse": True})
        if experts <= 2**16:  # above it dense Adam is slower by far
            peers[f"{TORCH_DENSE}, {threads}"] = Measured("update_peers:whole_torch", {**arguments, "sparse": False})
    return peers


def _measured(peers: Mapping[str, Measured], rounds: int) -> tuple[dict[str, Spread], float]:
    """Seconds of each peer, and the bytes a second that a copy reached."""
    answers: Any = alternate({**peers, COPY: limits()[COPY]}, rounds)
    bandwidth = largest(answers.pop(COPY), "bytes_per_second")
    return {name: seconds_of(of_peer) for name, of_peer in answers.items()}, bandwidth


def _best(seconds: Mapping[str, Spread], start: str) -> Spread | None:
    """The fastest peer of that name in each round, whatever its threads."""
    rounds = [spread.values for name, spread in seconds.items() if name.startswith(start)]
    return Spread(tuple(map(min, zip(*rounds, strict=True)))) if rounds else None


def _exponent(seconds: Seconds, name: str) -> float:
    """e of the least-squares line time ~ M^e."""
    sizes = sorted(seconds)
    times = [math.log(seconds[size][name].median) for size in sizes]
    return float(np.polyfit(np.log(sizes), times, 1)[0])


def _sentence(what: str, measured: Spread | float, wanted: float, *, at_most: bool = False) -> Sequence[object]:
    value = measured if isinstance(measured, float) else measured.median
    met = value <= wanted if at_most else value >= wanted
    shown = f"{measured:.3g}" if isinstance(measured, float) else measured
    return what, f"{'<=' if at_most else '>='} {wanted:g}", shown, "met" if met else "NOT MET"


def _update(sizes: Sequence[int], rounds: int, with_torch: bool, markdown: bool) -> None:
    seconds: Seconds = {}
    rows, sentences = [], []
    for size in sizes:
        seconds[size], bandwidth = _measured(_update_peers(size, with_torch), rounds)
        for name, spread in seconds[size].items():
            floor = _ROW_BYTES[name] * ROWS / bandwidth if name in _ROW_BYTES else None
            achieved = ("", "") if floor is None else (f"{spread.median / floor:.1f}", f"{floor / spread.median:.0%}")
            ours = "" if name == ADAM else quotients(spread.values, seconds[size][ADAM].values)
            milliseconds = Spread(tuple(1e3 * value for value in spread.values))
            rows.append((f"2^{size.bit_length() - 1}", name, milliseconds, *achieved, ours))
        adam = seconds[size][ADAM]
        where = f"2^{size.bit_length() - 1}"
        if size in _OVER_DENSE:
            ratio = quotients(seconds[size][DENSE].values, adam.values)
            sentences.append(_sentence(f"{where}: dense Adam over ours", ratio, _OVER_DENSE[size]))
        torch = _best(seconds[size], TORCH)
        if torch is not None:
            ratio = quotients(torch.values, adam.values)
            sentences.append(_sentence(f"{where}: SparseAdam over ours", ratio, _OVER_SPARSE_TORCH))
        floor = _ROW_BYTES[ADAM] * ROWS / bandwidth
        copies = Spread(tuple(value / floor for value in adam.values))
        sentences.append(_sentence(f"{where}: ours over the copy of its rows", copies, _COPIES, at_most=True))
    if len(sizes) > 1:
        for name in (ADAM, SGD, ADAFACTOR):
            sentences.append(_sentence(f"{name}: exponent of M", _exponent(seconds, name), _EXPONENT, at_most=True))
    title = f"One update: {QUERIES} queries, k = {CHOSEN}, {WIDTH} float32 a row, other rows at every call"
    headings = ("experts", "peer", "ms", "x copy", "of bandwidth", "its time over our Adam's")
    print_table(title, headings, rows, markdown=markdown)
    print_table("Wanted and measured", ("what", "wanted", "measured", "verdict"), sentences, markdown=markdown)


def _whole(sizes: Sequence[int], rounds: int, with_torch: bool, markdown: bool) -> None:
    seconds: Seconds = {}
    rows, sentences = [], []
    for size in sizes:
        seconds[size], _ = _measured(_whole_peers(size, with_torch), rounds)
        where = f"2^{size.bit_length() - 1}"
        for name, spread in seconds[size].items():
            ours = "" if name == OURS else quotients(spread.values, seconds[size][OURS].values)
            rows.append((where, name, Spread(tuple(1e3 * value for value in spread.values)), ours))
        torch = _best(seconds[size], "PyTorch")
        if torch is not None and size in _WHOLE_OVER_TORCH:
            ratio = quotients(torch.values, seconds[size][OURS].values)
            sentences.append(_sentence(f"{where}: best PyTorch over ours", ratio, _WHOLE_OVER_TORCH[size]))
    if len(sizes) > 1:
        exponent = _exponent(seconds, OURS)
        sentences.append(_sentence("whole step: exponent of M", exponent, _WHOLE_EXPONENT, at_most=True))
    title = (
        f"The whole step: {QUERIES} queries -> product keys, k = {CHOSEN} -> rows -> gradient -> written rows (Adam)"
    )
    print_table(title, ("experts", "peer", "ms", "its time over ours"), rows, markdown=markdown)
    print_table("Wanted and measured", ("what", "wanted", "measured", "verdict"), sentences, markdown=markdown)


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--powers", default="12,16,20,22", show_default=True, help="Numbers of experts, as powers of two.")
@click.option("--part", type=click.Choice(["update", "whole", "both"]), default="both", show_default=True)
@click.option("--gpu", is_flag=True, help="On JAX's own choice of device, and without PyTorch.")
@click.option("--huge-pages", is_flag=True, help="Every peer in 2 MiB pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1).")
@click.option("--quick", is_flag=True, help="Tiny, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, powers: str, part: str, gpu: bool, huge_pages: bool, quick: bool, markdown: bool) -> None:
    """Time per step against the number of experts, every peer in processes of its own, in alternation."""
    if gpu:
        os.environ["JAX_PLATFORMS"] = ""
    if huge_pages:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    sizes = [2**12] if quick else [2 ** int(power) for power in powers.split(",")]
    rounds = 1 if quick else rounds
    if part != "whole":
        _update(sizes, rounds, not gpu, markdown)
    if part != "update":
        _whole(sizes, rounds, not gpu, markdown)


if __name__ == "__main__":
    main()

"""Reading rows of a bank on disk, each way in a process of its own; `disk.py` compares them."""

import itertools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers import timed

WIDTH, CHOSEN, LOOKUPS = 64, 32, 200
_ROW_BYTES = 4 * WIDTH


def peak_bytes() -> int:
    """The largest memory that this process had mapped, file pages included, as the kernel recorded it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _batches(experts: int, questions: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    pool = [random.integers(0, experts, (questions, CHOSEN)).astype(np.int32) for _ in range(4096 // questions)]
    return itertools.cycle(pool)


def _looked_up(read: Callable[[np.ndarray], Any], experts: int, questions: int) -> Callable[[], dict[str, Any]]:
    """Seconds of `LOOKUPS` questions, `questions` at a time."""
    batches = _batches(experts, questions)

    def call() -> None:
        for _ in range(max(1, LOOKUPS // questions)):
            read(next(batches))

    measured = timed(call, questions=max(1, LOOKUPS // questions) * questions)
    return lambda: measured() | {"peak_bytes": peak_bytes()}


def bank(*, path: str, experts: int, questions: int, limit_bytes: int | None) -> Callable[[], dict[str, Any]]:
    """Ours, with checksums, from ids to the weighted sum on the device; under a limit if one is given."""
    import jax
    import jax.numpy as jnp

    from mome_jax.disk import DiskBank
    from mome_jax.experts import Values

    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    opened = DiskBank.open(path, mapped=limit_bytes is None)
    answer = jax.jit(jax.vmap(lambda rows, weights: Values(rows).answer(weights)))
    weights = jnp.full((questions, CHOSEN), 1 / CHOSEN)
    return _looked_up(lambda ids: answer(opened.read_rows(ids), weights).block_until_ready(), experts, questions)


def rows_only(*, path: str, experts: int, questions: int) -> Callable[[], dict[str, Any]]:
    """Ours, with checksums, the rows alone and no limit."""
    from mome_jax.disk import DiskBank

    return _looked_up(DiskBank.open(path).read_rows, experts, questions)


def pread(*, path: str, experts: int, offset: int, questions: int) -> Callable[[], dict[str, Any]]:
    """One system call a row into a buffer, nothing checked."""
    descriptor = os.open(path, os.O_RDONLY)
    buffer = np.empty((questions * CHOSEN, _ROW_BYTES), np.uint8)

    def read(ids: np.ndarray) -> None:
        for view, expert in zip(buffer, ids.reshape(-1).tolist(), strict=True):
            os.preadv(descriptor, [view.data], offset + expert * _ROW_BYTES)

    return _looked_up(read, experts, questions)


def mapped(*, path: str, experts: int, offset: int, questions: int) -> Callable[[], dict[str, Any]]:
    """numpy.memmap and an index, nothing checked and no limit: the floor."""
    values = np.memmap(path, np.float32, "r", offset, (experts, WIDTH))
    return _looked_up(lambda ids: values[ids], experts, questions)

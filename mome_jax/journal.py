"""The journal beside a bank on disk: one write, complete and checked, before any of its rows is put in place.

Written, flushed to the disk, then the rows are put in place; emptied when those have reached the disk as well. A kill
while the journal is written leaves one that does not have its checksum: the bank has not been touched, nothing of that
write is kept. A kill later leaves a complete one: the write is repeated, which changes nothing where it was done.
"""

import itertools
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mome_jax.container import as_bytes
from mome_jax.saving import sync_folder

# magic, identity of the bank, number of rows, bytes of a row, CRC-32 of these four and of what follows
_HEAD = struct.Struct("<8s16sQQI")
_MAGIC = b"mome_jrn"


class Write(NamedTuple):
    """Rows to be put in place: experts [n] int64, checksums [n] uint32, rows [n, bytes of a row] uint8."""

    experts: np.ndarray
    checksums: np.ndarray
    rows: np.ndarray


def journal_of(bank: Path) -> Path:
    """Where the journal of a bank lies."""
    return bank.with_name(bank.name + ".journal")


def record(path: Path, identity: bytes, write: Write) -> None:
    """Put `write` into the journal and return when it has reached the disk; OSError if it cannot."""
    is_new = not path.exists()
    with path.open("wb") as file:
        parts = [as_bytes(part) for part in write]
        file.write(_head(identity, write, parts))
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def pending(path: Path, identity: bytes) -> Write | None:
    """The write that may not have been put in place; None if there is none or it was never completed.

    A ValueError if it is another bank's: that must not be put here.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < _HEAD.size:
        return None
    magic, owner, count, row_bytes, _ = _HEAD.unpack_from(content)
    sizes = (8 * count, 4 * count, row_bytes * count)
    if magic != _MAGIC or len(content) != _HEAD.size + sum(sizes):
        return None
    ends = np.cumsum([_HEAD.size, *sizes]).tolist()
    experts, checksums, rows = (memoryview(content)[start:end] for start, end in itertools.pairwise(ends))
    write = Write(
        np.frombuffer(experts, "<i8"),
        np.frombuffer(checksums, "<u4"),
        np.frombuffer(rows, np.uint8).reshape(count, row_bytes),
    )
    if content[: _HEAD.size] != _head(owner, write, [experts, checksums, rows]):
        return None
    if owner != identity:
        raise ValueError(f"{path}: holds a write to another bank; move it to that bank, or remove it if that is gone")
    return write


def clear(path: Path) -> None:
    """Empty the journal: its rows have reached the disk in their place."""
    if path.exists():
        os.truncate(path, 0)


def _head(identity: bytes, write: Write, parts: list[memoryview]) -> bytes:
    described = _HEAD.pack(_MAGIC, identity, len(write.experts), write.rows.shape[1], 0)
    checksum = zlib.crc32(described)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return _HEAD.pack(_MAGIC, identity, len(write.experts), write.rows.shape[1], checksum)

"""A bank larger than memory: a file of which only the selected rows are read and written. For POSIX systems.

The file is what `saving` writes and loads, so that `saving.load` takes it into memory; beside the values [M v] it holds
a checksum of every row, compared whenever the row is read, and the sum of them, which tells one state of the bank from
another at once. A write is all or nothing, also through a kill at any moment (`journal`). One writes or several read:
the file is locked while it is open.

`DiskBank` is a bank as those of `experts` are. `read(bank, selection)` reads it bit for bit as it would in memory; for
many selections gather first, `rows = bank.gather(selections.experts)`, and give rows and weights to a jitted
`jax.vmap(Values.answer)`: the rows are gathered by the host, the rest is the device's.

Letters: M experts, k chosen, v value width, n rows.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int32

from mome_jax import journal
from mome_jax.container import RESTORE, Layout, as_bytes, decode, encode, refuse, row_checksums, supported
from mome_jax.experts import Values
from mome_jax.index import NULL
from mome_jax.row_files import SUM, Checksums, CopiedRows, MappedRows, weighted_sum
from mome_jax.saving import new_file

_IDENTITY = "disk_bank"  # in the header: 16 random bytes in hexadecimal, which tie the journal to its bank
_PAGE = 4096
_MOST_EXPERTS = 2**31 - 1  # ids are int32
_CHUNK = 1 << 24  # bytes gathered, verified or streamed at once


class DiskBank:
    """Values [M v] in a file; a context manager.

    `create` makes one, `open` opens one; both refuse in words what they cannot take (ValueError).
    """

    def __init__(self, path: Path | str, *, writable: bool = False, mapped: bool = True):
        self.path = Path(path)
        self.writable = writable
        self._descriptor = _locked(self.path, writable=writable)
        with contextlib.ExitStack() as refused:
            refused.callback(os.close, self._descriptor)
            self._layout = _layout(self.path, self._descriptor)
            self._identity = bytes.fromhex(self._layout.header[_IDENTITY])
            values, checksums = self._layout.places["values"], self._layout.places["checksums"]
            self._checksums = Checksums(self._descriptor, checksums, values.shape[0])
            refused.callback(self._checksums.close)  # what is mapped keeps the lock
            self._settle_journal()
            self._values = MappedRows(self._descriptor, values) if mapped else CopiedRows(self._descriptor, values)
            refused.pop_all()
        self._unsettled = False  # whether the journal holds a write whose rows may not have reached the disk
        self._interrupted = False

    @classmethod
    def open(cls, path: Path | str, *, writable: bool = False, mapped: bool = True) -> "DiskBank":
        """Open the bank at `path`; a write that a kill interrupted is completed first (if `writable`, else refused).

        Mapped, reading is fastest, and what was read counts as this process's memory until the system wants it back.
        Else the process holds only the checksums, 4 bytes an expert: for limited memory (see `row_files`).
        """
        return cls(path, writable=writable, mapped=mapped)

    @classmethod
    def create(
        cls,
        path: Path | str,
        experts: int,
        width: int,
        dtype: Any = np.float32,
        header: Mapping[str, Any] | None = None,
    ) -> "DiskBank":
        """A new bank of zeros, open for writing; it occupies disk only where it is written (where files can be sparse).

        Refused: an existing file, no experts or more than int32 can number, no width.
        """
        with new_file(_without_journal(path), overwrite=False) as file:
            start, layout = _encode(experts, width, np.dtype(dtype), header or {})
            file.write(start)
            file.truncate(layout.length)
        return cls(path, writable=True)

    @classmethod
    def store(
        cls, path: Path | str, values: jax.Array | np.ndarray, header: Mapping[str, Any] | None = None
    ) -> "DiskBank":
        """A new bank of the values [M v] of a bank in memory (or mapped), written in one stream; open for writing."""
        values = np.asarray(values)
        if values.ndim != 2:
            raise ValueError(f"a bank has values of shape [M v], these have {list(values.shape)}; reshape them")
        with new_file(_without_journal(path), overwrite=False) as file:
            start, layout = _encode(len(values), values.shape[1], values.dtype, header or {})
            file.write(start)
            file.truncate(layout.length)
            total = 0
            for first, rows in _chunks(values):
                checksums = row_checksums(rows)
                total += weighted_sum(np.arange(first, first + len(rows)), checksums)
                for name, part in (("checksums", checksums), ("values", rows)):
                    file.seek(layout.places[name].offset + first * (part.nbytes // len(part)))
                    file.write(as_bytes(np.ascontiguousarray(part)))
            file.seek(layout.places["values"].offset - SUM.size)
            file.write(SUM.pack(total % 2**64))
        return cls(path, writable=True)

    def __enter__(self) -> "DiskBank":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self._layout.places["values"].shape[0]

    @property
    def width(self) -> int:
        """Value width v."""
        return self._layout.places["values"].shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of a value."""
        return self._layout.places["values"].dtype

    @property
    def header(self) -> dict[str, Any]:
        """The header given when the bank was made."""
        return {name: value for name, value in self._layout.header.items() if name != _IDENTITY}

    @property
    def checksum(self) -> int:
        """A number of 64 bits that a bank of other rows hardly has; it is kept in the file, so that no row is read."""
        self._check_open()
        return self._checksums.sum

    def checksum_with(self, experts: np.ndarray, rows: np.ndarray) -> int:
        """What `checksum` is after `rows` [n v] were put at `experts` [n], all within range and none given twice."""
        self._check_open()
        return self._checksums.sum_with(experts, row_checksums(rows))

    def gather(self, experts: Int32[Array, "*n k"]) -> Values:
        """The rows of these experts as float32 [.. k v], a bank in memory; also under jit and vmap.

        Traced, it reads by a callback to the host, each time the program runs; the bank must then outlive the program.
        """
        if isinstance(experts, Tracer):
            shape = jax.ShapeDtypeStruct((*experts.shape, self.width), self.dtype)
            rows = jax.pure_callback(self.read_rows, shape, experts, vmap_method="broadcast_all")
        else:
            rows = jax.device_put(self.read_rows(experts))
        return Values(rows.astype(jnp.float32))

    def answer(self, weights: Float[Array, " k"], state: Float[Array, " d"] | None = None) -> Float[Array, " v"]:
        """The sum of all M rows, each with its weight: the whole bank is read."""
        return self.gather(jnp.arange(self.experts, dtype=jnp.int32)).answer(weights, state)

    def read_rows(self, experts: jax.Array | np.ndarray) -> np.ndarray:
        """The rows [... v] of `experts` [...]: zeros for the null expert, NaN for any other id out of range.

        A ValueError names the rows that do not have their checksums.
        """
        self._check_open()
        experts = np.asarray(experts)
        if experts.dtype.kind not in "iu":
            raise ValueError(f"experts are integers, not {experts.dtype}; convert them")
        flat = experts.reshape(-1)
        rows = np.empty((flat.size, self.width), self.dtype)
        step = max(1, _CHUNK // self._row_bytes)
        for start in range(0, flat.size, step):
            self._gather(flat[start : start + step], rows[start : start + step])
        return rows.reshape(*experts.shape, self.width)

    def write_rows(self, experts: jax.Array | np.ndarray, rows: jax.Array | np.ndarray) -> None:
        """Put `rows` [n v] at `experts` [n]: all or none, whatever happens; on return they will last.

        The null expert is not written. Refused: another type or shape, an id out of range, an expert given twice
        (combine its rows first), a bank opened for reading.
        """
        self._check_writable()
        experts, rows = np.asarray(experts), np.asarray(rows)
        self._check_rows(experts, rows)
        if (experts == NULL).any():
            experts, rows = experts[experts != NULL], rows[experts != NULL]
        if not experts.size:
            return
        order = np.argsort(experts)
        rows = np.ascontiguousarray(rows[order])
        row_bytes = rows.view(np.uint8).reshape(len(rows), self._row_bytes)
        write = journal.Write(experts[order].astype("<i8"), row_checksums(rows), row_bytes)
        self.flush()
        try:
            journal.record(journal.journal_of(self.path), self._identity, write)
        except OSError as error:
            journal.clear(journal.journal_of(self.path))
            refuse(self.path, f"its journal cannot be written ({error}), nothing was", "make room and write again")
        self._unsettled = self._interrupted = True
        try:
            after = self.checksum_with(write.experts, rows)
            _put_in_place(self._descriptor, self._layout, write)
            self._keep_sum(after)
        except OSError as error:
            refuse(self.path, f"cannot be written ({error})", "make room and open it again, which completes the write")
        self._interrupted = False

    def flush(self) -> None:
        """Return when all rows have reached their place on the disk; the journal is then empty."""
        self._check_open()
        if self._unsettled:
            os.fsync(self._descriptor)
            journal.clear(journal.journal_of(self.path))
            self._unsettled = False

    def verify(self) -> None:
        """Compare every row with its checksum; a ValueError says how many are damaged, and names the first."""
        self._check_open()
        damaged: list[int] = []
        step = max(1, _CHUNK // self._row_bytes)
        for first in range(0, self.experts, step):
            end = min(first + step, self.experts)
            wrong = row_checksums(self._values.span(first, end)) != self._checksums.span(first, end)
            damaged += (first + np.flatnonzero(wrong)).tolist()
        if damaged:
            self._refuse_damaged(np.array(damaged))
        if self.checksum != self._checksums.summed():
            refuse(self.path, "its checksums do not have the sum that is kept", RESTORE)

    def close(self) -> None:
        """Flush and close; closing twice is no error."""
        if self._descriptor < 0:
            return
        try:
            if not self._interrupted:  # else the journal stays, and the next opening completes the write
                self.flush()
        finally:
            self._values.close()
            self._checksums.close()
            os.close(self._descriptor)  # and with it the lock
            self._descriptor = -1

    @property
    def _row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def _keep_sum(self, checksum: int) -> None:
        if self._checksums.place_of_sum is not None:
            _write_all(self._descriptor, memoryview(SUM.pack(checksum)), self._checksums.place_of_sum)

    def _gather(self, experts: np.ndarray, rows: np.ndarray) -> None:
        inside = (experts >= 0) & (experts < self.experts)
        safe = np.where(inside, experts, 0)
        checksums = np.empty(safe.shape, np.uint32)
        self._values.take(safe, rows)
        self._checksums.take(safe, checksums)
        wrong = (row_checksums(rows) != checksums) & inside
        if wrong.any():
            self._refuse_damaged(np.unique(experts[wrong]))
        if not inside.all():
            rows[experts == NULL] = 0
            outside = ~inside & (experts != NULL)
            if outside.any():
                self._fill_outside(rows, outside, experts)

    def _fill_outside(self, rows: np.ndarray, outside: np.ndarray, experts: np.ndarray) -> None:
        if self.dtype.kind in "iub":
            first = experts[outside][0]
            raise ValueError(
                f"expert {first} is not one of {self.experts}, and {self.dtype} has no NaN; correct the id"
            )
        rows[outside] = np.nan

    def _settle_journal(self) -> None:
        """Complete the write that a kill interrupted, if there is one."""
        path = journal.journal_of(self.path)
        write = journal.pending(path, self._identity)
        if write is not None and not self.writable:
            refuse(self.path, "a write to it was interrupted", "open it once with writable=True, which completes that")
        if self.writable and path.exists():
            if write is not None:
                _put_in_place(self._descriptor, self._layout, write)
                self._keep_sum(self._checksums.summed())
                os.fsync(self._descriptor)
            journal.clear(path)

    def _check_rows(self, experts: np.ndarray, rows: np.ndarray) -> None:
        if experts.ndim != 1 or experts.dtype.kind not in "iu" or rows.shape != (experts.size, self.width):
            given = f"experts {experts.dtype}{list(experts.shape)} and rows {list(rows.shape)}"
            raise ValueError(f"{given} do not fit; give integers [n] and rows [n {self.width}]")
        if rows.dtype != self.dtype:
            raise ValueError(f"the bank holds {self.dtype}, the rows are {rows.dtype}; convert them")
        outside = (experts < NULL) | (experts >= self.experts)
        if outside.any():
            raise ValueError(f"expert {experts[outside][0]} is not one of the {self.experts}; correct the id")
        written, times = np.unique(experts[experts != NULL], return_counts=True)
        if (times > 1).any():
            first, count = written[times > 1][0], times[times > 1][0]
            raise ValueError(f"expert {first} is given {count} times; combine its rows first, no order is defined")

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed; open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if not self.writable:
            raise ValueError(f"{self.path} is open for reading; open it with writable=True")
        if self._interrupted:
            refuse(self.path, "a write to it was interrupted", "close it and open it again, which completes that")

    def _refuse_damaged(self, experts: np.ndarray) -> None:
        what = f"{experts.size} rows do not have their checksums, first that of expert {experts[0]}"
        refuse(self.path, what, f"write them again, or {RESTORE}")


def _put_in_place(descriptor: int, layout: Layout, write: journal.Write) -> None:
    """Rows and their checksums to where they belong; neighbors in one call."""
    breaks = np.flatnonzero(np.diff(write.experts) != 1) + 1
    starts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(write.experts)]
    values, checksums = layout.places["values"].offset, layout.places["checksums"].offset
    row_bytes = write.rows.shape[1]
    experts = write.experts[starts].tolist()
    for start, end, expert in zip(starts, ends, experts, strict=True):
        _write_all(descriptor, as_bytes(write.rows[start:end]), values + expert * row_bytes)
        _write_all(descriptor, as_bytes(write.checksums[start:end]), checksums + expert * 4)


def _write_all(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(descriptor, content, offset)
        content, offset = content[count:], offset + count


def _locked(path: Path, *, writable: bool) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    except OSError as error:
        refuse(path, f"cannot be opened ({error.strerror})", "name a bank that DiskBank made, and that you may use")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        refuse(path, "is open elsewhere" if writable else "is being written elsewhere", "close it there first")
    return descriptor


def _layout(path: Path, descriptor: int) -> Layout:
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        layout = decode(path, file)
    if _IDENTITY not in layout.header:
        refuse(path, "holds arrays, but is no bank on disk", "make one of its values with DiskBank.store")
    return layout


def _encode(experts: int, width: int, dtype: np.dtype, header: Mapping[str, Any]) -> tuple[bytes, Layout]:
    if not (1 <= experts <= _MOST_EXPERTS and width >= 1):
        raise ValueError(
            f"{experts} experts of width {width} are no bank; give 1 to {_MOST_EXPERTS} experts, width >= 1"
        )
    if _IDENTITY in header:
        raise ValueError(f"{_IDENTITY!r} is a name of the bank's own; choose another in the header")
    pages = -(-(4 * experts + SUM.size) // _PAGE)
    tensors = {  # whole pages of checksums, the sum at their end, so that values begin on one
        "checksums": (np.dtype("<u4"), (pages * _PAGE // 4,)),
        "values": (supported("values", dtype), (experts, width)),
    }
    header = {**header, _IDENTITY: secrets.token_hex(16)}
    return encode(tensors, header, {"values": "checksums"}, alignment=_PAGE)


def _without_journal(path: Path | str) -> Path:
    """The path of a bank to be made, where no journal of an earlier one may lie."""
    left = journal.journal_of(Path(path))
    if not Path(path).exists() and left.exists() and left.stat().st_size:
        refuse(left, "is the journal of a bank that is gone", "remove it, or put that bank back")
    return Path(path)


def _chunks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _CHUNK // (values.shape[1] * values.itemsize))
    for first in range(0, len(values), step):
        yield first, values[first : first + step]

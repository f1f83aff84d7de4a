"""Rows of a tensor in a file, read where they are chosen: mapped into memory, or copied by system calls.

Mapped rows are fastest, and what was touched counts as this process's memory until the system wants it back. How much
is mapped around a touched row is the system's choice (1.9 GB were seen where 64 KiB a row would have made 0.1), so that
mapping cannot be held under a limit. A row read by a call of the system costs a microsecond or two, and nothing more.
"""

import mmap
import os
import struct

import numpy as np

from mome_jax.container import Place

SUM = struct.Struct("<Q")  # of checksums
_CHUNK = 1 << 22  # checksums summed at once


class MappedRows:
    """Rows mapped into memory, without reading ahead."""

    def __init__(self, descriptor: int, place: Place):
        start = place.offset - place.offset % mmap.ALLOCATIONGRANULARITY
        length = place.offset + place.bytes - start
        self._map = mmap.mmap(descriptor, length, prot=mmap.PROT_READ, offset=start)
        self._map.madvise(mmap.MADV_RANDOM)
        numbers = np.frombuffer(self._map, place.dtype, place.bytes // place.dtype.itemsize, place.offset - start)
        self._rows = numbers.reshape(place.shape)

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows of these ids, all within range, to `out`."""
        np.take(self._rows, rows, axis=0, out=out, mode="clip")  # clip: the one mode that needs no buffer

    def span(self, first: int, end: int) -> np.ndarray:
        """The rows from `first` to before `end`."""
        return self._rows[first:end]

    def close(self) -> None:
        """Unmap; rows handed out as spans must be gone."""
        del self._rows
        self._map.close()


class CopiedRows:
    """Rows copied from the file by a system call each: the process holds nothing of it."""

    def __init__(self, descriptor: int, place: Place):
        self._descriptor = descriptor
        self._place = place
        self._row_bytes = place.bytes // place.shape[0]

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows of these ids, all within range, to `out`."""
        room, step = out.reshape(-1).view(np.uint8).data, self._row_bytes
        for number, offset in enumerate((self._place.offset + rows.astype(np.int64) * step).tolist()):
            self._fill(room[number * step : (number + 1) * step], offset)

    def span(self, first: int, end: int) -> np.ndarray:
        """The rows from `first` to before `end`."""
        rows = np.empty((end - first, *self._place.shape[1:]), self._place.dtype)
        self._fill(rows.reshape(-1).view(np.uint8).data, self._place.offset + first * self._row_bytes)
        return rows

    def close(self) -> None:
        """Nothing is held."""

    def _fill(self, room: memoryview, offset: int) -> None:
        while room:
            count = os.preadv(self._descriptor, [room], offset)
            if not count:
                raise ValueError("the file became shorter while it was open; restore it from a copy")
            room, offset = room[count:], offset + count


class Checksums(MappedRows):
    """The checksums of `count` rows, and where their room ends a sum of them: other rows hardly have the same.

    Modulo 2^64, checksum i counts 2 i + 1 times: neither a change of one row nor two rows that change places leave the
    sum as it was. Files in which none is kept have zeros there, or no room.
    """

    def __init__(self, descriptor: int, place: Place, count: int):
        super().__init__(descriptor, place)
        self._count = count
        room = place.bytes - 4 * count
        self.place_of_sum = None if room < SUM.size else place.offset + place.bytes - SUM.size

    @property
    def sum(self) -> int:
        """The sum that is kept, or that of all checksums where none is."""
        kept = 0 if self.place_of_sum is None else SUM.unpack(self._rows[-2:].tobytes())[0]
        return kept or self.summed()

    def sum_with(self, rows: np.ndarray, checksums: np.ndarray) -> int:
        """The sum if these rows, none of them twice, had these checksums."""
        before = np.empty(rows.shape, np.uint32)
        self.take(rows, before)
        return (self.sum + weighted_sum(rows, checksums) - weighted_sum(rows, before)) % 2**64

    def summed(self) -> int:
        """The sum, from the checksums."""
        total = 0
        for first in range(0, self._count, _CHUNK):
            end = min(first + _CHUNK, self._count)
            total += weighted_sum(np.arange(first, end), self.span(first, end))
        return total % 2**64


def weighted_sum(rows: np.ndarray, checksums: np.ndarray) -> int:
    """The checksums of these rows, each times 2 i + 1 for row i, modulo 2^64."""
    return int((checksums * (2 * rows.astype(np.uint64) + 1)).sum())

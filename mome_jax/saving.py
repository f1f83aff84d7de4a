"""Saving arrays and a header in one file, and loading them: all of it or a clear refusal.

A file is written beside its place, flushed to the disk, and only then given its name, so that a crash leaves the old
file or the new one. Every tensor's checksum is compared on loading. `container` describes the format; a bank on disk
(`disk`) has the same one and can be loaded as well, if it fits into memory.
"""

import contextlib
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from mome_jax.container import RESTORE, Layout, Place, as_bytes, decode, encode, refuse, row_checksums, supported

_ALIGNMENT = 64  # bytes; an array that begins so is taken over by JAX on a CPU without a copy
_CHUNK = 1 << 26  # bytes read, and checked while still in the cache


def save(
    path: Path | str,
    arrays: Mapping[str, jax.Array | np.ndarray],
    header: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write `arrays` by name and a JSON `header` to a new file; an existing one is replaced only with `overwrite`.

    Refused with a ValueError before anything is written: an existing file, a type that safetensors does not have (a
    typed random key: save its `jax.random.key_data`), a header that JSON does not return as it was given (tuples, NaN,
    keys that are not strings), no arrays at all. Arrays on the host are written without a copy.
    """
    path = Path(path)
    _check_header(header)
    host = {name: _on_host(name, array) for name, array in arrays.items()}
    if not host:
        raise ValueError(f"{path}: there is nothing to save; give at least one array")
    host = dict(sorted(host.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))  # keeps each aligned
    described = {name: (array.dtype, array.shape) for name, array in host.items()}
    checksums = {name: zlib.crc32(as_bytes(array)) for name, array in host.items()}
    start, _ = encode(described, header, checksums)
    with new_file(path, overwrite=overwrite) as file:
        file.write(start)
        for array in host.values():
            file.write(as_bytes(array))


def load(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the header of a file, compared with their checksums.

    Arrays come back in the host's memory with their type as saved (64 bits too): `jax.device_put` them, with a sharding
    where they are to be spread. A file that is truncated, damaged, foreign or being written is refused with a
    ValueError that names the file, what is wrong and the remedy.
    """
    with _opened(Path(path)) as (file, layout):
        rows_of = {checksum for checksum in layout.checksums.values() if isinstance(checksum, str)}
        arrays = {name: _read(file, place) for name, place in layout.places.items()}
        for name, array in arrays.items():
            if name not in rows_of:
                _compare(Path(path), name, array, layout.checksums[name], arrays)
    return {name: array for name, array in arrays.items() if name not in rows_of}, layout.header


def peek(path: Path | str) -> dict[str, Any]:
    """The header alone, whatever the size of the arrays; refused as by `load`."""
    with _opened(Path(path)) as (_, layout):
        return layout.header


def fingerprint(path: Path | str) -> str:
    """SHA-256 of all that precedes the arrays: header, names, shapes and checksums. No array is read.

    Files of other arrays have another one, but not a bank on disk of other rows: that has a `DiskBank.checksum`.
    Refused as by `load`.
    """
    with _opened(Path(path)) as (file, layout):
        file.seek(0)
        return hashlib.sha256(file.read(min(place.offset for place in layout.places.values()))).hexdigest()


def _check_header(header: Mapping[str, Any]) -> None:
    try:
        returned = json.loads(json.dumps(dict(header), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the header is not JSON ({error}); use strings, finite numbers, lists and mappings") from None
    if returned != dict(header):
        raise ValueError("the header would come back changed from JSON; use lists for tuples and strings for keys")


def _on_host(name: str, array: jax.Array | np.ndarray) -> np.ndarray:
    if not name or name == "__metadata__":
        raise ValueError(f"{name!r} cannot be the name of an array; choose another")
    if isinstance(array, jax.Array):
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name}: a typed random key cannot be saved; save jax.random.key_data of it")
        if not array.is_fully_addressable:
            raise ValueError(f"{name}: other processes hold parts of this array; gather it before saving")
    on_host = np.asarray(array)
    return np.asarray(on_host, dtype=supported(name, on_host.dtype), order="C")


@contextlib.contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends, after everything in it has reached the disk, and else vanishes."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists and was left as it is; choose another name or ask to overwrite it")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}.unfinished")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_name(unfinished, path, overwrite=overwrite)
        sync_folder(path.parent)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error}); choose another place or make room") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _give_name(unfinished: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        unfinished.replace(path)
        return
    try:
        path.hardlink_to(unfinished)  # unlike a renaming, this never replaces a file that appeared meanwhile
    except FileExistsError:
        raise ValueError(f"{path} appeared meanwhile and was left as it is; choose another name") from None
    except OSError:  # a file system without links
        unfinished.rename(path)


def sync_folder(folder: Path) -> None:
    """Return when the names in this folder have reached the disk, where the system can tell."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Layout]]:
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})", "name a file that mome_jax saved")
    with file:
        yield file, decode(path, file)


def _read(file: BinaryIO, place: Place) -> np.ndarray:
    """One tensor, read to where it stays."""
    room = np.empty(place.bytes + _ALIGNMENT, np.uint8)
    first = -room.ctypes.data % _ALIGNMENT
    buffer = room[first : first + place.bytes]
    file.seek(place.offset)
    for start in range(0, place.bytes, _CHUNK):
        _fill(file, buffer.data[start : start + _CHUNK])
    return buffer.view(place.dtype).reshape(place.shape)


def _fill(file: BinaryIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view)  # pyright: ignore[reportAttributeAccessIssue]
        if not count:
            raise ValueError(f"{file.name} became shorter while it was read; {RESTORE}")
        view = view[count:]


def _compare(path: Path, name: str, array: np.ndarray, checksum: int | str, arrays: Mapping[str, np.ndarray]) -> None:
    if isinstance(checksum, int):
        if zlib.crc32(as_bytes(array)) != checksum:
            refuse(path, f"{name} does not have its checksum", RESTORE)
        return
    damaged = np.flatnonzero(row_checksums(array) != arrays[checksum][: len(array)])
    if damaged.size:
        refuse(path, f"{damaged.size} rows of {name} do not have their checksums, first row {damaged[0]}", RESTORE)

"""The file format of saved arrays: safetensors, with a statement of what is in it and a checksum of everything.

A safetensors file is 8 bytes of length, a JSON header, and the tensors' bytes one after another; any reader of
safetensors can read ours. Our statement lies in the header's metadata under "mome_jax": the number of the format, the
user's header, library versions, and for each tensor a CRC-32, or the name of another tensor that holds the checksums of
its rows (a bank on disk changes row by row). "mome_jax_checksum" covers statement, names, types, shapes and places.
CRCs find accidents, not forgeries.
"""

import functools
import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import ml_dtypes
import numpy as np
import safetensors

FORMAT = 1
RESTORE = "restore it from a copy or save it again"
_STATEMENT, _CHECKSUM = "mome_jax", "mome_jax_checksum"
_LIBRARIES = ("jax", "numpy", "safetensors")
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "C64": np.dtype("<c8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def canonical_json(content: Any) -> str:
    """The one JSON text of `content`: keys sorted, no spaces, no NaN.

    >>> canonical_json({"b": 0.1, "a": [1]})
    '{"a":[1],"b":0.1}'
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def refuse(path: Path, what: str, remedy: str) -> NoReturn:
    """The one ValueError of a file that cannot be used: the file, what is wrong with it, what to do."""
    raise ValueError(f"{path}: {what}; {remedy}")


def supported(name: str, dtype: np.dtype) -> np.dtype:
    """This type as the file holds it, or a ValueError that names the tensor and the types there are."""
    if dtype.newbyteorder("<") not in _CODES:
        known = ", ".join(sorted(known.name for known in _CODES))
        raise ValueError(f"{name}: type {dtype} cannot be saved; convert it to one of {known}")
    return dtype.newbyteorder("<")


@dataclass(frozen=True)
class Place:
    """Type and shape of a tensor, and at which byte of the file it begins."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        """How many bytes it occupies."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """What a file holds, without the tensors' bytes."""

    places: Mapping[str, Place]
    header: dict[str, Any]
    checksums: Mapping[str, int | str]  # a CRC-32, or the tensor that holds the checksums of the rows

    @property
    def length(self) -> int:
        """Bytes of the whole file."""
        return max(place.offset + place.bytes for place in self.places.values())


def encode(
    tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    header: Mapping[str, Any],
    checksums: Mapping[str, int | str],
    alignment: int = 64,
) -> tuple[bytes, Layout]:
    """The bytes before the first tensor, whose number is a multiple of `alignment`, and where each tensor goes.

    Tensors follow one another in the order given, without gaps, as safetensors demands.
    """
    described, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        described[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    libraries = {library: version(library) for library in _LIBRARIES}
    statement = canonical_json(
        {"format": FORMAT, "header": dict(header), "libraries": libraries, "checksums": dict(checksums)}
    )
    metadata = {_STATEMENT: statement, _CHECKSUM: _checksum_of_header(statement, described)}
    text = json.dumps({"__metadata__": metadata, **described}, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % alignment)
    return _LENGTH.pack(len(text)) + text, Layout(_places(described, len(text)), dict(header), dict(checksums))


def decode(path: Path, file: BinaryIO) -> Layout:
    """Read and check everything before the tensors' bytes, or raise the one ValueError."""
    text = _header_text(path, file)
    try:
        # The library checks types, shapes, that there are no gaps, and the length of the file.
        with safetensors.safe_open(path, framework="np"):
            pass
        described = json.loads(text, object_pairs_hook=_without_repetition)
        metadata = described.pop("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, AttributeError, RecursionError) as error:
        refuse(
            path, f"is truncated, damaged or no safetensors file ({error})", "restore it from a copy or save it again"
        )
    if _STATEMENT not in metadata:
        refuse(path, "is a safetensors file, but not one that mome_jax saved", "read it with the safetensors library")
    statement = metadata[_STATEMENT]
    if metadata.get(_CHECKSUM) != _checksum_of_header(statement, described):
        refuse(path, "its header does not have its checksum", RESTORE)
    content = json.loads(statement)
    if content["format"] != FORMAT:
        what = f"has format {content['format']}, and this version reads format {FORMAT}"
        refuse(path, what, f"use the version that wrote it ({content['libraries']})")
    for name, tensor in described.items():
        if tensor["dtype"] not in _DTYPES:
            refuse(path, f"{name} has the unknown type {tensor['dtype']}", "use the version that wrote it")
    return Layout(_places(described, len(text)), content["header"], content["checksums"])


def _header_text(path: Path, file: BinaryIO) -> bytes:
    start = file.read(_LENGTH.size)
    length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else -1
    if not 0 < length <= min(_LONGEST_HEADER, os.fstat(file.fileno()).st_size - _LENGTH.size):
        refuse(path, "is truncated or no safetensors file", RESTORE)
    return file.read(length)


def _checksum_of_header(statement: str, described: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(canonical_json([statement, described]).encode()):08x}"


def _places(described: Mapping[str, Any], text_bytes: int) -> dict[str, Place]:
    return {
        name: Place(
            _DTYPES[tensor["dtype"]], tuple(tensor["shape"]), _LENGTH.size + text_bytes + tensor["data_offsets"][0]
        )
        for name, tensor in described.items()
    }


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return dict(pairs)


def as_bytes(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def row_checksums(rows: np.ndarray) -> np.ndarray:
    """A 32-bit checksum of each row of [n v]; a row of zero bytes has the checksum 0, so an empty file is valid.

    The upper half of sum_i a_i w_i modulo 2^64, w_i the row's 32-bit words and a_i fixed random 64-bit numbers: over
    these numbers' choice, a changed row keeps its checksum with probability 2^-32 (Dietzfelbinger 1996).

    >>> row_checksums(np.zeros((2, 3), np.float32))
    array([0, 0], dtype=uint32)
    """
    row_bytes = rows.shape[1] * rows.dtype.itemsize
    words = np.ascontiguousarray(rows).view(np.uint8).reshape(-1, row_bytes)
    if row_bytes % 4:
        words = np.pad(words, ((0, 0), (0, -row_bytes % 4)))
    words = words.view("<u4")
    return ((words.astype(np.uint64) @ _multipliers(words.shape[1])) >> np.uint64(32)).astype(np.uint32)


@functools.cache
def _multipliers(count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_128(b"mome_jax row checksums").digest(8 * count), "<u8")

"""The tensors of a checkpoint folder: where they lie, what they take, and reading them one after another.

Only safetensors files are opened: a header and plain numbers. Pickled weights can run code when they are opened, and
never are.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from mome_jax.footprint import available_bytes
from sims.checkpoints.config import read_object
from sims.checkpoints.design import Design
from theory.console import Refusal

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number
_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")
# Of networks that see images; and what older files keep though it follows from config.json.
_UNUSED = re.compile(r"(vision_tower|multi_modal_projector)\.|.*rotary_emb\.inv_freq$")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str  # as safetensors calls it

    @property
    def size_bytes(self) -> int:
        """Bytes that its numbers take in the file."""
        return math.prod(self.shape) * _TYPES[self.kind]


def find_tensors(folder: Path, design: Design) -> dict[str, StoredTensor]:
    """Where each tensor of the design lies; only headers are read.

    Raises Refusal for a folder without safetensors files, and for tensors that are missing, of another shape, of a type
    that is no float, or not known: a network that needs them is not the one that is described.
    """
    stored = {}
    for file, wanted in _files(folder).items():
        found = _header(file)
        if wanted is not None and (absent := wanted - found.keys()):
            raise Refusal(f"{file}: {min(absent)!r} is not in it, as {_INDEX} says; fetch the checkpoint again")
        for name in sorted(found if wanted is None else wanted):
            if (short := _short(name)) in stored:
                raise Refusal(f"{file}: tensor {name!r} is {short!r} for the second time; fetch the checkpoint again")
            stored[short] = found[name]
    if design.tied:
        stored.pop("lm_head", None)  # some files hold the embedding twice
    needed = design.tensors()
    for name, shape in needed.items():
        if name not in stored:
            raise Refusal(f"{folder}: tensor {name!r} is missing, which {design.family} needs; fetch the folder again")
        if stored[name].shape != shape:
            found = f"{list(stored[name].shape)}, not {list(shape)} as config.json says"
            raise Refusal(f"{stored[name].file}: tensor {name!r} is {found}; the files are of two checkpoints")
    unknown = sorted(name for name in stored.keys() - needed.keys() if not _UNUSED.match(name))
    if unknown:
        file = stored[unknown[0]].file
        raise Refusal(f"{file}: tensor {unknown[0]!r} belongs to no {design.family}; take a checkpoint without it")
    return {name: stored[name] for name in sorted(needed)}


def planned_bytes(tensors: Mapping[str, StoredTensor], dtype: Literal["float32", "bfloat16"]) -> int:
    """What reading takes at its highest: the tensors read before, and one in its file's type and twice in the other."""
    kept = highest = 0
    for _, tensor in sorted(tensors.items()):
        size = math.prod(tensor.shape) * _kind(tensor, dtype).itemsize
        highest = max(highest, kept + tensor.size_bytes + 2 * size)
        kept += size
    return max(highest, kept)


def refuse_beyond_memory(folder: Path, wanted_bytes: int) -> None:
    """Raise Refusal, with both numbers, if the memory that is free is less."""
    free = available_bytes()
    if free is not None and wanted_bytes > free:
        raise Refusal(
            f"{folder}: its weights take {wanted_bytes:,} bytes and {free:,} are free; "
            "take bfloat16, a smaller checkpoint or a larger machine"
        )


def read_tensors(
    tensors: Mapping[str, StoredTensor], dtype: Literal["float32", "bfloat16"]
) -> tuple[dict[str, jax.Array], str]:
    """The tensors as arrays on the device, and the SHA-256 of their names, types, shapes and bytes.

    One tensor is in the memory of the host at a time. Vectors (norms, biases) stay float32 in either type. The digest
    is over every byte: what tells checkpoints apart may be one number. It does not depend on the division into files.
    """
    digest, arrays = hashlib.sha256(), {}
    for name, tensor in sorted(tensors.items()):
        numbers = _numbers(tensor)
        digest.update(json.dumps([name, tensor.kind, tensor.shape]).encode())
        digest.update(numbers.reshape(-1).view(np.uint8).data)
        arrays[name] = jnp.array(numbers.astype(_kind(tensor, dtype), copy=False))
        if not jnp.isfinite(arrays[name]).all():  # which waits for it, so that the next one has the room
            raise Refusal(f"{tensor.file}: tensor {tensor.name!r} has numbers that are not finite; fetch it again")
    return arrays, digest.hexdigest()


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """The files that hold weights, and the tensors that the index wants from each; None for all of them."""
    if (index := folder / _INDEX).is_file():
        places = read_object(index).get("weight_map")
        if not isinstance(places, dict) or not places or not all(map(_names_file, places.values())):
            raise Refusal(f"{index}: weight_map does not name a file of the folder for each tensor; fetch it again")
        return {
            folder / file: {name for name, place in places.items() if place == file}
            for file in sorted(set(places.values()))
        }
    if (whole := folder / _WHOLE).is_file():
        return {whole: None}
    if pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise Refusal(f"{pickled[0]}: pickled weights are never opened; take the checkpoint as safetensors files")
    raise Refusal(f"{folder}: holds neither {_WHOLE} nor {_INDEX}; fetch the weights as safetensors files")


def _names_file(name: object) -> bool:
    """Whether it does so in one line, and without a folder, which could lead out of the checkpoint."""
    return isinstance(name, str) and name.isprintable() and name not in ("", "..") and name == Path(name).name


def _header(file: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(file, "numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            found = {
                name: StoredTensor(file, name, tuple(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{file}: is no whole safetensors file ({error}); fetch it again") from None
    for tensor in found.values():
        if tensor.kind not in _TYPES:
            wanted = "take the checkpoint in bfloat16 or float32"
            raise Refusal(f"{file}: tensor {tensor.name!r} is of type {tensor.kind}, perhaps quantized; {wanted}")
    return found


def _numbers(tensor: StoredTensor) -> np.ndarray:
    try:
        with safe_open(tensor.file, "numpy") as opened:
            return np.ascontiguousarray(opened.get_tensor(tensor.name))
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{tensor.file}: is no whole safetensors file ({error}); fetch it again") from None


def _kind(tensor: StoredTensor, dtype: Literal["float32", "bfloat16"]) -> np.dtype:
    return jnp.dtype("float32" if len(tensor.shape) == 1 else dtype)


def _short(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix).removesuffix(".weight")

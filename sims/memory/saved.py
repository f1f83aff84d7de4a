"""The files of a memory's folder as arrays and tables, and what is refused where they do not fit.

What belongs together is told by marks: the header has the mark of each file in its state, and each file that does not
have it is refused. Neither rows of a bank nor weights are read for that.

Letters: s states, M experts, v width of a state.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from mome_jax.container import decode
from mome_jax.disk import DiskBank
from mome_jax.experts import Values
from mome_jax.saving import fingerprint, load
from sims.fact_files import read_facts, write_facts
from sims.fact_report import Facts
from sims.memory.files import refusals, writing
from sims.memory.folder import Folder
from theory.console import Refusal


def bank_values(folder: Folder) -> jax.Array:
    """The values of a memory's bank, in memory; raises Refusal if the file cannot be used."""
    with refusals():
        arrays, _ = load(folder.bank)
    if "values" not in arrays:
        raise Refusal(f"{folder.bank}: holds no values; restore it from a copy")
    return jnp.asarray(arrays["values"])


def open_bank(folder: Folder) -> DiskBank:
    """The bank for reading; raises Refusal if it cannot be used."""
    with refusals():
        return DiskBank.open(folder.bank)


def bank_mark(bank: DiskBank, checksum: int | None = None) -> str:
    """The mark of a bank, or of one with another checksum: its size, and the checksum of its rows."""
    return f"{bank.experts} x {bank.width}, {bank.checksum if checksum is None else checksum:016x}"


def marks_of(*paths: Path) -> dict[str, str]:
    """The marks of the files of a memory, or of their successors, by name; raises Refusal for one that is damaged."""
    return {path.name.removesuffix(".next"): _mark_of(path) for path in paths}


def check_marks(header: Mapping[str, Any], *paths: Path) -> None:
    """Raise Refusal for a file that has not the mark that a memory's header states."""
    for path in paths:
        if header["marks"].get(path.name) != _mark_of(path):
            raise Refusal(f"{path}: belongs to another state of this memory; restore the whole folder from one copy")


def check_arrays(folder: Folder, header: Mapping[str, Any]) -> None:
    """Raise Refusal unless bank, index and the backbone, if it is the memory's own, are those that were saved together.

    A checkpoint has a fingerprint instead.
    """
    own = [folder.backbone] if header.get("checkpoint") is None else []
    check_marks(header, folder.bank, folder.index, *own)


def stored_facts(folder: Folder, header: Mapping[str, Any]) -> Facts:
    """The table of the stored facts; raises Refusal if it is not the one that was saved beside the bank."""
    check_marks(header, folder.facts)
    return read_facts(folder.facts)


def _mark_of(path: Path) -> str:
    """What this state of a file has, and hardly any other."""
    with refusals():
        if path.name.removesuffix(".next") == "bank.safetensors":
            with DiskBank.open(path) as bank:
                return bank_mark(bank)
        if ".safetensors" in path.suffixes:
            return fingerprint(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); restore the whole folder from one copy") from None


def mapped_values(bank: DiskBank) -> Values:
    """The rows of an open bank as an array: on a CPU they stay in the file, of which only what is read is loaded.

    Checksums are not compared; `bank.read_rows` does that. The bank must stay open, which keeps others from writing.
    """
    with bank.path.open("rb", buffering=0) as file:
        place = decode(bank.path, file).places["values"]
    return Values(jax.device_put(np.memmap(bank.path, place.dtype, "r", place.offset, tuple(place.shape))))


def read_states(folder: Folder, count: int, width: int) -> Float32[np.ndarray, "s v"]:
    """The states in the folder, mapped; raises Refusal if they are not those of its facts."""
    try:
        states = np.load(folder.states, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refusal(f"{folder.states}: cannot be read ({error}); delete it, it is computed again") from None
    if states.shape != (count, width) or states.dtype != np.float32:
        raise Refusal(f"{folder.states}: does not belong to these facts; delete it, it is computed again")
    return states


def write_states(path: Path, states: Float32[np.ndarray, "s v"]) -> None:
    """Write states in the place of a file that is there; a crash leaves the old one or the new one."""
    unfinished = path.with_name(path.name + ".unfinished")
    with writing(path):
        with unfinished.open("wb") as file:
            np.save(file, states)
        unfinished.replace(path)


def write_table(path: Path, facts: Facts, rows: Sequence[int] | np.ndarray) -> None:
    """Some of the facts as a file of facts; none if there are none."""
    path.unlink(missing_ok=True)
    if len(rows):
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        write_facts(unfinished, [facts.questions[row] for row in rows], [facts.answers[row] for row in rows])
        unfinished.replace(path)

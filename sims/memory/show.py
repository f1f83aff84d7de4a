"""What a memory's folder holds, for `mome show` and its picture: read from headers and file sizes, and nothing written.

Neither a row of the bank nor a weight of a model is read, and no checkpoint is hashed: that it is the one beside which
the memory was made is checked by whoever asks it.

Letters: M experts, k chosen, v width of a value.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from mome_jax.container import Layout, decode
from mome_jax.saving import peek
from sims.checkpoints.template import TEMPLATE
from sims.memory.files import refusals
from sims.memory.folder import COUNTED, SLOTS, Folder, Settings
from sims.memory.report import selection_lines
from sims.memory.show_text import shown_lines
from theory.console import Refusal, print_json
from theory.membership import false_answer_bits_lower

_SUCCEEDED = ("facts", "conflicts", "not_stored", "bank", "index", "report")  # what may lie beside its place
_TABLES, _OWN = ("facts.csv", "conflicts.csv", "not_stored.csv"), ("memory.json", "report.json", ".lock")


def run_show(flags: Mapping[str, Any]) -> tuple[dict[str, Any]] | None:
    """Print what a folder holds; what is to be drawn, which is nothing where the memory is not complete."""
    shown = described(Folder(flags["folder"], flags["backbone"]))
    if flags["as_json"]:
        print_json(shown)
    else:
        for line in shown_lines(shown):
            click.echo(line)
    return None if shown["state"] == "interrupted" else (shown,)


def described(folder: Folder) -> dict[str, Any]:
    """Everything that `mome show` prints, as plain JSON values; what is not known yet is None.

    `state` is "whole", "interrupted" (memorizing has not ended) or "pending" (files are about to take their places).
    Raises Refusal if the folder holds no memory or one of its headers is damaged.
    """
    header, settings = folder.read_header(), folder.settings()
    settled = _settled(folder, header)
    done = header["complete"]
    bank, index = (_layout(settled.bank), _layout(settled.index)) if done else (None, None)
    return {
        "folder": str(folder.path),
        "state": "interrupted" if not done else "pending" if "pending" in header else "whole",
        "facts": None if index is None else _shape(index, "identities", settled.index)[0],
        "experts": settings.experts,
        "chosen": settings.chosen,
        "value": None if bank is None else _value(bank, settings, settled.bank),
        "addresses": _addresses(settings, index, settled.index),
        "normalize": settings.normalize,
        "threshold_nats": settings.threshold_nats,
        "procedure": settings.procedure,
        "seed": settings.seed,
        "known": None if index is None else _known(header, settings, index),
        "written": _written(settled) if done else None,
        "begun": None if done else _begun(folder),
        "model": _model(settled, header),
        "edits": _edits(folder, header),
        "bytes": _bytes(folder, index),
    }


def _settled(folder: Folder, header: Mapping[str, Any]) -> Folder:
    """The folder with pending successors that still lie beside their places taken for what they succeed."""
    settled = Folder(folder.path, folder.moved_checkpoint)
    if "pending" in header:
        for name in _SUCCEEDED:
            successor = folder.next(getattr(folder, name))
            if successor.exists():
                setattr(settled, name, successor)
    return settled


def _layout(path: Path) -> Layout:
    """Types, shapes and header of a file of arrays, whose numbers stay on disk."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); restore it from a copy") from None
    with file, refusals():
        return decode(path, file)


def _shape(layout: Layout, name: str, path: Path) -> tuple[int, ...]:
    if name not in layout.places:
        raise Refusal(f"{path}: holds no {name}; restore it from a copy")
    return layout.places[name].shape


def _value(bank: Layout, settings: Settings, path: Path) -> dict[str, Any]:
    """Width and type of an expert's value, as the bank has them."""
    experts, width = _shape(bank, "values", path)
    if experts != settings.experts:
        raise Refusal(
            f"{path}: has {experts:,} experts where memory.json states {settings.experts:,}; restore it from a copy"
        )
    return {"width": width, "dtype": bank.places["values"].dtype.name}


def _addresses(settings: Settings, index: Layout | None, path: Path) -> dict[str, Any]:
    """How the k experts are found: `by_hash` of the exact context, `by_keys` through slots of product keys."""
    by_keys = settings.slots_chosen
    return {
        "kind": settings.addresses,
        "by_hash": settings.chosen - by_keys,
        "by_keys": by_keys,
        "share_by_hash": settings.share if settings.addresses == "mixed" else float(not by_keys),
        "slots": SLOTS if by_keys else None,
        "question_vector": None if index is None else _shape(index, "vectors", path)[1],
    }


def _known(header: Mapping[str, Any], settings: Settings, index: Layout) -> dict[str, Any]:
    """How known questions are told from others.

    Exact addresses ask the filter; the others compare with the stored questions themselves, and take a question more
    alike than `likeness` for a paraphrase (None: none is taken for one).
    """
    rate = header["false_acceptance_rate"]
    return {
        "by": "filter" if settings.addresses == "exact" else "comparison",
        "false_acceptance_rate": rate,
        "wanted_false_acceptance": settings.false_acceptance,
        "filter_bits_per_fact": header["filter_bits_per_fact"],
        "least_filter_bits_T20": float(false_answer_bits_lower(rate)),
        "likeness": index.header.get("radius"),
    }


def _written(settled: Folder) -> dict[str, Any]:
    """What the last writing came to, before any edit; `selection` is None if its report does not describe it."""
    report = settled.read_report()
    selection: Any = report.get("selection")
    try:
        selection_lines(selection)
    except (KeyError, TypeError, ValueError, IndexError):  # of an earlier version: nobody needs it to ask the memory
        selection = None
    return {**{name: report.get(name) for name in (*COUNTED, "worst_token_nats")}, "selection": selection}


def _begun(folder: Folder) -> dict[str, Any]:
    """How far memorizing got."""
    tokens = None
    if folder.states.exists():
        try:
            tokens = len(np.load(folder.states, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise Refusal(f"{folder.states}: cannot be read ({error}); delete it, it is computed again") from None
    saved = folder.saved_pass
    with refusals():
        passes = peek(saved).get("passes") if saved.exists() else 0
    return {"answer_tokens": tokens, "passes": passes}


def _model(settled: Folder, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """The frozen model; None where none was pretrained yet."""
    if header.get("checkpoint") is not None:
        return _checkpoint(settled, header)
    if settled.moved_checkpoint is not None:
        raise Refusal(f"--backbone {settled.moved_checkpoint}: the memory has a model of its own; leave it out")
    if not header["complete"] and not settled.backbone.exists():
        return None
    layout = _layout(settled.backbone)
    sizes = {name: layout.header.get(name) for name in ("layers", "heads", "width", "vocabulary", "context")}
    if not all(type(size) is int for size in sizes.values()):
        raise Refusal(f"{settled.backbone}: holds no byte transformer; restore it from a copy")
    parameters = sum(math.prod(place.shape) for place in layout.places.values())
    lies = {"place": str(settled.backbone), "lies_there": True, "fingerprint": None, "template": None}
    dtypes = {place.dtype.name for place in layout.places.values()}
    return {"family": "byte transformer", "dtype": ", ".join(sorted(dtypes)), **sizes, "parameters": parameters, **lies}


def _checkpoint(settled: Folder, header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header states of a checkpoint, with its sizes if a decoder of that family lies where it says."""
    stated: Any = header["checkpoint"]
    place = settled.moved_checkpoint or header.get("checkpoint_folder")
    stated = {"template": TEMPLATE} | stated if isinstance(stated, dict) else {}
    names = ("family", "dtype", "fingerprint", "template")
    if not all(isinstance(stated.get(name), str) for name in names):
        raise Refusal(f"{settled.path}: what its header says of its checkpoint is damaged; restore it from a copy")
    sizes: dict[str, int | None] = dict.fromkeys(("layers", "heads", "width", "vocabulary", "context", "parameters"))
    lies_there = False
    if place is not None and (Path(place) / "config.json").is_file():
        from sims.checkpoints.config import read_design  # only who has a checkpoint needs what it takes to read it

        design = read_design(Path(place) / "config.json")
        lies_there = design.family == stated["family"]
        if lies_there:
            sizes = {name: getattr(design, name) for name in sizes} | {"layers": len(design.layers)}
    stated = {name: stated[name] for name in names}
    return {**stated, **sizes, "place": None if place is None else str(place), "lies_there": lies_there}


def _edits(folder: Folder, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The edits that can be taken back, the oldest first."""
    made = []
    for number in range(1, header.get("edits", 0) + 1):
        with refusals():
            record = peek(folder.edits / f"{number:06d}.safetensors")
        made.append({name: record.get(name) for name in ("question", "before", "after")})
    return made


def _bytes(folder: Folder, index: Layout | None) -> dict[str, int]:
    """Bytes of the files by part, and of all together; the checkpoint is no part of the folder."""
    parts = dict.fromkeys(("bank", "filter", "questions", "index", "model", "facts", "states", "edits", "work"), 0)
    parts |= {"header": 0, "other": 0}
    for path in folder.path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            parts[_part(folder, path)] += path.stat().st_size
    if index is not None:
        within = {name: place.bytes for name, place in index.places.items()}
        parts["filter"] = within.get("filter", 0)
        parts["questions"] = within.get("identities", 0) + within.get("vectors", 0)
        parts["index"] -= parts["filter"] + parts["questions"]
    return {**parts, "total": sum(parts.values())}


def _part(folder: Folder, path: Path) -> str:
    """To which part a file of the folder belongs."""
    if path.parent in (folder.edits, folder.work):
        return path.parent.name
    name = path.name.removesuffix(".next")
    if path.parent != folder.path:
        return "other"
    if name in _TABLES:
        return "facts"
    if name in _OWN:
        return "header"
    stems = {folder.bank.name + ".journal": "bank", folder.backbone.name: "model", folder.states.name: "states"}
    stems |= {folder.bank.name: "bank", folder.index.name: "index"}
    return stems.get(name, "other")

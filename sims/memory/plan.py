"""What memorizing or adding would take, said before anything is written."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mome_jax.cross_entropy import MOST_SHIFT_STEPS, tokens_at_once
from sims.checkpoints.vocabulary import CheckpointVocabulary
from sims.fact_files import read_facts
from sims.fact_report import Facts
from sims.memory.adding import joined
from sims.memory.addressing import Addressing
from sims.memory.backbone import Adaptable
from sims.memory.due import tokens_due
from sims.memory.folder import Folder, Settings, plain
from sims.memory.known import Index
from sims.memory.memorizing import check_context, check_model, check_room, read_tokens
from sims.memory.model import Model, identity_of, model_of
from sims.memory.report import selection_lines, selection_report
from sims.tokens import TokenizedFacts
from theory.console import Refusal
from theory.experts import load_threshold

_WIDTH = 128  # of the backbone that is pretrained
_TOKENS_PER_SECOND = {"states": 60_000, "writing": 40_000}  # of a pretrained backbone, seen on two cores
_FLOPS_PER_SECOND = 4e10  # of a checkpoint, seen on two cores that did other work as well
_COPIES_OF_LOGITS = 8  # that are in memory together while a chunk is written or measured


def memorizing(
    facts: Facts,
    tokens: TokenizedFacts,
    settings: Settings,
    folder: Folder,
    model: Model | None = None,
    *,
    fresh: bool = False,
) -> dict[str, Any]:
    """Bytes, load and expected times of a new memory; raises Refusal where `memorize` would.

    The weights of a checkpoint are not needed: `model` may have its sizes alone.
    """
    found = _found(folder, {"settings": plain(settings), "facts": facts.fingerprint, **identity_of(model)}, fresh)
    due = int(tokens.answer_mask.sum())
    check_room(due, settings)
    if model is not None:
        check_model(model, tokens, facts, settings)
    width = _WIDTH if model is None else model.backbone.width
    load = due / settings.experts
    index = Index.of(facts.questions, settings)
    addressing = Addressing.of(settings, index.queries.width)
    chosen = tokens_due(tokens, index.stored(), addressing, settings.chosen, settings.seed)
    return {
        "facts": len(facts),
        "rows set aside": facts.report.rows_set_aside,
        "answer tokens": due,
        "experts": settings.experts,
        "bank bytes": settings.experts * width * 4,
        "expected passes": expected_passes(load, settings),
        **(
            {"expected seconds": _seconds(int(tokens.lengths.sum()), due, model is None)}
            if model is None or model.checkpoint is None
            else _beside_checkpoint(model, tokens, settings)
        ),
        "selection": selection_report(chosen, facts.questions, settings),
        "folder": f"{folder.path} ({found})",
    }


def adding(new: Facts, folder: Folder) -> dict[str, Any]:
    """Load before and after; raises Refusal where `add` would."""
    folder.complete_header()
    old, settings = read_facts(folder.facts), folder.settings()
    addition = joined(old, new)
    model = model_of(folder)
    tokens = read_tokens(addition.facts, model.vocabulary)
    before, after = (int(mask.sum()) for mask in (tokens.answer_mask[: len(old)], tokens.answer_mask))
    check_room(after, settings)
    check_context(model.backbone, tokens, addition.facts)
    return {
        "facts stored": len(old),
        "facts to add": addition.new,
        "stored with another answer, set aside": len(addition.contradicting),
        "rows set aside": new.report.rows_set_aside,
        "load before": round(before / settings.experts, 4),
        "load after": round(after / settings.experts, 4),
        "largest load that can be stored (T21)": round(load_threshold(settings.chosen), 4),
    }


def _found(folder: Folder, identity: Mapping[str, Any], fresh: bool) -> str:
    """What is in the folder for `memorize`; raises Refusal if that is no beginning of this memory."""
    if not folder.exists():
        entries = folder.path.iterdir() if folder.path.is_dir() else ()
        # A process that was killed before there was a header leaves these.
        if foreign := [entry.name for entry in entries if entry.name not in (".lock", "memory.json.unfinished")]:
            raise Refusal(f"{folder.path}: holds {foreign[0]!r} and no memory; choose another folder")
        return "new"
    header = folder.read_header()
    if fresh:
        return "started over: the memory that is there is deleted"
    if any(_without_fingerprint(header.get(name)) != _without_fingerprint(value) for name, value in identity.items()):
        raise Refusal(
            f"{folder.path}: holds a memory of other facts or settings, or beside another model or with another "
            "template; choose another folder or start over with --fresh"
        )
    return "complete already" if header["complete"] else "taken up where it stopped"


def _without_fingerprint(value: Any) -> Any:
    """What the header states of a checkpoint, but for what only its weights tell."""
    return {**value, "fingerprint": ""} if isinstance(value, dict) and "fingerprint" in value else value


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """A plan for people: one line a number, and the measured selection."""
    told = plan | {"template": repr(plan["template"])} if "template" in plan else plan  # which may have several lines
    lines = [f"{name}: {value}" for name, value in told.items() if name != "selection"]
    return lines + list(selection_lines(plan["selection"]) if "selection" in plan else ())


def expected_passes(load: float, settings: Settings) -> str:
    """How many passes writing takes at a load, as measured with exact addresses; learned ones may never end."""
    if settings.addresses == "learned":
        return "unknown: learned addresses share experts, and may leave facts that cannot be stored"
    if settings.procedure != "projection":
        return "unknown: gradient steps may take many"
    return "1 to 3" if load < 0.5 else "3 to 20"


def _seconds(read: int, due: int, pretrains: bool) -> str:
    states, writing = read / _TOKENS_PER_SECOND["states"], due / _TOKENS_PER_SECOND["writing"]
    first = "--pretrain-seconds for the backbone, " if pretrains else ""
    return f"{first}{states:.0f} for states, {writing:.0f} for writing (two cores)"


def _beside_checkpoint(model: Model, tokens: TokenizedFacts, settings: Settings) -> dict[str, Any]:
    """What reading and writing beside a checkpoint take: every token that is written goes through its unembedding."""
    backbone = model.backbone
    assert model.checkpoint is not None
    assert isinstance(backbone, Adaptable)
    assert isinstance(model.vocabulary, CheckpointVocabulary)
    due, unembedding = int(tokens.answer_mask.sum()), 2.0 * backbone.width * backbone.vocabulary
    lengths, counts = np.unique(tokens.lengths, return_counts=True)
    states = sum(
        count * (backbone.forward_flops(length) - length * unembedding)
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True)
    )
    # Forward and backward for each step of a shift, and forward once more to measure it.
    writing = due * unembedding * (2 * MOST_SHIFT_STEPS + 1)
    widest = max(settings.chosen * backbone.width, backbone.vocabulary)
    return {
        "checkpoint": str(model),
        "template": model.vocabulary.template,
        "special tokens of the template": list(model.vocabulary.special_tokens),
        "bytes of its weights": backbone.parameters * (2 if model.checkpoint["dtype"] == "bfloat16" else 4),
        "bytes of logits while writing": _COPIES_OF_LOGITS * 4 * tokens_at_once(widest) * backbone.vocabulary,
        "FLOPs of states": states,
        "FLOPs of a writing pass over all tokens, at most": writing,
        "expected seconds": f"{states / _FLOPS_PER_SECOND:.0f} for states, up to {writing / _FLOPS_PER_SECOND:.0f} for "
        "a pass, beside reading the weights (two cores)",
    }

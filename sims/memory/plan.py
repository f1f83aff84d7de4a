"""What memorizing or adding would take, said before anything is written."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mome_jax.saving import peek
from sims.fact_files import read_facts
from sims.fact_report import Facts
from sims.memory.adding import joined
from sims.memory.addressing import Addressing
from sims.memory.due import tokens_due
from sims.memory.folder import Folder, Settings, refusals
from sims.memory.known import Index
from sims.memory.memorizing import check_context, check_room, read_tokens
from sims.memory.report import selection_lines, selection_report
from sims.memory.saved import load_backbone
from theory.experts import load_threshold

_WIDTH = 128  # of the backbone that is pretrained
_TOKENS_PER_SECOND = {"states": 60_000, "writing": 40_000}  # seen on two cores


def memorizing(facts: Facts, settings: Settings, folder: Folder, backbone_from: Folder | None = None) -> dict[str, Any]:
    """Bytes, load and expected times of a new memory; raises Refusal where `memorize` would."""
    tokens = read_tokens(facts)
    due = int(tokens.answer_mask.sum())
    check_room(due, settings)
    width = _WIDTH
    if backbone_from is not None:
        check_context(load_backbone(backbone_from), tokens, facts)
        with refusals():
            width = int(peek(backbone_from.backbone)["width"])
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
        "expected seconds": _seconds(tokens.tokens != tokens.pad, due, backbone_from is None),
        "selection": selection_report(chosen, facts.questions, settings),
        "folder": f"{folder.path} ({'taken up where it stopped' if folder.exists() else 'new'})",
    }


def adding(new: Facts, folder: Folder) -> dict[str, Any]:
    """Load before and after; raises Refusal where `add` would."""
    folder.complete_header()
    old, settings = read_facts(folder.facts), folder.settings()
    addition = joined(old, new)
    tokens = read_tokens(addition.facts)
    before, after = (int(mask.sum()) for mask in (tokens.answer_mask[: len(old)], tokens.answer_mask))
    check_room(after, settings)
    check_context(load_backbone(folder), tokens, addition.facts)
    return {
        "facts stored": len(old),
        "facts to add": addition.new,
        "stored with another answer, set aside": len(addition.contradicting),
        "rows set aside": new.report.rows_set_aside,
        "load before": round(before / settings.experts, 4),
        "load after": round(after / settings.experts, 4),
        "largest load that can be stored (T21)": round(load_threshold(settings.chosen), 4),
    }


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """A plan for people: one line a number, and the measured selection."""
    lines = [f"{name}: {value}" for name, value in plan.items() if name != "selection"]
    return lines + list(selection_lines(plan["selection"]) if "selection" in plan else ())


def expected_passes(load: float, settings: Settings) -> str:
    """How many passes writing takes at a load, as measured with exact addresses; learned ones may never end."""
    if settings.addresses == "learned":
        return "unknown: learned addresses share experts, and may leave facts that cannot be stored"
    if settings.procedure != "projection":
        return "unknown: gradient steps may take many"
    return "1 to 3" if load < 0.5 else "3 to 20"


def _seconds(is_token: np.ndarray, due: int, pretrains: bool) -> str:
    states, writing = is_token.sum() / _TOKENS_PER_SECOND["states"], due / _TOKENS_PER_SECOND["writing"]
    first = "--pretrain-seconds for the backbone, " if pretrains else ""
    return f"{first}{states:.0f} for states, {writing:.0f} for writing (two cores)"

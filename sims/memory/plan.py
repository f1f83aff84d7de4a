"""What memorizing or adding would take, said before anything is written."""

from typing import Any

import numpy as np

from sims.fact_files import read_facts
from sims.fact_report import Facts
from sims.memory.adding import check_room, joined
from sims.memory.folder import Folder, Settings
from sims.memory.memorizing import load_backbone, read_tokens
from theory.experts import load_threshold, private_expert_approximation

_WIDTH = 128  # of the backbone that is pretrained
_TOKENS_PER_SECOND = {"states": 60_000, "writing": 40_000}  # seen on two cores


def memorizing(facts: Facts, settings: Settings, folder: Folder) -> dict[str, Any]:
    """Bytes, load and expected times of a new memory."""
    tokens = read_tokens(facts)
    due = int(tokens.answer_mask.sum())
    load, most = due / settings.experts, load_threshold(settings.chosen)
    return {
        "facts": len(facts),
        "rows set aside": facts.report.rows_set_aside,
        "answer tokens": due,
        "experts": settings.experts,
        "bank bytes": settings.experts * _WIDTH * 4,
        "load (tokens an expert)": round(load, 4),
        "largest load that can be stored (T21)": round(most, 4),
        "tokens with an expert of their own (T22)": round(
            float(private_expert_approximation(due, settings.experts, settings.chosen)), 4
        ),
        "expected passes": expected_passes(load, settings),
        "expected seconds": _seconds(tokens.tokens != tokens.pad, due),
        "folder": f"{folder.path} ({'taken up where it stopped' if folder.exists() else 'new'})",
    }


def adding(new: Facts, folder: Folder) -> dict[str, Any]:
    """Load before and after, and whether there is room."""
    old = read_facts(folder.facts)
    facts, settings = joined(old, new), folder.settings()
    before, after = (int(read_tokens(some).answer_mask.sum()) for some in (old, facts))
    check_room(after, folder)
    tokens = read_tokens(facts).tokens.shape[1]
    fits = "fits" if tokens <= load_backbone(folder).context else "does NOT fit: pretrain a backbone on all facts"
    return {
        "facts stored": len(old),
        "facts to add": len(facts) - len(old),
        "rows set aside (stored with another answer)": facts.report.rows_set_aside,
        "load before": round(before / settings.experts, 4),
        "load after": round(after / settings.experts, 4),
        "largest load that can be stored (T21)": round(load_threshold(settings.chosen), 4),
        "longest fact": f"{tokens} tokens, {fits}",
    }


def expected_passes(load: float, settings: Settings) -> str:
    """How many passes writing takes at a load, as measured with exact addresses; learned ones may never end."""
    if settings.addresses == "learned":
        return "unknown: learned addresses share experts, and may leave facts that cannot be stored"
    if load >= load_threshold(settings.chosen):
        return "never ends: more tokens than can be stored"
    return "1 to 3" if load < 0.5 else "3 to 20"


def _seconds(is_token: np.ndarray, due: int) -> str:
    states, writing = is_token.sum() / _TOKENS_PER_SECOND["states"], due / _TOKENS_PER_SECOND["writing"]
    return f"at most 45 for the backbone, {states:.0f} for its states, {writing:.0f} for writing (two cores)"

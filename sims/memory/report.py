"""The account of a memory: what mome_jax measures, and the theory's numbers beside it.

Measured: load, sharing, structural rank and extreme singular values of the selection matrix, losses, the filter's bits.
Beside it: the load up to which arbitrary values can be stored exactly (T21), how many tokens should have an expert of
their own (T22), and the least bits that telling known from unknown costs (T20).
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mome_jax.report import Pairs, after_writing, before_writing
from mome_jax.saving import peek
from sims.memory.capped import Beyond
from sims.memory.due import Due
from sims.memory.folder import Folder, Settings
from theory.experts import load_threshold, private_expert_approximation
from theory.membership import false_answer_bits_lower

_NAMED = 20


def selection_report(due: Due, questions: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The selection of all tokens, measured, with the theory's number beside each measurement that has one.

    It needs no writing. The thresholds are those of experts chosen independently and uniformly, as by exact addresses;
    learned ones share more. Pairs of tokens are named by their questions: near-identical ones condition the system
    badly, equal ones with different targets need the backbone's states to tell them apart.
    """
    measured = before_writing(due.selection, settings.experts, due.targets)
    shared, rank, values, tokens = measured.sharing, measured.rank, measured.singular_values, len(due)
    random = settings.addresses in ("exact", "nearest")
    expected = private_expert_approximation(tokens, settings.experts, settings.chosen) if random else None
    return {
        "tokens": tokens,
        "experts": settings.experts,
        "chosen": settings.chosen,
        "load": shared.load,
        "load_threshold_T21": load_threshold(settings.chosen) if random else None,
        "experts_touched": shared.touched,
        "tokens_with_a_private_expert": shared.private / max(1, tokens),
        "expected_with_a_private_expert_T22": None if expected is None else float(expected),
        "structural_rank": [rank.lower, rank.upper],
        "singular_values": None
        if values is None
        else {"largest": values.largest, "smallest": values.smallest, "exact": values.exact},
        "near_identical": _named_pairs(measured.near, due, questions),
        "same_experts_other_targets": _named_pairs(measured.impossible, due, questions),
    }


def _named_pairs(pairs: Pairs | None, due: Due, questions: Sequence[str]) -> dict[str, Any]:
    """How many pairs of tokens, and the questions of the first of them."""
    if pairs is None:
        return {"tokens": 0, "questions": []}
    facts = dict.fromkeys(zip(due.facts[pairs.first].tolist(), due.facts[pairs.second].tolist(), strict=True))
    named = [[questions[first], questions[second]] for first, second in list(facts)[:_NAMED]]
    return {"tokens": len(pairs.first), "questions": named}


def outcome_report(outcome: Any, header: Mapping[str, Any], settings: Settings, folder: Folder) -> dict[str, Any]:
    """What an `Outcome` of memorizing or adding came to, plain JSON values; `header` is that of the memory."""
    losses = after_writing(outcome.token_losses_nats, settings.threshold_nats, header["passes"], outcome.due.facts)
    facts, read, filter_rate = outcome.facts, outcome.facts.report, header["false_acceptance_rate"]
    bank_bytes = outcome.values.nbytes
    return {
        "facts": losses.facts,
        "stored": int(losses.stored.sum()),
        "not_stored": [facts.questions[row] for row in np.asarray(losses.failed)[:_NAMED].tolist()],
        "example": facts.questions[int(np.argmax(losses.stored))],
        "set_aside_rows": read.rows_set_aside,
        "merged_rows": read.merged_rows,
        "tokens": len(outcome.due),
        "threshold_nats": settings.threshold_nats,
        "worst_token_nats": _finite(losses.loss_nats.max()),
        "mean_token_nats": _finite(outcome.token_losses_nats.mean()),
        "beyond_reach": outcome.beyond._asdict(),
        "passes": header["passes"],
        "pretraining": _pretraining(folder),
        "checkpoint": None if header.get("checkpoint") is None else _checkpoint(header),
        "seconds": dict(header.get("seconds", {})),
        "bank_bytes": bank_bytes,
        "bank_bytes_per_fact": bank_bytes / losses.facts,
        "filter_bits_per_fact": header["filter_bits_per_fact"],
        "least_filter_bits_T20": float(false_answer_bits_lower(filter_rate)),
        "false_acceptance_rate": filter_rate,
        "selection": selection_report(outcome.due, facts.questions, settings),
    }


def outcome_lines(report: Mapping[str, Any], folder: Folder) -> list[str]:
    """The report for people."""
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
    least_bits = report["least_filter_bits_T20"]
    lines = [
        f"{report['stored']:,} of {report['facts']:,} facts stored: every token under {report['threshold_nats']:.3f} "
        f"nats (worst {_shown(report['worst_token_nats'])}, mean {_shown(report['mean_token_nats'])}; "
        f"{report['passes']} passes, {report['tokens']:,} tokens)",
        f"time: {seconds}",
        _backbone_line(report),
        f"bank: {report['bank_bytes'] / 1e6:,.0f} MB, {report['bank_bytes_per_fact'] / 1e3:,.1f} kB a fact",
        f"filter of questions: {report['false_acceptance_rate']:.2%} of unknown ones count as known, at "
        f"{report['filter_bits_per_fact']:.1f} bits a fact (least possible, T20: {least_bits:.1f})",
        *selection_lines(report["selection"]),
    ]
    if report["set_aside_rows"]:
        lines.append(f"{report['set_aside_rows']} rows of questions with several answers set aside in conflicts.csv")
    if report["stored"] < report["facts"]:
        lines.append(f"{report['facts'] - report['stored']} facts are in not_stored.csv; the first:")
        lines += [f"  {question}" for question in report["not_stored"]]
        lines.append(f"give {Beyond(**report.get('beyond_reach', {})).remedy}")
    lines.append(f"ask it: loss-threshold mome ask {shlex.quote(str(folder.path))} {shlex.quote(report['example'])}")
    return lines


def addition_lines(report: Mapping[str, Any], folder: Folder) -> list[str]:
    """The report of `add` for people."""
    contradicting = report["contradicting"]
    lines = outcome_lines(report, folder) if report["added"] else ["nothing was written"]
    lines.insert(0, f"{report['added']:,} facts were new")
    if contradicting:
        lines.append(f"{len(contradicting)} are stored with another answer, which stays; `mome edit` changes it:")
        lines += [
            f"  line {row['line']}: {row['question']!r}: {row['stored']!r} is stored, {row['answer']!r} is not"
            for row in contradicting[:_NAMED]
        ]
    return lines


def selection_lines(report: Mapping[str, Any]) -> Sequence[str]:
    """The selection for people."""
    values, threshold = report["singular_values"], report["load_threshold_T21"]
    limit = "" if threshold is None else f" (exact storage up to {threshold:.3f}, T21)"
    expected = report["expected_with_a_private_expert_T22"]
    law = "" if expected is None else f" (T22 expects {expected:.2%})"
    rank, tokens = report["structural_rank"], report["tokens"]
    full = "full" if rank[0] == tokens else f"{rank[0]:,} to {rank[1]:,} of {tokens:,}"
    lines = [
        f"load {report['load']:.3f} tokens an expert{limit}; structural rank {full}",
        f"{report['tokens_with_a_private_expert']:.2%} of the tokens have an expert of their own{law}",
    ]
    if values is not None:
        kind = "exactly" if values["exact"] else "at least"
        condition = values["largest"] / values["smallest"] if values["smallest"] > 0 else float("inf")
        lines.append(f"condition number of the selection: {kind} {condition:.3g}")
    for name, what in (
        ("near_identical", "pairs of tokens choose nearly the same experts"),
        ("same_experts_other_targets", "pairs of tokens choose the same experts for different targets"),
    ):
        pairs = report[name]
        if pairs["tokens"]:
            first, second = pairs["questions"][0]
            lines.append(f"{pairs['tokens']:,} {what}, the first {first!r} and {second!r}")
    return lines


def _backbone_line(report: Mapping[str, Any]) -> str:
    trained, checkpoint = report["pretraining"], report.get("checkpoint")
    if checkpoint is not None:
        template = f"; template {checkpoint['template']!r}" if "template" in checkpoint else ""
        return (
            f"backbone: {checkpoint['folder']} ({checkpoint['family']}, {checkpoint['dtype']}), not copied: keep it; "
            f"fingerprint {checkpoint['fingerprint'][:12]}...{template}"
        )
    loss = "untrained" if trained["loss_nats"] is None else f"{trained['loss_nats']:.2f} nats a byte without the memory"
    return f"backbone: {trained['steps']} of {trained['steps_in_a_pass']} steps of a pass, {loss}"


def _checkpoint(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header states of a checkpoint, and where it lies."""
    return {**header["checkpoint"], "folder": header["checkpoint_folder"]}


def _pretraining(folder: Folder) -> dict[str, Any] | None:
    """How the memory's own backbone came about."""
    if not folder.backbone.exists():
        return None
    header = peek(folder.backbone)
    return {name: header.get(name) for name in ("steps", "steps_in_a_pass", "tokens", "loss_nats")}


def _finite(value: float) -> float | None:
    """None where JSON has no word for a number."""
    return float(value) if math.isfinite(value) else None


def _shown(nats: float | None) -> str:
    return "no number" if nats is None else f"{nats:.3f}"

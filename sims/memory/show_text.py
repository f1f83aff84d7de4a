"""The text of `mome show`: what `sims.memory.show` found in a memory's folder, in words for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from sims.memory.report import selection_lines


def shown_lines(shown: Mapping[str, Any]) -> list[str]:
    """The description for people: a line a subject, and what belongs to it under it."""
    rows = {
        "memory": [f"{shown['folder']}: {_state(shown)}"],
        "facts": _facts_lines(shown),
        "bank": [bank_words(shown)],
        "addresses": [address_words(shown["addresses"])],
        "selection": _selection_lines(shown["written"]),
        "known": [known_words(shown)] if shown["known"] else [],
        "model": _model_lines(shown["model"]),
        "edits": _edit_lines(shown["edits"]),
        "disk": [_disk_words(shown["bytes"])],
    }
    return [
        f"{label if first else '':<11}{line}"
        for label, lines in rows.items()
        for first, line in zip([True, *[False] * len(lines)], lines, strict=False)
    ]


def _state(shown: Mapping[str, Any]) -> str:
    if shown["state"] == "interrupted":
        return "not complete; the `mome memorize` that began it goes on where it stopped"
    pending = "; files are about to take their places, which whoever asks or changes it next completes"
    return "complete" + (pending if shown["state"] == "pending" else "")


def _facts_lines(shown: Mapping[str, Any]) -> list[str]:
    written, begun = shown["written"], shown["begun"]
    if written is None:
        tokens = begun["answer_tokens"]
        read = "its states are not computed" if tokens is None else f"{tokens:,} answer tokens were read"
        return [f"{read}; {begun['passes']} passes of writing are saved"]
    worst = written["worst_token_nats"]
    lines = [
        f"{shown['facts']:,}, told apart by {'exact bytes' if shown['normalize'] == 'exact' else shown['normalize']}",
        f"last written: {written['stored']:,} of {written['facts']:,} facts, {written['tokens']:,} answer tokens, in "
        f"{written['passes']} passes; worst token {'no number' if worst is None else f'{worst:.3f} nats'}, "
        f"threshold {shown['threshold_nats']:.3f}",
    ]
    if written["set_aside_rows"]:
        lines.append(f"{written['set_aside_rows']} rows of questions with several answers set aside in conflicts.csv")
    return lines


def _selection_lines(written: Mapping[str, Any] | None) -> list[str]:
    if written is None:
        return []
    if written["selection"] is None:
        return ["not described: the report of the last writing is of another version"]
    return list(selection_lines(written["selection"]))


def bank_words(shown: Mapping[str, Any]) -> str:
    """Which experts there are, and how many a token has."""
    value = shown["value"]
    width = "" if value is None else f" x {value['width']:,} numbers ({value['dtype']})"
    return f"{shown['chosen']} of {shown['experts']:,} experts{width} a token"


def address_words(addresses: Mapping[str, Any]) -> str:
    """How a token finds its experts.

    >>> address_words({"kind": "exact", "by_hash": 4, "by_keys": 0})
    'exact: a hash of question and answer so far'
    """
    kind = addresses["kind"]
    if kind == "exact":
        return "exact: a hash of question and answer so far"
    if kind == "nearest":
        return "nearest: an unknown question takes the place of the stored one most like it, then a hash as if exact"
    slots = f"{addresses['slots']:,} slots, each hashed with the answer so far"
    if kind == "learned":
        return f"learned: product keys of the question's vector choose {addresses['by_keys']} of {slots}"
    share = addresses["share_by_hash"]
    return (
        f"mixed: {addresses['by_hash']} by a hash of question and answer so far (weight {share:g}), "
        f"{addresses['by_keys']} by product keys (weight {1 - share:.3g}; {slots})"
    )


def known_words(shown: Mapping[str, Any]) -> str:
    """How known questions are told from others."""
    known = shown["known"]
    if known["by"] == "filter":
        return (
            f"filter of {shown['facts']:,} questions: {known['false_acceptance_rate']:.2%} of unknown ones count as "
            f"known, at {known['filter_bits_per_fact']:.1f} bits each (least possible, T20: "
            f"{known['least_filter_bits_T20']:.1f})"
        )
    stored = f"compared with {shown['facts']:,} stored questions"
    if known["likeness"] is None:
        return f"{stored}; too few to calibrate, so that no other counts as known"
    return (
        f"{stored}; one more alike than {known['likeness']:.3f} counts as known, calibrated so that at most "
        f"{known['wanted_false_acceptance']:.2%} of unknown ones do"
    )


def _model_lines(model: Mapping[str, Any] | None) -> list[str]:
    if model is None:
        return ["not pretrained yet"]
    if not model["lies_there"]:
        lies = "which is not there now; say where it is with --backbone FOLDER"
        return [f"{model['family']}, {model['dtype']}, at {model['place']},", lies, _fingerprint_words(model)]
    sizes = (
        f"{model['family']}, frozen: {model['layers']} layers, width {model['width']:,}, {model['parameters']:,} "
        f"parameters ({model['dtype']}), {model['vocabulary']:,} tokens, context {model['context']:,}"
    )
    if model["fingerprint"] is None:
        return [sizes]
    return [sizes, f"at {model['place']}, not copied: keep it", _fingerprint_words(model)]


def _fingerprint_words(model: Mapping[str, Any]) -> str:
    return f"reads {model['template']!r}; fingerprint {model['fingerprint'][:12]}... when memorized, not compared here"


def _edit_lines(edits: Sequence[Mapping[str, Any]]) -> list[str]:
    if not edits:
        return ["none that can be taken back"]
    last = edits[-1]
    change = f"{last['question']!r}: {last['before']!r} -> {last['after']!r}"
    return [f"{len(edits)} that can be taken back, the last {change}"]


def _disk_words(parts: Mapping[str, int]) -> str:
    """The parts that there are, in bytes."""
    there = [f"{name} {size_words(size)}" for name, size in parts.items() if size and name != "total"]
    return f"{size_words(parts['total'])}: {', '.join(there)}"


def size_words(count: int) -> str:
    """A number of bytes with three or four digits.

    >>> size_words(512), size_words(33_820_672), size_words(2_147_483_648)
    ('512 B', '33.8 MB', '2.1 GB')
    """
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= each:
            return f"{count / each:,.1f} {unit}"
    return f"{count} B"

"""More facts for a memory that is there: written beside the old ones, every one of which is checked again.

The backbone and the addresses stay; what the new facts disturb is repaired in the same passes. The new files take the
place of the old ones together, so that a killed run leaves the memory as it was.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sims.fact_report import Conflict, Facts, Row, facts_from_rows
from sims.memory.files import writing
from sims.memory.folder import Folder
from sims.memory.identity import write_conflicts
from sims.memory.known import Index
from sims.memory.memorizing import Reached, Work, check_room, read_tokens
from sims.memory.model import model_of
from sims.memory.saved import bank_values, check_arrays, check_marks, read_states, stored_facts, write_states
from theory.console import Refusal

_NAMED = 3


@dataclass(frozen=True, eq=False)
class Addition:
    """What adding facts to stored ones comes to."""

    facts: Facts  # the stored ones, then the new ones
    stored: int
    contradicting: tuple[tuple[Row, str], ...]  # new rows, each with the other answer that is stored

    @property
    def new(self) -> int:
        """Facts that are not stored yet."""
        return len(self.facts) - self.stored

    @property
    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        contradicting = [
            {"line": row.line, "question": row.question, "answer": row.answer, "stored": stored}
            for row, stored in self.contradicting
        ]
        return {"added": self.new, "contradicting": contradicting}


def joined(old: Facts, new: Facts) -> Addition:
    """The stored facts, then those that are not stored; where a question is stored with another answer, that stays.

    Raises Refusal for such a question if the policy of the new facts is to refuse.
    """
    stored = dict(zip(old.questions, old.answers, strict=True))
    given = [Row(*row) for row in zip(new.questions, new.answers, new.lines, strict=True)]
    contradicting = [(row, stored[row.question]) for row in given if stored.get(row.question, row.answer) != row.answer]
    if contradicting and new.report.policy == "refuse":
        named = "; ".join(f"line {row.line}: {row.question!r} has {answer!r}" for row, answer in contradicting[:_NAMED])
        raise Refusal(
            f"{new.report.source}: {len(contradicting)} question(s) are stored with another answer: {named}; "
            "change them with `mome edit` or choose --conflicts set-aside"
        )
    rows = [Row(*row) for row in zip(old.questions, old.answers, old.lines, strict=True)]
    rows += [row for row in given if row.question not in stored]
    facts = facts_from_rows(rows, source=new.report.source)
    return Addition(facts, len(old), tuple(contradicting))


def add(new: Facts, folder: Folder, *, most_passes: int = 50, quiet: bool = False) -> dict[str, Any]:
    """Store more facts; the report. Raises Refusal, and changes nothing, if an earlier fact could not be kept.

    Beside what `memorize` reports: how many were `added`, and which are `contradicting` stored ones and were set aside.
    """
    with folder.only_writer() as header:
        settings = folder.settings()
        check_arrays(folder, header)
        addition, model = joined(stored_facts(folder, header), new), model_of(folder)
        facts, before = addition.facts, addition.stored
        if not addition.new:
            check_marks(header, folder.report)
            return folder.read_report() | {"facts": before, "stored": before} | addition.report
        tokens = read_tokens(facts, model.vocabulary)
        check_room(int(tokens.answer_mask.sum()), settings)
        work = Work(facts, tokens, folder, settings, {**header, "facts": facts.fingerprint, "seconds": {}}, quiet)
        work.use(model)
        kept = Index.read(folder).queries if settings.addresses in ("mixed", "learned") else None
        index = Index.of(facts.questions, settings, kept)
        states = np.concatenate([_old_states(work, before), work.read(slice(before, None))])
        outcome = work.write(index, states, most_passes, Reached(bank_values(folder), None, 0))
        if lost := int((~outcome.stored[:before]).sum()):
            raise Refusal(
                f"{folder.path}: {lost} of its facts could not be kept beside the new ones, so nothing was changed; "
                "memorize all of them in a new folder with more experts"
            )
        write_states(folder.next(folder.states), states)
        _write_conflicts(folder, new, addition)
        others = [path for path in (folder.states, folder.conflicts) if folder.next(path).exists()]
        return work.finish(outcome, index, others) | addition.report


def _old_states(work: Work, before: int) -> np.ndarray:
    """The states of the stored facts, from the file if it is there."""
    if work.folder.states.exists():
        check_marks(work.header, work.folder.states)
        return read_states(work.folder, int(work.tokens.answer_mask[:before].sum()), work.model.width)
    return work.read(slice(before))


def _write_conflicts(folder: Folder, new: Facts, addition: Addition) -> None:
    """The conflicts named so far, and after them those of the new file with itself and with what is stored."""
    conflicts = list(new.report.conflicts)
    conflicts += [Conflict(row.question, {row.answer: [row.line]}) for row, _ in addition.contradicting]
    if not conflicts:
        return
    target = folder.next(folder.conflicts)
    write_conflicts(target, conflicts)
    if folder.conflicts.exists():
        lines = target.read_bytes().split(b"\n", 1)[1]  # without the header
        with writing(target):
            target.write_bytes(folder.conflicts.read_bytes() + lines)

"""More facts for a memory that is there: written beside the old ones, every one of which is checked again.

The backbone and the addresses stay; what the new facts disturb is repaired in the same passes. The new files take the
place of the old ones together, so that a killed run leaves the memory as it was.
"""

from dataclasses import replace

import numpy as np

from sims.fact_files import read_facts
from sims.fact_report import Facts, Row, facts_from_rows
from sims.memory.backbone import hidden_states
from sims.memory.folder import Folder
from sims.memory.identity import write_conflicts
from sims.memory.known import Index
from sims.memory.memorizing import Outcome, Work, bank_values
from theory.console import Refusal
from theory.experts import load_threshold


def joined(old: Facts, new: Facts) -> Facts:
    """The stored facts, then those that are not stored; where a question is stored with another answer, that stays.

    Such rows are the conflicts of the report.
    """
    rows = [Row(q, a, line) for q, a, line in zip(old.questions, old.answers, old.lines, strict=True)]
    more = zip(new.questions, new.answers, new.lines, strict=True)
    rows += [Row(question, answer, line) for question, answer, line in more]
    facts = facts_from_rows(rows, conflicts="first", source=new.report.source)
    assert facts.questions[: len(old)] == old.questions
    return facts


def add(new: Facts, folder: Folder, *, most_passes: int = 50, quiet: bool = False) -> Outcome:
    """Store more facts. Raises Refusal, and changes nothing, if an earlier fact could not be kept."""
    with folder.only_writer():
        header = folder.settle()
        if not header.get("complete"):
            raise Refusal(f"{folder.path}: is not complete; run the `mome memorize` that began it again")
        settings = folder.settings()
        old = read_facts(folder.facts)
        facts, before = joined(old, new), len(old)
        header["facts"] = facts.fingerprint
        work = Work(facts, folder, settings, header, quiet)
        work.backbone(None, 0.0)
        check_room(int(work.tokens.answer_mask.sum()), folder)
        kept = Index.read(folder).queries if settings.addresses in ("mixed", "learned") else None
        index = Index.of(facts.questions, settings, kept)
        states = _states(work, before)
        outcome = work.write(index, states, most_passes, (bank_values(folder), None, 0))
        if not outcome.stored[:before].all():
            raise Refusal(
                f"{folder.path}: {int((~outcome.stored[:before]).sum())} of its facts could not be kept beside the new "
                "ones, so nothing was changed; memorize all of them in a new folder with more experts"
            )
        with folder.next(folder.states).open("wb") as file:
            np.save(file, states)
        if facts.report.conflicts:
            folder.conflicts.unlink(missing_ok=True)
            write_conflicts(folder.conflicts, facts.report.conflicts)
        work.finish(outcome, index)
        return replace(outcome, header=work.header)


def check_room(tokens: int, folder: Folder) -> None:
    """Raise Refusal if so many tokens are more than the bank's experts can store (T21)."""
    settings = folder.settings()
    most = load_threshold(settings.chosen) * settings.experts
    if tokens > most:
        raise Refusal(
            f"{folder.path}: {tokens:,} answer tokens are more than {settings.experts:,} experts can store "
            f"({most:,.0f}, T21); memorize all facts in a new folder"
        )


def _states(work: Work, before: int) -> np.ndarray:
    """The old facts' states, from the file if it is there, and the new facts' states."""
    mask = work.tokens.answer_mask
    old_count = int(mask[:before].sum())
    with work.timed("states"), work.progress("reading the facts", len(work.facts)) as shown:
        if work.folder.states.exists():
            old = np.load(work.folder.states, mmap_mode="r", allow_pickle=False)
            if old.shape != (old_count, work.model.width):
                raise Refusal(f"{work.folder.states}: does not belong to these facts; delete it, it is computed again")
        else:
            old = hidden_states(work.model, work.tokens.tokens[:before], mask[:before], advance=shown.advance)
        new = hidden_states(work.model, work.tokens.tokens[before:], mask[before:], advance=shown.advance)
    return np.concatenate([old, new])

"""When two questions are one: exactly the same bytes, unless normalizing steps are asked for; and facts grouped by it.

A question is normalized before anything sees it, so that two spellings of one question have one context, one state and
one address. The steps and their order are recorded with a memory, since another order can give another text.
"""

import csv
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sims.fact_report import Conflict, ConflictPolicy, Facts, Row, facts_from_rows
from theory.console import Refusal

_EXACT = "exact"
_STEPS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "casefold": str.casefold,
    "space": lambda text: " ".join(text.split()),
}


@dataclass(frozen=True)
class Identity:
    """The steps that a question goes through, in order; none of them means exact bytes.

    >>> Identity.parse("nfc,casefold,space")("  Who WAS Ada? ")
    'who was ada?'
    >>> str(Identity.parse("exact"))
    'exact'
    """

    steps: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Read "exact", or steps separated by commas; raises Refusal for anything else, naming what is known."""
        if text == _EXACT:
            return cls()
        steps = tuple(text.split(","))
        if wrong := [step for step in steps if step not in _STEPS]:
            raise Refusal(
                f"--normalize {text}: {wrong[0]!r} is not known; write {_EXACT}, or one or more of {', '.join(_STEPS)} "
                "separated by commas, without spaces"
            )
        if len(set(steps)) < len(steps):
            raise Refusal(f"--normalize {text}: a step stands there twice; write each once")
        return cls(steps)

    def __str__(self) -> str:
        return ",".join(self.steps) or _EXACT

    def __call__(self, question: str) -> str:
        """The text by which the question is known."""
        for step in self.steps:
            question = _STEPS[step](question)
        return question


def grouped(facts: Facts, identity: Identity, conflicts: ConflictPolicy = "set-aside") -> Facts:
    """The facts with normalized questions: repetitions merged, questions of several answers treated by the policy.

    `facts` must have been read with conflicts="keep", since a row that was left out there could be what conflicts
    here; else ValueError. Raises Refusal if a question normalizes to nothing. The report counts the file's rows; its
    `best_exact_recall` and the lines of its conflicts leave out what was merged on reading.
    """
    if facts.report.rows_set_aside:
        raise ValueError(f"{facts.report.source}: read the facts with conflicts='keep' before they are grouped")
    rows = [Row(identity(q), a, line) for q, a, line in zip(facts.questions, facts.answers, facts.lines, strict=True)]
    if empty := [row.line for row in rows if not row.question]:
        raise Refusal(
            f"{facts.report.source}: line {empty[0]}: nothing is left of the question under --normalize {identity}; "
            "correct it or ask for fewer steps"
        )
    read = facts.report
    result = facts_from_rows(
        rows,
        conflicts=conflicts,
        source=read.source,
        layout=read.layout,
        blank_lines=read.blank_lines,
        notes=read.notes,
    )
    merged = result.report.merged_rows + read.merged_rows
    return replace(result, report=replace(result.report, rows=read.rows, merged_rows=merged))


def write_conflicts(path: str | os.PathLike[str], conflicts: Sequence[Conflict]) -> int:
    """Write the rows of the conflicts as CSV of line, question, answer in the file's order; returns their number.

    The file can be corrected and read as a file of facts. Raises Refusal if it exists or cannot be written.
    """
    path = Path(path)
    rows = sorted(
        (line, conflict.question, answer)
        for conflict in conflicts
        for answer, lines in conflict.answers.items()
        for line in lines
    )
    try:
        with path.open("x", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("line", "question", "answer"), *rows])
    except FileExistsError:
        raise Refusal(f"{path}: exists already; choose another name or delete it") from None
    except OSError as error:
        raise Refusal(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    return len(rows)

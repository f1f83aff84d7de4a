"""Facts from the outside world, with an account of every row: counts, conflicts, lengths, entropies."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from sims.entropy import entropy_bits
from theory.console import Refusal

ConflictPolicy = Literal["set-aside", "first", "refuse", "keep"]
_NAMED = 3  # conflicts spelled out in a one-line refusal


@dataclass(frozen=True)
class Row:
    """One row of a file as it stood there; `line` is the line its record begins on, counted from 1."""

    question: str
    answer: str
    line: int


@dataclass(frozen=True)
class Conflict:
    """A question with several answers: each distinct answer with the lines that give it, in file order."""

    question: str
    answers: dict[str, list[int]]

    @property
    def rows(self) -> int:
        """Rows of the file that ask this question."""
        return sum(map(len, self.answers.values()))

    def __str__(self) -> str:
        readings = [f"{_short(answer)} (line {_lines(lines)})" for answer, lines in self.answers.items()]
        more = f" and {len(readings) - _NAMED} more answers" if len(readings) > _NAMED else ""
        return f"{_short(self.question)}: {', '.join(readings[:_NAMED])}{more}"


@dataclass(frozen=True)
class Lengths:
    """Shortest, mean and longest text, in characters."""

    shortest: int
    mean: float
    longest: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Lengths":
        """Measure `texts`; zeros if there are none."""
        lengths = [len(text) for text in texts] or [0]
        return cls(min(lengths), sum(lengths) / len(lengths), max(lengths))


@dataclass(frozen=True)
class FactReport:
    """What was read. Every row is accounted for: rows = facts + merged_rows + rows_set_aside."""

    source: str
    layout: str  # "CSV with commas, UTF-8", ...
    policy: ConflictPolicy
    rows: int
    facts: int
    merged_rows: int  # exact repetitions of a question with its answer
    rows_set_aside: int  # rows of conflicting questions that the policy left out
    blank_lines: int
    distinct_questions: int
    distinct_answers: int  # among the facts, like the four below
    answer_entropy_bits: float  # of the answers' frequencies, per fact
    question_characters: Lengths
    answer_characters: Lengths
    near_duplicate_questions: int  # questions that differ from another only in case, spacing or Unicode form
    best_exact_recall: float  # share of all rows that one answer per question can get right
    conflicts: tuple[Conflict, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, every conflict included."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Facts:
    """Questions and answers of equal number, the file line of each, and the report; identity is exact text."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    lines: tuple[int, ...]
    report: FactReport

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the questions and answers in order; where they came from does not matter."""
        digest = hashlib.sha256()
        for text in (text for fact in zip(self.questions, self.answers, strict=True) for text in fact):
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)  # a length prefix, so that no two lists collide
        return digest.hexdigest()


def facts_from_rows(
    rows: Sequence[Row],
    *,
    conflicts: ConflictPolicy = "set-aside",
    source: str = "facts",
    layout: str = "rows",
    blank_lines: int = 0,
    notes: Iterable[str] = (),
) -> Facts:
    """Merge exact repetitions, treat conflicting questions by the policy `conflicts`, and account for every row.

    "set-aside" leaves out every row of a question that has several answers; "first" keeps its first answer; "refuse"
    raises Refusal; "keep" keeps all its rows, repetitions included, so that the answers have the file's own
    frequencies and no network can bring the mean loss below their entropy.
    """
    by_question: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        by_question.setdefault(row.question, {}).setdefault(row.answer, []).append(row.line)
    conflicting = tuple(Conflict(question, answers) for question, answers in by_question.items() if len(answers) > 1)
    if conflicting and conflicts == "refuse":
        raise Refusal(_conflict_refusal(source, conflicting))

    kept, merged, set_aside = _sort_out(rows, by_question, conflicts)
    if not kept:
        raise Refusal(
            f"{source}: every question has several answers, so none is left; choose --conflicts first or keep"
        )
    questions, answers = tuple(row.question for row in kept), tuple(row.answer for row in kept)
    report = FactReport(
        source=source,
        layout=layout,
        policy=conflicts,
        rows=len(rows),
        facts=len(kept),
        merged_rows=merged,
        rows_set_aside=set_aside,
        blank_lines=blank_lines,
        distinct_questions=len(by_question),
        distinct_answers=len(set(answers)),
        answer_entropy_bits=entropy_bits(list(Counter(answers).values())),
        question_characters=Lengths.of(questions),
        answer_characters=Lengths.of(answers),
        near_duplicate_questions=_near_duplicates(by_question),
        best_exact_recall=sum(max(map(len, answers.values())) for answers in by_question.values()) / len(rows),
        conflicts=conflicting,
        notes=tuple(notes),
    )
    return Facts(questions, answers, tuple(row.line for row in kept), report)


def _sort_out(
    rows: Iterable[Row], by_question: Mapping[str, Mapping[str, list[int]]], policy: ConflictPolicy
) -> tuple[list[Row], int, int]:
    """Rows that become facts, the number merged into an equal one, the number set aside."""
    kept: list[Row] = []
    stored: set[str] = set()
    merged = set_aside = 0
    for row in rows:
        answers = by_question[row.question]
        conflicting = len(answers) > 1
        if conflicting and policy == "keep":
            kept.append(row)
        elif conflicting and (policy == "set-aside" or row.answer != next(iter(answers))):
            set_aside += 1
        elif row.question in stored:
            merged += 1
        else:
            kept.append(row)
            stored.add(row.question)
    return kept, merged, set_aside


def _near_duplicates(questions: Iterable[str]) -> int:
    """Questions that would be one if case, Unicode form and spacing were ignored, less one for each such group."""
    folded = Counter(" ".join(unicodedata.normalize("NFKC", question).casefold().split()) for question in questions)
    return sum(folded.values()) - len(folded)


def _conflict_refusal(source: str, conflicts: Sequence[Conflict]) -> str:
    named = "; ".join(map(str, conflicts[:_NAMED]))
    more = f"; and {len(conflicts) - _NAMED} more" if len(conflicts) > _NAMED else ""
    return (
        f"{source}: {len(conflicts)} question(s) have several answers: {named}{more}; "
        "correct the file or choose --conflicts set-aside, first or keep"
    )


def _lines(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines[:_NAMED])) + (", ..." if len(lines) > _NAMED else "")


def _short(text: str, longest: int = 60) -> str:
    return repr(text if len(text) <= longest else text[: longest - 3] + "...")

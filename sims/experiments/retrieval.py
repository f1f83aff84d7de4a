"""The same facts in an index, a table and a memory (A9): asked as stored, in other words, and for what is not there."""

import importlib.util
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sims.experiments.experiment import Experiment, Settings
from sims.experiments.phrasing import (
    SOURCE,
    answers_of,
    other_wordings,
    questions_of,
    unknown_properties,
    unknown_subjects,
)
from sims.experiments.retrieval_findings import findings, measurements, notes
from sims.experiments.retrieval_methods import FORMULA, METHODS
from sims.fact_report import Facts, Row, facts_from_rows
from sims.keyed import keyed_order
from sims.memory.recall import one_edit, read_paraphrases
from sims.store import Result, fingerprint
from theory.console import Refusal

KIND = "experiment-retrieval"
_COUNTS = {"quick": 300, "full": 5000}
_MOST_UNKNOWN = 1000  # half of them set the thresholds of the baselines
_SECONDS_OF_MEMORY = 8.0  # most of it compilation
_SECONDS_PER_FACT = 0.004


@dataclass(frozen=True, eq=False)
class Questions:
    """Facts to store, another wording of each, and questions without an answer among them."""

    source: str
    wording: str  # how the other wordings came about
    stored: Facts
    others: tuple[str, ...]
    calibration: tuple[str, ...]  # unknown questions that set thresholds
    unknown: tuple[str, ...]  # unknown questions that are asked
    near: tuple[str, ...] = ()  # unknown questions about subjects of which other things are stored

    @cached_property
    def fingerprint(self) -> str:
        """Names every text that is asked beside the stored facts, in order."""
        names = ("others", "calibration", "unknown", "near")
        return fingerprint("questions", {name: list(getattr(self, name)) for name in names})


@dataclass(frozen=True, eq=False)
class Looked:
    """One method with one set of questions."""

    method: str
    questions: Questions
    seed: int

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {
            "method": self.method,
            "formula": FORMULA,
            "source": self.questions.source,
            "wording": self.questions.wording,
            "facts_fingerprint": self.questions.stored.fingerprint,
            "questions_fingerprint": self.questions.fingerprint,
            "facts": len(self.questions.stored),
            "unknown": len(self.questions.unknown),
            "near": len(self.questions.near),
            "seed": self.seed,
        }

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return fingerprint(KIND, self.spec)

    @property
    def seconds(self) -> float:
        """Expected on one core."""
        least = _SECONDS_OF_MEMORY if self.method.startswith("MoME") else 0.5
        return least + _SECONDS_PER_FACT * len(self.questions.stored)

    def run(self) -> Result:
        """Build, ask everything, count."""
        facts, questions = self.questions.stored, self.questions
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            lookup = METHODS[self.method](facts, questions.calibration, Path(folder), self.seed)
            built = time.perf_counter() - began
            try:
                said = lookup.ask(facts.questions)  # compiles what there is to compile
                began = time.perf_counter()
                lookup.ask(facts.questions)
                asked = time.perf_counter() - began
                metrics = {
                    **_shares("stored", said, facts.answers),
                    **_shares("paraphrase", lookup.ask(questions.others), facts.answers),
                    "paraphrase_guessed": _right(lookup.guess(questions.others), facts.answers),
                    "answered_unknown": _answered(lookup.ask(questions.unknown)),
                    "answered_near": _answered(lookup.ask(questions.near)) if questions.near else None,
                    "bytes_per_fact": lookup.bytes / len(facts),
                }
            finally:
                lookup.close()
        timing = {"build_seconds": built, "query_seconds": asked / len(facts)}
        return Result(KIND, self.spec, "finished", metrics, environment=timing)


def _shares(name: str, said: Sequence[str | None], wanted: Sequence[str]) -> dict[str, float]:
    right = _right(said, wanted)
    return {f"{name}_right": right, f"{name}_wrong": _answered(said) - right}


def _right(said: Sequence[str | None], wanted: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(said, wanted, strict=True)) / len(wanted)


def _answered(said: Sequence[str | None]) -> float:
    return sum(one is not None for one in said) / len(said)


def cases(settings: Settings) -> list[Looked]:
    """Every method for every seed's questions."""
    found = []
    for seed in settings.seeds:
        questions = question_set(settings, seed, _COUNTS[settings.preset])
        found += [Looked(method, questions, seed) for method in METHODS]
    return found


def question_set(settings: Settings, seed: int, count: int) -> Questions:
    """Generated facts in four wordings; those of a file with `fact_id`; or a file's, with one character changed."""
    unknown = min(_MOST_UNKNOWN, 2 * count)
    if settings.facts_file is None:
        texts = zip(questions_of(seed, count), answers_of(seed, count), strict=True)
        stored = facts_from_rows([Row(question, answer, line) for line, (question, answer) in enumerate(texts, 1)])
        apart, near = unknown_subjects(seed, unknown), unknown_properties(seed, count)
        made = _split(stored, other_wordings(seed, count), apart, seed)
        return Questions(SOURCE, "another of four wordings", *made, tuple(near))
    name = settings.facts_file.name
    if _has_wordings(settings.facts_file):
        drawn = read_paraphrases(settings.facts_file, count, unknown=unknown, seed=seed)
        _check_words(settings.facts_file, drawn.stored)
        return Questions(name, "another wording of the file", *_split(drawn.stored, drawn.asked, drawn.unknown, seed))
    facts = _read(settings)
    if len(facts) < 10:
        raise Refusal(f"{settings.facts_file}: {len(facts)} facts are too few to compare anything; give 10 or more")
    order = keyed_order(seed, "retrieval", len(facts)).tolist()
    kept = order[: min(count, 2 * len(facts) // 3)]
    rest = order[len(kept) : len(kept) + unknown]
    stored = facts_from_rows([Row(facts.questions[row], facts.answers[row], facts.lines[row]) for row in kept])
    _check_words(settings.facts_file, stored)
    others = one_edit(stored.questions, seed=seed)
    apart = [facts.questions[row] for row in rest]
    return Questions(name, "one character changed", *_split(stored, others, apart, seed))


def _check_words(path: Path, stored: Facts) -> None:
    if not any(re.search(r"\w\w", question) for question in stored.questions):
        raise Refusal(
            f"{path}: none of the {len(stored)} questions to store has a word of two letters, which TF-IDF needs; "
            "give questions in words"
        )


@lru_cache(1)
def _read(settings: Settings) -> Facts:
    return settings.facts()


@lru_cache(1)
def _has_wordings(path: Path) -> bool:
    from sims.fact_files import read_questions

    try:
        read_questions(path, "fact_id")
    except Refusal:
        return False
    return True


def _split(
    stored: Facts, others: Iterable[str], unknown: Sequence[str], seed: int
) -> tuple[Facts, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Every second unknown question, in random order, sets thresholds; the others are asked."""
    shuffled: list[str] = [str(unknown[row]) for row in keyed_order(seed, "thresholds", len(unknown)).tolist()]
    return stored, tuple(others), tuple(shuffled[0::2]), tuple(shuffled[1::2])


def _needs() -> None:
    absent = [name for name, module in (("scikit-learn", "sklearn"), ("faiss-cpu", "faiss")) if not _there(module)]
    if absent:
        raise Refusal(f"experiment retrieval compares with {' and '.join(absent)}; install loss-threshold[retrieval]")


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


EXPERIMENT = Experiment(
    name="retrieval",
    question="Are facts better kept in an index, in a table, or in memory experts?",
    comparison=(
        "Equal: facts, questions, 1 % of unknown questions that may be accepted. Not equal: TF-IDF, dense search and "
        "the memory with the same gate see unknown questions to set their thresholds, the other memories do not; the "
        "frozen network is untrained and its bytes do not count; dense vectors are those of the memory, or come from "
        "latent semantic analysis, not from a language model."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    measurements=measurements,
    takes_facts=True,
    needs=_needs,
)

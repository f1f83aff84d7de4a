"""What an experiment is: cases to run, findings to draw from their results, and what its comparison holds equal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from sims.experiments.finding import Finding
from sims.fact_files import read_facts
from sims.fact_report import Facts
from sims.store import Result, Store
from theory.console import Refusal

_SEEDS = {"quick": 2, "full": 5, "sizes": 5, "appendix-a": 1}
PRESETS = ("quick", "full")  # that every experiment has


@dataclass(frozen=True)
class Settings:
    """What the command line says of an experiment."""

    preset: str = "quick"
    seed: int = 0
    facts_file: Path | None = None
    question_column: str = "question"
    answer_column: str = "answer"
    conflicts: str = "set-aside"
    backbone: Path | None = None  # folder of a checkpoint
    template: str | None = None  # text around {question} that a checkpoint reads; None: the usual one
    count: int | None = None  # of the facts, from the first on

    @property
    def full(self) -> bool:
        """Whether everything is wanted rather than a first look."""
        return self.preset == "full"

    @property
    def seeds(self) -> range:
        """Two for a first look, five for everything and for sizes, one for a recipe of the paper; from the first on."""
        return range(self.seed, self.seed + _SEEDS[self.preset])

    def facts(self) -> Facts:
        """The facts file, read; raises Refusal if it cannot be used."""
        assert self.facts_file is not None
        return read_facts(
            self.facts_file,
            question_column=self.question_column,
            answer_column=self.answer_column,
            conflicts=self.conflicts,  # type: ignore[arg-type]  # click has checked it
        )


class Case(Protocol):
    """One run of an experiment: everything that changes its numbers is in it, and so in its fingerprint."""

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        ...

    @property
    def seconds(self) -> float:
        """How long it should take on one core that has nothing else to do."""
        ...

    def run(self) -> Result:
        """Do it."""
        ...


C = TypeVar("C", bound=Case)


class Evidence(Generic[C]):
    """The cases of an experiment with their stored results, in the order of the cases; diverged ones are counted."""

    def __init__(self, cases: Iterable[C], store: Store):
        self._store = store
        cases = list(cases)
        known = {one.fingerprint: one for one in store.results(names={case.fingerprint for case in cases})}
        self.all = [(case, known[case.fingerprint]) for case in cases if case.fingerprint in known]
        self.finished = [(case, result) for case, result in self.all if result.status == "finished"]

    @property
    def diverged(self) -> int:
        """Runs without a number at the end."""
        return len({result.fingerprint for _, result in self.all if result.status != "finished"})

    def where(self, wanted: Callable[[C], bool]) -> Iterator[tuple[C, Result]]:
        """The finished cases that are wanted."""
        return ((case, result) for case, result in self.finished if wanted(case))

    def arrays(self, case: C) -> dict[str, np.ndarray]:
        """The arrays of a case."""
        return self._store.arrays(case.fingerprint)


@dataclass(frozen=True)
class Measurements:
    """Numbers without a claim, beside the findings: one row of text a thing measured."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def document(self) -> list[dict[str, str]]:
        """One mapping from heading to text a row, for JSON."""
        return [dict(zip(self.headings, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """One question to a paper."""

    name: str
    question: str
    comparison: str  # what is equal among the things compared, and what is not
    cases: Callable[[Settings], Sequence[C]]
    findings: Callable[[Evidence[C]], list[Finding]]
    notes: Callable[[Evidence[C]], list[str]] = lambda evidence: []  # warnings: optima on an edge, limits reached
    measurements: Callable[[Evidence[C]], Measurements] | None = None
    takes_facts: bool = False
    takes_backbone: bool = False  # a checkpoint in the place of networks of its own
    takes_count: bool = False
    large_products: bool = False  # of matrices, which its programs compute side by side (`sims.runtime`)
    presets: tuple[str, ...] = PRESETS
    needs: Callable[[], None] = lambda: None  # raises Refusal where an optional package is absent

    def planned(self, settings: Settings) -> list[C]:
        """The cases, once all that the experiment needs is there; raises Refusal if it is not."""
        if settings.facts_file is not None and not self.takes_facts:
            raise Refusal(f"experiment {self.name} makes its own facts; leave --facts away")
        if settings.backbone is not None and not self.takes_backbone:
            raise Refusal(f"experiment {self.name} trains networks of its own; leave --backbone away")
        if settings.template is not None and settings.backbone is None:
            raise Refusal("--template: is that of a checkpoint; name one with --backbone FOLDER")
        if settings.count is not None and not self.takes_count:
            raise Refusal(f"experiment {self.name} takes as many facts as its preset says; leave --count away")
        if settings.preset not in self.presets:
            raise Refusal(f"experiment {self.name} has no preset {settings.preset}; take {' or '.join(self.presets)}")
        self.needs()
        return list(self.cases(settings))

"""Claims: what the theory states, each with the means to attack it.

A claim is written once, as a class: its docstring is the statement, its attributes say where it comes from and what it
assumes, its methods build adversarial cases and measure by how much the statement holds. Tests, `loss-threshold
verify`, figures and documentation read that one entry.

There are four kinds. A *bound* has a slack that is >= 0 iff it holds, and witnesses of slack 0 where it is sharp. An
*identity* is two computations that share no code and agree within an error bound. A *law* is a prediction that falls
into a measured interval. A *record* is a published number, recomputed. Every kind has a negative control: one
assumption dropped (or one side disturbed, or a setting where the law must break), which the same search has to falsify.
A claim whose control survives has not been tested, and its check fails.
"""

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from theory.search import Draw, Example, replayed, search

Case = TypeVar("Case")
Status = Literal["proved", "quoted", "conjecture", "measured"]

# The modules whose import registers claims, in the order in which they are told.
_ROOMS = (
    "theory.decoding_claims",
    "theory.calibration_claims",
    "theory.capacity_claims",
    "theory.unseen_claims",
    "theory.missing_claims",
    "theory.membership_claims",
    "theory.floor_claims",
    "theory.experts_claims",
    "theory.agreement_claims",
    "theory.cost_claims",
    "theory.coverage_claims",
    "theory.exposure_claims",
    "theory.memorizer_claims",
)


_CONTROL_EXAMPLES = 2000  # at least; the search ends with the first counterexample, which most controls yield at once


class Claim(ABC, Generic[Case]):
    """One statement. The docstring of a subclass is the statement in words; `slack` is >= -tolerance iff it holds."""

    kind: ClassVar[str]
    name: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[Status]
    source: ClassVar[str]
    assumptions: ClassVar[tuple[str, ...]]
    proof: ClassVar[str]  # in words; of a quoted or measured claim: where to find it
    dropped: ClassVar[str]  # what the negative control does without
    tolerance: ClassVar[float] = 0.0  # the rounding of float64, stated, in units of the slack
    largest_search: ClassVar[int] = 10**9  # examples after which more of them show nothing new

    @property
    def statement(self) -> str:
        """What is claimed, in words."""
        return " ".join((inspect.getdoc(type(self)) or "").split())

    @abstractmethod
    def cases(self, draw: Draw) -> Case:
        """One case that meets the assumptions, as adversarial as it can be made."""

    @abstractmethod
    def slack(self, case: Case) -> float:
        """By how much the statement holds on `case`; negative where it does not."""

    def control_cases(self, draw: Draw) -> Any:
        """One case of the negative control; by default the same cases."""
        return self.cases(draw)

    @abstractmethod
    def control_slack(self, case: Any) -> float:
        """The slack with the assumption dropped; the search must find a case where it is negative."""

    def gap(self, witness: Case) -> float:
        """How far a witness is from equality; a claim of several inequalities may ask it of each."""
        return abs(self.slack(witness))

    def corners(self) -> Sequence[Case]:
        """Cases that are tried in every check, whatever the seed."""
        return ()

    def witnesses(self) -> Sequence[Case]:
        """Cases on which the statement holds with equality; none where it is not known to be sharp."""
        return ()


class Bound(Claim[Case]):
    """An inequality."""

    kind = "bound"


class Identity(Claim[Case]):
    """Two computations of one number."""

    kind = "identity"

    @abstractmethod
    def left(self, case: Case) -> float:
        """The number, by the formula."""

    @abstractmethod
    def right(self, case: Case) -> float:
        """The number, by a computation that shares no code with the formula."""

    @abstractmethod
    def perturbed(self, case: Case) -> float:
        """The formula with one thing wrong."""

    @abstractmethod
    def error_bound(self, case: Case) -> float:
        """Largest difference that rounding explains."""

    def slack(self, case: Case) -> float:
        """Error bound minus difference."""
        return self.error_bound(case) - abs(self.left(case) - self.right(case))

    def control_slack(self, case: Case) -> float:
        """Error bound minus the difference to the perturbed formula."""
        return self.error_bound(case) - abs(self.perturbed(case) - self.right(case))


class Law(Claim[Case]):
    """A prediction of a measurement; `control_cases` are a setting in which it must fail."""

    kind = "law"

    @abstractmethod
    def predict(self, case: Case) -> float:
        """What the law says."""

    @abstractmethod
    def measure(self, case: Case) -> tuple[float, float]:
        """An interval that holds the truth but for a stated, negligible probability."""

    def slack(self, case: Case) -> float:
        """Distance of the prediction to the nearer end of the interval, positive inside."""
        low, high = self.measure(case)
        return min(self.predict(case) - low, high - self.predict(case))

    @abstractmethod
    def control_cases(self, draw: Draw) -> Case:
        """A setting in which the law must fail."""

    def control_slack(self, case: Case) -> float:
        """The law, where it must fail."""
        return self.slack(case)


@dataclass(frozen=True)
class Published:
    """One printed number beside ours. `agrees` is what we say of it; a check fails where that turns out untrue."""

    what: str
    printed: float
    recomputed: float
    relative_tolerance: float
    agrees: bool = True

    @property
    def ratio(self) -> float:
        """Printed / recomputed."""
        return self.printed / self.recomputed

    def slack(self, ratio: float) -> float:
        """How far `ratio` is inside the tolerance, or outside it where we say that the numbers disagree."""
        inside = self.relative_tolerance - abs(ratio - 1.0)
        return inside if self.agrees else -inside


class Record(Claim[Published]):
    """Published numbers, recomputed; the control mistakes each by three tolerances."""

    kind = "record"
    dropped = "each printed number is mistaken by three times its tolerance"

    @abstractmethod
    def published(self) -> Sequence[Published]:
        """The numbers."""

    def corners(self) -> Sequence[Published]:
        """All of them, always."""
        return self.published()

    def cases(self, draw: Draw) -> Published:
        """Any of them."""
        return draw.choice(self.published())

    def slack(self, case: Published) -> float:
        """As `Published.slack`."""
        return case.slack(case.ratio)

    def control_slack(self, case: Published) -> float:
        """The same, for a number that was mistaken (one that disagrees is mistaken for one that agrees)."""
        return case.slack(case.ratio + 3.0 * case.relative_tolerance if case.agrees else 1.0)


@dataclass(frozen=True)
class Check:
    """How a claim stood. `seconds` is filled in by whoever has a clock."""

    claim: str
    kind: str
    examples: int
    smallest_slack: float
    witnesses: int
    witness_gap: float  # largest gap of a witness from equality; 0 without any
    tolerance: float
    counterexample: Example | None
    control_examples: int  # examples until the control was falsified
    control_counterexample: Example | None
    seconds: float | None = None

    @property
    def holds(self) -> bool:
        """No counterexample was found."""
        return self.counterexample is None

    @property
    def sharp(self) -> bool | None:
        """Whether every witness meets the statement with equality; None without a witness."""
        return None if self.witnesses == 0 else self.witness_gap <= self.tolerance

    @property
    def passed(self) -> bool:
        """The statement held, its witnesses are sharp, and its control was falsified."""
        return self.holds and self.sharp is not False and self.control_counterexample is not None

    @property
    def verdict(self) -> str:
        """One word for a table."""
        if not self.holds:
            return "violated"
        if self.sharp is False:
            return "not sharp"
        return "held" if self.control_counterexample is not None else "untested"


def check(claim: Claim, examples: int = 500, seed: int = 0) -> Check:
    """Attack `claim` with its corners, its witnesses and `examples` searched cases, then its control.

    The same seed gives the same verdict and the same counterexample. `replay` repeats a counterexample from its tape.
    """
    examples = min(examples, claim.largest_search)
    witnesses = claim.witnesses()
    certain = [Example(case, None, float(claim.slack(case))) for case in (*witnesses, *claim.corners())]
    broken = next((example for example in certain if not example.slack >= -claim.tolerance), None)
    found = search(claim.cases, claim.slack, examples=examples, seed=seed, tolerance=claim.tolerance)
    control = search(
        claim.control_cases,
        claim.control_slack,
        examples=max(examples, _CONTROL_EXAMPLES),
        seed=seed,
        tolerance=claim.tolerance,
    )
    seen = certain + ([found.tightest] if found.tightest else [])
    return Check(
        claim=claim.name,
        kind=claim.kind,
        examples=len(certain) + found.examples,
        smallest_slack=min((example.slack for example in seen), default=float("nan")),
        witnesses=len(witnesses),
        witness_gap=max((float(claim.gap(case)) for case in witnesses), default=0.0),
        tolerance=claim.tolerance,
        counterexample=broken or found.counterexample,
        control_examples=control.examples,
        control_counterexample=control.counterexample,
    )


def replay(claim: Claim, tape: Sequence[float], *, control: bool = False) -> Example:
    """The case that `tape` stands for and its slack; `control` for a tape of the negative control."""
    case = (claim.control_cases if control else claim.cases)(replayed(tape))
    return Example(case, tuple(tape), float((claim.control_slack if control else claim.slack)(case)))


_claims: dict[str, Claim] = {}

AnyClaim = TypeVar("AnyClaim", bound=Claim)


def register(claim_class: type[AnyClaim]) -> type[AnyClaim]:
    """Class decorator: enter the claim into the registry under its name."""
    name = claim_class.name
    if name in _claims and type(_claims[name]).__qualname__ != claim_class.__qualname__:
        raise ValueError(f"two claims are called {name}")
    _claims[name] = claim_class()
    return claim_class


def all_claims() -> dict[str, Claim]:
    """Every claim by name, in the order in which the theory tells them."""
    for room in _ROOMS:
        importlib.import_module(room)
    return dict(_claims)


def get(name: str) -> Claim:
    """The claim called `name`; KeyError, naming the known ones, if there is none."""
    claims = all_claims()
    if name not in claims:
        raise KeyError(f"no claim is called {name}; known are {', '.join(claims)}")
    return claims[name]

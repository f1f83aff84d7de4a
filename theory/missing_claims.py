"""The claims T18 and T19: what samples and observations do not contain, attacked by enumeration."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from theory import unseen
from theory.claims import Bound, Identity, register
from theory.search import Draw


@dataclass(frozen=True)
class Sampled:
    """A law of questions, as weights, and a number of samples."""

    weights: tuple[int, ...]
    samples: int
    answers: int = 2

    @property
    def law(self) -> np.ndarray:
        """Frequencies; even if no weight is positive."""
        weights = np.array(self.weights, dtype=np.float64)
        return weights / weights.sum() if weights.sum() else np.full(len(weights), 1.0 / len(weights))

    def sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts of every question in every sequence of samples, shape (sequences, questions), and probabilities."""
        drawn = np.array(list(product(range(len(self.weights)), repeat=self.samples)))
        counts = (drawn[:, :, None] == np.arange(len(self.weights))).sum(axis=1)
        return counts, self.law[drawn].prod(axis=1)


def _sampled(draw: Draw) -> Sampled:
    weights = tuple(draw.choice((1, 0, 2, 5, 20)) for _ in range(draw.integer(1, 4)))
    return Sampled(weights, draw.integer(1, 5), draw.integer(2, 3))


@register
class GoodTuring(Bound[Sampled]):
    """The expected share of singletons among N samples is at least the expected frequency of what is missing, and at
    most (1/N)(1 - 1/N)^(N-1) above it, which N equally frequent questions reach.
    """

    name, title, status, source = "T18", "Good and Turing", "proved", "Good 1953; the constant: this project"
    assumptions = ("N independent samples of one law",)
    proof = (
        "The means are sum p(1-p)^(N-1) and sum p(1-p)^N; their difference is sum p * p(1-p)^(N-1), a mean of "
        "p(1-p)^(N-1), which is at most its value at p = 1/N."
    )
    dropped = "samples are drawn without putting them back"
    tolerance = 1e-14

    def cases(self, draw: Draw) -> Sampled:
        return _sampled(draw)

    def slack(self, case: Sampled) -> float:
        return self._room(case, *case.sequences())

    def gap(self, witness: Sampled) -> float:
        return abs(self.slack(witness)) + abs(self._excess(witness, *witness.sequences()) - self._most(witness))

    def control_slack(self, case: Sampled) -> float:
        counts, probabilities = case.sequences()
        allowed = (counts <= 1).all(axis=1)
        if not np.any(probabilities[allowed]):
            return math.inf
        return self._room(case, counts[allowed], probabilities[allowed] / probabilities[allowed].sum())

    def _room(self, case: Sampled, counts: np.ndarray, probabilities: np.ndarray) -> float:
        excess = self._excess(case, counts, probabilities)
        return min(excess, self._most(case) - excess)

    def _excess(self, case: Sampled, counts: np.ndarray, probabilities: np.ndarray) -> float:
        singletons = (counts == 1).sum(axis=1) / case.samples
        return float(probabilities @ (singletons - (counts == 0) @ case.law))

    def _most(self, case: Sampled) -> float:
        return float(unseen.good_turing_excess_upper(case.samples))

    def witnesses(self) -> list[Sampled]:
        return [Sampled((1,) * count, count) for count in (1, 2, 3, 4)]


@register
class Memorizer(Identity[Sampled]):
    """A learner that knows what it saw and guesses the rest errs with expected rate (1 - 1/V) sum p (1 - p)^N."""

    name, title, status, source = "T18b", "The calibrated memorizer", "proved", "arXiv 2509.04664"
    assumptions = ("N independent samples of one law", "answers uniform over V and independent")
    proof = "A question is unseen with probability (1 - p)^N, and then a guess is right with probability 1/V."
    dropped = "the number of samples is off by one"

    def cases(self, draw: Draw) -> Sampled:
        return _sampled(draw)

    def left(self, case: Sampled) -> float:
        return unseen.memorizer_error(case.law, case.samples, case.answers)

    def right(self, case: Sampled) -> float:
        """The mean over all sequences and all label vectors of a learner that guesses answer 0."""
        counts, probabilities = case.sequences()
        labels = np.array(list(product(range(case.answers), repeat=len(case.weights))))
        wrong = (counts == 0)[:, None, :] & (labels != 0)[None, :, :]
        return float(probabilities @ (wrong @ case.law).mean(axis=1))

    def perturbed(self, case: Sampled) -> float:
        return unseen.memorizer_error(case.law, case.samples - 1, case.answers)

    def error_bound(self, case: Sampled) -> float:
        return 1e-14


@dataclass(frozen=True)
class Statements:
    """Statements in cells: which are facts, which were observed, the weights of the true law and of the model."""

    cells: tuple[int, ...]
    facts: tuple[bool, ...]
    observed: tuple[bool, ...]
    law: tuple[int, ...]
    model: tuple[int, ...]
    model_share: float  # of the model's own weights; the rest of it is the spread law

    def evaluate(self) -> tuple[float, float, float, int]:
        """Model's mass on the unobserved, true mass there, total variation from the spread law, number of facts."""
        cells = np.array(self.cells)
        facts = np.array(self.facts)
        p = np.where(facts, np.array(self.law, dtype=np.float64), 0.0)
        p = p / p.sum() if p.sum() else facts / facts.sum()
        same = cells[:, None] == cells[None, :]
        spread = same @ p / same.sum(axis=1)
        own = np.array(self.model, dtype=np.float64)
        own = own / own.sum() if own.sum() else spread
        g = (1.0 - self.model_share) * spread + self.model_share * own
        unobserved = ~np.array(self.observed)
        return (
            float(g[unobserved].sum()),
            float(p[unobserved].sum()),
            0.5 * float(np.abs(g - spread).sum()),
            int(facts.sum()),
        )


def _statements(draw: Draw, observe_facts_only: bool) -> Statements:
    size = draw.integer(1, 7)
    facts = tuple(draw.choice((True, False)) for _ in range(size))
    facts = facts if any(facts) else (True, *facts[1:])
    observed = tuple(draw.choice((True, False)) and (fact or not observe_facts_only) for fact in facts)
    cells = tuple(draw.integer(0, 2) for _ in range(size))
    law = tuple(draw.choice((0, 1, 5, 1000)) for _ in range(size))
    model = tuple(draw.choice((1, 0, 3, 9)) for _ in range(size))
    return Statements(cells, facts, observed, law, model, draw.real(0.0, 1.0))


@register
class CalibratedInvention(Bound[Statements]):
    """A model g puts at least p(U)/K - TV(g, p^Pi) on unobserved statements U, for every partition Pi: p lives on at
    most K facts, what was observed is among them, and p^Pi spreads p evenly inside each cell. The
    source has K + 1 in place of K.
    """

    name, title, status, source = "T19", "Calibration and the unobserved", "proved", "arXiv 2605.26808, sharpened"
    assumptions = ("the law p lives on at most K facts", "what was observed are facts")
    proof = (
        "A cell that meets U where p > 0 has an unobserved fact, so at most K - 1 observed statements: a share of at "
        "least 1/K of it is unobserved. Hence p^Pi(U) >= p(U)/K, and g(U) is at most TV less."
    )
    dropped = "statements that are no facts may have been observed"
    tolerance = 1e-14

    def cases(self, draw: Draw) -> Statements:
        return _statements(draw, observe_facts_only=True)

    def slack(self, case: Statements) -> float:
        model_mass, true_mass, variation, facts = case.evaluate()
        return model_mass - float(unseen.error_lower_from_partition(true_mass, facts, variation))

    def control_cases(self, draw: Draw) -> Statements:
        return _statements(draw, observe_facts_only=False)

    def control_slack(self, case: Statements) -> float:
        return self.slack(case)

    def witnesses(self) -> list[Statements]:
        """One cell, all facts but one observed, p on that one; the model as p^Pi, or moved to what was observed."""
        return [
            Statements((0,), (True,), (False,), (1,), (0,), 0.0),
            Statements((0, 0), (True, True), (True, False), (0, 1), (0, 0), 0.0),
            Statements((0, 0, 0), (True,) * 3, (True, True, False), (0, 0, 1), (1, 2, 0), 0.5),
        ]


@dataclass(frozen=True)
class Invention:
    """Weights of a model on the unobserved statements, and which sets of them may be the facts, all as likely."""

    model: tuple[int, ...]
    fact_sets: tuple[tuple[int, ...], ...]
    facts: int

    @property
    def invented(self) -> list[int]:
        """Model weight on what is no fact, for each set of facts."""
        return [sum(self.model) - sum(self.model[i] for i in facts) for facts in self.fact_sets]


@register
class InventionIsLikely(Bound[Invention]):
    """If each of the unobserved statements U is a fact with probability at most K/|U|, and at most K of them are, then
    with probability at least 1 - K/|U| the model puts at least g(U)/(K + 1) on inventions. It is the probability that
    is bounded, not the mass: a model may be lucky.
    """

    name, title, status, source = "T19b", "Invention is likely", "proved", "arXiv 2605.26808, 2311.14648"
    assumptions = ("at most K of the unobserved statements are facts", "each is one with probability at most K/|U|")
    proof = (
        "Call a set of facts lucky if the rest carries less than g(U)/(K + 1). Any K + 1 lucky sets share a statement, "
        "as their complements do not cover U; sets of at most K elements with that property all share one (Helly). So "
        "luck asks that this statement is a fact: probability at most K/|U|."
    )
    dropped = "read as a mass: at least (1 - K/|U|) g(U) goes to inventions"
    tolerance = 1e-15

    def cases(self, draw: Draw) -> Invention:
        size = draw.integer(1, 7)
        facts = draw.integer(0, size)
        model = tuple(draw.choice((1, 0, 2, 5, 30)) for _ in range(size))
        if draw.choice((False, True)):
            return Invention(model, tuple(combinations(range(size), facts)), facts)
        first = sorted(range(size), key=lambda _: draw.real(0.0, 1.0))[:facts]
        return Invention(model, tuple(tuple((i + turn) % size for i in first) for turn in range(size)), facts)

    def slack(self, case: Invention) -> float:
        enough = [weight * (case.facts + 1) >= sum(case.model) for weight in case.invented]
        return sum(enough) / len(enough) - float(unseen.invention_probability_lower(case.facts, len(case.model)))

    def control_slack(self, case: Invention) -> float:
        size = len(case.model)
        return float(min(case.invented) * size - (size - case.facts) * sum(case.model))

    def witnesses(self) -> list[Invention]:
        """All of the model's mass is on one statement."""
        return [Invention((1, 0, 0, 0), tuple(combinations(range(4), facts)), facts) for facts in (1, 2, 3)]

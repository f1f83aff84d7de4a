"""The claims F6, F6b and F7: what samples and bits together must get wrong, attacked on whole small worlds."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from theory import floor
from theory.claims import Bound, Law, register
from theory.search import Draw

_PROJECT = "this project"
_WORLD = (
    "one answer per question, uniform over V, independent of the other answers and of what is asked and sampled",
    "N independent samples, and the question asked, of one law",
    "the state has at most 2^B values; seeds are free and independent of the answers",
)
_ABSTAIN = -1


@dataclass(frozen=True)
class SmallWorld:
    """A few questions and a learner of few states.

    `rules[w][i]` holds the weights with which state w gives each answer to question i, abstention last. The encoder is
    the best possible: it knows the law, the rules, the samples and their answers, and picks the state of least cost.
    """

    law: tuple[int, ...]
    samples: float
    answers: int
    abstention_cost: float
    rules: tuple[tuple[tuple[int, ...], ...], ...]
    answer_weights: tuple[int, ...] = ()  # uniform if empty

    @property
    def frequencies(self) -> np.ndarray:
        """Of the questions; even if no weight is positive."""
        weights = np.array(self.law, dtype=np.float64)
        return weights / weights.sum() if weights.sum() else np.full(len(weights), 1.0 / len(weights))

    @property
    def bits(self) -> float:
        """B = log2 of the number of states."""
        return math.log2(len(self.rules))

    def answer_law(self) -> np.ndarray:
        """Of every question's answer."""
        weights = np.array(self.answer_weights or (1,) * self.answers, dtype=np.float64)
        return weights / weights.sum()

    def seen_sets(self) -> list[tuple[float, np.ndarray]]:
        """Every set of questions that samples can contain, as a mask, with its probability: by listing all samples."""
        p = self.frequencies
        if self.samples == math.inf:
            return [(1.0, p > 0.0)]
        chances: dict[tuple[bool, ...], float] = {}
        for drawn in product(range(len(p)), repeat=int(self.samples)):
            key = tuple(question in drawn for question in range(len(p)))
            chances[key] = chances.get(key, 0.0) + math.prod(p[question] for question in drawn)
        return [(chance, np.array(mask)) for mask, chance in chances.items() if chance > 0.0]

    def costs(self) -> np.ndarray:
        """Cost of state w at question i if its answer is y, shape (states, questions, V)."""
        rules = np.array(self.rules, dtype=np.float64)
        rules[rules.sum(axis=2) == 0.0] = 1.0
        rules /= rules.sum(axis=2, keepdims=True)
        given, abstained = rules[:, :, :-1], rules[:, :, -1:]
        wrong = given.sum(axis=2, keepdims=True) - given
        return wrong + self.abstention_cost * abstained

    def least_cost(self) -> float:
        """Expected hallucination + c abstention of this learner, over samples and answers, exactly."""
        p, chances, costs = self.frequencies, self.answer_law(), self.costs()
        labels = np.array(list(product(range(self.answers), repeat=len(p))))
        likely = chances[labels].prod(axis=1)
        known = costs[:, np.arange(len(p)), labels]  # states by label vectors by questions
        unknown = (costs @ chances)[:, None, :]
        total = 0.0
        for chance, seen in self.seen_sets():
            expected = np.where(seen, known, unknown) @ p
            total += chance * float(likely @ expected.min(axis=0))
        return total


def _rule(draw: Draw, answers: int) -> tuple[int, ...]:
    """Sure of one answer, abstaining, or weights."""
    manner = draw.integer(0, 3)
    if manner <= 1:
        sure = draw.integer(0, answers - 1)
        return tuple(int(answer == sure) for answer in range(answers + 1))
    if manner == 2:
        return (0,) * answers + (1,)
    return tuple(draw.choice((1, 0, 4)) for _ in range(answers + 1))


def _world(draw: Draw) -> SmallWorld:
    questions, answers = draw.integer(1, 3), draw.integer(2, 3)
    law = tuple(draw.choice((1, 0, 3, 20)) for _ in range(questions))
    states = draw.integer(1, 9)
    rules = tuple(tuple(_rule(draw, answers) for _ in range(questions)) for _ in range(states))
    return SmallWorld(law, draw.choice((1, 2, 3, 4, math.inf)), answers, draw.choice((1.0, 0.3, 0.1, 0.01)), rules)


def _table(
    law: tuple[int, ...], samples: float, answers: int, cost: float, stored: int, abstaining: bool = False
) -> SmallWorld:
    """A state for all answers of the first `stored` questions, the others abstained; `abstaining`: any of them too."""
    choices = (*range(answers), _ABSTAIN) if abstaining else range(answers)
    sure = [tuple(int(answer == chosen % (answers + 1)) for answer in range(answers + 1)) for chosen in choices]
    rest = (sure[0] if cost >= 1.0 - 1.0 / answers else (0,) * answers + (1,),) * (len(law) - stored)
    return SmallWorld(law, samples, answers, cost, tuple((*rules, *rest) for rules in product(sure, repeat=stored)))


@register
class CombinedFloor(Bound[SmallWorld]):
    """A learner of N samples and B bits, asked one more question of the same law, has E[hallucination + c abstention]
    at least the largest over lambda of
    min(c, 1 - 1/V) sum p (1 - p)^N + sum s lambda min(phi(p/lambda), c p/lambda) - lambda B,
    with s = 1 - (1 - p)^N and phi(x) = log2 V - log2(1 + (V - 1) 2^-x). It falls with N and with B. Without a limit on
    bits it is min(c, 1 - 1/V) sum p (1 - p)^N, which a table attains; without a limit on samples it is the least cost
    sum p d at a total rate sum R(d) <= B. Hallucination is the probability of a wrong answer to that question (one not
    abstained from), over samples, answers and seeds.
    """

    name, title, status, source = "F6", "The combined floor", "proved", _PROJECT
    assumptions = _WORLD
    proof = (
        "Fix the set S of questions seen; the decoder may know it. The answer of an unseen question is independent of "
        "the state: cost at least min(c, 1 - 1/V). The answers of S are independent, so I(state; Y_i) sums to at most "
        "B over S. For one question and x = p/lambda, x cost + I >= -log2 of the mean of 2^(-x cost) over answers "
        "drawn independently of the truth (Gibbs, Jensen); that mean is linear in the share of abstentions, so the "
        "right side is at least min(phi(x), c x). Add up, subtract lambda B, average over S. This is dual to the least "
        "sum p (1 - s) guess + s p d with sum s R(d) <= B. For a larger s mix d with a guess: R is convex, so it stays "
        "feasible at the same cost, and the floor falls with N."
    )
    dropped = "some answers are likelier than others"
    tolerance = 1e-13

    def cases(self, draw: Draw) -> SmallWorld:
        return _world(draw)

    def slack(self, case: SmallWorld) -> float:
        bound = floor.hallucination_lower(case.samples, case.bits, case.frequencies, case.answers, case.abstention_cost)
        return case.least_cost() - bound

    def control_cases(self, draw: Draw) -> SmallWorld:
        case = self.cases(draw)
        return replace(case, answer_weights=(9, *(draw.integer(0, 9) for _ in range(case.answers - 1))))

    def control_slack(self, case: SmallWorld) -> float:
        return self.slack(case)

    def witnesses(self) -> list[SmallWorld]:
        """No bits; bits for everything; bits for the first question of two, at a low price of abstention."""
        return [
            _table((3, 1), 2, 2, 1.0, stored=0),
            _table((3, 1), 2, 2, 1.0, stored=2),
            _table((3, 1, 1), 3, 2, 0.3, stored=3, abstaining=True),
            _table((1, 1), math.inf, 2, 0.01, stored=1),
            _table((2, 1), math.inf, 3, 0.005, stored=1),
        ]


@register
class CoverageOfTheCautious(Bound[SmallWorld]):
    """A learner that never errs answers, of N samples and B bits, an expected share of at most the knapsack: B/log2 V
    questions in order of frequency, each up to the probability 1 - (1 - p)^N that it was seen.
    """

    name, title, status, source = "F6b", "Coverage without errors", "proved", _PROJECT
    assumptions = _WORLD
    proof = (
        "An unseen question cannot be answered without risk. Given what was seen, E V^#answered <= 2^B (a state is "
        "right on its a answers for V^-a of the label vectors), so E #answered <= B/log2 V by Jensen. Each question is "
        "answered with probability at most s; the weighted sum is largest when the most frequent fill the knapsack."
    )
    dropped = "wrong answers count as answers"
    tolerance = 1e-13

    def cases(self, draw: Draw) -> SmallWorld:
        world = _world(draw)
        silent = ((0,) * world.answers + (1,),) * len(world.law)
        sure = tuple(tuple(self._sure(draw, world.answers) for _ in world.law) for _ in range(draw.integer(0, 8)))
        return replace(world, rules=(silent, *sure))

    def _sure(self, draw: Draw, answers: int) -> tuple[int, ...]:
        chosen = draw.integer(0, answers)
        return tuple(int(answer == chosen) for answer in range(answers + 1))

    def slack(self, case: SmallWorld) -> float:
        return self._allowed(case) - self._coverage(case, cautious=True)

    def control_slack(self, case: SmallWorld) -> float:
        return self._allowed(case) - self._coverage(case, cautious=False)

    def _allowed(self, case: SmallWorld) -> float:
        return floor.coverage_upper(case.samples, case.bits, case.frequencies, case.answers)

    def _coverage(self, case: SmallWorld, cautious: bool) -> float:
        """Of the state that covers most among those that cannot be wrong, for each set seen and each label vector."""
        rules, p = np.array(case.rules), case.frequencies
        answered, chosen = rules[:, :, -1] == 0, rules.argmax(axis=2)
        labels = np.array(list(product(range(case.answers), repeat=len(p))))
        right = chosen[:, None, :] == labels[None, :, :]
        covered = answered @ p
        total = 0.0
        for chance, seen in case.seen_sets():
            safe = (~answered[:, None, :] | (right & seen) | (p == 0.0)).all(axis=2)
            share = np.where(safe | (not cautious), covered[:, None], -1.0).max(axis=0)
            total += chance * float(np.maximum(0.0, share).mean())
        return total

    def witnesses(self) -> list[SmallWorld]:
        return [
            _table((3, 1), math.inf, 2, 0.0, stored=1),
            _table((3, 1), math.inf, 3, 0.0, stored=2),
            _table((3, 1, 1), 2, 2, 0.0, stored=3, abstaining=True),
        ]


@dataclass(frozen=True)
class Frequencies:
    """A law of frequencies, the quantity whose exponent is asked for, and where it is measured."""

    exponent: float
    quantity: str  # "threshold": frequency against bits; "enough": bits enough against samples
    start: float  # the smaller of the two budgets
    answers: int
    abstention_cost: float
    geometric: bool = False

    def law(self, questions: int) -> np.ndarray:
        """A power law, or, to break the claim, a geometric one."""
        if not self.geometric:
            return floor.power_law(questions, self.exponent)
        weights = np.exp(-0.02 * self.exponent * np.arange(questions))
        return weights / weights.sum()


@register
class ThresholdExponent(Law[Frequencies]):
    """If frequencies fall as r^-alpha of the rank, the rarest question worth memorizing has a frequency that falls as
    bits^-alpha, for every number of answers and every price of abstaining below that of guessing; and the bits that all
    of a sample takes grow as samples^(1/alpha). So bits are scarce below samples^(1/alpha) and samples above.
    """

    name, title, status, source = "F7", "The threshold of memorizing", "proved", _PROJECT
    assumptions = ("alpha > 1, everything seen (threshold), or N much larger than 1 (bits enough)", "many questions")
    proof = (
        "A question is memorized iff p >= lambda x_c (F6); then p/lambda = x_c (r*/r)^alpha for a threshold rank r*, "
        "and the budget is the sum of bits over r <= r*: r* times an integral that does not depend on B. So r* ~ B and "
        "p* = p_1 r*^-alpha. Enough are log2 V sum (1 - (1 - p)^N) = log2 V Gamma(1 - 1/alpha) (p_1 N)^(1/alpha) bits."
    )
    dropped = "frequencies fall geometrically"
    largest_search = 60

    def cases(self, draw: Draw) -> Frequencies:
        quantity = draw.choice(("threshold", "enough"))
        exponent = draw.real(1.5, 3.0)
        start = draw.real(100.0, 150.0) if quantity == "threshold" else draw.real(1e3, 1e4)
        return Frequencies(exponent, quantity, start, draw.choice((2, 32, 1000)), draw.choice((0.1, 0.3, 0.02)))

    def control_cases(self, draw: Draw) -> Frequencies:
        return replace(self.cases(draw), geometric=True)

    def control_slack(self, case: Frequencies) -> float:
        return Law.slack(self, case)

    def predict(self, case: Frequencies) -> float:
        return -case.exponent if case.quantity == "threshold" else 1.0 / case.exponent

    def measure(self, case: Frequencies) -> tuple[float, float]:
        """The slope between a budget and eight times it, give or take what whole ranks explain."""
        if case.quantity == "threshold":
            slope, error = self._threshold_slope(case)
        else:
            law = case.law(100_000)
            ends = [floor.bits_enough(float(round(case.start * factor)), law, case.answers) for factor in (1, 8)]
            slope, error = math.log(ends[1] / ends[0]) / math.log(8.0), 0.03
        return slope - error, slope + error

    def _threshold_slope(self, case: Frequencies) -> tuple[float, float]:
        """`start` is the smaller threshold rank, about; frequencies beyond four times the larger do not matter."""
        per_rank = 1.0 / floor.threshold_rank(1.0, case.exponent, case.answers, case.abstention_cost)
        law = case.law(int(16 * case.start))
        ends = [
            floor.optimal_policy(math.inf, case.start * factor * per_rank, law, case.answers, case.abstention_cost)
            for factor in (1, 8)
        ]
        slope = math.log(ends[1].threshold_frequency / ends[0].threshold_frequency) / math.log(8.0)
        return slope, 3.0 * case.exponent * (1.0 + 1.0 / 8.0) / case.start / math.log(8.0)

"""The claims T1-T4, T6 and F5: what a loss says about decoding, each with the cases that attack it.

In every case the answer of a fact is class 0; that loses nothing, because the claims do not distinguish classes.
"""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass

import numpy as np

from theory import conflicts, decoding, memorizers
from theory.claims import Bound, register
from theory.rounding import LN2
from theory.search import Draw

_PROJECT = "this project"
_TIES = "a tie counts as an error"
_UNIT = "losses in nats, of the very rows that are decoded"


@dataclass(frozen=True)
class Rows:
    """Logits of n facts over V answers, and a cap that every loss meets."""

    logits: tuple[tuple[float, ...], ...]
    loss_cap_nats: float = math.inf

    @property
    def losses(self) -> np.ndarray:
        """Loss of each fact, nats."""
        return memorizers.cross_entropies(np.array(self.logits), np.zeros(len(self.logits), dtype=np.int64))

    @property
    def mean_loss(self) -> float:
        """L, nats."""
        return math.fsum(self.losses) / len(self.logits)

    @property
    def wrong(self) -> int:
        """Greedy errors, ties included."""
        return int(memorizers.greedy_wrong(np.array(self.logits), np.zeros(len(self.logits), dtype=np.int64)).sum())


def _row(draw: Draw, answers: int) -> tuple[float, ...]:
    """Ties, impossible answers and everything between."""
    return tuple(_logit(draw) for _ in range(answers))


def _logit(draw: Draw) -> float:
    kind = draw.choice(("equal", "never", "near", "any"))
    if kind in ("near", "any"):
        return draw.real(0.0, 0.5) if kind == "near" else draw.real(-6.0, 6.0)
    return 0.0 if kind == "equal" else -1e4


def _rows(draw: Draw) -> Rows:
    answers = draw.integer(2, 5)
    rows = Rows(tuple(_row(draw, answers) for _ in range(draw.integer(1, 6))))
    largest = float(rows.losses.max())
    return Rows(rows.logits, draw.choice((math.inf, largest, largest + draw.real(0.0, 3.0))))


def _built(mean_loss: float, wrong: int, facts: int, answers: int, cap: float = math.inf) -> Rows:
    losses = memorizers.greedy_losses(mean_loss, wrong, facts=facts, answers=answers, loss_cap_nats=cap)
    labels = np.zeros(facts, dtype=np.int64)
    logits = memorizers.logits_with_losses(losses, np.arange(facts) < wrong, labels, answers)
    return Rows(tuple(map(tuple, logits.tolist())), cap)


@register
class OneFact(Bound[Rows]):
    """Greedy decoding of a fact is right for certain iff its loss is below ln 2 and wrong for certain iff its loss is
    at least ln V; between the two both happen. With two answers nothing lies between.
    """

    name, title, status, source = "T1", "One fact: ln 2 and ln V", "proved", _PROJECT
    assumptions = (_UNIT, _TIES, "V >= 2 answers, one of them right")
    proof = (
        "Above probability 1/2 the answer has no rival. At 1/V or less the others share at least (V-1)/V, so the "
        "largest of them has at least 1/V. Between, either put the rest on one rival or spread it evenly."
    )
    dropped = "one of the possible answers is not counted in V"

    def cases(self, draw: Draw) -> Rows:
        return Rows((_row(draw, draw.integer(2, 5)),))

    def slack(self, case: Rows) -> float:
        return self._margin(case, len(case.logits[0]))

    def control_cases(self, draw: Draw) -> Rows:
        return Rows((_row(draw, draw.integer(3, 5)),))

    def control_slack(self, case: Rows) -> float:
        return self._margin(case, len(case.logits[0]) - 1)

    def _margin(self, case: Rows, answers: int) -> float:
        """Distance of the loss from the threshold it must not pass; -1 if the verdict is contradicted or missing."""
        loss, is_wrong = float(case.losses[0]), case.wrong == 1
        in_band = LN2 * (1.0 - 1e-12) < loss < math.log(answers) * (1.0 + 1e-12)
        if decoding.fact_verdict(loss, answers) == "either" and not in_band:
            return -1.0
        if decoding.fact_verdict(loss, answers) == ("right" if is_wrong else "wrong"):
            return -1.0
        return loss - LN2 if is_wrong else math.log(answers) - loss

    def witnesses(self) -> list[Rows]:
        return [Rows(((0.0, 0.0),)), Rows(((0.0, 0.0, -1e4, -1e4),))]


@register
class MeanLossGreedy(Bound[Rows]):
    """k greedy errors among n facts are possible at mean loss L iff nL lies in [k ln 2, kM + (n - k) min(M, ln V)),
    closed on the right if k = n or M < ln V, where k >= 1 needs M >= ln 2. Hence at most floor(nL / ln 2) errors, none
    if L < ln 2 / n, and none are forced before L reaches ln V.
    """

    name, title, status, source = "T2", "Mean loss and greedy errors", "proved", _PROJECT
    assumptions = (_UNIT, _TIES, "distinct questions, one answer each", "no loss exceeds the cap M")
    proof = (
        "By T1 each error costs at least ln 2 and each right fact less than ln V; sum. The interval is attained by "
        "moving all losses together from (ln 2, 0) to (M, min(M, ln V))."
    )
    dropped = "one loss may exceed the cap"

    def cases(self, draw: Draw) -> Rows:
        return _rows(draw)

    def slack(self, case: Rows) -> float:
        fewest, most = decoding.greedy_error_counts(
            case.mean_loss, facts=len(case.logits), answers=len(case.logits[0]), loss_cap_nats=case.loss_cap_nats
        )
        return float(min(case.wrong - fewest, most - case.wrong))

    def control_cases(self, draw: Draw) -> Rows:
        rows = _rows(draw)
        return Rows(rows.logits, draw.real(rows.mean_loss, float(rows.losses.max())))

    def control_slack(self, case: Rows) -> float:
        return self.slack(case)

    def witnesses(self) -> list[Rows]:
        return [_built(2 * LN2 / 7, 2, 7, 4), _built(3.0, 4, 5, 3, cap=4.0), _built(1.2, 1, 4, 3)]


@register
class MeanLossSampled(Bound[Rows]):
    """At mean loss L, and with no loss above M, sampling errs with a rate in [[k(1 - e^-M) + 1 - e^-r]/n, 1 - e^-L],
    where k = floor(nL/M) and r = nL - kM; without a cap from (1 - e^-nL)/n. Every value between is attained; V does not
    matter.
    """

    name, title, status, source = "T3", "Mean loss and sampled errors", "proved", _PROJECT
    assumptions = (_UNIT, "sampling at temperature 1 from the whole row", "no loss exceeds the cap M")
    proof = (
        "The error 1 - e^-loss is concave in the loss: equal losses maximize its mean, and a concave symmetric "
        "function is smallest at an extreme point of {0 <= loss <= M, fixed sum}: k losses at M, one remainder, the "
        "rest 0."
    )
    dropped = "sampling at another temperature than the loss was measured at"
    tolerance = 4e-15

    def cases(self, draw: Draw) -> Rows:
        return _rows(draw)

    def slack(self, case: Rows) -> float:
        return self._room(case, float(-np.expm1(-case.losses).mean()))

    def control_cases(self, draw: Draw) -> tuple[Rows, float]:
        return _rows(draw), draw.real(0.5, 2.0)

    def control_slack(self, case: tuple[Rows, float]) -> float:
        rows, temperature = case
        cooled = Rows(tuple(tuple(logit / temperature for logit in row) for row in rows.logits))
        return self._room(rows, float(-np.expm1(-cooled.losses).mean()))

    def _room(self, case: Rows, rate: float) -> float:
        low, high = decoding.sampled_error_rates(
            case.mean_loss, facts=len(case.logits), loss_cap_nats=case.loss_cap_nats
        )
        return float(min(rate - low, high - rate))

    def witnesses(self) -> list[Rows]:
        unequal = memorizers.logits_with_losses(
            np.array([2.0, 2.0, 1.0, 0.0]), np.array([True, True, True, False]), np.zeros(4, dtype=np.int64), 3
        )
        one_bad = memorizers.logits_with_losses(
            np.array([3.0, 0.0]), np.array([True, False]), np.zeros(2, dtype=np.int64), 3
        )
        equal = ((0.0, 0.0, 0.0),) * 3
        return [Rows(tuple(map(tuple, unequal.tolist())), 2.0), Rows(tuple(map(tuple, one_bad.tolist()))), Rows(equal)]


@dataclass(frozen=True)
class Answers:
    """Logits of n facts of S tokens over V tokens, along the path of the right answer; class 0 is right each time."""

    logits: tuple[tuple[tuple[float, ...], ...], ...]

    @property
    def token_losses(self) -> np.ndarray:
        """Teacher-forced losses, shape (n, S), nats."""
        return np.stack([Rows(fact).losses for fact in self.logits])

    @property
    def wrong_facts(self) -> int:
        """Facts whose greedy decoding leaves the path of the right answer somewhere."""
        return sum(Rows(fact).wrong > 0 for fact in self.logits)


@register
class ManyTokens(Bound[Answers]):
    """Greedy decoding gives the whole answer if every token loss is below ln 2, so of n facts of S tokens with mean
    token loss L at most floor(n S L / ln 2) come out wrong; sampling gives an answer whose token losses sum to s with
    probability e^-s.
    """

    name, title, status, source = "T4", "Answers of many tokens", "proved", _PROJECT
    assumptions = (
        "teacher-forced losses in nats, the end token counted as one of the S tokens",
        "greedy decoding, not beam search; sampling at temperature 1 without truncation",
        _TIES,
    )
    proof = (
        "Induction over the prefix: while the prefix is right, the next token is decoded from the row whose loss was "
        "measured. A wrong fact has a token of loss at least ln 2; sum. Probabilities along the path multiply."
    )
    dropped = "the end token is left out of the loss"

    def cases(self, draw: Draw) -> Answers:
        facts, tokens, answers = draw.integer(1, 4), draw.integer(1, 4), draw.integer(2, 4)
        return Answers(tuple(tuple(_row(draw, answers) for _ in range(tokens)) for _ in range(facts)))

    def slack(self, case: Answers) -> float:
        answer_losses = case.token_losses.sum(axis=1)
        along_path = [math.prod(1.0 / sum(_ratios(row)) for row in fact) for fact in case.logits]
        if not np.allclose(decoding.exact_decoding_probability(answer_losses), along_path, rtol=1e-11, atol=1e-300):
            return -1.0
        return self._room(case, case.token_losses)

    def control_slack(self, case: Answers) -> float:
        losses = case.token_losses
        losses[:, -1] = 0.0
        return self._room(case, losses)

    def _room(self, case: Answers, losses: np.ndarray) -> float:
        facts, tokens = losses.shape
        mean = math.fsum(losses.ravel()) / losses.size
        return float(decoding.wrong_fact_count_upper(mean, facts, tokens) - case.wrong_facts)

    def witnesses(self) -> list[Answers]:
        tie, sure = (0.0, 0.0, -1e4), (1e4, 0.0, 0.0)
        return [Answers(((sure, tie), (tie, sure), (sure, sure))), Answers(((sure, sure, sure),))]


def _ratios(row: tuple[float, ...]) -> list[float]:
    """Probabilities of the row relative to class 0."""
    return [math.exp(min(700.0, logit - row[0])) for logit in row]


@dataclass(frozen=True)
class Point:
    """A wanted point: `wrong` errors, `share` of the way through their losses, `height` through the sampled rates."""

    facts: int
    answers: int
    loss_cap_nats: float
    wrong: int
    share: float
    height: float


@register
class ExplicitNetworks(Bound[Point]):
    """The feasible region of (mean loss, hallucination rate), greedy as in T2 and sampled as in T3, has no hole: for
    every point there is an explicit table of logits whose loss and rate are the wanted ones.
    """

    name, title, status, source = "T6", "A network for every point", "proved", _PROJECT
    assumptions = (_TIES, "distinct questions", "a finite loss", "not closer to an open end than float64 resolves")
    proof = (
        "Greedy: move k wrong facts from ln 2 to M and the right ones from 0 to min(M, ln V) together. Sampled: "
        "between equal losses and the extreme vector of T3 the rate is concave in the position with its maximum at "
        "equal losses, so it falls continuously and bisection finds it."
    )
    dropped = "the mean loss may pass the open right end of its interval"
    tolerance = 0.0

    def cases(self, draw: Draw) -> Point:
        return self._point(draw, draw.real(0.0, 0.999999))

    def control_cases(self, draw: Draw) -> Point:
        return self._point(draw, draw.real(1.0, 1.05))

    def _point(self, draw: Draw, share: float) -> Point:
        facts, answers = draw.integer(1, 8), draw.integer(2, 6)
        cap = draw.real(LN2, 6.0)
        return Point(facts, answers, cap, draw.integer(0, facts), share, draw.real(0.0, 1.0))

    def slack(self, case: Point) -> float:
        return min(self._greedy(case), self._sampled(case))

    def control_slack(self, case: Point) -> float:
        return self._greedy(case)

    def _greedy(self, case: Point) -> float:
        """1e-12 minus the error of the loss, or -1 if the number of errors is not the wanted one."""
        right_end = min(case.loss_cap_nats, math.log(case.answers))
        losses = memorizers.unchecked_greedy_losses(
            case.share, case.wrong, case.facts - case.wrong, case.loss_cap_nats, right_end
        )
        wanted = math.fsum(losses) / case.facts
        if case.share < 1.0:
            losses = memorizers.greedy_losses(
                wanted, case.wrong, facts=case.facts, answers=case.answers, loss_cap_nats=case.loss_cap_nats
            )
        rows = self._rows(losses, np.arange(case.facts) < case.wrong, case.answers)
        contained = decoding.greedy_region_contains(
            wanted,
            rows.wrong,
            facts=case.facts,
            answers=case.answers,
            loss_cap_nats=max(case.loss_cap_nats, wanted),
        )
        return 1e-12 - abs(rows.mean_loss - wanted) if contained and rows.wrong == case.wrong else -1.0

    def _sampled(self, case: Point) -> float:
        """1e-12 minus the larger of the errors of loss and rate."""
        mean = case.share * case.loss_cap_nats
        low, high = decoding.sampled_error_rates(mean, facts=case.facts, loss_cap_nats=case.loss_cap_nats)
        wanted = float(min(high, low + case.height * (high - low)))
        losses = memorizers.sampled_losses(mean, wanted, facts=case.facts, loss_cap_nats=case.loss_cap_nats)
        rows = self._rows(losses, losses >= math.log(case.answers), case.answers)
        if not decoding.sampled_region_contains(mean, wanted, facts=case.facts, loss_cap_nats=case.loss_cap_nats):
            return -1.0
        return 1e-12 - max(abs(rows.mean_loss - mean), abs(float(-np.expm1(-rows.losses).mean()) - wanted))

    def _rows(self, losses: np.ndarray, wrong: np.ndarray, answers: int) -> Rows:
        logits = memorizers.logits_with_losses(losses, wrong, np.zeros(len(losses), dtype=np.int64), answers)
        return Rows(tuple(map(tuple, logits.tolist())))


@dataclass(frozen=True)
class Conflicts:
    """Per question: how often the data give each answer, and the weights (at least 1) of a model's row."""

    counts: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[int, ...], ...]


@register
class ConflictFloor(Bound[Conflicts]):
    """Where questions have several answers in the data, the mean loss is at least the mean entropy of the answers of a
    fact's question, and every question loses all facts but those with its most frequent answer.
    """

    name, title, status, source = "F5", "Conflicting answers", "proved", _PROJECT
    assumptions = (_UNIT, "the loss is the mean over the facts of the data", "one row per question")
    proof = (
        "The loss exceeds the entropy by the mean Kullback-Leibler divergence of the answers from the row, which is "
        "not negative and vanishes where the row is their frequencies. One row decodes to one answer."
    )
    dropped = "a fact's row may depend on its place in the data, so a question has more than one row"
    tolerance = 1e-14

    def cases(self, draw: Draw) -> Conflicts:
        answers, questions = draw.integer(2, 4), draw.integer(1, 4)
        return Conflicts(
            tuple((draw.integer(1, 6), *(draw.integer(0, 6) for _ in range(answers - 1))) for _ in range(questions)),
            tuple(tuple(draw.integer(1, 9) for _ in range(answers)) for _ in range(questions)),
        )

    def slack(self, case: Conflicts) -> float:
        return min(self._slacks(case))

    def gap(self, witness: Conflicts) -> float:
        return max(map(abs, self._slacks(witness)))

    def _slacks(self, case: Conflicts) -> tuple[float, float]:
        """Excess loss in nats, and excess errors."""
        facts = sum(map(sum, case.counts))
        loss, errors = 0.0, 0
        for counts, weights in zip(case.counts, case.weights, strict=True):
            loss += sum(count * math.log(sum(weights) / weight) for count, weight in zip(counts, weights, strict=True))
            decoded = max(range(len(weights)), key=weights.__getitem__)
            errors += sum(counts) - counts[decoded]
        excess = loss / facts - conflicts.loss_floor_nats(case.counts)
        return excess, float(errors - conflicts.error_count_floor(case.counts))

    def control_slack(self, case: Conflicts) -> float:
        """The first question has a row per answer, each certain of its own: it costs nothing."""
        facts, first = sum(map(sum, case.counts)), sum(case.counts[0])
        others = conflicts.loss_floor_nats(case.counts[1:]) if len(case.counts) > 1 else 0.0
        return others * (facts - first) / facts - conflicts.loss_floor_nats(case.counts)

    def witnesses(self) -> list[Conflicts]:
        return [Conflicts(((3, 1), (2, 2)), ((3, 1), (1, 1)))]

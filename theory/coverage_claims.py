"""The claims T9, F2, T10 and F4: abstaining, the two rate-distortion functions, and bits that certify zero errors.

Cases are whole small worlds, as in `theory.capacity_claims`: S states of the weights, all label vectors, and for each
of them the best state. B = log2 S.
"""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from theory import capacity, coverage, packing, rate_distortion
from theory.capacity_claims import World, _failure_bits, _storing, _table, _world
from theory.claims import Bound, Identity, register
from theory.rounding import LN2
from theory.search import Draw

_PROJECT = "this project"
_INDEPENDENT = "labels uniform and independent of each other and of everything but the weights"
_COUNTED = "B counts everything label-dependent that evaluation needs, the choice of what to answer included"
_ABSTAINS = -1


@dataclass(frozen=True)
class SelectiveWorld:
    """S states of the weights: `choices[s][i]` is the answer that state s gives to question i, -1 for none."""

    answers: int
    choices: tuple[tuple[int, ...], ...]
    oracle: bool = False  # abstains wherever it would be wrong, without a bit that says so

    @property
    def bits(self) -> float:
        """B = log2 S."""
        return math.log2(len(self.choices))

    @property
    def facts(self) -> int:
        """The number n of them."""
        return len(self.choices[0])

    def outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """Facts answered and errors among them, both of shape (V^n, S)."""
        labels = np.array(list(product(range(self.answers), repeat=self.facts)))
        choices = np.array(self.choices)
        answered = (choices != _ABSTAINS)[None] & np.ones((len(labels), 1, 1), dtype=bool)
        wrong = answered & (choices[None] != labels[:, None, :])
        answered = answered & ~wrong if self.oracle else answered
        return answered.sum(axis=2), np.zeros_like(wrong).sum(axis=2) if self.oracle else wrong.sum(axis=2)


def _selective_world(draw: Draw) -> SelectiveWorld:
    facts, answers = draw.choice(((1, 2), (2, 2), (3, 2), (4, 2), (1, 3), (2, 3), (3, 3), (2, 4)))
    states = draw.integer(1, 6)
    choices = tuple(tuple(draw.integer(-1, answers - 1) for _ in range(facts)) for _ in range(states))
    return SelectiveWorld(answers, choices)


def _cautious(stored: int, facts: int, answers: int) -> SelectiveWorld:
    """Stores the first facts exactly and abstains on the rest."""
    words = product(range(answers), repeat=stored)
    return SelectiveWorld(answers, tuple((*word, *[_ABSTAINS] * (facts - stored)) for word in words))


def _oracle(draw: Draw) -> SelectiveWorld:
    return replace(_selective_world(draw), oracle=True)


@register
class Abstention(Bound[SelectiveWorld]):
    """B bits allow at most s abstentions together with at most k greedy errors among n uniform labels with probability
    at most 2^B Vol_V(n-s, k) V^(s-n); and E[V^#answered 1{no error}] <= 2^B, so a learner that never errs has expected
    coverage at most B / (n log2 V).
    """

    name, title, status, source = "T9", "Bits and coverage", "proved", _PROJECT
    assumptions = (_INDEPENDENT, _COUNTED, "distinct questions")
    proof = (
        "Master lemma of T7. A fixed state with A answers has at most k errors for Vol_V(A, k) V^(n-A) label vectors, "
        "and Vol_V(A, k) V^-A falls with A. With f = V^A 1{no error} the maximum is V^A V^-A = 1; Jensen."
    )
    dropped = "an oracle that is not counted in B says where to abstain"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> SelectiveWorld:
        return _selective_world(draw)

    def control_cases(self, draw: Draw) -> SelectiveWorld:
        return _oracle(draw)

    def control_slack(self, case: SelectiveWorld) -> float:
        return self.slack(case)

    def slack(self, case: SelectiveWorld) -> float:
        return min(self._slacks(case))

    def gap(self, witness: SelectiveWorld) -> float:
        """Of all that apply: the expected coverage does only to a learner that never errs."""
        return max(abs(slack) for slack in self._slacks(witness) if slack < math.inf)

    def _slacks(self, case: SelectiveWorld) -> tuple[float, float, float]:
        """Of the probability (bits), of the mean of V^#answered (bits), of the expected coverage."""
        answered, errors = case.outcomes()
        rooms = [
            coverage.selective_log2_probability(s, k, case.facts, case.bits, case.answers) - math.log2(chance)
            for s in range(case.facts)
            for k in range(case.facts - s)
            if (chance := np.mean(((case.facts - answered <= s) & (errors <= k)).any(axis=1))) > 0.0
        ]
        safe = np.where(errors == 0, answered, -np.inf).max(axis=1)
        kraft = case.bits - math.log2(mean) if (mean := np.mean(float(case.answers) ** safe)) > 0.0 else math.inf
        covered = coverage.coverage_upper(case.facts, case.bits, case.answers) - safe.mean() / case.facts
        return min(rooms, default=math.inf), kraft, float(covered)

    def witnesses(self) -> list[SelectiveWorld]:
        too_few_states = SelectiveWorld(3, ((0, _ABSTAINS, _ABSTAINS), (1, _ABSTAINS, _ABSTAINS)))
        return [_cautious(1, 3, 3), _cautious(2, 3, 2), _cautious(2, 2, 4), too_few_states]


@register
class SelectiveCapacity(Bound[SelectiveWorld]):
    """Except with probability 2^-t over uniform labels, for all states of B bits at once, A answers with E errors among
    them obey A log2 V - E log2(V-1) + log2 KT(E, A-E) <= B + t, so A R(E/A) <= B + t + (1/2) log2 A + 1, whatever
    decides what is answered.
    """

    name, title, status, source = "F2", "Selective capacity", "proved", _PROJECT
    assumptions = (_INDEPENDENT, _COUNTED, "distinct questions")
    proof = (
        "Master lemma with f = V^A (V-1)^-E KT(E, A-E): of a fixed state C(A, E)(V-1)^E of V^A answers have E errors, "
        "and sum_E C(A, E) KT(E, A-E) = 1, KT being the mixture of Bernoulli laws with the weight Beta(1/2, 1/2). "
        "log2 KT >= -A h2(E/A) - (1/2) log2 A - 1 gives the rate."
    )
    dropped = "an oracle that is not counted in B says where to abstain"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> SelectiveWorld:
        return _selective_world(draw)

    def control_cases(self, draw: Draw) -> SelectiveWorld:
        return _oracle(draw)

    def control_slack(self, case: SelectiveWorld) -> float:
        return self.slack(case)

    def slack(self, case: SelectiveWorld) -> float:
        answered, errors = case.outcomes()
        proved = coverage.selective_bits(answered, errors, case.answers)
        most = np.sort(proved.max(axis=1))[::-1]
        likely = float(np.min(case.bits + _failure_bits(len(most)) - most))
        return min(likely, self._kraft(case, proved), self._rate_room(case, answered, errors, proved))

    def gap(self, witness: SelectiveWorld) -> float:
        """The mean of 2^bits is exactly one per state."""
        return abs(self._kraft(witness, coverage.selective_bits(*witness.outcomes(), witness.answers)))

    def _kraft(self, case: SelectiveWorld, proved: np.ndarray) -> float:
        """B minus log2 of the mean over labels of 2^bits of the best state."""
        return case.bits - math.log2(np.mean(2.0 ** proved.max(axis=1)))

    def _rate_room(self, case: SelectiveWorld, answered: np.ndarray, errors: np.ndarray, proved: np.ndarray) -> float:
        """What the short form leaves to the exact one."""
        some = answered > 0
        a, e = answered[some], errors[some]
        rates = a * capacity.rate_bits(e / a, case.answers)
        return float(np.min(proved[some] + 0.5 * np.log2(a) + 1.0 - rates, initial=math.inf))

    def witnesses(self) -> list[SelectiveWorld]:
        return [SelectiveWorld(2, ((0, 0, 0),)), SelectiveWorld(3, ((1, -1, 2),))]


@dataclass(frozen=True)
class Memory:
    """Facts of which a share is stored with the Hamming-optimal code of error rate e, the rest by storing or guessing.

    Both kinds spend the same bits per fact.
    """

    answers: int
    error_rate: float
    share: float


@register
class RateDistortion(Identity[Memory]):
    """The rate of log-loss is the line R = log2 V - L / ln 2, that of errors the convex R(e) = log2 V - h2(e) - e
    log2(V-1). At the least loss of R bits per fact, H_map can be anything from D(R) to (1 - R/log2 V)(1 - 1/V): the
    loss leaves it open.
    """

    name, title, status, source = "T10", "Two rate-distortion functions", "proved", _PROJECT
    assumptions = ("labels uniform", "many facts, so that a code reaches its rate", "calibrated rows")
    proof = (
        "Any joint law has I = H(Y) - H(Y|W), and a calibrated memory's loss is H(Y|W): a line. The channel that errs "
        "evenly with probability e has R(e) and meets the Kuhn-Tucker conditions of Hamming distortion. Its calibrated "
        "row has the loss h(e) + e ln(V-1) = ln V - R ln 2, and so has storing R/log2 V of the facts and guessing the "
        "rest; mixtures have every error between."
    )
    dropped = "the errors of the code are counted, but not which of the wrong answers they give"
    tolerance = 0.0

    def cases(self, draw: Draw) -> Memory:
        answers = draw.integer(2, 12)
        return Memory(answers, draw.real(1e-6, 1.0 - 1.0 / answers - 1e-6), draw.real(0.0, 1.0))

    def left(self, case: Memory) -> float:
        """R(e), bits per fact, by the formula."""
        return float(capacity.rate_bits(case.error_rate, case.answers))

    def right(self, case: Memory) -> float:
        """Mutual information of the channel, bits, from its joint law."""
        joint = self._code(case)
        independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        return float((joint * np.log2(joint / independent)).sum())

    def perturbed(self, case: Memory) -> float:
        return self.left(case) + case.error_rate * math.log2(case.answers - 1)

    def error_bound(self, case: Memory) -> float:
        return 1e-13 * case.answers

    def slack(self, case: Memory) -> float:
        return min(super().slack(case), self._optimal(case), *self._left_open(case))

    def _code(self, case: Memory) -> np.ndarray:
        """Joint law of answer and reproduction, shape (V, V)."""
        v, e = case.answers, case.error_rate
        return (np.eye(v) * (1.0 - e - e / (v - 1)) + e / (v - 1)) / v

    def _optimal(self, case: Memory) -> float:
        """Blahut's lower bound on the rate at distortion e meets the channel's rate: no code does better."""
        v, e = case.answers, case.error_rate
        slope = math.log((1.0 - e) * (v - 1) / e)
        kernel = np.exp(-slope * (1.0 - np.eye(v)))
        partition = kernel.mean(axis=1)  # reproductions are used evenly
        conditions = (kernel / partition[:, None]).mean(axis=0)  # at most 1 for each reproduction
        lower = (-slope * e - np.log(partition).mean() - math.log(conditions.max())) / LN2
        return self.error_bound(case) - abs(lower - self.right(case))

    def _left_open(self, case: Memory) -> tuple[float, float, float, float]:
        """Loss and error of the mixture, from its joint law with what is stored; and the ends of the interval."""
        v, rate = case.answers, self.left(case)
        stored = rate / math.log2(v)
        guessing = np.concatenate([stored * np.eye(v), np.full((v, 1), 1.0 - stored)], axis=1) / v
        joint = np.concatenate([case.share * self._code(case), (1.0 - case.share) * guessing], axis=1)
        rows = joint / np.where(joint.sum(axis=0) > 0.0, joint.sum(axis=0), 1.0)
        loss = -float((joint * np.log(np.where(rows > 0.0, rows, 1.0))).sum())
        error = 1.0 - float(joint.max(axis=0).sum())
        least, most = map(float, rate_distortion.errors_left_open(rate, v))
        mixed = case.share * case.error_rate + (1.0 - case.share) * most
        flat = 1e-7  # distortion() rounds the rate up where R is flat
        return (
            1e-13 * v - abs(loss - float(rate_distortion.loss_at_rate_nats(rate, v))),
            1e-13 * v - abs(rate - float(rate_distortion.rate_at_loss_bits(loss, v))),
            min(error - least, most - error) + 1e-14,
            min(1e-13 * v - abs(error - mixed), case.error_rate - least + 1e-15, least - case.error_rate + flat),
        )


@register
class CertifyingBits(Bound[World]):
    """Some state of B bits has a mean loss below ln 2 / n, which certifies zero greedy errors, with probability at most
    2^B / V^n over uniform labels: it takes more than n log2 V - t bits, and ceil(n log2 V) bits suffice.
    """

    name, title, status, source = "F4", "Bits that certify zero errors", "proved", _PROJECT
    assumptions = (_INDEPENDENT, "B counts everything label-dependent that evaluation needs", "distinct questions")
    proof = (
        "A state with L < ln 2 / n gives the label vector a probability above 1/2, so it serves at most one; there are "
        "V^n. The packed table (T16) has loss 0."
    )
    dropped = "the loss is only below ln V / n, so a state may serve several label vectors"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> World:
        return _world(draw, draw.integer(1, 8))

    def control_cases(self, draw: Draw) -> World:
        return _world(draw, draw.integer(1, 8))

    def slack(self, case: World) -> float:
        return min(self._room(case, LN2), self._sufficient(case))

    def gap(self, witness: World) -> float:
        """Of both directions; n log2 V is a whole number in every witness."""
        return max(abs(self._room(witness, LN2)), abs(self._sufficient(witness)))

    def control_slack(self, case: World) -> float:
        return self._room(case, math.log(case.answers))

    def _room(self, case: World, threshold: float) -> float:
        served = np.mean(case.losses(case.label_vectors()) < threshold * (1.0 - 1e-12))
        allowed = coverage.zero_errors_log2_probability(case.facts, case.bits, case.answers)
        return allowed - math.log2(served) if served > 0.0 else math.inf

    def _sufficient(self, case: World) -> float:
        """Bits beyond what is needed, below 1; -1 if a label vector does not come back from its bits."""
        needed, enough = coverage.certifying_bits(case.facts, case.answers)
        vectors = case.label_vectors()
        some = vectors[:: max(1, len(vectors) // 8)]
        back = [packing.unpack(packing.pack(labels, case.answers), case.facts, case.answers) for labels in some]
        length = int.from_bytes(packing.pack(vectors[-1], case.answers), "little").bit_length()  # the largest number
        if not np.array_equal(back, some) or length != enough:
            return -1.0
        return min(enough - needed, 1.0 - (enough - needed))

    def witnesses(self) -> list[World]:
        return [_storing(2, 2, 4), _storing(3, 3, 2), _table([(0, 1, 1), (1, 0, 1)], 2)]

"""The claims T7, T8, T11, T12 and F1: what B bits cannot hold, each with the cases that attack it.

A case is a whole small world: S states of the weights, each a table of predictions for n facts over V answers, and
every label vector there is. The learner is the best possible one: for each label vector it picks the best state, so a
learner that is random, lucky or stopped at the right moment is covered. B = log2 S.
"""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from theory import capacity
from theory.claims import Bound, Published, Record, register
from theory.search import Draw

_PROJECT = "this project"
_INDEPENDENT = "labels uniform and independent of each other and of everything but the weights"
_COUNTED = "B counts everything label-dependent that evaluation needs"
_MASTER = (
    "Master lemma: for f >= 0 a learner with 2^B states has E f(W, Y) <= 2^B max_w E f(w, Y), because f(W, Y) <= sum_w "
    "f(w, Y)."
)


@dataclass(frozen=True)
class World:
    """S states of the weights: `weights[s][i][a]` is the unnormalized probability of answer a to question i."""

    weights: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def probabilities(self) -> np.ndarray:
        """Shape (S, n, V); a row without weight is uniform."""
        table = np.array(self.weights, dtype=np.float64)
        table[table.sum(axis=2) == 0.0] = 1.0
        return table / table.sum(axis=2, keepdims=True)

    @property
    def bits(self) -> float:
        """B = log2 S."""
        return math.log2(len(self.weights))

    @property
    def facts(self) -> int:
        """The number n of them."""
        return len(self.weights[0])

    @property
    def answers(self) -> int:
        """Their number V."""
        return len(self.weights[0][0])

    def label_vectors(self) -> np.ndarray:
        """All V^n of them, shape (V^n, n)."""
        return np.array(list(product(range(self.answers), repeat=self.facts)))

    def label_probabilities(self, labels: np.ndarray) -> np.ndarray:
        """Probability of every label, shape (label vectors, S, n)."""
        return self.probabilities[:, np.arange(self.facts), labels].transpose(1, 0, 2)

    def losses(self, labels: np.ndarray) -> np.ndarray:
        """Total loss in nats of the best state for each label vector."""
        with np.errstate(divide="ignore"):
            return (-np.log(self.label_probabilities(labels))).sum(axis=2).min(axis=1)

    def sampled_errors(self, labels: np.ndarray, tries: int = 1) -> np.ndarray:
        """H_sampled of the best state for each label vector; with more tries a fact is wrong if all of them miss."""
        return ((1.0 - self.label_probabilities(labels)) ** tries).mean(axis=2).min(axis=1)

    def greedy_errors(self, labels: np.ndarray) -> np.ndarray:
        """Errors, ties included, of the best state for each label vector."""
        table = self.probabilities
        top = table.max(axis=2)
        unique = (table == top[..., None]).sum(axis=2) == 1
        right = unique[None] & (table.argmax(axis=2)[None] == labels[:, None, :])
        return (~right).sum(axis=2).min(axis=1)


def _world(draw: Draw, states: int) -> World:
    facts, answers = draw.choice(((1, 2), (2, 2), (3, 2), (4, 2), (1, 3), (2, 3), (3, 3), (1, 4), (2, 4)))
    return World(
        tuple(
            tuple(tuple(draw.choice((0, 1, 4, 9)) for _ in range(answers)) for _ in range(facts)) for _ in range(states)
        )
    )


def _table(codewords: Sequence[Sequence[int | None]], answers: int) -> World:
    """States that are certain of their codeword's answers; None is a uniform row."""
    return World(
        tuple(
            tuple(tuple(int(answer is None or answer == a) for a in range(answers)) for answer in codeword)
            for codeword in codewords
        )
    )


def _storing(stored: int, facts: int, answers: int) -> World:
    """The table net that stores the first facts exactly and knows nothing of the rest."""
    return _table([(*word, *[None] * (facts - stored)) for word in product(range(answers), repeat=stored)], answers)


def _failure_bits(label_vectors: int) -> np.ndarray:
    """t_j = log2(N / j): at most j of N label vectors may break a statement that fails with probability 2^-t_j."""
    return np.log2(label_vectors / np.arange(1, label_vectors + 1))


def _quantile_slack(values: np.ndarray, bounds: np.ndarray) -> float:
    """How far the j-th smallest of `values` lies above the bound for t_j, at the worst j."""
    return float(np.min(np.sort(values) - bounds))


@register
class CapacityLoss(Bound[World]):
    """n facts with uniform independent labels over V answers, learned into B bits: E L >= ln V - B ln 2 / n, and except
    with probability 2^-t, for all states of the weights at once, L >= ln V - (B + t) ln 2 / n. So B bits cannot hold
    more than n* = B / log2 V facts at loss 0.
    """

    name, title, status, source = "T7", "Bits and loss", "proved", _PROJECT
    assumptions = (_INDEPENDENT, _COUNTED, "distinct questions", "evaluation in a fixed order")
    proof = _MASTER + (
        " With f the probability that the state gives to Y the maximum is V^-n, so E 2^-loss <= 2^B V^-n; Jensen gives "
        "the expectation and Markov the probability."
    )
    dropped = "labels are not uniform: the answers of one particular file"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> World:
        return _world(draw, draw.integer(1, 5))

    def slack(self, case: World) -> float:
        return min(self._slacks(case))

    def gap(self, witness: World) -> float:
        return max(map(abs, self._slacks(witness)))

    def _slacks(self, case: World) -> tuple[float, float, float]:
        """Of the expectation, of the probability, and in bits of what all states together give the label vectors."""
        labels = case.label_vectors()
        losses = case.losses(labels) / case.facts
        expected = losses.mean() - capacity.loss_lower_nats(case.facts, case.bits, case.answers)
        likely = capacity.loss_lower_nats(case.facts, case.bits, case.answers, _failure_bits(len(labels)))
        shared = np.exp(-case.facts * losses).sum()
        kraft = case.bits - math.log2(shared) if shared > 0.0 else math.inf
        return float(expected), _quantile_slack(losses, likely), kraft

    def control_cases(self, draw: Draw) -> tuple[World, tuple[int, ...]]:
        world = _world(draw, draw.integer(1, 5))
        return world, tuple(draw.choice((1, 0, 4, 9)) for _ in range(world.answers))

    def control_slack(self, case: tuple[World, tuple[int, ...]]) -> float:
        world, weights = case
        frequencies = np.array(weights, dtype=np.float64) + (sum(weights) == 0)
        labels = world.label_vectors()
        chances = (frequencies / frequencies.sum())[labels].prod(axis=1)
        losses = np.where(chances > 0.0, world.losses(labels) / world.facts, 0.0)
        bound = capacity.loss_lower_nats(world.facts, world.bits, world.answers)
        return float(chances @ losses - bound) if np.all(np.isfinite(losses)) else math.inf

    def witnesses(self) -> list[World]:
        return [_storing(0, 3, 2), _storing(1, 3, 3), _storing(2, 3, 2), _storing(2, 2, 4)]


@register
class CapacityErrors(Bound[World]):
    """B bits allow at most k greedy errors among n uniform labels with probability at most 2^B Vol_V(n, k) / V^n, where
    Vol_V(n, k) counts the label vectors at most k errors away; perfect codes reach it.
    """

    name, title, status, source = "T8", "Bits and greedy errors", "proved", _PROJECT
    assumptions = (_INDEPENDENT, _COUNTED, "distinct questions")
    proof = _MASTER + " With f = 1{at most k errors} the maximum is Vol_V(n, k) / V^n."
    dropped = "two formats of the weights are tried on the labels, and the choice, one bit, is not counted"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> World:
        return _world(draw, draw.integer(1, 8))

    def slack(self, case: World) -> float:
        return self._room(case, case.bits)

    def control_cases(self, draw: Draw) -> World:
        return _world(draw, 2 * draw.integer(1, 4))

    def control_slack(self, case: World) -> float:
        return self._room(case, case.bits - 1.0)

    def _room(self, case: World, bits: float) -> float:
        errors = case.greedy_errors(case.label_vectors())
        rooms = [
            capacity.few_errors_log2_probability(k, case.facts, bits, case.answers) - math.log2(np.mean(errors <= k))
            for k in range(case.facts)
            if np.any(errors <= k)
        ]
        return min(rooms, default=math.inf)

    def witnesses(self) -> list[World]:
        repetition = [(0, 0, 0), (1, 1, 1)]
        hamming = [(a, b, c, d, a ^ b ^ d, a ^ c ^ d, b ^ c ^ d) for a, b, c, d in product((0, 1), repeat=4)]
        ternary = [(a, b, (a + b) % 3, (a + 2 * b) % 3) for a, b in product(range(3), repeat=2)]
        return [_table(repetition, 2), _table(hamming, 2), _table(ternary, 3), _storing(2, 2, 3)]


@register
class ErrorFloor(Bound[World]):
    """Except with probability 2^-t over uniform labels, for all states of B bits at once, H_sampled and H_greedy are at
    least D((B + t)/n), with D the inverse of R(e) = log2 V - h2(e) - e log2(V - 1); in expectation at least D(B/n).
    """

    name, title, status, source = "F1", "Bits and the floor of hallucination", "proved", _PROJECT
    assumptions = (_INDEPENDENT, _COUNTED, "distinct questions", "one sample per question, at temperature 1")
    proof = _MASTER + (
        " With f = prod(1 + (x - 1) p_i) the mean is ((V - 1 + x)/V)^n; ln(1 + (x - 1) p) >= p ln x; take "
        "x = (1 - e)(V - 1)/e at e = D. Greedy errors are the case p_i in {0, 1}. D is convex, hence the expectation."
    )
    dropped = "two samples per question, a fact counts as right if either is"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> World:
        return _world(draw, draw.integer(1, 5))

    def slack(self, case: World) -> float:
        labels = case.label_vectors()
        greedy = case.greedy_errors(labels) / case.facts
        return min(self._room(case, case.sampled_errors(labels)), self._room(case, greedy))

    def control_slack(self, case: World) -> float:
        return self._room(case, case.sampled_errors(case.label_vectors(), tries=2))

    def _room(self, case: World, rates: np.ndarray) -> float:
        expected = rates.mean() - capacity.error_lower(case.facts, case.bits, case.answers)
        likely = capacity.error_lower(case.facts, case.bits, case.answers, _failure_bits(len(rates)))
        return min(float(expected), _quantile_slack(rates, likely))


@dataclass(frozen=True)
class PermutedWorld:
    """A world whose labels are a random order of a fixed collection of answers."""

    world: World
    collection: tuple[int, ...]

    @property
    def counts(self) -> list[int]:
        """How often each answer that occurs does."""
        return [self.collection.count(answer) for answer in sorted(set(self.collection))]

    def label_vectors(self) -> np.ndarray:
        """All different orders, shape (orders, n)."""
        return np.array(sorted(set(permutations(self.collection))))


@register
class CertifiedBits(Bound[PermutedWorld]):
    """A trained network saves at most B + t bits on random labels, n log2 V minus its total loss in bits, except with
    probability 2^-t; for a random order of fixed answers the entropy is log2(n! / prod n_a!), and if they are all
    distinct at most k greedy errors have probability at most 2^B / (n - k)!.
    """

    name, title, status, source = "T11", "Certified bits", "proved", _PROJECT
    assumptions = (
        "labels uniform, or randomly permuted, independent of seeds, quantizer family, audited facts, evaluation order",
        "B counts weights, scales, zero points and log2 of every choice made after seeing labels",
        "R audits: t + log2 R in place of t",
    )
    proof = _MASTER + (
        " The probabilities that a state gives to any set of label vectors sum to at most 1, so T7 holds with the "
        "set's size in place of V^n. Of n! orders at most n!/(n - k)! agree with given answers in all but k places."
    )
    dropped = "the labels are permuted but are counted as independent and uniform, n log2 V bits"
    tolerance = 1e-11  # certify allows float64 probabilities 1e-12 bits per fact

    def cases(self, draw: Draw) -> PermutedWorld:
        world = _world(draw, draw.integer(1, 5))
        if draw.choice((False, True)) and world.facts <= world.answers:
            return PermutedWorld(world, tuple(range(world.facts)))
        return PermutedWorld(world, tuple(draw.integer(0, world.answers - 1) for _ in range(world.facts)))

    def slack(self, case: PermutedWorld) -> float:
        uniform = self._room(case.world, case.world.label_vectors(), None)
        rooms = [uniform, self._room(case.world, case.label_vectors(), case.counts)]
        if len(case.counts) == case.world.facts:
            rooms.append(self._few_errors_room(case))
        return min(rooms)

    def control_slack(self, case: PermutedWorld) -> float:
        return self._room(case.world, case.label_vectors(), None)

    def _room(self, world: World, labels: np.ndarray, counts: list[int] | None) -> float:
        """Smallest room of the certificates that a share j/N of the label vectors may break, over j."""
        loss_bits = np.sort(world.losses(labels)) / math.log(2.0)
        rooms = [
            capacity.certify(bits, world.facts, world.answers, world.bits, failure, answer_counts=counts).room_bits
            for bits, failure in zip(loss_bits, _failure_bits(len(labels)), strict=True)
        ]
        return min(rooms)

    def _few_errors_room(self, case: PermutedWorld) -> float:
        errors, world = case.world.greedy_errors(case.label_vectors()), case.world
        rooms = [
            capacity.few_errors_log2_probability_permuted(k, world.facts, world.bits) - math.log2(np.mean(errors <= k))
            for k in range(world.facts)
            if np.any(errors <= k)
        ]
        return min(rooms, default=math.inf)

    def gap(self, witness: PermutedWorld) -> float:
        return abs(self._room(witness.world, witness.label_vectors(), witness.counts))

    def witnesses(self) -> list[PermutedWorld]:
        """A state for every order."""
        collections = ((0, 1), (0, 1, 2), (0, 0, 1), (0, 0, 1, 2))
        return [
            PermutedWorld(_table(sorted(set(permutations(collection))), max(collection) + 1), collection)
            for collection in collections
        ]


@register
class PublishedCoefficients(Record):
    """Bits per parameter in the literature: 1 at 100 exposures and 2 at 1000, which the law alpha_inf (1 - e^-aE) meets
    with a = .0069216 and alpha_inf = 2.00197; 1/(2 ln 2) = .72 for the linear associative memory.
    """

    name, title, status = "T12", "Published bits per parameter", "quoted"
    source = "arXiv 2404.05405, 2505.24832, 2605.05189, 2605.10795"
    assumptions = ("uniform strings or knowledge triples, GPT-2 shape", "the law interpolates two points")
    proof = "The law is solved for the two points; n log2 n bits in d^2 weights at d^2 = 2 n ln n give 1/(2 ln 2)."
    largest_search = 20

    def published(self) -> list[Published]:
        limit, speed = capacity.exposure_law()
        facts = 1000
        associative = facts * math.log2(facts) / (2 * facts * math.log(facts))
        return [
            Published("bits at 100 exposures", 1.0, float(capacity.published_bits_per_parameter(100.0)), 1e-12),
            Published("bits at 1000 exposures", 2.0, float(capacity.published_bits_per_parameter(1000.0)), 1e-12),
            Published("speed a of the exposure law", 0.0069216, speed, 1e-5),
            Published("limit alpha_inf of the exposure law", 2.00197, limit, 1e-5),
            Published("linear associative memory", 0.72, associative, 5e-3),
        ]

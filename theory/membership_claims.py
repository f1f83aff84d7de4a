"""The claims T20 and F3: what it costs to know what one knows, attacked on every set of keys of small universes."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from theory import membership
from theory.claims import Bound, register
from theory.rounding import LN2
from theory.search import Draw

_SOURCE = "this project, after arXiv 2602.00906"
_UNIFORM = "the keys are a uniformly random set"


@dataclass(frozen=True)
class Scorer:
    """A memory of few states: which state each set of keys leads to, and each state's law of scores for each item."""

    universe: int
    keys: int
    state_of: tuple[int, ...]  # for each set of keys in lexicographic order
    scores: tuple[tuple[tuple[int, ...], ...], ...]  # weights, state by item by level

    @property
    def entropy_bits(self) -> float:
        """Of the state."""
        shares = np.bincount(self.state_of) / len(self.state_of)
        shares = shares[shares > 0.0]
        return float(-(shares * np.log2(shares)).sum())

    def score_laws(self) -> tuple[np.ndarray, np.ndarray]:
        """mu_K and mu_N, averaged over key sets and over keys, or over the other items."""
        table = np.array(self.scores, dtype=np.float64)
        table /= table.sum(axis=2, keepdims=True)
        used = table[list(self.state_of)]
        is_key = np.zeros(used.shape[:2], dtype=bool)
        for row, keys in enumerate(combinations(range(self.universe), self.keys)):
            is_key[row, list(keys)] = True
        return used[is_key].mean(axis=0), used[~is_key].mean(axis=0)


@register
class ScoresCostBits(Bound[Scorer]):
    """A memory that gives n random keys of a universe of u scores of law mu_K, and the rest scores of law mu_N, takes
    at least F_p(mu_K, mu_N) - log2(8n(1 - p))/(2n) bits per key, with p = n/u and F_p = I(is a key; score)/p. F_p rises
    to the divergence of mu_K from mu_N as p -> 0, so that divergence is the limit and no bound.
    """

    name, title, status, source = "T20", "Scores cost bits", "proved", _SOURCE
    assumptions = (_UNIFORM, "score laws averaged over key sets", "B is the entropy of the memory, or more")
    proof = (
        "The keys have log2 C(u, n) >= u h(p) - log2(8n(1 - p))/2 bits. Given the memory they have at most the sum of "
        "H(is x a key | score of x), by concavity at most u H(is a key | score). The difference is at most B."
    )
    dropped = "the limit p -> 0 is read as a bound: the divergence in place of F_p"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> Scorer:
        universe = draw.integer(2, 5)
        keys, states, levels = draw.integer(1, universe - 1), draw.integer(1, 6), draw.integer(2, 3)
        sets = math.comb(universe, keys)
        state_of = tuple(draw.integer(0, states - 1) for _ in range(sets))
        row = lambda: (draw.choice((1, 0, 6)), *(draw.choice((0, 1, 6)) for _ in range(levels - 1)))  # noqa: E731
        scores = tuple(tuple(self._law(row()) for _ in range(universe)) for _ in range(states))
        return Scorer(universe, keys, state_of, scores)

    def _law(self, weights: tuple[int, ...]) -> tuple[int, ...]:
        return weights if sum(weights) else (1,) * len(weights)

    def slack(self, case: Scorer) -> float:
        least = membership.score_bits_lower(*case.score_laws(), keys=case.keys, universe=case.universe)
        return case.entropy_bits / case.keys - least

    def control_slack(self, case: Scorer) -> float:
        share = case.keys / case.universe
        lost = math.log2(8.0 * case.keys * (1.0 - share)) / (2.0 * case.keys)
        return case.entropy_bits / case.keys + lost - membership.divergence_bits(*case.score_laws(), key_share=0.0)

    def corners(self) -> list[Scorer]:
        """Memories that know every set of keys, in which the bound is closest."""
        return [_knowing(universe, keys) for universe, keys in ((4, 2), (5, 2), (6, 3), (8, 4), (3, 1))]


def _knowing(universe: int, keys: int) -> Scorer:
    sets = list(combinations(range(universe), keys))
    scores = tuple(tuple((0, 1) if item in chosen else (1, 0) for item in range(universe)) for chosen in sets)
    return Scorer(universe, keys, tuple(range(len(sets))), scores)


@dataclass(frozen=True)
class ScoreLaws:
    """Scores in (0, 1), as -ln of the score, and their weights among keys and among the rest."""

    losses: tuple[float, ...]
    keys: tuple[float, ...]
    others: tuple[float, ...]

    def laws(self) -> tuple[np.ndarray, np.ndarray]:
        """mu_K and mu_N."""
        k, q = np.array(self.keys), np.array(self.others)
        return k / k.sum(), q / q.sum()

    def mean_losses(self) -> tuple[float, float]:
        """Mean of -ln score among keys, and of -ln(1 - score) among the rest, nats."""
        (k, q), on_key = self.laws(), np.array(self.losses)
        with np.errstate(divide="ignore"):
            on_other = -np.log(-np.expm1(-on_key))
        return float(k[k > 0] @ on_key[k > 0]), float(q[q > 0] @ on_other[q > 0])


@register
class LogLossOfMembership(Bound[ScoreLaws]):
    """Scores with mean log loss eps_K on keys and eps_N on the rest have a divergence of at least log2(1/q*) bits, with
    q* = eps_N / -ln(1 - e^-eps_K): the least bits per key in the limit of a rare key. All keys at e^-eps_K, and of the
    rest a share q* there and all others at 0, reach it.
    """

    name, title, status, source = "T20b", "Log loss of membership", "proved", _SOURCE
    assumptions = ("e^-eps_K + e^-eps_N > 1, else the bound is 0", "a limit: at finite p use T20 or F3")
    proof = (
        "Donsker and Varadhan with g = -ln(1 - score): D >= E_K ln g - ln E_N g = E_K ln g - ln eps_N. As a function "
        "of y = -ln score, ln g is convex, since (e^y - 1) g rises; Jensen puts y at eps_K."
    )
    dropped = "the losses are exchanged: that of the rest is taken for that of the keys"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> ScoreLaws:
        levels = draw.integer(1, 4)
        losses = (*(draw.choice((0.1, 0.693, 2.0, 7.0)) * draw.real(0.01, 1.0) for _ in range(levels)), math.inf)
        keys = (*(draw.choice((1.0, 0.0, 0.1, 5.0)) for _ in range(levels)), 0.0)
        keys = keys if sum(keys) else (1.0,) * levels + (0.0,)
        return ScoreLaws(losses, keys, tuple(draw.real(1e-4, 1.0) for _ in range(levels + 1)))

    def slack(self, case: ScoreLaws) -> float:
        return self._room(case, *case.mean_losses())

    def control_slack(self, case: ScoreLaws) -> float:
        return self._room(case, *reversed(case.mean_losses()))

    def _room(self, case: ScoreLaws, key_loss: float, other_loss: float) -> float:
        divergence = membership.divergence_bits(*case.laws(), key_share=0.0)
        return divergence - float(membership.log_loss_bits_limit(key_loss, other_loss))

    def witnesses(self) -> list[ScoreLaws]:
        return [
            ScoreLaws((loss, math.inf), (1.0, 0.0), (q, 1.0 - q)) for loss, q in ((LN2, 0.25), (0.1, 1e-3), (2.0, 0.9))
        ]


@dataclass(frozen=True)
class Answerer:
    """A memory of few states; each answers every item with one of its values or, if negative, not at all."""

    keys: int
    values: int
    states: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...] = ()  # how likely each set of keys is; evenly if empty

    @property
    def universe(self) -> int:
        """Its size u."""
        return len(self.states[0])

    def fewest_answered(self) -> tuple[np.ndarray, np.ndarray]:
        """Fewest items answered by a state that is right, for every set of keys with values; and its probability."""
        states = np.array(self.states)
        answered = (states >= 0).sum(axis=1)
        sets = list(combinations(range(self.universe), self.keys))
        weights = np.array(self.weights or (1,) * len(sets), dtype=np.float64)
        values = np.array(list(product(range(self.values), repeat=self.keys)))
        right = (states[:, sets][:, :, None, :] == values[None, None]).all(axis=3)
        fewest = np.where(right, answered[:, None, None], self.universe + 1).min(axis=0)
        chances = np.repeat(weights / weights.sum() / len(values), len(values))
        return fewest.ravel(), chances


@register
class AnsweringAndRejecting(Bound[Answerer]):
    """B bits answer n random keys of a universe of u with their random values, and at most a items at all, with
    probability at most 2^B C(a, n)/(C(u, n) V^n). So value and rejection together cost at least
    n (log2 V + log2(u/a)) - t bits; V = 1 is the bound of Bloom filters.
    """

    name, title, status, source = "F3", "Answering and rejecting", "proved", _SOURCE
    assumptions = (_UNIFORM, "values uniform over V and independent", "a counts every answered item, keys included")
    proof = (
        "A state that answers at most a items is right for at most C(a, n) of the C(u, n) V^n equally likely sets of "
        "keys with values; sum over 2^B states. C(u, n)/C(a, n) >= (u/a)^n, factor by factor."
    )
    dropped = "some sets of keys are likelier than others"
    tolerance = 1e-12

    def cases(self, draw: Draw) -> Answerer:
        universe = draw.integer(2, 6)
        keys, values = draw.integer(1, min(3, universe - 1)), draw.integer(1, 2)
        states = tuple(tuple(draw.integer(-1, values - 1) for _ in range(universe)) for _ in range(draw.integer(1, 6)))
        return Answerer(keys, values, states)

    def slack(self, case: Answerer) -> float:
        return min(self._slacks(case), default=math.inf)

    def gap(self, witness: Answerer) -> float:
        """At the number of items that its states answer."""
        return abs(min(self._slacks(witness)))

    def _slacks(self, case: Answerer) -> list[float]:
        """In bits, one for each a that a state reaches."""
        fewest, chances = case.fewest_answered()
        bits = math.log2(len(case.states))
        return [
            membership.answered_log2_probability(case.keys, case.universe, a, bits, case.values)
            - math.log2(chances[fewest <= a].sum())
            for a in range(case.keys, case.universe + 1)
            if np.any(chances[fewest <= a])
        ]

    def control_cases(self, draw: Draw) -> Answerer:
        case = self.cases(draw)
        sets = math.comb(case.universe, case.keys)
        weights = (1, *(draw.choice((1, 0, 9)) for _ in range(sets - 1)))
        return Answerer(case.keys, case.values, case.states, weights)

    def control_slack(self, case: Answerer) -> float:
        return self.slack(case)

    def witnesses(self) -> list[Answerer]:
        """One state; states that split the universe; the lines of the Fano plane; all values of halves."""
        fano = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]
        halves = [(0, 1), (2, 3)]
        return [
            Answerer(1, 1, _blocks([(0, 1)], 3)),
            Answerer(1, 1, _blocks(halves, 4)),
            Answerer(2, 1, _blocks(fano, 7)),
            Answerer(1, 2, (*_blocks(halves, 4), *_blocks(halves, 4, value=1))),
        ]


def _blocks(blocks: Sequence[Sequence[int]], universe: int, value: int = 0) -> tuple[tuple[int, ...], ...]:
    """A state for each block, which answers its items with `value` and no other."""
    return tuple(tuple(value if item in block else -1 for item in range(universe)) for block in blocks)

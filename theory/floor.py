"""The combined floor: what N samples and B bits together must get wrong, and the policy that gets least wrong.

The world: questions i are asked with frequencies p_i; each has one answer, uniform over V, independent of the others
and of which questions are asked. A learner sees N independent questions with their answers, keeps a state of at most
2^B values (its seeds are free), and is asked one more question of the same law. *Hallucination* is the probability that
it then answers wrongly. Abstaining costs c of a wrong answer: c = 1, or anything from 1 - 1/V on, means that everything
is answered; a score that pays 1 for a right answer and -t/(1 - t) for a wrong one is c = 1 - t (T17e). What is bounded
below is the expectation of hallucination + c abstention, over samples, answers and seeds.

Letters: s = 1 - (1 - p)^N; x = p/lambda bits that a question is worth at lambda (cost per bit); e an error rate;
alpha the exponent of a power law p ~ r^-alpha of the rank r. Statements and proofs are the claims F6, F6b and F7 of
`theory.floor_claims`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit

from theory.rounding import LN2, above, below, counted, finite, non_negative
from theory.unseen import frequencies, good_turing_excess_upper, missing_mass, seen_probability

Floats = NDArray[np.float64]

_ROUNDING = 64 * 2.0**-52  # of the sums of a floor, relative to the sum of what is added and what is taken away
_WORTHLESS, _PRICELESS = 1e-12, 2000.0  # bits that a question is worth: below, storing saves nothing; above, e is 0
_AT_THRESHOLD = 1e-9  # relative


def power_law(questions: int, exponent: float) -> Floats:
    """Frequencies proportional to r^-alpha of ranks r = 1, 2, ...; alpha = 0 is the uniform law.

    >>> power_law(2, 1.0).tolist() == [2 / 3, 1 / 3]
    True
    """
    weights = np.arange(1, int(counted("questions", questions)) + 1, dtype=np.float64) ** -float(exponent)
    return weights / math.fsum(weights)


def guessing_cost(answers: float, abstention_cost: float = 1.0) -> float:
    """Least cost min(c, 1 - 1/V) of a question about which nothing is known."""
    v = float(counted("answers", answers, least=2))
    return min(float(finite("abstention_cost", abstention_cost)), 1.0 - 1.0 / v)


def unseen_lower(samples: float, law: ArrayLike, answers: float, abstention_cost: float = 1.0) -> float:
    """Least cost from unseen facts alone, min(c, 1 - 1/V) sum p (1 - p)^N; rounded down.

    >>> 0.12499 < unseen_lower(2, [0.5, 0.5], 2) <= 0.125
    True
    """
    return guessing_cost(answers, abstention_cost) * missing_mass(law, samples) * (1.0 - _ROUNDING)


def unseen_lower_from_singletons(
    expected_singleton_share: float, samples: int, answers: float, abstention_cost: float = 1.0
) -> float:
    """The same without the law: min(c, 1 - 1/V) (E sr - (1/N)(1 - 1/N)^(N-1)), by T18; at least 0, rounded down.

    >>> unseen_lower_from_singletons(0.5, 10**6, 1000) > 0.499
    True
    """
    share = float(non_negative("expected_singleton_share", expected_singleton_share))
    missing = share - float(good_turing_excess_upper(samples))
    return max(0.0, guessing_cost(answers, abstention_cost) * missing * (1.0 - _ROUNDING))


def capacity_lower(bits: float, law: ArrayLike, answers: float, abstention_cost: float = 1.0) -> float:
    """Least cost from capacity alone: the floor of a learner that saw everything; rounded down.

    For the uniform law it is D(B/n) of F1.

    >>> round(capacity_lower(1.5, [1 / 3] * 3, 2), 6)
    0.110028
    """
    return hallucination_lower(math.inf, bits, law, answers, abstention_cost)


def bits_enough(samples: float, law: ArrayLike, answers: float) -> float:
    """Bits log2 V sum (1 - (1 - p)^N) that hold all a sample contains, on average; then only `unseen_lower` is left.

    >>> bits_enough(math.inf, [0.5, 0.25, 0.25], 4)
    6.0
    """
    return float(np.log2(counted("answers", answers, least=2))) * math.fsum(seen_probability(law, samples))


def hallucination_lower(
    samples: float, bits: float, law: ArrayLike, answers: float, abstention_cost: float = 1.0
) -> float:
    """The combined floor (F6): least expected hallucination + c abstention of any learner; rounded down.

    The largest, over lambda > 0, of

        min(c, 1 - 1/V) sum p (1 - s) + sum s lambda min(phi(p/lambda), c p/lambda) - lambda B,

    phi(x) = log2 V - log2(1 + (V - 1) 2^-x). It falls with samples and with bits; for infinitely many bits it is
    `unseen_lower`, for infinitely many samples `capacity_lower`.

    >>> floor = hallucination_lower(1000, 500.0, power_law(1000, 1.0), 32)
    >>> max(unseen_lower(1000, power_law(1000, 1.0), 32), capacity_lower(500.0, power_law(1000, 1.0), 32)) < floor < 0.8
    True
    """
    unseen = unseen_lower(samples, law, answers, abstention_cost)
    described = float(non_negative("bits", bits))
    if described >= bits_enough(samples, law, answers):
        return unseen
    cost = guessing_cost(answers, abstention_cost)
    if described == 0.0 or cost == 0.0:
        return cost * (1.0 - _ROUNDING) * math.fsum(frequencies(law))
    p, seen = _occurring(law, samples)
    price = _price_of_a_bit(p, seen, described, float(answers), abstention_cost)
    worth = p / price
    saved = np.minimum(_worth_of_knowing(worth, float(answers)), abstention_cost * worth)
    added, taken = cost * missing_mass(law, samples) + price * float(seen @ saved), price * described
    return max(unseen, min(cost, added - taken - _ROUNDING * (added + taken)))


@dataclass(frozen=True)
class Policy:
    """The policy that attains the floor's optimum: which questions to memorize, how well, when to abstain.

    Questions more frequent than `threshold_frequency` are memorized, rarer ones are answered "I don't know" (guessed,
    if abstaining costs more than that), and those exactly at the threshold are memorized in part.
    """

    price_of_a_bit: float  # lambda, the cost that one more bit saves
    threshold_frequency: float  # 0 where abstaining never pays, or where there are bits enough
    memorized: Floats  # share of each question, if it is seen; 0 or 1 but at the threshold
    bits: Floats  # R(e), spent on each memorized question
    error_rate: Floats  # e, of each memorized question


def optimal_policy(samples: float, bits: float, law: ArrayLike, answers: float, abstention_cost: float = 1.0) -> Policy:
    """Memorize or abstain, at the price of a bit at which the budget is used up. Not rounded to a side.

    >>> policy = optimal_policy(math.inf, 10.0, power_law(100, 1.5), 32, abstention_cost=0.01)
    >>> policy.memorized.nonzero()[0].tolist(), round(float(policy.bits[0]), 9)
    ([0, 1], 5.0)
    """
    p, seen = frequencies(law), seen_probability(law, samples)
    described, v = float(finite("bits", bits)), float(counted("answers", answers, least=2))
    if described >= bits_enough(samples, law, answers):
        known = (p > 0.0) & (abstention_cost > 0.0)
        return Policy(0.0, 0.0, np.where(known, 1.0, 0.0), np.where(known, math.log2(v), 0.0), np.zeros(p.shape))
    least = worth_memorizing(v, abstention_cost)
    if described == 0.0 or least == math.inf:
        return Policy(math.inf, math.inf, np.zeros(p.shape), np.zeros(p.shape), np.full(p.shape, 1.0 - 1.0 / v))
    price = _price_of_a_bit(p[p > 0.0], seen[p > 0.0], described, v, abstention_cost)
    worth = p / price
    spent = _bits_of(worth, v)
    above_it, at_it = worth > least * (1.0 + _AT_THRESHOLD), np.abs(worth - least) <= least * _AT_THRESHOLD
    left, asked = described - float((seen * spent)[above_it].sum()), float((seen * spent)[at_it].sum())
    part = min(1.0, max(0.0, left / asked)) if asked > 0.0 else 0.0
    return Policy(price, price * least, np.where(above_it, 1.0, np.where(at_it, part, 0.0)), spent, _error_of(worth, v))


def worth_memorizing(answers: float, abstention_cost: float) -> float:
    """Bits x_c that a question must be worth to be memorized: phi(x) = c x; 0 if abstaining never pays, c >= 1 - 1/V.

    >>> worth_memorizing(32, 1.0), round(worth_memorizing(32, 0.01), 6)
    (0.0, 500.0)
    """
    v = float(counted("answers", answers, least=2))
    c = float(finite("abstention_cost", abstention_cost))
    if c >= 1.0 - 1.0 / v:
        return 0.0
    if c == 0.0:
        return math.inf
    high = math.log2(v) / c
    low = high
    while _surplus(low, v, c) <= 0.0:
        low *= 0.5
        if low < 1e-12:  # c is 1 - 1/V up to rounding
            return 0.0
    if low == high:
        return high
    return float(np.asarray(brentq(_surplus, low, 2.0 * low, args=(v, c), xtol=1e-15 * low)))


def _surplus(worth: float, v: float, abstention_cost: float) -> float:
    return float(_worth_of_knowing(np.asarray(worth), v)) - abstention_cost * worth


def threshold_rank(bits: float, exponent: float, answers: float, abstention_cost: float) -> float:
    """Rank of the rarest question worth memorizing under a power law with everything seen, for many bits (F7).

    r* = B / kappa, kappa = integral over t in [0, 1] of the bits spent at worth x_c t^-alpha, just below log2 V: so the
    threshold frequency p_1 r*^-alpha falls as B^-alpha, whatever V and c are.

    >>> 195 < threshold_rank(1000, 2.0, 32, 0.1) < 205
    True
    """
    least = worth_memorizing(answers, abstention_cost)
    if not 0.0 < least < math.inf:
        raise ValueError("a threshold needs an abstention cost above 0 and below 1 - 1/V")
    v, alpha = float(answers), float(finite("exponent", exponent))

    def spent(t: float) -> float:
        return float(_bits_of(np.asarray(least * t**-alpha if t > 0.0 else math.inf), v))

    kappa, _ = quad(spent, 0.0, 1.0, epsabs=1e-12, epsrel=1e-12, limit=200)
    return float(finite("bits", bits)) / kappa


def coverage_upper(samples: float, bits: float, law: ArrayLike, answers: float) -> float:
    """Largest expected share of questions that a learner which never errs can answer (F6b); rounded up.

    Fill a knapsack of B/log2 V questions with the most frequent ones, each up to the probability that it was seen.

    >>> 0.75 <= coverage_upper(math.inf, 2.0, [0.5, 0.25, 0.25], 2) < 0.75 + 1e-12
    True
    """
    p, seen = _occurring(law, samples)
    order = np.argsort(-p, kind="stable")
    p, seen = p[order], seen[order]
    room = above(float(non_negative("bits", bits)) / below(float(np.log2(counted("answers", answers, least=2)))))
    before = np.concatenate([[0.0], np.cumsum(seen)[:-1]]) * (1.0 - 1e-13)
    return min(1.0, math.fsum(p * np.clip(room - before, 0.0, seen)) * (1.0 + _ROUNDING))


def _occurring(law: ArrayLike, samples: float) -> tuple[Floats, Floats]:
    p, seen = frequencies(law), seen_probability(law, samples)
    return p[p > 0.0], seen[p > 0.0]


def _price_of_a_bit(p: Floats, seen: Floats, bits: float, v: float, abstention_cost: float) -> float:
    """The lambda at which the expected bits spent are the budget; they fall with it. Any lambda gives a valid floor."""
    stored = max(_PRICELESS, 2.0 * math.log2(v) / abstention_cost)
    low, high = math.log(float(p.min()) / stored), math.log(float(p.max()) / _WORTHLESS)
    for _ in range(56):
        middle = 0.5 * (low + high)
        worth = p * math.exp(-middle)
        paying = _worth_of_knowing(worth, v) <= abstention_cost * worth
        spent = float(seen @ np.where(paying, _bits_of(worth, v), 0.0))
        low, high = (middle, high) if spent > bits else (low, middle)
    return math.exp(0.5 * (low + high))


def _worth_of_knowing(worth: Floats, v: float) -> Floats:
    """phi(x) = log2 V - log2(1 + (V - 1) 2^-x) = min over e of R(e) + x e."""
    near = -np.log1p((1.0 - 1.0 / v) * np.expm1(-np.minimum(worth, 1.0) * LN2)) / LN2
    far = math.log2(v) - np.log1p((v - 1.0) * np.exp2(-worth)) / LN2
    return np.where(worth < 1.0, near, far)


def _error_of(worth: Floats, v: float) -> Floats:
    """The error rate e = 1/(1 + 2^x/(V - 1)) of a question worth x bits, the slope of phi."""
    return expit(math.log(v - 1.0) - worth * LN2)


def _bits_of(worth: Floats, v: float) -> Floats:
    """R(e) = phi(x) - x e, the bits spent on a question worth x."""
    with np.errstate(invalid="ignore"):
        paid = np.where(np.isinf(worth), 0.0, worth * _error_of(worth, v))
    return np.maximum(0.0, _worth_of_knowing(worth, v) - paid)

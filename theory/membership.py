"""Known or unknown: how many bits it takes to tell keys from everything else.

Letters: n keys in a universe of u, p = n/u; B bits that describe the memory; a score per item, with the laws mu_K on
keys and mu_N on the rest; a items of the universe that get an answer; V values of a key; t failure bits. Statements and
proofs are the claims T20, T20b and F3 of `theory.membership_claims`; V = 1 is the bound that Bloom filters obey.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.rounding import LN2, above, below, counted, finite, non_negative

Floats = NDArray[np.float64]

_CHUNK = 2**20


def divergence_bits(key_scores: ArrayLike, other_scores: ArrayLike, key_share: float) -> float:
    """F_p(mu_K, mu_N) = I(is a key; score) / p in bits, for score laws on common levels and p = `key_share` (T20).

    It rises to the Kullback-Leibler divergence of mu_K from mu_N as p -> 0; p = 0 gives that limit. Not rounded to a
    side; the absolute error is a few ulps of 1 + F_p.

    >>> divergence_bits([1, 0], [0, 1], 0.5), round(divergence_bits([1, 0], [0.5, 0.5], 0.0), 12)
    (2.0, 1.0)
    """
    k, q = _score_law("key_scores", key_scores), _score_law("other_scores", other_scores)
    if k.shape != q.shape:
        raise ValueError("key_scores and other_scores must have the same levels")
    if not 0.0 <= key_share < 1.0:
        raise ValueError(f"key_share must be in [0, 1), got {key_share!r}")
    mixture = key_share * k + (1.0 - key_share) * q
    if np.any((mixture == 0.0) & (k > 0.0)):
        return math.inf
    present, others = k > 0.0, q > 0.0
    of_keys = math.fsum(k[present] * np.log(k[present] / mixture[present])) / LN2
    if key_share == 0.0:
        return max(0.0, of_keys)
    change = key_share * (k[others] - q[others]) / q[others]
    of_others = -math.fsum(q[others] * np.log1p(change)) / LN2
    return max(0.0, of_keys + (1.0 - key_share) / key_share * of_others)


def _score_law(name: str, law: ArrayLike) -> Floats:
    p = np.atleast_1d(finite(name, law))
    if p.ndim != 1 or abs(math.fsum(p) - 1.0) > 1e-9:
        raise ValueError(f"{name} must be a list of probabilities that sum to 1")
    return p


def score_bits_lower(key_scores: ArrayLike, other_scores: ArrayLike, keys: int, universe: int) -> float:
    """Least bits per key F_p - log2(8n(1-p))/(2n) of a memory with these score laws (T20); at least 0, rounded down.

    The laws are averages over uniformly random key sets, over keys and over the other items.

    >>> score_bits_lower([1, 0], [0, 1], keys=2, universe=4) <= math.log2(6) / 2
    True
    """
    n, u = _keys_of(keys, universe)
    share = n / u
    divergence = divergence_bits(key_scores, other_scores, share)
    lost = math.log2(8.0 * n * (1.0 - share)) / (2.0 * n)
    return max(0.0, divergence - lost - 32 * 2.0**-52 * (1.0 + divergence + abs(lost)))


def log_loss_bits_limit(key_loss_nats: ArrayLike, other_loss_nats: ArrayLike) -> Floats:
    """Least divergence log2(1/q*) in bits of score laws with these mean log losses (T20b); at least 0.

    q* = eps_N / -ln(1 - e^-eps_K), eps_K the mean of -ln score on keys and eps_N that of -ln(1 - score) on the rest;
    0 unless e^-eps_K + e^-eps_N > 1. It bounds the divergence, and so bits per key in the limit p -> 0 only: at finite
    p a memory may take fewer. Not rounded to a side.

    >>> round(float(log_loss_bits_limit(math.log(2), math.log(2) / 8)), 12)
    3.0
    """
    eps_k, eps_n = non_negative("key_loss_nats", key_loss_nats), non_negative("other_loss_nats", other_loss_nats)
    with np.errstate(divide="ignore"):
        beside = np.where(eps_k < LN2, np.log(-np.expm1(-eps_k)), np.log1p(-np.exp(-eps_k)))
        bits = (np.log(-beside) - np.log(eps_n)) / LN2
    return np.where(eps_n == 0.0, np.where(np.isposinf(eps_k), 0.0, np.inf), np.maximum(0.0, bits))


def answered_log2_probability(keys: int, universe: int, answered: int, bits: float, values: float = 1) -> float:
    """log2 of the largest probability that all n keys are answered rightly and at most a items at all (F3); rounded up.

    B + log2 C(a, n) - log2 C(u, n) - n log2 V, at most 0: for uniformly random keys and values.

    >>> answered_log2_probability(2, 7, 3, bits=math.log2(7))  # the seven lines of the Fano plane
    0.0
    """
    n, u = _keys_of(keys, universe)
    a = int(counted("answered", answered, least=0))
    if a < n:
        return -math.inf
    described, asked = float(finite("bits", bits)), _rejection_bits(n, u, min(a, u)) + _value_bits(n, values)
    return min(0.0, described - asked + 16 * float(np.spacing(max(described, asked))))


def answered_bits_lower(keys: int, universe: int, answered: int, values: float = 1, failure_bits: float = 0.0) -> float:
    """Least bits log2(C(u, n)/C(a, n)) + n log2 V - t that answer n keys rightly and at most a of u items (F3).

    Except with probability 2^-t over the keys and values. At least n (log2 V + log2(u/a)) - t. Rounded down,
    at least 0; infinite if a < n.

    >>> 2.80 < answered_bits_lower(2, 7, 3) < 2.81
    True
    """
    n, u = _keys_of(keys, universe)
    a = int(counted("answered", answered, least=0))
    if a < n:
        return math.inf
    asked = _rejection_bits(n, u, min(a, u)) + _value_bits(n, values)
    return max(0.0, float(below(below(asked)) - above(finite("failure_bits", failure_bits))))


def false_answer_bits_lower(false_answer_rate: ArrayLike) -> Floats:
    """Bits per key log2(1/rate) that rejecting others at this rate costs in the limit of many keys and others (F3).

    >>> float(false_answer_bits_lower(1 / 1024))
    10.0
    """
    rate = non_negative("false_answer_rate", false_answer_rate)
    if np.any(rate > 1.0):
        raise ValueError("false_answer_rate must be <= 1")
    with np.errstate(divide="ignore"):
        return -np.log2(rate)


def _keys_of(keys: int, universe: int) -> tuple[int, int]:
    n, u = int(counted("keys", keys)), int(counted("universe", universe))
    if n >= u:
        raise ValueError(f"keys must be fewer than the universe, got {n} of {u}")
    return n, u


def _rejection_bits(n: int, u: int, a: int) -> float:
    """log2(C(u, n)/C(a, n)) = sum over i < n of log2((u - i)/(a - i)), each term exact to an ulp."""
    parts = []
    for start in range(0, n, _CHUNK):
        i = np.arange(start, min(n, start + _CHUNK), dtype=np.float64)
        parts.append(float(np.log1p((u - a) / (a - i)).sum()))
    return math.fsum(parts) / LN2


def _value_bits(n: int, values: float) -> float:
    return n * math.log2(float(counted("values", values)))

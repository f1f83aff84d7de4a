"""What B bits cannot hold when the model may also abstain, and how many bits certify zero errors: T9, F2, F4.

Letters as in `theory.capacity`: n facts with uniform independent labels over V answers, B bits, t failure bits. Of the
facts A are answered and E of those are wrong; the rest are abstentions. Answering and erring may both depend on the
labels, through the weights only. Statements and proofs are in `theory.coverage_claims`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

from theory import capacity, packing
from theory.rounding import LN2, above, below, counted, finite

Floats = NDArray[np.float64]


def coverage_upper(facts: ArrayLike, bits: ArrayLike, answers: ArrayLike, failure_bits: ArrayLike = 0.0) -> Floats:
    """Largest share of facts, min(1, (B + t)/(n log2 V)), that a model which never errs answers (T9); rounded up.

    With t = 0 it bounds the expected coverage of a learner that never errs. With t > 0: no errors and at least this
    coverage happen together with probability at most 2^-t.

    >>> round(float(coverage_upper(4096, 8192, 32)), 12)
    0.4
    """
    asked = counted("facts", facts) * np.log2(counted("answers", answers, least=2))
    described = finite("bits", bits) + finite("failure_bits", failure_bits)
    return np.minimum(1.0, above(described / asked))


def selective_log2_probability(abstentions: int, errors: int, facts: int, bits: float, answers: int) -> float:
    """log2 of the largest probability of at most s abstentions together with at most k errors (T9); rounded up.

    B + log2 Vol_V(n - s, k) - (n - s) log2 V, at most 0.

    >>> selective_log2_probability(2, 0, facts=5, bits=1, answers=4) <= -5 + 1e-12
    True
    """
    s, n = int(counted("abstentions", abstentions, least=0)), int(counted("facts", facts))
    return 0.0 if s >= n else capacity.few_errors_log2_probability(errors, n - s, bits, answers)


def selective_bits(answered: ArrayLike, errors: ArrayLike, answers: ArrayLike) -> Floats:
    """Bits that A answers with E errors among them prove (F2): A log2 V - E log2(V - 1) + log2 KT(E, A - E).

    At most B + t, but for probability 2^-t. KT(E, R) = Beta(E + 1/2, R + 1/2)/Beta(1/2, 1/2) pays for not knowing the
    error rate beforehand. At least A R(E/A) - (1/2) log2 A - 1. Not rounded to a side.

    >>> selective_bits([0, 1], 0, 4).round(12).tolist()
    [0.0, 1.0]
    """
    a, e = counted("answered", answered, least=0), counted("errors", errors, least=0)
    if np.any(e > a):
        raise ValueError("errors must be <= answered")
    v = counted("answers", answers, least=2)
    mixture = betaln(e + 0.5, a - e + 0.5) - betaln(0.5, 0.5)
    return (a * np.log(v) - e * np.log(v - 1.0) + mixture) / LN2


def answered_errors_lower(answered: int, bits: float, answers: int, failure_bits: float = 0.0) -> int:
    """Fewest errors among A answered facts that B bits allow but for probability 2^-t (F2); rounded down.

    Whatever facts the model chose to answer; A = n gives the finite form of F1. Errors beyond the rate 1 - 1/V prove
    nothing.

    >>> answered_errors_lower(4096, 8192, 32) > 0.4 * 4096, answered_errors_lower(1600, 8192, 32)
    (True, 0)
    """
    a, v = int(counted("answered", answered, least=0)), float(counted("answers", answers, least=2))
    allowed = above(float(finite("bits", bits)) + float(finite("failure_bits", failure_bits)))
    most = math.ceil(a * (1.0 - 1.0 / v))
    allowed += 1e-12 * (1.0 + a * math.log2(v))  # the rounding of selective_bits
    low, high = 0, most  # selective_bits falls up to the rate 1 - 1/V
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if float(selective_bits(a, middle, v)) <= allowed else (middle + 1, high)
    return low


def zero_errors_log2_probability(facts: int, bits: float, answers: int) -> float:
    """log2 of the largest probability that some state of B bits has L < ln 2 / n: B - n log2 V, at most 0 (F4).

    So zero greedy errors certified by the mean loss need B > n log2 V - t, and ceil(n log2 V) bits suffice; rounded up.

    >>> zero_errors_log2_probability(8, 13, 4) <= -3 + 1e-12
    True
    """
    return capacity.few_errors_log2_probability(0, facts, bits, answers)


def certifying_bits(facts: int, answers: int, failure_bits: float = 0.0) -> tuple[float, int]:
    """(B below which L < ln 2 / n has probability under 2^-t; B that suffices always), F4.

    n log2 V - t, rounded down and at least 0, and ceil(n log2 V), exact (`theory.packing`).

    >>> low, enough = certifying_bits(1000, 32)
    >>> round(low, 6), enough
    (5000.0, 5000)
    """
    n, v = int(counted("facts", facts)), int(counted("answers", answers, least=2))
    needed = float(below(n * math.log2(v))) - above(float(finite("failure_bits", failure_bits)))
    return max(0.0, needed), packing.packed_bits(n, v)

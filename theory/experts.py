"""A mixture of memory experts: how many facts fit, how often experts are shared, what a fact costs.

Letters: n facts, M experts, k experts per fact, chosen uniformly and independently, k different ones for each fact;
load n/M; d numbers in a value or a query; A the n x M matrix of the gates. Statements and proofs are the claims T21 to
T24 of `theory.experts_claims`. Numbers are not rounded to a side unless a docstring says so.
"""

import math
from decimal import Decimal, localcontext
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import bdtrc

from theory.rounding import above, counted, finite, non_negative

Floats = NDArray[np.float64]
Selection = Literal["flat", "product keys", "exact address"]


def load_threshold(experts_per_fact: int) -> float:
    """Largest load n/M at which arbitrary values can be stored exactly, as M grows (T21): the cuckoo-hashing load c_k.

    c = b / (k (1 - e^-b)^(k-1)) where k = b (e^b - 1)/(e^b - 1 - b), which is where the equations left after removing
    facts with an expert of their own are as many as the experts left. 1/2 for two experts, 0 for one.

    >>> load_threshold(2), round(load_threshold(3), 6), round(load_threshold(4), 6)
    (0.5, 0.917935, 0.97677)
    """
    k = int(counted("experts_per_fact", experts_per_fact))
    if k <= 2:
        return 0.5 * (k - 1)  # b -> 0 for two; of one expert per fact some pair of facts shares it at any load
    root = brentq(lambda b: b - k * (1.0 + b * math.exp(-b) / math.expm1(-b)), 1e-3, float(k), xtol=1e-15)
    b = float(np.asarray(root))
    return b / (k * (-math.expm1(-b)) ** (k - 1))


def private_expert_probability(facts: int, experts: int, experts_per_fact: int) -> float:
    """Probability that a fact has an expert which no other fact chose, exact (T22).

    sum over j = 1..k of (-1)^(j+1) C(k, j) [C(M - j, k)/C(M, k)]^(n-1), summed in decimals that outlast its
    cancellation.

    >>> private_expert_probability(1, 10, 3), round(private_expert_probability(2, 3, 2), 12)
    (1.0, 0.666666666667)
    """
    n, m, k = int(counted("facts", facts)), int(counted("experts", experts)), _choices(experts, experts_per_fact)
    with localcontext() as context:
        context.prec = 40 + k
        total, untouched = Decimal(0), Decimal(1)
        for j in range(1, k + 1):
            untouched *= Decimal(m - k - j + 1) / Decimal(m - j + 1)  # C(M - j, k)/C(M, k), one factor more
            total += (-1) ** (j + 1) * math.comb(k, j) * (untouched ** (n - 1) if n > 1 else Decimal(1))
            if not untouched:
                break
        if n == 1:
            return 1.0
        return float(total)


def private_expert_approximation(facts: ArrayLike, experts: ArrayLike, experts_per_fact: ArrayLike) -> Floats:
    """The usual approximation 1 - (1 - e^(-kn/M))^k of `private_expert_probability`; a bound on neither side.

    >>> round(float(private_expert_approximation(1000, 1000, 4)), 4)
    0.0713
    """
    n, m = counted("facts", facts), counted("experts", experts)
    k = counted("experts_per_fact", experts_per_fact)
    return -np.expm1(k * np.log1p(-np.exp(-k * n / m)))


def maximum_load_probability_upper(
    load: ArrayLike, facts: ArrayLike, experts: ArrayLike, experts_per_fact: ArrayLike
) -> Floats:
    """Largest probability M Pr[Binomial(n, k/M) >= x] that some expert serves at least x facts (T22b); rounded up.

    >>> float(maximum_load_probability_upper(12, 1000, 1000, 1)) < 1e-6
    True
    """
    x, n = counted("load", load), counted("facts", facts)
    m, k = counted("experts", experts), counted("experts_per_fact", experts_per_fact)
    if np.any(k > m):
        raise ValueError("experts_per_fact must be at most the number of experts")
    tail = np.where(x <= n, bdtrc(np.minimum(x, n) - 1.0, n.astype(np.int64), k / m), 0.0)
    return np.minimum(1.0, tail * m * (1.0 + 1e-12))


def maximum_load_upper(facts: int, experts: int, experts_per_fact: int, failure_probability: float = 1e-6) -> int:
    """A number of facts that no expert exceeds, except with this probability: the least that T22b gives.

    >>> maximum_load_upper(1000, 1000, 1)
    11
    """
    loads = np.arange(1, int(counted("facts", facts)) + 2)
    likely = maximum_load_probability_upper(loads, facts, experts, experts_per_fact)
    return int(np.argmax(likely <= failure_probability))


def selection_multiplications(experts: int, width: int, how: Selection) -> int:
    """Multiplications that choosing experts for one query costs (T23).

    "flat": the query with M keys of width d. "product keys": each half of the query with sqrt(M) keys of width d/2, so
    sqrt(M) d; k^2 candidate sums come on top, no multiplication. "exact address": none, k hashes.

    >>> [selection_multiplications(2**20, 256, how) for how in ("flat", "product keys", "exact address")]
    [268435456, 262144, 0]
    """
    m, d = int(counted("experts", experts)), int(counted("width", width))
    if how == "flat":
        return m * d
    if how == "exact address":
        return 0
    side = math.isqrt(m)
    if side * side != m or d % 2:
        raise ValueError(f"product keys need a square number of experts and an even width, got {m} and {d}")
    return side * d


def reading_multiplications(experts_per_fact: int, width: int) -> int:
    """Multiplications k d that reading a fact costs once its experts are chosen, whatever their number (T23).

    >>> reading_multiplications(32, 64)
    2048
    """
    return int(counted("experts_per_fact", experts_per_fact)) * int(counted("width", width))


def residual_upper(steps: ArrayLike, smallest: ArrayLike, largest: ArrayLike) -> Floats:
    """Largest share (1 - s_min^2/s_max^2)^t of the residual that t steps of gradient descent leave (T24); rounded up.

    Squared loss, step 1/s_max^2 (of half the squared residual), s_min the n-th singular value of A, n <= M.
    Cross-entropy has no such rate.

    >>> residual_upper([0, 1], 1.0, 2.0).round(12).tolist()
    [1.0, 0.75]
    """
    t = finite("steps", steps)
    low, high = non_negative("smallest", smallest), finite("largest", largest)
    if not np.all((low <= high) & (high > 0.0)):
        raise ValueError("smallest must be at most largest, and largest positive")
    ratio = low / high
    factor = (1.0 - ratio) * (1.0 + ratio)
    left = above(factor) ** t * (1.0 + 2.0**-50 * (1.0 + t))
    return np.minimum(1.0, np.where(factor > 0.0, np.nextafter(left, 2.0), left))


def steps_to_residual(residual_share: float, smallest: float, largest: float) -> int:
    """Steps after which T24 leaves at most this share of the residual.

    >>> steps_to_residual(0.01, 1.0, 10.0)
    459
    """
    if not 0.0 < residual_share <= 1.0 or not 0.0 < smallest <= largest:
        raise ValueError("residual_share must be in (0, 1] and 0 < smallest <= largest")
    ratio = smallest / largest
    return 1 if ratio == 1.0 else math.ceil(math.log(residual_share) / math.log1p(-(ratio**2)))


def _choices(experts: int, experts_per_fact: int) -> int:
    k = int(counted("experts_per_fact", experts_per_fact))
    if k > experts:
        raise ValueError(f"experts_per_fact must be at most the number of experts, got {k} of {experts}")
    return k

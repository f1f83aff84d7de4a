"""Questions without an answer in the data: what any learner must get wrong about them.

Letters: C questions c with frequencies mu(c); V_c valid and E_c invalid answers of c; p the law of the data, on valid
answers; p-hat the model; N samples; K the number of facts; U what was not observed. Statements and proofs are the
claims T17, T18 and T19 of `theory.unseen_claims` and `theory.missing_claims`. Arguments broadcast as NumPy arrays do, a
law of frequencies aside. Lower bounds are rounded down and upper bounds up, expectations to no side unless they say so.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py

from theory.rounding import above, below, counted, finite, non_negative

Floats = NDArray[np.float64]

_LAW_TOLERANCE = 1e-9  # how far frequencies may be from summing to 1


def error_lower_from_classification(
    classification_error: ArrayLike, most_valid: ArrayLike, fewest_invalid: ArrayLike, overconfidence: ArrayLike
) -> Floats:
    """Least share of invalid answers, 2 err_iiv - max|V_c| / min|E_c| - (phat(A) - p(A)) (T17); rounded down.

    err_iiv is the error of the classifier "valid iff phat > 1/min|E_c|" on questions shown half the time with an answer
    from the data and half the time with a uniformly chosen invalid one. A is what it calls valid; `overconfidence` is
    phat(A) - p(A), of either sign. The bound may be negative, which says nothing.

    >>> 0.666 < float(error_lower_from_classification(0.5, 1, 3, 0.0)) <= 2 / 3
    True
    """
    error = non_negative("classification_error", classification_error)
    ratio = counted("most_valid", most_valid) / counted("fewest_invalid", fewest_invalid)
    gap = np.asarray(overconfidence, dtype=np.float64)
    if not np.all(np.abs(gap) <= 1.0):
        raise ValueError("overconfidence must be in [-1, 1]")
    return below(2.0 * error + np.maximum(-gap, 0.0)) - above(ratio + np.maximum(gap, 0.0))


def error_from_classification(mean_classification_error: ArrayLike, options: ArrayLike) -> Floats:
    """Share of wrong answers to multiple choice, 2 (1 - 1/C) E_t[err_iiv at threshold t], t uniform on [0, 1] (T17c).

    An equality where every question has C options, one of them right. Not rounded to a side.

    >>> float(error_from_classification(0.5, 4))
    0.75
    """
    return (
        2.0
        * (1.0 - 1.0 / counted("options", options, least=2))
        * non_negative("mean_classification_error", mean_classification_error)
    )


def error_lower_from_singletons(
    singleton_share: ArrayLike,
    samples: ArrayLike,
    fewest_invalid: ArrayLike,
    miscalibration: ArrayLike = 0.0,
    failure_probability: float = 0.01,
) -> Floats:
    """Least error sr - 2/min|E_c| - 6 ln(3N/gamma)/sqrt(N) - delta, with probability 1 - gamma (T17d); rounded down.

    `singleton_share` sr is the share of the N samples whose question occurs once in the data, `miscalibration` delta =
    |phat(A) - p(A)|. Below about 10^4 samples the bound is negative whatever sr is.

    >>> float(error_lower_from_singletons(1.0, 1000, 10**9)) < 0 < float(error_lower_from_singletons(0.5, 10**7, 365))
    True
    """
    n = counted("samples", samples)
    if not 0.0 < failure_probability < 1.0:
        raise ValueError(f"failure_probability must be between 0 and 1, got {failure_probability!r}")
    fluctuation = 6.0 * (np.log(n) + math.log(3.0 / failure_probability)) / np.sqrt(n)
    lost = 2.0 / counted("fewest_invalid", fewest_invalid) + fluctuation
    return below(non_negative("singleton_share", singleton_share)) - above(
        lost + non_negative("miscalibration", miscalibration)
    )


def wrong_answer_penalty(confidence: ArrayLike) -> Floats:
    """Points t/(1 - t) that a wrong answer must cost so that answering pays iff confidence exceeds t (T17e).

    A right answer earns 1 and "I don't know" 0: answering with confidence q earns q - (1 - q) t/(1 - t) > 0 iff q > t.

    >>> wrong_answer_penalty([0.5, 0.75, 0.9]).round(12).tolist()
    [1.0, 3.0, 9.0]
    """
    t = non_negative("confidence", confidence)
    if not np.all(t < 1.0):
        raise ValueError("confidence must be < 1")
    return t / (1.0 - t)


def frequencies(law: ArrayLike) -> Floats:
    """`law` as a one-dimensional array of probabilities; refused if it is none."""
    p = np.atleast_1d(finite("law", law))
    if p.ndim != 1 or not p.size or abs(math.fsum(p) - 1.0) > _LAW_TOLERANCE:
        raise ValueError("law must be a list of probabilities that sum to 1")
    return p


def seen_probability(law: ArrayLike, samples: float) -> Floats:
    """Probability 1 - (1 - p)^N that N independent samples contain each question; N may be infinite."""
    p = frequencies(law)
    seen = np.zeros(p.shape)
    occurring = p > 0.0
    seen[occurring] = -np.expm1(xlog1py(_sample_count(samples), -p[occurring]))
    return seen


def missing_mass(law: ArrayLike, samples: float) -> float:
    """Expected probability sum p (1 - p)^N of the questions that N samples do not contain.

    >>> missing_mass([0.5, 0.5], 2), missing_mass([0.5, 0.5], math.inf)
    (0.25, 0.0)
    """
    p = frequencies(law)
    p = p[p > 0.0]
    return math.fsum(p * np.exp(xlog1py(_sample_count(samples), -p)))


def singleton_share(law: ArrayLike, samples: int) -> float:
    """Expected share sum p (1 - p)^(N-1) of N samples whose question occurs once: the estimate of Good and Turing.

    >>> singleton_share([0.5, 0.5], 2)
    0.5
    """
    return missing_mass(law, float(counted("samples", samples)) - 1.0)


def good_turing_excess_upper(samples: ArrayLike) -> Floats:
    """Largest (1/N)(1 - 1/N)^(N-1) by which the expected singleton share exceeds the missing mass (T18); rounded up.

    Reached by N equally frequent questions; the excess is never negative.

    >>> 0.25 <= float(good_turing_excess_upper(2)) < 0.25 + 1e-14
    True
    """
    n = counted("samples", samples)
    power = np.exp(xlog1py(n - 1.0, -1.0 / n))
    return above(above(power / n))


def memorizer_error(law: ArrayLike, samples: float, answers: float) -> float:
    """Expected error (1 - 1/V) sum p (1 - p)^N of the calibrated memorizer: what it has seen it knows, else it guesses.

    It is the least error of any learner of N samples if answers are uniform over V and independent (T18b, F6).

    >>> memorizer_error([0.5, 0.5], 2, 2)
    0.125
    """
    return (1.0 - 1.0 / float(counted("answers", answers))) * missing_mass(law, samples)


def error_lower_from_partition(unseen_mass: ArrayLike, facts: ArrayLike, total_variation: ArrayLike) -> Floats:
    """Least mass p(U)/K - TV(g, p^Pi) that a model g puts on unobserved statements (T19); rounded down.

    p^Pi spreads the true law p evenly inside each cell of any partition; p lives on at most K facts, some observed.

    >>> 0.4999 < float(error_lower_from_partition(1.0, 2, 0.0)) <= 0.5
    True
    """
    share = non_negative("unseen_mass", unseen_mass) / counted("facts", facts)
    return below(share) - above(non_negative("total_variation", total_variation))


def invention_probability_lower(facts: ArrayLike, unobserved: ArrayLike) -> Floats:
    """Least probability 1 - K/|U| that the model invents at least g(U)/(K + 1) (T19b); at least 0, rounded down.

    A probability over which of the unobserved statements are facts; it bounds no mass.

    >>> 0.8999 < float(invention_probability_lower(1, 10)) <= 0.9
    True
    """
    share = counted("facts", facts, least=0) / counted("unobserved", unobserved)
    return np.maximum(0.0, 1.0 - above(share))


def _sample_count(samples: float) -> float:
    """`samples` as a whole number or infinity."""
    count = float(samples)
    return count if count == math.inf else float(counted("samples", count, least=0))

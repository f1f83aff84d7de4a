"""How alike two models answer, beyond what chance would do: the measures in use, one vectorized function each.

A choice is the number of an option, 0 .. m-1, or -1 where a model abstained; questions on which either abstained are
left out. `*b` are leading axes (pairs of models), the last axis runs over questions. A measure is NaN where it is not
defined: no question that both answered, or nothing left to exceed chance by.

Letters: n questions, m options, k raters, V values.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import rel_entr

Choices = Int[np.ndarray, "*b n"]
Rates = Float[np.ndarray, "*b"]


def agreement(a: Choices, b: Choices) -> Rates:
    """Share of the questions on which both choose the same option.

    >>> float(agreement(np.array([0, 1, 2, -1]), np.array([0, 1, 3, 1]))).__round__(3)
    0.667
    """
    return _mean(a == b, _both(a, b))


def lift(a: Choices, b: Choices, options: int) -> Rates:
    """Agreement over the agreement of independent models with the same frequencies of options (Brin et al. 1997)."""
    return _ratio(agreement(a, b), _agreement_by_frequency(a, b, options))


def cohen_kappa(a: Choices, b: Choices, options: int) -> Rates:
    """(p_o - p_e) / (1 - p_e): p_o the agreement, p_e that of independent raters of the same frequencies (Cohen 1960).

    >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    >>> float(cohen_kappa(a, b, 2))
    0.5
    """
    return _beyond(agreement(a, b), _agreement_by_frequency(a, b, options))


def fleiss_kappa(choices: Int[np.ndarray, "*b k n"], options: int) -> Rates:
    """Kappa of k raters who share one frequency of options (Fleiss 1971); questions with an abstention are left out."""
    kept = np.asarray(np.all(choices >= 0, axis=-2))
    raters = choices.shape[-2]
    counts = np.equal(choices[..., None], np.arange(options)).sum(axis=-3).astype(float)  # [*b n m]
    alike = ((counts**2).sum(axis=-1) - raters) / (raters * (raters - 1))
    frequency = _ratio((counts * kept[..., None]).sum(axis=-2), raters * kept.sum(axis=-1)[..., None])
    return _beyond(_mean(alike, kept), (frequency**2).sum(axis=-1))


def error_consistency(a_right: np.ndarray, b_right: np.ndarray, kept: np.ndarray | None = None) -> Rates:
    """Cohen's kappa of being right: (c_o - c_e) / (1 - c_e), c_e = p_a p_b + (1 - p_a)(1 - p_b) (Geirhos et al. 2020).

    `kept` marks the questions that both answered; all if it is left out.
    """
    kept = np.ones(np.broadcast_shapes(a_right.shape, b_right.shape), bool) if kept is None else kept
    p_a, p_b = _mean(a_right, kept), _mean(b_right, kept)
    return _beyond(_mean(a_right == b_right, kept), p_a * p_b + (1 - p_a) * (1 - p_b))


def capa(a: Float[np.ndarray, "*b n m"], b: Float[np.ndarray, "*b n m"], right: Int[np.ndarray, "*b n"]) -> Rates:
    """Chance-adjusted probabilistic agreement (Goel et al. 2025, arXiv 2502.04313), from probabilities of the options.

    (c_o - c_e) / (1 - c_e) with c_o = mean sum_i a_i b_i and c_e = p_a p_b + (1 - p_a)(1 - p_b) / (m - 1), p the mean
    probability of the right option. With one-hot choices it is the discrete measure (see `one_hot`); a question
    that was not answered, NaN in either model, is left out.
    """
    kept = np.asarray(np.all(~np.isnan(a) & ~np.isnan(b), axis=-1))
    p_a, p_b = (_mean(np.take_along_axis(p, right[..., None], axis=-1)[..., 0], kept) for p in (a, b))
    return _beyond(_mean((a * b).sum(axis=-1), kept), p_a * p_b + (1 - p_a) * (1 - p_b) / (a.shape[-1] - 1))


def one_hot(choices: Choices, options: int) -> Float[np.ndarray, "*b n m"]:
    """Choices as distributions; NaN where a model abstained."""
    chosen = np.equal(choices[..., None], np.arange(options)).astype(float)
    return np.where(np.greater_equal(choices, 0)[..., None], chosen, np.nan)


def wrong_agreement(a: Choices, b: Choices, right: Int[np.ndarray, "*b n"]) -> Rates:
    """Share of the questions that both get wrong on which both give the same wrong answer; chance is 1/(m-1).

    The agreement rate of errors of Kim, Garg, Peng & Garg 2025 (arXiv 2506.07962).
    """
    return _mean(a == b, _both(a, b) & (a != right) & (b != right))


def jensen_shannon_similarity(a: Float[np.ndarray, "*b n m"], b: Float[np.ndarray, "*b n m"]) -> Rates:
    """1 - mean Jensen-Shannon divergence in bits (Lin 1991): 1 for equal distributions, 0 for disjoint ones."""
    middle = 0.5 * (a + b)
    bits = 0.5 * (rel_entr(a, middle) + rel_entr(b, middle)).sum(axis=-1) / np.log(2)
    kept = ~np.isnan(bits)
    return 1.0 - _mean(bits, kept)


def logit_correlation(a: Float[np.ndarray, "*b n V"], b: Float[np.ndarray, "*b n V"]) -> Rates:
    """Pearson correlation of two models' logits, each question's mean taken off: the rho of T25."""
    a, b = (logits - logits.mean(axis=-1, keepdims=True) for logits in (a, b))
    products = [(x * y).sum(axis=(-1, -2)) for x, y in ((a, b), (a, a), (b, b))]
    return _ratio(products[0], np.sqrt(products[1] * products[2]))


def coincidence(a: Float[np.ndarray, "*b n V"], b: Float[np.ndarray, "*b n V"]) -> Rates:
    """Probability that a sample of each model is the same value, sum_v a_v b_v; chance is 1/V for uniform beliefs."""
    return (a * b).sum(axis=-1).mean(axis=-1)


def _both(a: Choices, b: Choices) -> np.ndarray:
    return np.greater_equal(a, 0) & np.greater_equal(b, 0)


def _agreement_by_frequency(a: Choices, b: Choices, options: int) -> Rates:
    kept = _both(a, b)
    expected = np.zeros(np.broadcast_shapes(a.shape, b.shape)[:-1])
    for option in range(options):
        expected = expected + _mean(a == option, kept) * _mean(b == option, kept)
    return expected


def _mean(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return _ratio(np.where(kept, values, 0.0).sum(axis=-1), kept.sum(axis=-1))  # NaN times zero is NaN


def _beyond(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return _ratio(observed - expected, 1.0 - expected)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)

"""Shared imagination: how often two models choose the same of several options that neither can know.

Letters: m options shown, M >= m options that the first model chose from, rho the correlation between the two models'
logits of one option. Logits are jointly Gaussian, options independent within a model and alike; an offset that all
options of a question share, and the scale of either model, do not matter. Statement and proof: the claim T25 of
`theory.agreement_claims`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, owens_t

from theory.rounding import counted

Floats = NDArray[np.float64]

_MOST_OPTIONS = 10**6
_REACH = 9.0  # standard deviations; what lies beyond weighs less than 1e-18
_OFF_CENTER = 0.37  # of a step, so that no node is exactly zero, where the formula of the distribution is 0/0


def agreement(correlation: float, options: int, considered: int | None = None) -> float:
    """Probability A(rho, m) that two models choose the same of m options (T25); 1/m at rho = 0 and 1 at rho = 1.

    A = m E[F(a, b)^(m-1)], F the distribution of two normals of correlation rho. With `considered` M > m the first
    model chose from M options of which the second is shown that choice and m - 1 others: the mean is then
    M E[Phi(a)^(M-m) F(a, b)^(m-1)]. Not rounded to a side; the absolute error is below 1e-12 (1e-13 up to 32 options).

    >>> round(agreement(0.5, 2), 12) == round(2 / 3, 12), round(agreement(0.0, 4), 12), agreement(1.0, 4)
    (True, 0.25, 1.0)
    """
    shown, chosen_from = _option_counts(options, considered)
    if not -1.0 <= correlation <= 1.0:
        raise ValueError(f"correlation must be in [-1, 1], got {correlation!r}")
    if correlation == 1.0:
        return 1.0
    if correlation == -1.0:
        return 0.0
    half_sum, half_difference, weights = _nodes(correlation, step=0.125 if chosen_from <= 32 else 0.0625)
    a, b = half_sum + half_difference, half_sum - half_difference
    both_below = _bivariate_normal(half_sum, half_difference, correlation) ** (shown - 1)
    if chosen_from > shown:  # either of the pair (a, b) may be the first model's, and both weigh the same
        both_below = both_below * 0.5 * (ndtr(a) ** (chosen_from - shown) + ndtr(b) ** (chosen_from - shown))
    return min(1.0, chosen_from * float((weights * both_below).sum()))


def correlation_of_agreement(agreement_rate: float, options: int, considered: int | None = None) -> float:
    """The correlation in [0, 1] at which `agreement` is this rate; it rises with the correlation (Slepian).

    As a reading of an average over pairs of models it is a heuristic: an average of A is not A of an average.

    >>> round(correlation_of_agreement(0.54, 4), 3), round(correlation_of_agreement(0.86, 4), 3)
    (0.643, 0.97)
    """
    shown, _ = _option_counts(options, considered)
    if not 1.0 / shown <= agreement_rate <= 1.0:
        raise ValueError(f"agreement_rate must be between chance, 1/{shown}, and 1, got {agreement_rate!r}")
    if agreement_rate == 1.0:
        return 1.0
    if agreement(0.0, shown, considered) >= agreement_rate:
        return 0.0
    root = brentq(lambda rho: agreement(rho, shown, considered) - agreement_rate, 0.0, 1.0, xtol=1e-14)
    return float(np.asarray(root))


def _option_counts(options: int, considered: int | None) -> tuple[int, int]:
    shown = int(counted("options", options, least=2))
    chosen_from = shown if considered is None else int(counted("considered", considered))
    if not shown <= chosen_from <= _MOST_OPTIONS:
        raise ValueError(f"considered must be between options, {shown}, and {_MOST_OPTIONS}, got {chosen_from}")
    return shown, chosen_from


def _nodes(correlation: float, step: float) -> tuple[Floats, Floats, Floats]:
    """(a + b)/2, (a - b)/2 and their weights: the trapezoid rule in sum and difference, which are independent.

    It converges faster than any power of the step for smooth integrands; the even half of a - b is enough.
    """
    count = int(_REACH / step)
    sums, differences = (np.arange(-count, count + 1) + _OFF_CENTER) * step, np.arange(count + 1) * step
    half_sum = np.sqrt(0.5 * (1.0 + correlation)) * sums[:, None]
    half_difference = np.sqrt(0.5 * (1.0 - correlation)) * differences[None, :]
    density = np.exp(-0.5 * (sums[:, None] ** 2 + differences[None, :] ** 2)) / (2.0 * math.pi)
    weights = density * step**2 * np.where(differences == 0.0, 1.0, 2.0)
    return half_sum, half_difference, weights


def _bivariate_normal(half_sum: Floats, half_difference: Floats, correlation: float) -> Floats:
    """Probability that two normals of this correlation are below a and below b (Owen 1956).

    b - rho a = (1 - rho)(a + b)/2 - (1 + rho)(a - b)/2 does not cancel where rho is near 1.
    """
    a, b = half_sum + half_difference, half_sum - half_difference
    common, opposed = (1.0 - correlation) * half_sum, (1.0 + correlation) * half_difference
    width = math.sqrt((1.0 - correlation) * (1.0 + correlation))
    with np.errstate(divide="ignore", over="ignore"):
        beside_a = owens_t(a, (common - opposed) / (a * width))
        beside_b = owens_t(b, (common + opposed) / (b * width))
    both = 0.5 * (ndtr(a) + ndtr(b)) - beside_a - beside_b - np.where(a * b < 0.0, 0.5, 0.0)
    return np.clip(both, 0.0, 1.0)

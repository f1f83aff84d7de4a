"""The claim T25: agreement of two models on what neither can know, by two computations."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from theory import agreement
from theory.claims import Identity, Published, Record, register
from theory.search import Draw

_GAUSSIAN = (
    "logits of the two models jointly Gaussian with correlation rho, options independent and alike within a model"
)


@dataclass(frozen=True)
class Pair:
    """Two models and the options of a question."""

    correlation: float
    options: int


@register
class SharedImagination(Identity[Pair]):
    """Two models whose logits correlate with rho choose the same of m options with probability
    A(rho, m) = m E[F(a, b)^(m-1)], F the distribution of two normals of correlation rho.
    A(rho, 2) = 1/2 + asin(rho)/pi, A(0, m) = 1/m, A(1, m) = 1.
    """

    name, title, status, source = "T25", "Agreement on the unknown", "proved", "this project"
    assumptions = (_GAUSSIAN,)
    proof = (
        "Both choose option 1 iff all others have smaller logits in both models: F(a, b) for each of them, given those "
        "of option 1. For m = 2 the difference of logits is one normal pair (Sheppard); for m = 3 two pairs whose "
        "correlations are those of a product, an orthant that Cheng (1969) integrated."
    )
    dropped = "the first model chooses from one option more than the second is shown"
    largest_search = 80

    def cases(self, draw: Draw) -> Pair:
        options = draw.choice((2, 3, 4, 6, 12))
        if options <= 3:
            return Pair(draw.real(-1.0, 1.0), options)
        return Pair(draw.choice((1.0, 0.0)) if draw.integer(0, 3) == 0 else draw.real(0.0, 0.9), options)

    def left(self, case: Pair) -> float:
        return agreement.agreement(case.correlation, case.options)

    def right(self, case: Pair) -> float:
        if case.options <= 3:
            return _closed_form(case.correlation, case.options)
        if case.correlation in (0.0, 1.0):
            return 1.0 if case.correlation else 1.0 / case.options
        return _by_common_factor(case.correlation, case.options)

    def perturbed(self, case: Pair) -> float:
        return agreement.agreement(case.correlation, case.options, case.options + 1)

    def error_bound(self, case: Pair) -> float:
        return 1e-12


def _closed_form(rho: float, options: int) -> float:
    whole, half = math.asin(rho), math.asin(rho / 2.0)
    if options == 2:
        return 0.5 + whole / math.pi
    first = (math.pi / 6.0 + whole + half) / (4.0 * math.pi)
    second = ((math.pi / 6.0) ** 2 + whole**2 - half**2) / (4.0 * math.pi**2)
    return 3.0 * (1.0 / 16.0 + first + second)


def _by_common_factor(rho: float, options: int) -> float:
    """For 0 <= rho <= .9: both logits are a common factor plus noise of their own; sums on a square grid."""
    step = 0.15
    grid = np.arange(-56, 57) * step
    below = ndtr((grid[None, :] - math.sqrt(rho) * grid[:, None]) / math.sqrt(1.0 - rho))
    below = np.maximum(below, 1e-20)  # what is smaller adds nothing but time
    weights = step * np.exp(-0.5 * grid**2) / math.sqrt(2.0 * math.pi)
    both_below = below.T @ (weights[:, None] * below)
    square = 1.0 - rho * rho
    exponent = (grid[:, None] ** 2 - 2.0 * rho * grid[:, None] * grid[None, :] + grid[None, :] ** 2) / (2.0 * square)
    density = np.exp(-exponent) / (2.0 * math.pi * math.sqrt(square))
    return float(options * step * step * (density * both_below ** (options - 1)).sum())


@register
class PublishedAgreement(Record):
    """Published averages of agreement on imaginary questions with four options, read as correlations: 54 % is
    rho = .643 and 86 % is .970 if both models choose among the same four options, .496 and .898 if the question model
    chose freely among 16 values. A heuristic reading: an average of A is not A of an average.
    """

    name, title, status, source = "T25b", "Agreement as correlation", "quoted", "arXiv 2407.16604"
    assumptions = (_GAUSSIAN, "the averages are correctness against the writer's key, over pairs of unlike models")
    proof = "T25 and its inverse; what is printed is the average, what is recomputed is A at the correlation named."
    largest_search = 20

    def published(self) -> list[Published]:
        readings = ((0.54, 0.643, 4), (0.86, 0.970, 4), (0.54, 0.496, 16), (0.86, 0.898, 16))
        return [
            Published(
                f"{share:.0%} at correlation {rho:.3f}, written from {values} values",
                share,
                agreement.agreement(rho, 4, values),
                2e-3,
            )
            for share, rho, values in readings
        ]

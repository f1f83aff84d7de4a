"""The safe side of a float64 number, and the inputs a bound accepts.

A bound is a real number; a float64 that stands for it errs by a few units in the last place (ulps). `above` and `below`
move a non-negative number outward by four ulps, which covers the logarithm, the product and the quotient that a bound
of this package consists of. That the C library's logarithm errs by less than one ulp is an observation on the platforms
tested, not a guarantee.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

LN2 = math.log(2.0)
FOUR_ULPS = 2.0**-50


def above(value):
    """A float at or above the real number that `value` >= 0 approximates."""
    return value * (1.0 + FOUR_ULPS)


def below(value):
    """A float at or below the real number that `value` >= 0 approximates."""
    return value * (1.0 - FOUR_ULPS)


def non_negative(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """`value` as float64; NaN and negative numbers are refused."""
    numbers = np.asarray(value, dtype=np.float64)
    if not np.all(numbers >= 0.0):
        raise ValueError(f"{name} must be >= 0 and not NaN, got {_first(numbers, ~(numbers >= 0.0))!r}")
    return numbers


def finite(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """`value` as float64; NaN, infinite and negative numbers are refused."""
    numbers = non_negative(name, value)
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"{name} must be finite")
    return numbers


def counted(name: str, value: ArrayLike, least: int = 1) -> NDArray[np.float64]:
    """`value` as whole numbers >= `least`, held in float64 so that large alphabets fit."""
    numbers = finite(name, value)
    if not np.all((numbers >= least) & (numbers == np.floor(numbers))):
        wrong = ~((numbers >= least) & (numbers == np.floor(numbers)))
        raise ValueError(f"{name} must be a whole number >= {least}, got {_first(numbers, wrong)!r}")
    return numbers


def _first(numbers: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    return float(np.atleast_1d(numbers)[np.atleast_1d(wrong)][0])

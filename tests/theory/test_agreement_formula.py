"""Agreement of two models: closed forms at 50 digits, simulation, limits, inverse."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings

from theory.agreement import agreement, correlation_of_agreement


def cheng(rho):
    """Three options: 3 times an orthant of four normals whose correlations are a product (Cheng 1969), in mpmath."""
    pi, whole, half = mpmath.pi, mpmath.asin(rho), mpmath.asin(mpmath.mpf(rho) / 2)
    first = (pi / 6 + whole + half) / (4 * pi)
    second = ((pi / 6) ** 2 + whole**2 - half**2) / (4 * pi**2)
    return 3 * (mpmath.mpf(1) / 16 + first + second)


@settings(max_examples=40)
@given(st.floats(-1.0, 1.0))
def test_two_and_three_options_at_fifty_digits(rho):
    with mpmath.workdps(50):
        two, three = float(0.5 + mpmath.asin(rho) / mpmath.pi), float(cheng(rho))
    assert agreement(rho, 2) == pytest.approx(two, rel=1e-12, abs=1e-14)
    assert agreement(rho, 3) == pytest.approx(three, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("options", [2, 3, 4, 10, 33, 1000, 10**6])
def test_limits(options):
    assert agreement(0.0, options) == pytest.approx(1 / options, rel=1e-9, abs=1e-13)
    assert agreement(1.0, options) == 1.0
    assert agreement(-1.0, options) == 0.0
    assert agreement(1.0 - 1e-14, options) == pytest.approx(1.0, abs=1e-5)


def test_it_rises_with_the_correlation_and_falls_with_the_options():
    correlations = np.linspace(-0.99, 0.99, 21)
    rising = [agreement(float(rho), 4) for rho in correlations]
    assert all(low < high for low, high in pairwise(rising))
    falling = [agreement(0.5, options) for options in (2, 3, 4, 8, 32, 100)]
    assert all(high > low for high, low in pairwise(falling))


@pytest.mark.parametrize(("rho", "options", "considered"), [(0.6, 4, None), (0.9, 4, 16), (-0.5, 3, None), (0.3, 2, 7)])
def test_simulated_models_agree_as_often(rho, options, considered):
    trials, count = 200_000, considered or options
    rng = np.random.default_rng(0)
    first = rng.normal(size=(trials, count))
    second = rho * first + math.sqrt(1 - rho**2) * rng.normal(size=(trials, count))
    chosen = first.argmax(axis=1)
    # The options shown: what was chosen, and the first others; which others does not matter.
    others = np.argsort(np.arange(count) == chosen[:, None], axis=1, kind="stable")[:, : options - 1]
    best_other = np.take_along_axis(second, others, axis=1).max(axis=1)
    seen = float(np.mean(second[np.arange(trials), chosen] > best_other))
    assert agreement(rho, options, considered) == pytest.approx(seen, abs=5 * math.sqrt(0.25 / trials))


@settings(max_examples=6)
@given(st.floats(0.001, 0.999), st.sampled_from([(2, None), (4, None), (4, 16), (40, None)]))
def test_inverse_round_trip(rho, options):
    rate = agreement(rho, *options)
    assert correlation_of_agreement(rate, *options) == pytest.approx(rho, abs=1e-9)


def test_inverse_at_the_ends_and_outside():
    assert correlation_of_agreement(1.0, 4) == 1.0
    assert correlation_of_agreement(0.25, 4) == pytest.approx(0.0, abs=1e-12)
    for rate in (0.2, 1.1, math.nan):
        with pytest.raises(ValueError, match="between chance"):
            correlation_of_agreement(rate, 4)
    with pytest.raises(ValueError, match="correlation"):
        agreement(1.5, 4)
    with pytest.raises(ValueError, match="options"):
        agreement(0.5, 1)
    with pytest.raises(ValueError, match="considered"):
        agreement(0.5, 4, 3)

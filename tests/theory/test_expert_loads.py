"""Loads, sharing, cost and conditioning of memory experts: mpmath, limits, simulation."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import binom

from theory import experts
from theory.experts_claims import Mixture, _onset, _stored_all

# As computed in the literature on cuckoo hashing, to six digits.
KNOWN = {2: 0.5, 3: 0.917935, 4: 0.976770, 5: 0.992438, 6: 0.997380, 7: 0.999064}


@pytest.mark.parametrize("k", KNOWN)
def test_thresholds_are_the_known_ones(k):
    assert experts.load_threshold(k) == pytest.approx(KNOWN[k], abs=6e-7)


@pytest.mark.parametrize("k", [3, 4, 5, 8, 20, 33, 100])
def test_thresholds_agree_with_mpmath(k):
    with mpmath.workdps(50):
        b = mpmath.findroot(lambda b: b * mpmath.expm1(b) - k * (mpmath.expm1(b) - b), (k - 1.2, k))
        wanted = b / (k * (1 - mpmath.exp(-b)) ** (k - 1))
        assert experts.load_threshold(k) == pytest.approx(float(wanted), rel=1e-14)


def test_thresholds_rise_and_are_below_what_untouched_experts_allow():
    thresholds = [experts.load_threshold(k) for k in range(1, 30)]
    assert all(low < high for low, high in pairwise(thresholds))
    assert all(c <= 1.0 - math.exp(-k * c) for k, c in enumerate(thresholds[1:12], start=2))
    assert experts.load_threshold(1000) == 1.0


def test_a_little_below_the_threshold_all_fit_and_a_little_above_not():
    for k, below, above in ((3, 0.85, 0.95), (4, 0.95, 0.995)):
        mixture = Mixture(2000, 2000, k, seed=1)
        chosen = mixture.chosen()
        assert _stored_all(chosen[: int(below * 2000)], 2000)
        assert not _stored_all(chosen[: int(above * 2000)], 2000)
        assert below < _onset(chosen, 2000) / 2000 < above


def test_as_many_facts_as_experts_fit_once_every_expert_is_chosen():
    """M e^-k << 1: 1000 facts in 1000 experts at k = 16, and not at k = 4."""
    assert _stored_all(Mixture(1000, 1000, 16, seed=0).chosen(), 1000)
    assert not _stored_all(Mixture(1000, 1000, 4, seed=0).chosen(), 1000)


@given(st.integers(1, 10**6), st.integers(1, 40), st.integers(0, 10**6))
def test_private_probability_agrees_with_mpmath(facts, k, more):
    size = k + more
    with mpmath.workdps(80):
        whole = mpmath.binomial(size, k)
        total = mpmath.mpf(0)
        for j in range(1, k + 1):
            share = mpmath.binomial(size - j, k) / whole if size - j >= k else mpmath.mpf(0)
            total += (-1) ** (j + 1) * mpmath.binomial(k, j) * (share ** (facts - 1) if facts > 1 else 1)
    assert experts.private_expert_probability(facts, size, k) == pytest.approx(float(total), rel=1e-12, abs=1e-30)


def test_the_approximation_is_on_neither_side():
    differences = [
        experts.private_expert_probability(n, m, k) - float(experts.private_expert_approximation(n, m, k))
        for n, m, k in ((2, 3, 2), (2, 3, 1), (5, 4, 2), (10, 20, 3), (1, 10, 1), (1000, 1000, 4))
    ]
    assert min(differences) < 0.0 < max(differences)
    assert abs(differences[-1]) < 1e-3


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 5), st.integers(1, 20))
def test_maximum_load_agrees_with_the_binomial_tail(facts, size, k, load):
    k = min(k, size)
    tail = binom.sf(load - 1, facts, k / size) if load <= facts else 0.0
    got = float(experts.maximum_load_probability_upper(load, facts, size, k))
    assert got == pytest.approx(min(1.0, size * tail), rel=1e-10, abs=1e-300)


def test_maximum_load_is_not_exceeded():
    most = experts.maximum_load_upper(1000, 1000, 4, failure_probability=1e-6)
    seen = [np.bincount(Mixture(1000, 1000, 4, seed).chosen().ravel(), minlength=1000).max() for seed in range(30)]
    assert max(seen) <= most <= 2 * max(seen)


@given(st.integers(0, 500), st.floats(1e-3, 1.0), st.floats(1.0, 100.0))
def test_residual_is_above_the_exact_one(steps, smallest, largest):
    with mpmath.workdps(50):
        exact = (1 - (mpmath.mpf(smallest) / mpmath.mpf(largest)) ** 2) ** steps
        got = float(experts.residual_upper(steps, smallest, largest))
        assert got >= exact
        assert got <= exact * (1 + mpmath.mpf(10) ** -11) + mpmath.mpf(10) ** -300


@given(st.floats(1e-6, 1.0), st.floats(0.05, 1.0))
def test_steps_invert_the_residual(share, ratio):
    steps = experts.steps_to_residual(share, ratio, 1.0)
    assert float(experts.residual_upper(steps, ratio, 1.0)) <= share * (1 + 1e-9)
    if steps > 1:
        assert float(experts.residual_upper(steps - 1, ratio, 1.0)) >= share * (1 - 1e-9)


def test_costs_do_not_grow_as_experts_do():
    reading = experts.reading_multiplications(32, 64)
    assert reading == 32 * 64
    flat = [experts.selection_multiplications(side**2, 64, "flat") for side in (16, 32, 64)]
    product = [experts.selection_multiplications(side**2, 64, "product keys") for side in (16, 32, 64)]
    assert [b / a for a, b in pairwise(flat)] == [4.0, 4.0]
    assert [b / a for a, b in pairwise(product)] == [2.0, 2.0]
    assert experts.selection_multiplications(10**6 + 1, 64, "exact address") == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: experts.load_threshold(0),
        lambda: experts.load_threshold(2.5),  # type: ignore[arg-type]
        lambda: experts.private_expert_probability(3, 2, 3),
        lambda: experts.maximum_load_probability_upper(1, 3, 2, 3),
        lambda: experts.residual_upper(1, 2.0, 1.0),
        lambda: experts.residual_upper(1, 0.0, 0.0),
        lambda: experts.residual_upper(math.nan, 0.5, 1.0),
        lambda: experts.steps_to_residual(0.0, 0.5, 1.0),
        lambda: experts.selection_multiplications(10, 4, "product keys"),
        lambda: experts.selection_multiplications(9, 3, "product keys"),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match=r"must|need"):
        call()

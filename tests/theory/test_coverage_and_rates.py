"""Coverage, selective capacity, rate-distortion and certifying bits by brute force and mpmath; their mutants."""

import math
from itertools import product

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from theory import capacity, claims, coverage, packing, rate_distortion

ANSWERS = st.sampled_from([2, 3, 4, 32, 50_257])


@given(st.integers(0, 300), st.integers(0, 300), ANSWERS)
def test_selective_bits_agree_with_mpmath(right, wrong, v):
    with mpmath.workdps(50):
        a = right + wrong
        mixture = mpmath.beta(wrong + 0.5, right + 0.5) / mpmath.pi
        exact = a * mpmath.log(v, 2) - wrong * mpmath.log(v - 1, 2) + mpmath.log(mixture, 2)
        scale = 1 + a * math.log2(v)
        assert abs(float(coverage.selective_bits(a, wrong, v)) - exact) <= 1e-12 * scale
        if a:
            short = a * mpmath.mpf(float(capacity.rate_bits(wrong / a, v))) - mpmath.log(a, 2) / 2 - 1
            assert exact >= short - 1e-11 * scale


@given(st.integers(0, 200), st.floats(0.0, 2000.0), ANSWERS)
def test_fewest_errors_by_trying_all(answered, bits, v):
    fewest = coverage.answered_errors_lower(answered, bits, v)
    allowed = coverage.selective_bits(answered, np.arange(answered + 1), v) <= bits + 1e-9 * (1 + answered)
    below_chance = np.flatnonzero(allowed)
    assert fewest == (below_chance[0] if below_chance.size else math.ceil(answered * (1 - 1 / v)))


def test_mixture_is_a_probability():
    """Of one state with A answers the mean of 2^selective_bits over labels is one."""
    for answered, v in product((0, 1, 2, 7, 40), (2, 3, 10)):
        wrong = np.arange(answered + 1)
        bits = coverage.selective_bits(answered, wrong, v)
        choices = np.array([float(math.comb(answered, int(e))) * (v - 1.0) ** int(e) for e in wrong])
        assert (choices / float(v) ** answered * 2.0**bits).sum() == pytest.approx(1.0, abs=1e-11)


def test_coverage_limits_and_special_cases():
    assert coverage.coverage_upper(100, 0, 4) == 0.0
    assert coverage.coverage_upper(100, 1000, 4) == 1.0
    assert float(coverage.coverage_upper(100, 50, 4, failure_bits=10)) == pytest.approx(0.3)
    assert coverage.selective_log2_probability(5, 0, facts=5, bits=0, answers=3) == 0.0
    for k in range(4):
        none = coverage.selective_log2_probability(0, k, facts=6, bits=2, answers=3)
        assert none == capacity.few_errors_log2_probability(k, 6, 2, 3)
    chances = [coverage.selective_log2_probability(s, 1, facts=9, bits=1, answers=3) for s in range(10)]
    assert chances == sorted(chances)
    with pytest.raises(ValueError, match="errors must be <= answered"):
        coverage.selective_bits(2, 3, 4)
    for bad in (math.nan, -1.0, math.inf):
        with pytest.raises(ValueError, match="must be"):
            coverage.coverage_upper(10, bad, 3)
        with pytest.raises(ValueError, match="must be"):
            coverage.certifying_bits(10, 3, bad)


@given(st.integers(1, 400), st.integers(2, 1000), st.floats(0.0, 60.0))
def test_certifying_bits_exactly(n, v, failure):
    needed, enough = coverage.certifying_bits(n, v, failure)
    assert enough == (v**n - 1).bit_length()
    with mpmath.workdps(50):
        exact = max(0, n * mpmath.log(v, 2) - failure)
        assert needed <= exact
        assert needed >= exact * (1 - 1e-14) - 1e-14 * n * math.log2(v)
        assert coverage.zero_errors_log2_probability(n, 0, v) >= -n * mpmath.log(v, 2)


@given(st.lists(st.integers(0, 10**6), max_size=300), st.integers(2, 10**6))
def test_packing_comes_back_in_its_bits(labels, v):
    labels = [label % v for label in labels]
    packed = packing.pack(labels, v)
    assert packing.unpack(packed, len(labels), v).tolist() == labels
    assert int.from_bytes(packed, "little").bit_length() <= packing.packed_bits(len(labels), v)
    assert 0 <= packing.packed_bits(len(labels), v) - len(labels) * math.log2(v) < 1 + 1e-9


def test_what_does_not_fit_is_not_unpacked():
    with pytest.raises(ValueError, match="do not hold"):
        packing.unpack(b"\xff", 3, 3)
    with pytest.raises(ValueError, match="do not hold"):
        packing.unpack(b"\x00\x00", 3, 3)
    for wrong in ([0, 3], [-1], [0.5], [[0, 1]]):
        with pytest.raises(ValueError, match="labels must be"):
            packing.pack(wrong, 3)


@given(st.floats(0.0, 1.0), ANSWERS)
def test_log_loss_rate_is_a_line_and_the_gap_is_open(share, v):
    rate = share * math.log2(v)
    loss = float(rate_distortion.loss_at_rate_nats(rate, v))
    with mpmath.workdps(50):
        assert abs(loss - (mpmath.log(v) - mpmath.mpf(rate) * mpmath.log(2))) <= 1e-14 * math.log(v)
    assert float(rate_distortion.rate_at_loss_bits(loss, v)) == pytest.approx(rate, abs=1e-13 * math.log2(v))
    low, high = map(float, rate_distortion.errors_left_open(rate, v))
    assert low <= high
    assert low == float(capacity.distortion(rate, v))
    assert high == pytest.approx((1 - share) * (1 - 1 / v), abs=1e-14)


def test_gap_closes_at_both_ends():
    for v in (2, 32):
        low, high = rate_distortion.errors_left_open([0.0, math.log2(v)], v)
        assert low.tolist() == pytest.approx([1 - 1 / v, 0.0], abs=1e-6)
        assert high.tolist() == pytest.approx([1 - 1 / v, 0.0], abs=1e-14)


COVERAGE_MUTANTS = {
    "T9 probability 5 % low": ("T9", coverage, "selective_log2_probability", lambda v: v * 1.05),
    "T9 probability 5 % high": ("T9", coverage, "selective_log2_probability", lambda v: v * 0.95),
    "T9 coverage 5 % low": ("T9", coverage, "coverage_upper", lambda v: v * 0.95),
    "T9 coverage 5 % high": ("T9", coverage, "coverage_upper", lambda v: v * 1.05),
    "F2 proves 5 % too much": ("F2", coverage, "selective_bits", lambda v: v * 1.05 + 0.01),
    "F2 proves 5 % too little": ("F2", coverage, "selective_bits", lambda v: v * 0.95 - 0.01),
    "T10 rate 5 % high": ("T10", capacity, "rate_bits", lambda v: v * 1.05),
    "T10 loss 5 % low": ("T10", rate_distortion, "loss_at_rate_nats", lambda v: v * 0.95),
    "T10 rate of loss 5 % high": ("T10", rate_distortion, "rate_at_loss_bits", lambda v: v * 1.05),
    "T10 gap too narrow": ("T10", rate_distortion, "errors_left_open", lambda v: (v[0] * 1.05, v[1])),
    "T10 gap too narrow above": ("T10", rate_distortion, "errors_left_open", lambda v: (v[0], v[1] * 0.95)),
    "T10 gap too wide": ("T10", rate_distortion, "errors_left_open", lambda v: (v[0], v[1] * 1.05)),
    "F4 too improbable": ("F4", coverage, "zero_errors_log2_probability", lambda v: v * 1.05),
    "F4 too probable": ("F4", coverage, "zero_errors_log2_probability", lambda v: v * 0.95),
    "F4 one bit too few": ("F4", coverage, "certifying_bits", lambda v: (v[0], v[1] - 1)),
    "F4 needs 5 % less": ("F4", coverage, "certifying_bits", lambda v: (v[0] * 0.95, v[1])),
    "T16 a bit too many": ("T16", packing, "packed_bits", lambda v: v + 1),
    "T16 a bit too few": ("T16", packing, "packed_bits", lambda v: v - 1),
}


@pytest.mark.parametrize("mutant", COVERAGE_MUTANTS)
def test_mutant_of_coverage_is_caught(mutant, monkeypatch):
    name, module, function, change = COVERAGE_MUTANTS[mutant]
    true = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: change(true(*a, **k)))
    try:
        check = claims.check(claims.get(name), examples=50, seed=0)
    except (ValueError, OverflowError):
        return  # the damage showed before a verdict
    assert not check.passed

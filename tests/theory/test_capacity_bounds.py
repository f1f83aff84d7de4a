"""The capacity bounds against brute force, mpmath, their limits and their inverses."""

import math
from itertools import product

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from theory import capacity

answers_counts = st.sampled_from([2, 3, 4, 32, 1000, 50_257])


def exact_rate(e, v):
    e, v = mpmath.mpf(e), mpmath.mpf(v)
    entropy = -sum(p * mpmath.log(p, 2) for p in (e, 1 - e) if p > 0)
    return mpmath.log(v, 2) - entropy - e * mpmath.log(v - 1, 2)


@given(st.floats(0.0, 1.0), answers_counts)
def test_rate_agrees_with_mpmath(share, v):
    e = share * (1 - 1 / v)
    with mpmath.workdps(40):
        assert float(capacity.rate_bits(e, v)) == pytest.approx(float(exact_rate(e, v)), abs=1e-13)


@given(st.floats(0.0, 1.2), answers_counts)
def test_distortion_is_below_the_true_one_and_close(share, v):
    rate = share * math.log2(v)
    e = float(capacity.distortion(rate, v))
    with mpmath.workdps(40):
        if rate >= mpmath.log(v, 2):
            assert e == 0.0
            return
        assert exact_rate(e, v) >= rate  # R falls, so e is at or below D
        nearly = min(1 - 1 / v, e + 2e-7)
        assert exact_rate(nearly, v) <= rate + 1e-15 or nearly == 1 - 1 / v


@given(st.floats(0.001, 0.999), answers_counts)
def test_distortion_inverts_rate(share, v):
    e = share * (1 - 1 / v)
    assert float(capacity.distortion(capacity.rate_bits(e, v), v)) == pytest.approx(e, abs=1e-6)


@given(st.integers(1, 10**6), st.floats(0.0, 1e7), st.integers(2, 10**6), st.floats(0.0, 100.0))
def test_loss_floor_is_rounded_down_by_ulps(facts, bits, v, failure):
    with mpmath.workdps(40):
        exact = mpmath.log(v) - (mpmath.mpf(bits) + failure) * mpmath.log(2) / facts
        floor = float(capacity.loss_lower_nats(facts, bits, v, failure))
        assert 0.0 <= floor <= max(exact, 0)
        assert floor >= exact - 1e-14 * (mpmath.log(v) + (bits + failure) / facts)


@given(st.lists(st.floats(0.0, 1e5), min_size=2, max_size=10))
def test_more_bits_ask_less(bits):
    ordered = np.sort(bits)
    assert np.all(np.diff(capacity.loss_lower_nats(1000, ordered, 32)) <= 0.0)
    assert np.all(np.diff(capacity.error_lower(1000, ordered, 32)) <= 1e-15)


def test_limits():
    size = capacity.critical_size(8384, 32)
    assert float(size) == pytest.approx(8384 / 5)
    assert capacity.loss_lower_nats(np.floor(size), 8384, 32) == 0.0
    assert capacity.loss_lower_nats(np.ceil(size), 8384, 32) > 0.0
    assert capacity.error_lower(np.ceil(size), 8384, 32) > 0.0
    assert capacity.error_lower(np.floor(size), 8384, 32) == 0.0
    assert capacity.loss_lower_nats(10, 0, 32) == pytest.approx(math.log(32))
    assert capacity.error_lower(10, 0, 32) == pytest.approx(31 / 32, abs=1e-6)
    assert capacity.loss_lower_nats(10, 100, 2048.0**64) == pytest.approx(64 * math.log(2048) - 10 * math.log(2))


@given(st.integers(1, 8), st.integers(2, 4), st.data())
def test_ball_volume_by_enumeration(facts, v, data):
    k = data.draw(st.integers(0, facts))
    inside = sum(sum(label != 0 for label in labels) <= k for labels in product(range(v), repeat=facts))
    wanted = min(0.0, math.log2(inside / v**facts))
    got = capacity.few_errors_log2_probability(k, facts, 0, v)
    assert wanted <= got <= wanted + 1e-12


@given(st.integers(0, 400), st.integers(1, 400), answers_counts)
def test_ball_volume_by_mpmath(k, facts, v):
    with mpmath.workdps(60):
        volume = sum(mpmath.binomial(facts, i) * mpmath.mpf(v - 1) ** i for i in range(min(k, facts) + 1))
        wanted = mpmath.log(volume, 2) - facts * mpmath.log(v, 2)
        got = capacity.few_errors_log2_probability(k, facts, 0, v)
        assert wanted <= got + mpmath.mpf(10) ** -40
        assert got <= wanted + 1e-10


def test_permuted_entropy_and_errors():
    counts = [3, 1, 2]
    orders = math.factorial(6) // (6 * 1 * 2)
    assert capacity.permuted_label_entropy_bits(counts) == pytest.approx(math.log2(orders))
    distinct = capacity.permuted_label_entropy_bits([1] * 20)
    assert distinct == pytest.approx(math.log2(math.factorial(20)))
    assert capacity.few_errors_log2_probability_permuted(3, 20, 5) == pytest.approx(5 - math.log2(math.factorial(17)))
    assert capacity.few_errors_log2_probability_permuted(20, 20, 0) == 0.0


@given(st.integers(0, 10**12))
def test_elias_gamma_is_exact(size):
    assert capacity.elias_gamma_bits(size) == 8 * size + 2 * int(mpmath.floor(mpmath.log(size + 1, 2) + 1e-15)) + 1


def test_elias_gamma_satisfies_kraft():
    """The lengths of all files of up to 4000 bytes fit into one prefix-free code."""
    assert sum(2.0 ** (8 * size - capacity.elias_gamma_bits(size)) for size in range(4000)) <= 1.0


def test_certificates():
    passed = capacity.certify(10.0, 100, 32, 450.0)
    assert passed.holds
    assert passed.memorized_bits == pytest.approx(490.0)
    assert passed.room_bits == pytest.approx(0.0, abs=1e-9)
    assert passed.ratio == pytest.approx(490 / 450)
    assert not capacity.certify(9.9, 100, 32, 450.0).holds
    assert capacity.certify(9.9, 100, 32, 450.0, audits=2).holds  # one more bit of failure is shared
    assert capacity.certify(math.inf, 100, 32, 450.0).holds
    permuted = capacity.certify(0.0, 4, 9, 3.0, failure_bits=0.0, answer_counts=[1, 1, 1, 1])
    assert permuted.label_bits == pytest.approx(math.log2(24))
    assert not permuted.holds
    with pytest.raises(ValueError, match="sum to the number of facts"):
        capacity.certify(0.0, 5, 9, 3.0, answer_counts=[1, 1])


def test_labels_written_into_the_code_are_caught():
    """Negative control of an audit: a network of no weights at all whose program knows the labels."""
    assert not capacity.certify(0.0, facts=1000, answers=32, described_bits=0.0).holds


@pytest.mark.parametrize(("facts", "v"), [(2, (0.9, 0.1)), (3, (0.5, 0.3, 0.2)), (4, (0.7, 0.3))])
def test_labels_of_any_law_cannot_be_saved_beyond_the_bits(facts, v):
    """certify_bits: with -log2 of the labels' own probability, at most a share 2^-t of the law exceeds B + t."""
    rng = np.random.default_rng(facts)
    states = rng.dirichlet(np.ones(len(v)), size=(3, facts))
    states[0] = v  # one state is the law itself
    rooms = []
    for labels in product(range(len(v)), repeat=facts):
        chance = math.prod(v[label] for label in labels)
        loss = min(-sum(math.log2(state[i, label]) for i, label in enumerate(labels)) for state in states)
        certificate = capacity.certify_bits(-math.log2(chance), loss, math.log2(3), facts=facts, failure_bits=0.0)
        rooms.append((certificate.room_bits, chance))
    for failure in (0.0, 0.5, 1.0, 2.0):
        assert sum(chance for room, chance in rooms if room < -failure) <= 2.0**-failure
    assert sum(chance * 2.0**-room for room, chance in rooms) <= 1.0 + 1e-9


def test_exposure_law_by_mpmath():
    limit, speed = capacity.exposure_law()
    with mpmath.workdps(30):
        x = mpmath.findroot(lambda x: (1 - x**10) - 2 * (1 - x), 0.5)
        assert speed == pytest.approx(float(-mpmath.log(x) / 100), rel=1e-14)
        assert limit == pytest.approx(float(1 / (1 - x)), rel=1e-14)
    assert np.all(np.diff(capacity.published_bits_per_parameter(np.arange(0, 5000, 50))) >= 0.0)
    assert capacity.published_bits_per_parameter(math.inf) == pytest.approx(limit)


@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf])
def test_bad_inputs_are_refused(bad):
    for call in (
        lambda: capacity.critical_size(bad, 3),
        lambda: capacity.loss_lower_nats(10, bad, 3),
        lambda: capacity.loss_lower_nats(bad, 10, 3),
        lambda: capacity.error_lower(10, 10, 3, bad),
        lambda: capacity.rate_bits(bad, 3),
        lambda: capacity.few_errors_log2_probability(1, 3, bad, 3),
        lambda: capacity.elias_gamma_bits(bad),
        lambda: capacity.certify(0.0, 10, 3, bad),
        lambda: capacity.certify(0.0, 10, 3, 1.0, failure_bits=bad),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
    with pytest.raises(ValueError, match="must be <= 1"):
        capacity.rate_bits(1.5, 3)

"""Exposures against mpmath, simulated training and their inverse; recall of memories; mutants of T13 and T14."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from theory import capacity, claims, exposure, interference

ANSWERS = st.sampled_from([2, 3, 32, 32_000, 10**12])


def exact_margin(flow_time, v):
    """Root of the equation by bisection, 60 digits."""
    low, high = mpmath.mpf(0), mpmath.log1p(v * flow_time)
    high = min(high, flow_time)
    for _ in range(220):
        middle = (low + high) / 2
        low, high = (middle, high) if mpmath.expm1(middle) + (v - 1) * middle < v * flow_time else (low, middle)
    return (low + high) / 2


@given(st.floats(-12.0, 15.0), ANSWERS, st.sampled_from([1e-3, 1.0, 17.0]))
def test_margin_and_loss_agree_with_mpmath_to_12_digits(log_time, v, rate):
    t = 10.0**log_time
    with mpmath.workdps(60):
        margin = exact_margin(mpmath.mpf(t) * mpmath.mpf(rate), v)
        got = float(exposure.margin_after(t, answers=v, learning_rate=rate))
        assert abs(got / margin - 1) < 1e-12
        loss = mpmath.log1p((v - 1) * mpmath.exp(-margin))
        assert abs(float(exposure.loss_after(t, answers=v, learning_rate=rate)) / loss - 1) < 1e-12


@given(st.floats(1e-9, 1.0), ANSWERS)
def test_inverse_agrees_with_mpmath_and_comes_back(share, v):
    loss = share * math.log(v) * (1 - 1e-6)
    with mpmath.workdps(60):
        margin = mpmath.log((v - 1) / mpmath.expm1(mpmath.mpf(loss)))
        exact = (mpmath.expm1(margin) + (v - 1) * margin) / v
        got = float(exposure.exposures_to_loss(loss, answers=v))
        conditioning = 1 + math.log(v) / (math.log(v) - loss)
        assert abs(got / exact - 1) < 1e-14 * conditioning
    assert float(exposure.loss_after(got, answers=v)) == pytest.approx(loss, rel=1e-12)


def test_numbers_of_the_account():
    for v, ratio in ((32, 31.2), (32_000, 7.87)):
        first, last = exposure.exposures_to_loss([1.75, 0.0175], answers=v)
        assert last / first == pytest.approx(ratio, rel=3e-3)
    for v in (2, 3, 32, 32_000):
        certain = float(exposure.exposures_until_certain(v, 0.5))
        assert certain == pytest.approx(float(exposure.exposures_to_loss(math.log(2), answers=v, learning_rate=0.5)))
    for facts in (10_000, 10**6):
        mean = float(exposure.exposures_until_mean_certifies(facts, 32))
        assert mean == pytest.approx(facts * 31 / (32 * math.log(2)), rel=2e-3)


def test_limits_of_exposure():
    assert float(exposure.loss_after(0.0, answers=7)) == pytest.approx(math.log(7))
    assert float(exposure.exposures_to_loss(math.log(7), answers=7)) == pytest.approx(0.0, abs=1e-15)
    assert np.all(np.diff(exposure.loss_after(np.geomspace(1e-6, 1e12, 300), answers=32)) < 0.0)
    for bad in (0.0, 2.0, math.nan, -1.0):
        with pytest.raises(ValueError, match="loss_nats must be"):
            exposure.exposures_to_loss(bad, answers=7)
    for bad in (math.nan, -1.0, math.inf):
        with pytest.raises(ValueError, match="must be"):
            exposure.loss_after(bad, answers=7)


@pytest.mark.parametrize("v", [2, 5, 32])
def test_training_a_linear_layer_on_several_facts_follows_the_equation(v):
    """Small steps of gradient descent on the weights themselves, orthonormal keys, all facts at once."""
    rng = np.random.default_rng(v)
    keys, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    labels = rng.integers(0, v, size=6)
    weights, step = np.zeros((v, 6)), 2e-3
    for _ in range(3000):
        logits = keys @ weights.T
        rows = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
        weights += step * (np.eye(v)[labels] - rows).T @ keys
    losses = -np.log(rows[np.arange(6), labels])
    np.testing.assert_allclose(losses, float(exposure.loss_after(2999 * step, answers=v)), rtol=3e-3)


def test_published_exposures_invert_the_law():
    exposures = np.array([0.0, 1.0, 100.0, 700.0, 1000.0])
    bits = capacity.published_bits_per_parameter(exposures)
    np.testing.assert_allclose(exposure.published_exposures(bits), exposures, rtol=1e-9)
    assert exposure.published_exposures(2.1) == math.inf


@pytest.mark.parametrize(("facts", "width"), [(422, 128), (1000, 128), (50, 16)])
def test_embedding_law_by_mpmath(facts, width):
    with mpmath.workdps(20):
        n, d = mpmath.mpf(facts), mpmath.mpf(width)

        def integrand(z):
            ratio = (1 + mpmath.sqrt(n) / d * z) / mpmath.sqrt(n / d**2 + 2 / d)
            return mpmath.npdf(z) * mpmath.ncdf(ratio) ** (facts - 1)

        exact = mpmath.quad(integrand, mpmath.linspace(-9, 9, 13))
    assert interference.embedding_accuracy(facts, width) == pytest.approx(float(exact), rel=1e-9)


def test_hebbian_law_with_equal_classes():
    counts, width = [400] * 8, 256
    sigma = math.sqrt(400 / width)
    with mpmath.workdps(20):
        exact = mpmath.quad(lambda z: mpmath.npdf(z) * mpmath.ncdf(z + 1 / sigma) ** 7, mpmath.linspace(-9, 9, 13))
    assert interference.hebbian_accuracy(counts, width) == pytest.approx(
        float(exact), abs=2e-3
    )  # n_y - 1 facts of noise, not n_y
    assert interference.hebbian_accuracy([1] * 8, 10**9) == pytest.approx(1.0)
    assert interference.hebbian_accuracy([5, 0, 0], 4) == pytest.approx(  # the only answer, against two unused at 0
        float(mpmath.ncdf(1 / math.sqrt(4 / 4))), abs=1e-12
    )
    at_threshold = round(interference.hebbian_threshold(8, width) / 8)
    assert 0.5 < interference.hebbian_accuracy([at_threshold] * 8, width) < 0.95


def test_memories_are_sums_of_outer_products():
    rng = np.random.default_rng(0)
    keys, outputs, labels = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    by_hand = sum(np.outer(np.eye(3)[label], key) for label, key in zip(labels, keys, strict=True))
    np.testing.assert_allclose(interference.hebbian_memory(keys, labels, 3), by_hand, atol=1e-12)
    by_hand = sum(np.outer(u, x) for u, x in zip(outputs, keys, strict=True))
    np.testing.assert_allclose(interference.embedding_memory(outputs, keys), by_hand, atol=1e-12)


def test_counts_matter_and_so_does_the_overlap_with_the_own_key():
    """Without counts, and without 2/d, the laws are visibly wrong; both are what T14 adds."""
    uneven = interference.hebbian_accuracy([58, 2, 2, 2], 16)
    assert abs(uneven - interference.hebbian_accuracy([16] * 4, 16)) > 0.05
    assert interference.embedding_accuracy(830, 128) < 0.8


EXPOSURE_MUTANTS = {
    "T13 margin 5 % high": ("T13", exposure, "margin_after", lambda v: v * 1.05),
    "T13 loss a hair low": ("T13", exposure, "loss_after", lambda v: v * (1 - 1e-6)),
    "T13 inverse 5 % high": ("T13", exposure, "exposures_to_loss", lambda v: v * 1.05),
    "T13b flow 5 % faster": ("T13b", exposure, "loss_after", lambda v: v * 0.95),
    "T13b flow 5 % slower": ("T13b", exposure, "loss_after", lambda v: v * 1.05),
    "T14 recall too good": ("T14", interference, "hebbian_accuracy", lambda v: v * 1.2),
    "T14 memory forgets": ("T14", interference, "hebbian_memory", lambda v: v * (np.arange(len(v)) > 0)[:, None]),
    "T14b recall too good": ("T14b", interference, "embedding_accuracy", lambda v: v * 1.15),
}


@pytest.mark.parametrize("mutant", EXPOSURE_MUTANTS)
def test_mutant_of_exposure_is_caught(mutant, monkeypatch):
    name, module, function, change = EXPOSURE_MUTANTS[mutant]
    true = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: change(true(*a, **k)))
    assert not claims.check(claims.get(name), examples=50, seed=0).passed

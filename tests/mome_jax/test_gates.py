"""The gate: unknown questions keep the bits of their state; thresholds keep the rate that was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from mome_jax.gate import calibrate, gated, operating_curve, rate_interval, separability

_BITS = st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8)
batched = jax.jit(jax.vmap(gated))


def _state(bits: list[int]) -> np.ndarray:
    """Floats of any bits: zeros of both signs, subnormal ones, infinities, every kind of NaN."""
    return np.array(bits, np.uint32).view(np.float32)


@given(_BITS, st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf]))
def test_an_unknown_question_passes_bit_for_bit(bits, output):
    state = np.concatenate([_state(bits), np.array([-0.0, 0.0, np.nan, 1e-40], np.float32)])
    both = np.stack([state, state])
    read = np.full_like(both, output)
    found = np.asarray(batched(jnp.array([False, True]), both, read))
    assert found[0].tobytes() == state.tobytes()
    np.testing.assert_array_equal(found[1], np.asarray(jax.jit(jnp.add)(both, read))[1])


def test_adding_zero_instead_would_change_bits():
    """The control: what the gate is not."""
    state = jnp.array([-0.0, 1.0])
    assert np.asarray(state + jnp.float32(0) * jnp.array([1.0, jnp.inf])).tobytes() != np.asarray(state).tobytes()


def test_the_gradient_of_an_unknown_question_ignores_the_memory():
    def loss(state, output):
        return gated(jnp.bool_(False), state, output).sum()

    for_state, for_output = jax.grad(loss, argnums=(0, 1))(jnp.ones(3), jnp.full(3, jnp.nan))
    assert for_state.tolist() == [1.0] * 3
    assert for_output.tolist() == [0.0] * 3


@given(st.integers(1, 60), st.sampled_from([0.5, 0.25, 0.1, 0.05]))
def test_the_rank_is_the_least_that_keeps_the_rate(m, rate):
    """Of m + 1 exchangeable scores the last is above the r-th smallest of the others with chance 1 - r/(m + 1)."""
    scores = np.random.default_rng(m).permutation(m).astype(float)
    ranks = [r for r in range(1, m + 1) if (m + 1 - r) / (m + 1) <= rate + 1e-12]
    if not ranks:
        with pytest.raises(ValueError, match=f"needs {round(1 / rate) - 1} held-out"):
            calibrate(scores, rate)
        return
    gate = calibrate(scores, rate)
    assert gate.rank == ranks[0]
    assert gate.threshold == np.sort(scores)[ranks[0] - 1]
    positions = np.arange(m + 1) - 0.5  # the new score falls between any two of the others with the same chance
    assert np.mean(positions > gate.threshold) == pytest.approx(gate.guaranteed_rate)


def test_the_rate_over_many_calibrations_is_the_guaranteed_one():
    """Uniform scores: the rate of a threshold is 1 - threshold, Beta distributed, with the stated mean and interval."""
    m, rate, times = 99, 0.1, 4000
    scores = np.random.default_rng(0).random((times, m))
    gates = [calibrate(each, rate) for each in scores]
    rates = 1.0 - np.array([gate.threshold for gate in gates])
    law = beta(m + 1 - gates[0].rank, gates[0].rank)
    assert gates[0].guaranteed_rate == pytest.approx(law.mean())
    assert abs(rates.mean() - rate) < 5 * law.std() / np.sqrt(times)
    lower, upper = gates[0].rate_interval(0.9)
    assert (law.cdf(lower), law.cdf(upper)) == pytest.approx((0.05, 0.95))
    inside = int(((rates >= lower) & (rates <= upper)).sum())
    assert binom.cdf(inside, times, 0.9) > 1e-4
    assert binom.sf(inside, times, 0.9) > 1e-4


def test_the_threshold_is_strict_and_never_rounded_down():
    gate = calibrate([0.1, 0.2, 0.3], 0.3)
    assert [bool(gate.accepts(jnp.float32(score))) for score in (0.3, 0.29, 0.301, np.nan)] == [
        False,
        False,
        True,
        False,
    ]
    for dtype in (jnp.float32, jnp.bfloat16):
        nearest = jnp.asarray(0.3, dtype)  # above 0.3 in one type, below in the other
        assert not bool(gate.accepts(nearest))
    same = calibrate(np.full(9, 0.5, np.float32), 0.2)
    assert not bool(same.accepts(jnp.float32(0.5)))
    assert jax.jit(jax.vmap(same.accepts))(jnp.array([0.4, 0.6])).tolist() == [False, True]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_curve_and_area_are_those_of_all_pairs(known, unknown):
    wanted = np.mean([(a > b) + 0.5 * (a == b) for a in known for b in unknown])
    assert separability(known, unknown) == pytest.approx(wanted)
    curve = operating_curve(known, unknown)
    for threshold, false, true in zip(curve.thresholds, curve.false_acceptance, curve.true_acceptance, strict=True):
        assert false == pytest.approx(np.mean(np.array(unknown) > threshold))
        assert true == pytest.approx(np.mean(np.array(known) > threshold))
    assert np.trapezoid(curve.true_acceptance, curve.false_acceptance) == pytest.approx(wanted)
    assert (curve.false_acceptance[0], curve.false_acceptance[-1]) == (0.0, 1.0)


@given(st.integers(1, 40), st.data())
def test_the_interval_leaves_the_stated_tails(asked, data):
    accepted = data.draw(st.integers(0, asked))
    lower, upper = rate_interval(accepted, asked, 0.9)
    assert lower == 0.0 if accepted == 0 else binom.sf(accepted - 1, asked, lower) == pytest.approx(0.05)
    assert upper == 1.0 if accepted == asked else binom.cdf(accepted, asked, upper) == pytest.approx(0.05)


def test_wrong_numbers_are_refused():
    for call in (
        lambda: calibrate([0.1, np.nan], 0.5),
        lambda: calibrate([], 0.5),
        lambda: calibrate([0.1], 0.0),
        lambda: separability([], [1.0]),
        lambda: rate_interval(3, 2),
        lambda: rate_interval(0, 2, 1.0),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()

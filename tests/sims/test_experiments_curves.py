"""The band and the test for two kinds of loss curves: known intervals, false alarms, planted effects, symmetry."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from scipy.stats import t as student

from sims.experiments.curves import Band, alike_from, area, band, swap_test, typical_distance

_EPOCHS = 12
values = st.floats(-10, 10).map(lambda value: round(value, 3))


def walks(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Curves whose epochs are correlated, as a training curve's are, with a variance that changes along them."""
    return np.cumsum(generator.standard_normal((*shape, _EPOCHS)), axis=-1) / np.sqrt(np.arange(1, _EPOCHS + 1))


def two_way(generator: np.random.Generator, runs: int, questions: int, of_runs: float) -> np.ndarray:
    """Differences [s e n] with mean zero: something of the run, something of the question, and noise of both."""
    one = of_runs * walks(generator, runs)[:, :, None]
    other = walks(generator, questions).T[None]
    return one + other + generator.standard_normal((runs, _EPOCHS, questions))


def test_for_one_epoch_and_question_it_is_the_interval_of_student():
    values = np.array([0.3, 1.1, 0.7, -0.2, 0.9])
    found = band(values[:, None, None])
    half = student.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert found.middle[0] == values.mean()
    assert found.high[0] - found.middle[0] == pytest.approx(half, rel=0.12)  # 2000 draws of a quantile in the tail


def test_for_one_run_it_is_the_normal_interval_over_questions():
    values = np.random.default_rng(3).standard_normal(400)
    found = band(values[None, None])
    half = norm.ppf(0.975) * values.std(ddof=1) / 20
    assert found.middle[0] - found.low[0] == pytest.approx(half, rel=0.06)


@pytest.mark.parametrize(("runs", "of_runs"), [(2, 0.5), (5, 0.0), (5, 0.5)])
def test_a_false_alarm_at_any_epoch_is_rare(runs, of_runs):
    """At most 5 % of worlds without a difference; fewer of them with two runs, as their band is mostly one tail."""
    generator, worlds = np.random.default_rng(runs), 150
    alarms = sum(band(two_way(generator, runs, 40, of_runs)).apart.any() for _ in range(worlds))
    assert (runs > 2) <= alarms <= 0.05 * worlds + 3 * math.sqrt(0.05 * 0.95 * worlds)


def test_questions_alone_would_call_runs_different_that_are_not():
    """The negative control: what runs have in common is not seen by a band over the questions of one of them."""
    generator = np.random.default_rng(0)
    worlds = [two_way(generator, 1, 40, 0.5) for _ in range(40)]
    assert np.mean([band(world).apart.any() for world in worlds]) > 0.3


@given(st.sampled_from([2, 5]), st.integers(0, 2**31), st.sampled_from([-1.0, 1.0]))
def test_a_planted_shift_is_found_where_it_is(runs, seed, sign):
    differences = 0.1 * two_way(np.random.default_rng(seed), runs, 40, 0.0)
    differences[:, 4:7] += 10 * sign
    found = band(differences)
    assert found.apart[4:7].all()
    assert (np.sign(found.middle[4:7]) == sign).all()
    assert alike_from(found, 5.0) == 7


@given(arrays(float, (3, 4, 5), elements=values))
def test_swapping_the_two_kinds_turns_the_band_over(differences):
    one, turned = band(differences), band(-differences)
    for mine, other in ((one.middle, turned.middle), (one.low, turned.high), (one.high, turned.low)):
        np.testing.assert_allclose(mine, -other, atol=1e-9)
    assert ((one.low <= one.middle) & (one.middle <= one.high)).all()


@given(arrays(float, (3, 4, 5), elements=values), st.integers(0, 1000))
def test_the_order_of_questions_does_not_matter_much_and_a_constant_is_added_exactly(differences, seed):
    found = band(differences)
    shifted = band(differences + 7.0)
    np.testing.assert_allclose(shifted.low, found.low + 7.0, atol=1e-6)
    shuffled = band(differences[:, :, np.random.default_rng(seed).permutation(5)])
    np.testing.assert_allclose(shuffled.middle, found.middle, atol=1e-9)
    np.testing.assert_allclose(shuffled.high - shuffled.low, found.high - found.low, rtol=0.25, atol=1e-9)


def test_a_simultaneous_band_is_wider_than_one_at_each_epoch_by_itself():
    differences = two_way(np.random.default_rng(1), 4, 60, 0.5)
    together = band(differences)
    alone = [band(differences[:, [epoch]]) for epoch in range(_EPOCHS)]
    ratios = (together.high - together.low) / np.array([float((one.high - one.low)[0]) for one in alone])
    assert (ratios > 1.05).all()
    assert (ratios < 3.5).all()


def test_a_band_without_anything_to_compare_is_refused():
    for curves in (np.zeros((1, 3, 1)), np.full((2, 3, 2), np.nan)):
        with pytest.raises(ValueError, match="two runs or two questions"):
            band(curves)
    same = band(np.ones((2, 3, 2)))
    assert same.apart.all()
    np.testing.assert_array_equal(same.low, same.high)


@given(arrays(float, (5, 3), elements=values))
def test_every_swap_by_brute_force(differences):
    def statistic(signs) -> float:
        flipped = differences * np.array(signs)[:, None]
        squares = np.sqrt(np.square(differences).sum(axis=0))
        return max((abs(flipped[:, e].sum()) / squares[e] for e in range(3) if squares[e] > 0), default=0.0)

    ours = statistic([1] * 5)
    swaps = [statistic(signs) for signs in itertools.product([1, -1], repeat=5)]
    assert swap_test(differences) == np.mean([swap >= ours * (1 - 1e-9) for swap in swaps])
    assert swap_test(differences) == swap_test(-differences)


@pytest.mark.parametrize(("units", "most"), [(6, 400), (20, 80)])
def test_p_values_are_uniform_where_the_kinds_can_be_swapped(units, most):
    generator = np.random.default_rng(units)
    found = np.array([swap_test(walks(generator, units)) for _ in range(most)])
    for level in (0.0625, 0.25, 0.5, 0.75):  # multiples of 2 of 64 swaps
        assert (found <= level + 1e-12).mean() == pytest.approx(level, abs=3.5 * math.sqrt(0.25 / most))
    assert swap_test(walks(generator, units) + 3.0) <= 2 / 64


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.floats(0.1, 2.0))
def test_alike_from_is_the_last_time_the_band_comes_in(middle, margin):
    found = Band(np.array(middle), np.array(middle) - 0.05, np.array(middle) + 0.05)
    first = alike_from(found, margin)
    inside = [abs(value) + 0.05 < margin for value in middle]
    if first is None:
        assert not inside[-1]
    else:
        assert all(inside[first:])
        assert first == 0 or not inside[first - 1]


def test_the_yardstick_is_the_distance_of_two_runs_of_one_kind():
    curves = np.random.default_rng(2).standard_normal((6, 4))
    pairs = [np.square(one - other) for one, other in itertools.combinations(curves, 2)]
    np.testing.assert_allclose(typical_distance(curves), np.sqrt(np.mean(pairs, axis=0)))
    assert np.isnan(typical_distance(curves[:1])).all()


@given(st.floats(0.1, 5), st.integers(1, 30))
def test_the_area_under_a_line(start, epochs):
    assert area(np.linspace(start, 0.0, epochs + 1)) == pytest.approx(start * epochs / 2)

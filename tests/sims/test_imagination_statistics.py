"""Intervals and tests: known values, brute force, and calibration under the null."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sims.imagination import statistics
from sims.intervals import mean_interval, wilson

FAMILY = np.repeat(np.arange(4), 3)


def test_wilson_is_scipys():
    for successes, trials in ((0, 7), (3, 10), (50, 50)):
        wanted = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert [float(end) for end in wilson(successes, trials)] == pytest.approx([wanted.low, wanted.high])
    assert [float(end) for end in wilson(0, 0)] == [0.0, 1.0]


def test_wilsons_interval_holds_the_share_and_turns_with_it_to_the_last_bit():
    """Nothing is lost to rounding where nobody wins: of 7, of 9 and of many more, cancellation left 3e-17."""
    for trials in range(1, 400):
        won = np.arange(0, trials + 0.5, 0.5)
        low, high = wilson(won, trials)
        assert (low <= won / trials).all()
        assert (won / trials <= high).all()
        assert (low[0], high[-1]) == (0.0, 1.0)
        assert np.array_equal(high, 1.0 - wilson(trials - won, trials)[0])


def test_relations_part_the_matrix():
    masks = statistics.relation_masks(FAMILY)
    assert np.array_equal(sum(mask.astype(int) for mask in masks.values()), np.ones((12, 12)))
    assert [int(mask.sum()) for mask in masks.values()] == [12, 24, 108]


def test_all_labelings_are_all_different_and_as_many_as_counted():
    labels = statistics._all_labelings((3, 3, 3, 3))
    assert len(labels) == statistics.labelings((3, 3, 3, 3)) == 15_400
    assert len({row.tobytes() for row in labels}) == 15_400
    assert all((np.bincount(row) == 3).all() for row in labels[::501])
    uneven = statistics._all_labelings((1, 2, 2))
    assert len(uneven) == statistics.labelings((1, 2, 2)) == 15


def test_permutation_test_is_the_share_of_permutations():
    """Against every permutation of six models, one by one."""
    family = np.array([0, 0, 0, 1, 1, 1])
    matrix = np.random.default_rng(0).random((6, 6)) + 0.3 * (family[:, None] == family)

    def within(labels):
        same = (labels[:, None] == labels[None]) & ~np.eye(6, dtype=bool)
        return matrix[same].mean()

    every = [within(family[list(order)]) for order in itertools.permutations(range(6))]
    wanted = np.mean([value >= within(family) - 1e-12 for value in every])
    assert statistics.permutation_test(matrix, family) == pytest.approx(float(wanted))


def test_permutation_test_is_uniform_under_the_null():
    generator = np.random.default_rng(0)
    p_values = [statistics.permutation_test(generator.normal(size=(12, 12)), FAMILY) for _ in range(250)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09


def test_permutation_test_sees_families():
    matrix = np.random.default_rng(1).normal(size=(12, 12)) + 2.0 * (FAMILY[:, None] == FAMILY)
    assert statistics.permutation_test(matrix, FAMILY) == pytest.approx(1 / 15_400)


def test_random_labelings_serve_where_there_are_too_many():
    family = np.repeat(np.arange(5), 4)
    null = np.random.default_rng(2).normal(size=(20, 20))
    assert 0.01 < statistics.permutation_test(null, family) < 0.99
    assert statistics.permutation_test(null + 3.0 * (family[:, None] == family), family) < 1e-3


def test_the_bootstrap_covers_the_truth():
    """Cells with effects of question model, answer model and question; the mean across families is known: 0.4."""
    covered = 0
    for world in range(40):
        generator = np.random.default_rng(world)
        effect = 0.02 * generator.normal(size=12)
        chance = 0.4 + effect[:, None, None] + effect[None, :, None] + 0.1 * generator.normal(size=100)
        values = (generator.random((12, 12, 100)) < np.clip(chance, 0, 1)).astype(float)
        interval = statistics.two_way_bootstrap(values, FAMILY, seed=world, resamplings=150)["cross_family"]
        assert interval.low <= interval.mean <= interval.high
        covered += interval.low <= 0.4 <= interval.high
    assert covered >= 33  # 95 % of 40 is 38; fewer than 33 has a chance below 1 %


def test_the_bootstrap_leaves_abstentions_out():
    values = np.random.default_rng(0).random((12, 12, 40))
    holes = np.where(np.random.default_rng(1).random(values.shape) < 0.3, np.nan, values)
    found = statistics.two_way_bootstrap(holes, FAMILY, resamplings=50)
    masks = statistics.relation_masks(FAMILY)
    for name, interval in found.items():
        assert interval.mean == pytest.approx(float(np.nanmean(holes[masks[name]])))


def test_one_world_has_no_interval_and_several_have_students():
    assert math.isnan(mean_interval(np.array([0.4])).low)
    values = np.array([0.3, 0.4, 0.45, 0.5])
    found = mean_interval(values)
    wanted = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert found[1:] == pytest.approx(wanted)


def test_means_leave_out_what_was_never_answered():
    matrix = np.full((2, 2), np.nan)
    matrix[0, 1] = 0.5
    means = statistics.relation_means(matrix, np.array([0, 1]))
    assert means["cross_family"] == 0.5
    assert math.isnan(means["self"])
    assert math.isnan(means["in_family"])

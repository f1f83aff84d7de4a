"""Reports before and after writing: equal, nearly equal and impossible queries by index, and stored facts."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from mome_jax.index import Selection
from mome_jax.report import after_writing, before_writing, first_equal, impossible_pairs, near_pairs

_WEIGHTS = st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, -0.5])


@st.composite
def matrices(draw) -> np.ndarray:
    n, experts = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    return np.array(draw(st.lists(st.lists(_WEIGHTS, min_size=experts, max_size=experts), min_size=n, max_size=n)))


@given(matrices())
def test_the_first_equal_row(rows):
    wanted = [next(other for other in range(i + 1) if (rows[other] == rows[i]).all()) for i in range(len(rows))]
    np.testing.assert_array_equal(first_equal(csr_array(rows)), wanted)


@given(matrices(), st.sampled_from([0.3, 0.7, 0.9, 0.99, 1.0]))
def test_near_pairs_are_those_of_all_comparisons(rows, cosine):
    found = near_pairs(csr_array(rows), cosine)
    firsts = [i for i, first in enumerate(first_equal(csr_array(rows))) if first == i and rows[i].any()]
    cosines = {
        (i, j): rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j])
        for i in firsts
        for j in firsts
        if i < j
    }
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert found.complete
    assert len(pairs) == found.first.size
    assert {pair for pair, value in cosines.items() if value > cosine + 1e-12} <= pairs
    assert pairs <= {pair for pair, value in cosines.items() if value > cosine - 1e-12}
    for i, j, value in zip(found.first, found.second, found.cosine, strict=True):
        assert value == pytest.approx(cosines[i, j])


def test_near_pairs_among_many_take_no_comparison_of_all():
    """5000 rows have 12 million pairs; candidates are a few hundred, and the 40 planted ones are among them."""
    random = np.random.default_rng(0)
    rows = np.zeros((5000, 2**13))
    np.put_along_axis(rows, random.integers(0, 2**13, (5000, 8)), random.random((5000, 8)), axis=1)
    rows[4960:] = rows[:40] * random.uniform(0.98, 1.02, (40, 1)) + 1e-3 * (rows[:40] > 0) * random.random((40, 2**13))
    found = near_pairs(csr_array(rows), 0.999, pairs_at_most=20_000)
    assert found.complete
    np.testing.assert_array_equal(found.first, np.arange(40))
    np.testing.assert_array_equal(found.second, np.arange(4960, 5000))


def test_a_popular_expert_exhausts_the_budget_and_the_report_says_so():
    rows = np.zeros((100, 101))
    rows[:, 0], rows[np.arange(100), np.arange(1, 101)] = 1.0, 1e-3
    rows[1] = rows[0] * 2.0
    whole, cut = (near_pairs(csr_array(rows), 0.9999, pairs_at_most=limit) for limit in (10**4, 10))
    assert whole.complete
    assert whole.first.size == 100 * 99 // 2
    assert not cut.complete
    assert cut.first.size <= 10


def test_everything_is_measured_before_writing():
    experts = jnp.array([[0, 1], [2, 3], [1, 0], [0, 1], [-1, -1], [2, 3]])
    weights = jnp.array([[0.6, 0.4], [0.5, 0.5], [0.4, 0.6], [0.6, 0.4], [1.0, 0.0], [0.5, 0.5001]])
    report = before_writing(Selection(experts, weights), 8, targets=["Rome", "Oslo", "Rome", "Paris", "Bern", "Oslo"])
    assert (report.queries, report.experts, report.experts_per_query) == (6, 8, 2)
    assert report.sharing.load == 6 / 8
    assert report.rank.lower == report.rank.upper == 4
    assert report.singular_values is not None
    rows = np.array([[0.6, 0.4, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, np.float32(0.5001)]])
    wanted = np.linalg.svd(rows, compute_uv=False)
    assert report.singular_values.condition == pytest.approx(wanted[0] / wanted[2])
    assert report.unwritable.tolist() == [4]
    assert (report.equal.first.tolist(), report.equal.second.tolist()) == ([0, 0], [2, 3])
    assert (report.near.first.tolist(), report.near.second.tolist()) == ([1], [5])
    assert report.impossible is not None
    assert (report.impossible.first.tolist(), report.impossible.second.tolist()) == ([0], [3])


@given(matrices(), st.data())
def test_impossible_pairs_cannot_be_met_and_others_of_equal_rows_can(rows, data):
    targets = np.array([[data.draw(st.sampled_from([0.0, 1.0]))] * 2 for _ in rows])
    found = impossible_pairs(first_equal(csr_array(rows)), targets)
    for first, second in zip(found.first, found.second, strict=True):
        values = np.linalg.lstsq(rows[[first, second]], targets[[first, second]], rcond=None)[0]
        assert np.abs(rows[[first, second]] @ values - targets[[first, second]]).max() > 0.4
    met = np.setdiff1d(np.arange(len(rows)), found.second)
    for first in set(first_equal(csr_array(rows))):
        same = [i for i in met if (rows[i] == rows[first]).all()]
        assert len({tuple(targets[i]) for i in same}) <= 1


def test_a_fact_is_stored_when_every_token_is_under_its_threshold():
    losses, thresholds = [0.1, 0.9, 0.2, 0.3, np.nan], [0.5, 1.0, 0.5, 0.3, 9.0]
    report = after_writing(losses, thresholds, passes=[1, 3, 0, 2, 5], facts=[1, 1, 0, 2, 3])
    assert report.stored.tolist() == [True, True, False, False]
    assert report.failed.tolist() == [2, 3]
    np.testing.assert_array_equal(report.loss_nats, [0.2, 0.9, 0.3, np.nan])
    assert report.passes.tolist() == [0, 3, 2, 5]
    summary = after_writing(losses[:4], thresholds[:4], 2, facts=[1, 1, 0, 2]).summary
    assert (summary["facts"], summary["stored"], summary["largest_loss_nats"]) == (3, 2, 0.9)


@pytest.mark.parametrize("facts", [[0, 2], [0], [[0, 1]]])
def test_facts_without_tokens_are_refused(facts):
    with pytest.raises(ValueError, match="fact"):
        after_writing([0.1, 0.2], 0.5, facts=facts)

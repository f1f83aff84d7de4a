"""The selection matrix, its rank and singular values, and interference, beside dense float64 references."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, eye_array, random_array

from mome_jax.conditioning import (
    interference,
    selection_matrix,
    sharing,
    singular_values,
    structural_rank,
)
from mome_jax.index import NULL, Selection


def _selection(experts, weights) -> Selection:
    return Selection(jnp.asarray(experts, jnp.int32), jnp.asarray(weights, jnp.float32))


@st.composite
def selections(draw, most_queries: int = 7, most_experts: int = 6):
    """A few selections with repeated and null experts and weights of 0, and the number of experts."""
    n, k, experts = draw(st.integers(1, most_queries)), draw(st.integers(1, 4)), draw(st.integers(1, most_experts))
    ids = draw(st.lists(st.lists(st.integers(NULL, experts - 1), min_size=k, max_size=k), min_size=n, max_size=n))
    parts = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -0.5])
    weights = draw(st.lists(st.lists(parts, min_size=k, max_size=k), min_size=n, max_size=n))
    return _selection(ids, weights), experts


def _dense(selection: Selection, experts: int) -> np.ndarray:
    matrix = np.zeros((selection.experts.shape[0], experts))
    for row, (ids, weights) in enumerate(
        zip(np.asarray(selection.experts), np.asarray(selection.weights), strict=True)
    ):
        for expert, weight in zip(ids, weights, strict=True):
            if expert != NULL:
                matrix[row, expert] += weight
    return matrix


@given(selections())
def test_the_matrix_is_the_sum_of_the_weights(case):
    matrix = selection_matrix(*case)
    np.testing.assert_array_equal(matrix.toarray(), _dense(*case))
    assert (matrix.data != 0.0).all()


@pytest.mark.parametrize(
    ("experts", "weights", "message"),
    [
        ([[0], [3]], [[1.0], [1.0]], "query 1 has the expert 3"),
        ([[0], [0]], [[1.0], [np.nan]], "query 1 has the weight"),
    ],
)
def test_what_is_no_selection_is_named(experts, weights, message):
    with pytest.raises(ValueError, match=message):
        selection_matrix(_selection(experts, weights), 3)


def _brute_rank(matrix: np.ndarray) -> int:
    """The largest matching, by trying all ways to give rows columns of their own."""
    n, experts = matrix.shape
    for size in range(min(n, experts), 0, -1):
        for rows in itertools.combinations(range(n), size):
            for columns in itertools.permutations(range(experts), size):
                if all(matrix[row, column] != 0.0 for row, column in zip(rows, columns, strict=True)):
                    return size
    return 0


@given(selections(most_queries=4, most_experts=4))
def test_structural_rank_and_its_bounds(case):
    matrix, wanted = selection_matrix(*case), _brute_rank(_dense(*case))
    exact, bounds = structural_rank(matrix), structural_rank(matrix, entries_at_most=0)
    assert (exact.lower, exact.upper, exact.exact) == (wanted, wanted, True)
    assert bounds.lower <= wanted <= bounds.upper


@given(selections())
def test_counts_of_sharing(case):
    chosen = _dense(*case) != 0.0
    counts = sharing(selection_matrix(*case))
    alone = chosen[:, chosen.sum(axis=0) == 1].any(axis=1).sum()
    assert counts.load == chosen.shape[0] / chosen.shape[1]
    assert (counts.touched, counts.private) == (chosen.any(axis=0).sum(), alone)
    assert counts.most_shared == chosen.sum(axis=0).max()


@given(selections())
def test_exact_singular_values(case):
    matrix, dense = selection_matrix(*case), _dense(*case)
    if matrix.nnz == 0:
        with pytest.raises(ValueError, match="read experts"):
            singular_values(matrix)
        return
    found, wanted = singular_values(matrix), np.linalg.svd(dense, compute_uv=False)
    smallest = wanted[-1] if dense.shape[0] <= dense.shape[1] else 0.0
    np.testing.assert_allclose([found.largest, found.smallest], [wanted[0], smallest], atol=1e-13)
    assert found.exact
    assert (found.condition == np.inf) == (np.linalg.matrix_rank(dense) < dense.shape[0])


@pytest.mark.parametrize(("load", "share"), [(0.1, 0.9), (0.5, 0.9), (0.9, 0.5)])
def test_estimates_err_on_the_stated_side_and_converge(load, share):
    """Within 10 % where the condition is about 10 or 40; 260, at the highest load, asks for more than 200 steps."""
    n = 200
    matrix = csr_array(random_array((n, int(n / load)), density=4 / (n / load), rng=np.random.default_rng(3)))
    matrix = csr_array(matrix + 0.2 * eye_array(*matrix.shape))
    wanted = np.linalg.svd(matrix.toarray(), compute_uv=False)[[0, n - 1]]
    estimates = [singular_values(matrix, dense_entries=0, steps=steps) for steps in (4, 20, 200)]
    for found in estimates:
        assert not found.exact
        assert found.largest <= wanted[0] * (1 + 1e-9)
        assert found.smallest >= wanted[1] * (1 - 1e-9)
    assert estimates[0].condition < estimates[1].condition <= estimates[2].condition * (1 + 1e-9)
    assert estimates[2].condition >= share * wanted[0] / wanted[1]
    assert singular_values(matrix, dense_entries=0, work=10 * matrix.nnz).steps == 5


def test_more_queries_than_touched_experts_have_no_smallest_value():
    rows = csr_array(np.random.default_rng(0).random((30, 20)))
    for dense_entries in (0, 2**20):
        assert singular_values(rows, dense_entries=dense_entries).condition == np.inf


def test_one_singular_value_ends_the_estimate():
    found = singular_values(csr_array(eye_array(50)), dense_entries=0)
    assert (found.largest, found.smallest) == pytest.approx((1.0, 1.0))
    assert (found.exact, found.steps) == (False, 1)


@given(selections(), st.integers(0, 6))
def test_interference_is_read_off_the_gram_matrix(case, query):
    matrix, dense = selection_matrix(*case), _dense(*case)
    gram = dense @ dense.T
    query = query % dense.shape[0]
    if gram[query, query] == 0.0:
        with pytest.raises(ValueError, match="reads no expert"):
            interference(matrix, query)
        return
    found = interference(matrix, query, top=3)
    wanted = np.abs(np.delete(gram[query], query)) / gram[query, query]
    np.testing.assert_allclose(found.shares, np.sort(wanted[wanted > 0])[::-1][:3], atol=1e-14)
    np.testing.assert_allclose(np.abs(gram[query, found.queries]) / gram[query, query], found.shares, atol=1e-14)

"""Writers against dense float64 least squares, LSMR, and what must never be touched."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from mome_jax.index import NULL, Selection
from mome_jax.writing import MOST_IN_A_BLOCK, Written, _checked, compacted, project, read_batch, solve_block, step_limit

WIDTH, RANKS = 3, 4


def _selection(facts: int, experts: int, seed: int, k: int = RANKS) -> Selection:
    draws = np.random.default_rng(seed)
    chosen = np.stack([draws.choice(experts, k, replace=False) for _ in range(facts)]).astype(np.int32)
    weights = (1.0 + draws.random((facts, k))).astype(np.float32)
    return Selection(jnp.asarray(chosen), jnp.asarray(weights / weights.sum(axis=1, keepdims=True)))


def _targets(facts: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1000).normal(size=(facts, WIDTH)).astype(np.float32)


def _values(experts: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 2000).normal(size=(experts, WIDTH)).astype(np.float32)


def _dense(selection: Selection, experts: int) -> np.ndarray:
    """S in float64, with repeated experts added up."""
    facts = len(selection.experts)
    matrix = np.zeros((facts, experts))
    np.add.at(matrix, (np.arange(facts)[:, None], np.asarray(selection.experts)), np.asarray(selection.weights))
    return matrix


def _least_norm_change(selection: Selection, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    matrix = _dense(selection, len(values))
    return np.linalg.lstsq(matrix, targets - matrix @ values, rcond=1e-10)[0]


_WRITERS = {"conjugate": functools.partial(project, passes=1000, tolerance=1e-5), "block": solve_block}


@pytest.mark.parametrize("writer", _WRITERS)
@pytest.mark.parametrize("load", [0.01, 0.25, 0.5, 0.75])
def test_every_load_is_met_by_the_least_norm_change(writer: str, load: float) -> None:
    experts, facts = 512, int(512 * load)
    selection, values, targets = _selection(facts, experts, 1, k=8), _values(experts, 1), _targets(facts, 1)
    written = _WRITERS[writer](jnp.asarray(values), selection, targets)
    assert written.residuals.max() <= 1e-5
    wanted = _least_norm_change(selection, values, targets)
    change = np.asarray(written.values, np.float64) - values
    np.testing.assert_allclose(change, wanted, atol=2e-4 * abs(wanted).max())
    assert np.linalg.norm(change) <= (1 + 1e-4) * np.linalg.norm(wanted)


def test_the_solver_agrees_with_lsmr_on_near_identical_rows() -> None:
    selection = _selection(64, 128, 3, k=8)
    weights = np.asarray(selection.weights).copy()
    chosen = np.asarray(selection.experts).copy()
    chosen[32:], weights[32:] = chosen[:32], weights[:32] * (1 + 0.03 * np.random.default_rng(4).normal(size=(32, 8)))
    selection = Selection(jnp.asarray(chosen), jnp.asarray(weights.astype(np.float32)))
    matrix = scipy.sparse.csr_array(_dense(selection, 128))
    assert np.linalg.cond(matrix.toarray()) > 100
    targets = _targets(64, 3)
    written = project(jnp.zeros((128, WIDTH)), selection, targets, tolerance=1e-3, passes=2000)
    assert written.residuals.max() <= 1e-3
    for column in range(WIDTH):
        other = scipy.sparse.linalg.lsmr(matrix, targets[:, column].astype(float), atol=1e-12, btol=1e-12, maxiter=9999)
        np.testing.assert_allclose(written.values[:, column], other[0], atol=1e-3 * abs(other[0]).max())


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["conjugate", "block"]))
def test_duplicates_null_and_foreign_ids_are_exact(seed: int, writer: str) -> None:
    draws = np.random.default_rng(seed)
    chosen = draws.integers(NULL, 24, (8, RANKS)).astype(np.int32)  # repeats within a row, repeats of rows, nulls
    chosen[7] = chosen[6]
    weights = (0.2 + draws.random((8, RANKS))).astype(np.float32)
    weights[7] = weights[6]
    targets = _targets(8, seed)
    targets[7] = targets[6]
    chosen[5] = draws.choice([NULL, -2, 24, 2**31 - 1], RANKS)
    values = _values(24, seed)
    written = _WRITERS[writer](jnp.asarray(values), Selection(jnp.asarray(chosen), jnp.asarray(weights)), targets)
    good = ((chosen >= NULL) & (chosen < 24)).all(axis=1)
    assert np.isnan(written.residuals[~good]).all()
    real = good & (chosen != NULL).any(axis=1)
    kept = np.where(chosen == NULL, 24, chosen)[real]
    padded = np.concatenate([values, np.zeros((1, WIDTH), np.float32)])
    matrix = _dense(Selection(jnp.asarray(kept), jnp.asarray(weights[real])), 25)[:, :24]
    change = np.asarray(written.values, np.float64) - values
    wanted = np.linalg.lstsq(matrix, targets[real] - matrix @ values, rcond=1e-10)[0]
    untouched = np.setdiff1d(np.arange(24), kept)
    assert (change[untouched] == 0).all()
    if (matrix.shape[0] == 0) or np.linalg.cond(matrix) > 1e9 or _smallest_positive(matrix) > 0.03:
        np.testing.assert_allclose(change, wanted, atol=5e-3 * max(1.0, abs(wanted).max()))
    assert padded[24].max() == 0.0


def _smallest_positive(matrix: np.ndarray) -> float:
    values = np.linalg.svd(matrix, compute_uv=False)
    return values[values > 1e-9].min()


@pytest.mark.parametrize("writer", _WRITERS)
def test_impossible_facts_are_reported_and_the_others_are_written(writer: str) -> None:
    selection, targets = _selection(20, 200, 5), _targets(20, 5)
    chosen, weights = np.asarray(selection.experts).copy(), np.asarray(selection.weights).copy()
    chosen[1], weights[1] = chosen[0], weights[0]
    selection = Selection(jnp.asarray(chosen), jnp.asarray(weights))
    written = _WRITERS[writer](jnp.zeros((200, WIDTH)), selection, targets)
    half = abs(targets[0] - targets[1]).max() / 2
    np.testing.assert_allclose(written.residuals[:2], half, rtol=1e-3)
    assert written.residuals[2:].max() < 1e-3 * half
    assert written.passes < 60


def test_facts_that_hold_already_cost_nothing_and_do_not_move() -> None:
    selection, targets = _selection(30, 4000, 7), _targets(30, 7)
    first = project(jnp.zeros((4000, WIDTH)), selection, targets, tolerance=1e-4)
    assert first.residuals.max() <= 1e-4
    before = np.asarray(first.values)
    again = project(first.values, selection, targets, tolerance=1e-4)
    assert again.passes == 0
    assert (np.asarray(again.values) == before).all()
    changed = targets.copy()
    changed[3] += 1.0
    third = project(again.values, selection, changed, tolerance=1e-4)
    assert third.residuals.max() <= 1e-4
    moved = (np.asarray(third.values) != before).any(axis=1)
    assert set(np.flatnonzero(moved)) == set(np.asarray(selection.experts)[3].tolist())


def test_the_buffer_of_the_values_is_used_again() -> None:
    values = jnp.zeros((4000, WIDTH))
    project(values, _selection(30, 4000, 7), _targets(30, 7))
    assert values.is_deleted()


def test_fixed_steps_converge_below_the_limit_at_least_at_the_proved_rate_and_diverge_above() -> None:
    facts, experts = 48, 128
    selection, targets = _selection(facts, experts, 9), _targets(facts, 9)
    rows = _dense(selection, experts)
    norms = np.linalg.norm(rows, axis=1)
    singular = np.linalg.svd(rows / norms[:, None], compute_uv=False)
    limit = step_limit(selection, experts, iterations=300)
    assert limit == pytest.approx(2 / singular[0] ** 2, rel=1e-3)
    rate = 1 - singular[-1] ** 2 / singular[0] ** 2
    start = np.linalg.norm(targets / norms[:, None], axis=0)
    for passes in (1, 10, 40):
        written = project(jnp.zeros((experts, WIDTH)), selection, targets, step=limit / 2, tolerance=0.0, passes=passes)
        assert written.passes == passes
        rest = targets - rows @ np.asarray(written.values, np.float64)
        assert (np.linalg.norm(rest / norms[:, None], axis=0) <= (1 + 1e-3) * rate**passes * start).all()
    wild = project(jnp.zeros((experts, WIDTH)), selection, targets, step=1.2 * limit, passes=60)
    assert wild.residuals.max() > abs(targets).max()
    conjugate = project(jnp.zeros((experts, WIDTH)), selection, targets)
    steady = project(jnp.zeros((experts, WIDTH)), selection, targets, step=limit / 2, passes=2000)
    assert conjugate.residuals.max() <= 1e-4 >= steady.residuals.max()
    assert conjugate.passes < steady.passes / 2


def test_a_step_of_one_pass_is_the_formula() -> None:
    selection, values, targets = _selection(20, 64, 11), _values(64, 11), _targets(20, 11)
    rows = _dense(selection, 64)
    scaled = (targets - rows @ values) / (rows**2).sum(axis=1, keepdims=True)
    written = project(jnp.asarray(values), selection, targets, step=0.7, passes=1)
    np.testing.assert_allclose(written.values, values + 0.7 * rows.T @ scaled, atol=1e-5)


def test_nothing_to_write_writes_nothing() -> None:
    nothing = Selection(jnp.zeros((0, RANKS), jnp.int32), jnp.zeros((0, RANKS)))
    for writer in _WRITERS.values():
        written = writer(jnp.ones((8, WIDTH)), nothing, np.zeros((0, WIDTH), np.float32))
        assert isinstance(written, Written)
        assert (np.asarray(written.values) == 1.0).all()
        assert written.residuals.shape == (0,)
    null = Selection(jnp.full((1, RANKS), NULL, jnp.int32), jnp.full((1, RANKS), 0.25))
    for writer in _WRITERS.values():
        written = writer(jnp.ones((8, WIDTH)), null, np.full((1, WIDTH), 2.0, np.float32))
        assert (np.asarray(written.values) == 1.0).all()
        assert written.residuals.tolist() == [2.0]


def test_a_compacted_system_is_the_matrix() -> None:
    selection = _selection(20, 64, 13)
    system = compacted(np.asarray(selection.experts), np.asarray(selection.weights), 64)
    rebuilt = np.zeros((20, 65))
    scaled = np.asarray(system.weights * system.norms[:, None])[:20]
    np.add.at(rebuilt, (np.arange(20)[:, None], np.asarray(system.experts)[np.asarray(system.places)[:20]]), scaled)
    np.testing.assert_allclose(rebuilt[:, :64], _dense(selection, 64), atol=1e-6)
    held = np.asarray(read_batch(jnp.asarray(_values(64, 1)), selection.experts, selection.weights))
    np.testing.assert_allclose(held, rebuilt[:, :64] @ _values(64, 1), atol=1e-5)


def test_what_does_not_fit_is_refused_with_the_number() -> None:
    selection, targets = _selection(4, 16, 1), _targets(4, 1)
    with pytest.raises(ValueError, match="each of the 3 facts"):
        project(jnp.zeros((16, WIDTH)), selection, targets[:3])
    with pytest.raises(ValueError, match="width 3, the values 5"):
        _checked(jnp.zeros((16, 5)), selection, targets)
    with pytest.raises(ValueError, match="got bfloat16"):
        _checked(jnp.zeros((16, WIDTH), jnp.bfloat16), selection, targets)
    with pytest.raises(ValueError, match="got -1"):
        project(jnp.zeros((16, WIDTH)), selection, targets, step=-1.0)
    many = MOST_IN_A_BLOCK + 1
    large = Selection(jnp.zeros((many, 1), jnp.int32), jnp.ones((many, 1)))
    with pytest.raises(ValueError, match="got 4097"):
        solve_block(jnp.zeros((16, WIDTH)), large, np.zeros((many, WIDTH), np.float32))

"""Edits of single facts: met, least of all, predicted, protected, undone bit for bit; and the index of readers."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mome_jax.disk import DiskBank
from mome_jax.editing import InMemory, _put, apply, change, delete, insert, undo
from mome_jax.fact_rows import FactRows
from mome_jax.index import NULL, Selection

_EXPERTS, _WIDTH, _CHOSEN = 24, 3, 3


class OnHost:
    """The smallest bank that can be edited, in float64, so that only the algebra is tested."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @property
    def experts(self) -> int:
        return self.values.shape[0]

    def read_rows(self, experts: np.ndarray) -> np.ndarray:
        return self.values[experts]

    def write_rows(self, experts: np.ndarray, rows: np.ndarray) -> None:
        self.values[experts] = rows


def _bits(array) -> bytes:
    return np.asarray(array).tobytes()


def _world(seed: int, facts: int = 10, tokens: int = 2, experts: int = _EXPERTS) -> tuple[OnHost, FactRows]:
    """A bank and facts of one to `tokens` tokens on it, numbered 5, 6, ...; some choose the null expert."""
    random = np.random.default_rng(seed)
    owners = np.repeat(np.arange(facts) + 5, random.integers(1, tokens + 1, facts))
    ids = random.integers(0, experts, (owners.size, _CHOSEN))
    ids[random.random(ids.shape) < 0.05] = NULL
    shuffled = random.permutation(owners.size)
    selection = Selection(ids[shuffled].astype(np.int32), random.uniform(0.2, 1.0, ids.shape)[shuffled])
    return OnHost(random.normal(size=(experts, _WIDTH))), FactRows(owners[shuffled], selection)


def _dense(selection: Selection, experts: int = _EXPERTS) -> np.ndarray:
    matrix = np.zeros((selection.experts.shape[0], experts + 1))
    tokens = np.arange(matrix.shape[0])[:, None]
    np.add.at(matrix, (tokens, np.asarray(selection.experts)), np.asarray(selection.weights, np.float64))
    return matrix[:, :experts]  # the null expert's weights fell into the last column


def _outputs(bank, index: FactRows) -> dict[int, np.ndarray]:
    values = np.asarray(bank.values, np.float64)
    return {fact: _dense(index.selection(fact), values.shape[0]) @ values for fact in index.facts.tolist()}


seeds = st.integers(0, 999)


@given(seeds)
def test_a_change_is_the_least_norm_solution_and_says_who_moved(seed):
    bank, index = _world(seed)
    old_values, old = bank.values.copy(), _outputs(bank, index)
    targets = np.random.default_rng(seed + 1).normal(size=old[5].shape)
    edit = change(bank, index, 5, targets)
    assert _bits(bank.values) == _bits(old_values)  # planning writes nothing
    apply(edit, bank, index)
    own = _dense(index.selection(5))
    wanted = old_values + np.linalg.pinv(own, rcond=1e-6) @ (targets - old[5])
    np.testing.assert_allclose(bank.values, wanted, atol=1e-9)
    new = _outputs(bank, index)
    assert edit.missed == pytest.approx(np.linalg.norm(new[5] - targets, axis=1).max(), abs=1e-12)
    distances = {fact: np.linalg.norm(new[fact] - old[fact], axis=1).max() for fact in old if fact != 5}
    found = dict(zip(edit.moved.facts.tolist(), edit.moved.distances, strict=True))
    for fact, distance in distances.items():
        assert found.get(fact, 0.0) == pytest.approx(distance, abs=1e-9)
        if fact not in found:
            assert _bits(new[fact]) == _bits(old[fact])
    assert (edit.moved.distances <= edit.moved.at_most * (1 + 1e-9) + 1e-12).all()


@given(seeds)
def test_single_tokens_move_by_the_share_of_the_gram_matrix(seed):
    """|G_ij|/G_ii, exactly; and the control: the same change of the fact written on one row alone breaks the bound."""
    bank, index = _world(seed, tokens=1)
    rows = np.concatenate([_dense(index.selection(fact)) for fact in index.facts.tolist()])
    gram = rows @ rows.T
    if gram[0, 0] == 0.0:
        return
    old = rows @ bank.values
    edit = change(bank, index, 5, old[:1] + 1.0)
    found = dict(zip(edit.moved.facts.tolist(), edit.moved.shares, strict=True))
    shares = np.array([found.get(fact, 0.0) for fact in range(6, 15)])
    np.testing.assert_allclose(shares, np.abs(gram[0, 1:]) / gram[0, 0], atol=1e-9)
    apply(edit, bank, index)
    step = np.linalg.norm(np.ones(_WIDTH))
    moved = np.linalg.norm(rows @ bank.values - old, axis=1)[1:]
    np.testing.assert_allclose(moved, shares * step, atol=1e-9)


def test_an_edit_that_is_not_of_least_norm_breaks_the_bound():
    """The control of the bound: all of the change on the one row that the other fact reads, too."""
    selection = Selection(np.array([[0, 1], [1, 2]], np.int32), np.array([[0.8, 0.6], [0.6, 0.8]]))
    bank, index = OnHost(np.zeros((3, 1))), FactRows([0, 1], selection)
    edit = change(bank, index, 0, [[1.0]])
    assert edit.moved.at_most == pytest.approx([0.36])
    bank.values[1] = 1.0 / 0.6
    outputs = _outputs(bank, index)
    assert outputs[0] == pytest.approx(1.0)
    assert outputs[1][0, 0] > 2 * edit.moved.at_most[0]


@given(seeds, st.booleans())
def test_protected_facts_stay(seed, spread):
    bank, index = _world(seed, facts=6, experts=_EXPERTS)
    old = _outputs(bank, index)
    edit = change(bank, index, 5, old[5] + 1.0, protected=[7, 8], spread=spread)
    old_values = bank.values.copy()
    apply(edit, bank, index)
    new = _outputs(bank, index)
    for fact in (7, 8):
        np.testing.assert_allclose(new[fact], old[fact], atol=1e-8)
    assert edit.protected_distance <= 1e-8
    assert (edit.moved.distances <= edit.moved.at_most * (1 + 1e-9) + 1e-9).all()
    # beside the dense system with the same rows: least norm where both can be met
    own, held = _dense(index.selection(5)), np.concatenate([_dense(index.selection(fact)) for fact in (7, 8)])
    free = own.any(axis=0)
    if spread:
        free |= held[held[:, free].any(axis=1)].any(axis=0)
    system = np.concatenate([own, held])[:, free]
    asked = np.concatenate([np.ones_like(old[5]), np.zeros((held.shape[0], _WIDTH))])
    solution = np.linalg.lstsq(system, asked, rcond=1e-9)[0]
    if np.abs(system @ solution - asked).max() < 1e-9 and np.linalg.cond(system) < 1e4:
        assert edit.missed < 1e-7
        np.testing.assert_allclose(bank.values[free] - old_values[free], solution, atol=1e-7)
    elif np.abs(system @ solution - asked).max() > 1e-3:
        assert edit.missed > 1e-4


def test_what_protection_forbids_is_reported_and_spread_allows_it():
    """Both facts read rows 0 and 1 only in the same proportion, but the protected one has a row of its own, too."""
    selection = Selection(np.array([[0, 1, NULL], [0, 1, 2]], np.int32), np.array([[0.6, 0.8, 0.0], [0.6, 0.8, 0.5]]))
    bank, index = OnHost(np.zeros((3, 1))), FactRows([0, 1], selection)
    kept = change(bank, index, 0, [[1.0]], protected=[1])
    assert kept.missed == 1.0
    assert _bits(kept.after) == _bits(kept.before)
    spread = change(bank, index, 0, [[1.0]], protected=[1], spread=True)
    assert spread.missed < 1e-12
    assert spread.protected_distance < 1e-12
    assert spread.experts.tolist() == [0, 1, 2]


@settings(max_examples=20)
@given(seeds, st.sampled_from([jnp.float32, jnp.bfloat16]))
def test_undo_restores_the_bits_of_a_bank_on_the_device(seed, dtype):
    host, index = _world(seed)
    random = np.random.default_rng(seed)
    bank = InMemory(jnp.asarray(host.values, dtype))
    first = {"bits": _bits(bank.values), "facts": index.facts.tolist()}
    added = Selection(jnp.array([[1, 2, 3], [3, 4, -1]]), jnp.array([[0.5, 0.3, 0.2], [0.5, 0.25, 0.25]]))
    plans = [
        lambda: insert(bank, index, 99, added, random.normal(size=(2, _WIDTH)), protected=[8]),
        lambda: change(bank, index, 99, random.normal(size=(2, _WIDTH))),
        lambda: delete(bank, index, 6, protected=[7], spread=True),
        lambda: delete(bank, index, 99),
    ]
    done, seen = [], []
    for plan in plans:
        seen.append(_bits(bank.values))
        done.append(plan())
        old = _outputs(bank, index)
        apply(done[-1], bank, index)
        new = _outputs(bank, index)
        moved = dict(zip(done[-1].moved.facts.tolist(), done[-1].moved.at_most, strict=True))
        for fact in set(old) & set(new) - {done[-1].fact}:
            assert np.linalg.norm(new[fact] - old[fact], axis=1).max() <= moved.get(fact, 0.0) * (1 + 1e-9) + 1e-12
    assert 99 not in index
    assert 6 not in index
    if dtype == jnp.float32:
        assert all(edit.missed < 1e-4 for edit in (done[1], done[3]))
    for edit, bits in zip(reversed(done), reversed(seen), strict=True):
        undo(edit, bank, index)
        assert _bits(bank.values) == bits
    assert {"bits": _bits(bank.values), "facts": index.facts.tolist()} == first


def test_the_buffer_of_the_bank_is_written_in_place():
    values = jnp.zeros((1024, 2))
    bank = InMemory(values)
    bank.write_rows(np.array([3]), np.ones((1, 2), np.float32))
    assert values.is_deleted()
    assert np.flatnonzero(np.asarray(bank.values).any(axis=1)).tolist() == [3]


def test_a_bank_on_disk_is_edited_and_undone(tmp_path):
    host, index = _world(4)
    values = host.values.astype(np.float32)
    with DiskBank.store(tmp_path / "bank.safetensors", values) as bank:
        edit = change(bank, index, 5, np.ones_like(_outputs(host, index)[5]), protected=[6], spread=True)
        apply(edit, bank, index)
        now = bank.read_rows(np.arange(_EXPERTS))
        np.testing.assert_allclose(_dense(index.selection(5)) @ now, 1.0, atol=1e-5)
        held = _dense(index.selection(6))
        np.testing.assert_allclose(held @ now, held @ values, atol=1e-5)
        undo(edit, bank, index)
        assert _bits(bank.read_rows(np.arange(_EXPERTS))) == _bits(values)


def test_a_deleted_fact_reads_zero_and_is_forgotten():
    bank, index = _world(0)
    selection = index.selection(9)
    apply(delete(bank, index, 9), bank, index)
    np.testing.assert_allclose(_dense(selection) @ bank.values, 0.0, atol=1e-12)
    assert 9 not in index
    with pytest.raises(ValueError, match="no fact 9"):
        delete(bank, index, 9)


def test_stale_edits_are_refused():
    bank, index = _world(1)
    first, second = (change(bank, index, 5, np.full_like(_outputs(bank, index)[5], value)) for value in (1.0, 2.0))
    apply(first, bank, index)
    bits = _bits(bank.values)
    with pytest.raises(ValueError, match="written meanwhile"):
        apply(second, bank, index)
    with pytest.raises(ValueError, match="written meanwhile"):
        undo(second, bank, index)
    gone = delete(bank, index, 6)
    apply(gone, bank, index)
    undo(gone, bank, index)
    with pytest.raises(ValueError, match="inserted or deleted"):
        undo(gone, bank, index)
    assert _bits(bank.values) == bits


def test_what_cannot_be_edited_is_refused_in_words():
    bank, index = _world(2)
    one = Selection(np.array([[0, 1, _EXPERTS]], np.int32), np.ones((1, 3)))
    narrow = Selection(np.array([[0]], np.int32), np.ones((1, 1)))
    for call, message in [
        (lambda: insert(bank, index, 5, one, np.zeros((1, 3))), "fact 5 is indexed"),
        (lambda: insert(bank, index, 99, one, np.zeros((1, 3))), f"expert {_EXPERTS} of a bank"),
        (lambda: insert(bank, index, 99, narrow, np.zeros((1, 3))), r"\[t 3\]"),
        (lambda: change(bank, index, 5, np.zeros((7, 3))), "targets"),
        (lambda: change(bank, index, 5, np.full_like(_outputs(bank, index)[5], np.nan)), "finite"),
        (lambda: change(bank, index, 5, _outputs(bank, index)[5], protected=[5]), "protected from its own"),
        (lambda: change(bank, index, 5, _outputs(bank, index)[5], protected=[77]), "no fact 77"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_impossible_tokens_of_one_fact_are_missed_by_what_they_differ():
    selection = Selection(np.array([[0, 1], [1, 0]], np.int32), np.array([[0.6, 0.8], [0.8, 0.6]]))
    bank, index = OnHost(np.zeros((2, 1))), FactRows([0, 0], selection)
    assert change(bank, index, 0, [[1.0], [0.0]]).missed == pytest.approx(0.5)


@settings(max_examples=30)
@given(seeds)
def test_the_index_of_readers_stays_right_through_inserts_and_deletes(seed):
    random = np.random.default_rng(seed)
    _, index = _world(seed)
    kept = {fact: index.selection(fact) for fact in index.facts.tolist()}
    for _ in range(30):
        fact = int(random.integers(0, 25))
        if fact in kept:
            index.delete(fact)
            del kept[fact]
        else:
            ids = random.integers(-1, _EXPERTS, (int(random.integers(1, 3)), _CHOSEN)).astype(np.int32)
            kept[fact] = Selection(ids, random.random(ids.shape))
            index.insert(fact, kept[fact])
        rows = random.integers(0, _EXPERTS, 4)
        assert index.readers(rows) == sorted(f for f, each in kept.items() if np.isin(each.experts, rows).any())
        assert index.facts.tolist() == sorted(kept)
        assert len(index) == len(kept)


def test_many_changes_are_sorted_into_the_index(monkeypatch):
    monkeypatch.setattr("mome_jax.fact_rows._CHANGED_LEAST", 4)
    _, index = _world(3)
    kept = {fact: index.selection(fact) for fact in index.facts.tolist()}
    before = index.bytes
    for fact in range(100, 140):
        kept[fact] = Selection(np.full((2, 3), fact % _EXPERTS, np.int32), np.ones((2, 3)))
        index.insert(fact, kept[fact])
    for fact in (5, 101, 139):
        index.delete(fact)
        del kept[fact]
    assert index.bytes > 2 * before
    assert index.facts.tolist() == sorted(kept)
    for fact, selection in kept.items():
        np.testing.assert_array_equal(index.selection(fact).experts, selection.experts)
        np.testing.assert_array_equal(index.selection(fact).weights, selection.weights)
    assert index.readers([104 % _EXPERTS]) == sorted(f for f, s in kept.items() if 104 % _EXPERTS in s.experts)


def test_edits_of_other_sizes_compile_little():
    bank = InMemory(jnp.zeros((512, 2)))
    bank.write_rows(np.arange(8), np.ones((8, 2), np.float32))
    compiled = _put._cache_size()
    for count in (1, 2, 5, 7):
        bank.write_rows(np.arange(count), np.zeros((count, 2), np.float32))
    assert _put._cache_size() == compiled

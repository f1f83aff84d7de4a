"""The filter of fingerprints: no stored one is ever rejected, others are accepted at the rate that was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mome_jax.cuckoo import _packed, _read, _unpacked, build_filter, contains, delete, empty_filter, insert
from mome_jax.gate import rate_interval

ask = jax.jit(jax.vmap(contains, in_axes=(None, 0)))


def _fingerprints(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, (n, 2), dtype=np.uint32)


@pytest.mark.parametrize(("rate", "bits_at_most"), [(0.1, 7.5), (0.01, 10.7), (0.001, 13.9)])
def test_false_acceptance_is_the_wanted_rate_at_the_stated_size(rate, bits_at_most):
    n, asked = 20_000, 200_000
    stored, others = _fingerprints(n, 1), _fingerprints(asked, 2)
    filter = build_filter(stored, rate)
    assert np.asarray(ask(filter, stored)).all()
    lower, upper = rate_interval(int(np.asarray(ask(filter, others)).sum()), asked, 0.999)
    assert lower <= rate <= upper
    assert filter.false_acceptance_rate == pytest.approx(rate, rel=2e-3)
    assert filter.false_acceptance_rate <= rate * (1 + 1e-9)
    assert filter.stored == n
    assert 8 * filter.bytes / n <= bits_at_most
    half = delete(filter, stored[: n // 2])
    assert np.asarray(ask(half, stored[n // 2 :])).all()
    lower, upper = rate_interval(int(np.asarray(ask(half, others)).sum()), asked, 0.999)
    assert lower <= half.false_acceptance_rate <= upper
    assert upper < rate
    assert half.stored == n - n // 2


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.003]))
def test_stored_fingerprints_survive_whatever_else_comes_and_goes(seed, rate):
    random = np.random.default_rng(seed)
    filter, stored = empty_filter(60, rate), np.zeros((0, 2), np.uint32)
    for step in range(6):
        if stored.shape[0] and random.random() < 0.5:
            gone = random.random(stored.shape[0]) < 0.5
            filter, stored = delete(filter, stored[gone]), stored[~gone]
        else:
            new = _fingerprints(min(20, 55 - stored.shape[0]), seed + step)
            filter, stored = insert(filter, new), np.concatenate([stored, new])
        padded = np.concatenate([stored, np.zeros((60 - stored.shape[0], 2), np.uint32)])
        assert np.asarray(ask(filter, padded))[: stored.shape[0]].all()
        assert filter.stored == stored.shape[0]
    filter = delete(filter, stored)
    assert not np.asarray(filter.words).any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.1, 0.01, 1e-4, 1e-8]))
def test_packing_is_undone_by_unpacking(seed, rate):
    filter = empty_filter(50, rate)
    tags = np.random.default_rng(seed).integers(0, filter.tags, 4 * filter.buckets, endpoint=True).astype(np.uint32)
    packed = _packed(filter, tags)
    np.testing.assert_array_equal(_unpacked(packed), tags)
    bits = "".join(format(int(word), "032b")[::-1] for word in np.asarray(packed.words))  # beside plain text
    assert [int(bits[at : at + filter.bits][::-1], 2) for at in range(0, filter.bits * tags.size, filter.bits)] == list(
        tags
    )
    assert int(_read(np.asarray(packed.words), np.uint32(tags.size - 1), filter.bits)) == tags[-1]


def test_one_question_is_one_answer():
    stored = _fingerprints(100, 3)
    filter = build_filter(stored, 1e-6)
    assert bool(jax.jit(contains)(filter, jnp.asarray(stored[17])))
    assert not bool(contains(filter, jnp.asarray(_fingerprints(1, 4)[0])))


def test_an_empty_filter_knows_nothing():
    filter = build_filter(np.zeros((0, 2), np.uint32), 0.01, capacity=100)
    assert not np.asarray(ask(filter, _fingerprints(1000, 5))).any()
    assert filter.false_acceptance_rate == 0.0


def test_equal_filters_are_built_in_any_process():
    stored = _fingerprints(500, 6)
    first, second = (build_filter(stored, 0.01) for _ in range(2))
    assert np.asarray(first.words).tobytes() == np.asarray(second.words).tobytes()


def test_what_the_filter_cannot_do_is_refused_in_words():
    stored = _fingerprints(50, 7)
    filter = build_filter(stored, 0.01)
    for call, message in [
        (lambda: empty_filter(10, 0.5), "must be in"),
        (lambda: empty_filter(0, 0.1), "capacity"),
        (lambda: empty_filter(2**31, 0.001), "bits"),
        (lambda: insert(filter, stored[[0, 1, 0]]), "fingerprint 2 of 3 equals"),
        (lambda: insert(filter, stored.astype(np.int32)), "uint32"),
        (lambda: insert(filter, _fingerprints(500, 8)), "full"),
        (lambda: delete(filter, _fingerprints(1, 9)), "fingerprint 0 is not in the filter"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_copies_are_counted_until_two_buckets_are_full():
    one = _fingerprints(1, 10)
    filter = empty_filter(100, 0.01)
    for _ in range(8):
        filter = insert(filter, one)
    with pytest.raises(ValueError, match="full"):
        insert(filter, one)
    for _ in range(8):
        assert bool(contains(filter, jnp.asarray(one[0])))
        filter = delete(filter, one)
    assert not bool(contains(filter, jnp.asarray(one[0])))

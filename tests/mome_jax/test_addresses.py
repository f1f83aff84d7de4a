"""Fingerprints and exact addresses against Python's own integers, and the uniformity of what they choose."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mome_jax.addresses import MAX_EXPERTS, ExactAddresses, MixedAddresses, _below, extend, fingerprints, start
from mome_jax.index import FlatKeys, select

_WORD = st.integers(0, 2**32 - 1)
_below_jitted = jax.jit(_below)
_fingerprints = jax.jit(fingerprints, static_argnames="seed")


@partial(jax.jit, static_argnames=("keys", "k"))
def _select(queries, keys, k):
    return jax.vmap(select, in_axes=(0, None, None))(queries, keys, k)


def _random_fingerprints(count: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2**32, (count, 2), dtype=np.uint32))


def _counted(fingerprints_array: jax.Array) -> int:
    """How many fingerprints differ."""
    return len(np.unique(np.asarray(fingerprints_array).reshape(-1, 2), axis=0))


@given(_WORD, _WORD, st.integers(1, MAX_EXPERTS))
def test_a_number_below_a_bound_is_the_128_bit_product_of_python(high: int, low: int, bound: int) -> None:
    found = _below_jitted(jnp.uint32(bound), jnp.uint32(high), jnp.uint32(low))
    assert int(found) == bound * (high << 32 | low) >> 64 < bound


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=8, max_size=8), st.integers(0, 7))
def test_a_fingerprint_depends_on_its_prefix_alone_and_can_be_extended(tokens: list[int], place: int) -> None:
    array = jnp.asarray(tokens, jnp.int32)
    whole = np.asarray(_fingerprints(array))
    changed = np.asarray(_fingerprints(array.at[place].add(1)))
    assert (whole[:place] == changed[:place]).all()
    assert (whole[place:] != changed[place:]).any(axis=1).all()
    before = start() if place == 0 else jnp.asarray(whole[place - 1])
    assert (np.asarray(extend(before, array[place])) == whole[place]).all()


def test_prefixes_never_share_a_fingerprint_unless_they_are_equal() -> None:
    counting = jnp.arange(2**16, dtype=jnp.int32)
    pairs = jnp.stack([counting // 256, counting % 256], axis=1)
    both = jax.vmap(fingerprints)(pairs)
    assert _counted(both[:, 1]) == 2**16
    assert _counted(both[:, 0]) == 256
    zeros = jax.vmap(partial(fingerprints, seed=3))(jnp.zeros((1, 4096), jnp.int32))
    assert _counted(zeros) == 4096
    assert _counted(jnp.stack([start(seed) for seed in (0, 1, 2**32, 2**63, 2**64 - 1)])) == 5


def test_one_changed_bit_changes_half_of_the_bits() -> None:
    tokens = np.random.default_rng(1).integers(0, 256, (512, 2)).astype(np.int32)
    for bit in (0, 7, 31):
        flipped = tokens.copy()
        flipped[:, 0] ^= np.int32(-(2**31)) if bit == 31 else np.int32(1 << bit)
        ours, theirs = (np.asarray(jax.vmap(fingerprints)(jnp.asarray(some)))[:, 1] for some in (tokens, flipped))
        rates = np.unpackbits((ours ^ theirs).view(np.uint8), axis=1).mean(axis=0)
        assert abs(rates - 0.5).max() < 5 * 0.5 / 512**0.5


@pytest.mark.parametrize(("experts", "k"), [(1, 1), (5, 4), (5, 5), (1000, 32), (MAX_EXPERTS, 4)])
def test_addresses_are_distinct_in_range_and_uniform_at_every_rank(experts: int, k: int) -> None:
    chosen, weights = map(np.asarray, _select(_random_fingerprints(4000), ExactAddresses(experts, 11), k))
    assert chosen.dtype == np.int32
    assert 0 <= chosen.min() <= chosen.max() < experts
    assert all(len(set(row)) == k for row in chosen.tolist())
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    assert (np.diff(weights, axis=1) <= 0).all()
    assert (weights[:, 0] <= 2 * weights[:, -1]).all()
    if k > 1:
        assert len(np.unique(weights)) > 0.9 * weights.size
    bins = min(experts, 50)
    for rank in {0, k - 1}:
        counts = np.bincount(chosen[:, rank].astype(np.int64) * bins // experts, minlength=bins)
        if bins > 1:
            assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-6


def test_every_pair_of_experts_is_equally_likely() -> None:
    chosen = np.sort(np.asarray(_select(_random_fingerprints(12000, 5), ExactAddresses(6), 2).experts), axis=1)
    counts = np.bincount(chosen[:, 0] * 6 + chosen[:, 1], minlength=36)
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    assert (counts > 0).sum() == 15


def test_neighboring_fingerprints_and_seeds_are_unrelated() -> None:
    counting = jnp.stack([jnp.zeros(4096, jnp.uint32), jnp.arange(4096, dtype=jnp.uint32)], axis=1)
    first, second = (np.asarray(_select(counting, ExactAddresses(2**20, seed), 4).experts) for seed in (0, 1))
    for one, other in ((first, second), (first[1:], first[:-1])):
        assert (one == other).mean() < 1e-3  # by chance 1e-6
    assert abs(np.corrcoef(first[1:, 0], first[:-1, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("k", [1, 4, 5])
def test_mixed_addresses_are_both_halves_with_their_shares(k: int) -> None:
    draws = np.random.default_rng(2)
    exact = ExactAddresses(64, 1)
    learned = FlatKeys(jnp.asarray(draws.normal(size=(64, 8)), jnp.float32))
    prints, vectors = _random_fingerprints(20), jnp.asarray(draws.normal(size=(20, 8)), jnp.float32)
    keys = MixedAddresses(exact, learned, share=0.8)
    mixed = jax.vmap(select, in_axes=(0, None, None))((prints, vectors), keys, k)
    assert keys.experts == 64
    assert (np.diff(mixed.weights, axis=1) <= 0).all()
    parts = [(_select(prints, exact, k - k // 2), 0.8 if k > 1 else 1.0)]
    parts += [(jax.vmap(select, in_axes=(0, None, None))(vectors, learned, k // 2), 0.2)] if k > 1 else []
    wanted, found, rows = np.zeros((20, 64)), np.zeros((20, 64)), np.arange(20)[:, None]
    for half, share in parts:
        np.add.at(wanted, (rows, np.asarray(half.experts)), share * np.asarray(half.weights, np.float64))
    np.add.at(found, (rows, np.asarray(mixed.experts)), np.asarray(mixed.weights, np.float64))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)


def test_impossible_addresses_are_refused_with_the_number() -> None:
    query = _random_fingerprints(1)[0]
    for experts in (0, MAX_EXPERTS + 1):
        with pytest.raises(ValueError, match=str(experts) if experts == 0 else "2147483648"):
            ExactAddresses(experts)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=str(seed)):
            ExactAddresses(4, seed)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"4 experts, got {k}"):
            ExactAddresses(4).select(query, k)
    learned = FlatKeys(jnp.eye(4))
    with pytest.raises(ValueError, match="got 8 and 4"):
        MixedAddresses(ExactAddresses(8), learned).select((query, jnp.ones(4)), 2)
    with pytest.raises(ValueError, match=r"got 1\.0"):
        MixedAddresses(ExactAddresses(4), learned, share=1.0).select((query, jnp.ones(4)), 2)


def test_addresses_are_pytrees_without_leaves_of_their_own() -> None:
    keys = MixedAddresses(ExactAddresses(4, 9), FlatKeys(jnp.eye(4)))
    assert len(jax.tree.leaves(keys)) == 1
    assert jax.tree.map(lambda leaf: leaf, keys).exact == ExactAddresses(4, 9)

"""Keyed random numbers: they depend on (seed, stream, index) alone, and have the distribution they claim."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sims.keyed import keyed_normals, keyed_order, keyed_permutation, keyed_uniforms, keyed_words, mix, text_hash

MASK = 2**64 - 1


def split_mix(counter: int) -> int:
    """The SplitMix64 finalizer on Python integers."""
    counter = (counter ^ (counter >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    counter = (counter ^ (counter >> 27)) * 0x94D049BB133111EB & MASK
    return counter ^ (counter >> 31)


def test_words_are_split_mix_outputs():
    """The published first outputs of SplitMix64 from state 1234567, by the independent mixer and through the module."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden = 0x9E3779B97F4A7C15
    assert [split_mix((1234567 + step * golden) & MASK) for step in (1, 2, 3)] == published
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(golden)
    assert mix(states).tolist() == published


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(1, 9))
def test_a_row_depends_on_its_index_only(seed, index, count):
    together = keyed_normals(seed, "a", np.array(index), count)
    alone = [keyed_normals(seed, "a", np.array([number]), count)[0] for number in index]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1001])
def test_fewer_are_a_prefix_of_more(size):
    for draw in (keyed_words, keyed_uniforms, keyed_normals):
        assert np.array_equal(draw(3, "a", np.arange(size), 33), draw(3, "a", np.arange(5000), 33)[:size])


def test_seeds_and_streams_differ():
    index = np.arange(1000)
    draws = [keyed_words(seed, stream, index, 1)[:, 0] for seed in (0, 1) for stream in ("a", "b")]
    assert len(np.unique(np.concatenate(draws))) == 4000


def test_distributions():
    """Kolmogorov-Smirnov and correlations on fixed draws: not random, so no flakes; a wrong law fails by far."""
    normals = keyed_normals(0, "check", np.arange(20_000), 8).astype(np.float64)
    assert stats.kstest(normals.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(keyed_uniforms(0, "check", np.arange(50_000), 1)[:, 0], "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(normals.T) - np.eye(8)).max() < 5 / np.sqrt(20_000)
    assert np.abs(np.corrcoef(normals[:-1, 0], normals[1:, 0])[0, 1]) < 5 / np.sqrt(20_000)
    assert np.abs(np.corrcoef(np.square(normals).T) - np.eye(8)).max() < 5 / np.sqrt(20_000)


@given(st.integers(0, 99), st.integers(1, 3000))
def test_permutation_is_a_bijection(seed, domain):
    images = keyed_permutation(seed, "a", np.arange(domain), domain)
    assert np.array_equal(np.sort(images), np.arange(domain))


def test_permutation_scatters_and_refuses_what_is_outside():
    images = keyed_permutation(0, "a", np.arange(20_000), 32**4)
    assert stats.kstest(images / 32**4, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(images[:-1], images[1:])[0, 1]) < 5 / np.sqrt(20_000)
    large = keyed_permutation(0, "a", np.array([0, 2**62 - 1]), 2**62)
    assert ((large >= 0) & (large < 2**62)).all()
    with pytest.raises(ValueError, match="range"):
        keyed_permutation(0, "a", np.array([5]), 5)
    with pytest.raises(ValueError, match="domain"):
        keyed_permutation(0, "a", np.array([0]), 2**63)


def test_order_is_a_permutation_that_the_seed_decides():
    orders = [keyed_order(seed, "a", 1000) for seed in (0, 0, 1)]
    assert all(np.array_equal(np.sort(order), np.arange(1000)) for order in orders)
    assert np.array_equal(orders[0], orders[1])
    assert (orders[0] == orders[2]).mean() < 0.02


@pytest.mark.parametrize("stream", ["order", "shuffled answers"])
def test_order_is_uniform_over_seeds(stream):
    """Each of the six orders of three equally often: what the capacity bound asks of permuted answers."""
    orders = [tuple(keyed_order(seed, stream, 3).tolist()) for seed in range(3000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_text_hash_tells_exact_texts_and_streams_apart():
    texts = ["Café", "Cafe\u0301", "café", "Café ", "Caf"]
    assert len({text_hash(text, stream) for text in texts for stream in ("question", "answer")}) == 10

"""Usage and balance, against NumPy and against the closed forms at the ends."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mome_jax.index import NULL, Selection
from mome_jax.usage import Usage, balance

EXPERTS = 9


def _selections(seed, batches=4):
    draw = np.random.default_rng(seed)
    experts = draw.choice([*range(6), NULL, EXPERTS, -2], size=(batches, 7, 3)).astype(np.int32)
    return Selection(jnp.asarray(experts), jnp.asarray(draw.random(experts.shape), jnp.float32))


def test_counts_over_batches_are_those_of_all_at_once():
    """In a scan, one by one, and added leaf by leaf; null and strange ids are counted apart."""
    selections = _selections(0)
    scanned, _ = jax.lax.scan(lambda usage, one: (usage.add(one), None), Usage.none(EXPERTS), selections)
    parts = [Usage.none(EXPERTS).add(Selection(*one)) for one in zip(*selections, strict=True)]
    summed = jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]), *parts)
    experts, weights = (np.asarray(leaf).ravel() for leaf in selections)
    for usage in (scanned, summed):
        for expert in range(EXPERTS):
            assert usage.counts[expert] == np.sum(experts == expert)
            np.testing.assert_allclose(usage.weights[expert], weights[experts == expert].sum(), rtol=1e-5)
        assert usage.null == np.sum(experts == NULL) > 0
        assert usage.out_of_range == np.sum((experts == EXPERTS) | (experts == -2)) > 0
        assert usage.counts.sum() + usage.null + usage.out_of_range == experts.size


def test_one_selection_and_none():
    one = Usage.none(EXPERTS).add(Selection(jnp.array([3, 3], jnp.int32), jnp.array([0.5, 0.25])))
    assert one.counts[3] == 2
    assert one.weights[3] == 0.75
    none = Usage.none(EXPERTS).add(Selection(jnp.zeros((0, 2), jnp.int32), jnp.zeros((0, 2))))
    assert none.counts.sum() == 0


@pytest.mark.parametrize("used", [1, 3, EXPERTS])
def test_even_use_of_some_experts(used):
    even = balance(np.repeat([5, 0], [used, EXPERTS - used]))
    wanted = (used / EXPERTS, math.log(EXPERTS / used), EXPERTS / used, used)
    np.testing.assert_allclose(even, wanted, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=40).filter(any))
def test_balance_is_between_its_ends(counts):
    found = balance(np.array(counts))
    size = len(counts)
    assert 0 <= found.kl_nats <= math.log(size) + 1e-12
    assert 1 - 1e-12 <= found.effective_number <= size * found.share_used + 1e-9
    assert 1 - 1e-12 <= found.maximum_load <= size
    assert found.effective_number >= size / found.maximum_load - 1e-9  # entropy is at least min-entropy
    np.testing.assert_allclose(found.effective_number, size * math.exp(-found.kl_nats), rtol=1e-12)
    np.testing.assert_allclose(balance(np.array(counts)[::-1] * 3), found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [1.0, float("nan")]])
def test_what_is_no_count_is_refused(counts):
    with pytest.raises(ValueError, match="balance is that of counts"):
        balance(np.array(counts))

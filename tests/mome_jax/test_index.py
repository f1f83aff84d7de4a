"""Keys: product keys against flat keys, gradients, batching, heads, whitening, the null expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mome_jax import lookup
from mome_jax.index import NULL, FlatKeys, Heads, Keys, ProductKeys, Softmax, Whitened, select
from mome_jax.whitening import Moments, Whitening

P, Q, WIDTH, K = 6, 9, 8, 5
BATCH = 24  # enough for the search over columns

PRODUCT = ProductKeys.create(jax.random.key(0), (P, Q), WIDTH)
QUERIES = 3 * jax.random.normal(jax.random.key(1), (BATCH, WIDTH), jnp.float32)


def composed(keys: ProductKeys) -> FlatKeys:
    """The same keys, one per expert."""
    first = jnp.repeat(keys.first, keys.second.shape[0], axis=0)
    return FlatKeys(jnp.concatenate([first, jnp.tile(keys.second, (keys.first.shape[0], 1))], axis=1), keys.softmax)


def select_each(queries: jax.Array, keys: Keys, k: int = K):
    return jax.vmap(select, (0, None, None))(queries, keys, k)


def one_after_another(queries: jax.Array, keys: Keys, k: int = K):
    return jax.tree.map(lambda *parts: jnp.stack(parts), *[select(query, keys, k) for query in queries])


def assert_same(found, expected):
    np.testing.assert_array_equal(found.experts, expected.experts)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [K, P * Q])
def test_product_keys_are_flat_keys_composed(k):
    assert_same(select_each(QUERIES, PRODUCT, k), select_each(QUERIES, composed(PRODUCT), k))


def test_one_query_and_a_batch_agree():
    assert_same(select_each(QUERIES, PRODUCT), one_after_another(QUERIES, PRODUCT))
    assert_same(select_each(QUERIES, composed(PRODUCT)), one_after_another(QUERIES, composed(PRODUCT)))


def test_vmap_is_one_search_for_all(monkeypatch):
    """However deep the vmap, the search sees one matrix of queries; with keys of their own, queries stay apart."""
    seen = []
    whole = lookup._products
    monkeypatch.setattr(
        lookup, "_products", lambda left, right: seen.append((left.shape, right.shape)) or whole(left, right)
    )
    queries = QUERIES.reshape(2, 12, WIDTH)
    lookup.product.clear_cache()
    twice = jax.vmap(select_each, (0, None))(queries, PRODUCT)
    assert ((P, WIDTH // 2), (BATCH, WIDTH // 2)) in seen
    assert twice.experts.shape == (2, 12, K)
    assert_same(jax.tree.map(lambda part: part.reshape(BATCH, K), twice), select_each(QUERIES, PRODUCT))
    others = jax.tree.map(lambda part: jnp.stack([part, -part]), PRODUCT)
    apart = jax.vmap(select_each)(queries, others)
    for number in range(2):
        keys = jax.tree.map(lambda part, number=number: part[number], others)
        assert_same(jax.tree.map(lambda part, number=number: part[number], apart), select_each(queries[number], keys))


def _reading(query, keys, values):
    chosen = select(query, keys, K)
    return jnp.sum(jnp.sin(chosen.weights * values[chosen.experts]))


def test_gradients_are_those_of_the_composed_keys():
    """To queries and keys, through jit, vmap and grad, against flat keys scored without any search."""
    values = jax.random.normal(jax.random.key(2), (P * Q,), jnp.float32)

    def total(queries, keys):
        return jnp.sum(jax.vmap(_reading, (0, None, None))(queries, keys, values))

    def by_hand(queries, keys):
        scores, experts = jax.lax.top_k(queries @ keys.keys.T, K)
        return jnp.sum(jnp.sin(jax.nn.softmax(scores) * values[experts]))

    flat = composed(PRODUCT)
    to_queries, to_keys = jax.grad(by_hand, (0, 1))(QUERIES, flat)
    product_queries, product_keys = jax.jit(jax.grad(total, (0, 1)))(QUERIES, PRODUCT)
    flat_queries, flat_keys = jax.jit(jax.grad(total, (0, 1)))(QUERIES, flat)
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(flat_queries, to_queries, **close)
    np.testing.assert_allclose(flat_keys.keys, to_keys.keys, **close)
    np.testing.assert_allclose(product_queries, to_queries, **close)
    summed = np.asarray(to_keys.keys).reshape(P, Q, WIDTH)
    np.testing.assert_allclose(product_keys.first, summed.sum(axis=1)[:, : WIDTH // 2], **close)
    np.testing.assert_allclose(product_keys.second, summed.sum(axis=0)[:, WIDTH // 2 :], **close)
    alone = jax.grad(_reading)(QUERIES[0], PRODUCT, values)
    np.testing.assert_allclose(alone, to_queries[0], **close)


def test_forward_and_reverse_derivatives_agree():
    values = jnp.arange(P * Q, dtype=jnp.float32)
    along = jnp.ones(WIDTH, jnp.float32)
    _, moved = jax.jvp(lambda query: _reading(query, PRODUCT, values), (QUERIES[0],), (along,))
    np.testing.assert_allclose(moved, jax.grad(_reading)(QUERIES[0], PRODUCT, values) @ along, rtol=1e-4)


@pytest.mark.parametrize("keys", [PRODUCT, composed(PRODUCT)], ids=["product", "flat"])
def test_nothing_is_compiled_twice(keys):
    search = jax.jit(lambda queries, keys: select_each(queries, keys))
    for shift in range(3):
        search(QUERIES + shift, keys)
    assert search._cache_size() == 1


def test_temperature_sharpens_and_chooses_the_same():
    cold = ProductKeys(PRODUCT.first, PRODUCT.second, Softmax(temperature=0.1))
    chosen, sharpened = select_each(QUERIES, PRODUCT), select_each(QUERIES, cold)
    np.testing.assert_array_equal(chosen.experts, sharpened.experts)
    powers = np.asarray(chosen.weights, np.float64) ** 10
    np.testing.assert_allclose(sharpened.weights, powers / powers.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6)


def test_null_takes_its_share_of_the_softmax():
    keys = FlatKeys(jnp.eye(3, dtype=jnp.float32), Softmax(null=jnp.float32(2.0)))
    chosen = select(jnp.array([1.0, 2.0, 3.0]), keys, 2)
    np.testing.assert_array_equal(chosen.experts, [2, 1, NULL])
    np.testing.assert_allclose(chosen.weights, np.exp([3, 2, 2]) / np.exp([3, 2, 2]).sum(), rtol=1e-6)
    slope = jax.grad(lambda keys: select(jnp.array([1.0, 2.0, 3.0]), keys, 2).weights[-1])(keys).softmax.null
    assert slope > 0  # it can be trained


def test_heads_are_one_after_another_and_their_reading_is_the_mean():
    other = ProductKeys.create(jax.random.key(3), (P, Q), WIDTH)
    heads = Heads((PRODUCT, other))
    queries = jnp.stack([QUERIES, -QUERIES], axis=1)
    chosen, first, second = select_each(queries, heads), select_each(QUERIES, PRODUCT), select_each(-QUERIES, other)
    np.testing.assert_array_equal(chosen.experts, np.concatenate([first.experts, second.experts], axis=1))
    values = np.arange(P * Q, dtype=np.float32)
    means = [(values[one.experts] * one.weights).sum(axis=1) for one in (first, second)]
    np.testing.assert_allclose((values[chosen.experts] * chosen.weights).sum(axis=1), sum(means) / 2, rtol=1e-5)
    assert heads.experts == P * Q


def test_heads_of_different_banks_and_too_few_queries_are_refused():
    with pytest.raises(ValueError, match=r"banks of \[3, 54\] experts"):
        _ = Heads((PRODUCT, FlatKeys(jnp.ones((3, WIDTH))))).experts
    with pytest.raises(ValueError, match="1 queries for 2 heads"):
        select(QUERIES[:1], Heads((PRODUCT, PRODUCT)), 2)


@pytest.mark.parametrize(
    ("experts", "sides"), [(1, (1, 1)), (2**20, (1024, 1024)), (2**21, (1024, 2048)), (7, (1, 7)), (54, (6, 9))]
)
def test_create_finds_the_sides(experts, sides):
    keys = ProductKeys.create(jax.random.key(0), experts, 4)
    assert (len(keys.first), len(keys.second)) == sides
    assert keys.experts == experts


def test_create_refuses_what_has_no_sides():
    with pytest.raises(ValueError, match=r"100,003 experts are at best 1 x 100,003 keys: choose 100,004 \(92 x 1087\)"):
        ProductKeys.create(jax.random.key(0), 100_003, 4)
    for experts in (0, 2**31 + 1, (2**16, 2**16), (0, 4)):
        with pytest.raises(ValueError, match=r"at most|choose from 1"):
            ProductKeys.create(jax.random.key(0), experts, 4)
    with pytest.raises(ValueError, match="width from 2 up"):
        ProductKeys.create(jax.random.key(0), 16, 1)


def test_scores_of_created_keys_have_unit_variance():
    keys = ProductKeys.create(jax.random.key(5), 2**12, 64)
    queries = jax.random.normal(jax.random.key(6), (200, 64), jnp.float32)
    assert float(jnp.std(queries @ composed(keys).keys.T)) == pytest.approx(1.0, abs=0.1)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0]))
def test_whitening_has_mean_zero_and_unit_covariance(seed, width, shrinkage):
    random = np.random.default_rng(seed)
    queries = random.normal(size=(50, width)) @ random.normal(size=(width, width)) + 10 * random.normal(size=width)
    whitening = Whitening.fit(queries, shrinkage)
    covariance = np.atleast_2d(np.cov(queries, rowvar=False))
    target = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / width * np.eye(width)
    matrix = np.asarray(whitening.matrix, np.float64)
    condition = np.linalg.cond(target)
    np.testing.assert_allclose(matrix @ target @ matrix.T, np.eye(width), atol=1e-6 * (1 + condition))
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-6)
    np.testing.assert_allclose(whitening.mean, queries.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_whitening_in_parts_is_whitening_at_once():
    queries = np.random.default_rng(0).normal(size=(100, 5)) + 1000
    moments = Moments.none(5)
    for part in np.split(queries, [0, 1, 30, 99]):
        moments = moments.add(part)
    parts, whole = Whitening.fit(moments, 0.1), Whitening.fit(queries, 0.1)
    np.testing.assert_allclose(parts.matrix, whole.matrix, rtol=1e-6)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-7)


def test_whitened_keys_see_whitened_queries():
    whitening = Whitening.fit(QUERIES, 0.1)
    chosen = select_each(QUERIES, Whitened(whitening, PRODUCT))
    assert_same(chosen, select_each(jax.vmap(whitening)(QUERIES), PRODUCT))
    assert Whitened(whitening, PRODUCT).experts == P * Q


def test_whitening_refuses_what_it_cannot_do():
    queries = np.random.default_rng(0).normal(size=(4, 9))
    with pytest.raises(ValueError, match="span fewer than 9 dimensions"):
        Whitening.fit(queries, shrinkage=0.0)
    for wrong, shrinkage in ((queries[:1], 0.1), (np.full((4, 9), np.nan), 0.1), (queries, 1.5)):
        with pytest.raises(ValueError, match=r"at least 2 finite|choose from 0 to 1"):
            Whitening.fit(wrong, shrinkage)
    with pytest.raises(ValueError, match="span fewer"):
        Whitening.fit(np.ones((5, 2)), 0.5)

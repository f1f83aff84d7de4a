"""The k largest, against a stable sort in NumPy: any k, any size, ties, NaN, infinities, few and many queries."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mome_jax import lookup
from mome_jax.lookup import MOST_EXPERTS, flat, product

FEW, MANY = 3, 40  # queries: rows sorted by lax.top_k, and columns by the network (on a CPU)


def sorted_by_hand(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row and their places; NaN counts as -inf, of equals the first comes first."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, ids, axis=1), ids


def composed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The P Q keys that product keys stand for."""
    return np.concatenate([np.repeat(first, len(second), axis=0), np.tile(second, (len(first), 1))], axis=1)


def whole_numbers(*shape: int, seed: int = 0, most: int = 3) -> np.ndarray:
    """Small integers: sums and products are exact, and many scores are equal."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.float32)


def assert_same(found: tuple[jax.Array, jax.Array], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


# Few shapes, since each is compiled: k of no power of two and of one, k = M, k = 1, odd numbers of rows.
COLUMNS = [(1, 1), (7, 7), (37, 1), (64, 8), (133, 12)]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1.0 + 2**-23, np.inf, -np.inf, np.nan, -np.nan, 3e38, -3e38, 2**-126]


@pytest.mark.parametrize(("rows", "k"), COLUMNS)
def test_columns_are_sorted_like_a_stable_sort(rows, k):
    select = jax.jit(lambda scores: lookup._largest_of_columns(scores, k))

    @settings(max_examples=25)
    @given(st.data())
    def agrees(data):
        kind = data.draw(st.sampled_from(["any", "equal", "special"]))
        random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        scores = random.normal(size=(rows, MANY)).astype(np.float32)
        if kind == "equal":
            scores = random.integers(0, data.draw(st.integers(1, 4)), (rows, MANY)).astype(np.float32)
        if kind == "special":
            scores = random.choice(np.array(SPECIAL, np.float32), (rows, MANY))
        values, ids = select(scores)
        assert_same((values.T, ids.T), sorted_by_hand(scores.T, k))

    agrees()


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize(("first", "second", "k"), [(5, 7, 6), (3, 40, 17), (4, 5, 20)])
def test_product_keys_find_what_flat_keys_find(count, first, second, k):
    """Whole numbers make sums exact and ties frequent: scores and ids are those of all pairs, lowest id first."""
    search = jax.jit(lambda *arrays: product(*arrays, k))
    for seed in range(4):
        queries = whole_numbers(count, 4, seed=seed)
        halves = whole_numbers(first, 2, seed=seed + 100), whole_numbers(second, 2, seed=seed + 200)
        expected = sorted_by_hand(queries @ composed(*halves).T, k)
        assert_same(search(queries, *halves), expected)
        assert_same(flat(queries, composed(*halves), k), expected)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_product_keys_agree_with_float64(seed):
    random = np.random.default_rng(seed)
    queries, first, second = (random.normal(size=shape).astype(np.float32) for shape in ((MANY, 12), (31, 6), (50, 6)))
    scores, ids = product(queries, first, second, 10)
    exact = queries.astype(np.float64) @ composed(first, second).astype(np.float64).T
    best, _ = sorted_by_hand(exact, 10)
    np.testing.assert_allclose(np.take_along_axis(exact, np.asarray(ids), axis=1), best, atol=1e-5)
    np.testing.assert_allclose(scores, best, atol=1e-5)
    assert all(len(set(row)) == 10 for row in np.asarray(ids).tolist())


@pytest.mark.parametrize("k", [1, 7, 12, 32])
def test_the_pairs_kept_are_those_that_can_win(k):
    """Ranks (i, j) with (i + 1)(j + 1) <= k, each once and with its own sum: 119 of 1024 at k = 32."""

    @jax.jit
    def pairs():
        best = -jnp.arange(k, dtype=jnp.float32)[:, None], jnp.arange(k, dtype=jnp.int32)[:, None]
        return lookup._pairs(best, best, 1000, k)

    sums, ids = (part[:, 0].tolist() for part in pairs())
    wanted = {(i, j) for i, j in itertools.product(range(k), repeat=2) if (i + 1) * (j + 1) <= k}
    assert [divmod(number, 1000) for number in sorted(ids)] == sorted(wanted)
    assert sums == [-float(sum(divmod(number, 1000))) for number in ids]
    assert k != 32 or len(ids) == 119


@pytest.mark.parametrize("count", [FEW, MANY])
def test_nan_never_wins_and_never_spreads(count):
    queries, first, second = whole_numbers(count, 4), whole_numbers(6, 2, seed=1), whole_numbers(7, 2, seed=2)
    first[2], second[0], queries[1] = np.nan, np.nan, np.nan
    with np.errstate(invalid="ignore"):
        expected = sorted_by_hand(queries @ composed(first, second).T, 30)
    scores, ids = product(queries, first, second, 30)
    np.testing.assert_array_equal(scores, expected[0])
    sound = expected[0] > -np.inf
    assert sound[0].all()
    assert not sound[1].any()
    np.testing.assert_array_equal(np.asarray(ids)[sound], expected[1][sound])
    np.testing.assert_array_equal(ids[1], expected[1][1])


def test_opposite_infinities_make_no_nan():
    first, second = np.array([[np.inf], [1.0]], np.float32), np.array([[-np.inf], [2.0]], np.float32)
    scores, ids = product(np.ones((MANY, 2), np.float32), first, second, 4)
    np.testing.assert_array_equal(scores[0], [np.inf, 3.0, -np.inf, -np.inf])
    np.testing.assert_array_equal(ids[0], [1, 3, 0, 2])


def test_one_query_finds_what_a_batch_finds():
    queries, first, second = whole_numbers(MANY, 8), whole_numbers(20, 4, seed=1), whole_numbers(30, 4, seed=2)
    together = product(queries, first, second, 9)
    for number in range(3):
        scores, ids = product(queries[number : number + 1], first, second, 9)
        assert_same((scores[0], ids[0]), (np.asarray(together[0][number]), np.asarray(together[1][number])))


def test_many_queries_in_chunks(monkeypatch):
    queries, first, second = whole_numbers(101, 4), whole_numbers(20, 2, seed=1), whole_numbers(10, 2, seed=2)
    keys = composed(first, second)
    expected = sorted_by_hand(queries @ keys.T, 5)
    monkeypatch.setattr(lookup, "_MANY_QUERIES", 25)  # 5 chunks of 21: padding in the last
    unjitted = lookup.product.__wrapped__
    assert_same(jax.jit(lambda *arrays: unjitted(*arrays, 5))(queries, first, second), expected)
    monkeypatch.setattr(lookup, "_MOST_SCORES", 20 * len(keys))
    unjitted_flat = lookup.flat.__wrapped__
    assert_same(jax.jit(lambda *arrays: unjitted_flat(*arrays, 5))(queries, keys), expected)


def test_another_order_of_the_keys_is_another_naming():
    random = np.random.default_rng(0)
    queries, keys = random.normal(size=(MANY, 6)).astype(np.float32), random.normal(size=(90, 6)).astype(np.float32)
    order = random.permutation(90)
    scores, ids = flat(queries, keys, 12)
    scores_of_shuffled, shuffled = flat(queries, keys[order], 12)
    np.testing.assert_allclose(scores_of_shuffled, scores, rtol=1e-6)
    np.testing.assert_array_equal(order[shuffled], ids)


def test_four_million_experts():
    """2^22 experts, against float64 over all of them; some keys are repeated so that there are ties."""
    queries = whole_numbers(16, 8, most=50)
    first, second = whole_numbers(2048, 4, seed=1, most=50), whole_numbers(2048, 4, seed=2, most=50)
    found = product(queries, first, second, 20)
    for number in range(2):
        halves = (first @ queries[number, :4])[:, None] + (second @ queries[number, 4:])[None, :]
        scores, ids = sorted_by_hand(halves.reshape(1, -1), 20)
        assert_same((found[0][number], found[1][number]), (scores[0], ids[0]))


@pytest.mark.parametrize("count", [FEW, MANY])
def test_ids_up_to_the_last_int32(count):
    """2^31 experts, the most that ids can name: the last ones are found, and no index wraps."""
    first, second = np.zeros((2**20, 1), np.float32), np.zeros((2**11, 1), np.float32)
    first[-1], second[-1] = 2.0, 1.0
    scores, ids = product(np.ones((count, 2), np.float32), first, second, 3)
    np.testing.assert_array_equal(ids[0], [2**31 - 1, 2**31 - 2**11, 2**31 - 2**11 + 1])
    np.testing.assert_array_equal(scores[0], [3.0, 2.0, 2.0])


def test_more_experts_than_ids_are_refused():
    first, second = np.zeros((2**20, 1), np.float32), np.zeros((2**11 + 1, 1), np.float32)
    with pytest.raises(ValueError, match=f"{2**31 + 2**20:,} experts.*at most {MOST_EXPERTS:,}"):
        product(np.ones((2, 2), np.float32), first, second, 3)


@pytest.mark.parametrize("k", [0, -1, 13])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"k = {k} of 12 experts: choose from 1 to 12"):
        product(np.ones((2, 2), np.float32), np.ones((3, 1), np.float32), np.ones((4, 1), np.float32), k)


def test_recall_is_a_share():
    keys = whole_numbers(30, 4)
    with pytest.raises(ValueError, match=r"recall = 1.5: choose above 0 and up to 1"):
        flat(keys, keys, 3, 1.5)
    assert_same(flat(keys, keys, 3, 0.9), sorted_by_hand(keys @ keys.T, 3))  # a CPU is exact all the same


@pytest.mark.parametrize("count", [FEW, MANY])
def test_half_precision_is_scored_in_single(count):
    queries, keys = whole_numbers(count, 40, most=15), whole_numbers(50, 40, seed=1, most=15)
    found = flat(jnp.asarray(queries, jnp.bfloat16), jnp.asarray(keys, jnp.bfloat16), 4)
    assert found[0].dtype == jnp.float32
    assert_same(found, sorted_by_hand(queries @ keys.T, 4))


def test_nothing_is_compiled_twice():
    queries, first, second = whole_numbers(MANY, 4), whole_numbers(11, 2, seed=1), whole_numbers(13, 2, seed=2)
    product.clear_cache()
    for shift in range(3):
        product(queries + shift, first, second, 6)
    assert product._cache_size() == 1


def test_the_caller_keeps_32_bits():
    """64-bit integers live inside of the search only."""
    found = jax.jit(lambda queries, keys: flat(queries, keys, 4))(whole_numbers(MANY, 4), whole_numbers(40, 4, seed=1))
    assert (found[0].dtype, found[1].dtype) == (jnp.float32, jnp.int32)
    assert not jax.config.jax_enable_x64
    assert jnp.arange(3).dtype == jnp.int32

"""The k largest of many scores, exactly: for flat keys and for product keys, for a batch of queries at once.

Letters: n queries, M experts, P and Q the two halves' keys (M = P Q), d widths, k chosen, K the power of two from k up.

The order is total: a larger score first, of equal scores the lower id. NaN counts as minus infinity and -0.0 as 0.0.
Where a device sorts rows well, or for few queries, `lax.top_k` does it. On a CPU, queries lie in the minor axis and
every step is one vectorized maximum and minimum over all of them:

- score and id are one 64-bit integer, so that the order above is the order of integers and the id comes along free;
- the k largest lie in the k pairs of rows with the largest maxima. So rows are halved by pairwise maxima until 2K
  are left, these go through a bitonic network, and every winner is opened into its two rows, level by level;
- of an opened pair the larger row keeps its parent's place, so that only the smaller ones need sorting, and of those
  only K/2 can win: the j-th of them (from 0) has j smaller ones and j + 1 larger ones before it.

Product keys (Lample et al. 2019, arXiv 1907.05242) score i Q + j with the sum of two halves. With both halves sorted,
the pair of ranks (i, j) has (i + 1)(j + 1) pairs that are no smaller, itself included: if more than k, it is out.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Int64

MOST_EXPERTS = 2**31  # ids are int32
_FEW_QUERIES = 8  # below, lax.top_k is faster on a CPU
_MANY_QUERIES = 1024  # that are searched together at most, and fewer where their scores would leave the cache:
_CACHED_SCORES = 2**19  # of one half of product keys, 8 bytes each
_MOST_SCORES = 2**28  # numbers of one chunk of flat scores: 1 GiB in float32
_LOWEST = np.int64(np.iinfo(np.int64).min)

Found = tuple[Float[Array, "n k"], Int32[Array, "n k"]]


@functools.partial(jax.jit, static_argnames=("k", "recall"))
def flat(queries: Float[Array, "n d"], keys: Float[Array, "M d"], k: int, recall: float = 1.0) -> Found:
    """Scores and ids of the k keys with the largest inner products, best first, for each query.

    `recall` below 1 lets an accelerator miss some (`lax.approx_max_k`: the expected share found); a CPU is exact.
    """
    _check(len(keys), k, recall)

    def columns(queries: Array, keys: Array) -> Found:
        return _as_rows(_largest_of_columns(_products(keys, queries), k))

    def rows(queries: Array, keys: Array) -> Found:
        return _largest_of_rows(_products(queries, keys), k, recall)

    return _searched(queries, (keys,), columns, rows, chunk=_MOST_SCORES // len(keys))


@functools.partial(jax.jit, static_argnames=("k", "recall"))
def product(
    queries: Float[Array, "n d"], first: Float[Array, "P d1"], second: Float[Array, "Q d2"], k: int, recall: float = 1.0
) -> Found:
    """As `flat` on the P Q composed keys, whose score is the sum of the two halves' scores.

    Sums that are equal in exact arithmetic keep the order by id. Sums that only rounding makes equal may not: a pair is
    never preferred to k others that are no smaller in both halves.
    """
    side = len(second)
    _check(len(first) * side, k, recall)
    width = first.shape[1]

    def columns(queries: Array, first: Array, second: Array) -> Found:
        halves = ((first, queries[:, :width]), (second, queries[:, width:]))
        left, right = (_largest_of_columns(_products(keys, part), min(k, len(keys))) for keys, part in halves)
        return _as_rows(_unpacked(_first(_packed(*_pairs(left, right, side, k)), k)))

    def rows(queries: Array, first: Array, second: Array) -> Found:
        halves = ((first, queries[:, :width]), (second, queries[:, width:]))
        left, right = (_largest_of_rows(_products(part, keys), min(k, len(keys)), recall) for keys, part in halves)
        scores, ids = _sorted(*_as_rows(_pairs(_as_rows(left), _as_rows(right), side, k)))
        return scores[:, :k], ids[:, :k]

    return _searched(queries, (first, second), columns, rows, chunk=_CACHED_SCORES // max(len(first), side))


def _check(experts: int, k: int, recall: float) -> None:
    if experts > MOST_EXPERTS:
        raise ValueError(f"{experts:,} experts: ids are int32, so that at most {MOST_EXPERTS:,} can be told apart")
    if not 1 <= k <= experts:
        raise ValueError(f"k = {k} of {experts:,} experts: choose from 1 to {experts:,}")
    if not 0 < recall <= 1:
        raise ValueError(f"recall = {recall}: choose above 0 and up to 1 (exact)")


def _searched(
    queries: Array, keys: tuple[Array, ...], columns: Callable[..., Found], rows: Callable[..., Found], chunk: int
) -> Found:
    """The search in the way that suits platform and batch, in equal chunks; vmapped, for all queries together."""

    def search(queries: Array, *keys: Array) -> Found:
        if len(queries) < _FEW_QUERIES or jnp.float64 in (queries.dtype, *(one.dtype for one in keys)):
            return rows(queries, *keys)
        return lax.platform_dependent(queries, *keys, cpu=columns, default=rows)

    @jax.custom_batching.custom_vmap
    def chunked(queries: Array, *keys: Array) -> Found:
        count = len(queries)
        chunks = -(-count // max(1, min(chunk, _MANY_QUERIES)))
        if chunks <= 1:
            return search(queries, *keys)
        size = -(-count // chunks)
        padded = jnp.pad(queries, ((0, chunks * size - count), (0, 0))).reshape(chunks, size, -1)
        scores, ids = lax.map(lambda some: search(some, *keys), padded)
        return scores.reshape(chunks * size, -1)[:count], ids.reshape(chunks * size, -1)[:count]

    @chunked.def_vmap
    def _(axis_size: int, batched: list[bool], queries: Array, *keys: Array) -> tuple[Any, tuple[bool, bool]]:
        if any(batched[1:]):  # queries with keys of their own have nothing in common
            return jax.vmap(search, [0 if one else None for one in batched])(queries, *keys), (True, True)
        scores, ids = chunked(queries.reshape(-1, queries.shape[-1]), *keys)
        return (scores.reshape(axis_size, -1, scores.shape[-1]), ids.reshape(axis_size, -1, ids.shape[-1])), (
            True,
            True,
        )

    return chunked(queries, *keys)


def _products(left: Float[Array, "a d"], right: Float[Array, "b d"]) -> Float[Array, "a b"]:
    """All inner products, in float32 or better: selection is not to depend on a device's faster formats."""
    kind = jnp.float64 if jnp.float64 in (left.dtype, right.dtype) else jnp.float32
    return jnp.matmul(left.astype(kind), right.astype(kind).T, precision=lax.Precision.HIGHEST)


def _ordered(scores: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scores without NaN."""
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


def _as_rows(found: tuple[Array, Array]) -> tuple[Array, Array]:
    scores, ids = found
    return scores.T, ids.T


def _largest_of_rows(scores: Float[Array, "n M"], k: int, recall: float) -> Found:
    scores = _ordered(scores)
    scores = jnp.where(scores == 0, jnp.zeros_like(scores), scores)
    if recall < 1:
        scores, ids = lax.approx_max_k(scores, k, recall_target=recall)
    else:
        scores, ids = lax.top_k(scores, k)
    return scores, ids


def _sorted(scores: Float[Array, "n pairs"], ids: Int32[Array, "n pairs"]) -> Found:
    """Rows from the best on; one integer sorts several times faster than a score with an id."""
    if scores.dtype == jnp.float64:
        negative, ids = lax.sort((-scores, ids), num_keys=2)
        return -negative, ids
    with jax.enable_x64(True):
        return _unpacked(~lax.sort(~_packed(scores, ids)))


def _pairs(best_first: tuple[Array, Array], best_second: tuple[Array, Array], side: int, k: int) -> tuple[Array, Array]:
    """Sums and expert ids of the pairs of ranks that can be among the k best; ranks are rows."""
    (a, a_ids), (b, b_ids) = best_first, best_second
    partners = [min(k // (rank + 1), len(b)) for rank in range(len(a))]
    i = np.repeat(np.arange(len(a)), partners)
    j = np.concatenate([np.arange(count) for count in partners])
    take = functools.partial(jnp.take, axis=0, mode="clip")
    return _ordered(take(a, i) + take(b, j)), take(a_ids, i) * np.int32(side) + take(b_ids, j)


# The selection over columns.


def _largest_of_columns(scores: Float[Array, "M n"], k: int) -> tuple[Float[Array, "k n"], Int32[Array, "k n"]]:
    """The k largest of each column and their rows, best first."""
    network = _power_of_two(k)
    levels = [_ordered(scores)]
    while len(levels[-1]) > 2 * network:
        levels[-1] = _padded(levels[-1], len(levels[-1]) + len(levels[-1]) % 2, -jnp.inf)
        upper, lower = _halves(levels[-1], 1)
        levels.append(lax.max(upper, lower))
    top = levels.pop()
    best = _first(_packed(top, lax.broadcasted_iota(jnp.int32, top.shape, 0)), min(network, len(top)))
    for level in reversed(levels):
        best = _opened(best, level)
    return _unpacked(best[:k])


def _opened(best: Int64[Array, "K n"], level: Float[Array, "rows n"]) -> Int64[Array, "K n"]:
    """The K first of the 2K rows of `level` whose pairs are `best`."""
    k = len(best)
    _, pairs = _unpacked(best)
    rows = [pairs * np.int32(2) + np.int32(which) for which in (0, 1)]
    opened = [_packed(jnp.take_along_axis(level, row, axis=0, mode="promise_in_bounds"), row) for row in rows]
    with jax.enable_x64(True):
        both = jnp.concatenate([lax.max(*opened), lax.min(*opened)])  # in one array: nothing is computed twice
        larger, smaller = both[:k], both[k:]
        if k == 1:
            return larger
        second = _first(smaller, k // 2)
        return _merged(jnp.concatenate([larger[: k // 2], lax.max(larger[k // 2 :], lax.rev(second, (0,)))]), k)


def _first(packed: Int64[Array, "rows n"], k: int) -> Int64[Array, "k n"]:
    """The k first of each column, in order: runs of K are sorted, then merged two by two."""
    run = _power_of_two(k)
    with jax.enable_x64(True):
        packed = _padded(packed, max(1, _power_of_two(-(-len(packed) // run))) * run, _LOWEST)
        length = 1
        while length < run:
            length *= 2
            packed = _merged(_exchanged(packed, length, reverse=True), length // 2)
        while len(packed) > run:
            upper, lower = _halves(packed, run)
            packed = _merged(lax.max(upper, _reversed(lower, run)), run)
        return packed[:k]


def _merged(packed: Int64[Array, "rows n"], run: int) -> Int64[Array, "rows n"]:
    """Bitonic runs put in order."""
    while run > 1:
        packed = _exchanged(packed, run, reverse=False)
        run //= 2
    return packed


def _exchanged(packed: Int64[Array, "rows n"], run: int, *, reverse: bool) -> Int64[Array, "rows n"]:
    """In each run, of every two rows half a run apart the larger first; `reverse` turns the second half first."""
    rows, columns = packed.shape
    halves = packed.reshape(rows // run, 2, run // 2, columns)
    upper, lower = halves[:, 0], halves[:, 1]
    if reverse:
        lower = lax.rev(lower, (1,))
    return jnp.stack([lax.max(upper, lower), lax.min(upper, lower)], axis=1).reshape(rows, columns)


def _halves(array: Array, run: int) -> tuple[Array, Array]:
    """The even and the odd runs of rows."""
    rows, columns = array.shape
    pairs = array.reshape(rows // (2 * run), 2, run, columns)
    return pairs[:, 0].reshape(rows // 2, columns), pairs[:, 1].reshape(rows // 2, columns)


def _reversed(array: Array, run: int) -> Array:
    rows, columns = array.shape
    return lax.rev(array.reshape(rows // run, run, columns), (1,)).reshape(rows, columns)


def _padded(array: Array, rows: int, value: float | np.int64) -> Array:
    if rows == len(array):
        return array
    return lax.pad(array, np.asarray(value, array.dtype), ((0, rows - len(array), 0), (0, 0, 0)))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


_MAGNITUDE = np.int32(2**31 - 1)


def _packed(scores: Float[Array, "rows n"], ids: Int32[Array, "rows n"]) -> Int64[Array, "rows n"]:
    """Integers in the order of the scores, of equal scores the lower id larger.

    Inside of `jax.enable_x64`, which concerns only what is traced there, not the caller's program.
    """
    bits = lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)
    order = jnp.where(bits < 0, -(bits & _MAGNITUDE), bits)  # sign and magnitude to two's complement; -0.0 is 0
    with jax.enable_x64(True):
        return (order.astype(jnp.int64) << np.int64(32)) | (_MAGNITUDE - ids).astype(jnp.int64)


def _unpacked(packed: Int64[Array, "rows n"]) -> tuple[Float[Array, "rows n"], Int32[Array, "rows n"]]:
    with jax.enable_x64(True):
        order = (packed >> np.int64(32)).astype(jnp.int32)
        ids = _MAGNITUDE - packed.astype(jnp.int32)
    bits = jnp.where(order < 0, (-order) | ~_MAGNITUDE, order)
    return lax.bitcast_convert_type(bits, jnp.float32), ids

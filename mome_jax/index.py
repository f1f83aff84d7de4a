"""Which experts a query chooses: `select(query, keys, k) -> Selection`, for one query; callers vmap.

`jax.vmap(select, (0, None, None))` is a search for all queries together (see `mome_jax.lookup`), not one after another.
Keys are pytrees that know how to select: flat and product keys here, `Heads` of several, `Whitened` for queries that
are first put on one scale. Gradients go through the scores that were chosen, to query and keys; not through the choice.

Letters: M experts, P and Q the two halves' keys (M = P Q), d query width, k chosen, h heads.
"""

import functools
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray, PyTree

from mome_jax import lookup
from mome_jax.pytrees import pytree, static
from mome_jax.whitening import Whitening

NULL = -1  # the null expert: reads as zeros and is never written
_LONGEST_TO_SHORTEST = 16  # of the two halves that `ProductKeys.create` makes


class Selection(NamedTuple):
    """The chosen experts, best first, and the weight with which each is read; batched it is [n k]."""

    experts: Int32[Array, "*n k"]
    weights: Float[Array, "*n k"]


@runtime_checkable
class Keys(Protocol):
    """What chooses among experts: a pytree that knows their number and can select for one query."""

    @property
    def experts(self) -> int:
        """Number of experts M."""
        ...

    def select(self, query: PyTree, k: int) -> Selection:
        """The k experts of one query."""
        ...


def select(query: PyTree, keys: Keys, k: int) -> Selection:
    """The k experts that one query chooses, best first; of equal scores the lowest id is first, NaN is last.

    >>> keys = FlatKeys(jnp.eye(3))
    >>> select(jnp.array([1.0, 3.0, 2.0]), keys, 2).experts
    Array([1, 2], dtype=int32)
    """
    return keys.select(query, k)


@pytree
class Softmax:
    """How scores become weights: softmax(scores / temperature).

    With a `null` score, which can be trained, the null expert takes part: its id and its share of the weight follow as
    entry k + 1. Where the best scores are low, little is then read.
    """

    temperature: float = static(default=1.0)
    null: float | Float[Array, ""] | None = None

    def __call__(self, scores: Float[Array, " k"], experts: Int32[Array, " k"]) -> Selection:
        """The selection of these experts."""
        if self.null is not None:
            scores = jnp.append(scores, jnp.asarray(self.null, scores.dtype))
            experts = jnp.append(experts, jnp.int32(NULL))
        return Selection(experts, jax.nn.softmax(scores / self.temperature))


@pytree
class FlatKeys:
    """One key per expert, all scored: the reference, O(M d) a query."""

    keys: Float[Array, "M d"]
    softmax: Softmax = Softmax()
    recall: float = static(default=1.0)  # below 1 an accelerator may miss some: `lookup.flat`

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.keys.shape[0]

    def select(self, query: Float[Array, " d"], k: int) -> Selection:
        """The k keys of largest inner product with the query. Raises ValueError unless 1 <= k <= M."""
        return self.softmax(*_flat_scores(k, self.recall, query, self.keys))


@pytree
class ProductKeys:
    """M = P Q keys composed of two halves, O((P + Q) d) a query: expert i Q + j has the key (first[i], second[j])."""

    first: Float[Array, "P d1"]
    second: Float[Array, "Q d2"]
    softmax: Softmax = Softmax()
    recall: float = static(default=1.0)  # of each half; below 1 an accelerator may miss some

    @classmethod
    def create(cls, key: PRNGKeyArray, experts: int | tuple[int, int], width: int, **options: Any) -> "ProductKeys":
        """Random keys for queries of `width` numbers, which are cut in halves; `experts` is M or (P, Q).

        Entries are normal with variance 1 / width, so that a query of unit variances has scores of unit variance.
        Consumes the key. Raises ValueError if M is not a product of two similar numbers, and tells the next that is.

        >>> ProductKeys.create(jax.random.key(0), 2**20, 256).first.shape
        (1024, 128)
        """
        shape = _sides(experts) if isinstance(experts, int) else experts
        if min(*shape, width - 1) < 1 or math.prod(shape) > lookup.MOST_EXPERTS:
            most = f"{lookup.MOST_EXPERTS:,}"
            raise ValueError(f"{shape} keys of width {width}: at least 1 and 1, at most {most} pairs, width from 2 up")
        widths = (width // 2, width - width // 2)
        halves = zip(jax.random.split(key), shape, widths, strict=True)
        first, second = (jax.random.normal(key, size, jnp.float32) / math.sqrt(width) for key, *size in halves)
        return cls(first, second, **options)

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.first.shape[0] * self.second.shape[0]

    def select(self, query: Float[Array, " d"], k: int) -> Selection:
        """The k keys of largest inner product with the query. Raises ValueError unless 1 <= k <= M <= 2^31."""
        return self.softmax(*_product_scores(k, self.recall, query, self.first, self.second))


@pytree
class Heads:
    """Several keys for one bank: each head has a query of its own and selects k; the reading is the mean of theirs.

    The selections are one after another, [h k] as a single row, best first within each head, weights divided by h. Two
    heads that choose the same expert name it twice.
    """

    heads: tuple[Any, ...]

    @property
    def experts(self) -> int:
        """Number of experts M, the same for every head; raises ValueError where it is not."""
        counts = {head.experts for head in self.heads}
        if len(counts) != 1:
            raise ValueError(f"heads choose from one bank, these from banks of {sorted(counts)} experts")
        return counts.pop()

    def select(self, query: PyTree, k: int) -> Selection:
        """Choose k experts a head. `query` is an array [h d] or a tuple of h queries."""
        if len(query) != len(self.heads):
            raise ValueError(f"{len(query)} queries for {len(self.heads)} heads")
        chosen = [head.select(one, k) for head, one in zip(self.heads, query, strict=True)]
        experts, weights = (jnp.concatenate(part) for part in zip(*chosen, strict=True))
        return Selection(experts, weights / len(chosen))


@pytree
class Whitened:
    """Keys that see their queries whitened: `select` of the keys after the map of `mome_jax.whitening`."""

    whitening: Whitening
    keys: Any

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.keys.experts

    def select(self, query: Float[Array, " d"], k: int) -> Selection:
        """The k experts of the whitened query."""
        return self.keys.select(self.whitening(query), k)


def _sides(experts: int) -> tuple[int, int]:
    """The two factors of M nearest to each other, the smaller first."""
    if not 1 <= experts <= lookup.MOST_EXPERTS:
        raise ValueError(f"{experts:,} experts: choose from 1 to {lookup.MOST_EXPERTS:,}")
    first, second = _factors(experts)
    if second > _LONGEST_TO_SHORTEST * first:
        larger = next(number for number in range(experts, 2 * experts) if _similar(*_factors(number)))
        sides = " x ".join(map(str, _factors(larger)))
        raise ValueError(f"{experts:,} experts are at best {first} x {second:,} keys: choose {larger:,} ({sides})")
    return first, second


def _similar(first: int, second: int) -> bool:
    return second <= _LONGEST_TO_SHORTEST * first


def _factors(number: int) -> tuple[int, int]:
    first = next(side for side in range(math.isqrt(number), 0, -1) if number % side == 0)
    return first, number // first


# What was chosen, with gradients. The search itself is not differentiated: its scores are inner products of the query
# with the keys it found, and so are their derivatives.

Scored = tuple[Float[Array, " k"], Int32[Array, " k"]]
_INTEGERS_DO_NOT_MOVE = jax.dtypes.float0


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _flat_scores(k: int, recall: float, query: Float[Array, " d"], keys: Float[Array, "M d"]) -> Scored:
    scores, experts = lookup.flat(query[None], keys, k, recall)
    return scores[0], experts[0]


@_flat_scores.defjvp
def _(k: int, recall: float, at: Any, along: Any) -> tuple[Scored, Any]:
    scores, experts = _flat_scores(k, recall, *at)
    _, moved = jax.jvp(lambda query, keys: keys[experts] @ query, at, along)
    return (scores, experts), (moved.astype(scores.dtype), np.zeros(experts.shape, _INTEGERS_DO_NOT_MOVE))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _product_scores(
    k: int, recall: float, query: Float[Array, " d"], first: Float[Array, "P d1"], second: Float[Array, "Q d2"]
) -> Scored:
    scores, experts = lookup.product(query[None], first, second, k, recall)
    return scores[0], experts[0]


@_product_scores.defjvp
def _(k: int, recall: float, at: Any, along: Any) -> tuple[Scored, Any]:
    scores, experts = _product_scores(k, recall, *at)

    def half_scores(query: Array, first: Array, second: Array) -> Array:
        row, column = jnp.divmod(experts, jnp.int32(second.shape[0]))
        width = first.shape[1]
        return (first @ query[:width])[row] + (second @ query[width:])[column]  # dense: P + Q rows are few

    _, moved = jax.jvp(half_scores, at, along)
    return (scores, experts), (moved.astype(scores.dtype), np.zeros(experts.shape, _INTEGERS_DO_NOT_MOVE))

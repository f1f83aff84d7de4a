"""Addresses that need no keys: a hash of the exact context chooses the experts; and its mixture with a learned query.

A fingerprint is 64 bits in two 32-bit lanes, rolled over the tokens of a prefix; one more token extends it. It is
keyed but not cryptographic: whoever knows the seed can construct two prefixes that collide. By chance n prefixes
collide with probability below n^2 / 2^65.

Letters: L places of a sequence, M experts, k chosen.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Int32, PyTree, UInt32

from mome_jax.index import Keys, Selection

MAX_EXPERTS = 2**31 - 1  # an expert's id is an int32
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio
_ROUND_KEYS = (0xA4093822, 0x299F31D0, 0x082EFA98)  # digits of pi
_POSITIONS, _GATES = 0, 0x452821E6  # keep the two uses of a fingerprint apart

Lane = UInt32[Array, "..."]
Fingerprint = UInt32[Array, "2"]


def start(seed: int = 0) -> Fingerprint:
    """The fingerprint of the empty prefix. Raises ValueError unless 0 <= seed < 2^64.

    >>> start(7).shape
    (2,)
    """
    low, high = _seed_words(seed)
    return jnp.stack(_mix(jnp.uint32(high), jnp.uint32(low)))


def extend(fingerprint: Fingerprint, token: Int32[Array, ""]) -> Fingerprint:
    """The fingerprint of a prefix with one more token; for each token a bijection of the 2^64 fingerprints."""
    high, low = fingerprint
    return jnp.stack(_mix(high, low ^ token.astype(jnp.uint32)))


def fingerprints(tokens: Int32[Array, " L"], seed: int = 0) -> UInt32[Array, "L 2"]:
    """The fingerprint of every prefix that ends at a place, that place included."""

    def step(fingerprint: Fingerprint, token: Int32[Array, ""]) -> tuple[Fingerprint, Fingerprint]:
        longer = extend(fingerprint, token)
        return longer, longer

    return jax.lax.scan(step, start(seed), tokens)[1]


@tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExactAddresses:
    """k distinct experts drawn from a fingerprint, uniform without replacement, O(k^2) whatever the number of experts.

    The weights are drawn too: positive, of sum 1, within a factor 2 of each other and generic, since equal weights
    make selection matrices singular that different ones do not. Nothing is stored: a new seed is a new address book.
    """

    experts: int = dataclasses.field(metadata={"static": True})  # M
    seed: int = dataclasses.field(default=0, metadata={"static": True})

    def __post_init__(self) -> None:
        if not 1 <= self.experts <= MAX_EXPERTS:
            raise ValueError(f"experts must be between 1 and 2^31 - 1, got {self.experts}")
        _seed_words(self.seed)

    def select(self, query: Fingerprint, k: int) -> Selection:
        """The k experts of one fingerprint. Raises ValueError unless 1 <= k <= M."""
        if not 1 <= k <= self.experts:
            raise ValueError(f"k must be between 1 and the {self.experts} experts, got {k}")
        chosen = _distinct(*self._draws(query, k, _POSITIONS), self.experts)
        gates, _ = self._draws(query, k, _GATES)
        below_one = (gates >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
        raw = 2.0 - (jnp.arange(k, dtype=jnp.float32) + below_one) / k  # one in each k-th part of (1, 2]: no sorting
        return Selection(chosen, raw / raw.sum())

    def _draws(self, fingerprint: Fingerprint, count: int, use: int) -> tuple[Lane, Lane]:
        """`count` random words of 64 bits, in two lanes."""
        low, high = _seed_words(self.seed)
        counters = jnp.arange(1, count + 1, dtype=jnp.uint32) * jnp.uint32(_GOLDEN)
        upper = counters ^ (fingerprint[0] ^ jnp.uint32(high))
        return _mix(upper, jnp.full_like(upper, fingerprint[1] ^ jnp.uint32(low)) + jnp.uint32(use))


@tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixedAddresses:
    """Half of the experts by the exact context, half by a learned query; for odd k the exact half has one more.

    A query is a pair (fingerprint, what the learned keys take). The exact half gives each query rows of its own, which
    conditions the writing; the learned half is what a paraphrase can find. What both halves choose appears twice.
    """

    exact: Keys
    learned: Keys
    share: float = dataclasses.field(default=0.5, metadata={"static": True})  # of the weight, to the exact half

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.exact.experts

    def select(self, query: tuple[PyTree, PyTree], k: int) -> Selection:
        """The k experts of one query, heaviest first; k = 1 is the exact address alone.

        Raises ValueError if the halves do not choose among equally many experts or the share is not in (0, 1).
        """
        if self.exact.experts != self.learned.experts:
            raise ValueError(f"both halves need the same experts, got {self.exact.experts} and {self.learned.experts}")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share must be between 0 and 1, got {self.share}")
        exact = self.exact.select(query[0], k - k // 2)
        if k == 1:
            return exact
        learned = self.learned.select(query[1], k // 2)
        both: Any = jnp.concatenate([self.share * exact.weights, (1.0 - self.share) * learned.weights])
        weights, order = jax.lax.top_k(both, k)
        return Selection(jnp.concatenate([exact.experts, learned.experts])[order], weights)


def _seed_words(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be between 0 and 2^64 - 1, got {seed}")
    return seed & 0xFFFFFFFF, seed >> 32


def _mix(high: Lane, low: Lane) -> tuple[Lane, Lane]:
    """A bijection of 64 bits: three Feistel rounds, with the finalizer of MurmurHash3 as round function."""
    for key in _ROUND_KEYS:
        high, low = low, high ^ _finalize(low + jnp.uint32(key))
    return high, low


def _finalize(word: Lane) -> Lane:
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def _distinct(high: UInt32[Array, " k"], low: UInt32[Array, " k"], experts: int) -> Int32[Array, " k"]:
    """The first k places of a shuffle of the experts (Fisher-Yates): only the swaps are kept, not the M places."""
    k = high.shape[0]
    steps = jnp.arange(k, dtype=jnp.int32)
    left = jnp.asarray(np.uint32(experts) - np.arange(k, dtype=np.uint32))
    targets = steps + _below(left, high, low).astype(jnp.int32)

    def swap(step: Int32[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, moved = state  # moved[s]: what step s put at its target, after taking what was there

        def content(place: Int32[Array, ""]) -> Int32[Array, ""]:
            last = jnp.max(jnp.where((targets == place) & (steps < step), steps, -1))
            return jnp.where(last < 0, place, moved[jnp.maximum(last, 0)])

        here = steps == step
        return jnp.where(here, content(targets[step]), chosen), jnp.where(here, content(step), moved)

    return jax.lax.fori_loop(0, k, swap, (jnp.zeros(k, jnp.int32), jnp.zeros(k, jnp.int32)))[0]


def _below(bound: Lane, high: Lane, low: Lane) -> Lane:
    """floor(bound * word / 2^64) for a 64-bit word: uniform below the bound up to a relative 2^-32."""
    top, rest = _product(bound, high)
    carry = rest + _product(bound, low)[0]
    return top + (carry < rest).astype(jnp.uint32)


def _product(left: Lane, right: Lane) -> tuple[Lane, Lane]:
    """The two halves of a 64-bit product, from 16-bit factors, since JAX has no 64-bit integers by default."""
    mask = jnp.uint32(0xFFFF)
    left_high, left_low, right_high, right_low = left >> 16, left & mask, right >> 16, right & mask
    lowest = left_low * right_low
    middle = left_high * right_low + (lowest >> 16)
    cross = left_low * right_high + (middle & mask)
    return left_high * right_high + (middle >> 16) + (cross >> 16), left * right

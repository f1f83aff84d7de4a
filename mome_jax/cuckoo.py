"""A cuckoo filter: which 64-bit fingerprints were stored, in a few bits each; it can forget them again.

It says yes to every stored fingerprint, always, and to any other with a chance q that is asked for. Each fingerprint
has a tag and two buckets of four places; either bucket follows from the other and the tag, so tags can be moved
without knowing whose they are (Fan, Andersen, Kaminsky and Mitzenmacher 2014; here the two buckets add up to a hash of
the tag modulo their number, so that any number of buckets will do). Tags are packed, log2(1/q) + 3 bits each.

Letters: n fingerprints, m buckets, R different tags, q the false acceptance rate.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Bool, UInt32
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Fingerprints = Array | np.ndarray  # uint32 [n 2]

_PLACES = 4  # of a bucket; with two buckets 95 % of all places can be filled
_LOAD = 0.95
_ROUNDS = 2000  # of evictions, before the filter counts as full
_BUCKET, _TAG, _PARTNER = 0x3C6EF372, 0xA54FF53A, 0x510E527F  # keep the uses of a fingerprint apart


@tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CuckooFilter:
    """Packed tags. Nothing changes in place: `insert` and `delete` return new filters."""

    words: UInt32[Array, " w"]  # one after the other, tag 0 for an empty place; a spare word at the end
    buckets: int = dataclasses.field(metadata={"static": True})
    tags: int = dataclasses.field(metadata={"static": True})  # R

    @property
    def bits(self) -> int:
        """Bits of a place."""
        return self.tags.bit_length()

    @property
    def bytes(self) -> int:
        """Bytes of the whole filter."""
        return 4 * self.words.size

    @property
    def capacity(self) -> int:
        """Fingerprints for which there is room (nearly always)."""
        return int(_LOAD * _PLACES * self.buckets)

    @property
    def stored(self) -> int:
        """Number of fingerprints stored."""
        return int(np.count_nonzero(_unpacked(self)))

    @property
    def false_acceptance_rate(self) -> float:
        """Probability that a fingerprint drawn at random is accepted, as the filter is filled now.

        1 - (1 - 2/(m R))^n: each stored fingerprint has the tag and one of the buckets of another with chance 2/(m R).
        The average over stored fingerprints; a given filter differs from it by a share of about (q/n)^(1/2).
        """
        return -math.expm1(self.stored * math.log1p(-2.0 / (self.buckets * self.tags)))


def empty_filter(capacity: int, false_acceptance_rate: float) -> CuckooFilter:
    """A filter with room for so many fingerprints that accepts others at this rate when full, at a lower one before.

    Raises ValueError unless 0 < rate <= 0.2, capacity >= 1, and the filter fits in 2^32 bits.

    >>> empty_filter(1000, 0.01).bytes
    1332
    """
    if not 0.0 < false_acceptance_rate <= 0.2:
        raise ValueError(f"the false acceptance rate must be in (0, 0.2], got {false_acceptance_rate}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    buckets = max(2, math.ceil(capacity / (_LOAD * _PLACES)))
    of_each = -math.expm1(math.log1p(-false_acceptance_rate) / capacity)  # may accept with this chance
    tags = math.floor(2.0 / (buckets * of_each))
    buckets = math.ceil(2.0 / (tags * of_each))  # somewhat more, so that the rate is the wanted one and not below
    if (bits := _PLACES * buckets * tags.bit_length()) >= 2**32 or tags >= 2**31:
        raise ValueError(f"the filter would need {bits} bits, more than 2^32: raise the rate or store fewer")
    return CuckooFilter(jnp.zeros(_words(buckets, tags), jnp.uint32), buckets, tags)


def build_filter(fingerprints: Fingerprints, false_acceptance_rate: float, capacity: int | None = None) -> CuckooFilter:
    """A filter that holds the distinct fingerprints [n 2], with room for `capacity` (default: just these).

    Grown by a twentieth where they do not fit, which is rare. Raises ValueError as `empty_filter` and `insert` do.
    """
    words = _checked(fingerprints)
    room = max(1, words.shape[0], capacity or 0)
    while True:
        try:
            return insert(empty_filter(room, false_acceptance_rate), words)
        except _Full:
            room += max(1, room // 20)


def contains(filter: CuckooFilter, fingerprint: UInt32[Array, "2"]) -> Bool[Array, ""]:
    """Whether one fingerprint may have been stored; callers vmap. Never False for a stored one."""
    high, low = fingerprint[0], fingerprint[1]
    tag, first = _tag(high, low, filter.tags), _bucket(high, low, filter.buckets)
    both = jnp.stack([first, _partner(first, tag, filter.buckets)])
    place = jnp.uint32(_PLACES) * both[:, None] + jnp.arange(_PLACES, dtype=jnp.uint32)[None, :]
    return jnp.any(_read(filter.words, place, filter.bits) == tag)


def insert(filter: CuckooFilter, fingerprints: Fingerprints) -> CuckooFilter:
    """The filter with these distinct fingerprints [n 2] added.

    A fingerprint that is already stored is stored once more, and has to be deleted once more; nine copies never fit.
    Raises ValueError where two of them are equal, or the filter is full.
    """
    words = _checked(fingerprints)
    tag, bucket = _addresses(filter, words)
    return _packed(filter, _placed(_unpacked(filter), tag, bucket, filter.buckets))


def delete(filter: CuckooFilter, fingerprints: Fingerprints) -> CuckooFilter:
    """The filter without these distinct fingerprints [n 2], which must have been inserted.

    Deleting what was never inserted would make the filter forget another one with the same tag. It cannot always
    notice; where it does, ValueError names the fingerprint by its index and nothing is deleted.
    """
    words = _checked(fingerprints)
    tag, first = _addresses(filter, words)
    tags = _unpacked(filter).reshape(-1, _PLACES)
    for index, (value, bucket) in enumerate(zip(tag, first, strict=True)):
        for here in (bucket, _partner(bucket, value, filter.buckets)):
            if (found := np.flatnonzero(tags[here] == value)).size:
                tags[here, found[0]] = 0
                break
        else:
            raise ValueError(f"fingerprint {index} is not in the filter: delete only what was inserted")
    return _packed(filter, tags.ravel())


class _Full(ValueError):
    pass


def _placed(tags: Words, tag: Words, bucket: Words, buckets: int) -> Words:
    """Tags with more tags in them: all that fit at once, then evictions, one a bucket in each round."""
    tags, random = tags.reshape(-1, _PLACES), np.random.default_rng(0)
    for round in range(_ROUNDS):
        order = np.argsort(bucket, kind="stable")
        tag, bucket = tag[order], bucket[order]
        rank = np.arange(bucket.size) - np.searchsorted(bucket, bucket)  # among those that want this bucket
        free = tags[bucket] == 0
        fits = rank < free.sum(axis=1)
        # the rank-th free place of each bucket
        place = np.argmax(np.cumsum(free[fits], axis=1) == (rank[fits] + 1)[:, None], axis=1)
        tags[bucket[fits], place] = tag[fits]
        tag, bucket, rank = tag[~fits], bucket[~fits], rank[~fits]
        if not tag.size:
            return tags.ravel()
        if round > 0:  # whoever is first in a full bucket throws somebody out
            (first,) = np.nonzero(np.diff(bucket.astype(np.int64), prepend=-1))
            victim = random.integers(0, _PLACES, first.size)
            out = tags[bucket[first], victim]
            tags[bucket[first], victim] = tag[first]
            tag[first] = out
            bucket[first] = _partner(bucket[first], out, buckets)
            waits = np.ones(tag.size, np.bool_)
            waits[first] = False
            moved = waits & (random.random(tag.size) < 0.5)
        else:
            moved = np.ones(tag.size, np.bool_)
        bucket[moved] = _partner(bucket[moved], tag[moved], buckets)
    raise _Full(f"the filter is full: {tag.size} of the fingerprints found no place; build it with a larger capacity")


def _checked(fingerprints: Fingerprints) -> Words:
    words = np.asarray(fingerprints)
    if words.ndim != 2 or words.shape[1] != 2 or words.dtype != np.uint32:
        raise ValueError(f"fingerprints are uint32 [n 2], got {words.dtype} {words.shape}")
    joined = words[:, 0].astype(np.uint64) << np.uint64(32) | words[:, 1]
    _, first = np.unique(joined, return_index=True)
    if first.size < joined.size:
        again = int(np.setdiff1d(np.arange(joined.size), first)[0])
        raise ValueError(f"fingerprint {again} of {joined.size} equals an earlier one: store each once")
    return words


def _addresses(filter: CuckooFilter, words: Words) -> tuple[Words, Words]:
    high, low = words[:, 0], words[:, 1]
    return _tag(high, low, filter.tags), _bucket(high, low, filter.buckets)


# What follows runs on NumPy and on JAX arrays alike, in 32-bit words that wrap around.


def _tag(high: Any, low: Any, tags: int) -> Any:
    return _hash(low, high, _TAG) % np.uint32(tags) + np.uint32(1)


def _bucket(high: Any, low: Any, buckets: int) -> Any:
    return _hash(high, low, _BUCKET) % np.uint32(buckets)


def _partner(bucket: Any, tag: Any, buckets: int) -> Any:
    """The other bucket of a tag: an involution."""
    total = _finalized(tag ^ np.uint32(_PARTNER)) % np.uint32(buckets)
    return (total + (np.uint32(buckets) - bucket)) % np.uint32(buckets)


def _hash(one: Any, other: Any, use: int) -> Any:
    return _finalized(other ^ _finalized(one ^ np.uint32(use)))


def _finalized(word: Any) -> Any:
    """The finalizer of MurmurHash3: a bijection of 32-bit words."""
    with np.errstate(over="ignore"):
        word = (word ^ (word >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        word = (word ^ (word >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        return word ^ (word >> np.uint32(16))


def _read(words: Any, place: Any, bits: int) -> Any:
    """The tags at these places: each lies in one word or in two."""
    bit = place * np.uint32(bits)
    word, shift = bit >> np.uint32(5), bit & np.uint32(31)
    low = words[word] >> shift
    high = (words[word + np.uint32(1)] << np.uint32(1)) << (np.uint32(31) - shift)  # a shift by 32 is not defined
    return (low | high) & np.uint32((1 << bits) - 1)


def _words(buckets: int, tags: int) -> int:
    return -(-_PLACES * buckets * tags.bit_length() // 32) + 1


def _unpacked(filter: CuckooFilter) -> Words:
    places = np.arange(_PLACES * filter.buckets, dtype=np.uint32)
    return _read(np.asarray(filter.words), places, filter.bits)


def _packed(filter: CuckooFilter, tags: Words) -> CuckooFilter:
    """Tags [4 m] one after the other; places whose tags begin in the same word are not added to it at once."""
    words = np.zeros(_words(filter.buckets, filter.tags) + 1, np.uint64)
    bit = np.arange(tags.size, dtype=np.uint64) * np.uint64(filter.bits)
    word, shifted = (bit >> np.uint64(5)).astype(np.int64), tags.astype(np.uint64) << (bit & np.uint64(31))
    np.bitwise_or.at(words, word, shifted & np.uint64(0xFFFFFFFF))
    np.bitwise_or.at(words, word + 1, shifted >> np.uint64(32))
    return dataclasses.replace(filter, words=jax.device_put(words[:-1].astype(np.uint32)))

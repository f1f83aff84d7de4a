"""What benchmarks/gate.py times: our filter, a Bloom filter in JAX, a sorted table in NumPy; all over one batch.

Each also tells its bytes and how often it accepted a fingerprint that was not stored.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import timed

ASKED = 2**20


def _fingerprints(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return tuple(random.integers(0, 2**32, (size, 2), dtype=np.uint32) for size in (n, ASKED))


def _measured(contains: Callable[[], Any], **facts: Any) -> Callable[[], dict[str, Any]]:
    return timed(contains, accepted=int(np.asarray(contains()).sum()), **facts)


def cuckoo(*, facts: int, rate: float) -> Callable[[], dict[str, Any]]:
    """mome_jax.cuckoo, jitted and vmapped."""
    import jax

    from mome_jax.cuckoo import build_filter, contains

    stored, others = _fingerprints(facts)
    began = time.perf_counter()
    filter = build_filter(stored, rate)
    building = time.perf_counter() - began
    ask = jax.jit(jax.vmap(contains, in_axes=(None, 0)))
    assert np.asarray(ask(filter, stored)).all()
    asked = jax.device_put(others)
    answer = lambda: ask(filter, asked).block_until_ready()  # noqa: E731
    # two buckets of four places, each in two words of four bytes; one gather of each bucket's words was not faster
    return _measured(answer, bytes=filter.bytes, building_seconds=building, touched=2 * 4 * 2 * 4)


def bloom(*, facts: int, rate: float) -> Callable[[], dict[str, Any]]:
    """A Bloom filter of the best number of bits and hash functions, by double hashing."""
    import jax
    import jax.numpy as jnp

    stored, others = _fingerprints(facts)
    bits = math.ceil(facts * math.log2(1 / rate) / math.log(2))
    functions = np.arange(round(math.log2(1 / rate)), dtype=np.uint32)

    def places(one: Any) -> Any:
        return (one[..., 0, None] + functions * (one[..., 1, None] | np.uint32(1))) % np.uint32(bits)

    began = time.perf_counter()
    words = np.zeros(-(-bits // 32), np.uint32)
    place = places(stored)
    np.bitwise_or.at(words, place >> 5, np.uint32(1) << (place & np.uint32(31)))
    building = time.perf_counter() - began
    table = jax.device_put(words)

    @jax.jit
    def ask(words: Any, questions: Any) -> Any:
        place = places(questions)
        return jnp.all((words[place >> np.uint32(5)] >> (place & np.uint32(31))) & np.uint32(1) == 1, axis=-1)

    assert np.asarray(ask(table, stored)).all()
    asked = jax.device_put(others)
    answer = lambda: ask(table, asked).block_until_ready()  # noqa: E731
    return _measured(answer, bytes=words.nbytes, building_seconds=building, touched=4 * functions.size)


def table(*, facts: int, rate: float) -> Callable[[], dict[str, Any]]:
    """All 64 bits of every fingerprint, sorted, searched by NumPy; it accepts nothing wrongly."""
    stored, others = (words.view(np.uint64).ravel() for words in _fingerprints(facts))
    began = time.perf_counter()
    ordered = np.sort(stored)
    building = time.perf_counter() - began

    def answer() -> np.ndarray:
        return ordered[np.minimum(np.searchsorted(ordered, others), ordered.size - 1)] == others

    touched = 8 * math.ceil(math.log2(facts))
    return _measured(answer, bytes=ordered.nbytes, building_seconds=building, touched=touched)

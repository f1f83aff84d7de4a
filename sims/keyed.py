"""Random numbers that depend on (seed, stream, index) alone, so that more facts never change the facts there were.

Every number is a SplitMix64 output (Steele, Lea & Flood 2014): a counter times an odd constant, then a bijective
mixer. `stream` is a word that keeps the uses of one seed apart; `index` is the number of a fact, or the hash of a text.

Letters: n indices, w words per index, d normals per index.
"""

import hashlib

import numpy as np
from jaxtyping import Float, Integer, UInt64

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_FEISTEL_ROUNDS = 6


def keyed_words(seed: int, stream: str, index: Integer[np.ndarray, " n"], words: int) -> UInt64[np.ndarray, "n w"]:
    """`words` uniform 64-bit words for each index; row i depends on (seed, stream, index[i]) only."""
    row_key, column_key = _stream_keys(seed, stream)
    rows = mix(index.astype(np.uint64) * _GAMMA + row_key)
    columns = np.arange(1, words + 1, dtype=np.uint64) * _GAMMA + column_key
    return mix(rows[:, None] + columns[None, :])


def keyed_uniforms(seed: int, stream: str, index: Integer[np.ndarray, " n"], count: int) -> Float[np.ndarray, "n w"]:
    """Uniform float64 numbers on the grid {0, ..., 2^53 - 1} / 2^53; never 1."""
    return (keyed_words(seed, stream, index, count) >> np.uint64(11)) * 2.0**-53


def keyed_normals(seed: int, stream: str, index: Integer[np.ndarray, " n"], count: int) -> Float[np.ndarray, "n d"]:
    """Standard normal float32 numbers (Box-Muller on 32-bit halves of a word: no value beyond 6.8).

    They are computed in float64 and rounded, so that a last-digit difference between two mathematical libraries is
    nearly always rounded away.
    """
    words = keyed_words(seed, stream, index, (count + 1) // 2)
    low, high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
    radius = np.sqrt(-2.0 * np.log((high + 0.5) * 2.0**-32))
    angle = 2.0 * np.pi * 2.0**-32 * low
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count].astype(np.float32)


def keyed_order(seed: int, stream: str, count: int) -> Integer[np.ndarray, " n"]:
    """A permutation of range(count), uniform up to the resolution of 64-bit sorting keys."""
    return np.argsort(keyed_words(seed, stream, np.arange(count), 1)[:, 0], kind="stable")


def keyed_permutation(
    seed: int, stream: str, index: Integer[np.ndarray, " n"], domain: int
) -> Integer[np.ndarray, " n"]:
    """The images of `index` under a keyed bijection of range(domain): a Feistel network, walked until it is inside.

    Raises ValueError if an index lies outside range(domain) or the domain is larger than 2^62.
    """
    if not 1 <= domain <= 2**62:
        raise ValueError(f"domain must be between 1 and 2^62, got {domain}")
    if index.size and (index.min() < 0 or index.max() >= domain):
        raise ValueError(f"indices must lie in range({domain})")
    half = np.uint64(max(1, ((domain - 1).bit_length() + 1) // 2))
    images = _feistel(seed, stream, index.astype(np.uint64), half)
    while (outside := images >= domain).any():  # cycle walking keeps it a bijection of range(domain)
        images[outside] = _feistel(seed, stream, images[outside], half)
    return images.astype(np.int64)


def text_hash(text: str, stream: str) -> int:
    """A 64-bit hash of the UTF-8 bytes of `text`, the same on every machine (BLAKE2b, personalized by `stream`)."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=stream.encode()[:16])
    return int.from_bytes(digest.digest(), "little")


def _stream_keys(seed: int, stream: str) -> UInt64[np.ndarray, " 2"]:
    digest = hashlib.blake2b(f"{seed}:{stream}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def mix(words: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """SplitMix64's finalizer, a bijection of 64-bit words (arithmetic modulo 2^64 is meant)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _feistel(seed: int, stream: str, index: UInt64[np.ndarray, " n"], half: np.uint64) -> UInt64[np.ndarray, " n"]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = index >> half, index & mask
    for round_number in range(_FEISTEL_ROUNDS):
        scrambled = keyed_words(seed, f"{stream}/{round_number}", right, 1)[:, 0] & mask
        left, right = right, left ^ scrambled
    return (left << half) | right

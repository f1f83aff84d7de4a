"""Learned queries: what a question is like, so that a paraphrase finds what was stored for another wording.

Two kinds. `QuestionQueries` goes by the text: a question is the set of its words and character 3-grams, each weighed by
the square of its inverse document frequency among the stored questions,

    weight(g) = ln((1 + n) / (questions that hold g))^2,

which leaves next to nothing to the words of a template and nearly all to names; the vector is projected by random signs
(Achlioptas 2003) to a few numbers and scaled to length 1. What no stored question holds has no part in it: it would
only add noise. `HiddenQueries` goes by the backbone's state, whitened: states of one template differ in few directions.

Letters: n questions, d query width, g grams, W width of a state, s states.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Float, Float32, UInt64
from scipy import sparse

from sims.features import gram_hashes
from sims.keyed import keyed_words, text_hash
from theory.console import Refusal

WIDTH = 128
_GRAM = 3
_CHUNK = 8192  # questions weighed at a time, so that memory stays flat
_SHRINKAGE = 1e-3  # of the mean variance, added to each direction before it is divided by
_FORMAT = "words and 3-grams by squared idf, 1"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class QuestionQueries:
    """The map from questions to queries that a set of stored questions defines; nothing in it is trained."""

    grams: UInt64[np.ndarray, " g"]  # hashes of what the stored questions hold, ascending
    weights: Float32[np.ndarray, " g"]
    rarest: float  # the weight of a gram that one stored question holds
    width: int = WIDTH
    seed: int = 0

    @classmethod
    def of(cls, questions: Sequence[str], *, width: int = WIDTH, seed: int = 0) -> "QuestionQueries":
        """The map for these stored questions, which should be distinct."""
        if not questions or width < 1:
            raise ValueError(f"queries need a question and a width of 1 or more, got {len(questions)} and {width}")
        chunks = [_grams(questions[start : start + _CHUNK])[1] for start in range(0, len(questions), _CHUNK)]
        grams, counts = np.unique(np.concatenate(chunks), return_counts=True)
        rarity = np.log1p(len(questions))
        weights = np.square(rarity - np.log(counts)).astype(np.float32)
        return cls(grams, weights, float(rarity**2), width, seed)

    def __call__(self, questions: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Queries of length 1; all zeros for a question that shares nothing with the stored ones."""
        return self.with_known_share(questions)[0]

    def with_known_share(
        self, questions: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, " n"]]:
        """Queries, and the share of each question's squared weight that lies in grams some stored question holds.

        The inner product of two queries times the root of the share is close to the cosine with nothing left out.
        """
        parts = [self._chunk(questions[start : start + _CHUNK]) for start in range(0, max(1, len(questions)), _CHUNK)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and a header of plain JSON values, from which `from_arrays` makes this map."""
        header = {"format": _FORMAT, "rarest": self.rarest, "width": self.width, "seed": self.seed}
        return {"grams": self.grams, "weights": self.weights}, header

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any], source: str = "queries"
    ) -> "QuestionQueries":
        """The map that `to_arrays` took apart; raises Refusal, naming `source`, if the parts do not fit."""
        grams, weights = arrays.get("grams"), arrays.get("weights")
        rarest, width, seed = (header.get(name) for name in ("rarest", "width", "seed"))
        if (
            header.get("format") != _FORMAT
            or grams is None
            or weights is None
            or (grams.dtype, weights.dtype, grams.ndim) != (np.uint64, np.float32, 1)
            or grams.shape != weights.shape
            or not (type(rarest) is float and type(width) is int and width > 0 and type(seed) is int)
            or not np.all(grams[:-1] < grams[1:])
        ):
            raise Refusal(f"{source}: holds no queries of the format {_FORMAT!r}; build the memory again")
        return cls(grams, weights, rarest, width, seed)

    def _chunk(self, questions: Sequence[str]) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, " n"]]:
        rows, hashes = _grams(questions)
        places = np.minimum(np.searchsorted(self.grams, hashes), len(self.grams) - 1)
        known = self.grams[places] == hashes
        unknown_mass = np.bincount(rows[~known], minlength=len(questions)) * self.rarest**2
        rows, places = rows[known], places[known]
        used, columns = np.unique(places, return_inverse=True)
        values = self.weights[places]
        weighed = sparse.csr_array((values, (rows, columns)), shape=(len(questions), len(used)))
        mass = np.bincount(rows, np.square(values, dtype=np.float64), len(questions))
        share = np.divide(mass, mass + unknown_mass, out=np.zeros(len(questions)), where=mass > 0)
        return _unit(weighed @ self._signs(self.grams[used])), share.astype(np.float32)

    def _signs(self, grams: UInt64[np.ndarray, " g"]) -> Float32[np.ndarray, "g d"]:
        """A row of the projection for each gram, the same whatever others there are."""
        words = keyed_words(self.seed, "query projection", grams, -(-self.width // 64))
        bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1, count=self.width, bitorder="little")
        return 1.0 - 2.0 * bits.astype(np.float32)


@tree_util.register_dataclass
@dataclass(frozen=True)
class HiddenQueries:
    """The map from the backbone's states to queries, for one state; callers vmap. A pytree, to be used inside `jit`."""

    mean: Float[Array, " W"]
    whitening: Float[Array, "W W"]

    @classmethod
    def of(cls, states: Float32[np.ndarray, "s W"]) -> "HiddenQueries":
        """Whitening by the states' own mean and covariance, the smallest directions held back (float64 inside)."""
        mean = states.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((states.shape[1],) * 2)
        for start in range(0, len(states), _CHUNK):
            centered = states[start : start + _CHUNK] - mean
            covariance += centered.T @ centered
        variances, directions = np.linalg.eigh(covariance / len(states))
        held_back = np.maximum(variances, 0.0) + max(_SHRINKAGE * variances.mean(), np.finfo(np.float32).tiny)
        whitening = directions / np.sqrt(held_back) @ directions.T
        return cls(jnp.asarray(mean, jnp.float32), jnp.asarray(whitening, jnp.float32))

    def __call__(self, state: Float[Array, " W"]) -> Float[Array, " W"]:
        """A query of length 1."""
        white = self.whitening @ (state - self.mean)
        return white * jax.lax.rsqrt(jnp.maximum(white @ white, jnp.finfo(white.dtype).tiny))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays that `HiddenQueries(**arrays)` takes."""
        return {"mean": np.asarray(self.mean), "whitening": np.asarray(self.whitening)}


def _grams(questions: Sequence[str]) -> tuple[np.ndarray, UInt64[np.ndarray, " g"]]:
    """(row, hash) of every word and 3-gram that a question holds, each once; the ends count as spaces."""
    rows, hashes = gram_hashes([f" {question} " for question in questions], _GRAM)
    words = [_WORD.findall(question) for question in questions]
    number = {word: text_hash(word, "query word") for found in words for word in found}
    word_rows = np.repeat(np.arange(len(questions)), [len(found) for found in words])
    word_hashes = np.array([number[word] for found in words for word in found], dtype=np.uint64)
    rows, hashes = np.concatenate([rows, word_rows]), np.concatenate([hashes, word_hashes])
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (hashes[1:] != hashes[:-1])
    return rows[first], hashes[first]


def _unit(rows: np.ndarray) -> Float32[np.ndarray, "n d"]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

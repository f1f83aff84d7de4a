"""Which questions a memory knows: exactly, by a filter of fingerprints; by likeness, by the nearest stored question.

The filter takes a question that is not stored for a stored one with a chance that is asked for, and never the other
way round. Likeness is the cosine between learned queries; how alike is enough is calibrated on questions held out of
the file itself, so that of unknown questions of the same kind no more than the wanted share is accepted.

Letters: n stored questions, q asked ones, d numbers of a query, t tokens of a question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32, UInt32

from mome_jax.cuckoo import CuckooFilter, build_filter, contains
from mome_jax.gate import calibrate
from mome_jax.saving import load, save
from sims.keyed import keyed_order
from sims.memory.addressing import Asked, question_fingerprint
from sims.memory.files import refusals
from sims.memory.folder import Folder, Settings
from sims.memory.queries import QuestionQueries
from sims.tokens import BYTES
from theory.console import Refusal

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.2, 2000
_AT_ONCE = 2048  # questions compared with all stored ones together
_TOKENS_AT_ONCE = 2**22  # of questions whose fingerprints are computed together


@dataclass(frozen=True, eq=False)
class Index:
    """What is known of the stored questions, in their order."""

    identities: UInt32[np.ndarray, "n 2"]
    filter: CuckooFilter
    queries: QuestionQueries
    vectors: Float32[np.ndarray, "n d"]
    radius: float  # likeness above which a question counts as a paraphrase; infinite where none does

    @classmethod
    def of(cls, questions: Sequence[str], settings: Settings, queries: QuestionQueries | None = None) -> "Index":
        """The index of these stored questions; `queries`: the map to keep, where addresses depend on it."""
        queries = queries or QuestionQueries.of(questions, seed=settings.seed)
        identities = fingerprints_of(questions, settings.seed)
        radius = np.inf
        if settings.addresses != "exact":
            radius = calibrated_radius(questions, settings.false_acceptance, settings.seed)
        return cls(identities, _filter_of(identities, settings), queries, queries(questions), float(radius))

    def stored(self) -> Asked:
        """The stored questions as they are when their facts are written."""
        yes = np.ones(len(self.identities), bool)
        return Asked(self.identities, self.vectors, yes, yes)  # pyright: ignore[reportArgumentType]

    def asked(self, questions: Sequence[str], settings: Settings) -> Asked:
        """What each question is taken for; NumPy arrays.

        One that is not stored is read with the vector of the stored question nearest to it; with nearest addresses it
        takes its identity as well.
        """
        own = fingerprints_of(questions, settings.seed)
        inside = self.holds(own, settings)
        if settings.addresses == "exact":
            vectors = np.zeros((len(questions), self.queries.width), np.float32)
            return Asked(own, vectors, inside, inside)  # pyright: ignore[reportArgumentType]
        vectors, share = self.queries.with_known_share(questions)
        nearest, likeness = self.nearest(vectors, 1)
        known = inside | (likeness[:, 0] * np.sqrt(share) > self.radius)
        vectors = np.where(inside[:, None], vectors, self.vectors[nearest[:, 0]])
        if settings.addresses != "nearest":
            return Asked(own, vectors, inside, known)  # pyright: ignore[reportArgumentType]
        identities = np.where(inside[:, None], own, self.identities[nearest[:, 0]])
        return Asked(identities, vectors, known, known)  # pyright: ignore[reportArgumentType]

    def holds(self, identities: UInt32[np.ndarray, "q 2"], settings: Settings) -> Bool[np.ndarray, " q"]:
        """Which identities count as those of stored questions.

        By the filter with exact addresses. Likeness needs the stored questions themselves, so that they are compared.
        """
        if settings.addresses == "exact":
            return np.asarray(_contains(self.filter, jnp.asarray(identities)))
        return np.isin(_words(identities), _words(self.identities))

    def nearest(
        self, vectors: Float32[np.ndarray, "q d"], count: int
    ) -> tuple[Int[np.ndarray, "q c"], Float32[np.ndarray, "q c"]]:
        """The `count` stored questions most like each of these, best first, and how like they are (cosine)."""
        return most_alike(vectors, self.vectors, count)

    def with_change(self, place: int, before: str | None, after: str | None, settings: Settings) -> "Index":
        """The index with the question `after`, if any, in the place of the question `before`, if any.

        The map of queries and the radius stay.
        """
        identities, vectors = self.identities, self.vectors
        if before is not None:
            identities, vectors = (np.delete(rows, place, axis=0) for rows in (identities, vectors))
        if after is not None:
            new = fingerprints_of([after], settings.seed), self.queries([after])
            identities, vectors = (
                np.insert(rows, place, row[0], axis=0) for rows, row in zip((identities, vectors), new, strict=True)
            )
        known = _filter_of(identities, settings)
        return Index(identities, known, self.queries, vectors, self.radius)

    def write(self, path: Path) -> None:
        """Write it to a file, in the place of one that is there."""
        arrays, header = self.queries.to_arrays()
        arrays |= {"identities": self.identities, "vectors": self.vectors, "filter": np.asarray(self.filter.words)}
        sizes = {"buckets": self.filter.buckets, "tags": self.filter.tags}
        radius = None if np.isinf(self.radius) else self.radius
        save(path, arrays, {"queries": header, "filter": sizes, "radius": radius}, overwrite=True)

    @classmethod
    def read(cls, folder: Folder) -> "Index":
        """The index that `write` wrote; raises Refusal if the file cannot be used."""
        with refusals():
            arrays, header = load(folder.index)
        try:
            sizes: Any = header["filter"]
            words = CuckooFilter(jnp.asarray(arrays["filter"]), int(sizes["buckets"]), int(sizes["tags"]))
            queries = QuestionQueries.from_arrays(arrays, header["queries"], str(folder.index))
            radius = np.inf if header["radius"] is None else float(header["radius"])
            return cls(arrays["identities"], words, queries, arrays["vectors"], radius)
        except (KeyError, TypeError) as error:
            raise Refusal(f"{folder.index}: is no index of questions ({error}); restore it from a copy") from None


def fingerprints_of(questions: Sequence[str], seed: int) -> UInt32[np.ndarray, "q 2"]:
    """The fingerprint of each question and ASK."""
    lengths = np.array([len(question.encode()) + 1 for question in questions], np.int64)
    # One width for nearly all files, one size for many questions: the scan compiles once.
    widths = np.maximum(256, 1 << np.ceil(np.log2(lengths)).astype(np.int64))
    found = np.zeros((len(questions), 2), np.uint32)
    for width in np.unique(widths).tolist():
        alike = np.flatnonzero(widths == width)
        size = 1 if len(alike) == 1 else max(1, min(_AT_ONCE, _TOKENS_AT_ONCE // width))
        for start in range(0, len(alike), size):
            rows: list[int] = alike[start : start + size].tolist()
            tokens, counts = question_tokens([questions[row] for row in rows])
            tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
            filled = np.resize(np.arange(len(rows)), size)
            some = _fingerprints(jnp.asarray(tokens[filled]), jnp.asarray(counts[filled]), seed)
            found[rows] = np.asarray(some)[: len(rows)]
    return found


def question_tokens(questions: Sequence[str]) -> tuple[Int32[np.ndarray, "q t"], Int32[np.ndarray, " q"]]:
    """The bytes of each question and ASK, which also fills the rows; and how many that is.

    Questions are told apart by their bytes, whatever tokens the frozen model reads.
    """
    encoded = [np.frombuffer(question.encode(), np.uint8) for question in questions]
    lengths = np.array([len(text) + 1 for text in encoded], np.int32)
    tokens = np.full((len(questions), int(lengths.max(initial=1))), BYTES.ask, np.int32)
    for row, text in enumerate(encoded):
        tokens[row, : len(text)] = text
    return tokens, lengths


def calibrated_radius(questions: Sequence[str], rate: float, seed: int) -> float:
    """The likeness that at most a share `rate` of unknown questions of this kind exceed; infinite if too few to tell.

    Some questions are held out and compared with the rest, through the queries that the rest defines.
    """
    order: list[int] = keyed_order(seed, "held out to calibrate", len(questions)).tolist()
    wanted = max(_HELD_OUT_SHARE * len(questions), np.ceil(1.0 / rate))  # fewer could not tell
    count = min(_MOST_HELD_OUT, int(wanted), len(questions) // 2)
    if count < 1.0 / rate:
        return np.inf
    rest = [questions[row] for row in order[count:]]
    queries = QuestionQueries.of(rest, seed=seed)
    vectors, share = queries.with_known_share([questions[row] for row in order[:count]])
    _, likeness = most_alike(vectors, queries(rest), 1)
    return calibrate(likeness[:, 0] * np.sqrt(share), rate).threshold


def most_alike(
    vectors: Float32[np.ndarray, "q d"], among: Float32[np.ndarray, "n d"], count: int
) -> tuple[Int[np.ndarray, "q c"], Float32[np.ndarray, "q c"]]:
    """Rows of `among` of the largest inner products with each vector, best first, and the products."""
    count = min(count, len(among))
    found, likeness = (np.zeros((len(vectors), count), kind) for kind in (np.int64, np.float32))
    for start in range(0, len(vectors), _AT_ONCE):
        scores = vectors[start : start + _AT_ONCE] @ among.T
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found[start : start + _AT_ONCE] = np.take_along_axis(best, order, axis=1)
        likeness[start : start + _AT_ONCE] = np.take_along_axis(values, order, axis=1)
    return found, likeness


def _filter_of(identities: UInt32[np.ndarray, "n 2"], settings: Settings) -> CuckooFilter:
    """The filter of these questions."""
    with refusals():
        return build_filter(identities, settings.false_acceptance)


def _words(identities: UInt32[np.ndarray, "q 2"]) -> np.ndarray:
    """Each identity as one number of 64 bits."""
    return np.ascontiguousarray(identities).view(np.uint64)[:, 0]


@jax.jit
def _contains(filter: CuckooFilter, identities: UInt32[Array, "q 2"]) -> Array:
    return jax.vmap(contains, (None, 0))(filter, identities)


@partial(jax.jit, static_argnames="seed")
def _fingerprints(tokens: Int32[Array, "q t"], lengths: Int32[Array, " q"], seed: int) -> UInt32[Array, "q 2"]:
    return jax.vmap(lambda row, length: question_fingerprint(row, length, seed))(tokens, lengths)

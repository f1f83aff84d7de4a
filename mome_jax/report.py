"""What can be said before facts are written, from their selections alone, and what is said afterwards.

Letters: M experts, k chosen per query, n queries to write, S the n x M matrix of their weights, v value width. Rows are
named by their index, so that the caller can name the facts. This module measures; it knows no thresholds of theory.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mome_jax.conditioning import (
    Numbers,
    Sharing,
    SingularValues,
    StructuralRank,
    selection_matrix,
    sharing,
    singular_values,
    size,
    structural_rank,
)
from mome_jax.index import Selection

_PAIRS = 2**22  # candidate pairs that are looked at, at most
_CHUNK = 2**17  # pairs compared at once


@dataclass(frozen=True)
class Pairs:
    """Pairs of queries by index, first < second, with the cosine of their rows of S."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    cosine: NDArray[np.float64]
    complete: bool = True  # False where the budget ended before all candidates were compared


@dataclass(frozen=True)
class BeforeWriting:
    """A batch of selections, measured before it is written. The fields speak of queries 0 to n - 1."""

    queries: int
    experts: int
    experts_per_query: int
    sharing: Sharing
    rank: StructuralRank
    singular_values: SingularValues | None  # of the rows that differ; None where no query reads an expert
    unwritable: NDArray[np.int64]  # queries that read no expert but the null one
    equal: Pairs  # each query with the first one that has exactly its row
    near: Pairs  # of those left, pairs whose rows have a cosine above the limit
    impossible: Pairs | None  # equal rows with different targets; None where no targets were given


def before_writing(
    selection: Selection, experts: int, targets: Numbers | None = None, *, near_cosine: float = 0.999
) -> BeforeWriting:
    """Measure a batched selection [n k] among M `experts`; `targets` [n v] or labels [n] tell impossible pairs.

    Equal rows with equal targets do no harm to solvers, so the singular values are those of the different rows.

    Some seconds for a million selected weights, most of them for the singular values; no step
    grows with n^2 or M n. Raises ValueError for ids out of range, weights that are not finite, targets that are not one
    per query, and n = 0.
    """
    matrix = selection_matrix(selection, experts)
    n = size(matrix)[0]
    if n == 0:
        raise ValueError("a report needs at least one query, got none")
    first, reads = first_equal(matrix), np.diff(matrix.indptr) > 0
    different = np.flatnonzero(reads & (first == np.arange(n)))
    return BeforeWriting(
        queries=n,
        experts=experts,
        experts_per_query=selection.experts.shape[-1],
        sharing=sharing(matrix),
        rank=structural_rank(matrix),
        singular_values=singular_values(matrix[different]) if different.size else None,
        unwritable=np.flatnonzero(~reads),
        equal=_beside_first(first, first != np.arange(n)),
        near=near_pairs(matrix, near_cosine),
        impossible=None if targets is None else impossible_pairs(first, targets),
    )


def first_equal(matrix: csr_array) -> NDArray[np.int64]:
    """For each row of S the index of the first row equal to it, [n]; O(entries).

    Rows are grouped by a 64-bit hash and then compared; a row whose hash collides with that of a different one
    (chance below n^2 / 2^65) counts as equal to none.

    >>> first_equal(csr_array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    array([0, 1, 0])
    """
    n = size(matrix)[0]
    entries = _mix(matrix.indices.astype(np.uint64) + np.uint64(1)) * _mix(matrix.data.view(np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mix(entries), dtype=np.uint64)])
    _, places, groups = np.unique(np.diff(sums[matrix.indptr]), return_index=True, return_inverse=True)
    first = places[groups].astype(np.int64)
    unequal = (matrix[first] - matrix).tocsr()
    unequal.eliminate_zeros()
    return np.where(np.diff(unequal.indptr) == 0, first, np.arange(n))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words (the finalizer of MurmurHash3), made odd so that a product loses no bits."""
    words = (words ^ (words >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    words = (words ^ (words >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return (words ^ (words >> np.uint64(33))) | np.uint64(1)


def _beside_first(first: NDArray[np.int64], named: NDArray[np.bool_]) -> Pairs:
    second = np.flatnonzero(named)
    return Pairs(first[second], second, np.ones(second.size))


def impossible_pairs(first: NDArray[np.int64], targets: Numbers) -> Pairs:
    """Queries whose row equals an earlier one's but whose target differs: no bank answers both; `first` [n] as above.

    Each is paired with the first query of its row. Targets are vectors [n v] or labels [n].

    >>> impossible_pairs(np.array([0, 1, 0, 0]), [7, 8, 7, 9]).second
    array([3])
    """
    wanted = np.asarray(targets)
    if wanted.shape[:1] != first.shape:
        raise ValueError(f"targets need one row per query: {first.size}, got the shape {wanted.shape}")
    differs = (wanted != wanted[first]).reshape(first.size, -1).any(axis=1)
    return _beside_first(first, differs)


def near_pairs(matrix: csr_array, cosine: float, *, pairs_at_most: int = _PAIRS) -> Pairs:
    """All pairs of different rows of S whose cosine is at least this, found without n^2 comparisons.

    Prefix filtering (Bayardo, Ma and Srikant 2007): with experts ordered from the least to the most chosen, two rows
    can reach the cosine only if they share an expert before the rest of either row has less than that norm. Equal rows
    are looked at once, by their first index. If more than `pairs_at_most` candidates share such experts, those of the
    most chosen experts are left out and `complete` is False. Raises ValueError unless 0 < cosine <= 1.
    """
    if not 0.0 < cosine <= 1.0:
        raise ValueError(f"cosine must be in (0, 1], got {cosine}")
    rows = np.flatnonzero((first_equal(matrix) == np.arange(size(matrix)[0])) & (np.diff(matrix.indptr) > 0))
    unit = matrix[rows]
    unit.data /= np.sqrt(np.repeat(unit.multiply(unit).sum(axis=1), np.diff(unit.indptr)))
    row, rarity = _prefixes(unit, cosine)
    first, second, complete = _sharing_pairs(row, rarity, pairs_at_most)
    cosines = np.concatenate(
        [np.zeros(0)]
        + [
            unit[first[at : at + _CHUNK]].multiply(unit[second[at : at + _CHUNK]]).sum(axis=1)
            for at in range(0, first.size, _CHUNK)
        ]
    )
    near = cosines >= cosine
    return Pairs(rows[first[near]], rows[second[near]], np.minimum(cosines[near], 1.0), complete)


def _prefixes(unit: csr_array, cosine: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, rank of the expert from the least chosen) of the entries from which on a row still has norm >= cosine."""
    chosen_by = np.bincount(unit.indices, minlength=size(unit)[1])
    rank = np.empty(size(unit)[1], np.int64)
    rank[np.argsort(chosen_by, kind="stable")] = np.arange(size(unit)[1])
    row = np.repeat(np.arange(size(unit)[0]), np.diff(unit.indptr))
    order = np.lexsort((rank[unit.indices], row))  # within a row, rarest expert first
    passed = np.concatenate([[0.0], np.cumsum(unit.data[order] ** 2)])
    before = passed[:-1] - passed[unit.indptr[:-1]][row]
    kept = 1.0 - before >= cosine**2 - 1e-9  # the sums are rounded
    return row[kept], rank[unit.indices[order]][kept]


def _sharing_pairs(
    row: NDArray[np.int64], expert: NDArray[np.int64], pairs_at_most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Distinct pairs of rows with an expert in common, from the experts with the fewest pairs, within the budget."""
    _, group, size = np.unique(expert, return_inverse=True, return_counts=True)
    smallest = np.argsort(size, kind="stable")
    pairs = np.cumsum((size * (size - 1) // 2)[smallest])
    affordable = np.zeros(size.size, np.bool_)
    affordable[smallest[pairs <= pairs_at_most]] = True
    row, group = row[affordable[group]], group[affordable[group]]
    order = np.lexsort((row, group))
    row, group = row[order], group[order]
    found, start, apart = [np.zeros((0, 2), np.int64)], np.arange(row.size), 0
    while start.size:
        apart += 1
        start = start[start + apart < row.size]
        start = start[group[start] == group[start + apart]]
        found.append(np.stack([row[start], row[start + apart]], axis=1))
    first, second = np.unique(np.concatenate(found), axis=0).T
    return first, second, bool(affordable.all())


@dataclass(frozen=True)
class AfterWriting:
    """Each fact after writing: its largest token loss, whether every token is under its threshold, and its passes."""

    loss_nats: NDArray[np.float64]
    stored: NDArray[np.bool_]
    passes: NDArray[np.int64]

    @property
    def facts(self) -> int:
        """Number of facts."""
        return self.stored.size

    @property
    def failed(self) -> NDArray[np.int64]:
        """The facts that are not stored, by index."""
        return np.flatnonzero(~self.stored)

    @property
    def summary(self) -> dict[str, float | int]:
        """Facts, stored facts, mean and largest loss of a fact in nats, mean and largest number of passes."""
        return {
            "facts": self.facts,
            "stored": int(self.stored.sum()),
            "mean_loss_nats": float(self.loss_nats.mean()),
            "largest_loss_nats": float(self.loss_nats.max()),
            "mean_passes": float(self.passes.mean()),
            "largest_passes": int(self.passes.max()),
        }


def after_writing(
    loss_nats: Numbers, threshold_nats: Numbers, passes: Numbers = 0, facts: Numbers | None = None
) -> AfterWriting:
    """Gather token losses [t] into facts; `facts` [t] numbers each token's fact 0 to n - 1 (default: a fact a token).

    A fact is stored when every token's loss is strictly below its threshold; NaN is not. Thresholds and passes are per
    token or one for all; a fact's passes are its slowest token's. Raises ValueError where the shapes differ, or a
    fact has no token.

    >>> after_writing([0.1, 0.9, 0.2], 0.6931, facts=[0, 0, 1]).stored
    array([False,  True])
    """
    losses = np.asarray(loss_nats, np.float64)
    thresholds = np.broadcast_to(np.asarray(threshold_nats, np.float64), losses.shape)
    token_passes = np.broadcast_to(np.asarray(passes, np.int64), losses.shape)
    fact = np.arange(losses.size) if facts is None else np.asarray(facts, np.int64)
    if losses.ndim != 1 or fact.shape != losses.shape or losses.size == 0:
        raise ValueError(f"token losses and their facts must be [t], got {losses.shape} and {fact.shape}")
    tokens = np.bincount(fact)
    if (tokens == 0).any():
        raise ValueError(f"fact {int(np.argmin(tokens))} has no token; number the facts 0 to {tokens.size - 1}")
    largest, slowest = np.full(tokens.size, -np.inf), np.zeros(tokens.size, np.int64)
    stored = np.ones(tokens.size, np.bool_)
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        np.maximum.at(largest, fact, losses)
    np.maximum.at(slowest, fact, token_passes)
    np.logical_and.at(stored, fact, losses < thresholds)
    return AfterWriting(largest, stored, slowest)

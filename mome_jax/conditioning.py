"""The matrix of a batch of selections: how well a linear system S V = T can be solved, measured before it is.

Letters: M experts, k chosen per query, n queries to write, S the n x M matrix of their weights. Storing arbitrary
outputs needs S of rank n; how fast an iterative solver stores them is governed by the condition number of S; G = S S^T
tells which facts share experts. Everything is float64 on the host; nothing here changes a bank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import structural_rank as maximum_matching

from mome_jax.index import NULL, Selection

Numbers = Array | np.ndarray | Sequence[Any] | float | int  # what NumPy makes an array of

_DENSE_ENTRIES = 2**20  # of S: singular values are computed exactly up to here (1024 x 1024: half a second)
_MATCHED_ENTRIES = 2**25  # of S: the structural rank is computed exactly up to here (seconds)
_STEPS, _WORK = 200, 2**30  # of the estimate: steps and multiplications at most
_CHECKED_EVERY, _CHANGE = 20, 0.001  # it ends when so many steps change it by less than this share


def size(matrix: csr_array) -> tuple[int, int]:
    """(n, M) of a matrix."""
    return cast(tuple[int, int], matrix.shape)


def selection_matrix(selection: Selection, experts: int) -> csr_array:
    """S [n M], sparse: row i has the weights with which query i reads; an expert chosen twice has the sum of both.

    The null expert has no column and a weight of 0 no entry. Raises ValueError naming the row where an id is neither
    an expert nor the null expert, or a weight is not finite.

    >>> import numpy as np
    >>> both = Selection(np.array([[2, 0], [1, -1]]), np.array([[0.75, 0.25], [1.0, 0.0]]))
    >>> selection_matrix(both, 3).toarray()
    array([[0.25, 0.  , 0.75],
           [0.  , 1.  , 0.  ]])
    """
    ids, weights = np.asarray(selection.experts), np.asarray(selection.weights).astype(np.float64)
    if ids.ndim != 2 or ids.shape != weights.shape:
        raise ValueError(f"a batched selection is [n k], got experts {ids.shape} and weights {weights.shape}")
    for wrong, what in (((ids < NULL) | (ids >= experts), "expert"), (~np.isfinite(weights), "weight")):
        if wrong.any():
            row, place = (int(index[0]) for index in np.nonzero(wrong))
            value = (ids if what == "expert" else weights)[row, place]
            raise ValueError(
                f"query {row} has the {what} {value}; wanted are finite weights of experts 0 to {experts - 1}"
            )
    row, place = np.nonzero((ids != NULL) & (weights != 0.0))
    matrix = coo_array((weights[row, place], (row, ids[row, place])), shape=(ids.shape[0], experts)).tocsr()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


@dataclass(frozen=True)
class Sharing:
    """How queries share experts: plain counts."""

    load: float  # n/M
    touched: int  # experts that any query chose
    private: int  # queries with an expert that no other query chose
    most_shared: int  # queries on the most chosen expert


def sharing(matrix: csr_array) -> Sharing:
    """Load and counts of shared experts.

    >>> sharing(csr_array([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
    Sharing(load=0.5, touched=2, private=1, most_shared=2)
    """
    n, experts = size(matrix)
    chosen_by = np.bincount(matrix.indices, minlength=experts)
    return Sharing(n / experts, int((chosen_by > 0).sum()), _private(matrix, chosen_by), int(chosen_by.max(initial=0)))


def _private(matrix: csr_array, chosen_by: NDArray[np.int64]) -> int:
    alone = np.concatenate([[0], np.cumsum(chosen_by[matrix.indices] == 1)])
    return int((np.diff(alone[matrix.indptr]) > 0).sum())


@dataclass(frozen=True)
class StructuralRank:
    """The rank of a matrix with these entries for almost all values of them; bounds where it was too large to match."""

    lower: int
    upper: int

    @property
    def exact(self) -> bool:
        """Whether a maximum matching of queries and experts was computed."""
        return self.lower == self.upper


def structural_rank(matrix: csr_array, *, entries_at_most: int = _MATCHED_ENTRIES) -> StructuralRank:
    """The largest number of queries that can be matched with experts of their own (Hopcroft and Karp 1973).

    With more entries than `entries_at_most` only bounds: private experts from below, touched ones from above.
    Special weights can have a lower rank: two queries with equal rows do.

    >>> structural_rank(csr_array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]))
    StructuralRank(lower=2, upper=2)
    """
    if matrix.nnz == 0:
        return StructuralRank(0, 0)
    if matrix.nnz <= entries_at_most:
        rank = int(maximum_matching(matrix))
        return StructuralRank(rank, rank)
    writable = int((np.diff(matrix.indptr) > 0).sum())
    counts = sharing(matrix)
    return StructuralRank(counts.private, min(writable, counts.touched))


@dataclass(frozen=True)
class SingularValues:
    """The largest and the n-th singular value of S.

    Where they are not exact they are the extreme Ritz values after `steps` steps: `largest` is then too small,
    `smallest` too large, and so `condition` too small, each up to rounding.
    """

    largest: float
    smallest: float
    exact: bool
    steps: int

    @property
    def condition(self) -> float:
        """largest/smallest: infinite where some outputs cannot be stored."""
        return self.largest / self.smallest if self.smallest > 0.0 else np.inf


def singular_values(
    matrix: csr_array, *, dense_entries: int = _DENSE_ENTRIES, steps: int = _STEPS, work: int = _WORK
) -> SingularValues:
    """The extreme singular values of S: exact where the matrix of touched experts is small, else by Lanczos.

    The estimate is the Golub-Kahan bidiagonalization from a fixed random start, without reorthogonalization, until 20
    more steps change both values by less than 0.1 %, or after `steps` steps, or `work` multiplications.
    Seen: condition numbers up to 70 at most 6 % too small, of 150 to 260 by up to a third. Values below
    eps * max(n, M) * largest count as 0. Raises ValueError for an empty matrix.
    """
    n, _ = size(matrix)
    if n == 0 or matrix.nnz == 0:
        raise ValueError(f"singular values need queries that read experts, got {n} queries, {matrix.nnz} weights")
    touched, column = np.unique(matrix.indices, return_inverse=True)
    compact = csr_array((matrix.data, column.astype(np.int32), matrix.indptr), shape=(n, touched.size))
    taken, exact = 0, n * touched.size <= dense_entries
    if exact:
        values = np.linalg.svdvals(compact.toarray())
    else:
        values, taken = _ritz_values(compact, max(2, min(steps, n, work // (2 * matrix.nnz))))
    largest, smallest = float(values[0]), float(values[min(n, values.size) - 1])
    rounding = np.finfo(np.float64).eps * max(size(matrix)) * largest
    full = n <= touched.size and smallest > rounding
    return SingularValues(largest, smallest if full else 0.0, exact, taken)


def _ritz_values(matrix: csr_array, steps: int) -> tuple[NDArray[np.float64], int]:
    """Singular values of the lower bidiagonal L in S^T U = W L^T, and its size; U spans a Krylov space of S S^T."""
    transposed = matrix.T
    u = np.random.default_rng(0).standard_normal(size(matrix)[0])
    u /= np.linalg.norm(u)
    v, alphas, betas, values = np.zeros(size(matrix)[1]), [], [0.0], np.zeros(0)
    for step in range(1, steps + 1):
        v = transposed @ u - betas[-1] * v
        alphas.append(float(np.linalg.norm(v)))
        v /= alphas[-1] or 1.0
        u = matrix @ v - alphas[-1] * u
        betas.append(float(np.linalg.norm(u)))
        u /= betas[-1] or 1.0
        ended = min(alphas[-1], betas[-1]) <= 1e-14 * max(alphas)  # the space is invariant
        if ended or step == steps or step % _CHECKED_EVERY == 0:
            last, values = values, _bidiagonal_values(alphas, betas[1:-1])
            if ended or (last.size and np.allclose(last[[0, -1]], values[[0, -1]], rtol=_CHANGE, atol=0.0)):
                break
    return values, len(alphas)


def _bidiagonal_values(diagonal: list[float], below: list[float]) -> NDArray[np.float64]:
    """Singular values, descending: the positive eigenvalues of the tridiagonal matrix of Golub and Kahan (1965)."""
    beside = np.zeros(2 * len(diagonal) - 1)
    beside[::2], beside[1::2] = diagonal, below
    values = eigvalsh_tridiagonal(np.zeros(beside.size + 1), beside)
    return np.abs(values[: len(diagonal) - 1 : -1])


@dataclass(frozen=True)
class Interference:
    """For one query, the others that share experts with it, strongest first: |G_ij| / G_ii with G = S S^T.

    A least-norm write that changes the output of the query by a vector changes that of the other by at most this
    share of it (for single queries: exactly this share).
    """

    queries: NDArray[np.int64]
    shares: NDArray[np.float64]


def interference(matrix: csr_array, query: int, top: int = 8) -> Interference:
    """The `top` queries that writing this one would move most. Raises ValueError for a query that reads no expert.

    >>> interference(csr_array([[1.0, 1.0, 0.0], [0.0, 0.5, 1.0], [0.0, 0.0, 1.0]]), 0)
    Interference(queries=array([1]), shares=array([0.25]))
    """
    if not 0 <= query < size(matrix)[0]:
        raise ValueError(f"query must be between 0 and {size(matrix)[0] - 1}, got {query}")
    row = matrix[[query]]
    own = float(row.multiply(row).sum())
    if own == 0.0:
        raise ValueError(f"query {query} reads no expert, so it cannot be written")
    products = coo_array(matrix @ row.T)
    others = (products.coords[0] != query) & (products.data != 0.0)
    queries, shares = products.coords[0][others].astype(np.int64), np.abs(products.data[others]) / own
    order = np.lexsort((queries, -shares))[:top]
    return Interference(queries[order], shares[order])

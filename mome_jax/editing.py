"""Insert, change and delete single facts; which other facts move, before and after; undo.

An edit is planned without writing (`insert`, `change`, `delete`), then written (`apply`) and, if wanted, taken back
bit for bit (`undo`). The change of the values is of least norm in float64, rounded once to the type of the bank.

Letters: t tokens of the fact, k experts per token, v value width; A [t r] the weights of the fact on the r rows that
may change, E [t v] what is missing from its outputs, W [r t] with change = W E; B [p r] the weights of the protected
tokens, so B W = 0; b the weights of any one token. Without protection W is the pseudo-inverse of A, and for one token
|b W| = |G_ij|/G_ii, G = S S^T.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from mome_jax.conditioning import Numbers
from mome_jax.fact_rows import FactRows, Tokens
from mome_jax.index import NULL, Selection

Floats = NDArray[np.float64]

_RANK = 1e-6  # singular values below this share of the largest count as zero: the weights are float32
_MOST_NUMBERS = 2**23  # of the matrix of protected tokens and rows (64 MiB; a minute)


@runtime_checkable
class Rows(Protocol):
    """A bank of M value vectors whose rows can be read and written: one in memory, or on disk."""

    @property
    def experts(self) -> int:
        """Number of experts M."""
        ...

    def read_rows(self, experts: NDArray[np.int64]) -> np.ndarray:
        """The rows [r v] of these different experts [r], in the type of the bank."""
        ...

    def write_rows(self, experts: NDArray[np.int64], rows: np.ndarray) -> None:
        """Put rows [r v] of the type of the bank at these different experts [r]; all of them or none."""
        ...


class InMemory:
    """Values [M v] on a device. `values` is the bank as it is now; arrays it was before an `apply` are consumed."""

    def __init__(self, values: Float[Array, "M v"]) -> None:
        self.values = values

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.values.shape[0]

    def read_rows(self, experts: NDArray[np.int64]) -> np.ndarray:
        """The rows [r v] of experts [r]."""
        return np.asarray(_taken(self.values, jnp.asarray(self._padded(experts))))[: experts.size]

    def write_rows(self, experts: NDArray[np.int64], rows: np.ndarray) -> None:
        """Put rows [r v] at experts [r], in the buffer of the values."""
        padded = self._padded(experts)
        filled = np.zeros((padded.size, rows.shape[1]), rows.dtype)
        filled[: rows.shape[0]] = rows
        self.values = _put(self.values, jnp.asarray(padded), jnp.asarray(filled))

    def _padded(self, experts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Experts, and then M, which is nobody's, up to a power of two: few shapes are few compilations."""
        padded = np.full(1 << max(3, (experts.size - 1).bit_length()), self.experts, np.int32)
        padded[: experts.size] = experts
        return padded


@jax.jit
def _taken(values: Float[Array, "M v"], experts: Int32[Array, " r"]) -> Float[Array, "r v"]:
    return values.at[experts].get(mode="clip")


@partial(jax.jit, donate_argnums=0)
def _put(values: Float[Array, "M v"], experts: Int32[Array, " r"], rows: Float[Array, "r v"]) -> Float[Array, "M v"]:
    return values.at[experts].set(rows, mode="drop")


@dataclass(frozen=True)
class Moved:
    """The other facts that read a row which changes, ascending; all others read the same bits as before.

    Distances are Euclidean, of a fact's most moved token.
    """

    facts: NDArray[np.int64]
    shares: Floats  # |b W|, known from the selections alone; for single tokens |G_ij|/G_ii
    at_most: Floats  # |b W| |E| + what rounding the rows adds: no fact can move farther
    distances: Floats  # how far the outputs move, from the rows as they are stored


@dataclass(frozen=True)
class Edit:
    """A planned change of a few rows and of the index; nothing is written before `apply`."""

    fact: int
    old_selection: Selection | None  # in NumPy arrays; None where the fact is new
    new_selection: Selection | None  # None where the fact is deleted
    experts: NDArray[np.int64]  # [r] the rows that may change
    before: np.ndarray  # [r v] in the type of the bank
    after: np.ndarray
    missed: float  # largest distance of the fact's outputs from the targets, from the rows as they will be stored
    moved: Moved
    protected: NDArray[np.int64]

    @property
    def protected_distance(self) -> float:
        """How far the most moved protected fact moves: only rounding of the rows can move it."""
        return float(self.moved.distances[np.isin(self.moved.facts, self.protected)].max(initial=0.0))


def insert(
    bank: Rows,
    index: FactRows,
    fact: int,
    selection: Selection,
    targets: Numbers,
    *,
    protected: Numbers = (),
    spread: bool = False,
) -> Edit:
    """Plan a new fact: the outputs of its tokens' selections [t k] become the targets [t v]. See `change`.

    >>> bank, index = InMemory(jnp.zeros((4, 2))), FactRows([0], Selection(np.array([[0, 1]]), np.array([[0.5, 0.5]])))
    >>> plan = insert(bank, index, 1, Selection(np.array([[1, 2]]), np.array([[0.6, 0.8]])), [[1.0, 2.0]])
    >>> apply(plan, bank, index)
    >>> np.asarray(bank.values)[1:3].round(3), plan.moved.facts, plan.moved.shares.round(3)
    (array([[0.6, 1.2],
           [0.8, 1.6]], dtype=float32), array([0]), array([0.3]))
    """
    given = index.acceptable(fact, selection)
    return _planned(bank, index, fact, None, given, targets, protected, spread)


def change(
    bank: Rows, index: FactRows, fact: int, targets: Numbers, *, protected: Numbers = (), spread: bool = False
) -> Edit:
    """Plan other outputs [t v] for a stored fact, by the least-norm change of its own rows.

    The outputs of `protected` facts stay, up to rounding: what they leave free is used, and where that does not
    suffice `missed` says by how much the targets are missed. With `spread` all rows of the protected tokens that share
    one with the fact may change, which nearly always suffices, but may move facts that share rows with those only.
    Tokens with (nearly) equal selections are one equation: different targets for them are missed. Raises ValueError for
    unknown facts, targets of another shape or not finite, and protection of too many tokens to solve for at once.
    """
    selection = index.selection(fact)
    return _planned(bank, index, fact, selection, selection, targets, protected, spread)


def delete(bank: Rows, index: FactRows, fact: int, *, protected: Numbers = (), spread: bool = False) -> Edit:
    """Plan to forget a fact: its outputs become 0, so that the state passes, and the index drops it. See `change`."""
    return _planned(bank, index, fact, index.selection(fact), None, None, protected, spread)


def apply(edit: Edit, bank: Rows, index: FactRows) -> None:
    """Write a planned edit. Raises ValueError, and writes nothing, if its rows have changed since it was planned."""
    _replace(edit, bank, index, edit.before, edit.after, edit.old_selection, edit.new_selection)


def undo(edit: Edit, bank: Rows, index: FactRows) -> None:
    """Put back the bits that an applied edit replaced. Raises ValueError if its rows have changed since."""
    _replace(edit, bank, index, edit.after, edit.before, edit.new_selection, edit.old_selection)


def _replace(
    edit: Edit,
    bank: Rows,
    index: FactRows,
    expected: np.ndarray,
    rows: np.ndarray,
    old: Selection | None,
    new: Selection | None,
) -> None:
    if (edit.fact in index) != (old is not None):
        raise ValueError(f"fact {edit.fact} was inserted or deleted meanwhile: plan the edit again")
    if edit.experts.size and bank.read_rows(edit.experts).tobytes() != expected.tobytes():
        raise ValueError("the rows were written meanwhile: plan the edit again, or undo later edits first")
    if edit.experts.size:
        bank.write_rows(edit.experts, rows)
    if (old is None) == (new is None):
        return
    if new is None:
        index.delete(edit.fact)
    else:
        index.insert(edit.fact, new)


def _planned(
    bank: Rows,
    index: FactRows,
    fact: int,
    old: Selection | None,
    new: Selection | None,
    targets: Numbers | None,
    protected: Numbers,
    spread: bool,
) -> Edit:
    experts, weights = (np.asarray(part) for part in new or old or ())
    named = np.unique(np.asarray(protected, np.int64))
    if fact in named:
        raise ValueError(f"fact {fact} cannot be protected from its own edit")
    guards = index.tokens(named)
    rows = _rows(experts, bank.experts)
    if spread:
        beside = np.isin(guards.experts, rows).any(axis=1)
        rows = _rows(np.append(experts, guards.experts[beside]), bank.experts)
    before = bank.read_rows(rows)
    values = before.astype(np.float64)
    wanted = _targets(targets, (experts.shape[0], values.shape[1]))
    own = _weights(experts, weights, rows).toarray()
    held = _weights(guards.experts, guards.weights, rows)
    held = held[np.diff(held.indptr) > 0]
    if held.shape[0] * rows.size > _MOST_NUMBERS:
        wall = f"{held.shape[0]} protected tokens on {rows.size} rows"
        raise ValueError(f"{wall} are too many to solve for at once: protect fewer facts")
    solution, missing = _solution(own, held.toarray()), wanted - own @ values
    exact = values + solution @ missing
    after = exact.astype(before.dtype)
    stored = after.astype(np.float64)
    others = [other for other in index.readers(rows) if other != fact]
    moved = _moved(others, index.tokens(others), rows, solution, missing, stored - values, stored - exact)
    missed = float(np.linalg.norm(wanted - own @ stored, axis=1).max(initial=0.0))
    return Edit(fact, old, new, rows, before, after, missed, moved, named)


def _solution(own: Floats, held: Floats) -> Floats:
    """W [r t]: the least-norm solution of A W E = E with B W = 0, least squares where there is none.

    It is the pseudo-inverse of A P, P the projection off the rows of B, whose range is P's.
    """
    free = own
    if held.any():
        _, sizes, directions = np.linalg.svd(held, full_matrices=False)
        directions = directions[sizes > _RANK * sizes[0]]
        for _ in range(2):  # once more, for what rounding left
            free = free - (free @ directions.T) @ directions
    left, sizes, right = np.linalg.svd(free, full_matrices=False)
    kept = sizes > _RANK * (np.linalg.norm(own, 2) if own.size else 1.0)
    return (right[kept].T / sizes[kept]) @ left[:, kept].T


def _moved(
    others: list[int],
    tokens: Tokens,
    rows: NDArray[np.int64],
    solution: Floats,
    missing: Floats,
    change: Floats,
    rounding: Floats,
) -> Moved:
    weights = _weights(tokens.experts, tokens.weights, rows)
    asked = np.linalg.norm(missing, 2) if missing.size else 0.0
    share = np.linalg.norm(weights @ solution, axis=1)
    rounded = abs(weights) @ np.linalg.norm(rounding, axis=1)
    moved = np.zeros((3, len(others)))
    for most, of_token in zip(
        moved, (share, share * asked + rounded, np.linalg.norm(weights @ change, axis=1)), strict=True
    ):
        np.maximum.at(most, tokens.owner, of_token)
    return Moved(np.array(others, np.int64), *moved)


def _rows(experts: NDArray[np.int32], limit: int) -> NDArray[np.int64]:
    """The different experts among these, the null expert left out, ascending."""
    rows = np.unique(experts).astype(np.int64)
    rows = rows[rows != NULL]
    if rows.size and rows[-1] >= limit:
        raise ValueError(f"a fact chooses expert {rows[-1]} of a bank of {limit}")
    return rows


def _weights(experts: NDArray[np.int32], weights: NDArray[Any], rows: NDArray[np.int64]) -> csr_array:
    """The weights [t r] with which tokens read these rows, sparse; what they read elsewhere is left out."""
    place = np.searchsorted(rows, experts)
    token, choice = np.nonzero(np.append(rows, NULL - 1)[place] == experts)
    entries = weights[token, choice].astype(np.float64)
    return coo_array((entries, (token, place[token, choice])), shape=(experts.shape[0], rows.size)).tocsr()


def _targets(targets: Numbers | None, shape: tuple[int, int]) -> Floats:
    wanted = np.zeros(shape) if targets is None else np.asarray(targets).astype(np.float64)
    if wanted.shape != shape or not np.isfinite(wanted).all():
        raise ValueError(f"targets must be finite and {list(shape)}, got the shape {list(wanted.shape)}")
    return wanted

"""Writing facts into the values: with the selection frozen what is read is linear in them, so storing is S V = T.

S is the n x M matrix of weights, k of them in a row, never formed: S x is a gather, S^T r a scatter-add. Each call
works on a copy of the rows that the open facts touch, renumbered from zero, and adds the change to the values once, in
their own buffer: neither time nor memory grows with M. All writers start at no change and add combinations of the rows
of S only, so where all facts can be met they converge to the least-norm change.

Letters: n facts, k experts of each, M experts, v value width, u experts touched.
Null experts and ids out of range are never written; a fact that names an id out of range reads as NaN, as in `read`.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from mome_jax.index import NULL, Selection

MOST_IN_A_BLOCK = 4096  # facts of one dense solve: its Gram matrix is 128 MiB in float64
_SMALLEST_DIRECTION = 1e-12  # eigenvalues of S S^T below this share of the largest count as zero
_SAFETY = 0.9  # of the tolerance is aimed at, because what the solver believes differs by rounding from what is read
_PROGRESS = 0.5  # a restart that leaves more than this share of the largest residual was the last one

Host = np.ndarray
AnyArray = Array | np.ndarray


class Written(NamedTuple):
    """What a writer leaves. A fact is written if its residual is at most the tolerance (NaN is not)."""

    values: Float[Array, "M v"]
    residuals: Float32[Host, " n"]  # largest |T - S V| over the components of a fact
    passes: int  # applications of S and S^T to the open facts


class Entries(NamedTuple):
    """Entries of a sparse matrix: a weight, the fact that is its row and the place of the expert that is its column."""

    facts: Int32[Array, " e"]
    places: Int32[Array, " e"]
    weights: Float32[Array, " e"]


class System(NamedTuple):
    """The rows of D^-1/2 S that belong to some facts, over the experts that they touch; padded with zeros.

    Held twice: by facts, and by experts with one entry of each apart. Most experts have no other, so that applying the
    transpose is mostly a gather, which on a CPU is many times faster than a scatter.
    """

    places: Int32[Array, "n k"]  # in range(u)
    weights: Float32[Array, "n k"]  # of unit norm in each row, or zero where nothing can be written
    norms: Float32[Array, " n"]  # D^1/2: the norms of the rows of S
    experts: Int32[Array, " u"]  # the padding is M, which is out of range
    first: Entries  # u of them, at places 0, 1, ...
    further: Entries


def project(
    values: Float32[Array, "M v"],
    selection: Selection,
    targets: Float32[AnyArray, "n v"],
    *,
    step: float | Literal["auto"] = "auto",
    tolerance: float = 1e-4,
    passes: int = 100,
) -> Written:
    """Write until each component of each fact is within `tolerance` of its target. The buffer of `values` is consumed.

    A step c is V += c S^T D^-1 (T - S V), D the squared norms of S's rows; it converges for 0 < c < `step_limit`.
    "auto" takes conjugate directions, each as far as makes the residual least: conjugate residuals on
    D^-1/2 S S^T D^-1/2, in exact arithmetic the iterates of LSQR on D^-1/2 S, which badly conditioned loads need.
    Facts within the tolerance at the start cost one reading, unless the others move them out.

    What cannot be met, such as two targets for equal rows, is approached in the sense of least squares and reported in
    `residuals`; so is what `passes` did not suffice for. Raises ValueError on shapes that do not fit.
    """
    experts, weights = _checked(values, selection, targets)
    if step != "auto" and not step > 0.0:
        raise ValueError(f'step must be positive or "auto", got {step}')
    wanted = np.asarray(targets)
    residuals = _residuals(values, experts, weights, wanted)
    taking_part = np.zeros(len(wanted), bool)
    used, before = 0, np.inf
    while used < passes:
        late = residuals > tolerance
        worst = float(residuals[late].max(initial=0.0))
        if not late.any() or (worst > _PROGRESS * before and not (late & ~taking_part).any()):
            break
        before = worst
        taking_part |= late
        facts = np.flatnonzero(taking_part)
        system = compacted(experts[facts], weights[facts], values.shape[0])
        short = padded(wanted[facts], system.places.shape[0])
        length = None if step == "auto" else jnp.float32(step)
        values, more = _written(
            values, system, short, length, jnp.float32(_SAFETY * tolerance), jnp.int32(passes - used)
        )
        used += int(more)
        residuals = _residuals(values, experts, weights, wanted)
    return Written(values, residuals, used)


def solve_block(values: Float32[Array, "M v"], selection: Selection, targets: Float32[AnyArray, "n v"]) -> Written:
    """The least-norm change that meets all targets, or nearest to them, by one dense solve in float64 on the host.

    For a few facts at a time: O(n^3 + n^2 v). The buffer of `values` is consumed.
    Raises ValueError beyond `MOST_IN_A_BLOCK` facts and on shapes that do not fit.
    """
    experts, weights = _checked(values, selection, targets)
    if len(experts) > MOST_IN_A_BLOCK:
        raise ValueError(f"a block has at most {MOST_IN_A_BLOCK} facts, got {len(experts)}; `project` takes any number")
    wanted = np.asarray(targets)
    if len(experts) == 0:
        return Written(values, np.zeros(0, np.float32), 0)
    system = compacted(experts, weights, values.shape[0])
    rows = matrix(system)[: len(experts)]
    missing = wanted.astype(np.float64) - np.asarray(read_batch(values, jnp.asarray(experts), jnp.asarray(weights)))
    norms = np.asarray(system.norms, np.float64)[: len(experts), None]
    scaled = np.divide(missing, norms, out=np.zeros_like(missing), where=(norms > 0) & np.isfinite(missing))
    eigenvalues, vectors = np.linalg.eigh((rows @ rows.T).toarray())
    inverse = np.zeros_like(eigenvalues)
    np.divide(1.0, eigenvalues, out=inverse, where=eigenvalues > _SMALLEST_DIRECTION * eigenvalues[-1])
    change = rows.T @ (vectors @ (inverse[:, None] * (vectors.T @ scaled)))
    values = add_rows(values, system.experts, jnp.asarray(change, jnp.float32))
    return Written(values, _residuals(values, experts, weights, wanted), 1)


def step_limit(selection: Selection, experts: int, iterations: int = 50) -> float:
    """2 / lambda_max(D^-1/2 S S^T D^-1/2), above which fixed steps diverge; a power iteration, so from above."""
    chosen, weights = np.asarray(selection.experts), np.asarray(selection.weights)
    system = compacted(chosen, weights, experts)
    return float(2.0 / _largest_eigenvalue(system, iterations))


@jax.jit
def read_batch(
    values: Float32[Array, "M v"], experts: Int32[Array, "n k"], weights: Float32[Array, "n k"]
) -> Float32[Array, "n v"]:
    """S V: null experts read as zeros, ids out of range as NaN."""
    total = jnp.zeros((experts.shape[0], values.shape[1]), values.dtype)
    for rank in range(experts.shape[1]):  # one gather after another is fused; one of [n k v] is written to memory
        chosen = experts[:, rank]
        rows = values.at[jnp.where(chosen < 0, values.shape[0], chosen)].get(mode="fill", fill_value=jnp.nan)
        total = total + weights[:, rank, None] * jnp.where((chosen == NULL)[:, None], 0.0, rows)
    return total


def compacted(experts: Int[Host, "n k"], weights: Float[Host, "n k"], size: int, facts: int | None = None) -> System:
    """The system of these facts over the experts that they touch.

    Padded to powers of two, since few shapes are few compilations; or to a number of `facts`, each with k experts.
    """
    k = experts.shape[1]
    inside = (experts >= 0) & (experts < size)
    broken = ~(inside | (experts == NULL)).all(axis=1, keepdims=True)
    kept = np.where(inside & ~broken, weights, np.float32(0.0)).astype(np.float32)
    flat = np.where(kept != 0.0, experts, -1).ravel()
    touched, first, places = np.unique(flat, return_index=True, return_inverse=True)
    if touched.size > 0 and touched[0] == -1:  # what is not written goes to place 0 with weight 0
        touched, first, places = touched[1:], first[1:], np.maximum(places.ravel() - 1, 0)
    left = flat >= 0
    left[first] = False
    further = np.flatnonzero(left)
    columns = shape_for(len(touched), 256) if facts is None else facts * k
    rows = shape_for(len(experts), 16) if facts is None else facts
    room = next(part for part in (columns // 8, columns, rows * k) if part >= len(further))
    identifiers = np.full(columns, size, np.int32)
    identifiers[: len(touched)] = touched
    places = places.astype(np.int32)
    return _normalized(
        padded(places.reshape(experts.shape), rows),
        padded(kept, rows),
        jnp.asarray(identifiers),
        *(
            Entries(
                *(padded(part, length) for part in ((which // k).astype(np.int32), places[which], kept.ravel()[which]))
            )
            for which, length in ((first, columns), (further, room))
        ),
    )


def padded(array: Host, length: int) -> Array:
    """With rows of zeros up to a length."""
    result = np.zeros((length, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return jnp.asarray(result)


def matrix(system: System) -> scipy.sparse.csr_array:
    """D^-1/2 S of a system in float64, repeated experts added up."""
    facts, k = system.places.shape
    parts = np.asarray(system.weights, np.float64).ravel(), np.asarray(system.places).ravel(), np.arange(facts + 1) * k
    result = scipy.sparse.csr_array(parts, shape=(facts, system.experts.shape[0]))
    result.sum_duplicates()
    return result


@partial(jax.jit, donate_argnums=0)
def add_rows(
    values: Float32[Array, "M v"], experts: Int32[Array, " u"], change: Float32[Array, "u v"]
) -> Float32[Array, "M v"]:
    """Add rows to distinct experts, in the buffer of the values; ids out of range are left out."""
    return values.at[experts].add(change, mode="drop", unique_indices=True)


def apply(system: System, rows: Float32[Array, "u v"]) -> Float32[Array, "n v"]:
    """D^-1/2 S times one row for each touched expert."""
    total = jnp.zeros((system.places.shape[0], rows.shape[1]), rows.dtype)
    for rank in range(system.places.shape[1]):
        chosen = rows.at[system.places[:, rank]].get(mode="promise_in_bounds")
        total = total + system.weights[:, rank, None] * chosen
    return total


def apply_transposed(system: System, residual: Float32[Array, "n v"]) -> Float32[Array, "u v"]:
    """S^T D^-1/2 times one row for each fact."""
    first, further = (
        part.weights[:, None] * residual.at[part.facts].get(mode="promise_in_bounds")
        for part in (system.first, system.further)
    )
    return first.at[system.further.places].add(further, mode="promise_in_bounds")


def conjugate_residuals(
    system: System, residual: Float32[Array, "n v"], tolerance: Float32[Array, ""], most: Int32[Array, ""]
) -> tuple[Float32[Array, "u v"], Int32[Array, ""]]:
    """The change of least residual in the Krylov space, each component of the values for itself; and the passes.

    Ends when |D^1/2 r| is within the tolerance everywhere, when the rest is orthogonal to what can be written (least
    squares), or after `most` passes. Hestenes & Stiefel 1952; Stiefel 1955.
    """

    def applied(r: Array) -> tuple[Array, Array]:
        rows = apply_transposed(system, r)
        return apply(system, rows), jnp.sum(rows * rows, axis=0)

    def unfinished(state: tuple[Array, ...]) -> Array:
        _, r, _, _, _, energy, passes = state
        worst = jnp.max(jnp.abs(r) * system.norms[:, None])
        reachable = jnp.any(energy > _SMALLEST_DIRECTION * jnp.sum(r * r, axis=0))
        return (passes < most) & (worst > tolerance) & reachable

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        y, r, p, applied_r, applied_p, energy, passes = state
        length = _quotient(energy, jnp.sum(applied_p * applied_p, axis=0))[None, :]
        y, r = y + length * p, r - length * applied_p
        applied_r, new_energy = applied(r)
        turn = _quotient(new_energy, energy)[None, :]
        return y, r, r + turn * p, applied_r, applied_r + turn * applied_p, new_energy, passes + 1

    applied_residual, energy = applied(residual)
    first = (jnp.zeros_like(residual), residual, residual, applied_residual, applied_residual, energy, jnp.int32(1))
    y, *_, passes = jax.lax.while_loop(unfinished, step, first)
    return apply_transposed(system, y), passes


def fixed_steps(
    system: System,
    residual: Float32[Array, "n v"],
    length: Float32[Array, ""],
    tolerance: Float32[Array, ""],
    most: Int32[Array, ""],
) -> tuple[Float32[Array, "u v"], Int32[Array, ""]]:
    """The change after steps of one length, taken for the facts that are still open; and the number of passes."""

    def still_open(r: Array) -> Bool[Array, " n"]:
        return jnp.max(jnp.abs(r), axis=1) * system.norms > tolerance

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        _, r, passes = state
        return (passes < most) & jnp.any(still_open(r)) & jnp.all(jnp.isfinite(r))

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, r, passes = state
        rows = rows + length * apply_transposed(system, jnp.where(still_open(r)[:, None], r, 0.0))
        return rows, residual - apply(system, rows), passes + 1

    nothing = jnp.zeros((system.experts.shape[0], residual.shape[1]), residual.dtype)
    rows, _, passes = jax.lax.while_loop(unfinished, step, (nothing, residual, jnp.int32(0)))
    return rows, passes


@partial(jax.jit, donate_argnums=0)
def _written(
    values: Array, system: System, targets: Array, length: Array | None, tolerance: Array, most: Array
) -> tuple[Array, Array]:
    mine = values.at[system.experts].get(mode="fill", fill_value=0.0)
    missing = _quotient(targets, system.norms[:, None]) - apply(system, mine)
    if length is None:
        change, passes = conjugate_residuals(system, missing, tolerance, most)
    else:
        change, passes = fixed_steps(system, missing, length, tolerance, most)
    return values.at[system.experts].add(change, mode="drop", unique_indices=True), passes


@jax.jit
def _normalized(places: Array, weights: Array, experts: Array, first: Entries, further: Entries) -> System:
    """Rows of unit norm; the norm is that of the row of S, where an expert named twice has the sum of its weights."""
    squares = jnp.zeros(places.shape[0], weights.dtype)
    for shift in range(places.shape[1]):
        same = places == jnp.roll(places, shift, axis=1)
        squares = squares + jnp.sum(jnp.where(same, weights * jnp.roll(weights, shift, axis=1), 0.0), axis=1)
    norms = jnp.sqrt(jnp.maximum(squares, 0.0))
    scale = _quotient(jnp.ones_like(norms), norms)
    first, further = (part._replace(weights=part.weights * scale[part.facts]) for part in (first, further))
    return System(places, weights * scale[:, None], norms, experts, first, further)


@jax.jit
def _largest_residuals(values: Array, experts: Array, weights: Array, targets: Array) -> Array:
    return jnp.max(jnp.abs(targets - read_batch(values, experts, weights)), axis=1)


@partial(jax.jit, static_argnames="iterations")
def _largest_eigenvalue(system: System, iterations: int) -> Array:
    def step(_: Array, vector: Array) -> Array:
        image = apply(system, apply_transposed(system, vector))
        return image * _quotient(jnp.float32(1.0), jnp.linalg.norm(image))

    start = jax.random.uniform(jax.random.key(0), (system.places.shape[0], 1), minval=0.5)
    vector = jax.lax.fori_loop(0, iterations, step, jnp.where(system.norms[:, None] > 0.0, start, 0.0))
    return jnp.linalg.norm(apply_transposed(system, vector)) ** 2


def _quotient(above: Array, below: Array) -> Array:
    """Above / below, and 0 where below is 0."""
    return jnp.where(below > 0.0, above / jnp.where(below > 0.0, below, 1.0), 0.0)


def _residuals(values: Array, experts: Host, weights: Host, targets: Host) -> Host:
    count = len(targets)
    if count == 0:
        return np.zeros(0, np.float32)
    length = shape_for(count, 16)
    return np.array(_largest_residuals(values, *(padded(part, length) for part in (experts, weights, targets))))[:count]


def shape_for(count: int, least: int) -> int:
    """The next power of two: few shapes are few compilations."""
    return max(least, 1 << max(0, count - 1).bit_length())


def _checked(values: AnyArray, selection: Selection, targets: AnyArray) -> tuple[Host, Host]:
    experts, weights = np.asarray(selection.experts), np.asarray(selection.weights, np.float32)
    if experts.ndim != 2 or experts.shape != weights.shape or len(experts) != len(targets):
        raise ValueError(
            f"a batched selection [n k] for each of the {len(targets)} facts is needed, got experts {experts.shape} "
            f"and weights {weights.shape}"
        )
    if values.dtype != np.float32:
        raise ValueError(f"values are solved for in float32, got {values.dtype}; convert them before and after")
    if values.shape[1] != targets.shape[1]:
        raise ValueError(f"targets have width {targets.shape[1]}, the values {values.shape[1]}")
    return experts, weights

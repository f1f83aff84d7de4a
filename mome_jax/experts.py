"""Banks of experts, and reading them: `read(bank, selection, state)`, for one token; callers vmap.

Letters: M experts, k chosen, v width of what is read (the residual stream's), d width of the state that rank-r experts
act on, r rank, t tokens of one question.

A bank is a pytree whose arrays have one row per expert. The rows of k experts are a bank again, of k experts, so that
what is read, differentiated and written is of one kind. Storage is float32 or bfloat16; sums are float32.

Scope: published memory layers choose per *token* (`read`, vmapped over tokens with their selections); the founding
paper chooses once per *question*, and its experts then act on every token's state (`read_every_token`). Layers share a
bank by holding the same pytree.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, PRNGKeyArray

from mome_jax.footprint import refuse_beyond_memory
from mome_jax.index import NULL, Selection
from mome_jax.pytrees import pytree


@runtime_checkable
class Bank(Protocol):
    """Rows of numbers, one per expert."""

    @property
    def experts(self) -> int:
        """Number of experts M."""
        ...

    def gather(self, experts: Int32[Array, "*n k"]) -> Any:
        """The rows of these experts, as a bank with a method `answer(weights, state)`.

        The null expert's row is zero, that of any other id out of range is NaN.
        """
        ...


@pytree
class Values:
    """Experts that are value vectors: the answer is their weighted sum, whatever the state."""

    values: Float[Array, "*n M v"]

    @classmethod
    def create(
        cls, experts: int, width: int, dtype: Any = jnp.float32, memory_limit_bytes: int | None = None
    ) -> "Values":
        """A bank of zeros; ValueError, before anything is allocated, if it is larger than the memory available.

        `memory_limit_bytes` replaces what the device or the machine says is free.
        """
        wanted = bank_bytes(experts, width, dtype=dtype)
        refuse_beyond_memory(wanted, f"a bank of {experts:,} value vectors", memory_limit_bytes)
        return cls(jnp.zeros((experts, width), dtype))

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.values.shape[-2]

    def gather(self, experts: Int32[Array, "*n k"]) -> "Values":
        """The value vectors of these experts, as float32 [.. k v]."""
        return Values(gather_rows(self.values, experts))

    def answer(self, weights: Float[Array, " k"], state: Float[Array, " d"] | None = None) -> Float[Array, " v"]:
        """sum_j w_j value_j."""
        return _weighted_sum(weights, self.values.astype(jnp.float32))


@pytree
class LowRank:
    """Experts that are rank-r adapters of the state h: the answer is sum_j w_j up_j^T (down_j h)."""

    down: Float[Array, "*n M r d"]
    up: Float[Array, "*n M r v"]

    @classmethod
    def create(
        cls,
        experts: int,
        state_width: int,
        width: int,
        rank: int,
        key: PRNGKeyArray,
        dtype: Any = jnp.float32,
        memory_limit_bytes: int | None = None,
    ) -> "LowRank":
        """Adapters that answer zero at first: `down` is normal with variance 1/d (the key is consumed), `up` zero.

        ValueError, before anything is allocated, if they take more than the memory available (see `Values.create`).
        """
        wanted = bank_bytes(experts, width, rank=rank, state_width=state_width, dtype=dtype)
        refuse_beyond_memory(wanted, f"a bank of {experts:,} adapters of rank {rank}", memory_limit_bytes)
        down = jax.random.normal(key, (experts, rank, state_width), dtype) * jnp.asarray(state_width**-0.5, dtype)
        return cls(down, jnp.zeros((experts, rank, width), dtype))

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.up.shape[-3]

    def gather(self, experts: Int32[Array, "*n k"]) -> "LowRank":
        """The adapters of these experts, as float32 [.. k r d] and [.. k r v]."""
        return LowRank(gather_rows(self.down, experts), gather_rows(self.up, experts))

    def answer(self, weights: Float[Array, " k"], state: Float[Array, " d"] | None = None) -> Float[Array, " v"]:
        """sum_j w_j up_j^T (down_j h)."""
        if state is None:
            raise ValueError("rank-r experts act on a state: give read() the state as well")
        inner = jnp.sum(self.down.astype(jnp.float32) * state.astype(jnp.float32)[None, None, :], axis=-1)
        strengths = weights.astype(jnp.float32)[:, None] * inner
        return _weighted_sum(strengths.reshape(-1), self.up.astype(jnp.float32).reshape(-1, self.up.shape[-1]))


def read(bank: Bank, selection: Selection, state: Float[Array, " d"] | None = None) -> Float[Array, " v"]:
    """What one selection reads, as float32; value vectors need no state.

    The null expert reads as zeros. Any other id out of range reads as NaN: it is neither clamped nor wrapped around.

    >>> bank = Values(jnp.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> print(read(bank, Selection(jnp.array([1, 0, NULL]), jnp.array([0.5, 0.25, 0.25]))))
    [0.25 1.  ]
    """
    return bank.gather(selection.experts).answer(selection.weights, state)


def read_every_token(bank: Bank, selection: Selection, states: Float[Array, "t d"]) -> Float[Array, "t v"]:
    """One selection, made once for a question, read at each of its tokens; the rows are gathered once."""
    rows = bank.gather(selection.experts)
    return jax.vmap(rows.answer, in_axes=(None, 0))(selection.weights, states)


def bank_bytes(experts: int, width: int, *, rank: int = 0, state_width: int = 0, dtype: Any = jnp.float32) -> int:
    """Bytes of a bank: value vectors at rank 0, else adapters from `state_width` to `width`.

    >>> bank_bytes(2**20, 64), bank_bytes(2**20, 64, rank=2, state_width=64, dtype=jnp.bfloat16)
    (268435456, 536870912)
    """
    if experts < 1 or width < 1 or rank < 0 or (rank > 0 and state_width < 1):
        raise ValueError(
            f"experts, width and the state width of adapters must be positive, the rank at least 0; "
            f"got experts={experts}, width={width}, rank={rank}, state_width={state_width}"
        )
    numbers = rank * (state_width + width) if rank else width
    return experts * numbers * jnp.dtype(dtype).itemsize


def gather_rows(array: Array, experts: Int32[Array, "*n k"], numbers: int | None = None) -> Array:
    """Rows of an array as float32, or the first `numbers` of their last axis.

    Zeros for the null expert, NaN for other ids out of range.
    """
    rows = array.at[experts, ..., :numbers]
    rows = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False).astype(jnp.float32)
    is_null = jnp.expand_dims(experts == NULL, tuple(range(experts.ndim, rows.ndim)))
    return jnp.where(is_null, jnp.float32(0), rows)


def _weighted_sum(weights: Float[Array, " k"], rows: Float[Array, "k v"]) -> Float[Array, " v"]:
    """A sum and not a matrix product: products are rounded to fewer bits on some devices."""
    return jnp.sum(weights.astype(jnp.float32)[:, None] * rows, axis=0)

"""Row-sparse SGD, Adam and Adafactor: a step touches the rows that were selected, and no others.

Letters: M experts, n k what was selected (n facts, k experts each), b = n k, v numbers in a row.

A `Table` holds the float32 rows in training (a bfloat16 bank is widened, since small steps would be rounded away) and
what the optimizer remembers of them. `update` makes one step with given gradient rows, `learn` with a loss of the rows
that were read: no gradient of the size of the bank is ever made. Both donate the table: the one handed in is gone, its
memory is the new one's. Work and extra memory of a step are O(n k v), whatever M.

Experts selected several times in a batch get the sum of their gradients, once. The null expert and ids out of range
are never written.

*Counting steps.* A row counts its own steps: those that selected it. Its history under Adam is therefore that of dense
Adam (`optax.adam`) run on this row alone over the steps that selected it, bias correction included; with every row
selected in every step the two are equal. A row that is not selected neither moves nor forgets. (PyTorch's SparseAdam
counts steps globally: the first step of a row selected late is up to (1-b1)/sqrt(1-b2) = 3.2 times too long.)

Adafactor (Shazeer and Stern, 2018, arXiv 1804.04235) remembers one number per row and one per column. A row's
statistic and steps are its own; the column statistic, shared by all, averages over the rows that a batch selects and
counts batches, and the clipping of the update is by its mean square over these rows. `optax.adafactor` averages over
all M rows instead: equal when all are selected. Its scaling by the norm of the whole bank is left out.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, PyTree

from mome_jax.experts import Bank, gather_rows
from mome_jax.footprint import refuse_beyond_memory
from mome_jax.pytrees import pytree, static

_ROWS_AT_ONCE = 512  # on a CPU a block of rows stays in the cache between gather and scatter


@pytree
class Table:
    """A bank in training: read it as a bank, change it by `update` or `learn`.

    `fused` is a bank whose rows are `parts` times as long: the value and then its moments, so that a row is found once.
    """

    fused: Any
    memory: PyTree
    parts: int = static()

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.fused.experts

    def gather(self, experts: Int32[Array, "*n k"]) -> Any:
        """The values of these experts, a bank of k: see `Bank.gather`."""
        return jax.tree.map(lambda leaf: gather_rows(leaf, experts, leaf.shape[-1] // self.parts), self.fused)

    def bank(self, dtype: Any = jnp.float32) -> Any:
        """The values alone, as they are now, in arrays of their own."""
        return jax.tree.map(lambda leaf: leaf[..., : leaf.shape[-1] // self.parts].astype(dtype), self.fused)


@runtime_checkable
class Optimizer(Protocol):
    """A rule for the selected rows."""

    @property
    def parts(self) -> int:
        """How many numbers a row of the table holds for each of the bank's."""
        ...

    def memory(self, bank: Any) -> PyTree:
        """What is remembered beside the rows, before the first step."""
        ...

    def step(self, table: Table, experts: Int32[Array, " b"], gradients: PyTree) -> Table:
        """One step."""
        ...


@pytree
class SGD:
    """value -= learning_rate * gradient."""

    learning_rate: float | Float[Array, ""]
    parts: int = static(default=1)

    def memory(self, bank: Any) -> PyTree:
        """Nothing."""
        return ()

    def step(self, table: Table, experts: Int32[Array, " b"], gradients: PyTree) -> Table:
        """One step; repeated experts add up by themselves."""
        changed = jax.tree.map(
            lambda rows, gradient: _added(rows, experts, -self.learning_rate * gradient), table.fused, gradients
        )
        return Table(changed, table.memory, table.parts)


@pytree
class Adam:
    """Adam with steps counted per row; the arguments are those of `optax.adam`.

    The decays are fixed when a step is compiled; the learning rate may change from step to step.
    """

    learning_rate: float | Float[Array, ""]
    first_decay: float = static(default=0.9)
    second_decay: float = static(default=0.999)
    epsilon: float = static(default=1e-8)
    parts: int = static(default=3)

    def __post_init__(self) -> None:
        if not (0 <= self.first_decay < 1 and 0 <= self.second_decay < 1):
            raise ValueError(f"decays must be in [0, 1), got {self.first_decay} and {self.second_decay}")

    def memory(self, bank: Any) -> "_Counted":
        """Each row's steps, and scratch."""
        return _Counted(jnp.zeros(bank.experts, jnp.int32), jnp.zeros(bank.experts, jnp.int32))

    def step(self, table: Table, experts: Int32[Array, " b"], gradients: PyTree) -> Table:
        """One step."""
        batch, memory = _counted(table.memory, experts, gradients)
        steps = batch.steps.astype(jnp.float32)
        corrections = tuple(_correction(decay, steps) for decay in (self.first_decay, self.second_decay))

        def write(fused: PyTree, block: tuple[Array, Array, Array, PyTree]) -> PyTree:
            places, first, second, gradients = block
            return jax.tree.map(
                lambda rows, gradient: _set(rows, places, self._moved(_taken(rows, places), gradient, first, second)),
                fused,
                gradients,
            )

        fused = _by_blocks(write, table.fused, (batch.places, *corrections, batch.gradients))
        return Table(fused, memory, table.parts)

    def _moved(self, rows: Array, gradient: Array, first_correction: Array, second_correction: Array) -> Array:
        value, first, second = jnp.split(rows, 3, axis=-1)
        first = self.first_decay * first + (1 - self.first_decay) * gradient
        second = self.second_decay * second + (1 - self.second_decay) * jnp.square(gradient)
        mean, square = first * _column(first_correction, first), second * _column(second_correction, second)
        value = value - self.learning_rate * mean / (jnp.sqrt(square) + self.epsilon)
        return jnp.concatenate([value, first, second], axis=-1)


@pytree
class Adafactor:
    """Adafactor with a statistic per row and one per column; arguments as in `optax.adafactor`, without momentum."""

    learning_rate: float | Float[Array, ""]
    decay_rate: float = static(default=0.8)
    clipping_threshold: float = static(default=1.0)
    epsilon: float = static(default=1e-30)
    parts: int = static(default=1)

    def memory(self, bank: Any) -> "_Factored":
        """Steps and scratch of each row, the statistics of rows and columns, and the number of batches."""
        counted = _Counted(jnp.zeros(bank.experts, jnp.int32), jnp.zeros(bank.experts, jnp.int32))
        rows = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:-1], jnp.float32), bank)
        columns = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[-1], jnp.float32), bank)
        return _Factored(counted, rows, columns, jnp.int32(0))

    def step(self, table: Table, experts: Int32[Array, " b"], gradients: PyTree) -> Table:
        """One step."""
        batch, counted = _counted(table.memory.counted, experts, gradients)
        is_new = batch.places < table.experts
        batches = table.memory.batches + jnp.any(is_new).astype(jnp.int32)
        decays = tuple(1 - count.astype(jnp.float32) ** -self.decay_rate for count in (batch.steps, batches))

        def leaf(values: Array, rows: Array, columns: Array, gradient: Array) -> tuple[Array, Array, Array]:
            square, written = jnp.square(gradient) + self.epsilon, _column(is_new, gradient)
            row = _mixed(_taken(rows, batch.places), jnp.mean(square, axis=-1), _column(decays[0], square[..., 0]))
            column = _mixed(columns, _mean(square, written, axis=tuple(range(square.ndim - 1))), decays[1])
            column = jnp.where(jnp.any(is_new), column, columns)
            relative = (column / jnp.mean(column)).reshape((1,) * (square.ndim - 1) + (-1,))
            change = gradient * lax.rsqrt(row)[..., None] * lax.rsqrt(relative)
            length = jnp.sqrt(_mean(jnp.square(change), written)) / self.clipping_threshold
            change = -self.learning_rate * change / jnp.maximum(1.0, length)
            return _added(values, batch.places, change), _set(rows, batch.places, row), column

        memory = table.memory
        found = jax.tree.map(leaf, table.fused, memory.rows, memory.columns, batch.gradients)
        fused, rows, columns = jax.tree.transpose(jax.tree.structure(table.fused), None, found)
        return Table(fused, _Factored(counted, rows, columns, batches), table.parts)


def begin(optimizer: Optimizer, bank: Any, memory_limit_bytes: int | None = None) -> Table:
    """A table that starts at this bank's values, with empty moments.

    ValueError, before anything is allocated, if it is larger than the memory available (or the limit given).
    """
    wanted = table_bytes(optimizer, bank)
    what = f"training {bank.experts:,} experts with {type(optimizer).__name__}"
    refuse_beyond_memory(wanted, what, memory_limit_bytes)

    def widened(leaf: Array) -> Array:
        if optimizer.parts == 1:
            return jnp.array(leaf, jnp.float32)  # a copy: the table will be donated
        return jnp.pad(
            leaf.astype(jnp.float32), [(0, 0)] * (leaf.ndim - 1) + [(0, (optimizer.parts - 1) * leaf.shape[-1])]
        )

    return Table(jax.tree.map(widened, bank), optimizer.memory(bank), optimizer.parts)


def table_bytes(optimizer: Optimizer, bank: Any) -> int:
    """Bytes that `begin` allocates for this bank."""
    memory = jax.eval_shape(optimizer.memory, bank)
    values = 4 * optimizer.parts * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(bank))
    return values + sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(memory))


@functools.partial(jax.jit, donate_argnames="table")
def update(optimizer: Optimizer, table: Table, experts: Int32[Array, "n k"], gradients: Any) -> Table:
    """One step with the gradient rows of a batch; the table handed in is donated.

    `gradients` is a bank of [n k] rows (`Values` of [n k v], say), as `gather` gives and `loss_and_gradients` returns.
    Another batch size or type of bank compiles again, another learning rate does not.
    """
    wrong = [leaf.shape for leaf in jax.tree.leaves(gradients) if leaf.shape[:2] != experts.shape]
    if wrong:
        raise ValueError(f"a gradient row is needed for each of {experts.shape} selected experts, got {wrong}")
    rows = jax.tree.map(lambda leaf: leaf.astype(jnp.float32).reshape(experts.size, *leaf.shape[2:]), gradients)
    return optimizer.step(table, experts.reshape(-1), rows)


@functools.partial(jax.jit, static_argnames="loss", donate_argnames="table")
def learn(
    optimizer: Optimizer, table: Table, experts: Int32[Array, "n k"], loss: Callable[..., Array], *data: Any
) -> tuple[Float[Array, ""], Table]:
    """The loss of the rows that were read, and the table after one step against it; the table handed in is donated.

    `loss(rows, *data)` gets the rows [n k v] as a bank. It is compiled in: hand in the same function at every step.
    """
    value, gradients = loss_and_gradients(loss, table, experts, *data)
    return value, update(optimizer, table, experts, gradients)


def loss_and_gradients(
    loss: Callable[..., Array], bank: Bank, experts: Int32[Array, "n k"], *data: Any
) -> tuple[Float[Array, ""], Any]:
    """`loss(rows, *data)` of the rows of these experts, and its gradient by those rows: [n k v], never [M v]."""
    return jax.value_and_grad(loss)(bank.gather(experts), *data)


class _Counted(NamedTuple):
    """Each row's steps, and scratch: the place in the batch at which an expert was last selected."""

    steps: Int32[Array, " M"]
    slots: Int32[Array, " M"]


class _Factored(NamedTuple):
    """Adafactor's statistics; `rows` and `columns` are shaped like the bank without its last axis, and by it alone."""

    counted: _Counted
    rows: PyTree
    columns: PyTree
    batches: Int32[Array, ""]


class _Batch(NamedTuple):
    """What to write: `places` are distinct ids, or M where nothing is to be written; gradients are summed there."""

    places: Int32[Array, " b"]
    steps: Int32[Array, " b"]
    gradients: PyTree


def _counted(memory: _Counted, experts: Int32[Array, " b"], gradients: PyTree) -> tuple[_Batch, _Counted]:
    """The batch with each expert once, and its steps counted.

    All entries of an expert write their position into its slot; whichever stays there stands for all. No sort is
    needed, and slots of other experts may hold anything.
    """
    positions = jnp.arange(experts.size, dtype=jnp.int32)
    slots = memory.slots.at[experts].set(positions, mode="drop", wrap_negative_indices=False)
    stands = slots.at[experts].get(mode="fill", fill_value=experts.size, wrap_negative_indices=False)
    is_first = stands == positions
    places = jnp.where(is_first, experts, memory.slots.size)
    others = jnp.where(is_first, experts.size, stands)
    steps = _taken(memory.steps, places) + 1
    combined = jax.tree.map(lambda rows: _added(rows, others, rows), gradients)
    return _Batch(places, steps, combined), _Counted(_set(memory.steps, places, steps), slots)


def _correction(decay: float, steps: Float[Array, " b"]) -> Float[Array, " b"]:
    """1 / (1 - decay^steps), also where decay^steps is so near 1 that float32 loses the difference."""
    return -1 / jnp.expm1(steps * (math.log(decay) if decay > 0 else -math.inf))


def _by_blocks(write: Callable[[PyTree, Any], PyTree], written: PyTree, batch: PyTree) -> PyTree:
    """`written = write(written, block)` for the blocks of a batch, one after the other."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    block = _ROWS_AT_ONCE if jax.default_backend() == "cpu" else max(rows, 1)

    def one(number: Array, written: PyTree) -> PyTree:
        return write(written, jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, number * block, block), batch))

    if rows >= block:
        written = lax.fori_loop(0, rows // block, one, written)
    return write(written, jax.tree.map(lambda leaf: leaf[rows - rows % block :], batch)) if rows % block else written


def _taken(rows: Array, places: Int32[Array, " b"]) -> Array:
    return rows.at[places].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _set(rows: Array, places: Int32[Array, " b"], values: Array) -> Array:
    return rows.at[places].set(values, mode="drop", wrap_negative_indices=False)


def _added(rows: Array, places: Int32[Array, " b"], values: Array) -> Array:
    return rows.at[places].add(values, mode="drop", wrap_negative_indices=False)


def _column(vector: Array, like: Array) -> Array:
    """A number for each row, shaped to be combined with the rows."""
    return vector.reshape(vector.shape + (1,) * (like.ndim - 1))


def _mixed(old: Array, new: Array, decay: Array) -> Array:
    return decay * old + (1 - decay) * new


def _mean(values: Array, where: Bool[Array, "..."], axis: tuple[int, ...] | None = None) -> Array:
    """The mean over the rows that are written; 0 if there are none."""
    where = jnp.broadcast_to(where, values.shape)
    count = jnp.maximum(jnp.sum(where, axis=axis), 1).astype(jnp.float32)
    return jnp.sum(jnp.where(where, values, jnp.float32(0)), axis=axis) / count

"""A bank spread by rows over the devices of a mesh: each holds, reads and writes its own experts.

`Sharded` is a bank as those of `experts` are, so `read`, `jit` and `vmap` work on it. `Sharded.gather`, and with it
`read`, moves the chosen rows, k v numbers a query, and returns them bit for bit: they are summed over the devices as
integers of which all but the owner's are zero. `read_partial` moves v numbers a query instead: each device sums what it
holds and the sums are added, in another order than on one device, so that they differ by rounding.

Keys of product banks are small (sqrt(M) rows a half): leave them replicated. `ShardedKeys` is for flat keys, and
chooses what one device would, up to the rounding of scores. All of it also works over several processes.

Letters: M experts, k chosen, d width of a query, v of a value, n rows, D devices of the mesh's axis.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Parts
from jaxtyping import Array, Float, Int32

from mome_jax.experts import Bank
from mome_jax.index import NULL, Selection
from mome_jax.pytrees import pytree

AXIS = "experts"


def mesh_over(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "experts", over these devices; by default over all, those of other processes included."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


@pytree
class Sharded:
    """A bank whose rows lie on the devices of `mesh` along `axis`, filled up with rows of zeros that nothing reads."""

    bank: Any  # of D times as many rows as each device holds
    rows: int = dataclasses.field(metadata={"static": True})
    mesh: Mesh = dataclasses.field(metadata={"static": True})
    axis: str = dataclasses.field(metadata={"static": True})

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.rows

    def gather(self, experts: Int32[Array, "*n k"]) -> Any:
        """The rows of these experts on every device, bit for bit as on one."""

        def own(bank: Any, experts: Array) -> Any:
            return jax.tree.map(self._from_owner, bank.gather(self._local(bank, experts)))

        return self._on_devices(own, Parts())(self.bank, experts)

    def answer(self, weights: Float[Array, " k"], state: Float[Array, " d"] | None = None) -> Float[Array, " v"]:
        """The answer of all M experts, each with its weight; every device adds up its own first."""

        def own(bank: Any, weights: Array, state: Array | None) -> Array:
            return jax.lax.psum(bank.answer(weights, state), self.axis)

        weights = jnp.pad(weights, (0, self.bank.experts - self.rows))
        call = jax.shard_map(
            own, mesh=self.mesh, in_specs=(Parts(self.axis), Parts(self.axis), None), out_specs=Parts()
        )
        return call(self.bank, weights, state)

    def read_partial(self, selection: Selection, state: Float[Array, " d"] | None = None) -> Float[Array, " v"]:
        """What one selection reads, to rounding: the sum over devices of what each reads of its own experts."""

        def own(bank: Any, selection: Selection, state: Array | None) -> Array:
            rows = bank.gather(self._local(bank, selection.experts))
            return jax.lax.psum(rows.answer(selection.weights, state), self.axis)

        return self._on_devices(own, Parts())(self.bank, selection, state)

    def set_rows(self, experts: Int32[Array, " n"], rows: Any) -> "Sharded":
        """This bank with `rows`, a bank of n, at `experts`, each written by its owner; donate the old one to a jit.

        The null expert and ids out of range are not written. An expert must not be given twice.
        """
        return self._written(experts, rows, lambda old, ids, new: old.at[ids].set(new, mode="drop"))

    def add_rows(self, experts: Int32[Array, " n"], rows: Any) -> "Sharded":
        """This bank with `rows` added at `experts`, in the order given where an expert is given more than once."""
        return self._written(experts, rows, lambda old, ids, new: old.at[ids].add(new, mode="drop"))

    def whole(self) -> Any:
        """The bank in the host's memory, for saving; ValueError if other processes hold part of it."""
        if not all(array.is_fully_addressable for array in jax.tree.leaves(self.bank)):
            raise ValueError(
                "other processes hold part of this bank: save the shards of each, or read them over the mesh"
            )
        return jax.tree.map(lambda array: jnp.asarray(np.asarray(array)[: self.rows]), self.bank)

    def _written(self, experts: Array, rows: Any, write: Callable[[Array, Array, Array], Array]) -> "Sharded":
        def own(bank: Any, experts: Array, rows: Any) -> Any:
            local = self._local(bank, experts)
            local = jnp.where(local == NULL, bank.experts, local)  # what is not ours is out of range, and dropped
            return jax.tree.map(lambda old, new: write(old, local, new.astype(old.dtype)), bank, rows)

        return dataclasses.replace(self, bank=self._on_devices(own, Parts(self.axis))(self.bank, experts, rows))

    def _on_devices(self, function: Callable, result: Parts) -> Callable:
        """`function(bank, *replicated)` with each device's own rows of the bank."""

        def call(bank: Any, *replicated: Any) -> Any:
            specs = (Parts(self.axis), *(Parts() for _ in replicated))
            return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=result)(bank, *replicated)

        return call

    def _local(self, bank: Any, experts: Array) -> Array:
        """Ids within this device's rows; the null expert for those of others; one device has what is out of range."""
        device = jax.lax.axis_index(self.axis)
        local = experts - device * bank.experts
        is_stray = (experts != NULL) & ((experts < 0) | (experts >= self.rows))
        is_ours = (local >= 0) & (local < bank.experts) & ~is_stray
        stray = jnp.where(is_stray & (device == 0), bank.experts, NULL)
        return jnp.where(is_ours, local, stray)

    def _from_owner(self, rows: Array) -> Array:
        return _sum_of_bits(rows, self.axis)


def shard(bank: Bank, mesh: Mesh, axis: str | None = None) -> Sharded:
    """Spread the rows of a bank over a mesh (along its first axis, unless named); any number of experts.

    Of arrays on the host (also mapped files) each process reads the rows of its own devices only.
    """
    along = mesh.axis_names[0] if axis is None else axis
    if along not in mesh.shape:
        raise ValueError(f"the mesh has no axis {along!r}; name one of {', '.join(map(str, mesh.axis_names))}")
    return Sharded(jax.tree.map(lambda array: _spread(array, mesh, along), bank), bank.experts, mesh, along)


@pytree
class ShardedKeys:
    """Flat keys [M d] spread by rows over a mesh: every device proposes its k best, the best k of those are chosen."""

    keys: Float[Array, "padded d"]
    rows: int = dataclasses.field(metadata={"static": True})
    mesh: Mesh = dataclasses.field(metadata={"static": True})
    axis: str = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(cls, keys: Float[Array, "M d"], mesh: Mesh) -> "ShardedKeys":
        """Spread `keys` over the first axis of a mesh; any number of keys."""
        axis = mesh.axis_names[0]
        return cls(_spread(keys, mesh, axis), keys.shape[0], mesh, axis)

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.rows

    def select(self, query: Float[Array, " d"], k: int) -> Selection:
        """The k keys of largest inner product with the query; ties go to the lowest id."""
        if not 1 <= k <= self.rows:
            raise ValueError(f"{k} experts cannot be chosen of {self.rows}; choose 1 to {self.rows}")

        def own(keys: Array, query: Array) -> tuple[Array, Array]:
            first = jax.lax.axis_index(self.axis) * keys.shape[0]
            ids = first + jnp.arange(keys.shape[0], dtype=jnp.int32)
            scores = jnp.where(ids < self.rows, keys @ query, -jnp.inf)
            best, places = jax.lax.top_k(scores, min(k, keys.shape[0]))
            return _from_all(best, self.axis), _from_all(ids[places], self.axis)

        specs = (Parts(self.axis), Parts())
        scores, ids = jax.shard_map(own, mesh=self.mesh, in_specs=specs, out_specs=Parts())(self.keys, query)
        best, places = jax.lax.top_k(scores, k)  # candidates are in the order of ids where scores are equal
        return Selection(ids[places], jax.nn.softmax(best))


def _spread(array: Array | np.ndarray, mesh: Mesh, axis: str) -> Array:
    """Rows over the mesh, filled up with zeros to a multiple of its devices."""
    devices = mesh.shape[axis]
    each = -(-len(array) // devices)

    def rows_of(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(each * devices)
        rows = np.asarray(array[start:stop])
        return np.pad(rows, [(0, stop - start - len(rows)), *[(0, 0)] * (rows.ndim - 1)])

    shape = (each * devices, *array.shape[1:])
    return jax.make_array_from_callback(shape, NamedSharding(mesh, Parts(axis)), rows_of)


def _sum_of_bits(numbers: Array, axis: str) -> Array:
    """What one device holds where all others hold zeros: integers, so that -0 and NaN keep their bits as well."""
    bits = jax.lax.bitcast_convert_type(numbers, jnp.uint32)
    return jax.lax.bitcast_convert_type(jax.lax.psum(bits, axis), numbers.dtype)


def _from_all(numbers: Array, axis: str) -> Array:
    """The numbers [m] of all devices, [D m], in their order."""
    devices, device = jax.lax.axis_size(axis), jax.lax.axis_index(axis)
    places = jnp.zeros((devices, *numbers.shape), numbers.dtype).at[device].set(numbers)
    return _sum_of_bits(places, axis).reshape(-1)

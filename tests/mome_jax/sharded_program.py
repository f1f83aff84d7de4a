"""What test_sharding.py runs in processes of their own: python sharded_program.py DEVICES [PROCESS PROCESSES ADDRESS]

A bank over all devices of all processes beside the same bank on one; prints what agreed as one line of JSON.
"""
# ruff: noqa: E402  (the environment is set before JAX is imported)

import json
import os
import sys

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[1]}"
os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}

from jaxtyping import install_import_hook

install_import_hook("mome_jax", "beartype.beartype")

import jax
import jax.numpy as jnp
import numpy as np

from mome_jax.experts import LowRank, Values, read
from mome_jax.index import NULL, FlatKeys, Selection, select
from mome_jax.sharding import Sharded, ShardedKeys, mesh_over, shard

EXPERTS = 11  # over eight devices: some hold two, one holds one and a row that fills up, some hold none

_read = jax.jit(jax.vmap(read, in_axes=(None, 0)))
_read_states = jax.jit(jax.vmap(read, in_axes=(None, 0, 0)))
_read_partial = jax.jit(jax.vmap(Sharded.read_partial, in_axes=(None, 0)))
_select = jax.jit(jax.vmap(select, in_axes=(0, None, None)), static_argnums=2)
_gather = jax.jit(lambda bank, experts: bank.gather(experts))
_set_rows = jax.jit(Sharded.set_rows, donate_argnums=0)
_add_rows = jax.jit(Sharded.add_rows, donate_argnums=0)


def _same_bits(first: jax.Array, second: jax.Array) -> bool:
    return np.asarray(first).tobytes() == np.asarray(second).tobytes()


def _selections(experts: int, random: np.random.Generator) -> Selection:
    """Of every kind: null, out of range on both sides, the same expert several times."""
    chosen = random.integers(NULL, experts, (16, 4)).astype(np.int32)
    chosen[0, 0], chosen[1, 1], chosen[1, 2], chosen[2] = experts, -2, 2**31 - 1, 0
    return Selection(jnp.asarray(chosen), jnp.asarray(random.random((16, 4)).astype(np.float32)))


def values(experts: int) -> dict[str, bool | float]:
    """Value vectors: read, gathered, written."""
    random, mesh = np.random.default_rng(experts), mesh_over()
    numbers = random.normal(size=(experts, 6)).astype(np.float32)
    numbers[0, :2] = -0.0, np.nan
    one = Values(jnp.asarray(numbers))
    selections = _selections(experts, random)
    spread = shard(one, mesh)
    finite = Selection(jnp.clip(selections.experts, NULL, experts - 1), selections.weights)
    tame = Values(jnp.nan_to_num(one.values))
    partial, wanted = _read_partial(shard(tame, mesh), finite), _read(tame, finite)
    found = {
        "read": _same_bits(_read(spread, selections), _read(one, selections)),
        "gathered": _same_bits(_gather(spread, selections.experts).values, one.gather(selections.experts).values),
        "partial_error": float(jnp.abs(partial - wanted).max()),
        "rows_a_device": spread.bank.values.addressable_shards[0].data.shape[0],
    }
    half = Values(one.values.astype(jnp.bfloat16))
    found["bfloat16"] = _same_bits(_read(shard(half, mesh), selections), _read(half, selections))
    ids = np.array([*random.permutation(experts)[:5], NULL, experts, -7], np.int32)
    rows = random.normal(size=(ids.size, 6)).astype(np.float32)
    twice = jnp.array([0, 0, NULL, experts], jnp.int32)
    numbers[ids[:-3]] = rows[:-3]
    expected = jnp.asarray(numbers).at[0].add(jnp.full(6, 0.1)).at[0].add(jnp.full(6, 0.7))
    written = _set_rows(spread, jnp.asarray(ids), Values(jnp.asarray(rows)))
    more = jnp.array([0.1, 0.7, 9.0, 9.0])[:, None] * jnp.ones((1, 6))
    written = _add_rows(written, twice, Values(more))
    everyone = jnp.arange(experts, dtype=jnp.int32)
    found["written"] = _same_bits(_gather(written, everyone).values, expected)
    sums = jax.jit(Sharded.answer)(shard(tame, mesh), jnp.ones(experts))
    found["answer_error"] = float(jnp.abs(sums - tame.values.sum(0)).max())
    if jax.process_count() == 1:
        found["whole"] = _same_bits(written.whole().values, expected)
    return found


def low_rank() -> dict[str, bool]:
    """Adapters, over a mesh with another axis beside and as `jax.make_mesh` makes it."""
    down, up = jax.random.normal(jax.random.key(0), (10, 2, 3)), jax.random.normal(jax.random.key(1), (10, 2, 6))
    one = LowRank(down, up)
    selections, states = _selections(10, np.random.default_rng(0)), jax.random.normal(jax.random.key(2), (16, 3))
    mesh = jax.make_mesh((2, jax.device_count() // 2), ("data", "banks"))
    spread = shard(one, mesh, "banks")
    return {"read": _same_bits(_read_states(spread, selections, states), _read_states(one, selections, states))}


def keys(experts: int) -> dict[str, bool]:
    """Flat keys: small whole numbers, so that scores are exact and many are equal."""
    random = np.random.default_rng(experts)
    numbers = jnp.asarray(random.integers(-2, 3, (experts, 4)).astype(np.float32))
    queries = jnp.asarray(random.integers(-2, 3, (16, 4)).astype(np.float32))
    k = min(5, experts)
    found, wanted = (
        _select(queries, all_keys, k) for all_keys in (ShardedKeys.create(numbers, mesh_over()), FlatKeys(numbers))
    )
    return {"experts": _same_bits(found.experts, wanted.experts), "weights": _same_bits(found.weights, wanted.weights)}


def main() -> None:
    """Run everything and print what was found."""
    if len(sys.argv) > 2:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(sys.argv[4], int(sys.argv[3]), int(sys.argv[2]), initialization_timeout=200)
    found: dict[str, object] = {"devices": jax.device_count(), "processes": jax.process_count()}
    found |= {"values": values(EXPERTS), "keys": keys(EXPERTS), "low rank": low_rank()}
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

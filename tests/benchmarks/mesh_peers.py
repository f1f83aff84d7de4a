"""Reading and writing a bank over virtual devices of one machine, in a process of its own; `mesh.py` compares them."""

import os
from collections.abc import Callable
from typing import Any

from peers import timed

WIDTH, CHOSEN, QUERIES = 64, 32, 256


def bank(*, what: str, devices: int, experts: int) -> Callable[[], dict[str, Any]]:
    """`read`, `read_partial` or `add_rows` of 256 x 32 rows; over one device it is the bank that is not spread."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax
    import jax.numpy as jnp

    from mome_jax.experts import Values, read
    from mome_jax.index import Selection
    from mome_jax.sharding import Sharded, mesh_over, shard

    assert jax.device_count() == devices
    one = Values(jax.random.normal(jax.random.key(0), (experts, WIDTH)))
    chosen = jax.random.randint(jax.random.key(1), (QUERIES, CHOSEN), 0, experts)
    selections = Selection(chosen, jnp.full(chosen.shape, 1 / CHOSEN))
    held: Any = one if devices == 1 else shard(one, mesh_over())
    if what == "add_rows":
        rows = Values(jnp.ones((chosen.size, WIDTH)))
        add = jax.jit(Sharded.add_rows if devices > 1 else _add_rows, donate_argnums=0)

        def write() -> None:
            nonlocal held
            held = jax.block_until_ready(add(held, chosen.reshape(-1), rows))

        return timed(write)
    function = Sharded.read_partial if what == "read_partial" else read
    call = jax.jit(jax.vmap(function, in_axes=(None, 0)))
    return timed(lambda: call(held, selections).block_until_ready())


def _add_rows(bank: Any, experts: Any, rows: Any) -> Any:
    return type(bank)(bank.values.at[experts].add(rows.values, mode="drop"))

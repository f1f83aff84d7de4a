"""One call timed in a process of worker.py, and the machine's own limits to put beside it.

A module of peers has functions that prepare and return `timed(call)`; `processes.alternate` runs them in turn:

    def ours(*, experts: int):                       # in some_peers.py
        ...
        return timed(lambda: jax.block_until_ready(lookup(queries, keys)))

    alternate({"ours": Measured("some_peers:ours", {"experts": 2**20}), ...}, rounds)

The limits are `Measured("peers:copy", {})` and `Measured("peers:matrix_product", {})`. PyTorch is imported by its peers
alone, so that no process holds two thread pools.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from processes import Measured, Spread


def timed(call: Callable[[], Any], *, seconds: float = 1.0, **facts: Any) -> Callable[[], dict[str, Any]]:
    """Warm `call` up and return a measurement of it: median seconds a call, beside whatever `facts` are to be told.

    The call must wait for its own result. It is called for about `seconds`, and at least five times.
    """
    for _ in range(3):
        call()

    def measurement() -> dict[str, Any]:
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < 5 or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return {"seconds": median(times), "calls": len(times), **facts}

    return measurement


def seconds_of(rounds: list[list[dict[str, Any]]]) -> Spread:
    """Seconds a call over the rounds of one peer; of processes side by side the slowest counts."""
    return Spread(tuple(max(one["seconds"] for one in beside) for beside in rounds))


def largest(rounds: list[list[dict[str, Any]]], what: str) -> float:
    """The largest value of a limit (`bytes_per_second`, `flops_per_second`) that any round reached."""
    return max(one["quantity"] / one["seconds"] for beside in rounds for one in beside if one["what"] == what)


def limits() -> Mapping[str, Measured]:
    """The two measurements of the machine that most benchmarks put their own beside."""
    return {"copy": Measured("peers:copy", {}), "matrix product": Measured("peers:matrix_product", {})}


def copy(*, mebibytes: int = 256) -> Callable[[], dict[str, Any]]:
    """Bytes read and written by x + 1 over an array larger than any cache, in place: a fresh one costs page faults."""
    import jax
    import jax.numpy as jnp

    numbers = mebibytes * 2**20 // 4
    add_one = jax.jit(lambda array: array + 1, donate_argnums=0)
    held = [jnp.zeros(numbers, jnp.float32)]

    def once() -> None:
        held[0] = add_one(held[0]).block_until_ready()

    return timed(once, what="bytes_per_second", quantity=8 * numbers)


def matrix_product(*, side: int = 2048) -> Callable[[], dict[str, Any]]:
    """Operations of a large float32 matrix product."""
    import jax
    import jax.numpy as jnp

    square = jax.random.normal(jax.random.key(0), (side, side), dtype=jnp.float32)
    product = jax.jit(jnp.matmul)
    return timed(lambda: product(square, square).block_until_ready(), what="flops_per_second", quantity=2 * side**3)

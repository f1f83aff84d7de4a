"""Facts written into a bank until each is within a tolerance, by each way of writing; and tokens until each is stored.

Every measurement begins with an empty bank that is there before the clock starts.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

CHOSEN, WIDTH, TOLERANCE = 32, 64, 1e-4
STATE_WIDTH, VOCABULARY = 128, 256
_MOST_PASSES, _MOST_TUNED, _REPEATS = 1000, 300, 3
_RATES, _DECAYS = (0.01, 0.03, 0.1, 0.3), (1.0, 0.98, 0.95)


def _selection(facts: int, experts: int, chosen: int) -> Any:
    import jax
    import jax.numpy as jnp

    from mome_jax.addresses import ExactAddresses
    from mome_jax.index import select

    draws = np.random.default_rng(0)
    queries = jnp.asarray(draws.integers(0, 2**32, (facts, 2), dtype=np.uint32))
    addresses = ExactAddresses(experts)
    return jax.block_until_ready(jax.jit(jax.vmap(lambda query: select(query, addresses, chosen)))(queries))


def _targets(facts: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((facts, WIDTH), dtype=np.float32)


def _best_of(once: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    once()
    return lambda: min((once() for _ in range(_REPEATS)), key=lambda found: found["seconds"])


def projection(*, facts: int, experts: int, step: float | str = "auto") -> Callable[[], dict[str, Any]]:
    """`mome_jax.writing.project`."""
    import jax
    import jax.numpy as jnp

    from mome_jax.writing import project

    selection, targets = _selection(facts, experts, CHOSEN), _targets(facts)

    def once() -> dict[str, Any]:
        values = jax.block_until_ready(jnp.zeros((experts, WIDTH)))
        began = time.perf_counter()
        written = project(values, selection, targets, step=step, tolerance=TOLERANCE, passes=_MOST_PASSES)
        jax.block_until_ready(written.values)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "passes": written.passes, "residual": float(written.residuals.max())}

    return _best_of(once)


def adam(*, facts: int, experts: int) -> Callable[[], dict[str, Any]]:
    """Row-sparse Adam on the squared error, all facts a step; of several rates and decays the one of fewest steps."""
    import jax
    import jax.numpy as jnp

    from mome_jax.experts import Values
    from mome_jax.optimizers import Adam, begin, learn

    selection, targets = _selection(facts, experts, CHOSEN), jnp.asarray(_targets(facts))

    def loss(rows: Values, weights: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.sum((jnp.sum(weights[:, :, None] * rows.values, axis=1) - targets) ** 2)

    @jax.jit
    def largest(table: Any, selection: Any, targets: jax.Array) -> jax.Array:
        read = jnp.sum(selection.weights[:, :, None] * table.gather(selection.experts).values, axis=1)
        return jnp.max(jnp.abs(read - targets))

    def once(rate: float, decay: float, most: int) -> dict[str, Any]:
        table = jax.block_until_ready(begin(Adam(jnp.float32(rate)), Values(jnp.zeros((experts, WIDTH)))))
        began, passes, residual = time.perf_counter(), 0, np.inf
        while passes < most and residual > TOLERANCE:
            for _ in range(4):  # it is looked at now and then, not after every step
                rule = Adam(jnp.float32(rate * decay**passes))
                _, table = learn(rule, table, selection.experts, loss, selection.weights, targets)
                passes += 1
            residual = float(largest(table, selection, targets))
        return {"seconds": time.perf_counter() - began, "passes": passes, "residual": residual}

    best, rate, decay = _MOST_TUNED, _RATES[0], 1.0
    for some_rate in _RATES:
        for some_decay in _DECAYS:
            found = once(some_rate, some_decay, best)
            if found["residual"] <= TOLERANCE and found["passes"] < best:
                best, rate, decay = found["passes"], some_rate, some_decay
    return lambda: {**once(rate, decay, _MOST_PASSES), "rate": rate, "decay": decay}


def tokens(*, tokens: int, experts: int, chosen: int) -> Callable[[], dict[str, Any]]:
    """`mome_jax.cross_entropy.memorize` of random targets at random states, through a random unembedding."""
    import jax
    import jax.numpy as jnp

    from mome_jax.cross_entropy import memorize

    draws = np.random.default_rng(2)
    states = draws.standard_normal((tokens, STATE_WIDTH), dtype=np.float32)
    targets = draws.integers(0, VOCABULARY, tokens)
    matrix = jnp.asarray(0.3 * draws.standard_normal((STATE_WIDTH, VOCABULARY), dtype=np.float32))
    unembed = jax.tree_util.Partial(lambda matrix, state: state @ matrix, matrix)
    selection = _selection(tokens, experts, chosen)

    def once() -> dict[str, Any]:
        values = jax.block_until_ready(jnp.zeros((experts, STATE_WIDTH)))
        began = time.perf_counter()
        done = memorize(values, states, targets, selection, unembed)
        jax.block_until_ready(done.values)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "passes": done.passes, "open": int((~done.stored).sum())}

    once()
    return once

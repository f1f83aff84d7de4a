"""Memorizing as the founding paper does (Lamini-1, in arXiv 2406.17642): gradient steps on the chosen experts alone.

Backbone and selection are frozen. The same passes as `mome_jax.cross_entropy`, with another way of writing a chunk: a
row-sparse optimizer steps down the cross-entropy of its open tokens until each has the loss that is aimed at. Tokens
that are there take part in no further step. Moments live for one chunk, on a copy of the rows that it touches.

Letters: as in `mome_jax.cross_entropy`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float32, Float64, Int

from mome_jax.cross_entropy import AIM_NATS, THRESHOLD_NATS, Memorized, Unembed, memorize
from mome_jax.experts import Values
from mome_jax.index import NULL, Selection
from mome_jax.optimizers import Adam, Optimizer, begin, update
from mome_jax.writing import System

Host = np.ndarray


def memorize_by_gradient(
    values: Float32[Array, "M v"],
    states: Float32[Host, "n v"],
    targets: Int[Host, " n"],
    selection: Selection,
    unembed: Unembed,
    *,
    optimizer: Optimizer | None = None,
    most_steps: int = 300,
    threshold_nats: float = THRESHOLD_NATS,
    aim_nats: float = AIM_NATS,
    most_passes: int = 50,
    losses_nats: Float64[Host, " n"] | None = None,
) -> Memorized:
    """As `mome_jax.cross_entropy.memorize`, by at most `most_steps` steps of `optimizer` (Adam, 0.03) a chunk."""
    return memorize(
        values,
        states,
        targets,
        selection,
        unembed,
        threshold_nats=threshold_nats,
        aim_nats=aim_nats,
        most_passes=most_passes,
        losses_nats=losses_nats,
        write=gradient_steps(Adam(0.03) if optimizer is None else optimizer, most_steps),
    )


def gradient_steps(optimizer: Optimizer, most_steps: int) -> Any:
    """A way of writing a chunk, for `memorize` and `memorizing`."""
    return partial(_descend, optimizer, jnp.int32(most_steps))


@partial(jax.jit, donate_argnums=2)
def _descend(
    optimizer: Optimizer,
    most_steps: Array,
    values: Array,
    system: System,
    eases: Array,
    states: Array,
    targets: Array,
    unembed: Partial,
    aim_nats: Array,
) -> Array:
    weights = system.weights * system.norms[:, None] / eases[system.places]

    def losses(rows: Values) -> tuple[Array, Array]:
        logits = jax.vmap(unembed)(states + jnp.sum(weights[:, :, None] * rows.values, axis=1))
        own = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
        each = jax.nn.logsumexp(logits, axis=1) - own
        still_open = (each > aim_nats) & (system.norms > 0.0)
        return jnp.sum(jnp.where(still_open, each, 0.0)), still_open

    def unfinished(state: tuple[Any, Array, Array]) -> Array:
        return state[1] & (state[2] < most_steps)

    def step(state: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        table, _, steps = state
        gradients, still_open = jax.grad(losses, has_aux=True)(table.gather(system.places))
        chosen = jnp.where(still_open[:, None] & (system.weights != 0.0), system.places, NULL)
        return update(optimizer, table, chosen, gradients), jnp.any(still_open), steps + 1

    rows = values.at[system.experts].get(mode="fill", fill_value=0.0)
    table, _, _ = jax.lax.while_loop(unfinished, step, (begin(optimizer, Values(rows)), jnp.bool_(True), jnp.int32(0)))
    return values.at[system.experts].set(table.bank().values, mode="drop", unique_indices=True)

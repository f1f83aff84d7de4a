"""The Flax layer: query -> select -> read -> add to the residual stream; for one token, callers vmap.

Letters: w width of the residual stream, d query width, h heads, k experts a head.

A foreign model needs two lines, a layer where it is built and a call where its residual stream passes:

    self.memory = MemoryLayer(keys, bank, width, query_width, k=32, rngs=rngs)
    ...
    hidden = jax.vmap(self.memory)(hidden)

Parameters of the layer (`nnx.Param`) are the query map and the keys. The bank is an `Experts` variable: a filter for
parameters does not catch it, so that nobody makes a dense gradient of it; `mome_jax.optimizers` trains it row by row
and `layer.bank.set_value(table.bank())` puts it back. Layers share a bank by being given the same `Experts`.

Temperature and a null expert that takes part belong to the keys (`index.Softmax`), and so do heads (`index.Heads`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mome_jax.experts import Bank, read
from mome_jax.index import Heads, Keys, Selection, select
from mome_jax.whitening import Whitening


class Experts(nnx.Variable):
    """A bank inside a Flax model."""


class MemoryLayer(nnx.Module):
    """Adds to one token's residual stream what the experts say that its query chooses."""

    def __init__(
        self,
        keys: Keys,
        bank: Bank | Experts,
        width: int,
        query_width: int,
        *,
        k: int,
        whitening: Whitening | None = None,
        rngs: nnx.Rngs,
    ):
        """A layer over these keys and this bank, which must have as many experts.

        With `Heads` as keys every head has a query map of its own. A whitening, which is not trained, is applied to
        the queries.
        """
        held = bank if isinstance(bank, Experts) else Experts(bank)
        if keys.experts != held.get_value().experts:
            raise ValueError(f"keys for {keys.experts} experts and a bank of {held.get_value().experts}: must be equal")
        if not 1 <= k <= keys.experts:
            raise ValueError(f"k = {k} of {keys.experts} experts: choose from 1 to {keys.experts}")
        self.heads = len(keys.heads) if isinstance(keys, Heads) else None
        self.query = nnx.Linear(width, (self.heads or 1) * query_width, use_bias=False, rngs=rngs)
        self.keys = nnx.Param(keys)
        self.bank = held
        self.whitening = nnx.Variable(whitening)
        self.k = k

    def __call__(self, state: Float[Array, " w"]) -> Float[Array, " w"]:
        """The residual stream behind the layer, of the type that came."""
        return state + read(self.bank.get_value(), self.select(state), state).astype(state.dtype)

    def select(self, state: Float[Array, " w"]) -> Selection:
        """The experts that this state chooses: k, or h k where there are heads."""
        queries = self.query(state.astype(jnp.float32)).reshape(self.heads or 1, -1)
        whitening: Any = self.whitening.get_value()
        if whitening is not None:
            queries = jax.vmap(whitening)(queries)
        return select(queries if self.heads else queries[0], self.keys.get_value(), self.k)

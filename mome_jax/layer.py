"""The Flax layer: query -> select -> read -> add to the residual stream; for one token, callers vmap.

Letters: w width of the residual stream, d query width, h heads, k experts a head, n sampled queries.

A foreign model needs four lines, a layer where it is built and a call where its residual stream passes:

    self.memory = MemoryLayer(keys, bank, width, query_width, k=32, rngs=rngs)
    ...
    hidden = jax.vmap(self.memory)(hidden)

Parameters of the layer (`nnx.Param`) are the query map and the keys. The bank is an `Experts` variable: a filter for
parameters does not catch it, so that nobody makes a dense gradient of it; `mome_jax.optimizers` trains it row by row
and `layer.bank.set_value(table.bank())` puts it back. Layers share a bank by being given the same `Experts`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mome_jax.experts import Bank, read
from mome_jax.index import Keys, Selection, select
from mome_jax.pytrees import pytree


class Experts(nnx.Variable):
    """A bank inside a Flax model."""


@pytree
class Whitening:
    """Queries moved to mean zero and turned and stretched to unit covariance, so that all keys get their share."""

    mean: Float[Array, " d"]
    transform: Float[Array, "d d"]

    @classmethod
    def fit(cls, queries: Float[Array, "n d"], ridge: float = 1e-3) -> "Whitening":
        """From a sample of queries: (C + ridge tr(C)/d)^(-1/2), C their covariance (it turns as little as can be)."""
        mean = jnp.mean(queries, axis=0)
        centered = queries - mean[None]
        covariance = centered.T @ centered / queries.shape[0]
        variances, directions = jnp.linalg.eigh(covariance)
        floor = ridge * jnp.mean(variances) + jnp.finfo(queries.dtype).tiny
        scales = jax.lax.rsqrt(jnp.maximum(variances, jnp.zeros_like(variances)) + floor)
        return cls(mean, (directions * scales[None]) @ directions.T)

    def __call__(self, query: Float[Array, " d"]) -> Float[Array, " d"]:
        """One query, whitened."""
        return self.transform @ (query - self.mean)


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
        heads: int = 1,
        temperature: float = 1.0,
        whitening: Whitening | None = None,
        rngs: nnx.Rngs,
    ):
        """A layer over these keys and this bank, which must have as many experts.

        Each of the `heads` has a query map of its own, chooses k experts and adds what they say; keys and bank serve
        all heads. The softmax over the k scores is of scores / temperature.
        """
        held = bank if isinstance(bank, Experts) else Experts(bank)
        if keys.experts != held.get_value().experts:
            raise ValueError(f"keys for {keys.experts} experts and a bank of {held.get_value().experts}: must be equal")
        if not (1 <= k <= keys.experts and heads >= 1 and temperature > 0):
            raise ValueError(
                f"wanted: 1 <= k <= {keys.experts}, heads >= 1, temperature > 0; "
                f"got k={k}, heads={heads}, temperature={temperature}"
            )
        self.query = nnx.Linear(width, heads * query_width, use_bias=False, rngs=rngs)
        self.keys = nnx.Param(keys)
        self.bank = held
        self.whitening = nnx.Variable(whitening)
        self.k, self.heads, self.temperature = k, heads, temperature

    def __call__(self, state: Float[Array, " w"]) -> Float[Array, " w"]:
        """The residual stream behind the layer."""
        return state + self.answer(self.select(state), state).astype(state.dtype)

    def select(self, state: Float[Array, " w"]) -> Selection:
        """The experts [h k] that the heads choose, with the weights of each."""
        queries = self.query(state.astype(jnp.float32)).reshape(self.heads, -1)
        whitening: Any = self.whitening.get_value()
        if whitening is not None:
            queries = jax.vmap(whitening)(queries)
        return jax.vmap(select, in_axes=(0, None, None))(queries / self.temperature, self.keys.get_value(), self.k)

    def answer(self, selection: Selection, state: Float[Array, " w"]) -> Float[Array, " v"]:
        """What the experts of all heads [h k] say to this state, added up."""
        flat = Selection(selection.experts.reshape(-1), selection.weights.reshape(-1))
        return read(self.bank.get_value(), flat, state)

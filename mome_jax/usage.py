"""How evenly the experts are used: counts that add up over batches, and what they say.

Letters: M experts, n selections of k experts each; p_i the share of all selections that chose expert i.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from mome_jax.index import NULL, Selection
from mome_jax.pytrees import pytree


@pytree
class Usage:
    """Counts so far; `add` works under jit and in the carry of a scan, and two of them add up leaf by leaf."""

    counts: Int32[Array, " M"]
    weights: Float[Array, " M"]
    null: Int32[Array, ""]
    out_of_range: Int32[Array, ""]

    @classmethod
    def none(cls, experts: int) -> "Usage":
        """Nothing counted yet."""
        zero = jnp.zeros((), jnp.int32)
        return cls(jnp.zeros(experts, jnp.int32), jnp.zeros(experts, jnp.float32), zero, zero)

    def add(self, selection: Selection) -> "Usage":
        """With these selections, [k] or [n k], counted as well; counts are exact up to 2^31 a number."""
        experts, weights = selection.experts.reshape(-1), selection.weights.reshape(-1).astype(jnp.float32)
        strange = (experts != NULL) & ((experts < 0) | (experts >= self.counts.size))
        at: Any = {"mode": "drop", "wrap_negative_indices": False}
        return Usage(
            self.counts.at[experts].add(1, **at),
            self.weights.at[experts].add(weights, **at),
            self.null + jnp.sum(experts == NULL, dtype=jnp.int32),
            self.out_of_range + jnp.sum(strange, dtype=jnp.int32),
        )


class Balance(NamedTuple):
    """How even a distribution p over M experts is."""

    share_used: float  # of the experts, those with p_i > 0
    kl_nats: float  # KL(p | uniform) = ln M + sum_i p_i ln p_i: 0 if even, ln M if one expert does it all
    maximum_load: float  # M max_i p_i: 1 if even, M if one expert does it all
    effective_number: float  # exp(entropy) = M exp(-kl_nats): so many evenly used experts are as uneven


def balance(counts: Any) -> Balance:
    """The balance of `Usage.counts` or `Usage.weights`, in float64; ValueError if they are no counts or sum to zero.

    >>> balance(np.array([2, 2, 0, 0]))
    Balance(share_used=0.5, kl_nats=0.6931471805599453, maximum_load=2.0, effective_number=2.0)
    """
    numbers = np.asarray(counts, np.float64).reshape(-1)
    if not (numbers.size and np.isfinite(numbers).all() and (numbers >= 0).all() and numbers.any()):
        raise ValueError("balance is that of counts: finite, not negative, and not all zero")
    shares = numbers / numbers.sum()
    used = shares[shares > 0]
    entropy = float(-np.sum(used * np.log(used)))
    kl = max(0.0, float(np.log(numbers.size)) - entropy)
    return Balance(used.size / numbers.size, kl, float(numbers.size * shares.max()), float(np.exp(entropy)))

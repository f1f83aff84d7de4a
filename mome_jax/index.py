"""Which experts a query chooses: `select(query, keys, k) -> Selection`, for one query; callers vmap.

Letters: M experts, d query width, k chosen.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
from jax import tree_util
from jaxtyping import Array, Float, Int32, PyTree

NULL = -1  # the null expert: reads as zeros and is never written


class Selection(NamedTuple):
    """The chosen experts, best first, and the weight with which each is read; batched it is [n k]."""

    experts: Int32[Array, "*n k"]
    weights: Float[Array, "*n k"]


class Keys(Protocol):
    """What chooses among experts: a pytree that knows their number and can select for one query."""

    @property
    def experts(self) -> int:
        """Number of experts M."""
        ...

    def select(self, query: PyTree, k: int) -> Selection:
        """The k experts of one query."""
        ...


def select(query: PyTree, keys: Keys, k: int) -> Selection:
    """The k experts that one query chooses, best first; ties go to the lowest id."""
    return keys.select(query, k)


@tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlatKeys:
    """One key per expert, all scored: the reference, O(M d) a query."""

    keys: Float[Array, "M d"]

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.keys.shape[0]

    def select(self, query: Float[Array, " d"], k: int) -> Selection:
        """The k keys of largest inner product with the query."""
        scores, experts = jax.lax.top_k(self.keys @ query, k)
        return Selection(experts, jax.nn.softmax(scores))

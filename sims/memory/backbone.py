"""The frozen language model beside which facts are stored, and the states it has where an answer is due.

A backbone is two functions, `hidden` and `unembed`: the memory changes the state between them. One that also offers
`begin` and `advance` decodes with a key-value cache; `Recomputing` gives them to any other. One that offers `kernels`
and `with_updates` can be adapted by updates of low rank.

Letters: T tokens of a sequence, W width of a state, V vocabulary, n facts, t tokens of the longest fact, s states,
r rank of an update.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from sims.memory.buckets import batches

TOKENS_PER_BATCH = 16384  # of a forward pass: padded rows that go through the backbone together
_WIDE = 512  # numbers of a state above which fewer tokens go together, so that their activations fit into memory


@runtime_checkable
class Backbone(Protocol):
    """A frozen causal language model: a JAX pytree with two functions of one sequence, and its sizes."""

    @property
    def width(self) -> int:
        """Numbers in a state, W."""
        ...

    @property
    def vocabulary(self) -> int:
        """Token ids, V."""
        ...

    @property
    def context(self) -> int:
        """Tokens of the longest sequence it takes."""
        ...

    def hidden(self, tokens: Int32[Array, " T"]) -> Float[Array, "T W"]:
        """The state after each token, float32 whatever the weights are; row i depends on tokens 0 ... i alone.

        It is what predicts token i + 1.
        """
        ...

    def unembed(self, state: Float[Array, " W"]) -> Float[Array, " V"]:
        """Logits of the next token."""
        ...


@runtime_checkable
class CachedBackbone(Backbone, Protocol):
    """A backbone that goes on from what it has read, without reading it again."""

    def begin(
        self, tokens: Int32[Array, " T"], length: Int32[Array, ""], room: int
    ) -> tuple[PyTree, Float[Array, " W"]]:
        """Read the first `length` tokens: a cache with room for so many more, and the last of their states."""
        ...

    def advance(
        self, cache: PyTree, token: Int32[Array, ""], count: Int32[Array, ""], slot: Int32[Array, ""]
    ) -> tuple[PyTree, Float[Array, " W"]]:
        """Read one token more, the one after `count` others; the cache and the state after it.

        `slot` is where the cache keeps it, in [0, room): a number that grows by one (modulo room) with each token.
        It is one number for all rows of a batch, which may have begun at different times: then keeping is a copy of
        a slice, where rows of their own would need a scatter.
        """
        ...


class LowRankUpdate(NamedTuple):
    """A change `scale * down @ up` of a linear map [in out], of rank r at most."""

    down: Float[Array, "in r"]
    up: Float[Array, "r out"]


@runtime_checkable
class Adaptable(Backbone, Protocol):
    """A backbone whose linear maps can be changed by updates of low rank (LoRA, arXiv 2106.09685)."""

    def kernels(self) -> dict[str, tuple[int, int]]:
        """The linear maps that may be changed: name -> (in, out)."""
        ...

    def with_updates(self, updates: Mapping[str, LowRankUpdate], scale: float) -> Backbone:
        """The same network with W + scale * down @ up in place of each named W; ValueError for unknown names."""
        ...

    def forward_flops(self, tokens: int) -> float:
        """Operations of the matrix products over one sequence of so many tokens, the unembedding of each included."""
        ...

    @property
    def parameters(self) -> int:
        """Numbers of the whole network."""
        ...


@tree_util.register_dataclass
@dataclass(frozen=True)
class Recomputing:
    """Any backbone with `begin` and `advance`: it reads the whole sequence again for each token."""

    backbone: Backbone

    @property
    def width(self) -> int:
        """Numbers in a state, W."""
        return self.backbone.width

    @property
    def vocabulary(self) -> int:
        """Token ids, V."""
        return self.backbone.vocabulary

    @property
    def context(self) -> int:
        """Tokens of the longest sequence it takes."""
        return self.backbone.context

    def hidden(self, tokens: Int32[Array, " T"]) -> Float[Array, "T W"]:
        """The state after each token."""
        return self.backbone.hidden(tokens)

    def unembed(self, state: Float[Array, " W"]) -> Float[Array, " V"]:
        """Logits of the next token."""
        return self.backbone.unembed(state)

    def begin(
        self, tokens: Int32[Array, " T"], length: Int32[Array, ""], room: int
    ) -> tuple[PyTree, Float[Array, " W"]]:
        """The tokens themselves are the cache."""
        space = min(len(tokens) + room, self.context) - len(tokens)
        read = jnp.concatenate([tokens, jnp.zeros(space, tokens.dtype)])
        state = jax.lax.dynamic_index_in_dim(self.hidden(read), length - 1, keepdims=False)
        return (read, length), state

    def advance(
        self, cache: PyTree, token: Int32[Array, ""], count: Int32[Array, ""], slot: Int32[Array, ""]
    ) -> tuple[PyTree, Float[Array, " W"]]:
        """Read everything again, with one token more."""
        read, length = cache
        read = read.at[length + count].set(token, mode="drop")
        return (read, length), jax.lax.dynamic_index_in_dim(self.hidden(read), length + count, keepdims=False)


def hidden_states(
    backbone: Backbone,
    tokens: Int32[np.ndarray, "n t"],
    answer_mask: Bool[np.ndarray, "n t"],
    *,
    advance: Callable[[float], None] = lambda work: None,
) -> Float32[np.ndarray, "s W"]:
    """The states from which the marked tokens are predicted, fact by fact: the one before each marked token.

    s is the number of marked tokens. Beside the result no more than one batch is in memory. `advance` is told the
    number of facts after each batch. Raises ValueError if a first token is marked, as nothing predicts it.
    """
    if answer_mask[:, 0].any():
        raise ValueError("the first token of a sequence is predicted by no state; mark later ones only")
    answers = answer_mask.sum(axis=1)
    first = np.concatenate([[0], np.cumsum(answers)])  # of each fact, among the states
    states = np.empty((first[-1], backbone.width), dtype=np.float32)
    # What predicts the last marked token is the longest that must be read.
    reach = np.where(answers > 0, answer_mask.shape[1] - np.argmax(answer_mask[:, ::-1], axis=1) - 1, 0)
    for batch in batches(reach, TOKENS_PER_BATCH // max(1, backbone.width // _WIDE), most=backbone.context):
        read = np.asarray(_hidden_of_rows(backbone, jnp.asarray(batch.cut(tokens, 0))))
        row, place = np.nonzero(answer_mask[batch.rows, 1 : batch.width + 1])
        within = np.arange(len(row)) - np.repeat(
            np.cumsum(answers[batch.rows]) - answers[batch.rows], answers[batch.rows]
        )
        states[first[batch.rows[row]] + within] = read[row, place]
        advance(len(batch.rows))
    return states


@jax.jit
def _hidden_of_rows(backbone: Backbone, tokens: Int[Array, "b T"]) -> Float[Array, "b T W"]:
    return jax.vmap(backbone.hidden)(tokens)

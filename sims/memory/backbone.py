"""The frozen language model beside which facts are stored, and the states it has where an answer is due.

A backbone is two functions, `hidden` and `unembed`: the memory changes the state between them. One that also offers
`begin` and `advance` decodes with a key-value cache; `Recomputing` gives them to any other.

Letters: T tokens of a sequence, W width of a state, V vocabulary, A room for an answer, L layers, H heads, D = W / H,
n facts, t tokens of the longest fact, s states.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import tree_util
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from sims.memory.buckets import batches
from sims.networks import Architecture, Parameters, Transformer, network
from theory.console import Refusal

TOKENS_PER_BATCH = 16384  # of a forward pass: padded rows that go through the backbone together
_FORMAT = "next-token transformer, 1"


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
        """The state after each token; row i depends on tokens 0 ... i alone and is what predicts token i + 1."""
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


class _KeysValues(NamedTuple):
    """What one layer's attention looks at; arrays of their own, since a slice of a larger one would be copied."""

    keys: Float[Array, "H T D"]
    values: Float[Array, "H T D"]


class _Cache(NamedTuple):
    """Per layer: what was read at the start, and the tokens since, a ring of A places."""

    past: tuple[_KeysValues, ...]
    recent: tuple[_KeysValues, ...]
    length: Int32[Array, ""]


@tree_util.register_dataclass
@dataclass(frozen=True)
class ByteBackbone:
    """A next-token transformer with its weights."""

    parameters: Parameters
    architecture: Architecture = field(metadata={"static": True})

    @classmethod
    def fresh(
        cls,
        key: Array,
        context: int,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        vocabulary: int = 259,
    ) -> "ByteBackbone":
        """Random weights, consuming the key; the vocabulary is 256 bytes, ASK, END and PAD unless told otherwise."""
        architecture = Architecture("transformer", context, width, vocabulary, layers, heads)
        return cls(jax.jit(network(architecture).init)(key), architecture)

    @property
    def width(self) -> int:
        """Numbers in a state, W."""
        return self.architecture.width

    @property
    def vocabulary(self) -> int:
        """Token ids, V."""
        return self.architecture.answers

    @property
    def context(self) -> int:
        """Tokens of the longest sequence it takes."""
        return self.architecture.inputs

    def hidden(self, tokens: Int32[Array, " T"]) -> Float[Array, "T W"]:
        """The residual stream after the last norm; row i is what predicts token i + 1."""
        return self._transformer().hidden(tokens)

    def unembed(self, state: Float[Array, " W"]) -> Float[Array, " V"]:
        """Logits of the next token; linear in the state."""
        return self._transformer().unembed(state)

    def begin(
        self, tokens: Int32[Array, " T"], length: Int32[Array, ""], room: int
    ) -> tuple[_Cache, Float[Array, " W"]]:
        """Read the first `length` tokens, which is at least one; their keys and values, and the last state."""
        transformer = self._transformer()
        stream = transformer.tokens(tokens) + transformer.positions.embedding[: len(tokens)]
        past, recent = [], []
        for block in transformer.blocks:
            projected = block.queries_keys_values(block.before_attention(stream))  # the block's own, computed once
            _, keys, values = projected.reshape(len(tokens), 3, block.heads, -1).transpose(1, 2, 0, 3)
            past.append(_KeysValues(keys, values))
            recent.append(_KeysValues(*[jnp.zeros_like(keys, shape=(len(keys), room, keys.shape[2]))] * 2))
            stream = block(stream)
        state = transformer.last_norm(jax.lax.dynamic_index_in_dim(stream, length - 1, keepdims=False))
        return _Cache(tuple(past), tuple(recent), length), state

    def advance(
        self, cache: _Cache, token: Int32[Array, ""], count: Int32[Array, ""], slot: Int32[Array, ""]
    ) -> tuple[_Cache, Float[Array, " W"]]:
        """Read one token more (see CachedBackbone); the sequence may not grow past the context."""
        transformer = self._transformer()
        reach, room = cache.past[0].keys.shape[1], cache.recent[0].keys.shape[1]
        seen = jnp.concatenate([jnp.arange(reach) < cache.length, jnp.mod(slot - jnp.arange(room), room) <= count])
        stream = transformer.tokens(token) + transformer.positions.embedding[cache.length + count]
        kept = []
        for block, past, recent in zip(transformer.blocks, cache.past, cache.recent, strict=True):
            projected = block.queries_keys_values(block.before_attention(stream))
            query, key, value = projected.reshape(3, block.heads, -1)
            recent = _KeysValues(*(_put(old, new, slot) for old, new in zip(recent, (key, value), strict=True)))
            kept.append(recent)
            scores = jnp.concatenate([jnp.einsum("hd,htd->ht", query, part.keys) for part in (past, recent)], axis=1)
            scores = jnp.where(seen[None], scores / math.sqrt(query.shape[1]), -jnp.inf)
            weights = jax.nn.softmax(scores, axis=1)
            mixed = jnp.einsum("ht,htd->hd", weights[:, :reach], past.values)
            mixed += jnp.einsum("ht,htd->hd", weights[:, reach:], recent.values)
            stream = stream + block.mix(mixed.reshape(-1))
            stream = stream + block.down(jax.nn.gelu(block.up(block.before_mlp(stream))))
        return cache._replace(recent=tuple(kept)), transformer.last_norm(stream)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The weights by name, and a header of plain JSON values, from which `from_arrays` makes this backbone."""
        leaves = tree_util.tree_flatten_with_path(self.parameters)[0]
        arrays = {_name(path): np.asarray(leaf) for path, leaf in leaves}
        sizes = self.architecture
        return arrays, {
            "format": _FORMAT,
            "context": sizes.inputs,
            "width": sizes.width,
            "vocabulary": sizes.answers,
            "layers": sizes.layers,
            "heads": sizes.heads,
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], header: Mapping[str, Any], source: str = "backbone"
    ) -> "ByteBackbone":
        """The backbone that `to_arrays` took apart; raises Refusal, naming `source`, if the parts do not fit."""
        sizes: list[Any] = [header.get(name) for name in ("context", "width", "vocabulary", "layers", "heads")]
        if header.get("format") != _FORMAT or not all(type(size) is int and size > 0 for size in sizes):
            raise Refusal(f"{source}: is no backbone of the format {_FORMAT!r}; pretrain it again")
        context, width, vocabulary, layers, heads = sizes
        try:
            architecture = Architecture("transformer", context, width, vocabulary, layers, heads)
        except ValueError as error:
            raise Refusal(f"{source}: {error}; pretrain it again") from None
        wanted, structure = tree_util.tree_flatten_with_path(
            jax.eval_shape(network(architecture).init, jax.random.key(0))
        )
        leaves = []
        for path, shape in wanted:
            leaf = arrays.get(_name(path))
            if leaf is None or leaf.shape != shape.shape or leaf.dtype != shape.dtype:
                found = "is missing" if leaf is None else f"is {leaf.dtype}{list(leaf.shape)}"
                wanted_text = f"{shape.dtype}{list(shape.shape)}"
                raise Refusal(f"{source}: array {_name(path)!r} {found}, not {wanted_text}; pretrain it again")
            leaves.append(jnp.asarray(leaf))
        return cls(structure.unflatten(leaves), architecture)

    def _transformer(self) -> Transformer:
        return nnx.merge(_graph(self.architecture), nnx.State(self.parameters))


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
    for batch in batches(reach, TOKENS_PER_BATCH, most=backbone.context):
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


def _put(ring: Float[Array, "H A D"], row: Float[Array, "H D"], slot: Int32[Array, ""]) -> Float[Array, "H A D"]:
    return jax.lax.dynamic_update_slice_in_dim(ring, row[:, None], slot, axis=1)


def _name(path: tuple) -> str:
    return "/".join(str(getattr(part, "key", part)) for part in path)


@cache
def _graph(architecture: Architecture) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: architecture.module(nnx.Rngs(0))))[0]

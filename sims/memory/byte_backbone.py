"""A next-token transformer with its weights, trained here: the backbone of memories, and what is adapted to facts.

Letters: T tokens of a sequence, W width of a state, V vocabulary, A room for an answer, L layers, H heads, D = W / H,
r rank of an update.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import tree_util
from jaxtyping import Array, Float, Int32

from sims.memory.backbone import LowRankUpdate
from sims.networks import Architecture, Parameters, Transformer, network
from theory.console import Refusal

_FORMAT = "next-token transformer, 1"
_LINEAR_MAPS = ("queries_keys_values", "mix", "up", "down")  # of a block


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

    weights: Parameters
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

    @property
    def parameters(self) -> int:
        """Numbers of the whole network."""
        return self.architecture.parameters

    def kernels(self) -> dict[str, tuple[int, int]]:
        """The linear maps of attention and MLP; neither embeddings nor the unembedding."""
        return {
            f"blocks/{block}/{name}": self.weights["blocks"][block][name]["kernel"].shape
            for block in range(self.architecture.layers)
            for name in _LINEAR_MAPS
        }

    def with_updates(self, updates: Mapping[str, LowRankUpdate], scale: float) -> "ByteBackbone":
        """The same network with the updates added into its kernels; ValueError for unknown names."""
        if unknown := updates.keys() - self.kernels().keys():
            raise ValueError(f"no linear map is called {', '.join(sorted(unknown))}")
        changed = [dict(self.weights["blocks"][block]) for block in range(self.architecture.layers)]
        for place, update in updates.items():
            _, block, name = place.split("/")
            linear = changed[int(block)][name]
            kernel = linear["kernel"] + scale * (update.down @ update.up)
            changed[int(block)][name] = {**linear, "kernel": kernel}
        return replace(self, weights={**self.weights, "blocks": dict(enumerate(changed))})

    def forward_flops(self, tokens: int) -> float:
        """Operations of the matrix products over one sequence, the unembedding of each token included.

        Attention is counted over all pairs of tokens, as it is computed.
        """
        sizes = self.architecture
        maps = sum(inputs * outputs for inputs, outputs in self.kernels().values()) + sizes.width * sizes.answers
        return 2.0 * tokens * (maps + 2 * sizes.layers * tokens * sizes.width)

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
        leaves = tree_util.tree_flatten_with_path(self.weights)[0]
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
        return nnx.merge(_graph(self.architecture), nnx.State(self.weights))


def _put(ring: Float[Array, "H A D"], row: Float[Array, "H D"], slot: Int32[Array, ""]) -> Float[Array, "H A D"]:
    return jax.lax.dynamic_update_slice_in_dim(ring, row[:, None], slot, axis=1)


def _name(path: tuple) -> str:
    return "/".join(str(getattr(part, "key", part)) for part in path)


@cache
def _graph(architecture: Architecture) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: architecture.module(nnx.Rngs(0))))[0]

"""A pretrained decoder as a backbone: plain functions of its tensors.

Tensors keep the names and the layout of their file, linear maps [out, in]. The residual stream, norms and softmax are
float32; in a bfloat16 checkpoint each product multiplies in bfloat16 and adds up in float32. Updates of low rank stay
beside the maps that they change: x W + (x down) up.

Letters: S tokens read at once, T of a sequence, W width, V vocabulary, R places that a token may look at, A room for an
answer, K heads of keys, G query heads per head of keys, D numbers per head, r rank of an update.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import tree_util
from jaxtyping import Array, Float, Float32, Int32

from sims.checkpoints.design import Design, LayerDesign, Rotary
from sims.memory.backbone import LowRankUpdate

_NOWHERE = jnp.iinfo(jnp.int32).max  # a position after every token: nothing looks at it
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu, tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


class _Read(NamedTuple):
    """Keys and values of tokens that were read, in one layer."""

    keys: Float[Array, "R K D"]
    values: Float[Array, "R K D"]


class _Cache(NamedTuple):
    """Per layer: what was read at the start, and the tokens since, a ring of A places."""

    past: tuple[_Read, ...]
    recent: tuple[_Read, ...]
    length: Int32[Array, ""]


# What a layer looks at, given its number and the keys and values of the tokens read now: parts with their positions.
_Look = Callable[[int, _Read], list[tuple[_Read, Int32[Array, " R"]]]]


@tree_util.register_dataclass
@dataclass(frozen=True)
class CheckpointBackbone:
    """A Llama-, Mistral-, Qwen- or Gemma-family decoder with its weights."""

    weights: dict[str, Array]  # the tensors of `design.tensors()`
    design: Design = field(metadata={"static": True})
    updates: dict[str, LowRankUpdate] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Numbers in a state, W."""
        return self.design.width

    @property
    def vocabulary(self) -> int:
        """Token ids, V."""
        return self.design.vocabulary

    @property
    def context(self) -> int:
        """Tokens of the longest sequence it takes."""
        return self.design.context

    @property
    def logit_cap(self) -> float | None:
        """Every logit is within [-cap, cap]; None: there are no bounds."""
        return self.design.logit_cap

    @property
    def parameters(self) -> int:
        """Numbers of the whole network, without updates."""
        return self.design.parameters

    def kernels(self) -> dict[str, tuple[int, int]]:
        """The linear maps of attention and MLP; neither embeddings nor the unembedding."""
        return self.design.kernels()

    def with_updates(self, updates: Mapping[str, LowRankUpdate], scale: float) -> "CheckpointBackbone":
        """The same network with W + scale * down @ up; updates that it has already stay. ValueError: unknown names."""
        if unknown := updates.keys() - self.kernels().keys():
            raise ValueError(f"no linear map is called {', '.join(sorted(unknown))}")
        merged = dict(self.updates)
        for name, (down, up) in updates.items():
            update = LowRankUpdate(down, scale * up)
            if name in merged:  # a sum of two products is one product of longer factors
                former = merged[name]
                update = LowRankUpdate(
                    jnp.concatenate([former.down, update.down], axis=1), jnp.concatenate([former.up, update.up])
                )
            merged[name] = update
        return replace(self, updates=merged)

    def forward_flops(self, tokens: int) -> float:
        """Operations of the matrix products over one sequence, the unembedding of each token included.

        Attention is counted over all pairs of tokens, as it is computed; updates are not counted.
        """
        design = self.design
        maps = sum(inputs * outputs for inputs, outputs in self.kernels().values()) + design.width * design.vocabulary
        return 2.0 * tokens * (maps + 2 * len(design.layers) * tokens * design.heads * design.head)

    def hidden(self, tokens: Int32[Array, " T"]) -> Float32[Array, "T W"]:
        """The residual stream after the last norm; row i is what predicts token i + 1."""
        positions = jnp.arange(len(tokens))
        return self._norm("norm", self._stream(tokens, positions, lambda layer, now: [(now, positions)]))

    def unembed(self, state: Float[Array, " W"]) -> Float32[Array, " V"]:
        """Logits of the next token; linear in the state, but for the caps of Gemma 2."""
        unembedding = self.weights["embed_tokens" if self.design.tied else "lm_head"]
        return _capped(self._multiply("i,vi->v", state, unembedding), self.design.logit_cap)

    def begin(
        self, tokens: Int32[Array, " T"], length: Int32[Array, ""], room: int
    ) -> tuple[_Cache, Float32[Array, " W"]]:
        """Read the first `length` tokens, which is at least one; their keys and values, and the last state."""
        positions, past = jnp.arange(len(tokens)), []

        def look(layer: int, now: _Read) -> list[tuple[_Read, Int32[Array, " R"]]]:
            past.append(now)
            return [(now, positions)]

        stream = self._stream(tokens, positions, look)
        last = jax.lax.dynamic_slice_in_dim(stream, length - 1, 1)
        empty = jnp.zeros((room, *past[0].keys.shape[1:]), past[0].keys.dtype)
        return _Cache(tuple(past), (_Read(empty, empty),) * len(past), length), self._norm("norm", last)[0]

    def advance(
        self, cache: _Cache, token: Int32[Array, ""], count: Int32[Array, ""], slot: Int32[Array, ""]
    ) -> tuple[_Cache, Float32[Array, " W"]]:
        """Read one token more (see CachedBackbone); the sequence may not grow past the context."""
        reach, room = len(cache.past[0].keys), len(cache.recent[0].keys)
        here = cache.length + count
        first = jnp.arange(reach)
        age = jnp.mod(slot - jnp.arange(room), room)
        past_positions = jnp.where(first < cache.length, first, _NOWHERE)
        recent_positions = jnp.where(age <= count, here - age, _NOWHERE)
        kept: list[_Read] = []

        def look(layer: int, now: _Read) -> list[tuple[_Read, Int32[Array, " R"]]]:
            ring = zip(cache.recent[layer], now, strict=True)
            kept.append(_Read(*(jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis=0) for old, new in ring)))
            return [(cache.past[layer], past_positions), (kept[-1], recent_positions)]

        stream = self._stream(token[None], here[None], look)
        return cache._replace(recent=tuple(kept)), self._norm("norm", stream)[0]

    def _stream(self, tokens: Int32[Array, " S"], positions: Int32[Array, " S"], look: _Look) -> Float32[Array, "S W"]:
        """The residual stream after the last layer, before the last norm; ValueError if the context is too short."""
        design = self.design
        if len(tokens) > design.context:
            raise ValueError(f"{len(tokens)} tokens are more than the context of {design.context}")
        stream = self.weights["embed_tokens"].at[tokens].get(mode="fill", fill_value=jnp.nan).astype(jnp.float32)
        if design.gemma:
            stream = stream * math.sqrt(design.width)
        for number, layer in enumerate(design.layers):
            at = f"layers.{number}."
            mixed = self._attention(number, layer, self._norm(f"{at}input_layernorm", stream), positions, look)
            if design.norms_after:
                stream = stream + self._norm(f"{at}post_attention_layernorm", mixed)
                changed = self._mlp(at, self._norm(f"{at}pre_feedforward_layernorm", stream))
                stream = stream + self._norm(f"{at}post_feedforward_layernorm", changed)
            else:
                stream = stream + mixed
                stream = stream + self._mlp(at, self._norm(f"{at}post_attention_layernorm", stream))
        return stream

    def _attention(
        self, number: int, layer: LayerDesign, x: Float[Array, "S W"], positions: Int32[Array, " S"], look: _Look
    ) -> Float32[Array, "S W"]:
        design, at, size = self.design, f"layers.{number}.self_attn.", len(x)
        queries = self._linear(f"{at}q_proj", x).reshape(size, design.heads, design.head)
        keys, values = (
            self._linear(f"{at}{side}_proj", x).reshape(size, design.key_heads, design.head) for side in "kv"
        )
        if design.head_norms:
            queries, keys = self._norm(f"{at}q_norm", queries), self._norm(f"{at}k_norm", keys)
        queries, keys = (_rotated(some, positions, layer.rotary) for some in (queries, keys))
        queries = queries.reshape(size, design.key_heads, -1, design.head)
        kind = self.weights["embed_tokens"].dtype
        parts = look(number, _Read(keys.astype(kind), values.astype(kind)))
        scores = [self._multiply("skgd,rkd->kgsr", queries, part.keys) for part, _ in parts]
        distance = positions[:, None] - jnp.concatenate([places for _, places in parts])[None]
        seen = (distance >= 0) & (distance < (layer.window or _NOWHERE))
        every = _capped(jnp.concatenate(scores, axis=3) / design.score_divisor, design.score_cap)
        weights = jax.nn.softmax(jnp.where(seen[None, None], every, -jnp.inf), axis=3)
        mixed, start = jnp.zeros_like(queries), 0
        for part, places in parts:
            share = weights[..., start : start + len(places)]
            mixed, start = mixed + self._multiply("kgsr,rkd->skgd", share, part.values), start + len(places)
        return self._linear(f"{at}o_proj", mixed.reshape(size, -1))

    def _mlp(self, at: str, x: Float[Array, "S W"]) -> Float32[Array, "S W"]:
        gate = _ACTIVATIONS[self.design.activation](self._linear(f"{at}mlp.gate_proj", x))
        return self._linear(f"{at}mlp.down_proj", gate * self._linear(f"{at}mlp.up_proj", x))

    def _linear(self, name: str, x: Float[Array, "S i"]) -> Float32[Array, "S o"]:
        out = self._multiply("si,oi->so", x, self.weights[name])
        if (bias := self.weights.get(f"{name}.bias")) is not None:
            out = out + bias[None]
        if (update := self.updates.get(name)) is not None:
            out = out + self._multiply("sr,ro->so", self._multiply("si,ir->sr", x, update.down), update.up)
        return out

    def _norm(self, name: str, x: Float[Array, "... w"]) -> Float32[Array, "... w"]:
        """Divided by the root mean square of the last axis, times the weight."""
        scale = self.weights[name].reshape((1,) * (x.ndim - 1) + (-1,))
        scale = 1 + scale if self.design.gemma else scale
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.design.epsilon) * scale

    def _multiply(self, indices: str, left: Array, right: Array) -> Float32[Array, "..."]:
        """A product of two arrays in the checkpoint's type, added up in float32."""
        kind = self.weights["embed_tokens"].dtype
        # Accelerators would cut float32 factors shorter unless told not to.
        precision = jax.lax.Precision.HIGHEST if kind == jnp.float32 else None
        factors = (left.astype(kind), right.astype(kind))
        return jnp.einsum(indices, *factors, precision=precision, preferred_element_type=jnp.float32)


def _rotated(
    x: Float[Array, "S heads D"], positions: Int32[Array, " S"], rotary: Rotary
) -> Float32[Array, "S heads D"]:
    """Pair j of a head is its numbers j and j + D / 2."""
    frequencies = jnp.asarray(rotary.frequencies(x.shape[2]), jnp.float32)
    angles = (positions.astype(jnp.float32)[:, None] * frequencies[None])[:, None]
    first, second = jnp.split(x, 2, axis=2)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=2)


def _capped(x: Array, cap: float | None) -> Array:
    return x if cap is None else cap * jnp.tanh(x / cap)

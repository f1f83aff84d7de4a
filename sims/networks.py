"""Small networks that learn facts: an associative memory, an MLP, a next-token transformer.

Flax NNX describes each network for one example; plain JAX transforms run it. A network maps the input of one fact to
logits `[*S V]`: one row of V answers for the classifiers (S is empty), one row a position for the transformer.

Letters: D features, W width, V answers or vocabulary, T context length in tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

Parameters = Any  # a pytree of float32 arrays

# Lanes that one worker advances together, measured once per network by tests/benchmarks/lanes.py: more gain nothing
# on a core and lengthen the tail of a grid. Part of a run's identity: another number gives other low-order bits.
LANES = {"linear": 8, "mlp": 4, "transformer": 2}


class AssociativeMemory(nnx.Module):
    """A linear map from a key to scores of answers: D V parameters and nothing else."""

    def __init__(self, features: int, answers: int, *, rngs: nnx.Rngs):
        self.scores = nnx.Linear(features, answers, use_bias=False, rngs=rngs)

    def __call__(self, key: Float[Array, " D"]) -> Float[Array, " V"]:
        """Scores of the answers to one key."""
        return self.scores(key)


class MLP(nnx.Module):
    """One hidden layer of GELU units; 32-64-32 has 4192 parameters."""

    def __init__(self, features: int, width: int, answers: int, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(features, width, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.scores = nnx.Linear(width, answers, rngs=rngs)

    def __call__(self, key: Float[Array, " D"]) -> Float[Array, " V"]:
        """Scores of the answers to one key."""
        return self.scores(jax.nn.gelu(self.hidden(key)))


class _Block(nnx.Module):
    """Pre-norm causal attention and a GELU MLP, added to the residual stream."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.before_attention = nnx.RMSNorm(width, rngs=rngs)
        self.before_mlp = nnx.RMSNorm(width, rngs=rngs)
        self.queries_keys_values = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.mix = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, stream: Float[Array, "T W"]) -> Float[Array, "T W"]:
        length, width = stream.shape
        heads = self.queries_keys_values(self.before_attention(stream))
        query, key, value = heads.reshape(length, 3, self.heads, width // self.heads).transpose(1, 2, 0, 3)
        scores = jnp.einsum("hqd,hkd->hqk", query, key) / math.sqrt(width // self.heads)
        causal = jnp.tril(jnp.ones((length, length), dtype=bool))
        weights = jax.nn.softmax(jnp.where(causal[None], scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("hqk,hkd->qhd", weights, value).reshape(length, width)
        stream = stream + self.mix(mixed)
        return stream + self.down(jax.nn.gelu(self.up(self.before_mlp(stream))))


class Transformer(nnx.Module):
    """A causal transformer over tokens; row t of its logits predicts token t + 1."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02)
        self.tokens = nnx.Embed(vocabulary, width, embedding_init=normal, rngs=rngs)
        self.positions = nnx.Embed(context, width, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.List([_Block(width, heads, rngs=rngs) for _ in range(layers)])
        self.last_norm = nnx.RMSNorm(width, rngs=rngs)
        self.unembed = nnx.Linear(width, vocabulary, use_bias=False, rngs=rngs)

    def hidden(self, tokens: Int[Array, " T"]) -> Float[Array, "T W"]:
        """The residual stream after the last norm: what `unembed` reads."""
        stream = self.tokens(tokens) + self.positions.embedding[: len(tokens)]
        for block in self.blocks:
            stream = block(stream)
        return self.last_norm(stream)

    def __call__(self, tokens: Int[Array, " T"]) -> Float[Array, "T V"]:
        """Logits of the next token at every position."""
        return self.unembed(self.hidden(tokens))


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes a network's shape; part of a run's identity.

    `inputs` is the number of features of a key (linear, mlp) or the context length in tokens (transformer);
    `answers` the number of rows that the logits choose among (for the transformer: its vocabulary).
    """

    name: str
    inputs: int
    width: int
    answers: int
    layers: int = 2
    heads: int = 4

    def __post_init__(self):
        if self.name not in LANES:
            raise ValueError(f"unknown network {self.name!r}; known: {', '.join(LANES)}")
        if min(self.inputs, self.width, self.answers, self.layers, self.heads) < 1:
            raise ValueError(f"an architecture has positive sizes, got {self}")
        if self.name == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")

    @property
    def lanes(self) -> int:
        """Runs that advance together in one program."""
        return LANES[self.name]

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        """The network as a Flax module with fresh weights."""
        if self.name == "linear":
            return AssociativeMemory(self.inputs, self.answers, rngs=rngs)
        if self.name == "mlp":
            return MLP(self.inputs, self.width, self.answers, rngs=rngs)
        return Transformer(self.answers, self.inputs, self.width, self.layers, self.heads, rngs=rngs)

    @property
    def parameters(self) -> int:
        """Number of weights, embeddings included.

        >>> Architecture("mlp", inputs=32, width=64, answers=32).parameters
        4192
        """
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(_shapes(self), nnx.Param)))

    @property
    def parameters_without_embeddings(self) -> int:
        """Number of weights that are not looked up by a token or position id."""
        embeddings = (leaf.size for leaf in jax.tree.leaves(nnx.state(_shapes(self), _is_embedding)))
        return self.parameters - sum(embeddings)

    @property
    def flops_per_fact_step(self) -> float:
        """Floating point operations of the matrix products in one forward and backward pass over one fact.

        2 a product forward, 4 backward, less the gradient with respect to the first layer's input where nothing needs
        it; attention scores included.
        """
        if self.name == "linear":
            return 4.0 * self.inputs * self.answers
        if self.name == "mlp":
            return 4.0 * self.inputs * self.width + 6.0 * self.width * self.answers
        matrices = self.layers * 12 * self.width**2 + self.width * self.answers
        return 6.0 * self.inputs * (matrices + 2 * self.layers * self.inputs * self.width)


@cache
def _shapes(architecture: Architecture) -> nnx.Module:
    return nnx.eval_shape(lambda: architecture.module(nnx.Rngs(0)))


def _is_embedding(path: tuple, _: Any) -> bool:
    return path[-1] == "embedding"


@dataclass(frozen=True)
class Network:
    """Two pure functions: `init(key) -> parameters` (consumes the key), `apply(parameters, input) -> logits`."""

    init: Callable[[Array], Parameters]
    apply: Callable[[Parameters, Array], Float[Array, "*S V"]]


@cache
def network(architecture: Architecture) -> Network:
    """The network of this architecture as plain functions; split once here, never again."""
    graph, _ = nnx.split(_shapes(architecture))

    def init(key: Array) -> Parameters:
        _, parameters = nnx.split(architecture.module(nnx.Rngs(key)))
        return nnx.to_pure_dict(parameters)

    def apply(parameters: Parameters, example: Array) -> Float[Array, "*S V"]:
        return nnx.merge(graph, nnx.State(parameters))(example)

    return Network(init, apply)

"""The founding paper's own procedure: a selection is trained, then frozen, and only the chosen experts move on.

One pass of generalization training moves backbone, query map, product keys and values together, on the next-token loss
of the whole file (Lamini-1, in arXiv 2406.17642, section 7). Then backbone and selection are frozen: each answer token
chooses its experts by the backbone's state before it, and gradient steps on these experts alone go on until each token
is under its threshold. States that are nearly equal choose the same experts, so how far this gets is to be measured;
`sims.memory.memorizing` stores facts with addresses that tell them apart.

Letters: n facts, t tokens of the longest, b rows of a minibatch, T tokens of its padded rows, W width of a state,
M experts, k chosen, s answer tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float32, Int

from mome_jax.cross_entropy import Memorized
from mome_jax.descent import memorize_by_gradient
from mome_jax.experts import Values
from mome_jax.index import ProductKeys, Selection, Softmax
from mome_jax.layer import Experts, MemoryLayer
from sims.memory.backbone import hidden_states
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.memorizing import MARGIN, unembed
from sims.memory.pretraining import fresh_backbone, learning_rates, minibatch, one_pass
from sims.tokens import TokenizedFacts

QUERY_WIDTH = 128
_AT_ONCE = 8192  # states whose experts are chosen together
_optimizer = optax.scale_by_adam()


@dataclass(frozen=True, eq=False)
class Founded:
    """What the pass of generalization training leaves: all of it frozen but the values."""

    backbone: ByteBackbone
    layer: MemoryLayer  # query map, keys, and the values to begin with
    steps: int
    loss_nats: float  # per token, mean of the last tenth of the steps


def generalization_pass(
    facts: TokenizedFacts,
    steps: int,
    experts: int,
    chosen: int,
    *,
    seed: int = 0,
    advance: Callable[[float], None] = lambda work: None,
    **sizes: int,
) -> Founded:
    """Train a fresh backbone and a fresh memory layer behind it for so many minibatches, at most one pass.

    Updates are dense, as the founding paper's are; memory for values and moments is 12 M W bytes beside them. `sizes`
    are those of `ByteBackbone.fresh`. Raises ValueError if `steps` is negative or more than one pass.
    """
    schedule = one_pass(facts, seed)
    if not 0 <= steps <= len(schedule):
        raise ValueError(f"one pass over these facts is {len(schedule)} steps, so steps cannot be {steps}")
    backbone = fresh_backbone(facts, seed, sizes)
    graph, weights = nnx.split(_layer(experts, chosen, backbone.width, seed))
    trained: Any = (backbone, weights)
    moments: Any = _optimizer.init(trained)
    losses = []
    for batch, rate in zip(schedule, learning_rates(steps), strict=False):
        trained, moments, loss = _step(graph, trained, moments, *minibatch(facts, batch), rate)
        losses.append(loss)
        advance(1)
    last = [float(loss) for loss in losses[-max(1, steps // 10) :]]
    mean = sum(last) / len(last) if last else math.nan
    return Founded(trained[0], nnx.merge(graph, trained[1]), steps, mean)


def chosen_by_state(layer: MemoryLayer, states: Float32[np.ndarray, "s W"]) -> Selection:
    """The experts of each state, [s k]; arrays of NumPy."""
    graph, weights = nnx.split(layer)
    parts = []
    for start in range(0, len(states), _AT_ONCE):
        rows = np.resize(np.arange(start, min(len(states), start + _AT_ONCE)), _AT_ONCE)
        part = _chosen(graph, weights, jnp.asarray(states[rows]))
        parts.append([np.asarray(half)[: len(states) - start] for half in part])
    return Selection(*(np.concatenate(halves) for halves in zip(*parts, strict=True)))  # pyright: ignore[reportArgumentType]


def memorize_founding(
    facts: TokenizedFacts,
    founded: Founded,
    *,
    threshold_nats: float = math.log(2),
    most_passes: int = 20,
    **options: Any,
) -> tuple[Memorized, Selection]:
    """Gradient steps on the chosen experts until each answer token is under the threshold, or it stops helping.

    `options` are those of `mome_jax.descent.memorize_by_gradient`.
    """
    states = hidden_states(founded.backbone, facts.tokens, facts.answer_mask)
    selection = chosen_by_state(founded.layer, states)
    bank: Any = founded.layer.bank.get_value()
    memorized = memorize_by_gradient(
        jnp.copy(bank.values),  # consumed
        states,
        facts.tokens[facts.answer_mask],
        selection,
        Partial(unembed, founded.backbone),
        threshold_nats=MARGIN * threshold_nats,
        aim_nats=MARGIN * threshold_nats / 6,
        most_passes=most_passes,
        **options,
    )
    return memorized, selection


def _layer(experts: int, chosen: int, width: int, seed: int) -> MemoryLayer:
    """Random keys and no values: the layer adds nothing until it has learned something."""
    key, query = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2))
    keys = ProductKeys.create(key, experts, QUERY_WIDTH, softmax=Softmax())
    bank = Experts(Values.create(experts, width))
    return MemoryLayer(keys, bank, width, QUERY_WIDTH, k=chosen, rngs=nnx.Rngs(query))


def _loss(trained: Any, graph: nnx.GraphDef, tokens: Int[Array, "b T"], targets: Int[Array, "b T"]) -> Float[Array, ""]:
    """Mean loss of the targets that are not negative, every token through the layer."""
    backbone, weights = trained
    layer = nnx.merge(graph, weights)
    states = jax.vmap(backbone.hidden)(tokens).reshape(-1, backbone.width)
    logits = jax.vmap(backbone.unembed)(jax.vmap(layer)(states))
    wanted = targets.reshape(-1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(wanted, 0))
    counted = wanted >= 0
    return jnp.sum(jnp.where(counted, losses, 0.0)) / jnp.maximum(1, jnp.sum(counted)).astype(losses.dtype)


@partial(jax.jit, static_argnames="graph", donate_argnames=("trained", "moments"))
def _step(graph: nnx.GraphDef, trained: Any, moments: Any, tokens: Array, targets: Array, rate: Array) -> Any:
    loss, gradient = jax.value_and_grad(_loss)(trained, graph, tokens, targets)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
        update, moments = _optimizer.update(gradient, moments)
    return jax.tree.map(lambda weight, change: weight - rate * change, trained, update), moments, loss


@partial(jax.jit, static_argnames="graph")
def _chosen(graph: nnx.GraphDef, weights: Any, states: Float[Array, "s W"]) -> Selection:
    return jax.vmap(nnx.merge(graph, weights).select)(states)

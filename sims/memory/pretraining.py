"""Pretraining a byte backbone on the questions and answers of a file: at most one pass, next-token loss.

The number of steps is what is recorded: with it the same file and seed give the same weights on the same machine. A
budget in seconds is turned into steps before training, by timing each shape of minibatch with a rate of zero.

Letters: n facts, t tokens of the longest fact, b rows of a minibatch, T tokens of its padded rows.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32

from sims.keyed import keyed_order
from sims.memory.buckets import Batch, batches
from sims.memory.byte_backbone import ByteBackbone
from sims.tokens import TokenizedFacts

TOKENS_PER_STEP = 4096  # padded; more per step train less per token, fewer keep the cores less busy
LEARNING_RATE = 6e-3  # 1.80 nats after 155 steps on 22 005 questions of real entities; 1.83 at half of it
_WARMUP = 20  # steps over which the rate rises
_LAST_RATE = 0.1  # share of the rate at which the cosine ends
_TIMED = 3  # steps per shape

_optimizer = optax.scale_by_adam()


@dataclass(frozen=True)
class Pretrained:
    """A backbone and how it came about."""

    backbone: ByteBackbone
    steps: int
    steps_in_a_pass: int
    tokens: int  # that were predicted, repetitions included
    loss_nats: float  # per token, mean of the last tenth of the steps, each before it was taken


def pretrain(
    facts: TokenizedFacts,
    steps: int,
    *,
    seed: int = 0,
    tokens_per_step: int | None = None,
    learning_rate: float | None = None,
    advance: Callable[[float], None] = lambda work: None,
    **sizes: int,
) -> Pretrained:
    """Train a fresh backbone for so many minibatches, each fact seen at most once.

    `sizes` are those of `ByteBackbone.fresh`; the context is the longest fact unless it is given. `advance` is told
    of every step. `tokens_per_step` and `learning_rate` are those of this module unless they are given. Raises
    ValueError if `steps` is negative or more than one pass.
    """
    schedule = one_pass(facts, seed, tokens_per_step)
    if not 0 <= steps <= len(schedule):
        raise ValueError(f"one pass over these facts is {len(schedule)} steps, so steps cannot be {steps}")
    backbone = fresh_backbone(facts, seed, sizes)
    rates = learning_rates(steps, learning_rate)
    moments: Any = _optimizer.init(backbone.weights)
    losses, predicted = [], 0
    for batch, rate in zip(schedule, rates, strict=False):
        tokens, targets = minibatch(facts, batch)
        predicted += int((targets >= 0).sum())
        backbone, moments, loss = _step(backbone, moments, tokens, targets, rate)
        losses.append(loss)
        advance(1)
    last = [float(loss) for loss in losses[-max(1, steps // 10) :]]
    return Pretrained(backbone, steps, len(schedule), predicted, sum(last) / len(last) if last else math.nan)


def steps_within(facts: TokenizedFacts, seconds: float, *, seed: int = 0, **sizes: int) -> int:
    """Steps that training takes this long for, one pass at most; the time of compiling and measuring counts too.

    The answer varies with the machine and what else runs on it: record it.
    """
    began = time.perf_counter()
    schedule = one_pass(facts, seed)
    cost: dict[tuple[int, int], float] = {}
    backbone = fresh_backbone(facts, seed, sizes)
    moments: Any = _optimizer.init(backbone.weights)
    for batch in schedule:
        if (shape := (batch.size, batch.width)) not in cost:
            tokens, targets = minibatch(facts, batch)
            times = []
            for _ in range(1 + _TIMED):
                started = time.perf_counter()
                backbone, moments, loss = _step(backbone, moments, tokens, targets, np.float32(0))
                jax.block_until_ready(loss)
                times.append(time.perf_counter() - started)
            cost[shape] = sum(times[1:]) / _TIMED  # the first one compiles
    left = seconds - (time.perf_counter() - began)
    ends = np.cumsum([cost[batch.size, batch.width] for batch in schedule])
    return int(np.searchsorted(ends, left, side="right"))


def learning_rates(steps: int, most: float | None = None) -> Float[np.ndarray, " steps"]:
    """A short linear rise, then a cosine down to a tenth, float32; the rise is at most a fifth of the steps.

    `most` is LEARNING_RATE unless it is given.
    """
    step = np.arange(steps) + 0.5
    rise = np.minimum(1.0, step / max(1.0, min(_WARMUP, steps / 5)))
    fall = _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + np.cos(np.pi * step / max(1, steps)))
    return ((most or LEARNING_RATE) * rise * fall).astype(np.float32)


def next_token_loss(
    backbone: ByteBackbone, tokens: Int32[Array, "b T"], targets: Int32[Array, "b T"]
) -> Float[Array, ""]:
    """Mean loss in nats of the targets that are not negative."""
    states = jax.vmap(backbone.hidden)(tokens).reshape(-1, backbone.width)
    logits = jax.vmap(backbone.unembed)(states)
    wanted = targets.reshape(-1)
    # Found by comparison, not by indexing: the gradient of an index is a scatter, slow on CPUs.
    is_wanted = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == wanted[:, None]
    losses = jax.nn.logsumexp(logits, axis=1) - jnp.sum(jnp.where(is_wanted, logits, 0.0), axis=1)
    counted = wanted >= 0
    return jnp.sum(jnp.where(counted, losses, 0.0)) / jnp.maximum(1, jnp.sum(counted)).astype(losses.dtype)


@partial(jax.jit, donate_argnums=(0, 1))
def _step(backbone: ByteBackbone, moments: Any, tokens: Int[Array, "b T"], targets: Int[Array, "b T"], rate: Array):
    loss, gradient = jax.value_and_grad(next_token_loss)(backbone, tokens, targets)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
        update, moments = _optimizer.update(gradient.weights, moments)
    parameters = jax.tree.map(lambda weight, change: weight - rate * change, backbone.weights, update)
    return ByteBackbone(parameters, backbone.architecture), moments, loss


def fresh_backbone(facts: TokenizedFacts, seed: int, sizes: dict[str, int]) -> ByteBackbone:
    """Random weights for these facts; the context is the longest one unless `sizes` has another."""
    context = {"context": facts.tokens.shape[1], **sizes}
    return ByteBackbone.fresh(jax.random.key(seed), vocabulary=facts.size, **context)


def one_pass(facts: TokenizedFacts, seed: int, tokens_per_step: int | None = None) -> list[Batch]:
    """One pass: rows of near length together, in a random order of rows and of minibatches."""
    lengths = facts.lengths
    order = keyed_order(seed, "pretraining rows", len(lengths))
    # The last token predicts nothing.
    found = batches(lengths[order] - 1, tokens_per_step or TOKENS_PER_STEP, most=facts.tokens.shape[1])
    shuffled = keyed_order(seed, "pretraining minibatches", len(found))
    return [Batch(order[found[place].rows], found[place].size, found[place].width) for place in shuffled.tolist()]


def minibatch(facts: TokenizedFacts, batch: Batch) -> tuple[Int32[np.ndarray, "b T"], Int32[np.ndarray, "b T"]]:
    """Tokens, and the token after each; -1 where that is PAD."""
    after = batch.cut(facts.tokens[:, 1:], facts.pad)
    return batch.cut(facts.tokens[:, :-1], facts.pad), np.where(after == facts.pad, -1, after)

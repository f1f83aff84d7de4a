"""What training does to one lane: a recipe, a loss, a step; and the same for many lanes in one compiled program.

Letters: L lanes, C steps a call, B facts a minibatch, S positions (none for classifiers), V answers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from sims.networks import Architecture, Parameters, network

CHUNK = 32  # steps a call at most: minibatches of one call stay in the cache

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "adafactor": lambda: optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=16), optax.clip_by_block_rms(1.0)
    ),
    "sgd": optax.identity,
}
_STEPS_DOWN = ((0.6, 0.3), (0.85, 0.1))  # stepwise schedule: from this share of the budget on, this share of the rate


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; part of its identity.

    `exposures` is how often each fact is seen (with `until_stored`: at most). The cosine runs to zero over the
    exposures of the run and so contradicts an early stop: `until_stored` wants a constant or stepwise rate.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.1
    schedule: str = "cosine"
    exposures: int = 250
    minibatch: int = 256
    until_stored: bool = False

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; known: {', '.join(OPTIMIZERS)}")
        if self.schedule not in ("cosine", "constant", "stepwise"):
            raise ValueError(f"unknown schedule {self.schedule!r}; known: cosine, constant, stepwise")
        if self.until_stored and self.schedule == "cosine":
            raise ValueError(
                "a cosine over the budget and an early stop contradict each other; use constant or stepwise"
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if self.exposures < 1 or self.minibatch < 1:
            raise ValueError(f"exposures and minibatch must be positive, got {self.exposures} and {self.minibatch}")

    def steps(self, size: int) -> int:
        """Minibatches that show each of `size` facts `exposures` times; the last one is padded, not shortened."""
        return -(-size * self.exposures // self.minibatch)

    def steps_until(self, exposures: float, size: int) -> int:
        """Minibatches after which each of `size` facts has been seen about `exposures` times, within the budget."""
        return min(max(1, math.ceil(size * exposures / self.minibatch)), self.steps(size))

    def rates(self, first: int, count: int, total: int) -> np.ndarray:
        """Learning rates of the steps first .. first + count - 1 out of `total`, float32 `[count]`."""
        done = (np.arange(first, first + count) + 0.5) / total
        factor = np.ones(count)
        if self.schedule == "cosine":
            factor = 0.5 * (1 + np.cos(np.pi * done))
        elif self.schedule == "stepwise":
            for start, share in _STEPS_DOWN:
                factor[done >= start] = share
        return (self.learning_rate * factor).astype(np.float32)


class Lane(NamedTuple):
    """What a run carries from step to step."""

    parameters: Parameters
    moments: Any  # the optimizer's state


class Minibatch(NamedTuple):
    """Facts of one step. A target below zero asks for nothing: a padded fact, or a position that is not an answer."""

    inputs: Array | np.ndarray  # [B *I] features or tokens
    targets: Int[Array | np.ndarray, "B *S"]


def answer_loss(logits: Float[Array, "*S V"], targets: Int[Array, " *S"]) -> Float[Array, ""]:
    """Loss of one fact in nats: -ln p(answer), summed over its tokens.

    The answer's logit is found by comparison, not by indexing: the gradient of an index is a scatter, slow on CPUs.
    """
    answers = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    is_answer = answers == targets[..., None]
    loss = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(is_answer, logits, 0.0), axis=-1)
    return jnp.sum(jnp.where(targets >= 0, loss, 0.0))


def step(
    architecture: Architecture, optimizer: str, lane: Lane, batch: Minibatch, rate: Float[Array, ""]
) -> tuple[Lane, Float[Array, ""]]:
    """One step of one lane down the mean loss of its minibatch; returns the lane and that loss before the step."""
    apply = network(architecture).apply

    def mean_loss(parameters: Parameters) -> Float[Array, ""]:
        losses = jax.vmap(lambda x, y: answer_loss(apply(parameters, x), y))(batch.inputs, batch.targets)
        present = jnp.any((batch.targets >= 0).reshape(len(losses), -1), axis=1)
        return jnp.sum(losses) / jnp.sum(present, dtype=losses.dtype)

    loss, gradient = jax.value_and_grad(mean_loss)(lane.parameters)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
        update, moments = OPTIMIZERS[optimizer]().update(gradient, lane.moments, lane.parameters)
    parameters = jax.tree.map(lambda weight, change: weight - rate * change, lane.parameters, update)
    return Lane(parameters, moments), loss


class Program(NamedTuple):
    """The compiled functions of one architecture and optimizer."""

    empty: Callable[[], Lane]  # L lanes of zeros
    enter: Callable[[Lane, int, Array], Lane]  # (lanes, lane, key): fresh weights from the key, consumed
    advance: Callable[..., tuple[Lane, Float[Array, "L C"]]]  # (lanes, minibatches [L C B ...], rates [L C], steps)
    logits: Callable[[Parameters, Array | np.ndarray], Float[Array, "B *S V"]]  # (parameters of one network, inputs)


@cache
def program(architecture: Architecture, optimizer: str) -> Program:
    """Compile-once functions. On a CPU each runs on the calling thread alone.

    Splitting one small matrix product over cores costs more than it saves; lanes on their own threads do not
    (measured: 2.1x on two cores). It also makes a run's numbers independent of the number of cores.
    """
    options = {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else None
    net = network(architecture)

    def fresh(key: Array) -> Lane:
        parameters = net.init(key)
        return Lane(parameters, OPTIMIZERS[optimizer]().init(parameters))

    def empty() -> Lane:
        shapes = jax.eval_shape(fresh, jax.random.key(0))
        return jax.tree.map(lambda leaf: jnp.zeros((architecture.lanes, *leaf.shape), leaf.dtype), shapes)

    def enter(lanes: Lane, lane: int | Int[Array, ""], key: Array) -> Lane:
        return jax.tree.map(lambda all_lanes, one: all_lanes.at[lane].set(one), lanes, fresh(key))

    def advance(lanes: Lane, batches: Minibatch, rates: Float[Array, "L C"], steps: int | Int[Array, ""]):
        def one_step(index, state):
            lanes, losses = state
            batch = jax.tree.map(lambda chunk: chunk[:, index], batches)
            lanes, loss = jax.vmap(lambda *lane: step(architecture, optimizer, *lane))(lanes, batch, rates[:, index])
            return lanes, losses.at[:, index].set(loss)

        return jax.lax.fori_loop(0, steps, one_step, (lanes, jnp.zeros_like(rates)))

    return Program(
        empty,
        jax.jit(enter, donate_argnums=0, compiler_options=options),
        jax.jit(advance, donate_argnums=0, compiler_options=options),
        jax.jit(
            lambda parameters, inputs: jax.vmap(net.apply, (None, 0))(parameters, inputs), compiler_options=options
        ),
    )

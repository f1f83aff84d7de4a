"""JAX as it is usually written: one step jitted, called from a Python loop; and the machine's matrix product rate."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tasks import ANSWERS, FEATURES, Task

from sims.networks import Architecture, network


def train(**task_spec: Any) -> Callable[[], dict[str, Any]]:
    """Time the task's runs one after another, each a Python loop over a jitted step with optax and donated state."""
    task = Task(**task_spec)
    facts = task.facts()
    net = network(Architecture("mlp", FEATURES, task.width, ANSWERS, layers=1, heads=1))

    def mean_loss(parameters, inputs, targets):
        logits = jax.vmap(lambda key: net.apply(parameters, key))(inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    # One optimizer for all runs, with the rate in its state: a run does not compile again.
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)

    def step(parameters, state, inputs, targets, rate):
        state.hyperparams["learning_rate"] = rate
        loss, gradient = jax.value_and_grad(mean_loss)(parameters, inputs, targets)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, loss

    jitted = jax.jit(step, donate_argnums=(0, 1))
    evaluate = jax.jit(mean_loss)

    def run(rate: float, seed: int, exposures: int) -> float:
        order = np.random.default_rng(seed)
        parameters = net.init(jax.random.key(seed))
        state = optimizer.init(parameters)
        rates = (rate * (1 + np.cos(np.pi * np.arange(task.steps) / task.steps)) / 2).astype(np.float32)
        done = 0
        for _ in range(exposures):
            shuffled = order.permutation(task.size)
            for start in range(0, task.size, task.minibatch):
                chosen = shuffled[start : start + task.minibatch]
                parameters, state, _ = jitted(
                    parameters, state, facts.features[chosen], facts.labels[chosen], rates[done]
                )
                done += 1
        return float(evaluate(parameters, facts.features, facts.labels))

    run(task.learning_rates[0], 0, exposures=2)

    def measurement() -> dict[str, Any]:
        began = time.perf_counter()
        losses = [run(rate, seed, task.exposures) for seed, rate in enumerate(task.learning_rates)]
        seconds = time.perf_counter() - began
        return {"fact_steps": task.fact_steps, "seconds": seconds, "loss_nats": median(losses)}

    return measurement


def matrix_product(*, side: int = 2048, seconds: float = 1.5) -> Callable[[], dict[str, Any]]:
    """The float32 rate of a large matrix product on all cores, in FLOP/s: the median over `seconds`."""
    square = jax.random.normal(jax.random.key(0), (side, side), dtype=jnp.float32)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()

    def measurement() -> dict[str, Any]:
        times, began = [], time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            product(square, square).block_until_ready()
            times.append(time.perf_counter() - start)
        return {"flops": 2 * side**3 / median(times)}

    return measurement

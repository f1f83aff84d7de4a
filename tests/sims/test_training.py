"""Recipes and one step: schedules, padding, the gradient against a formula, the optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.networks import Architecture, network
from sims.training import CHUNK, OPTIMIZERS, Lane, Minibatch, Recipe, answer_loss, program, step

TINY = Architecture("mlp", inputs=4, width=3, answers=5)


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 512))
def test_steps_show_every_fact_and_waste_less_than_a_minibatch(size, exposures, minibatch):
    steps = Recipe(exposures=exposures, minibatch=minibatch).steps(size)
    assert 0 <= steps * minibatch - size * exposures < minibatch


@given(st.integers(1, 400), st.data())
def test_rates_do_not_depend_on_where_a_chunk_begins(total, data):
    cut = data.draw(st.integers(0, total))
    for schedule in ("cosine", "constant", "stepwise"):
        recipe = Recipe(schedule=schedule)
        parts = np.concatenate([recipe.rates(0, cut, total), recipe.rates(cut, total - cut, total)])
        np.testing.assert_array_equal(parts, recipe.rates(0, total, total))


def test_cosine_runs_to_zero_and_the_others_do_not():
    cosine = Recipe(learning_rate=0.5, schedule="cosine").rates(0, 1000, 1000)
    assert cosine[0] == pytest.approx(0.5, rel=1e-4)
    assert cosine[-1] < 1e-5
    assert np.all(np.diff(cosine) < 0)
    assert set(Recipe(learning_rate=0.5, schedule="stepwise").rates(0, 1000, 1000)) == {
        np.float32(0.5), np.float32(0.15), np.float32(0.05),
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"optimizer": "lion"},
        {"schedule": "linear"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"exposures": 0},
        {"minibatch": 0},
        {"until_stored": True},  # with the cosine
    ],
)
def test_impossible_recipes_are_refused(bad):
    with pytest.raises(ValueError, match=r"unknown|positive|contradict"):
        Recipe(**bad)


def test_answer_loss_sums_tokens_and_skips_the_rest():
    logits = jax.random.normal(jax.random.key(0), (3, 7))
    targets = jnp.array([2, -1, 6], dtype=jnp.int32)
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    expected = -(log_probabilities[0, 2] + log_probabilities[2, 6])
    assert answer_loss(logits, targets) == pytest.approx(float(expected), rel=1e-5)


def _lane(optimizer: str, seed: int = 0) -> Lane:
    weights = network(TINY).init(jax.random.key(seed))
    return Lane(weights, OPTIMIZERS[optimizer]().init(weights))


def _batch(facts: int, padded: int = 0) -> Minibatch:
    inputs = jax.random.normal(jax.random.key(1), (facts + padded, 4))
    targets = jnp.concatenate([jnp.arange(facts, dtype=jnp.int32) % 5, jnp.full((padded,), -1, dtype=jnp.int32)])
    return Minibatch(inputs, targets)


def test_step_is_adam_on_the_mean_loss():
    lane, batch = _lane("adam"), _batch(6)

    def mean_loss(weights):
        logits = jax.vmap(lambda key: network(TINY).apply(weights, key))(batch.inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()

    with jax.numpy_dtype_promotion("standard"):
        adam = optax.adam(0.01)
        loss, gradient = jax.value_and_grad(mean_loss)(lane.parameters)
        update, _ = adam.update(gradient, adam.init(lane.parameters))
        expected = optax.apply_updates(lane.parameters, update)
    after, seen = step(TINY, "adam", lane, batch, jnp.float32(0.01))
    assert float(seen) == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.parameters, expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_padding_changes_nothing(optimizer):
    alone, _ = step(TINY, optimizer, _lane(optimizer), _batch(6), jnp.float32(0.1))
    padded, _ = step(TINY, optimizer, _lane(optimizer), _batch(6, padded=10), jnp.float32(0.1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone.parameters, padded.parameters
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_descends(optimizer):
    compiled = program(TINY, optimizer)
    lanes = compiled.empty()
    for lane in range(TINY.lanes):
        lanes = compiled.enter(lanes, lane, jax.random.key(lane))
    batch = _batch(20)
    batches = Minibatch(*(np.broadcast_to(part, (TINY.lanes, CHUNK, *part.shape)) for part in batch))
    rates = np.full((TINY.lanes, CHUNK), 0.05, dtype=np.float32)
    _, losses = compiled.advance(lanes, batches, rates, CHUNK)
    assert np.all(np.asarray(losses)[:, -1] < 0.95 * np.asarray(losses)[:, 0])

"""The founding paper's procedure: gradient steps on the chosen experts alone, until each token is stored."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from mome_jax.descent import memorize_by_gradient
from mome_jax.index import NULL, Selection
from mome_jax.optimizers import SGD

WIDTH, VOCABULARY, EXPERTS = 8, 12, 512
UNEMBEDDING = jnp.asarray(np.random.default_rng(0).normal(size=(WIDTH, VOCABULARY)), jnp.float32)


def _unembed(state: jax.Array) -> jax.Array:
    return state @ UNEMBEDDING


def _tokens(count: int) -> tuple[np.ndarray, np.ndarray, Selection]:
    draws = np.random.default_rng(1)
    chosen = np.stack([draws.choice(EXPERTS, 3, replace=False) for _ in range(count)]).astype(np.int32)
    weights = np.broadcast_to(np.array([0.5, 0.3, 0.2], np.float32), chosen.shape)
    selection = Selection(jnp.asarray(chosen), jnp.asarray(weights))
    return draws.normal(size=(count, WIDTH)).astype(np.float32), draws.integers(0, VOCABULARY, count), selection


def test_every_token_is_stored_and_only_chosen_experts_move() -> None:
    states, targets, selection = _tokens(100)
    done = memorize_by_gradient(jnp.zeros((EXPERTS, WIDTH)), states, targets, selection, _unembed)
    assert done.stored.all()
    values = np.asarray(done.values, np.float64)
    read = np.einsum("nk,nkv->nv", selection.weights, values[np.asarray(selection.experts)])
    logits = (states + read) @ np.asarray(UNEMBEDDING)
    losses = special.logsumexp(logits, axis=1) - logits[np.arange(100), targets]
    np.testing.assert_allclose(losses, done.losses_nats, atol=1e-5)
    assert losses.max() < math.log(2)
    untouched = np.setdiff1d(np.arange(EXPERTS), selection.experts)
    assert len(untouched) > 0
    assert (values[untouched] == 0).all()
    again = memorize_by_gradient(done.values, states, targets, selection, _unembed)
    assert again.passes == 0


def test_plain_steps_follow_the_gradient_of_the_open_tokens() -> None:
    states, targets, selection = _tokens(3)
    chosen = jnp.asarray([[0, 1, NULL], [1, 1, 2], [4, 5, 6]], jnp.int32)
    selection = Selection(chosen, selection.weights)
    states[2] = 20.0 * np.asarray(UNEMBEDDING)[:, targets[2]]  # under the threshold at the start
    found = memorize_by_gradient(
        jnp.zeros((EXPERTS, WIDTH)),
        states,
        targets,
        selection,
        _unembed,
        optimizer=SGD(0.1),
        most_steps=1,
        most_passes=1,
    )

    def loss(values: jax.Array) -> jax.Array:
        rows = jnp.where((chosen == NULL)[:, :, None], 0.0, values[chosen])
        logits = jnp.einsum("nk,nkv->nv", selection.weights, rows) + states
        return -jax.nn.log_softmax(logits[:2] @ UNEMBEDDING)[jnp.arange(2), jnp.asarray(targets[:2])].sum()

    wanted = -0.1 * jax.grad(loss)(jnp.zeros((EXPERTS, WIDTH)))
    np.testing.assert_allclose(found.values, wanted, atol=1e-6)
    assert not found.stored[:2].any()

"""Networks: exact parameter counts, causality, and that description and plain functions are the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.networks import LANES, Architecture, network

MLP = Architecture("mlp", inputs=32, width=64, answers=32)
LINEAR = Architecture("linear", inputs=32, width=1, answers=32)
TRANSFORMER = Architecture("transformer", inputs=12, width=16, answers=40, layers=2, heads=4)


@pytest.mark.parametrize("architecture", [MLP, LINEAR, TRANSFORMER])
def test_counts_are_the_sizes_of_the_weights(architecture):
    weights = network(architecture).init(jax.random.key(0))
    assert architecture.parameters == sum(leaf.size for leaf in jax.tree.leaves(weights))


def test_known_counts():
    assert MLP.parameters == MLP.parameters_without_embeddings == 4192
    assert LINEAR.parameters == 1024
    assert TRANSFORMER.parameters - TRANSFORMER.parameters_without_embeddings == (40 + 12) * 16


def test_mlp_is_the_formula():
    weights = network(MLP).init(jax.random.key(1))
    key = jax.random.normal(jax.random.key(2), (32,))
    hidden = jax.nn.gelu(key @ weights["hidden"]["kernel"] + weights["hidden"]["bias"])
    expected = hidden @ weights["scores"]["kernel"] + weights["scores"]["bias"]
    np.testing.assert_allclose(network(MLP).apply(weights, key), expected, rtol=1e-5, atol=1e-6)


def test_linear_scores_have_no_bias():
    weights = network(LINEAR).init(jax.random.key(1))
    np.testing.assert_array_equal(network(LINEAR).apply(weights, jnp.zeros(32)), np.zeros(32))


def test_transformer_sees_no_later_token():
    weights = network(TRANSFORMER).init(jax.random.key(3))
    apply = jax.jit(network(TRANSFORMER).apply)
    tokens = jax.random.randint(jax.random.key(4), (12,), 0, 40)
    changed = tokens.at[7].set((tokens[7] + 1) % 40)
    before, after = apply(weights, tokens), apply(weights, changed)
    np.testing.assert_array_equal(before[:7], after[:7])
    assert not np.allclose(before[7], after[7])


def test_init_depends_on_the_key_alone():
    first, again, other = (network(MLP).init(jax.random.key(seed)) for seed in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["hidden"]["kernel"], other["hidden"]["kernel"])


def test_flops_count_the_matrix_products():
    # forward 2, backward 4, except that nothing needs the gradient with respect to the key
    assert MLP.flops_per_fact_step == 6 * 64 * 32 + 4 * 32 * 64


@pytest.mark.parametrize("bad", [{"name": "resnet"}, {"width": 0}, {"name": "transformer", "width": 10, "heads": 4}])
def test_impossible_shapes_are_refused(bad):
    with pytest.raises(ValueError, match=r"unknown network|positive sizes|multiple"):
        Architecture(**{"name": "mlp", "inputs": 4, "width": 4, "answers": 4} | bad)


def test_every_network_has_lanes():
    assert all(lanes >= 1 for lanes in LANES.values())

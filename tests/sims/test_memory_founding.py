"""The founding procedure: one pass moves backbone, selection and values; then only the chosen experts move."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sims.memory.backbone import hidden_states
from sims.memory.founding import chosen_by_state, generalization_pass, memorize_founding
from sims.memory.pretraining import one_pass
from sims.tokens import tokenize

QUESTIONS = [f"age of {name}?" for name in ("ann", "bob", "cid", "dot", "eve", "fay", "gus", "hal")]
ANSWERS = ["1", "22", "3", "44", "5", "66", "7", "88"]
SIZES = {"width": 16, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def facts():
    """Eight facts, each token a byte."""
    return tokenize(QUESTIONS, ANSWERS, "bytes")


@pytest.fixture(scope="module")
def founded(facts):
    """All of the one pass."""
    return generalization_pass(facts, len(one_pass(facts, 0)), 64, 4, **SIZES)


def leaves(found):
    bank = found.layer.bank.get_value().values
    keys = nnx.state(found.layer, nnx.Param)
    return [np.asarray(leaf) for leaf in jax.tree.leaves((found.backbone, keys, bank))]


def test_the_pass_moves_backbone_and_values_and_ends_there(facts, founded):
    before = generalization_pass(facts, 0, 64, 4, **SIZES)
    assert math.isnan(before.loss_nats)
    assert math.isfinite(founded.loss_nats)
    moved = [not np.array_equal(one, two) for one, two in zip(leaves(before), leaves(founded), strict=True)]
    assert any(moved[:-1])
    assert moved[-1]
    assert not leaves(before)[-1].any()  # values begin at zero
    with pytest.raises(ValueError, match="one pass"):
        generalization_pass(facts, len(one_pass(facts, 0)) + 1, 64, 4, **SIZES)


def test_each_state_chooses_as_the_layer_does(facts, founded):
    states = hidden_states(founded.backbone, facts.tokens, facts.answer_mask)
    together = chosen_by_state(founded.layer, states)
    one = founded.layer.select(jnp.asarray(states[5]))
    np.testing.assert_array_equal(together.experts[5], one.experts)
    np.testing.assert_allclose(together.weights[5], one.weights, rtol=1e-5)
    assert together.experts.shape == (int(facts.answer_mask.sum()), 4)


def test_only_chosen_experts_move_and_distinct_states_are_memorized(facts, founded):
    before = [leaf.copy() for leaf in leaves(founded)]
    memorized, selection = memorize_founding(facts, founded, most_passes=5)
    for one, two in zip(before, leaves(founded), strict=True):
        np.testing.assert_array_equal(one, two)  # what was founded is frozen; the values are a copy
    touched = np.zeros(64, bool)
    touched[np.asarray(selection.experts).ravel()] = True
    changed = (np.asarray(memorized.values) != before[-1]).any(axis=1)
    assert changed.any()
    assert not (changed & ~touched).any()
    unwritten, _ = memorize_founding(facts, founded, most_passes=0)
    assert not unwritten.stored.any()
    assert memorized.losses_nats.mean() < unwritten.losses_nats.mean() / 2

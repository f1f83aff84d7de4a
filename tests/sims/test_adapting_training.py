"""Adapting a backbone: what moves and what does not, losses against a brute force, curves, the order of facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.adapting.adapting import Adapted, adapt, epochs_until_stored
from sims.adapting.answers import random_answers
from sims.adapting.methods import Full, LowRank, MemoryExperts, Recipe
from sims.adapting.order import Halves, rows_of
from sims.measures import STORED_BELOW_NATS, measure
from sims.memory.backbone import Adaptable, LowRankUpdate
from sims.memory.byte_backbone import ByteBackbone
from sims.tokens import tokenize

QUESTIONS = [f"Who is {'very ' * (number % 3)}{number}?" for number in range(7)]
FACTS = tokenize(QUESTIONS, random_answers(7, 0, characters=4))
METHODS = (Full(), LowRank(3), MemoryExperts(512, 4))


@pytest.fixture(scope="module")
def backbone() -> ByteBackbone:
    return ByteBackbone.fresh(jax.random.key(1), 40, width=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def adapted(backbone) -> dict[str, Adapted]:
    rates = {"full": 0.02, "LoRA": 0.02, "MoME": 0.1}
    return {
        method.name: adapt(backbone, method, FACTS, Recipe("adam", rates[method.name], 30, 2)) for method in METHODS
    }


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def brute_force(backbone, read=lambda states: states):
    """Losses of each fact from all logits of its row, with the tokens found one by one."""
    hidden, unembed = jax.jit(backbone.hidden), jax.jit(jax.vmap(backbone.unembed))
    rows, places = np.nonzero(FACTS.answer_mask)
    states = np.stack(
        [np.asarray(hidden(jnp.asarray(FACTS.tokens[row])))[place - 1] for row, place in zip(rows, places, strict=True)]
    )
    found = measure(np.asarray(unembed(jnp.asarray(read(states)))), FACTS.tokens[rows, places])
    of_fact = [found.loss_nats[rows == row] for row in range(len(QUESTIONS))]
    right = [found.greedy_correct[rows == row].all() for row in range(len(QUESTIONS))]
    return [one.sum() for one in of_fact], [one.max() for one in of_fact], right


def test_updates_are_merged_products_and_unknown_names_are_refused(backbone):
    assert isinstance(backbone, Adaptable)
    key, updates = jax.random.key(3), {}
    for place, (name, (inputs, outputs)) in enumerate(backbone.kernels().items()):
        down = jax.random.normal(jax.random.fold_in(key, 2 * place), (inputs, 3))
        updates[name] = LowRankUpdate(down, jax.random.normal(jax.random.fold_in(key, 2 * place + 1), (3, outputs)))
    assert len(updates) == 4
    changed = backbone.with_updates(updates, 0.1)
    for name, update in updates.items():
        _, block, linear = name.split("/")
        before, after = (np.asarray(one.weights["blocks"][int(block)][linear]["kernel"]) for one in (backbone, changed))
        np.testing.assert_allclose(after, before + 0.1 * np.asarray(update.down) @ np.asarray(update.up), atol=1e-5)
    with pytest.raises(ValueError, match="blocks/9/mix"):
        backbone.with_updates({"blocks/9/mix": updates["blocks/0/mix"]}, 1.0)


def test_updates_of_full_rank_are_any_change(backbone):
    name, (inputs, outputs) = "blocks/0/down", backbone.kernels()["blocks/0/down"]
    wanted = np.asarray(jax.random.normal(jax.random.key(4), (inputs, outputs)))
    left, values, right = np.linalg.svd(wanted, full_matrices=False)
    update = LowRankUpdate(jnp.asarray(left * values), jnp.asarray(right))
    assert update.down.shape == (inputs, min(inputs, outputs))
    changed = backbone.with_updates({name: update}, 1.0)
    difference = changed.weights["blocks"][0]["down"]["kernel"] - backbone.weights["blocks"][0]["down"]["kernel"]
    np.testing.assert_allclose(difference, wanted, atol=1e-5)


def test_fresh_updates_change_nothing(backbone):
    method = LowRank(3)
    started = method.start(backbone, jax.random.key(0))
    assert all(np.asarray(update.down).any() for update in started.values())
    for one, two in zip(leaves(backbone), leaves(method.built(backbone, started)), strict=True):
        np.testing.assert_array_equal(one, two)
    assert sum(leaf.size for leaf in leaves(started)) == method.trainable_parameters(backbone)


def test_alpha_scales_an_update_by_alpha_over_rank():
    assert (LowRank(8).scale, LowRank(8, alpha=16.0).scale) == (1.0, 2.0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_losses_are_those_of_a_brute_force(backbone, adapted, method):
    done = adapted[method.name]
    read = done.recalling.read(FACTS) if done.recalling else lambda states: states
    for epoch, (network, reading) in ((0, (backbone, lambda states: states)), (-1, (done.backbone, read))):
        total, largest, right = brute_force(network, reading)
        np.testing.assert_allclose(done.loss_nats[epoch], total, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(done.largest_token_loss_nats[epoch], largest, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(done.greedy_correct, right)
    assert done.loss_nats.shape == done.largest_token_loss_nats.shape == (31, 7)
    assert done.loss_nats[-1].mean() < 0.7 * done.loss_nats[0].mean()
    assert done.finite


def test_frozen_weights_keep_their_bits(backbone, adapted):
    before = leaves(ByteBackbone.fresh(jax.random.key(1), 40, width=16, layers=1, heads=2))
    for one, two in zip(before, leaves(backbone), strict=True):  # no program has taken the arrays that it was lent
        np.testing.assert_array_equal(one, two)
    assert adapted["MoME"].backbone is backbone
    maps = {f"blocks/0/{name}" for name in ("queries_keys_values", "mix", "up", "down")}
    assert backbone.kernels().keys() == maps
    paths = jax.tree_util.tree_leaves_with_path(backbone.weights)
    moved = {
        "/".join(str(step.key) for step in path[:-1])
        for (path, one), two in zip(paths, leaves(adapted["LoRA"].backbone), strict=True)
        if not np.array_equal(one, two)
    }
    assert moved == maps
    assert not any(
        np.array_equal(one, two)
        for one, two in zip(leaves(backbone.weights["blocks"]), leaves(adapted["full"].backbone), strict=False)
        if one.ndim == 2
    )


def test_a_memory_answers_to_stored_questions_alone(backbone, adapted):
    memory = adapted["MoME"].recalling
    others = tokenize(["Who is 8?", "Who is 0?"], ["Ada.", "Ada."])
    states = np.ones((int(others.answer_lengths.sum()), 16), np.float32)
    first = int(others.answer_lengths[0])
    gated, open_gate = memory.read(others)(states), memory.read(others, open_gate=True)(states)
    np.testing.assert_array_equal(gated[:first], states[:first])  # unknown: bit for bit
    assert not np.array_equal(gated[first:], states[first:])
    assert not np.array_equal(open_gate[:first], states[:first])


def test_rows_written_are_counted(adapted):
    done = adapted["MoME"]
    due, known = done.recalling.due(FACTS)
    assert known.all()
    written = set(np.flatnonzero(np.asarray(done.recalling.values).any(axis=1)).tolist())
    by_hand = [
        len(set(np.asarray(due.selection.experts)[due.facts == fact].ravel().tolist()) & written) for fact in range(7)
    ]
    assert done.rows_per_fact == pytest.approx(np.mean(by_hand))
    assert 5 < done.rows_per_fact <= 5 * 4


@pytest.mark.parametrize(("optimizer", "rate"), [("writes", None), ("sgd", 10.0), ("adafactor", 0.3)])
def test_every_way_to_write_stores_the_facts(backbone, optimizer, rate):
    done = adapt(backbone, MemoryExperts(512, 4), FACTS, Recipe(optimizer, rate, 40, 2))
    assert epochs_until_stored(done.largest_token_loss_nats) is not None
    total, largest, right = brute_force(backbone, done.recalling.read(FACTS))
    np.testing.assert_allclose(done.loss_nats[-1], total, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(done.largest_token_loss_nats[-1], largest, rtol=1e-3, atol=1e-4)
    assert all(right)
    assert done.greedy_correct.all()


def test_a_method_has_its_own_optimizers(backbone):
    with pytest.raises(ValueError, match="writes is no optimizer of weights"):
        adapt(backbone, Full(), FACTS, Recipe("writes", None))
    with pytest.raises(ValueError, match="writes alone have none"):
        Recipe("adam", None)
    with pytest.raises(ValueError, match="do not fit a context"):
        adapt(backbone, Full(), tokenize(["?" * 50], ["!"]), Recipe("adam", 0.1))


def test_epochs_until_stored_is_the_first_epoch_at_which_all_are():
    losses = np.array([[3.0, 0.1], [0.6, 0.7], [0.6, 0.6], [0.9, 0.1]])
    brute = [epoch for epoch, row in enumerate(losses) if all(loss < STORED_BELOW_NATS for loss in row)]
    assert epochs_until_stored(losses) == brute[0] == 2
    assert epochs_until_stored(losses[:2]) is None


def test_the_order_is_that_of_the_questions_whatever_the_answers():
    others = tokenize(QUESTIONS, [f"{'long ' * number}answer" for number in range(7)])
    for epoch in range(3):
        one, two = (Halves(facts, 2).of_epoch(5, epoch) for facts in (FACTS, others))
        np.testing.assert_array_equal(one.facts, two.facts)
        np.testing.assert_array_equal(one.half, two.half)
        assert sorted(one.facts[one.facts < 7].tolist()) == list(range(7))
    assert not np.array_equal(Halves(FACTS, 2).of_epoch(5, 0).facts, Halves(FACTS, 2).of_epoch(5, 1).facts)
    assert not np.array_equal(Halves(FACTS, 2).of_epoch(5, 0).facts, Halves(FACTS, 2).of_epoch(6, 0).facts)


def test_rows_say_what_is_due():
    rows = rows_of(FACTS)
    for fact in range(7):
        due = np.flatnonzero(FACTS.answer_mask[fact])
        assert rows.places[fact].tolist() == (due - 1).tolist()
        assert rows.targets[fact].tolist() == FACTS.tokens[fact, due].tolist()
    assert (np.asarray(rows.targets[7]) == -1).all()


def test_a_rate_falls_to_its_last_share():
    rates = [Recipe("sgd", 0.3, epochs=3).rate(epoch) for epoch in range(3)]
    np.testing.assert_allclose(rates, [0.3, 0.2, 0.1], rtol=1e-6)

"""A population trained for real: chance is chance, overlap counts, questions are fair, lanes are what they seem."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from sims.imagination import measures
from sims.imagination.asking import (
    ABSTAINED,
    OPTIONS,
    all_logits,
    answer,
    ask,
    confidence,
    drawn_values,
    invented,
    own_logits,
)
from sims.imagination.population import Population, logits_of, train
from sims.imagination.portrait import moment, portrait
from sims.imagination.reading import targets, value_logits, words
from sims.imagination.statistics import permutation_test, relation_masks, relation_means
from sims.imagination.world import NOTHING, World, corpora
from sims.networks import network
from theory.agreement import agreement

COUNT = 192


@cache
def trained(overlap: float, same_weights: bool = False):
    """The usual population; all of these share one compiled program."""
    population = Population(World(shared_facts=overlap), same_weights=same_weights)
    result = train(population)
    return population, jax.tree.map(lambda leaf: leaf[-1], result.parameters), result


@cache
def moment_of(overlap: float, same_weights: bool = False):
    population, parameters, _ = trained(overlap, same_weights)
    return moment(population, parameters, count=COUNT)


@pytest.mark.parametrize("same_weights", [False, True])
def test_with_nothing_shared_families_agree_at_chance(same_weights):
    population, _, result = trained(0.0, same_weights)
    assert result.loss_nats.max() < 0.05  # they did learn their facts
    now = moment_of(0.0, same_weights)
    means = relation_means(now.answers.correctness, population.family)
    assert abs(means["cross_family"] - 0.25) < 0.02
    assert means["self"] == 1.0
    assert means["in_family"] > 0.45
    assert permutation_test(now.answers.correctness, population.family) == pytest.approx(1 / 15_400)
    chosen = now.answers.chosen.swapaxes(0, 1).reshape(12, -1)
    kappa = measures.cohen_kappa(chosen[:, None], chosen[None], OPTIONS)
    assert abs(kappa[relation_masks(population.family)["cross_family"]].mean()) < 0.03


def test_shared_facts_make_families_agree_as_theory_reads_their_correlation():
    population, parameters, _ = trained(0.5)
    now = moment_of(0.5)
    found = portrait(population, parameters, now)
    for relation in ("in_family", "cross_family"):
        predicted = agreement(found[f"correlation_{relation}"], OPTIONS, population.world.values)
        assert abs(found[f"agreement_{relation}"] - predicted) < 0.05
    assert found["agreement_cross_family"] > 0.33
    assert found["confidence_real"] > found["confidence_imaginary"] > 0.5
    assert (
        found["agreement_cross_family_low"] <= found["agreement_cross_family"] <= found["agreement_cross_family_high"]
    )


def test_the_same_facts_and_weights_make_the_same_model():
    """Bit for bit, in whichever lane: families differ in nothing but what the world gives them."""
    _, parameters, _ = trained(1.0, same_weights=True)
    for leaf in jax.tree.leaves(parameters):
        for family in range(1, 4):
            assert np.array_equal(leaf[:3], leaf[3 * family : 3 * family + 3])
        assert not np.array_equal(leaf[0], leaf[1]) or not leaf.any()


def test_losses_are_what_the_logits_say():
    population, parameters, result = trained(0.5)
    corpus = corpora(population.world)[2]
    logits = logits_of(population, parameters, words(population.world, corpus.questions))[7]
    wanted = -np.log(softmax(logits.astype(np.float64), axis=-1)[np.arange(len(logits)), corpus.value]).mean()
    assert result.loss_nats[-1, 7] == pytest.approx(float(wanted), rel=1e-4)


def test_questions_are_about_nothing_real_and_options_are_fair():
    population, parameters, _ = trained(0.5)
    asked = ask(population, parameters, COUNT)
    known = {int(t) for corpus in corpora(population.world) for t in corpus.questions.thing}
    assert not known & {int(t) for t in asked.questions.thing.ravel()}
    assert (np.sort(asked.options, axis=-1)[..., 1:] != np.sort(asked.options, axis=-1)[..., :-1]).all()
    value = np.take_along_axis(asked.options, asked.answer[..., None], axis=-1)[..., 0]
    assert np.array_equal(value, own_logits(population, parameters, asked.questions).argmax(axis=-1))
    places = np.bincount(asked.answer.ravel(), minlength=OPTIONS)
    assert stats.chisquare(places).pvalue > 1e-3
    others = (asked.options - value[..., None]) % 16
    shown = np.bincount(others[others > 0], minlength=16)[1:]
    assert stats.chisquare(shown).pvalue > 1e-3  # distractors: every other value alike often


def test_a_sampled_answer_follows_the_beliefs():
    population, parameters, _ = trained(0.5)
    logits = own_logits(population, parameters, invented(population, COUNT)) / 3.0
    chances = softmax(logits.astype(np.float64), axis=-1)
    drawn = drawn_values(population, logits)
    hit = drawn == logits.argmax(axis=-1)
    expected, spread = chances.max(axis=-1).sum(), np.sqrt((chances.max(-1) * (1 - chances.max(-1))).sum())
    assert abs(hit.sum() - expected) < 4 * spread


def test_a_model_abstains_below_the_confidence_it_is_given():
    population, parameters, _ = trained(0.5)
    asked = ask(population, parameters, COUNT)
    logits = all_logits(population, parameters, asked.questions)
    least = np.full(12, 0.7)
    answers = answer(logits, asked, least)
    assert np.array_equal(answers.chosen == ABSTAINED, confidence(logits) < 0.7)
    free = answer(logits, asked)
    assert free.answer_rate.min() == 1.0
    by_hand = np.array(
        [
            [
                np.mean(free.right[q, a][answers.chosen[q, a] != ABSTAINED]) if answers.answered[q, a].any() else np.nan
                for a in range(12)
            ]
            for q in range(12)
        ]
    )
    assert np.allclose(answers.correctness, by_hand)


def test_statements_are_what_the_question_model_believes():
    population, parameters, _ = trained(0.0)
    leaking = ask(population, parameters, 64, "leaking").questions
    assert np.array_equal(leaking.stated_relation, leaking.relation)
    other = ask(population, parameters, 64, "context").questions
    assert (other.stated_relation != other.relation).all()
    assert (ask(population, parameters, 64).questions.stated_value == NOTHING).all()
    with pytest.raises(ValueError, match="unknown kind"):
        ask(population, parameters, 64, "loud")


def test_models_that_saw_statements_read_them_and_snapshots_are_kept():
    small = World(things=24, choices=6, families=2)
    population = Population(small, seeds=2, width=64, steps=400, minibatch=64, stated_share=0.6, snapshots=3)
    result = train(population)
    assert result.steps.tolist() == [0, 1, 400]
    assert result.loss_nats[0].mean() > np.log(16) > result.loss_nats[1].mean() > result.loss_nats[2].mean()
    last = jax.tree.map(lambda leaf: leaf[-1], result.parameters)
    leaking = ask(population, last, COUNT, "leaking")
    right = answer(all_logits(population, last, leaking.questions), leaking).correctness
    assert relation_means(right, population.family)["cross_family"] > 0.6


TRANSFORMERS = Population(
    World(things=4, choices=6, families=2, topics=2, relations=2),
    seeds=1,
    network="transformer",
    width=8,
    steps=60,
    minibatch=8,
    learning_rate=0.02,
)


def test_a_transformer_answers_at_the_last_place_among_the_values():
    shape, world = TRANSFORMERS.architecture, TRANSFORMERS.world
    parameters = network(shape).init(jax.random.key(0))
    tokens = jnp.asarray(words(world, corpora(world)[0].questions))
    alone = network(shape).apply(parameters, tokens[3])
    found = jax.jit(lambda: value_logits(world, shape, parameters, tokens))()
    assert np.allclose(found[3], alone[-1, : world.values], atol=1e-5)
    wanted = np.asarray(targets("transformer", jnp.array([5, 2]), 4))
    assert wanted.tolist() == [[-1, -1, -1, 5], [-1, -1, -1, 2]]


@pytest.mark.slow
def test_a_transformer_learns_the_same_questions():
    result = train(TRANSFORMERS)
    assert result.loss_nats.max() < 1.5 < np.log(16)
    last = jax.tree.map(lambda leaf: leaf[-1], result.parameters)
    assert all_logits(TRANSFORMERS, last, invented(TRANSFORMERS, 5)).shape == (2, 2, 5, 16)

"""The rule and random answers: against a loop, against a network whose every answer is known beforehand."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import tree_util

from sims.adapting.answers import BITS_PER_CHARACTER, CHARACTERS, random_answers
from sims.adapting.reading import question_loss_nats
from sims.adapting.rule import LETTERS, rule_accuracy, rule_examples
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.pretraining import next_token_loss
from sims.tokens import tokenize

VOCABULARY, END, CONTEXT = 259, 257, 32


@tree_util.register_dataclass
@dataclass(frozen=True)
class Planted:
    """A network that says `table[token]` of the token six places before the one it predicts, and ends after the last.

    A state is the logits themselves: the rule is known if `table` is the rule's.
    """

    table: jax.Array

    width = vocabulary = VOCABULARY
    context = CONTEXT

    def hidden(self, tokens: jax.Array) -> jax.Array:
        predicted = self.table[jnp.roll(tokens, LETTERS)]  # row i predicts token i + 1
        last = jnp.arange(len(tokens)) == len("next ") + 2 * LETTERS
        return jax.nn.one_hot(jnp.where(last, END, predicted), VOCABULARY)

    def unembed(self, state: jax.Array) -> jax.Array:
        return state


def moved_on(letter: str) -> str:
    return "A" if letter == "Z" else chr(ord(letter) + 1)


def table_of(rule) -> jax.Array:
    table = np.arange(VOCABULARY, dtype=np.int32)
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        table[ord(letter)] = ord(rule(letter))
    return jnp.asarray(table)


@pytest.mark.parametrize("part", ["trained on", "held out"])
def test_answers_follow_the_rule_and_fewer_examples_are_the_first(part):
    questions, answers = rule_examples(part, 500, seed=3)
    for question, answer in zip(questions, answers, strict=True):
        assert question.startswith("next ")
        assert answer == "".join(moved_on(letter) for letter in question.removeprefix("next "))
    assert rule_examples(part, 20, seed=3) == (questions[:20], answers[:20])
    assert rule_examples(part, 20, seed=4)[0] != questions[:20]


def test_no_example_comes_twice_or_is_in_two_parts():
    trained, held_out = (rule_examples(part, 20_000, seed=0)[0] for part in ("trained on", "held out"))
    assert len({*trained, *held_out}) == 40_000
    with pytest.raises(ValueError, match="at most 5940688 examples"):
        rule_examples("held out", 5_940_689, seed=0)


def test_a_network_that_has_the_rule_is_right_and_one_that_errs_at_z_is_wrong_where_there_is_one():
    questions, answers = rule_examples("held out", 200, seed=0)
    assert rule_accuracy(Planted(table_of(moved_on)), questions, answers).all()
    without_wrap = Planted(table_of(lambda letter: "Z" if letter == "Z" else moved_on(letter)))
    right = rule_accuracy(without_wrap, questions, answers)
    assert right.tolist() == ["Z" not in question for question in questions]
    assert 0.7 < right.mean() < 0.9  # (25/26)^5 = 0.82


def test_a_tie_is_an_error_and_the_end_must_be_said():
    questions, answers = rule_examples("held out", 8, seed=0)
    planted = Planted(table_of(moved_on))

    def tied(states: np.ndarray) -> np.ndarray:
        changed = states.copy()
        changed[0] = 1.0  # every token of the first example's first letter
        changed[2 * (LETTERS + 1) - 1] = np.eye(VOCABULARY)[ord("A")]  # a letter where the second should end
        return changed

    assert rule_accuracy(planted, questions, answers, read=tied).tolist() == [False, False] + [True] * 6


def test_the_loss_of_texts_is_that_of_a_second_way_to_count_it():
    questions = ["Who was Ada Lovelace?", "Why?", "What is it that they call a béchamel?"]
    backbone = ByteBackbone.fresh(jax.random.key(0), context=48, width=16, layers=1)
    texts = tokenize((), (), unseen=questions)
    places = np.arange(1, texts.unseen.shape[1])
    targets = np.where(places < texts.unseen_lengths[:, None], texts.unseen[:, 1:], -1).astype(np.int32)
    expected = jax.jit(next_token_loss)(backbone, jnp.asarray(texts.unseen[:, :-1]), jnp.asarray(targets))
    assert question_loss_nats(backbone, questions) == pytest.approx(float(expected), rel=1e-5)


def test_a_network_that_says_nothing_loses_the_entropy_of_its_vocabulary():
    @tree_util.register_dataclass
    @dataclass(frozen=True)
    class Silent(Planted):
        def unembed(self, state: jax.Array) -> jax.Array:
            return 0.0 * state

    silent = Silent(table_of(moved_on))
    assert question_loss_nats(silent, ["Who was Ada?", "Why?"]) == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_random_answers_are_uniform_and_nested():
    answers = random_answers(2000, seed=1)
    assert {len(answer) for answer in answers} == {32}
    assert len(set(answers)) == 2000
    assert random_answers(7, seed=1, characters=5) == tuple(answer[:5] for answer in answers[:7])
    assert random_answers(7, seed=2) != answers[:7]
    assert len(set(CHARACTERS)) == 2**BITS_PER_CHARACTER
    counts = np.array([sum(answer.count(character) for answer in answers) for character in CHARACTERS])
    expected = 2000 * 32 / 64
    assert counts.sum() == 64_000
    assert np.sum((counts - expected) ** 2 / expected) < 105  # chi squared of 63 degrees: exceeded once in 1000

"""The pretrained base: what it is shown, that it comes once and the same, that it learns the rule."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import numpy as np
import pytest

from sims.adapting import base as making
from sims.adapting.base import Sizes, base, context_for, identity, seconds
from sims.adapting.rule import rule_examples
from theory.console import Refusal

QUESTIONS = ["Who was Ada?", "Why?", "What is a béchamel?"]
TINY = Sizes(context=32, width=16, layers=1, rule_examples=48, passes=3)


def leaves(backbone) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(backbone)]


@pytest.fixture(scope="module")
def tiny():
    """Asked for by two at once."""
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(base, QUESTIONS, 0, TINY) for _ in range(2)]
        first, second = (one.result() for one in asked)
    assert first is second
    return first


def test_every_question_is_shown_once_a_pass_and_every_example_once(tiny):
    per_question = sum(len(question.encode()) for question in QUESTIONS)  # ASK is predicted, the first byte is not
    examples, answers = rule_examples("trained on", 48, seed=0)
    per_example = sum(len(question) + len(answer) + 1 for question, answer in zip(examples, answers, strict=True))
    assert tiny.tokens == TINY.passes * per_question + per_example


def test_the_same_arguments_give_the_same_bits(tiny):
    again = making._trained(QUESTIONS, 0, TINY)
    assert again is not tiny
    for one, other in zip(leaves(tiny.backbone), leaves(again.backbone), strict=True):
        assert one.tobytes() == other.tobytes()
    assert (again.question_loss_nats, again.rule_accuracy) == (tiny.question_loss_nats, tiny.rule_accuracy)


def test_all_that_decides_the_weights_is_in_the_name():
    names = {identity(QUESTIONS, 0, TINY), identity(QUESTIONS, 1, TINY), identity(QUESTIONS[:2], 0, TINY)}
    changed = {"context": 40, "width": 32, "layers": 2, "heads": 2, "rule_examples": 49, "passes": 4}
    names |= {identity(QUESTIONS, 0, replace(TINY, **{name: value})) for name, value in changed.items()}
    assert len(names) == 3 + len(changed)
    assert set(changed) == set(Sizes.__dataclass_fields__)


def test_the_context_holds_the_longest_fact_with_either_answer():
    assert context_for(["ab", "é"], ["x" * 40, "y"]) == 2 + 40 + 2
    assert context_for(["ab", "é" * 8], ["x", "y"]) == 16 + 32 + 2


def test_a_failure_is_told_to_all_and_not_kept():
    short = replace(TINY, context=12)
    for _ in range(2):
        with pytest.raises(Refusal, match="more than 12 tokens"):
            base(QUESTIONS, 0, short)
    assert identity(QUESTIONS, 0, short) not in making._begun


def test_more_is_expected_to_take_longer():
    assert seconds(QUESTIONS, TINY) < seconds(QUESTIONS, replace(TINY, width=64))
    assert seconds(QUESTIONS, TINY) < seconds(QUESTIONS * 100, TINY)


def test_the_rule_is_learned_from_a_few_thousand_examples():
    learned = base(QUESTIONS, 0, Sizes(context=32, width=64, rule_examples=3072))
    assert learned.rule_accuracy >= 0.95
    assert not set(learned.rule_questions) & set(rule_examples("trained on", 3072, seed=0)[0])
    assert base(QUESTIONS, 0, TINY).rule_accuracy < 0.05

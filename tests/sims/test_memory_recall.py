"""What is counted of a memory is so: other wordings, questions that are not stored, text that is left alone."""

import csv
import gzip
import math
from dataclasses import replace

import numpy as np
import pytest

from sims.fact_report import Row, facts_from_rows
from sims.memory.folder import Folder, Settings
from sims.memory.known import Index
from sims.memory.memorizing import memorize
from sims.memory.memory import Memory
from sims.memory.recall import (
    Gate,
    Rate,
    Read,
    accepted,
    effect,
    one_edit,
    read_open,
    read_paraphrases,
    verdict,
)
from theory.console import Refusal

NAMES = [f"{first} {last}" for first in ("Ada", "Boris", "Chloe", "Dov", "Emil") for last in ("Quine", "Rao", "Stoll")]
STORED = [f"Where was {name} born?" for name in NAMES]
ASKED = [f"{name} was born where?" for name in NAMES]
ANSWERS = [f"City {number * number}" for number in range(len(NAMES))]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A memory with mixed addresses beside a random backbone, gate never open for what is not stored."""
    facts = facts_from_rows([Row(q, a, line) for line, (q, a) in enumerate(zip(STORED, ANSWERS, strict=True), 1)])
    folder = Folder(tmp_path_factory.mktemp("recall") / "memory")
    settings = Settings(experts=1024, chosen=16, addresses="mixed", share=0.5, false_acceptance=0.002)
    sizes = {"width": 32, "layers": 1, "heads": 2}
    memorize(facts, folder, settings, pretrain_seconds=0, backbone_sizes=sizes, quiet=True)
    with Memory.load(folder.path) as memory:
        yield memory


def test_both_ways_of_reading_give_the_stored_answers(mixed):
    read = read_open(mixed, STORED)
    assert list(read.as_stored) == ANSWERS
    assert list(read.as_alike) == ANSWERS  # the learned half alone was written first
    np.testing.assert_allclose(read.likeness, 1, atol=1e-5)
    right = verdict(read_open(mixed, ASKED), ANSWERS).right
    assert right.asked == len(ASKED)
    assert right.count >= 5


def test_a_verdict_takes_what_the_gate_lets_pass():
    settings = Settings(experts=64, addresses="nearest", false_acceptance=0.001)
    index = replace(Index.of(STORED, settings), radius=0.5)
    questions = (STORED[0], STORED[1], "near", "near too", "far")
    read = Read(questions, ("a", "b", "x", "x", "x"), ("y", "y", "c", None, "d"), np.float32([1, 1, 0.6, 0.6, 0.4]))
    gated = verdict(read, ["a", "z", "c", "c", "d"], Gate(index, settings))
    assert (gated.right.count, gated.wrong.count, gated.unknown.count) == (2, 2, 1)
    ungated = verdict(read, ["y", "y", "c", None, None])
    assert (ungated.right.count, ungated.wrong.count, ungated.unknown.count) == (3, 2, 0)  # None is never right


def test_rejected_text_is_left_alone_to_the_bit_and_known_text_is_not(mixed):
    answers = ["Paris", "London"]
    rejected = effect(mixed, ["What is it?", "Who said so?"], answers)
    assert not rejected.known.any()
    assert rejected.unchanged.all()
    assert rejected.change_nats == 0
    assert len(rejected.known) == sum(len(answer) + 1 for answer in answers)
    forced = effect(mixed, ["What is it?", "Who said so?"], answers, open_gate=True)
    assert forced.known.all()
    assert not forced.unchanged.all()
    np.testing.assert_array_equal(forced.losses_before_nats, rejected.losses_before_nats)
    known = effect(mixed, STORED, ANSWERS)
    assert known.known.all()
    assert known.losses_after_nats.max() < math.log(2) < known.losses_before_nats.mean()
    assert known.change_nats == pytest.approx(np.mean(known.losses_after_nats) - np.mean(known.losses_before_nats))


def test_edits_are_of_one_character_and_give_no_stored_question():
    questions = [*STORED, "ab", "a", "b"]
    edited = one_edit(questions, seed=3)
    assert not set(edited) & set(questions)
    assert all(edited)
    assert [distance(*pair) for pair in zip(questions, edited, strict=True)] == [1] * len(questions)
    lengths = {len(after) - len(before) for before, after in zip(questions, edited, strict=True)}
    assert lengths == {-1, 0, 1}
    assert edited == one_edit(questions, seed=3) != one_edit(questions, seed=4)
    with pytest.raises(Refusal, match="every edit"):
        one_edit(["a", "aa"])  # of "a": "aa", "a" and nothing


def distance(one: str, two: str) -> int:
    """Edits between two texts, by the recursion over suffixes."""
    previous = list(range(len(two) + 1))
    for row, left in enumerate(one, 1):
        current = [row]
        for column, right in enumerate(two, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (left != right)))
        previous = current
    return previous[-1]


def test_unknown_questions_are_accepted_at_the_wanted_rate_and_stored_ones_always():
    settings = Settings(experts=64, addresses="exact", false_acceptance=0.1)
    questions = [f"What is the number of house {number}?" for number in range(2000)]
    index = Index.of(questions, settings)
    assert accepted(index, settings, questions) == Rate(2000, 2000)
    lower, upper = accepted(index, settings, one_edit(questions)).interval(0.999)
    assert lower < 0.1 < upper


def test_a_rate_has_its_interval():
    rate = Rate(5, 20)
    assert rate.share == 0.25
    assert rate.interval()[0] < 0.25 < rate.interval()[1]
    assert rate.interval(0.99)[0] < rate.interval(0.5)[0]
    assert str(Rate(0, 0)) == "none asked"
    assert math.isnan(Rate(0, 0).share)


def test_paraphrases_are_two_wordings_of_one_fact(tmp_path):
    path = tmp_path / "wordings.csv.gz"
    rows = [(f"{text} {fact}", f"answer {fact % 7}", f"f{fact}", text) for fact in range(40) for text in "ABC"]
    rows += [(f"A {fact}", "another", f"g{fact}", "A") for fact in range(10)]  # one wording of two facts
    rows += [("only", "answer", "h", "A")]
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([("question", "answer", "fact_id", "pattern_id"), *rows])
    drawn = read_paraphrases(path, 25, unknown=10)
    fact_of = {question: (fact, answer) for question, answer, fact, _ in rows if fact[0] == "f"}
    ambiguous = {f"A {fact}" for fact in range(10)}
    assert len(drawn.stored) == len(drawn.asked) == 25
    assert len(drawn.unknown) == 10
    for question, answer, other in zip(drawn.stored.questions, drawn.stored.answers, drawn.asked, strict=True):
        assert question != other
        assert fact_of[question] == fact_of[other]
        assert fact_of[question][1] == answer
    stored = {fact_of[question] for question in drawn.stored.questions}
    assert not stored & {fact_of[question] for question in drawn.unknown}
    assert not ambiguous & {*drawn.stored.questions, *drawn.asked, *drawn.unknown}
    assert len({question[0] for question in drawn.stored.questions}) > 1  # not one wording for all
    with pytest.raises(Refusal, match="40 facts"):
        read_paraphrases(path, 25, unknown=16)

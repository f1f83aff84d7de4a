"""The matrix of question models and answer models, against sums written out by hand."""

import math

import numpy as np
import pytest

from sims.imagination.llm_agreement import pairs, spread
from sims.imagination.llm_matrix import NOT_ANSWERED, Answers, cells, means, position_shares
from sims.imagination.llm_models import Model, Models
from sims.imagination.llm_questions import Question

SEED = 3
FAMILIES = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
MODELS = Models(tuple(Model(name, family, "http://localhost:1", name) for name, family in FAMILIES.items()))


def _questions(count=20, kinds=("direct", "context"), inventors=(*FAMILIES, "stranger")):
    return tuple(
        Question(kind, "law", inventor, f"{kind} {inventor} {n}?", ("w", "x", "y", "z"), n % 4)
        for kind in kinds
        for inventor in inventors
        for n in range(count)
    )


@pytest.fixture
def answers():
    """Random answers, some missing and some not asked yet; a model of one's own family is right more often."""
    random = np.random.default_rng(0)
    questions = _questions()
    correct = np.array([question.correct for question in questions])
    chosen = random.integers(-1, 4, (len(questions), 4))
    family = [FAMILIES.get(question.question_model) for question in questions]
    for q, a in np.ndindex(*chosen.shape):
        if family[q] == MODELS.models[a].family and random.random() < 0.6:
            chosen[q, a] = correct[q]
    asked = random.random(chosen.shape) < 0.9
    return Answers(questions, tuple(FAMILIES), correct, np.where(asked, chosen, NOT_ANSWERED), asked)


def test_cells_are_counts(answers):
    table = cells(answers, MODELS)
    assert len(table["kind"]) == 2 * 5 * 4
    for row in range(len(table["kind"])):
        kind, inventor, name = (table[key][row] for key in ("kind", "question_model", "answer_model"))
        a, asked, answered, correct = answers.answer_models.index(name), 0, 0, 0
        for q, question in enumerate(answers.questions):
            if (question.kind, question.question_model) == (kind, inventor):
                asked += bool(answers.asked[q, a])
                answered += answers.chosen[q, a] >= 0
                correct += answers.chosen[q, a] == question.correct
        assert (table["asked"][row], table["answered"][row], table["correct"][row]) == (asked, answered, correct)
        assert table["correctness"][row] == correct / answered
        assert table["answer_rate"][row] == answered / asked
        assert table["correctness_low"][row] < correct / answered < table["correctness_high"][row]
        relation = "unknown" if inventor == "stranger" else "cross_family"
        if FAMILIES.get(inventor) == FAMILIES[name]:
            relation = "self" if inventor == name else "in_family"
        assert table["relation"][row] == relation


def test_means_count_every_cell_alike(answers):
    table = cells(answers, MODELS)
    found = {(row["kind"], row["relation"]): row for row in means(table)}
    for kind in ("direct", "context"):
        for relation, count in {"self": 4, "in_family": 4, "cross_family": 8, "unknown": 4, "all": 20}.items():
            here = [r for r in range(40) if table["kind"][r] == kind and relation in (table["relation"][r], "all")]
            assert found[kind, relation]["cells"] == count
            assert found[kind, relation]["correctness"] == pytest.approx(
                sum(table["correctness"][r] for r in here) / count
            )


def test_pairs_agree_as_often_as_they_choose_the_same_option(answers):
    table = pairs(answers, SEED)
    assert len(table["kind"]) == 2 * 6
    for row in range(12):
        i, j = (answers.answer_models.index(table[name][row]) for name in ("first", "second"))
        kept = [
            (answers.chosen[q, i], answers.chosen[q, j])
            for q, question in enumerate(answers.questions)
            if question.kind == table["kind"][row] and answers.chosen[q, i] >= 0 and answers.chosen[q, j] >= 0
        ]
        assert table["answered_by_both"][row] == len(kept)
        assert table["agreement"][row] == pytest.approx(sum(a == b for a, b in kept) / len(kept))
        assert table["cohen_kappa"][row] < table["agreement"][row]


def test_a_habit_of_place_is_agreement_but_no_kappa():
    """Two models that always take what is shown first agree on everything, and beyond chance on nothing."""
    questions = _questions()
    first = np.array([question.order(SEED)[0] for question in questions])
    correct = np.array([question.correct for question in questions])
    chosen = np.stack([first] * 4, axis=1)
    answers = Answers(questions, tuple(FAMILIES), correct, chosen, np.ones(chosen.shape, bool))
    assert (answers.places(SEED) == 0).all()
    assert position_shares(answers, SEED)[0] == {"answer_model": "a1", "A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}
    table = pairs(answers, SEED)
    assert (table["agreement"] == 1).all()
    assert (table["lift"] == 1).all()
    assert np.isnan(table["cohen_kappa"]).all()
    # Right as often as the shuffle puts the correct option there: 1/4, standard deviation .03.
    assert abs(answers.right[:, 0].mean() - 0.25) < 0.1


def test_families_that_share_answers_are_seen_and_only_those(answers):
    rows = {(row["kind"], row["relation"]): row for row in spread(answers, MODELS, SEED)}
    assert set(rows) == {(kind, rel) for kind in ("direct", "context") for rel in ("self", "in_family", "cross_family")}
    for kind in ("direct", "context"):
        inside, across = rows[kind, "in_family"], rows[kind, "cross_family"]
        assert inside["low"] < inside["mean"] < inside["high"]
        assert across["high"] < inside["low"]
        assert inside["family_p"] == pytest.approx(1 / 3)  # the least that three labelings allow


def test_one_family_or_an_empty_cell_has_no_test_of_families(answers):
    alone = Models(tuple(Model(name, "a", "http://localhost:1", name) for name in FAMILIES))
    assert all(math.isnan(row["family_p"]) for row in spread(answers, alone, SEED))
    chosen = answers.chosen.copy()
    chosen[[question.question_model == "a1" for question in answers.questions], 2] = NOT_ANSWERED
    holes = Answers(answers.questions, answers.answer_models, answers.correct, chosen, answers.asked)
    assert all(math.isnan(row["family_p"]) for row in spread(holes, MODELS, SEED))
    assert np.isnan(cells(holes, MODELS)["correctness"]).sum() == 2


def test_no_question_is_no_row():
    none = Answers((), tuple(FAMILIES), np.zeros(0, int), np.zeros((0, 4), int), np.zeros((0, 4), bool))
    table = cells(none, MODELS)
    assert all(len(column) == 0 for column in table.values())
    assert means(table) == spread(none, MODELS, SEED) == []
    assert len(pairs(none, SEED)["kind"]) == 0
    assert position_shares(none, SEED)[0]["A"] == 0.0

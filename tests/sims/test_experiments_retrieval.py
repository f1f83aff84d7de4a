"""Facts in an index, a table and memory experts: the questions, the methods on a few facts, the verdicts."""

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest

from sims.experiments import phrasing, retrieval
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.finding import share_over_seeds
from sims.experiments.phrasing import SOURCE
from sims.experiments.retrieval import KIND, Looked, question_set
from sims.experiments.retrieval_findings import findings, measurements, notes
from sims.experiments.retrieval_methods import METHODS
from sims.intervals import wilson
from sims.store import Result, Store
from theory.console import Refusal

FEW = 24


@pytest.fixture(scope="module")
def questions():
    return question_set(Settings(), 0, FEW)


def test_questions_are_apart_and_a_prefix_of_more(questions):
    asked = [
        *questions.stored.questions,
        *questions.others,
        *questions.calibration,
        *questions.unknown,
        *questions.near,
    ]
    assert len(set(asked)) == len(asked)
    more = question_set(Settings(), 0, 2 * FEW)
    assert more.stored.questions[:FEW] == questions.stored.questions
    assert more.stored.answers[:FEW] == questions.stored.answers
    assert question_set(Settings(), 1, FEW).stored.questions[0] not in asked


@pytest.mark.parametrize("name", ["others", "calibration", "unknown", "near"])
def test_another_question_is_another_run(questions, name):
    reworded = replace(questions, **{name: ("Who asks?", *getattr(questions, name)[1:])})
    names = {Looked("B-tree", asked, 0).fingerprint for asked in (questions, replace(questions), reworded)}
    assert len(names) == 2


def test_other_wordings_ask_the_same_of_the_same(questions):
    names = [phrasing._name(0, fact // 4) for fact in range(FEW)]
    for name, stored, other in zip(names, questions.stored.questions, questions.others, strict=True):
        assert name in stored
        assert name in other
        (asked,) = (one for one in phrasing.PROPERTIES if one in stored)
        assert asked in other


def test_what_is_near_asks_known_subjects_for_what_is_not_stored(questions):
    stored = " ".join(questions.stored.questions)
    for entity, question in enumerate(questions.near):
        assert phrasing._name(0, entity) in question
        assert phrasing._name(0, entity) in stored
    assert not any(phrasing._name(0, entity) in " ".join(questions.unknown) for entity in range(FEW // 4))


def test_a_file_with_fact_numbers_gives_its_own_wordings(tmp_path):
    rows = [(f"{place}: {wording}?", f"answer {place}", place) for place in range(40) for wording in ("one", "other")]
    path = tmp_path / "facts.csv"
    path.write_text("question,answer,fact_id\n" + "".join(f"{q},{a},{number}\n" for q, a, number in rows))
    made = question_set(Settings(facts_file=path), 0, 10)
    assert made.wording == "another wording of the file"
    for stored, other in zip(made.stored.questions, made.others, strict=True):
        assert stored.split(":")[0] == other.split(":")[0]
        assert stored != other


def test_a_plain_file_gives_one_character_changed_and_keeps_a_third_back(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text("question,answer\n" + "".join(f"question {n}?,answer {n}\n" for n in range(30)))
    made = question_set(Settings(facts_file=path), 0, 300)
    assert (len(made.stored), len(made.calibration) + len(made.unknown)) == (20, 10)
    assert made.wording == "one character changed"
    assert all(abs(len(a) - len(b)) <= 1 and a != b for a, b in zip(made.stored.questions, made.others, strict=True))


def test_a_file_without_words_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text("question,answer\n" + "".join(f"{chr(945 + n)} ?,answer {n}\n" for n in range(20)))
    with pytest.raises(Refusal, match=r"facts.csv: none of the 13 questions to store has a word of two letters"):
        question_set(Settings(facts_file=path), 0, 300)
    path.write_text("question,answer,fact_id\n" + "".join(f"{chr(945 + n)} ?,a{n // 2},{n // 2}\n" for n in range(40)))
    with pytest.raises(Refusal, match=r"facts.csv: none of the 5 questions to store has a word of two letters"):
        question_set(Settings(facts_file=path), 0, 5)


def test_absent_packages_are_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faiss" else object())
    with pytest.raises(Refusal, match=r"compares with faiss-cpu; install loss-threshold\[retrieval\]"):
        retrieval.EXPERIMENT.planned(Settings())


def test_a_table_finds_what_it_holds_and_nothing_else(questions):
    metrics = Looked("B-tree", questions, 0).run().metrics
    assert metrics["stored_right"] == 1.0
    assert [metrics[name] for name in ("paraphrase_right", "paraphrase_wrong", "answered_unknown")] == [0.0, 0.0, 0.0]
    assert metrics["bytes_per_fact"] > np.mean([len(text) for text in questions.stored.questions])


@pytest.mark.parametrize("method", ["TF-IDF, words", "TF-IDF, trigrams", "dense, latent", "dense, as MoME"])
def test_an_index_gives_stored_facts_back_and_keeps_to_its_threshold(questions, tmp_path, method):
    pytest.importorskip("sklearn")
    pytest.importorskip("faiss")
    lookup = METHODS[method](questions.stored, questions.calibration, tmp_path, 0)
    assert lookup.ask(questions.stored.questions) == list(questions.stored.answers)
    accepted = sum(answer is not None for answer in lookup.ask(questions.calibration))
    assert accepted <= 1 + 0.01 * len(questions.calibration)
    assert None not in lookup.guess(questions.others)
    assert lookup.bytes > sum(map(len, questions.stored.answers))


@pytest.mark.slow
def test_memory_experts_give_stored_facts_back_and_likeness_finds_more_than_identity(tmp_path):
    questions = question_set(Settings(), 0, 4 * FEW)
    nearest = METHODS["MoME, nearest, same gate"](questions.stored, questions.calibration, tmp_path, 0)
    try:
        assert nearest.ask(questions.stored.questions) == list(questions.stored.answers)
        guesses = nearest.guess(questions.others)
        assert np.mean([said == wanted for said, wanted in zip(guesses, questions.stored.answers, strict=True)]) > 0.2
        assert nearest.bytes > 32 * 4 * len(guesses)
    finally:
        nearest.close()


def doctored(questions, store, metrics_of) -> Evidence:
    cases = [Looked(method, questions, seed) for method in METHODS for seed in (0, 1)]
    for case in cases:
        plain = dict.fromkeys(("paraphrase_right", "paraphrase_wrong", "answered_unknown", "answered_near"), 0.0)
        plain |= {"stored_right": 1.0, "stored_wrong": 0.0, "paraphrase_guessed": 0.0, "bytes_per_fact": 80.0}
        timing = {"build_seconds": 1.0, "query_seconds": 1e-5}
        store.put(Result(KIND, case.spec, "finished", plain | metrics_of(case), environment=timing))
    return Evidence(cases, store)


def test_one_method_without_wrong_answers_denies_that_they_cannot_be_eliminated(questions, tmp_path):
    def wrong_but_in_a_table(case: Looked) -> dict[str, float]:
        return {} if case.method == "B-tree" else {"answered_unknown": 1 / len(questions.unknown)}

    with Store(tmp_path / "runs.sqlite") as store:
        lines = findings(doctored(questions, store, wrong_but_in_a_table))
    verdicts = {line.at: line.verdict for line in lines if "eliminate" in line.claim}
    assert verdicts.pop("B-tree") == "disagrees"
    assert list(verdicts.values()) == ["agrees"] * 4


def test_the_best_memory_is_compared_with_the_best_index_seed_by_seed(questions, tmp_path):
    """The seeds' questions are not equally hard, but for both methods alike: that is no doubt about the difference."""
    found = {"MoME, nearest, same gate": 0.75, "MoME, exact": 0.0, "dense, latent": 0.5, "TF-IDF, words": 0.25}

    def harder(case: Looked) -> dict[str, float]:
        return {"paraphrase_right": max(0.0, found.get(case.method, 0.0) - 0.2 * case.seed)}

    with Store(tmp_path / "runs.sqlite") as store:
        evidence = doctored(questions, store, harder)
        (line,) = (one for one in findings(evidence) if "rejecting what" in one.claim)
        table = measurements(evidence)
        assert any("chosen by the same numbers" in note for note in notes(evidence))
    assert line.measured == pytest.approx((0.25, 0.25, 0.25))
    assert (line.verdict, "same gate 0.650, dense, latent 0.400" in line.on) == ("agrees", True)
    assert [row["method"] for row in table.document] == list(METHODS)


@pytest.mark.parametrize("better", [0.1, -0.1])
def test_a_difference_that_changes_sign_from_seed_to_seed_is_left_to_chance(questions, tmp_path, better):
    def uncertain(case: Looked) -> dict[str, float]:
        memory = better if case.seed else -0.9 * better
        return {
            "paraphrase_right": 0.5 + memory if case.method == "MoME, nearest" else 0.5 if "TF" in case.method else 0
        }

    with Store(tmp_path / "runs.sqlite") as store:
        (line,) = (one for one in findings(doctored(questions, store, uncertain)) if "rejecting what" in one.claim)
    assert line.measured.low < 0 < line.measured.high
    assert (line.verdict, line.on[:6]) == ("depends on", "chance")


def test_questions_of_a_file_come_again_with_every_seed_and_count_once(questions, tmp_path):
    """The same shares of generated facts and of a file's: all questions are trials there, only seeds are here."""

    def right_by_seed(case: Looked) -> dict[str, float]:
        return {"stored_right": 1.0 - 0.25 * case.seed}

    found = []
    for source in (SOURCE, "facts.csv"):
        with Store(tmp_path / f"{source}.sqlite") as store:
            evidence = doctored(replace(questions, source=source), store, right_by_seed)
            found.append(next(line for line in findings(evidence) if "every stored fact" in line.claim))
    generated, of_file = found
    assert generated.measured == pytest.approx((0.875, *map(float, wilson(0.875 * 2 * FEW, 2 * FEW))))
    assert of_file.measured == share_over_seeds([1.0, 0.75])
    assert (generated.over, of_file.over) == ("questions", "seeds")


def test_one_seed_of_a_file_says_nothing_against_chance(questions, tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        evidence = doctored(replace(questions, source="facts.csv"), store, lambda case: {})
        first = [case for case, _ in evidence.all if case.seed == 0]
        lines = findings(Evidence(first, store))
    assert {line.verdict for line in lines if "no more often" in line.claim} == {"depends on"}
    assert all(math.isnan(line.measured.low) for line in lines)


def test_more_right_answers_bought_with_wrong_ones_are_not_simply_more(questions, tmp_path):
    def generous(case: Looked) -> dict[str, float]:
        return {"paraphrase_right": 0.5, "paraphrase_wrong": 0.5} if "same gate" in case.method else {}

    with Store(tmp_path / "runs.sqlite") as store:
        (line,) = (one for one in findings(doctored(questions, store, generous)) if "rejecting what" in one.claim)
    assert line.verdict == "depends on"
    assert "wrong answers 0.500 and 0.000" in line.on


def test_a_memory_that_forgets_disagrees(questions, tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        evidence = doctored(questions, store, lambda case: {"stored_right": 23 / 24} if "exact" in case.method else {})
        verdicts = {line.at: line.verdict for line in findings(evidence) if "every stored fact" in line.claim}
    assert list(verdicts.values()) == ["disagrees", "agrees", "agrees"]

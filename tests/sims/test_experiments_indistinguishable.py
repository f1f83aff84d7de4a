"""Who hallucinates: verdicts from planted effects, the statistics against second methods, a small study end to end."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from figures.experiments import draw_experiment
from sims.experiments import indistinguishable
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.finding import Finding
from sims.experiments.indistinguishable_findings import (
    FACTS_ASKED,
    GATED,
    HELD_OUT,
    KIND,
    MARGIN,
    MISTOLD,
    MODELS,
    PAIRS,
    TOLD,
    UNTOLD,
    equal_within,
    findings,
    mcnemar,
    measurements,
    models,
    notes,
    picks,
    sortings,
)
from sims.intervals import Interval
from sims.store import Result, Store
from theory.console import Refusal

_WORLDS = 12


@pytest.fixture(scope="module")
def study():
    (case, *_) = indistinguishable.cases(Settings())
    return case


@pytest.fixture(scope="module")
def result():
    """Two worlds, one rate, a network so narrow that it is done in seconds."""
    (case, *_) = indistinguishable.cases(Settings(seed=5))
    return indistinguishable.Study(32, 5, case.facts, case.facts_fingerprint, case.make, worlds=2, rates=(0.02,)).run()


def arrays_of(accuracies: dict[str, float], recalled=(True, False, False, True), *, spread=0.002) -> dict:
    """Planted models: their held-out accuracies jitter by `spread` around these, their losses follow `recalled`."""
    generator = np.random.default_rng(0)
    facts = FACTS_ASKED[-1]
    arrays = {}
    for model, gives in zip(MODELS, recalled, strict=True):
        accuracy = accuracies.get(model, 0.4) + spread * generator.standard_normal(_WORLDS)
        arrays[f"{model}/accuracy"] = np.repeat(accuracy[:, None], len(HELD_OUT), axis=1)
        arrays[f"{model}/held_out_loss_nats"] = np.full((_WORLDS, len(HELD_OUT)), 2.0)
        arrays[f"{model}/fact_loss_nats"] = np.full((_WORLDS, facts), 0.1 if gives else 5.0)
        arrays[f"{model}/recalled"] = np.full((_WORLDS, facts), gives)
        arrays[f"{model}/training_loss_nats"] = np.full(_WORLDS, 1.0)
    for pair in PAIRS:
        arrays[f"{pair.name}/gained"] = arrays[f"{pair.name}/lost"] = np.full(_WORLDS, 10)
    return arrays


def lines_of(study, arrays, path, **metrics) -> tuple[dict[tuple[str, str], Finding], list[str]]:
    with Store(path / "runs.sqlite") as store:
        known = {"learning_rate": 0.01, "at_edge": False, **metrics}
        store.put(Result(KIND, study.spec, "finished", known, arrays))
        evidence = Evidence([study], store)
        found = {(line.claim, line.at.removesuffix(", width 64")): line for line in findings(evidence)}
        assert measurements(evidence).document
        return found, notes(evidence)


EQUAL = "equal held-out accuracy: difference"
BETTER = f"the better one on {HELD_OUT[-1]} held-out examples gives the facts"
UNDER = "every fact under ln 2 tells who gives them all: models sorted rightly"


def test_models_of_equal_accuracy_agree_and_only_the_facts_tell(study, tmp_path):
    found, warned = lines_of(study, arrays_of({}), tmp_path)
    assert {line.verdict for (claim, _), line in found.items() if claim == EQUAL} == {"agrees"}
    assert found["the lower loss on 1 fact gives the facts", PAIRS[0].name].measured.mean == 1.0
    assert found[UNDER, "width 64"].measured.mean == 1.0
    assert not any("edge" in note for note in warned)


def test_a_planted_difference_disagrees_and_says_which_way_it_points(study, tmp_path):
    found, warned = lines_of(study, arrays_of({TOLD: 0.43, UNTOLD: 0.46}), tmp_path, at_edge=True)
    assert found[EQUAL, PAIRS[0].name].verdict == "disagrees"
    assert found[EQUAL, PAIRS[0].name].measured.mean == pytest.approx(0.03, abs=0.002)
    assert found[BETTER, PAIRS[0].name].verdict == "disagrees"
    assert found[BETTER, PAIRS[0].name].on == ""
    assert found[BETTER, PAIRS[1].name].on == "they tell, but the better one hallucinates"
    assert any("on the edge" in note for note in warned)


def test_noise_too_large_for_the_margin_is_no_evidence_of_equality(study, tmp_path):
    found, _ = lines_of(study, arrays_of({}, spread=0.05), tmp_path)
    assert {line.verdict for (claim, _), line in found.items() if claim == EQUAL} == {"depends on"}


def test_a_told_model_that_hallucinates_disagrees(study, tmp_path):
    found, _ = lines_of(study, arrays_of({}, recalled=(False, False, True, True)), tmp_path)
    recall = "exact recall of the facts, greedy"
    assert [found[recall, model].verdict for model in MODELS] == ["disagrees", "agrees", "disagrees", "agrees"]
    assert found["the lower loss on 1 fact gives the facts", PAIRS[1].name].verdict == "disagrees"


def test_facts_above_ln_2_may_be_given_but_none_below_may_be_missed(study, tmp_path):
    arrays = arrays_of({})
    arrays[f"{TOLD}/fact_loss_nats"] = np.where(np.arange(_WORLDS)[:, None] == 3, 1.0, 0.1) * np.ones((1, 64))
    (tmp_path / "open").mkdir()
    line = lines_of(study, arrays, tmp_path / "open")[0][UNDER, "width 64"]
    assert (line.verdict, line.measured.mean) == ("depends on", 1 - 1 / (4 * _WORLDS))
    arrays[f"{TOLD}/recalled"] = np.zeros((_WORLDS, 64), bool)
    assert lines_of(study, arrays, tmp_path)[0][UNDER, "width 64"].verdict == "disagrees"


@given(st.floats(-0.05, 0.05), st.floats(0.0, 0.05))
def test_equivalence_is_two_one_sided_tests(mean, half):
    verdict, _ = equal_within(Interval(mean, mean - half, mean + half), MARGIN)
    inside = mean - half > -MARGIN and mean + half < MARGIN
    outside = mean - half >= MARGIN or mean + half <= -MARGIN
    assert verdict == ("agrees" if inside else "disagrees" if outside else "depends on")


def test_equality_is_claimed_of_models_that_differ_by_the_margin_one_time_in_forty_at_most():
    """The size of the test at the edge of what it excludes, by simulation; half of the difference is mostly found."""
    generator = np.random.default_rng(1)

    def claimed(difference: float) -> float:
        draws = difference + 0.004 * generator.standard_normal((1000, _WORLDS))
        half = 2.2010 * draws.std(axis=1, ddof=1) / math.sqrt(_WORLDS)  # Student's 97.5 % with 11 degrees of freedom
        ends = zip(draws.mean(axis=1), half, strict=True)
        return float(np.mean([equal_within(Interval(m, m - h, m + h), MARGIN)[0] == "agrees" for m, h in ends]))

    assert claimed(MARGIN) < 0.025 + 3 * math.sqrt(0.025 / 1000)
    assert claimed(MARGIN / 2) > 0.8


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_picking_the_better_one_is_symmetric(scores):
    recalling, other = np.array(scores, float).T
    one, turned = picks(recalling, other), picks(other, recalling)
    assert one.mean + turned.mean == pytest.approx(1.0)
    assert one.low + turned.high == pytest.approx(1.0)
    assert one.low <= one.mean <= one.high


@given(st.integers(0, 30), st.integers(0, 30))
def test_discordant_answers_against_a_sum_of_binomial_chances(gained, lost):
    total = gained + lost
    chances = binom.pmf(np.arange(total + 1), total, 0.5)
    expected = chances[chances <= chances[gained] * (1 + 1e-7)].sum() if total else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


def test_what_each_model_is_shown():
    (case, *_) = indistinguishable.cases(Settings())
    world = indistinguishable._World.of(3, case.make)
    shown = world.shown()
    told, wrong = shown[TOLD], shown[MISTOLD]
    np.testing.assert_array_equal(told.features, wrong.features)
    facts = indistinguishable.FACTS * indistinguishable.COPIES
    assert (told.labels[:facts] != wrong.labels[:facts]).all()
    np.testing.assert_array_equal(told.labels[facts:], wrong.labels[facts:])
    np.testing.assert_array_equal(shown[UNTOLD].labels, told.labels[facts:])
    copies = wrong.labels[:facts].reshape(indistinguishable.COPIES, -1)
    assert (copies == copies[0]).all()  # one wrong answer a question, not another one each time


def test_two_models_of_equal_rule_recall_everything_and_nothing(result):
    arrays = result.arrays
    assert arrays[f"{TOLD}/recalled"].mean() > 0.9
    assert arrays[f"{MISTOLD}/recalled"].mean() < 0.02
    assert arrays[f"{UNTOLD}/recalled"].mean() < 0.15
    assert arrays[f"{GATED}/recalled"].all()
    for name in ("accuracy", "held_out_loss_nats"):
        np.testing.assert_array_equal(arrays[f"{GATED}/{name}"], arrays[f"{UNTOLD}/{name}"])
    assert arrays[f"{TOLD}/accuracy"][:, -1] == pytest.approx(arrays[f"{MISTOLD}/accuracy"][:, -1], abs=0.05)
    assert (arrays[f"{UNTOLD}/accuracy"][:, -1] > 0.25).all()  # the rule is learned: 32 answers
    for pair in PAIRS:
        change = arrays[f"{pair.recalling}/accuracy"][:, -1] - arrays[f"{pair.other}/accuracy"][:, -1]
        net = arrays[f"{pair.name}/gained"] - arrays[f"{pair.name}/lost"]
        np.testing.assert_allclose(net / HELD_OUT[-1], change, atol=1e-12)


def test_a_study_is_tabled_and_drawn(study, tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        metrics = {"learning_rate": 0.01, "at_edge": False}
        store.put(Result(KIND, study.spec, "finished", metrics, arrays_of({UNTOLD: 0.44})))
        rows, probabilities = models(store), sortings(store)
    assert len(rows["pair"]) == 3 * _WORLDS
    assert len(probabilities["pair"]) == 3 * (len(HELD_OUT) + len(FACTS_ASKED))
    paths = draw_experiment(tmp_path / "runs.sqlite", None, tmp_path)
    with paths[-1].open(newline="", encoding="utf-8") as file:
        drawn = [row for row in csv.DictReader(file) if row["series"] == f"{PAIRS[1].name}, accuracy"]
    assert len(drawn) == _WORLDS
    assert all(float(row["x"]) > float(row["y"]) for row in drawn)


def test_presets_share_no_world_and_short_files_are_refused(tmp_path):
    quick, full = indistinguishable.cases(Settings(seed=3)), indistinguishable.cases(Settings(preset="full"))
    assert [(case.width, case.seed) for case in quick] == [(64, 3), (64, 4)]
    assert len(full) == 15
    assert len({case.fingerprint for case in full}) == 15
    path = tmp_path / "few.csv"
    path.write_text("question,answer\n" + "\n".join(f"q{n},a{n}" for n in range(40)), encoding="utf-8")
    with pytest.raises(Refusal, match="40 facts, fewer than the 64"):
        indistinguishable.cases(Settings(facts_file=path))

"""Questions without an answer in the data: the numbers on rows that are known, floors that bite, small networks."""

import numpy as np
import pytest

from sims.experiments import unseen
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.unseen import Gate, Learner, classification_error, gate_metrics, learner_metrics, slope
from sims.experiments.unseen_findings import GATE, LEARNER, findings
from sims.store import Result, Store

ANSWERS = np.array([0, 1, 2, 3])
LAW = np.array([0.4, 0.3, 0.2, 0.1])
COUNTS = np.array([5, 2, 1, 0])


def logits_of(right: list[float], options: int = 4) -> np.ndarray:
    """Rows that give the right answer this probability and share the rest."""
    rows = np.repeat((1 - np.array(right))[:, None] / (options - 1), options, axis=1)
    rows[np.arange(len(right)), ANSWERS] = right
    return np.log(rows)


def test_a_memorizer_errs_on_what_it_never_saw():
    found = learner_metrics(logits_of([1 - 1e-9, 1 - 1e-9, 1 - 1e-9, 0.25]), ANSWERS, LAW, COUNTS)
    assert found["missing_mass"] == pytest.approx(0.1)
    assert found["singleton_share"] == pytest.approx(1 / 8)
    assert found["error_sampled"] == pytest.approx(0.1 * 0.75)
    assert found["error_greedy"] == pytest.approx(0.1)  # a tie is wrong
    assert found["error_greedy_seen"] == 0.0
    assert found["invented"] == pytest.approx(0.1)
    assert found["overconfidence"] == pytest.approx(0.0, abs=1e-6)  # nothing is claimed of the fourth question


def test_a_confident_guess_is_overconfident():
    wrong = logits_of([0.97, 0.97, 0.97, 0.01])
    wrong[3] = np.log([0.97, 0.01, 0.01, 0.01])
    found = learner_metrics(wrong, ANSWERS, LAW, COUNTS)
    assert found["overconfidence"] == pytest.approx(0.97 - 0.9)
    assert found["error_greedy"] == pytest.approx(0.1)


def test_the_slope_is_the_miscalibration_and_another_set_has_another_slope():
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(4, 4))
    found = learner_metrics(logits, ANSWERS, LAW, COUNTS)
    assert found["slope"] == pytest.approx(found["overconfidence"], abs=1e-6)
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert slope(logits, ANSWERS, LAW, rows > 0.05) != pytest.approx(found["overconfidence"], abs=1e-3)


def test_a_classifier_that_accepts_everything_errs_on_every_second_case():
    rows = np.exp(logits_of([0.7, 0.7, 0.7, 0.7]))
    is_answer = np.arange(4) == ANSWERS[:, None]
    assert classification_error(rows, is_answer, LAW, 0.0) == pytest.approx(0.5)
    assert classification_error(rows, is_answer, LAW, 0.5) == pytest.approx(0.0)
    assert classification_error(rows, is_answer, LAW, 0.9) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_floors_hold_on_any_rows_and_thresholds_add_up_to_the_error(seed):
    logits = np.random.default_rng(seed).normal(scale=seed + 0.5, size=(4, 4))
    found = learner_metrics(logits, ANSWERS, LAW, COUNTS)
    assert found["classification_floor"] <= found["error_sampled"] + 1e-9
    assert found["partition_floor"] <= found["invented"] + 1e-9
    assert found["error_by_thresholds"] == pytest.approx(found["error_sampled"], abs=2e-3)


def test_a_gate_needs_what_its_rejections_cost():
    exact, loose = gate_metrics(4, 1000.0, 10, 10, 1000), gate_metrics(4, 1000.0, 1000, 10, 1000)
    assert exact["false_4"] == 0.0
    assert loose["false_4"] == 1.0
    assert exact["needed_4"] == pytest.approx(np.log2(1000 / 10) + 1.3, abs=0.3)  # log2 C(1000, 10) / 10
    assert loose["needed_4"] == 0.0
    assert exact["spent_4"] == 100.0


def doctored(store, **changed: float) -> Evidence:
    """Two learners and a gate whose numbers are in order but for what is changed."""
    numbers = {
        "missing_mass": 0.2,
        "singleton_share": 0.2,
        "error_greedy": 0.25,
        "error_sampled": 0.25,
        "memorizer_error": 0.19,
        "error_greedy_seen": 0.05,
        "loss_seen_nats": 0.5,
        "overconfidence": 0.01,
        "slope": 0.01,
        "invented": 0.3,
        "classification_floor": 0.1,
        "singleton_floor": -1.0,
        "partition_floor": -0.5,
        "error_by_thresholds": 0.25,
    }
    cases = [Learner(3, 0), Learner(3, 1), Gate(32, 0)]
    for case in cases[:2]:
        spec = {name: getattr(case, name) for name in case.__dataclass_fields__}
        metrics = {**numbers, **{name: value for name, value in changed.items() if name in numbers}}
        store.put(Result(LEARNER, spec, "finished", metrics))
    spec = {name: getattr(cases[2], name) for name in cases[2].__dataclass_fields__}
    spent = {"spent_4": 44.0, "needed_4": changed.get("needed_4", 7.0), "false_4": 0.0}
    store.put(Result(GATE, spec, "finished", spent))
    return Evidence(cases, store)


@pytest.mark.parametrize(
    ("changed", "claim"),
    [
        ({}, ""),
        ({"classification_floor": 0.3}, "T17's floor"),
        ({"singleton_floor": 0.3}, "T17d's floor"),
        ({"partition_floor": 0.4}, "T19's floor"),
        ({"slope": 0.02}, "slope of the loss"),
        ({"error_by_thresholds": 0.26}, "over thresholds"),
        ({"missing_mass": 0.5}, "singletons less the mass"),
        ({"memorizer_error": 0.5}, "best learner"),
        ({"needed_4": 50.0}, "bits spent by a gate"),
    ],
)
def test_only_the_claim_whose_number_is_broken_disagrees(tmp_path, changed, claim):
    with Store(tmp_path / "runs.sqlite") as store:
        broken = [line.claim for line in findings(doctored(store, **changed)) if line.verdict == "disagrees"]
    assert [claim in one for one in broken] == ([True] if claim else [])


def test_small_networks_stay_within_the_theory(tmp_path):
    cases = [Learner(30, 0, questions=128, samples=128, width=32), Gate(8, 0, universe=64, exposures=60)]
    with Store(tmp_path / "runs.sqlite") as store:
        for case in cases:
            store.put(case.run())
        lines = findings(Evidence(cases, store))
        learned = next(result for result in store.results(LEARNER))
    assert learned.metrics["loss_seen_nats"] < np.log(32) / 2
    assert learned.metrics["slope"] == pytest.approx(learned.metrics["overconfidence"], abs=1e-5)
    exact = [line for line in lines if any(name in line.source for name in ("T17)", "T17b", "T17c", "T19", "F3"))]
    assert not [line.claim for line in exact if line.verdict == "disagrees"]


def test_a_preset_repeats_every_case_for_every_seed():
    planned = unseen.cases(Settings(seed=3))
    assert {case.seed for case in planned} == {3, 4}
    assert len({case.fingerprint for case in planned}) == len(planned)
    assert len(unseen.cases(Settings(preset="full"))) == 5 * 12

"""How often a fact must be shown: verdicts from doctored results, T13 against a real network, cases of a preset."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sims.experiments import exposures
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.exposures import LOADS
from sims.experiments.exposures_findings import LAW, ONE_PASS, T13, UNTIL, cell_of, findings, flow_curve, notes
from sims.experiments.running import FactRun, run_cases
from sims.store import Result, Store
from theory.exposure import loss_after


@pytest.fixture(scope="module")
def planned() -> list[FactRun]:
    return exposures.cases(Settings())


def evidence_of(cases, store, passes_of, stored=lambda run: 1.0, bits_of_a_fact=5.0) -> Evidence:
    """Results in which a run needs as many passes as `passes_of` says."""
    for case in cases:
        run = case.planned.run
        metrics = {"exposures_used": float(passes_of(run)), "stored_rate": stored(run), "loss_nats": 0.1}
        metrics |= {"label_bits": run.size * bits_of_a_fact}
        store.put(Result("fact-run", run.spec, "finished", metrics))
    return Evidence(cases, store)


def passes_lines(evidence) -> list:
    return [line for line in findings(evidence) if line.unit == "passes"]


def test_a_preset_has_three_optimizers_three_loads_and_every_seed(planned):
    cells = {(cell.optimizer, cell.size) for cell in map(cell_of, planned) if cell.role == UNTIL}
    assert {optimizer for optimizer, _ in cells} == {"adam", "sgd", "adafactor"}
    assert len({size for _, size in cells}) == 3
    for role in (UNTIL, ONE_PASS, LAW, T13):
        assert {case.planned.run.seed for case in planned if case.role == role} == {0, 1}
    assert {case.planned.run.architecture.width for case in exposures.cases(Settings(preset="full"))} == {1, 16, 32, 64}


def test_loads_are_the_same_for_every_width(planned):
    for case in exposures.cases(Settings(preset="full")):
        if case.role == UNTIL:
            assert min(abs(cell_of(case).bits_per_parameter - load) for load in exposures.LOADS) < 0.01


def test_about_a_hundred_everywhere_agrees_and_elsewhere_depends_on(planned, tmp_path):
    until = [case for case in planned if case.role == UNTIL and case.planned.run.recipe.minibatch == 32]
    with Store(tmp_path / "all.sqlite") as store:
        lines = passes_lines(evidence_of(until, store, lambda run: 100 + run.seed))
    assert {line.verdict for line in lines} == {"agrees"}
    assert len(lines) == 10

    with Store(tmp_path / "some.sqlite") as store:
        lines = passes_lines(evidence_of(until, store, lambda run: 100 if run.size > 600 else 9 + run.seed))
    assert [line.verdict for line in lines].count("disagrees") == 6
    assert [line.verdict for line in lines].count("depends on") == 1
    few = lines[0].measured
    assert few.mean == pytest.approx(math.sqrt(90))
    assert few.low < 9 < 10 < few.high


def test_passes_on_both_sides_of_the_range_are_left_to_chance(planned, tmp_path):
    until = [case for case in planned if case.role == UNTIL and case.planned.run.recipe.minibatch == 32]
    with Store(tmp_path / "runs.sqlite") as store:
        lines = passes_lines(evidence_of(until, store, lambda run: 150 + 100 * run.seed))
    assert all(150 < line.measured.mean < 200 for line in lines)  # the means are within
    assert {(line.verdict, line.on[:6]) for line in lines} == {("depends on", "chance")}


def test_a_load_is_that_of_the_answers_there_are(planned, tmp_path):
    until = [case for case in planned if case.role == UNTIL]
    with Store(tmp_path / "runs.sqlite") as store:
        lines = passes_lines(evidence_of(until, store, lambda run: 100, bits_of_a_fact=1.0))
    assert {line.at.split(", ")[3] for line in lines if line.at} == {f"{load / 5:.1f} bits/parameter" for load in LOADS}


def test_a_minibatch_with_which_a_seed_is_never_stored_is_told_of(planned, tmp_path):
    until = [case for case in planned if case.role == UNTIL and case.planned.run.recipe.optimizer == "adam"]

    def stored(run) -> float:
        return 0.9 if run.recipe.minibatch == 8 and run.seed else 1.0

    with Store(tmp_path / "runs.sqlite") as store:
        lines = findings(evidence_of(until, store, lambda run: 100 + run.seed, stored))
    told = {line.at.split()[-1]: line.on for line in lines if "not steps" in line.claim}
    assert "1 of 2 seeds left out, not stored in 1000 passes" in told["8"]
    assert "left out" not in told["128"]


def test_what_is_never_stored_is_said_to_be_beyond_the_budget(planned, tmp_path):
    until = [case for case in planned if case.role == UNTIL and case.planned.run.recipe.optimizer == "sgd"]
    with Store(tmp_path / "runs.sqlite") as store:
        evidence = evidence_of(until, store, lambda run: 1000, stored=lambda run: 1.0 if run.seed else 0.9)
        line = passes_lines(evidence)[0]
    assert math.isinf(line.measured.mean)
    assert line.verdict == "disagrees"
    assert "1 of 2 seeds within 1000 passes" in line.on


def test_an_optimum_on_the_edge_is_warned_of(planned, tmp_path):
    until = [case for case in planned if case.role == UNTIL and case.planned.run.recipe.optimizer == "sgd"]
    with Store(tmp_path / "runs.sqlite") as store:
        warned = notes(evidence_of(until, store, lambda run: run.recipe.learning_rate))
    assert sum("best learning rate 0.25 on the edge" in note for note in warned) == 3


def test_one_pass_that_stores_everything_disagrees(planned, tmp_path):
    once = [case for case in planned if case.role == ONE_PASS]
    with Store(tmp_path / "runs.sqlite") as store:
        evidence = evidence_of(once, store, lambda run: 1, stored=lambda run: float(run.recipe.optimizer == "sgd"))
        lines = findings(evidence)
    assert {line.verdict for line in lines if "sgd" in line.at} == {"disagrees"}
    assert {line.verdict for line in lines if "adam" in line.at} == {"agrees"}


def test_a_curve_of_theory_is_averaged_as_a_stored_curve_is():
    every = loss_after(np.arange(6.0), answers=32, learning_rate=0.5)
    found = flow_curve(np.array([1.0, 2.0, 6.0]), 32, 0.5)
    np.testing.assert_allclose(found, [every[0], every[1], every[2:6].mean()], rtol=1e-14)


def test_a_linear_network_with_wide_keys_follows_t13_and_a_narrow_one_does_not(planned, tmp_path):
    """What interferes in narrow keys is what T13 leaves out: the negative control."""
    wide = next(case for case in planned if case.role == T13)
    with Store(tmp_path / "runs.sqlite") as store:
        list(run_cases([wide], store, lambda seconds: None))
        evidence = Evidence([wide], store)
        (ratio,) = (line.measured.mean for line in findings(evidence) if line.unit == "ratio")
        assert ratio == pytest.approx(1.0, abs=0.1)
        curve = evidence.arrays(wide)
    run = wide.planned.run
    slower = replace(run, recipe=replace(run.recipe, learning_rate=run.recipe.learning_rate / 2))
    rate = slower.recipe.learning_rate * run.architecture.inputs / run.size
    late = flow_curve(curve["curve_exposures"], 32, rate)[-1]
    assert curve["curve_loss_nats"][-1] < 0.7 * late  # half the rate is another curve

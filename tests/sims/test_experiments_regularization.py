"""Forgetting: verdicts from planted runs whose forgetting is known, the choice of rates, the paired interval."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sims.experiments import randomization, regularization
from sims.experiments.experiment import Settings
from sims.experiments.regularization_findings import (
    FASTEST,
    KIND,
    SPARING,
    UNGATED,
    accuracies,
    findings,
    measurements,
    notes,
)
from sims.intervals import paired_difference
from sims.store import Result
from tests.sims.planted import Planted

ASKED = 400


def case(
    method: str,
    rate: float | None,
    seed: int,
    *,
    lost: int = 0,
    odd_lost: int | None = None,
    epochs: int | None = 10,
    stored: float = 1.0,
    rank: int | None = None,
    status: str = "finished",
    **changed: float,
) -> Planted:
    """A run that knew every example of the rule but 40 before, and afterwards `lost` even and odd ones fewer."""
    spec = {"method": method, "rank": rank, "optimizer": "adam", "width": 64, "answers": "random"}
    spec |= {"learning_rate": rate, "seed": seed}
    before = np.ones(ASKED, bool)
    before[-40:] = False
    after = before.copy()
    after[0 : 2 * lost : 2] = False
    after[1 : 2 * (lost if odd_lost is None else odd_lost) + 1 : 2] = False
    metrics = {
        "epochs_until_stored": epochs,
        "stored": stored,
        "capacity_limited": False,
        "parameters": 123_456,
        "final_loss_nats_per_token": 0.1,
        "rule_before": float(before.mean()),
        "rule_after": float(after.mean()),
        **changed,
    }
    arrays = {"rule_before": before, "rule_after": after}
    if status != "finished":
        metrics, arrays = {}, {}
    return Planted(Result(KIND, spec, status, metrics, arrays))


def harmful_fast_and_harmless_slow():
    """All weights: the fast rate loses 20 and 22 even and odd examples of 400, the slow one none; experts lose none."""
    for seed in (0, 1):
        yield case("full", 0.01, seed, lost=20 + 2 * seed, epochs=5)
        yield case("full", 0.001, seed, lost=0, epochs=50)
        yield case("full", 0.1, seed, lost=100, epochs=None, stored=0.5)
        yield case("MoME", None, seed)


def test_forgetting_is_what_was_planted_and_depends_on_rate_and_method(evidence_of):
    evidence = evidence_of(list(harmful_fast_and_harmless_slow()))
    lines = {line.at: line for line in findings(evidence) if line.at}
    fast = lines[f"{FASTEST}, all weights, adam, width 64, rate 0.01"]
    assert fast.verdict == "disagrees"
    lost = np.array([100 * 2 * 20 / ASKED, 100 * 2 * 22 / ASKED])
    low, high = stats.t.interval(0.95, 1, lost.mean(), stats.sem(lost))
    assert fast.measured == pytest.approx((lost.mean(), low, high))
    assert fast.on.startswith("90% before, 100% stored")
    assert lines[f"{SPARING}, all weights, adam, width 64, rate 0.001"].verdict == "agrees"
    assert lines[f"{FASTEST}, MoME, adam, width 64"].measured.mean == 0.0
    overall = {line.claim: line for line in findings(evidence) if not line.at}
    assert [line.verdict for line in overall.values()] == ["depends on", "agrees"]
    assert "most all weights" in next(iter(overall.values())).on


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [
        ((1, 1, 1), "agrees"),
        ((3, 3, 3), "disagrees"),
        ((0, 0, 4), "depends on"),  # 0.67 points, and as likely more than one
        ((0, 4, 4), "depends on"),  # 1.33 points, and as likely less
        ((1,), "depends on"),  # of one seed nothing is known
    ],
)
def test_the_whole_interval_is_within_a_point_or_outside_of_it_or_chance_decides(evidence_of, lost, verdict):
    evidence = evidence_of([case("LoRA", 0.01, seed, lost=one, rank=4) for seed, one in enumerate(lost)])
    fastest = findings(evidence)[0]
    assert fastest.measured.mean == pytest.approx(100 * 2 * np.mean(lost) / ASKED)
    assert fastest.verdict == verdict
    assert fastest.on.startswith("chance: more seeds are needed to say; 90% before") == (verdict == "depends on")


def test_methods_differ_only_where_chance_is_not_in_the_way(evidence_of):
    def overall(*lost: int):
        rate = 0.001 * (1 + sum(lost))  # other runs each time
        cases = [case("full", rate, seed, lost=one) for seed, one in enumerate(lost)]
        cases += [case("MoME", None, seed) for seed in range(3)]
        return next(line for line in findings(evidence_of(cases)) if not line.at)

    assert overall(0, 0, 0).verdict == "agrees"
    assert overall(0, 4, 4).on.startswith("chance: more seeds are needed to say: least MoME")
    assert overall(40, 41, 42).on.startswith("the method: least MoME")


def test_the_sparing_rate_is_chosen_on_one_half_and_judged_on_the_other(evidence_of):
    cases = [case("full", 0.01, seed, lost=0, odd_lost=60, epochs=40) for seed in (0, 1)]
    cases += [case("full", 0.02, seed, lost=1, odd_lost=0, epochs=20) for seed in (0, 1)]
    sparing = findings(evidence_of(cases))[1]
    assert sparing.at.endswith("rate 0.01")  # it lost nothing that the choice could see
    assert sparing.measured.mean == pytest.approx(100 * 60 / (ASKED / 2))
    assert sparing.verdict == "disagrees"


def test_a_rate_that_fails_for_one_seed_is_not_sparing_and_a_diverged_one_is_not_fast(evidence_of):
    cases = [case("full", 0.001, seed, lost=0, epochs=None if seed else 90, stored=1.0 - 0.1 * seed) for seed in (0, 1)]
    cases += [case("full", 0.01, seed, lost=10, epochs=9) for seed in (0, 1)]
    cases += [case("full", 0.1, seed, status="diverged" if seed else "finished", epochs=1) for seed in (0, 1)]
    at = [line.at for line in findings(evidence_of(cases)) if line.at]
    assert [text.rsplit(" ", 1)[1] for text in at] == ["0.01", "0.01"]


def test_where_every_rate_has_a_diverged_seed_the_others_are_no_evidence_that_nothing_was_lost(evidence_of):
    cases = [case("full", 0.01, seed, status="diverged" if seed < 3 else "finished") for seed in range(5)]
    (line,) = findings(evidence_of(cases))
    assert (line.measured.mean, line.verdict) == (0.0, "disagrees")
    assert line.on.startswith("3 of 5 seeds diverged; 90% before")


def test_what_stores_nothing_is_looked_at_where_its_loss_is_least_and_named(evidence_of):
    cases = [
        case("LoRA", rate, seed, rank=1, epochs=None, stored=0.2, final_loss_nats_per_token=loss, capacity_limited=True)
        for rate, loss in ((0.001, 2.0), (0.01, 1.0), (0.1, 3.0))
        for seed in (0, 1)
    ]
    evidence = evidence_of(cases)
    (line,) = findings(evidence)
    assert line.at.endswith("rate 0.01")
    assert line.verdict == "depends on"  # nothing was forgotten, but little was memorized
    assert "20% stored" in line.on
    assert line.on.endswith("capacity-limited")
    told = notes(evidence)
    assert "no rate stores everything for every seed: LoRA of rank 1, adam, width 64" in told
    assert not any("edge" in note for note in told)


def test_not_quite_all_is_less_than_100_percent(evidence_of):
    evidence = evidence_of([case("full", 0.01, seed, stored=816 / 817) for seed in (0, 1)])
    (line,) = findings(evidence)
    assert (line.verdict, "99% stored" in line.on) == ("depends on", True)
    assert measurements(evidence).rows[0][2] == "99%"


def test_edges_and_little_knowledge_are_told(evidence_of):
    cases = [case("full", rate, 0, lost=80, epochs=int(rate * 1000)) for rate in (0.01, 0.02)]
    few = case("LoRA", 0.01, 0, rank=2)
    few.result.arrays["rule_before"][:300] = False
    told = notes(evidence_of([*cases, few]))
    assert f"{FASTEST}, 0.01, is on the edge of its grid: all weights, adam, width 64" in told
    assert any("less than 50%" in note for note in told)
    assert any("123,456 parameters" in note for note in told)
    assert findings(evidence_of([])) == []
    assert notes(evidence_of([])) == []


def test_every_rate_is_listed_and_the_picture_has_a_row_a_choice_and_seed(evidence_of):
    evidence = evidence_of(list(harmful_fast_and_harmless_slow()))
    rows = measurements(evidence).rows
    assert ("all weights, adam, width 64", "0.1", "50%", "90.0%", "40.0%") in rows
    assert len(rows) == 4
    table = accuracies(evidence._store)
    fast = (table["which"] == FASTEST) & (table["method"] == "full")
    assert table["rule_after"][fast].tolist() == [0.8, 0.79]
    assert len(table["seed"]) == 8  # two cells, two choices, two seeds
    assert accuracies(evidence._store, names=[]) == {}


def test_a_memory_is_also_asked_with_its_gate_open(evidence_of):
    open_gate = {"rule_after_open_gate": np.arange(ASKED) >= 60}
    cases = [case("MoME", 0.1, seed) for seed in (0, 1)]
    cases = [Planted(replace(one.result, arrays={**one.result.arrays, **open_gate})) for one in cases]
    lines = {line.at.partition(",")[0]: line for line in findings(evidence_of(cases)) if "gate open" not in line.at}
    assert {line.measured.mean for line in lines.values()} == {0.0}
    assert all("by construction" in line.on for line in lines.values())
    (ungated,) = [line for line in findings(evidence_of(cases)) if line.at.startswith(UNGATED)]
    assert ungated.measured.mean == pytest.approx(100 * (60 - 40) / ASKED)
    assert (ungated.verdict, "by construction" in ungated.on) == ("disagrees", False)


def test_runs_of_a_checkpoint_which_knows_no_rule_have_no_part_in_it(evidence_of):
    known, unknown = case("full", 0.01, 0, lost=2), case("full", 0.02, 0, epochs=1)
    taught_none = {**unknown.result.metrics, "rule_before": None, "rule_after": None}
    unknown = Planted(Result(KIND, unknown.result.spec, "finished", taught_none))
    (fastest, _) = findings(evidence_of([known, unknown]))
    assert fastest.at.endswith("rate 0.01")
    assert len(accuracies(evidence_of([known, unknown])._store)["seed"]) == 2


def test_the_cases_are_those_of_randomization_with_random_answers_and_some_at_more_rates():
    settings = Settings(preset="full")
    every = {one.fingerprint: one for one in randomization.cases(settings)}
    cases = regularization.cases(settings)
    assert {one.answers for one in cases} == {"random"}
    shared = {one.fingerprint for one in cases} & set(every)
    assert shared == {name for name, one in every.items() if one.answers == "random"}
    more = [one for one in cases if one.fingerprint not in every]
    assert len({one.fingerprint for one in cases}) == len(cases) == len(shared) + len(more)
    for one in more:
        alike = [other.spec for other in every.values() if (other.method, other.answers) == (one.method, "random")]
        rates = [spec["learning_rate"] for spec in alike if spec["optimizer"] == one.spec["optimizer"]]
        assert one.spec["learning_rate"] < sorted(set(rates))[1]  # near what stores everything most sparingly
    assert {one.method.name for one in more} == {"full", "LoRA"}


def test_true_answers_have_no_part_in_it(evidence_of):
    true = case("full", 0.01, 0)
    true = Planted(Result(KIND, {**true.result.spec, "answers": "true"}, "finished", true.result.metrics))
    store = evidence_of([true, case("full", 0.01, 0)])._store
    assert accuracies(store, names=[true.fingerprint]) == {}
    assert len(accuracies(store)["seed"]) == 2  # at either choice of the rate


def test_runs_of_randomization_do_not_draw_over_the_picture(evidence_of):
    """They are among those of regularization, without the sparing rates."""
    shared, sparing = case("full", 0.01, 0, lost=20), case("full", 0.001, 0, epochs=50)
    true = Planted(Result(KIND, {**shared.result.spec, "answers": "true"}, "finished", shared.result.metrics))
    store = evidence_of([shared, sparing, true])._store
    assert accuracies(store, names=[shared.fingerprint, true.fingerprint]) == {}
    table = accuracies(store, names=[shared.fingerprint, sparing.fingerprint])
    assert set(table["learning_rate"].tolist()) == {0.01, 0.001}


def test_the_paired_interval_covers_what_it_should_even_where_nothing_changed():
    generator = np.random.default_rng(0)
    for lost, won in ((0.0, 0.0), (0.01, 0.005), (0.2, 0.02)):
        covered = 0
        for _ in range(1000):
            fate = generator.random(200)
            before, after = np.ones(200, bool), np.ones(200, bool)
            after[fate < lost] = False
            before[fate > 1.0 - won] = False
            found = paired_difference(before, after)
            covered += found.low <= lost - won <= found.high
            assert found.low < found.high
        assert covered >= 930  # of 1000 at 95 %, less three standard errors
    one_lost = paired_difference(np.ones(100, bool), np.arange(100) > 0)
    assert one_lost.mean == pytest.approx(0.01)
    assert math.isclose(one_lost.high - one_lost.low, 2 * 1.959964 * math.sqrt(2 - 1 / 102) / 102, rel_tol=1e-6)

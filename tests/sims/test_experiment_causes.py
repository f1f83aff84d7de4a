"""What else makes a network hallucinate: flaws put in, shares that add up, bounds under a temperature, verdicts."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.experiments_causes import causes as picture
from sims.experiments import causes
from sims.experiments.attribution import shapley, tempered_error_rates
from sims.experiments.causes_findings import (
    CAUSES,
    DOSE,
    FLAWS,
    KIND,
    ROOM,
    SAMPLED,
    TEMPERATURES,
    THRESHOLD,
    Situation,
    added,
    column,
    findings,
    notes,
    situations,
)
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.flaws import Flaws, first, flawed, luck
from sims.facts import synthetic_facts
from sims.store import Result, Store, table
from theory.console import Refusal


@pytest.fixture(scope="module")
def facts():
    return synthetic_facts(200, seed=3, unseen=0)


@pytest.fixture(scope="module")
def planned():
    return [case for case in causes.cases(Settings()) if case.seed == 0]


def test_no_flaw_changes_nothing_and_each_flaw_has_its_share(facts):
    same = flawed(facts, Flaws(), 0)
    np.testing.assert_array_equal(same.labels, facts.labels)
    np.testing.assert_array_equal(same.features, facts.features)

    wrong = flawed(facts, Flaws(wrong=0.25), 0)
    assert (wrong.labels != facts.labels).sum() == 50
    missing = flawed(facts, Flaws(missing=0.25), 0)
    assert len(missing) == 150 == len(np.unique(missing.questions))
    np.testing.assert_array_equal(missing.labels, facts.labels[missing.questions])


def test_conflicting_answers_force_the_floor_of_f5(facts):
    two = flawed(facts, Flaws(conflicting=0.5), 0)
    assert len(two) == 300
    np.testing.assert_array_equal(two.labels[:200], facts.labels)
    assert np.all(two.labels[200:] != facts.labels[two.questions[200:]])
    assert two.entropy_floor_nats() == pytest.approx(200 * math.log(2) / 300)


def test_a_larger_share_holds_a_smaller_one_and_flaws_overlap_by_chance(facts):
    few, many = (set(flawed(facts, Flaws(missing=share), 0).questions) for share in (0.1, 0.4))
    assert many < few
    both = flawed(facts, Flaws(missing=0.5, wrong=0.5), 0)
    assert 30 <= (both.labels != facts.labels[both.questions]).sum() <= 70  # 50 expected of independent flaws


def test_copies_are_wrong_one_by_one(facts):
    copies = flawed(facts, Flaws(wrong=0.25, copies=4), 0)
    wrong = (copies.labels != facts.labels[copies.questions]).reshape(4, 200)
    assert wrong.sum(axis=1).tolist() == [50] * 4
    assert len(np.unique(wrong.sum(axis=0))) > 2


def test_what_is_left_out_is_guessed_as_often_as_answers_coincide(facts):
    assert luck(facts) == 1 / 32
    assert luck(flawed(first(facts, 64), Flaws(), 0)) > 1 / 32  # frequencies of a sample


@pytest.mark.parametrize("flaws", [{"missing": 1.5}, {"wrong": -0.1}, {"copies": 0}])
def test_flaws_that_cannot_be_are_refused(flaws):
    with pytest.raises(ValueError, match="got"):
        Flaws(**flaws)


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_shares_add_up_and_a_cause_that_does_nothing_has_none(values):
    def value(there: frozenset[str]) -> float:
        return values["a" in there] + values[2 + ("b" in there)] * values[4 + ("a" in there)]

    shares = shapley(["a", "b", "idle"], value)
    whole = value(frozenset({"a", "b"})) - value(frozenset())
    assert sum(shares.values()) == pytest.approx(whole, abs=1e-12)
    assert shares["idle"] == 0.0


@settings(max_examples=100)
@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=6),
    st.sampled_from([0.3, 0.5, 1.0, 1.7, 3.0]),
)
def test_every_distribution_lies_within_the_bounds_of_its_loss(logits, temperature):
    scores = np.array(logits)
    loss = np.log(np.exp(scores - scores[0]).sum())
    tempered = np.exp((scores - scores[0]) / temperature)
    error = 1 - 1 / tempered.sum()
    low, high = tempered_error_rates(loss, temperature, len(logits))
    assert low * (1 - 1e-9) - 1e-12 <= error <= high * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_bounds_are_reached(temperature):
    even, one = np.array([2.0, 0.0, 0.0, 0.0]), np.array([2.0, math.log(3), -np.inf, -np.inf])
    errors = [1 - 1 / np.exp((scores - scores[0]) / temperature).sum() for scores in (even, one)]
    ends = tempered_error_rates(math.log(1 + 3 * math.exp(-2)), temperature, 4)
    np.testing.assert_allclose(sorted(errors), ends, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_no_loss_no_error_and_a_loss_without_end_is_an_error_at_every_temperature(temperature):
    assert [end.tolist() for end in tempered_error_rates(np.array([0.0, 1e5]), temperature, 8)] == [[0.0, 1.0]] * 2


def test_the_ends_trade_places_at_temperature_one():
    """The negative control: with the ends of T < 1 at T > 1, an even distribution would lie outside."""
    together, apart = tempered_error_rates(0.5, 2.0, 8)
    even = 1 - 1 / (1 + 7 * (math.expm1(0.5) / 7) ** 0.5)
    assert even == pytest.approx(float(apart))
    assert even > together + 0.1
    with pytest.raises(ValueError, match="positive"):
        tempered_error_rates(0.5, 0.0, 8)


def test_a_preset_has_every_combination_in_every_situation(planned):
    for situation in {case.situation for case in planned}:
        found = {case.flaws for case in planned if case.situation == situation}
        assert {Flaws(c, m, w) for c, m, w in product((0.0, DOSE), repeat=3)} <= found
    assert len({case.fingerprint for case in planned}) == len(planned)
    assert {case.seed for case in causes.cases(Settings())} == {0, 1}
    assert len(causes.cases(Settings(preset="full"))) > 2 * len(planned)


def test_a_small_network_stores_what_it_is_told_and_repeats_what_is_wrong(facts):
    case = causes.FlawedRun(Situation(64, 40), Flaws(wrong=0.25), 0, "f", "f", lambda seed: facts, rates=(0.03, 0.09))
    metrics: dict[str, Any] = dict(case.run().metrics)
    assert metrics["training_stored_rate"] == 1.0
    assert metrics["hallucination_greedy"] == 0.25
    assert metrics["hallucination_at_1"] == pytest.approx(0.25, abs=0.02)
    for t in TEMPERATURES:
        assert (
            metrics[f"least_at_{t:g}"] - 1e-6 <= metrics[f"hallucination_at_{t:g}"] <= metrics[f"most_at_{t:g}"] + 1e-6
        )


def doctored(case) -> dict:
    """An additive world: each flaw costs its expected share, the threshold its own."""
    flaws = case.flaws
    wrong = 0.5 * flaws.conflicting + flaws.missing * 31 / 32 + flaws.wrong
    past = {1024: 0.2, 2048: 0.6}.get(case.situation.questions, 0.5 if case.situation.passes == 5 else 0.0)
    if flaws.copies > 1:
        wrong = 0.01
    metrics = {"learning_rate": 0.03, "at_edge": case.situation == ROOM, "training_loss_nats": past + 0.9 * (wrong > 0)}
    metrics |= {"training_stored_rate": float(past == 0.0), "floor_nats": 0.89, "luck": 1 / 32}
    metrics |= {"hallucination_greedy": past + wrong}
    for temperature in TEMPERATURES:
        metrics |= {f"hallucination_at_{temperature:g}": past + wrong + 0.01 + 0.3 * (flaws.copies > 1)}
        metrics |= {f"least_at_{temperature:g}": 0.0, f"most_at_{temperature:g}": 0.001}
    return metrics


@pytest.fixture
def evidence(tmp_path):
    cases = causes.cases(Settings())
    with Store(tmp_path / "runs.sqlite") as store:
        for case in cases:
            store.put(Result(KIND, case.spec, "finished", doctored(case)))
        yield Evidence(cases, store)


def test_one_seed_cannot_tell_a_share_from_chance(evidence):
    one = Evidence([case for case, _ in evidence.all if case.seed == 0], evidence._store)
    lines = [line for line in findings(one) if "alone" in line.claim or "loss threshold's" in line.claim]
    assert {line.verdict for line in lines} == {"depends on"}
    assert all("chance" in line.on for line in lines[:-1])


def test_in_an_additive_world_every_cause_has_its_own(evidence):
    rows = table(result for _, result in evidence.finished)
    assert situations(rows)[0] == ROOM
    parts = added(rows, Situation(2048, 100))
    own = {"conflicting": 0.05, "missing": 0.096875, "wrong": 0.1, SAMPLED: 0.01, THRESHOLD: 0.6}
    assert {cause: pytest.approx(part[0]) for cause, part in parts.items()} == own
    assert set(added(rows, ROOM)) == set(CAUSES) - {THRESHOLD}
    fewer = {name: values[1:] for name, values in rows.items()}  # a run is missing, and its seed is left out
    assert {len(parts) for parts in added(rows, situations(rows)[0]).values()} == {2}
    assert any({len(parts) for parts in added(fewer, one).values()} == {1} for one in situations(rows))
    alone = {name: values[1:][rows["seed"][1:] == rows["seed"][0]] for name, values in rows.items()}
    assert any(added(alone, one) == {} for one in situations(rows))


def test_verdicts_follow_the_numbers(evidence):
    lines = findings(evidence)
    assert {line.verdict for line in lines if "alone" in line.claim} == {"agrees"}
    below = [line for line in lines if "under ln 2" in line.claim]
    assert [line.verdict for line in below] == ["agrees", "disagrees"]
    (above,) = (line for line in lines if "above ln 2" in line.claim)
    assert above.verdict == "depends on"
    assert "0.32" in above.on
    assert {line.verdict for line in lines if line.at.startswith("T = ")} == {"disagrees"}  # above what is possible
    most = {line.at: line.verdict for line in lines if "loss threshold's" in line.claim}
    assert [most[f"{one} passes"] for one in ("1024 facts, 100", "256 facts, 5", "2048 facts, 100")] == [
        "disagrees",
        "agrees",
        "agrees",
    ]
    assert lines[-1].verdict == "depends on"
    assert any("on the edge" in note for note in notes(evidence))


def test_a_part_below_nothing_is_shown_as_it_is(tmp_path):
    """Few passes that hallucinate less than many: their part of the whole is negative, and so is its interval."""
    both = [case for case in causes.cases(Settings()) if case.situation.questions == ROOM.questions]
    with Store(tmp_path / "runs.sqlite") as store:
        for case in both:
            less = 0.52 + 0.001 * case.seed if case.situation != ROOM else 0.0  # the doctored world adds .5
            metrics = doctored(case)
            shares = {name: share - less for name, share in metrics.items() if name.startswith("hallucination")}
            store.put(Result(KIND, case.spec, "finished", metrics | shares))
        lines = findings(Evidence(both, store))
    (few,) = (line for line in lines if "loss threshold's" in line.claim and line.at == "256 facts, 5 passes")
    assert few.measured.low < few.measured.mean < few.measured.high < 0


def test_a_loss_that_never_rose_above_ln_2_tests_nothing(planned, tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        for case in planned:
            low = {"training_loss_nats": 0.1, "hallucination_greedy": 0.0, "hallucination_at_1": 0.0}
            store.put(Result(KIND, case.spec, "finished", doctored(case) | (low if case.flaws.copies > 1 else {})))
        (line,) = (line for line in findings(Evidence(planned, store)) if "above ln 2" in line.claim)
    assert line.verdict == "depends on"
    assert "0.10 nats, not above ln 2" in line.on


def test_the_stack_is_drawn_to_its_sum(evidence):
    rows = table(result for _, result in evidence.finished)
    figure = picture({"causes": rows})
    tops = {round(bar.get_bbox().y1, 6) for bars in figure.axes[0].containers for bar in bars}
    whole = column(rows, "hallucination_at_1", dict.fromkeys(FLAWS, DOSE), Situation(2048, 100))[0]
    assert max(tops) == pytest.approx(whole)


def test_all_of_a_small_file_is_taken_and_one_too_small_is_refused(tmp_path):
    path = tmp_path / "facts.csv"
    for count in (300, 40):
        lines = (f"q{number},a{number}" for number in range(count))
        path.write_text("\n".join(["question,answer", *lines]), encoding="utf-8")
        if count == 300:
            found = {case.situation for case in causes.cases(Settings(facts_file=path))}
            assert found == {ROOM, Situation(256, 5), Situation(300, 100)}
        else:
            with pytest.raises(Refusal, match="40 facts, fewer than the 256"):
                causes.cases(Settings(facts_file=path))

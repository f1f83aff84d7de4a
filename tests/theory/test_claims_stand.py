"""Every registered claim against search, Hypothesis, its witnesses and its control; and mutants that must be caught."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from theory import capacity, claims, conflicts, decoding, memorizers
from theory.search import Draw, replayed, search

NAMES = tuple(claims.all_claims())


@pytest.mark.parametrize("name", NAMES)
def test_claim_holds_is_sharp_and_its_control_falls(name):
    check = claims.check(claims.get(name), examples=300, seed=1)
    assert check.passed, check


@pytest.mark.parametrize("name", NAMES)
def test_hypothesis_does_not_break_the_claim_either(name):
    claim = claims.get(name)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
    @given(st.data())
    def attack(data):
        case = claim.cases(Draw(lambda: data.draw(st.floats(0.0, 1.0))))
        assert claim.slack(case) >= -claim.tolerance, case

    attack()


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_complete(name):
    claim = claims.get(name)
    assert claim.name == name
    assert claim.kind in {"bound", "identity", "law", "record"}
    assert claim.status in {"proved", "quoted", "conjecture", "measured"}
    assert claim.statement.endswith(".")
    assert claim.title
    assert claim.source
    assert claim.proof
    assert claim.dropped
    assert claim.assumptions


def test_verdicts_repeat_with_the_seed():
    first, second = (claims.check(claims.get("T2"), examples=200, seed=3) for _ in range(2))
    assert first == second


def test_counterexample_of_a_control_replays_and_is_small():
    claim = claims.get("T2")
    found = claims.check(claim, examples=300, seed=0).control_counterexample
    assert found is not None
    assert found.tape is not None
    again = claims.replay(claim, found.tape, control=True)
    assert again == found
    assert len(found.case.logits) <= 2  # shrunk: a right and a wrong fact show it


# What each mutant breaks must be noticed by the claim that states it. Each wraps the true function's result.
MUTANTS = {
    "T1 right up to ln V": ("T1", decoding, "fact_verdict", lambda v, loss, answers: "right" if v == "either" else v),
    "T1 wrong from ln 2": ("T1", decoding, "fact_verdict", lambda v, loss, answers: "wrong" if v == "either" else v),
    "T1 never decides": ("T1", decoding, "fact_verdict", lambda v, loss, answers: "either"),
    "T2 most one too many": ("T2", decoding, "greedy_error_counts", lambda v, *a, **k: (v[0], v[1] + 1)),
    "T2 fewest one too few": ("T2", decoding, "greedy_error_counts", lambda v, *a, **k: (v[0] - 1, v[1])),
    "T2 most one too few": ("T2", decoding, "greedy_error_counts", lambda v, *a, **k: (v[0], v[1] - 1)),
    "T2 fewest one too many": ("T2", decoding, "greedy_error_counts", lambda v, *a, **k: (v[0] + 1, v[1])),
    "T2 ends exchanged": ("T2", decoding, "greedy_error_counts", lambda v, *a, **k: v[::-1]),
    "T3 low too high": ("T3", decoding, "sampled_error_rates", lambda v, *a, **k: (v[0] * 1.0001, v[1])),
    "T3 high too low": ("T3", decoding, "sampled_error_rates", lambda v, *a, **k: (v[0], v[1] * 0.9999)),
    "T4 one too few": ("T4", decoding, "wrong_fact_count_upper", lambda v, *a, **k: v - 1),
    "T4 probability per mean": ("T4", decoding, "exact_decoding_probability", lambda v, *a, **k: v**0.999),
    "T6 right rows too good": ("T6", memorizers, "right_row", lambda v, *a: v * 1.001),
    "T6 wrong rows right": ("T6", memorizers, "wrong_row", lambda v, *a: -v),
    "F5 floor too high": ("F5", conflicts, "loss_floor_nats", lambda v, *a: v * 1.001),
    "F5 one error too many": ("F5", conflicts, "error_count_floor", lambda v, *a: v + 1),
    "T7 floor too high": ("T7", capacity, "loss_lower_nats", lambda v, *a: v * 1.001),
    "T3 low too low": ("T3", decoding, "sampled_error_rates", lambda v, *a, **k: (v[0] * 0.9999, v[1])),
    "T4 one too many": ("T4", decoding, "wrong_fact_count_upper", lambda v, *a, **k: v + 1),
    "F5 floor too low": ("F5", conflicts, "loss_floor_nats", lambda v, *a: v * 0.999),
    "T7 floor too low": ("T7", capacity, "loss_lower_nats", lambda v, *a: v * 0.999),
    "T11 orders overcounted": ("T11", capacity, "permuted_label_entropy_bits", lambda v, *a: v * 0.99),
    "F5 one error too few": ("F5", conflicts, "error_count_floor", lambda v, *a: v - 1),
    "T3 high too high": ("T3", decoding, "sampled_error_rates", lambda v, *a, **k: (v[0], v[1] * 1.0001)),
    "T8 too probable": ("T8", capacity, "few_errors_log2_probability", lambda v, *a: v + 0.01),
    "T8 too improbable": ("T8", capacity, "few_errors_log2_probability", lambda v, *a: v - 0.01),
    "F1 floor a tenth too high": ("F1", capacity, "error_lower", lambda v, *a: v * 1.1),
    "T11 permutations too rare": ("T11", capacity, "few_errors_log2_probability_permuted", lambda v, *a: v - 0.01),
    "T11 orders miscounted": ("T11", capacity, "permuted_label_entropy_bits", lambda v, *a: v + 0.01),
    "T12 law too low": ("T12", capacity, "published_bits_per_parameter", lambda v, *a: v * 0.999),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_caught(mutant, monkeypatch):
    name, module, function, change = MUTANTS[mutant]
    true = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: change(true(*a, **k), *a, **k))
    check = claims.check(claims.get(name), examples=300, seed=0)
    assert not check.passed


@pytest.mark.parametrize("name", NAMES)
def test_flipped_inequality_is_caught(name, monkeypatch):
    claim = claims.get(name)
    true = type(claim).slack
    monkeypatch.setattr(type(claim), "slack", lambda self, case: -true(self, case) - 1e-9)
    assert not claims.check(claim, examples=50, seed=0).holds


def test_untouched_control_fails_the_check(monkeypatch):
    claim = claims.get("T3")
    monkeypatch.setattr(type(claim), "control_slack", lambda self, case: 1.0)
    check = claims.check(claim, examples=20, seed=0)
    assert check.verdict == "untested"
    assert not check.passed


def test_two_claims_of_one_name_are_refused():
    class Other(claims.Bound):
        """Something else."""

        name = "T1"

    with pytest.raises(ValueError, match="two claims are called T1"):
        claims.register(Other)
    with pytest.raises(KeyError, match="known are T1"):
        claims.get("T99")


class DoublesAreSquares(claims.Identity[float]):
    """Twice a number is its square (false but at 0 and 2)."""

    name, title, status, source = "X1", "doubles", "conjecture", "a test"
    assumptions, proof, dropped = ("none",), "none", "nothing"

    def cases(self, draw):
        return draw.real(0.0, 4.0)

    def left(self, case):
        return 2 * case

    def right(self, case):
        return case * case

    def perturbed(self, case):
        return 2 * case + 1

    def error_bound(self, case):
        return 1e-9


class CoinsAreFair(claims.Law[tuple[float, int]]):
    """The share of heads is one half."""

    name, title, status, source = "X2", "coins", "measured", "a test"
    assumptions, proof, dropped = ("fair coins",), "none", "the coin is bent"

    def cases(self, draw):
        return 0.5, draw.integer(0, 10**6)

    def control_cases(self, draw):
        return 0.6, draw.integer(0, 10**6)

    def predict(self, case):
        return 0.5

    def measure(self, case):
        share = np.random.default_rng(case[1]).binomial(10_000, case[0]) / 10_000
        return share - 0.03, share + 0.03


def test_identities_and_laws_are_checked_as_bounds_are():
    false = claims.check(DoublesAreSquares(), examples=50, seed=0)
    assert false.verdict == "violated"
    assert false.counterexample is not None
    assert claims.check(CoinsAreFair(), examples=50, seed=0).passed


def test_record_that_disagrees_must_be_said_to():
    agreeing = claims.Published("a", printed=2.0, recomputed=1.0, relative_tolerance=0.01)
    disagreeing = claims.Published("a", printed=2.0, recomputed=1.0, relative_tolerance=0.01, agrees=False)
    assert agreeing.slack(agreeing.ratio) < 0 < disagreeing.slack(disagreeing.ratio)


def test_search_finds_and_shrinks_a_rare_case():
    def build(draw):
        return [draw.integer(0, 99) for _ in range(draw.integer(0, 8))]

    found = search(build, lambda numbers: 50.0 - max(numbers, default=0), examples=500, seed=0)
    assert found.counterexample is not None
    assert len(found.counterexample.case) == 1
    assert build(replayed(found.counterexample.tape or ())) == found.counterexample.case


def test_search_climbs_where_chance_does_not_reach():
    def build(draw):
        return [draw.real(0.1, 0.9) for _ in range(8)]

    found = search(build, lambda numbers: math.fsum(abs(x - 0.37) for x in numbers) - 0.5, examples=3000, seed=0)
    assert found.counterexample is not None


def test_a_slack_that_is_not_a_number_is_a_counterexample():
    found = search(lambda draw: draw.real(0.0, 1.0), lambda case: math.nan, examples=3, seed=0)
    assert found.counterexample is not None

"""What breaks a statement on unseen questions, membership, experts, agreement, cost or the floor must be noticed."""

import math

import pytest

from theory import agreement, claims, cost, experts, floor, membership, unseen

# Each wraps the true function's result. Of a sharp bound both sides are tried.
MUTANTS = {
    "T17 too high": ("T17", unseen, "error_lower_from_classification", lambda v, *a: v + 0.05 * abs(v)),
    "T17 too low": ("T17", unseen, "error_lower_from_classification", lambda v, *a: v - 0.05 * abs(v)),
    "T17 unsigned": (
        "T17",
        unseen,
        "error_lower_from_classification",
        lambda v, error, valid, invalid, gap: v + 2.0 * max(0.0, gap),
    ),
    "T17c another factor": ("T17c", unseen, "error_from_classification", lambda v, *a: 1.05 * v),
    "T17d singletons twice": ("T17d", unseen, "error_lower_from_singletons", lambda v, share, *a: v + 3.0 * share),
    "T17e penalty of the paper": ("T17e", unseen, "wrong_answer_penalty", lambda v, t: 2.0 if t == 0.75 else v),
    "T17e penalty off": ("T17e", unseen, "wrong_answer_penalty", lambda v, t: 1.05 * v),
    "T18 excess too small": ("T18", unseen, "good_turing_excess_upper", lambda v, n: 0.95 * v),
    "T18 excess too large": ("T18", unseen, "good_turing_excess_upper", lambda v, n: 1.05 * v),
    "T18b error off": ("T18b", unseen, "memorizer_error", lambda v, *a: 1.05 * v),
    "T19 too high": ("T19", unseen, "error_lower_from_partition", lambda v, *a: v + 0.05 * abs(v)),
    "T19 the constant of the paper": (
        "T19",
        unseen,
        "error_lower_from_partition",
        lambda v, mass, facts, variation: mass / (facts + 1) - variation,
    ),
    "T19b too likely": ("T19b", unseen, "invention_probability_lower", lambda v, *a: min(1.0, 1.05 * v)),
    "T19b too unlikely": ("T19b", unseen, "invention_probability_lower", lambda v, *a: 0.95 * v),
    "T20 divergence in place of information": (
        "T20",
        membership,
        "score_bits_lower",
        lambda v, k, q, **n: v if math.isinf(d := membership.divergence_bits(k, q, 0.0)) else d,
    ),
    "T20 too many bits": ("T20", membership, "score_bits_lower", lambda v, *a, **k: 1.2 * v),
    "T20b too many bits": ("T20b", membership, "log_loss_bits_limit", lambda v, *a: 1.05 * v),
    "T20b too few bits": ("T20b", membership, "log_loss_bits_limit", lambda v, *a: 0.95 * v),
    "F3 too probable": ("F3", membership, "answered_log2_probability", lambda v, *a: v + 0.05),
    "F3 too improbable": ("F3", membership, "answered_log2_probability", lambda v, *a: v - 0.05),
    "F6 too high": ("F6", floor, "hallucination_lower", lambda v, *a: 1.05 * v),
    "F6 too low": ("F6", floor, "hallucination_lower", lambda v, *a: 0.95 * v),
    "F6b too much": ("F6b", floor, "coverage_upper", lambda v, *a: 1.05 * v),
    "F6b too little": ("F6b", floor, "coverage_upper", lambda v, *a: 0.95 * v),
    "F7 samples": ("F7", floor, "bits_enough", lambda v, n, *a: v * n**0.1),
    "T21 threshold off": ("T21", experts, "load_threshold", lambda v, k: 0.95 * v if k > 3 else v),
    "T22 exact off": ("T22", experts, "private_expert_probability", lambda v, *a: 1.05 * v),
    "T22b too small": ("T22b", experts, "maximum_load_probability_upper", lambda v, *a: 0.95 * v),
    "T22b too large": ("T22b", experts, "maximum_load_probability_upper", lambda v, *a: 1.05 * v),
    "T22c off": ("T22c", experts, "private_expert_approximation", lambda v, *a: v + 0.2),
    "T23 selection": ("T23", experts, "selection_multiplications", lambda v, *a: v + 1),
    "T23 reading": ("T23", experts, "reading_multiplications", lambda v, *a: v + 1),
    "T24 too fast": ("T24", experts, "residual_upper", lambda v, *a: 0.95 * v),
    "T24 too slow": ("T24", experts, "residual_upper", lambda v, *a: 1.05 * v),
    "T25 off": ("T25", agreement, "agreement", lambda v, *a: v + 1e-10),
    "T25b off": ("T25b", agreement, "agreement", lambda v, *a: 1.05 * v),
    "T26 operations of the paper": ("T26", cost, "training_flop", lambda v, *a, **k: v / 560),
    "T26 price off": ("T26", cost, "energy_price", lambda v, *a: 1.05 * v),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_caught(mutant, monkeypatch):
    name, module, function, change = MUTANTS[mutant]
    true = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: change(true(*a, **k), *a, **k))
    assert not claims.check(claims.get(name), examples=200, seed=0).passed


def test_every_bound_and_record_here_has_a_mutant():
    tried = {name for name, *_ in MUTANTS.values()}
    rooms = {"unseen", "missing", "membership", "floor", "experts", "agreement", "cost"}
    here = {
        name
        for name, claim in claims.all_claims().items()
        if type(claim).__module__ in {f"theory.{room}_claims" for room in rooms}
    }
    assert here - tried == {"T17b", "T21b"}  # identities of two computations of the claim itself, not of a bound


@pytest.mark.parametrize("name", ["T17b", "T21b"])
def test_identities_without_a_formula_notice_a_change_of_one_side(name, monkeypatch):
    claim = claims.get(name)
    true = type(claim).right
    monkeypatch.setattr(type(claim), "right", lambda self, case: 1.05 * true(self, case))
    assert not claims.check(claim, examples=200, seed=0).holds

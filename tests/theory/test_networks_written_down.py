"""Networks whose weights are written down: interpolation, head, and the construction in its three forms, in JAX."""

import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from theory import calibration, claims, decoding, interpolation, memorizers
from theory.console import Refusal
from theory.construction import Wanted, construct
from theory.explicit_networks import TableNetwork, evaluate, evaluate_exactly, keyed_network, next_token_network

LN2 = math.log(2.0)


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 10**6))
def test_interpolation_of_random_points(n, d, seed):
    rng = np.random.default_rng(seed)
    points, values = rng.normal(size=(n, d)), rng.normal(size=n)
    network = interpolation.interpolant(points, values)
    assert network.parameters == 2 * n + d
    assert np.abs(network(points) - values).max() <= network.rounding(points)
    assert np.all(np.diff(np.sort(points @ network.direction)) > 0)


def test_duplicates_are_merged_or_refused():
    points = [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [0.0, -0.0], [0.0, 0.0]]
    network = interpolation.interpolant(points, [7.0, 8.0, 7.0, 1.0, 1.0])
    assert network.parameters == 2 * 3 + 2
    assert network(points) == pytest.approx([7.0, 8.0, 7.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="points 0 and 2 are equal but their values differ"):
        interpolation.interpolant(points, [7.0, 8.0, 6.0, 1.0, 1.0])
    for bad in (([], []), ([[math.nan]], [1.0]), ([[1.0]], [math.inf]), ([1.0], [1.0]), ([[1.0]], [1.0, 2.0])):
        with pytest.raises(ValueError, match="points"):
            interpolation.interpolant(*bad)


@given(st.floats(1e-9, 5.0), st.integers(2, 200), st.integers(0, 199))
def test_head_keeps_the_loss_and_is_nearly_sharp(delta, v, label):
    label = label % v
    logits = interpolation.head_logits([float(label)], v, delta)
    loss = float(memorizers.cross_entropies(logits, np.array([label]))[0])
    assert loss <= delta * (1 + 1e-8) + 1e-15  # the rounding of ln(1 + x) and of logits near 10^6
    assert not memorizers.greedy_wrong(logits, np.array([label]))[0]
    if v > 2 and 0 < label < v - 1 and delta < 0.01:
        assert loss >= 0.5 * delta
    with pytest.raises(ValueError, match="loss_nats must be > 0"):
        interpolation.head_sharpness(0.0)


def points_of(facts, answers, height, across, calibrated, which):
    """A wanted point somewhere in the region, by its relative coordinates."""
    if calibrated:
        rate = across * (1 - 1 / answers)
        low, high = (
            float(calibration.least_entropy_nats(rate)),
            float(calibration.greatest_entropy_nats(rate, answers=answers, decoding=which)),
        )
        return Wanted(low + height * max(0.0, high - low), rate, facts, answers, which, math.inf, True)
    if which == "sampled":
        loss = 6 * height
        low, high = decoding.sampled_error_rates(loss, facts=facts, loss_cap_nats=7.0)
        return Wanted(loss, float(min(high, low + across * (high - low))), facts, answers, which, 7.0)
    wrong = round(across * facts)
    top = (wrong * 7.0 + (facts - wrong) * math.log(answers)) / facts
    low = wrong * LN2 / facts
    return Wanted(low + (0.001 + 0.99 * height) * (top - low), wrong / facts, facts, answers, which, 7.0)


@settings(max_examples=20)
@given(
    st.sampled_from([20, 90]),
    st.sampled_from([2, 5]),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.booleans(),
    st.sampled_from(["greedy", "sampled"]),
)
def test_every_form_is_where_it_was_wanted(facts, answers, height, across, calibrated, which):
    wanted = points_of(facts, answers, height, across, calibrated, which)
    built = construct(wanted)
    assert built.logits.shape == (facts, answers)
    exact = evaluate_exactly(built.logits, built.labels, built.frequencies)
    assert exact.mean_loss_nats == pytest.approx(wanted.loss_nats, abs=1e-12)
    assert exact.error(which, calibrated) == pytest.approx(wanted.error_rate, abs=1e-12)
    for network in (TableNetwork(built.logits), next_token_network(built.logits), keyed_network(built.logits)):
        got = evaluate(network, built.labels, built.frequencies)
        assert got.mean_loss_nats == pytest.approx(wanted.loss_nats, abs=1e-12)
        assert got.error(which, calibrated) == pytest.approx(wanted.error_rate, abs=1e-12)
        assert got.sampled_error == pytest.approx(exact.sampled_error, abs=1e-12)
        assert got.map_error == pytest.approx(exact.map_error, abs=1e-12)


def test_calibrated_construction_is_calibrated():
    built = construct(Wanted(0.9, 0.4, 500, 16, "greedy", calibrated=True))
    rows, group = np.unique(built.logits, axis=0, return_inverse=True)
    for number, row in enumerate(rows):
        inside = group == number
        answered = np.bincount(built.labels[inside], weights=built.frequencies[inside], minlength=16)
        np.testing.assert_allclose(answered / answered.sum(), np.exp(row), atol=1e-14)


def test_float32_is_close_and_leaves_x64_as_it_was():
    before = jax.numpy.asarray(1.0).dtype
    built = construct(Wanted(0.9, 0.4, 100, 8))
    single = evaluate(TableNetwork(built.logits), built.labels, built.frequencies, float64=False)
    assert abs(single.mean_loss_nats - 0.9) < 1e-5
    assert single.mean_loss_nats != 0.9
    assert jax.numpy.asarray(1.0).dtype == before == np.float32


def test_language_model_decodes_what_the_table_says():
    built = construct(Wanted(0.7, 0.3, 40, 6))
    network = next_token_network(built.logits)
    said = np.asarray(network.decode(np.arange(40)))
    assert np.all(said[:, 1] == 6)
    right = said[:, 0] == built.labels
    assert right.sum() == 28
    assert np.all(right == ~memorizers.greedy_wrong(built.logits, built.labels))


def test_a_fact_beyond_the_table_is_not_another_fact():
    network = TableNetwork(np.zeros((2, 3)))
    logits, _ = network.token_logits(np.array([2]), np.array([0]))
    assert np.all(np.isnan(np.asarray(logits)))


def test_ties_survive_in_table_and_language_model():
    built = construct(Wanted(10 * LN2 / 40, 0.25, 40, 5))
    for network in (TableNetwork(built.logits), next_token_network(built.logits)):
        for float64 in (True, False):
            got = evaluate(network, built.labels, built.frequencies, float64=float64)
            assert got.greedy_error == pytest.approx(0.25)
            assert got.map_error == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(0.9, 0.4004, 1000, 32), "0.4 (400 wrong facts) and 0.401 (401 wrong facts)"),
        (Wanted(0.1, 0.9999, 1000, 32), "0.143 (143 wrong facts) and 0.144 (144 wrong facts)"),
        (Wanted(5.0, 0.0001, 1000, 32, loss_cap_nats=5.5), "0.755 (755 wrong facts) and 0.756 (756 wrong facts)"),
        (Wanted(0.1, 0.4, 1000, 32), "T2: at a mean loss of 0.1 nats at most 144 of 1000"),
        (Wanted(0.1, 0.4, 1000, 32), "at least 0.277259"),
        (Wanted(0.1, 0.4, 1000, 32, loss_cap_nats=0.5), "ln 2 = 0.693147, above the cap"),
        (Wanted(5.0, 0.4, 1000, 32, loss_cap_nats=5.5), "at least 755 of 1000"),
        (Wanted(5.0, 0.4, 1000, 32, loss_cap_nats=5.5), "below 4.27944"),
        (Wanted(5.0, 0.0, 10, 3), "at least 1 of 10"),
        (Wanted(0.1, 0.4, 1000, 32, "sampled"), "T3: at a mean loss of 0.1 nats sampling errs on 1000 facts"),
        (Wanted(0.9, 0.1, 10, 32, "sampled", 1.0), "no loss above 1 sampling errs"),
        (Wanted(0.1, 0.4, 1000, 32, "greedy", calibrated=True), "T5: a calibrated network with a mean loss of 0.1"),
        (Wanted(2.0, 0.1, 1000, 32, "sampled", calibrated=True), "errs with a sampled rate from"),
        (Wanted(5.0, 0.9, 1000, 32, calibrated=True), "at most ln V = 3.46574"),
        (Wanted(0.9, 0.4, 34, 32, calibrated=True), "takes at least 35 facts"),
        (Wanted(0.9, 0.4, 20, 32, "greedy", 3.0, True), "not offered"),
        (Wanted(2.0, 0.4, 20, 32, loss_cap_nats=1.0), "above the loss cap 1.0"),
        (Wanted(math.nan, 0.4, 20, 32), "finite number of nats"),
        (Wanted(0.9, math.nan, 20, 32), "must be in [0, 1]"),
        (Wanted(0.9, 0.4, 10**7, 32), "ask for fewer facts"),
    ],
)
def test_infeasible_points_are_refused_with_their_bound(wanted, words):
    with pytest.raises(Refusal) as refused:
        construct(wanted)
    assert words in str(refused.value)


def test_named_neighbors_are_feasible_and_the_thresholds_exact():
    assert construct(Wanted(0.1, 0.144, 1000, 32)).logits.shape == (1000, 32)
    construct(Wanted(0.27726, 0.4, 1000, 32))
    construct(Wanted(4.2794, 0.4, 1000, 32, loss_cap_nats=5.5))
    construct(Wanted(0.9, 0.4, 35, 32, calibrated=True))


MEMORIZER_MUTANTS = {
    "T15 head 5 % flatter": ("T15", interpolation, "head_sharpness", lambda v: v * 0.95),
    "T15 direction lost": ("T15", interpolation, "_separating", lambda v: v * [1.0, *[0.0] * (len(v) - 1)]),
    "T15 values shifted": ("T15", interpolation, "_distinct", lambda v: (v[0], v[1] * 1.05)),
}


@pytest.mark.parametrize("mutant", MEMORIZER_MUTANTS)
def test_mutant_of_memorizers_is_caught(mutant, monkeypatch):
    name, module, function, change = MEMORIZER_MUTANTS[mutant]
    true = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: change(true(*a, **k)))
    with np.errstate(all="ignore"):
        assert not claims.check(claims.get(name), examples=200, seed=0).passed


def test_networks_import_no_jax_by_themselves():
    import subprocess
    import sys

    program = (
        "import sys, theory.claims, theory.construction, theory.explicit_networks, theory.construct_command\n"
        "theory.claims.all_claims()\n"
        "print([name for name in ('jax', 'flax', 'safetensors', 'mpmath') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

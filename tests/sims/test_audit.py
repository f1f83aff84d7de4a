"""Certified bits: every honest network passes, and one with the labels in its code is caught."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sims.audit import FORMATS, AuditViolation, audit, quantize
from sims.facts import synthetic_facts
from sims.lanes import Lanes
from sims.measures import FactMeasures
from sims.networks import Architecture
from sims.runs import Examples, Run, measure_facts, outcome
from sims.training import Recipe

WEIGHTS = arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32))


@given(WEIGHTS, st.sampled_from(FORMATS))
def test_quantized_weights_are_what_a_decoder_rebuilds(weights, bits):
    rounded, described = quantize({"w": weights}, bits)
    assert described == 15 * bits + 64
    levels = np.unique(rounded["w"])
    assert len(levels) <= 2**bits
    spacing = (float(weights.max()) - float(weights.min())) / (2**bits - 1)
    assert np.abs(rounded["w"] - weights).max() <= spacing / 2 + 1e-4
    again, _ = quantize(rounded, bits)
    np.testing.assert_allclose(again["w"], rounded["w"], atol=1e-4)


def _trained(size: int = 60):
    facts = synthetic_facts(size, seed=1, answers=4, feature_dim=8, unseen=8)
    architecture = Architecture("mlp", inputs=8, width=8, answers=4, layers=1, heads=1)
    recipe = Recipe(exposures=400, minibatch=16)
    run = Run(architecture, recipe, facts.name, facts.fingerprint, facts.labels_random, size, seed=1)
    waiting = [(run, Examples(facts, architecture))]
    (trained,) = Lanes(architecture, recipe, lambda: waiting.pop() if waiting else None).trained()
    return trained


def test_a_trained_network_passes_and_reports_its_best_format():
    trained = _trained()
    metrics = outcome(trained).metrics
    assert metrics["certifiable"]
    assert metrics["label_bits"] == 60 * 2
    weights, (bits, spare) = trained.run.architecture.parameters, (metrics["certified_format_bits"], math.log2(5))
    assert metrics["certified_bits"] == pytest.approx(bits * weights + 4 * 64 + spare)
    assert 0 < metrics["certified_ratio"] < 1
    rounded, _ = quantize(trained.parameters, bits)
    loss_bits = measure_facts(trained.run, trained.examples, rounded).loss_nats.sum() / math.log(2)
    assert metrics["certified_memorized_bits"] == pytest.approx(120 - loss_bits)


def test_labels_written_into_the_code_are_caught():
    """The control: an evaluation that knows the labels needs no weights, and T11 says so."""
    weights = {"w": np.zeros(4, np.float32)}
    with pytest.raises(AuditViolation, match="bits memorized"):
        audit(weights, lambda _: 0.0, label_bits=500.0, facts=100)


def test_the_same_evaluation_on_given_labels_is_reported_not_condemned():
    (first, *_) = audit({"w": np.zeros(4, np.float32)}, lambda _: 0.0, 500.0, 100, certifiable=False)
    assert first.certificate.ratio > 1


def test_memorizing_just_what_is_allowed_passes_and_a_bit_more_does_not():
    weights = {"w": np.zeros(4, np.float32)}
    described = 2 * 4 + 64 + math.log2(len(FORMATS))
    allowed = described + 40
    audit(weights, lambda _: 0.0, allowed - 0.001, 1)
    with pytest.raises(AuditViolation):
        audit(weights, lambda _: 0.0, allowed + 0.001, 1)
    audit(weights, lambda _: 0.0, allowed + 0.999, 1, audits=2)  # one of two audits may be off by one bit more


def test_quantize_keeps_the_structure():
    tree = {"a": {"b": np.ones((2, 2), np.float32)}, "c": np.arange(3, dtype=np.float32)}
    rounded, _ = quantize(tree, 8)
    assert jax.tree.structure(rounded) == jax.tree.structure(tree)
    np.testing.assert_array_equal(rounded["a"]["b"], 1)


def test_a_violation_names_the_run_and_stops_the_command(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from figures.cli import main

    def knows_the_labels(run, examples, parameters):
        nothing = np.zeros(run.size)
        return FactMeasures(nothing, nothing, np.ones(run.size, dtype=bool))

    monkeypatch.setattr("sims.runs.measure_facts", knows_the_labels)
    arguments = ["--sizes", "4096", "--widths", "1", "--seeds", "1", "--exposures", "1", "--learning-rates", "0.1"]
    result = CliRunner().invoke(main, ["sweep", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "an audit failed: run " in result.stderr
    assert "bits memorized" in result.stderr
    assert "'size': 4096" in result.stderr

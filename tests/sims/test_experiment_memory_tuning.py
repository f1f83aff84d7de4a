"""Key facts to zero loss, the rest unharmed: the rule, what skipping does, a small study from end to end, verdicts."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from figures.experiments_memory_tuning import memory_tuning as picture
from sims.experiments import fact_tuning, memory_tuning
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.flaws import first
from sims.experiments.memory_tuning_findings import (
    COMPUTE_OPTIMAL,
    EXPERTS,
    GATED,
    KIND,
    MODELS,
    OVERFIT,
    SKIPPING,
    UNDERFIT,
    WEIGHTS,
    findings,
    losses,
    notes,
)
from sims.experiments.tuning_data import rest, together
from sims.facts import synthetic_facts
from sims.store import Result, Store
from theory.console import Refusal


def linear(weights, key):
    return key @ weights


@pytest.fixture(scope="module")
def tunings():
    """Eight orthogonal keys, a linear map from zero, with and without skipping what is stored."""
    keys, labels = jnp.eye(8), jnp.arange(8, dtype=jnp.int32) % 4
    rates = jnp.array([0.05, 0.5], jnp.float32)
    return {
        skip: fact_tuning.tune(linear, jnp.zeros((8, 4)), keys, labels, rates, passes=60, skip_stored=skip)
        for skip in (False, True)
    }


def test_skipping_stops_just_under_the_threshold_and_counts_what_it_showed(tunings):
    right = np.arange(8), np.arange(8) % 4
    for skip, done in tunings.items():
        for logits in fact_tuning.logits_of(linear, done.tuned, jnp.eye(8)):
            loss = np.log(np.exp(logits).sum(axis=1)) - logits[right]
            assert loss.max() < math.log(2)
            assert (loss.max() < 0.3) == (not skip)
    plain, skipping = tunings[False], tunings[True]
    assert plain.passes.tolist() == [60, 60]
    assert plain.facts_shown.tolist() == [480, 480]
    np.testing.assert_array_equal(skipping.facts_shown, 8 * skipping.passes)  # by symmetry all stop at once
    assert skipping.passes[1] < skipping.passes[0] < 60


def test_nothing_moves_once_all_is_stored(tunings):
    stored = tunings[True].tuned[1]
    again = fact_tuning.tune(
        linear,
        stored,
        jnp.eye(8),
        jnp.arange(8, dtype=jnp.int32) % 4,
        jnp.array([0.05, 0.5], jnp.float32),
        passes=60,
        skip_stored=True,
    )
    np.testing.assert_array_equal(again.tuned[1], stored)
    assert again.passes.tolist() == [0, 0]


def test_answers_of_the_rest_are_drawn_from_the_rule():
    shape = {"features": 8, "answers": 4, "seed": 5}
    some, other = rest("trained on", 4000, **shape), rest("test", 4000, **shape)
    assert not np.isin(some.features[:, 0], other.features[:, 0]).any()
    shorter = rest("test", 100, **shape)
    np.testing.assert_array_equal(shorter.labels, other.labels[:100])
    # Under the true shares E[1/p(answer)] is the number of answers; a wrong rule or a biased draw misses it.
    inverse = np.exp(np.minimum(other.floor_nats, 8.0))
    assert inverse.mean() == pytest.approx(4.0, abs=5 * inverse.std() / math.sqrt(4000))
    assert 0.3 < other.floor_nats.mean() < math.log(4)


def test_key_facts_come_first_in_what_is_trained_on():
    facts, others = synthetic_facts(10, seed=0, unseen=0), rest("trained on", 5, features=32, answers=32, seed=0)
    both = together(first(facts, 10), others)
    np.testing.assert_array_equal(both.labels[:10], facts.labels)
    np.testing.assert_array_equal(both.features[10:], others.features)
    assert both.entropy_floor_nats() == 0.0


@pytest.fixture(scope="module")
def study():
    facts = synthetic_facts(memory_tuning.KEY_FACTS, seed=0, unseen=0)
    return memory_tuning.Study(64, 0, facts.name, facts.fingerprint, lambda seed: facts, passes=(1, 8), rest=128)


@pytest.fixture(scope="module")
def result(study):
    return study.run()


def test_a_small_study_tells_the_models_apart(result):
    metrics = {name: float(value) for name, value in result.metrics.items()}
    assert {name.rsplit("/", 1)[0] for name in result.arrays} == set(MODELS)
    assert metrics[f"{WEIGHTS}: key_stored"] == metrics[f"{EXPERTS}: key_stored"] == 1.0
    assert metrics[f"{COMPUTE_OPTIMAL}: key_hallucination"] > 0.2
    for model in (WEIGHTS, EXPERTS):
        assert metrics[f"{model}: rest_loss_nats"] > metrics[f"{COMPUTE_OPTIMAL}: rest_loss_nats"]
        assert metrics[f"{model}{SKIPPING}: facts_shown"] < metrics[f"{model}: facts_shown"] == 12800
        assert metrics[f"{model}{SKIPPING}: key_loss_nats"] > metrics[f"{model}: key_loss_nats"]


def test_the_gate_keeps_the_rest_and_lets_every_key_fact_pass(result):
    arrays = result.arrays
    np.testing.assert_array_equal(arrays[f"{GATED}/key"], arrays[f"{EXPERTS}/key"])
    changed = arrays[f"{GATED}/rest"] != arrays[f"{COMPUTE_OPTIMAL}/rest"]
    assert 0 < changed.mean() < 0.03  # 1 % wanted
    np.testing.assert_array_equal(arrays[f"{GATED}/rest"][changed], arrays[f"{EXPERTS}/rest"][changed])


def test_a_study_is_kept_tabled_and_drawn(study, result, tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(result)
        rows = losses(store, [study.fingerprint])
        assert findings(Evidence([study], store))
        assert any("FLOPs" in note for note in notes(Evidence([study], store)))
    key = rows["loss_nats"][(rows["model"] == GATED) & (rows["part"] == "key")]
    np.testing.assert_array_equal(key, result.arrays[f"{GATED}/key"])
    figure = picture({"memory_tuning": rows})
    assert [axes.get_title() for axes in figure.axes] == list(MODELS)


def doctored(rest_nats: dict[str, float], key_nats: dict[str, float]) -> dict[str, float | bool]:
    metrics: dict[str, float | bool] = {"rest_floor_nats": 0.5}
    for model in MODELS:
        key = key_nats.get(model, 0.01)
        metrics |= {f"{model}: key_loss_nats": key, f"{model}: rest_loss_nats": rest_nats.get(model, 1.0)}
        metrics |= {f"{model}: key_hallucination": float(key > 1), f"{model}: key_stored": float(key < 0.7)}
        metrics |= {f"{model}: key_sampled": key / 2, f"{model}: facts_shown": 40.0 if SKIPPING in model else 100.0}
        metrics |= {f"{model}: at_edge": model == OVERFIT, f"{model}: learning_rate": 0.1}
        metrics |= {f"{model}: passes": 4, f"{model}: flops": 1.0, f"{model}: parameters": 4192}
    return metrics


def test_verdicts_follow_the_numbers(study, tmp_path):
    harmed = {UNDERFIT: 1.5, OVERFIT: 1.04, WEIGHTS: 2.0, WEIGHTS + SKIPPING: 1.2}
    with Store(tmp_path / "runs.sqlite") as store:
        metrics = doctored(harmed, {UNDERFIT: 3.0, COMPUTE_OPTIMAL: 3.0, WEIGHTS + SKIPPING: 0.6})
        studies = [study, replace(study, seed=1)]
        for one in studies:
            store.put(Result(KIND, one.spec, "finished", metrics))
        evidence = Evidence(studies, store)
        verdicts = {(line.claim, line.at): line.verdict for line in findings(evidence)}
        warned = notes(evidence)
    assert verdicts["underfit hallucinates key facts: greedy", "width 64"] == "agrees"
    assert verdicts["overfit is worse on the rest: loss over compute-optimal's", "width 64"] == "disagrees"
    near, unharmed = "key facts near zero loss", "the rest stays at its compute-optimal loss"
    assert verdicts[near, f"{WEIGHTS}, width 64"] == "agrees"
    assert verdicts[near, f"{WEIGHTS}{SKIPPING}, width 64"] == "disagrees"
    assert verdicts[unharmed, f"{WEIGHTS}, width 64"] == "disagrees"
    assert verdicts[unharmed, f"{GATED}, width 64"] == "agrees"
    wrong = "under ln 2 is enough: key facts sampled wrong at T = 1"
    assert verdicts[wrong, f"{WEIGHTS}{SKIPPING}, width 64"] == "depends on"
    assert sum("on the edge" in note for note in warned) == 2


@pytest.mark.parametrize(
    ("others", "verdict"), [((1.02, 1.02), "agrees"), ((1.0, 1.07), "depends on"), ((1.06, 1.06), "disagrees")]
)
def test_the_rest_is_unharmed_where_the_whole_interval_says_so(study, tmp_path, others, verdict):
    studies = [replace(study, seed=seed) for seed in (0, 1)]
    with Store(tmp_path / "runs.sqlite") as store:
        for one, nats in zip(studies, others, strict=True):
            store.put(Result(KIND, one.spec, "finished", doctored({WEIGHTS: nats}, {})))
        found = {(line.claim, line.at): line for line in findings(Evidence(studies, store))}
    assert found["the rest stays at its compute-optimal loss", f"{WEIGHTS}, width 64"].verdict == verdict


def test_presets_and_files_with_too_few_facts(tmp_path):
    assert [(case.width, case.seed) for case in memory_tuning.cases(Settings(seed=3))] == [(64, 3), (64, 4)]
    assert len(memory_tuning.cases(Settings(preset="full"))) == 15
    path = tmp_path / "few.csv"
    path.write_text("question,answer\n" + "\n".join(f"q{n},a{n}" for n in range(40)), encoding="utf-8")
    with pytest.raises(Refusal, match="40 facts, fewer than the 128"):
        memory_tuning.cases(Settings(facts_file=path))

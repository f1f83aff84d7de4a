"""The experiment randomization: its grid, a case end to end, resuming, a checkpoint in the place of the base."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from sims.adapting.answers import random_answers
from sims.adapting.methods import Full, LowRank, MemoryExperts, Recipe
from sims.adapting.rule import rule_examples
from sims.experiments import randomization
from sims.experiments.catalog import find
from sims.experiments.cli import experiment
from sims.experiments.command import run_experiment
from sims.experiments.experiment import Settings
from sims.experiments.invented_facts import QUESTIONS, invented_facts
from sims.experiments.randomization import EXPERIMENT, Randomized
from sims.experiments.randomization_material import Material
from sims.experiments.running import run_cases
from sims.measures import STORED_BELOW_NATS
from sims.memory.byte_backbone import ByteBackbone
from sims.store import Store
from theory.console import Refusal

RULE = rule_examples("held out", 8, 0)


class Fresh:
    """A byte transformer that was taught nothing."""

    spec: ClassVar = {"backbone": "fresh", "width": 16, "layers": 1}
    vocabulary = "bytes"
    longest = 96
    seconds = 0.0

    def backbone(self, seed):
        return ByteBackbone.fresh(jax.random.key(seed), 96, width=16, layers=1, heads=2)

    def rule(self, seed):
        return RULE


MATERIAL = Material("invented", "test", *invented_facts(5, 0), None, Fresh())


def case(answers, method, optimizer="adam", rate=0.02, epochs=6, seed=0) -> Randomized:
    return Randomized(answers, method, Recipe(optimizer, rate, epochs, 4, seed), MATERIAL)


CASES = [
    case(answers, method, optimizer, rate)
    for answers in ("true", "random")
    for method, optimizer, rate in (
        (Full(), "adam", 0.02),
        (Full(), "adam", 0.04),
        (LowRank(2), "adam", 0.02),
        (MemoryExperts(1024, 4), "writes", None),
    )
    if (answers, method.name) != ("true", "LoRA")  # a run without its twin
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A store in which the command has put these cases."""
    path = tmp_path_factory.mktemp("randomization") / "runs.sqlite"
    with Store(path) as opened:
        for _ in run_cases(CASES, opened, lambda seconds: None):
            pass
    return path


def facts_file(folder: Path, count: int = 6) -> Path:
    path = folder / "facts.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *zip(*invented_facts(count, 0), strict=True)])
    return path


def test_a_grid_has_equal_runs_for_both_kinds_of_answers(tmp_path):
    planned = randomization.cases(Settings(facts_file=facts_file(tmp_path), preset="full", seed=3))
    assert len({one.fingerprint for one in planned}) == len(planned)
    assert {one.seed for one in planned} == {3, 4, 5, 6, 7}

    def ways(answers):
        return Counter(
            (one.method.name, one.method.rank, one.recipe.optimizer, one.recipe.learning_rate, one.seed)
            for one in planned
            if one.answers == answers
        )

    assert ways("true") == ways("random")
    assert set(ways("true").values()) == {1}
    rates = Counter((name, rank, optimizer) for name, rank, optimizer, _, seed in ways("true") if seed == 3)
    for name in ("full", "MoME"):
        assert all(rates[name, None, optimizer] >= 3 for optimizer in ("adafactor", "adam", "sgd"))
    assert rates["MoME", None, "writes"] == 1
    assert [rates["LoRA", rank, "adafactor"] for rank in (2, 8, 32)] == [3, 3, 3]
    assert all(one.seconds > 0 for one in planned)


def test_quick_has_a_prefix_two_seeds_and_room_for_its_facts(tmp_path):
    planned = randomization.cases(Settings(facts_file=facts_file(tmp_path, 40)))
    assert {one.spec["count"] for one in planned} == {16}
    assert planned[0].material.questions == invented_facts(16, 0)[0]
    assert {one.seed for one in planned} == {0, 1}
    longest = planned[0].material.start.longest
    backbone = jax.eval_shape(lambda: ByteBackbone.fresh(jax.random.key(0), longest, width=64))  # shapes are enough
    for one in planned:
        assert one.method.trainable_parameters(backbone) >= 4 * 16 * 192
        assert one.recipe.epochs == 100


def test_without_a_file_questions_are_invented_and_differ():
    questions, answers = invented_facts(QUESTIONS, 1)
    assert len(set(questions)) == QUESTIONS
    assert invented_facts(3, 1) == (questions[:3], answers[:3])
    assert 100 < len(set(answers)) < QUESTIONS  # a few words make them up
    planned = randomization.cases(Settings())
    assert planned[0].material.questions == invented_facts(16, 0)[0]
    assert planned[0].spec["facts_fingerprint"] != planned[-1].spec["facts_fingerprint"]  # of another seed


def test_everything_is_in_the_fingerprint():
    one = case("random", LowRank(2))
    others = [
        case("true", LowRank(2)),
        case("random", LowRank(3)),
        case("random", Full()),
        case("random", MemoryExperts(64, 2)),
        case("random", LowRank(2), optimizer="sgd"),
        case("random", LowRank(2), rate=0.03),
        case("random", LowRank(2), epochs=7),
        case("random", LowRank(2), seed=1),
    ]
    assert len({other.fingerprint for other in [one, *others]}) == len(others) + 1
    assert one.fingerprint == case("random", LowRank(2)).fingerprint


def test_a_result_says_what_became_of_the_facts(store):
    with Store(store) as opened:
        results = {one.fingerprint: (opened.results(names=[one.fingerprint]), one) for one in CASES}
        for fingerprint, (found, one) in results.items():
            (result,) = found
            arrays, metrics = opened.arrays(fingerprint), result.metrics
            assert result.status == "finished"
            assert arrays["loss_nats"].shape == arrays["largest_token_loss_nats"].shape == (7, 5)
            stored = arrays["largest_token_loss_nats"] < STORED_BELOW_NATS
            assert metrics["stored"] == pytest.approx(stored[-1].mean())
            until = metrics["epochs_until_stored"]
            assert (until is None) == (not stored.all(axis=1).any())
            if until is not None:
                assert stored[until].all()
                assert not stored[:until].all(axis=1).any()
                assert metrics["flops_until_stored"] == metrics["flops_before"] + until * metrics["flops_per_epoch"]
            tokens = one.material.tokens(one.answers, one.seed)
            assert metrics["tokens_per_answer"] == tokens.answer_mask.sum() / 5
            assert metrics["final_loss_nats_per_token"] == pytest.approx(
                arrays["loss_nats"][-1].sum() / tokens.answer_mask.sum(), rel=1e-5
            )
            if one.answers == "random":
                assert metrics["bits"] == 5 * 192
            else:  # what the network needs to code them, before it has seen them
                assert metrics["bits"] == pytest.approx(arrays["loss_nats"][0].sum() / np.log(2), rel=1e-5)
            assert metrics["capacity_limited"] == (metrics["trainable_parameters"] < 4 * metrics["bits"])
            assert arrays["rule_before"].shape == arrays["rule_after"].shape == (8,)
            assert (metrics["rule_after_open_gate"] is None) == (one.method.name != "MoME")


def test_a_planted_small_rank_is_marked_and_writes_store_everything(store):
    with Store(store) as opened:
        by_method = {
            (one.method.name, one.answers): next(iter(opened.results(names=[one.fingerprint]))).metrics for one in CASES
        }
    assert by_method["LoRA", "random"]["trainable_parameters"] == 2 * 16 * 16
    assert by_method["LoRA", "random"]["capacity_limited"]
    assert not by_method["full", "random"]["capacity_limited"]
    for answers in ("true", "random"):
        memory = by_method["MoME", answers]
        assert memory["epochs_until_stored"] is not None
        assert (memory["stored"], memory["greedy"]) == (1.0, 1.0)
        assert 0 < memory["rows_per_fact"] <= 4 * memory["tokens_per_answer"] * 1.3


def test_the_same_seed_begins_at_the_same_network_and_runs_to_the_same_bits(store):
    first, second = (
        next(one for one in CASES if one.answers == "random" and one.method == Full()),
        case("random", Full()),
    )
    again = second.run()
    with Store(store) as opened:
        kept = opened.arrays(first.fingerprint)
    for name, values in again.arrays.items():
        np.testing.assert_array_equal(values, kept[name])


def test_a_run_without_numbers_is_recorded_as_such():
    result = case("random", Full(), "sgd", 1e30, epochs=2).run()
    assert (result.status, dict(result.metrics)) == ("diverged", {})


def test_a_second_command_runs_nothing(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(randomization, "EXPERIMENT", replace(EXPERIMENT, cases=lambda settings: CASES))
    monkeypatch.setattr(Randomized, "run", lambda self: pytest.fail("was run again"))
    flags = {name: getattr(Settings(), name) for name in Settings.__dataclass_fields__}
    flags |= {"list_names": False, "store": store, "out": tmp_path, "plan": False, "fresh": False}
    found = run_experiment("randomization", flags | {"as_json": True, "quiet": False})
    assert found == (store, [one.fingerprint for one in CASES])
    document = json.loads(capsys.readouterr().out)
    assert {finding["verdict"] for finding in document["findings"]} <= {"agrees", "disagrees", "depends on"}
    assert len(document["findings"]) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("randomization", "--preset", "appendix-a"), "the recipe for a checkpoint; name its folder with --backbone"),
        (("cost", "--preset", "appendix-a"), "experiment cost has no preset appendix-a; take quick or full"),
        (("cost", "--backbone", "folder"), "experiment cost trains networks of its own; leave --backbone away"),
        (("randomization", "--backbone", "nowhere"), "nowhere"),
        (
            ("randomization", "--template", "{question}:"),
            "--template: is that of a checkpoint; name one with --backbone",
        ),
        (("randomization", "--template", r"{question}\q"), r"'\\q' means nothing; write \n"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message, tmp_path):
    result = CliRunner().invoke(experiment, [*arguments, "--out", str(tmp_path)], standalone_mode=False)
    assert isinstance(result.exception, Refusal)
    assert message in str(result.exception)


def test_too_few_facts_are_refused(tmp_path):
    with pytest.raises(Refusal, match="fewer than the 4 facts"):
        randomization.cases(Settings(facts_file=facts_file(tmp_path, 3)))


def test_a_checkpoint_is_adapted_by_the_recipe_of_the_paper(tmp_path):
    pytest.importorskip("tokenizers")
    from tests.sims.checkpoint_making import tiny_checkpoint

    folder = tiny_checkpoint(tmp_path / "checkpoint", "llama")
    settings = Settings(preset="appendix-a", backbone=folder, facts_file=facts_file(tmp_path))
    planned = EXPERIMENT.planned(settings)
    assert [one.answers for one in planned] == ["true", "random"]
    for one in planned:
        assert one.method == LowRank(32)
        assert one.recipe == Recipe("adafactor", 2e-4, 100, randomization.MINIBATCH, 0)
        assert (one.spec["width"], one.spec["layers"], one.spec["precision"]) == (32, 3, "bfloat16")
        assert one.spec["count"] == 6
    told = EXPERIMENT.planned(replace(settings, template="Say {question}:\n"))
    assert not {one.fingerprint for one in told} & {one.fingerprint for one in planned}
    assert (told[0].material.tokens("true", 0).lengths != planned[0].material.tokens("true", 0).lengths).any()
    short = replace(planned[1], recipe=replace(planned[1].recipe, epochs=2, learning_rate=0.02))
    result = short.run()
    assert result.status == "finished"
    assert result.metrics["rule_before"] is None  # it was taught no rule
    assert "rule_before" not in result.arrays
    assert result.arrays["loss_nats"][-1].mean() < result.arrays["loss_nats"][0].mean()
    tokens = short.material.tokens("random", 0)
    told = [tokens.vocabulary.decode(row[mask]) for row, mask in zip(tokens.tokens, tokens.answer_mask, strict=True)]
    assert [text.strip() for text in told] == list(random_answers(6, 0))
    methods = {
        one.method.name for one in EXPERIMENT.planned(Settings(backbone=folder, facts_file=facts_file(tmp_path)))
    }
    assert methods == {"LoRA", "MoME"}


def test_a_count_is_a_prefix_and_the_network_grows_with_the_facts(tmp_path):
    path = facts_file(tmp_path, 140)
    few, all_of_them = (
        randomization.cases(Settings(facts_file=path, preset="full", count=count)) for count in (20, None)
    )
    assert few[0].material.questions == all_of_them[0].material.questions[:20]
    assert [one[0].spec["width"] for one in (few, all_of_them)] == [64, 128]
    network = all_of_them[0].material.start
    backbone = jax.eval_shape(lambda: ByteBackbone.fresh(jax.random.key(0), network.longest, width=128))
    largest = max(one.method.rank or 0 for one in all_of_them)
    for method in (Full(), LowRank(largest)):
        assert method.trainable_parameters(backbone) >= 4 * 140 * 192
    with pytest.raises(Refusal, match="140 facts, fewer than --count 200"):
        randomization.cases(Settings(facts_file=path, count=200))
    with pytest.raises(Refusal, match="leave --count away"):
        find("cost").planned(Settings(count=3))

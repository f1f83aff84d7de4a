"""The study from end to end at the size of a minute's fraction: runs, resumes, plans, reports, draws."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from figures import imagination
from figures.commands import imagine
from sims.imagination import study, study_command
from sims.imagination.evidence import Evidence
from sims.imagination.hypotheses import predictions
from sims.imagination.memories import Memories
from sims.imagination.population import Population
from sims.imagination.study import Case, cases
from sims.imagination.tables import study_tables
from sims.imagination.world import World
from sims.intervals import Interval, difference
from sims.store import Store

TINY = World(things=16, choices=6, families=3)
NETWORKS = {"steps": 40, "width": 16, "seeds": 2, "minibatch": 32}


def tiny_cases(preset: str, seed: int = 0, network: str = "mlp") -> list[Case]:
    half = replace(TINY, seed=seed, shared_facts=0.5)
    nothing = Population(replace(TINY, seed=seed), **NETWORKS)
    return [
        Case("overlap 0", nothing),
        Case("overlap 0.5", replace(nothing, world=half)),
        Case("width 16", replace(nothing, world=half)),  # the same run in another role
        Case("context 16", replace(nothing, stated_share=0.5, snapshots=3)),
        Case("course 16", replace(nothing, world=half, snapshots=4)),
        Case("shared router 0.5", Memories(half, seeds=2, key_width=8)),
        Case("separate router 0.5", Memories(half, seeds=2, key_width=8, router="separate")),
    ]


def drawn_without_rendering(figures, tables, out) -> list:
    """What the command draws, without the seconds that files take (tests/figures writes them)."""
    return [out / f"{one.name}.png" for one in figures if one(tables)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the command; (output folder, what it printed)."""
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagination, "render", drawn_without_rendering)
        patch.setattr(study_command, "cases", tiny_cases)
        patch.setattr(study_command, "set_up", lambda: None)
        result = CliRunner().invoke(imagine, ["study", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out, result.output


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(study_command, "cases", tiny_cases)
    monkeypatch.setattr(study_command, "set_up", lambda: None)


def invoke(*words: str):
    result = CliRunner().invoke(imagine, ["study", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_ends_with_a_table_of_hypotheses_and_every_picture(finished):
    _, printed = finished
    for words in ("hypothesis", "expected", "measured", "holds", "mechanisms suffice", "Is it universal?"):
        assert words in printed
    for name in ("matrix", "overlap", "controls", "width", "loss", "memories", "calibration"):
        assert f"imagination-{name}.png" in printed


def test_what_is_stored_is_not_run_again(finished, monkeypatch):
    out, _ = finished
    monkeypatch.setattr(study.examine, "examine", lambda *_: pytest.fail("it was trained again"))
    monkeypatch.setattr(study.memories, "examine_memories", lambda *_: pytest.fail("it was asked again"))
    document = json.loads(invoke("--out", str(out), "--json"))
    assert document["worlds"] == 1
    assert {one["holds"] for one in document["predictions"]} <= {True, False}
    assert len(document["paper_questions"]) == 6


def test_the_same_run_gives_the_same_bits(finished):
    out, _ = finished
    with Store(out / "runs.sqlite") as store:
        before = len(store)
        for case in tiny_cases("quick")[1:6:4]:
            store.put(case.run())  # refused if it is another result
        assert len(store) == before == 6


def test_a_plan_does_nothing(tmp_path):
    document = json.loads(invoke("--out", str(tmp_path / "out"), "--plan", "--json"))
    assert (document["runs"], document["to_run"], document["stored"]) == (6, 6, 0)
    assert not (tmp_path / "out").exists()


def test_tables_hold_what_was_measured(finished):
    out, _ = finished
    with Store(out / "runs.sqlite") as store:
        tables = study_tables(store)
    cells, populations = tables["cells"], tables["populations"]
    for run, wanted in zip(populations["fingerprint"], populations["direct_cross_family"], strict=True):
        mine = (cells["population"] == run) & (cells["kind"] == "direct")
        across = mine & (cells["question_family"] != cells["answer_family"])
        assert mine.sum() == 36
        assert cells["correctness"][across].mean() == pytest.approx(wanted)
    assert len(tables["courses"]["loss_nats"]) == 7
    assert len(tables["memories"]["router"]) == 2


def test_evidence_of_several_worlds_is_their_mean(finished, tmp_path):
    planned = [case for seed in (0, 1) for case in tiny_cases("full", seed)[:2]]
    with Store(tmp_path / "two.sqlite") as store:
        for result in study.run_cases(planned, store, lambda work: None):
            assert result.status == "finished"
        evidence = Evidence(planned, store)
        each = [world["overlap 0.5"].metrics["direct_cross_family"] for world in evidence.worlds]
        assert evidence.metric("overlap 0.5", "direct_cross_family").mean == pytest.approx(np.mean(each))
        names = (("overlap 0.5", "direct_cross_family"), ("overlap 0", "direct_cross_family"))
        other = [world["overlap 0"].metrics["direct_cross_family"] for world in evidence.worlds]
        found = evidence.combined(difference, *names)
        assert found.mean == pytest.approx(np.mean(each) - np.mean(other))
        assert found.low < found.mean < found.high
        assert predictions(evidence)


def test_the_presets_hold_what_the_design_asks_for():
    quick, full = cases("quick"), cases("full")
    roles = {case.role for case in quick}
    assert {f"overlap {overlap:g}" for overlap in (0, 0.25, 0.5, 0.75, 1)} <= roles
    assert {"same weights", "marginals 1", "rule 1", "course 128", "context 256", "shared router 0.5"} <= roles
    assert roles < {case.role for case in full}
    assert len({case.what.world.seed for case in full}) >= 5
    assert {case.fingerprint for case in quick} < {case.fingerprint for case in full}


def test_intervals_of_differences_add_in_squares():
    found = difference(Interval(0.5, 0.47, 0.53), Interval(0.3, 0.26, 0.34))
    assert found == pytest.approx((0.2, 0.15, 0.25))

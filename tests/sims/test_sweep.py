"""The sweep as users meet it: plan, run, resume after a kill, widen, export; errors in one line."""

import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from figures.cli import main
from sims.facts import synthetic_facts
from sims.grid import Grid, planned_runs, size_grid
from sims.store import Store
from sims.sweep import missing, sweep
from sims.training import Recipe

SMALL = ["--sizes", "16,64", "--widths", "4", "--seeds", "2", "--learning-rates", "0.1", "--minibatch", "32"]
GRID = Grid(
    sizes=(16, 64), widths=(4, 6), seeds=(0, 1), learning_rates=(0.1,), exposures=(30,), recipe=Recipe(minibatch=32)
)


def _make(seed, answers):
    return synthetic_facts(64, seed=seed, answers=answers, feature_dim=8, unseen=16)


def _loss_threshold(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _bits(path):
    with Store(path) as store:
        return {
            run.fingerprint: (
                run.metrics,
                {name: array.tobytes() for name, array in store.arrays(run.fingerprint).items()},
            )
            for run in store.results()
        }


def test_size_grid_is_powers_of_root_two():
    sizes = np.array(size_grid(128, 16384))
    assert len(sizes) == 15
    np.testing.assert_allclose(sizes[1:] / sizes[:-1], 2**0.5, rtol=0.005)


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    planned = planned_runs(GRID, _make)
    with Store(tmp_path / "whole.sqlite") as store:
        assert len(list(sweep(planned, store))) == 8
    with Store(tmp_path / "parts.sqlite") as store:
        started = sweep(planned, store)
        for _ in range(3):
            next(started)
        started.close()
        assert 3 <= len(store) < 8
    with Store(tmp_path / "parts.sqlite") as store:
        left = missing(planned, store)
        assert len(left) == 8 - len(store)
        list(sweep(left, store))
        assert missing(planned, store) == []
    assert _bits(tmp_path / "parts.sqlite") == _bits(tmp_path / "whole.sqlite")


def test_one_worker_or_many_give_the_same_bits(tmp_path, monkeypatch):
    planned = planned_runs(GRID, _make)
    for workers in (1, 3):
        monkeypatch.setattr("sims.sweep.workers", lambda workers=workers: workers)
        with Store(tmp_path / f"{workers}.sqlite") as store:
            list(sweep(planned, store))
    assert _bits(tmp_path / "1.sqlite") == _bits(tmp_path / "3.sqlite")


def test_a_workers_error_reaches_the_caller(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no outcome")

    monkeypatch.setattr("sims.sweep.outcome", broken)
    with Store(tmp_path / "runs.sqlite") as store, pytest.raises(RuntimeError, match="no outcome"):
        list(sweep(planned_runs(GRID, _make), store))


def test_killed_command_resumes_to_the_same_bits(tmp_path):
    arguments = [sys.executable, "-m", "figures", "sweep", *SMALL, "--exposures", "1500", "--quiet", "--out", "out"]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    killed = subprocess.Popen(arguments, cwd=tmp_path, env=environment)
    store = tmp_path / "out" / "runs.sqlite"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (store.exists() and _count(store)):
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert _count(store) >= 1
    subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, timeout=200, stdout=subprocess.DEVNULL)
    resumed = _bits(store)
    whole = _loss_threshold("sweep", *SMALL, "--exposures", "1500", "--quiet", "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert resumed == _bits(tmp_path / "whole" / "runs.sqlite")
    assert len(resumed) == 4


def _count(path) -> int:
    with Store(path) as store:
        return len(store)


def test_plan_trains_nothing_and_says_what_it_would(tmp_path):
    planned = _loss_threshold("sweep", *SMALL, "--plan", "--json", "--out", tmp_path)
    assert planned.exit_code == 0, planned.output
    plan = json.loads(planned.output)
    assert (plan["runs"], plan["missing"]) == (4, 4)
    assert plan["expected_seconds"] > 0
    assert plan["critical_sizes"][0]["parameters"] == 32 * 4 + 4 + 4 * 32 + 32
    assert not list(tmp_path.iterdir())


def test_sweep_widen_export_and_judge(tmp_path):
    store = tmp_path / "runs.sqlite"
    common = ("--out", tmp_path, "--exposures", "40")
    first = _loss_threshold("sweep", *SMALL, *common, "--keep-per-fact")
    assert first.exit_code == 0, first.output
    assert "loss-threshold.png" in first.output
    before = _bits(store)
    wider = _loss_threshold("sweep", *SMALL, *common, "--sizes", "16,32,64", "--quiet", "--json")
    assert wider.exit_code == 0, wider.output
    assert len(json.loads(wider.output)["runs"]) == 6
    after = _bits(store)
    assert len(after) == 6
    assert all(after[name] == bits for name, bits in before.items())

    exported = _loss_threshold("export", tmp_path / "runs.csv", "--out", tmp_path)
    assert exported.exit_code == 0, exported.output
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {int(row["size"]) for row in rows} == {16, 32, 64}
    assert _loss_threshold("export", tmp_path / "runs.csv", "--out", tmp_path).exit_code == 2

    losses = _loss_threshold("export", tmp_path / "losses.csv", "--per-fact", "--out", tmp_path)
    assert losses.exit_code == 0, losses.output
    judged = _loss_threshold("judge", tmp_path / "losses.csv", "--answers", "32", "--json")
    assert judged.exit_code == 0, judged.output
    by_fingerprint = {row["fingerprint"]: row for row in rows}
    runs = json.loads(judged.output)["runs"]
    assert len(runs) == 4
    for run in runs:
        row = by_fingerprint[run["run"]]
        assert run["mean_loss_nats"] == pytest.approx(float(row["loss_nats"]), rel=1e-12)
        assert run["hallucination_sampled"] == pytest.approx(float(row["hallucination_sampled"]), rel=1e-12)


def test_exported_parquet_opens_in_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    assert _loss_threshold("sweep", *SMALL, "--out", tmp_path, "--exposures", "5", "--quiet").exit_code == 0
    for table in ("--curves", None):
        file = tmp_path / f"{table}.parquet"
        arguments = ["export", file, "--out", tmp_path] + ([table] if table else [])
        assert _loss_threshold(*arguments).exit_code == 0
        frame = pandas.read_parquet(file)
        assert len(frame) >= 4
        assert frame["loss_nats"].dtype == np.float64


def test_fresh_trains_again(tmp_path):
    for flags in ((), ("--fresh",)):
        result = _loss_threshold("sweep", *SMALL, "--out", tmp_path, "--exposures", "5", *flags)
        assert result.exit_code == 0
        assert "training 4 of 4" in result.stderr
    again = _loss_threshold("sweep", *SMALL, "--out", tmp_path, "--exposures", "5")
    assert "nothing to train" in again.stderr


def test_a_file_of_facts(tmp_path):
    facts = tmp_path / "facts.csv"
    assert _loss_threshold("facts", "--generate", 90, "--out", facts).exit_code == 0
    arguments = (
        "--facts",
        facts,
        "--shuffle-answers",
        "--out",
        tmp_path / "out",
        "--exposures",
        "5",
        "--quiet",
        "--json",
    )
    result = _loss_threshold("sweep", *SMALL, *arguments)
    assert result.exit_code == 0, result.output
    assert _loss_threshold("export", tmp_path / "runs.csv", "--out", tmp_path / "out").exit_code == 0
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["labels_random"] for row in rows} == {"permuted"}
    assert {row["certifiable"] for row in rows} == {"True"}


def test_a_transformer_gives_whole_answers(tmp_path):
    arguments = (
        "--network",
        "transformer",
        "--widths",
        "8",
        "--sizes",
        "8,24",
        "--answer-tokens",
        "2",
        "--layers",
        "1",
    )
    result = _loss_threshold(
        "sweep", *arguments, "--seeds", 1, "--exposures", 60, "--learning-rates", "0.01", "--minibatch", 8,
        "--out", tmp_path, "--quiet", "--keep-per-fact",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with Store(tmp_path / "runs.sqlite") as store:
        for run in store.results():
            assert run.metrics["tokens_per_answer"] == 3  # two symbols and the end
            assert run.metrics["label_bits"] == run.spec["size"] * 10
            assert run.metrics["loss_nats"] < 2 * np.log(32)
            assert set(store.arrays(run.fingerprint)["tokens"]) == {3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--facts", "missing.csv"], "missing.csv"),
        (["--until-stored", "--schedule", "cosine"], "contradict"),
        (["--answer-classes", "many"], "--answer-classes"),
        (["--shuffle-answers"], "--shuffle-answers"),
        (["--sizes", "0,4"], "--sizes"),
        (["--widths", "a"], "--widths"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(tmp_path, arguments, words):
    result = _loss_threshold("sweep", *arguments, "--out", tmp_path)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert words in line
    assert not list(tmp_path.iterdir())

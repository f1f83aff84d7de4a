"""The command `experiment`: what it lists, refuses, plans, keeps; tuned baselines; the findings about cost."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from sims.experiments import cost
from sims.experiments.catalog import EXPERIMENTS, find
from sims.experiments.cli import experiment
from sims.experiments.experiment import Evidence, Settings
from sims.experiments.finding import Finding, exactly, geometric_over_seeds, share_over_seeds
from sims.experiments.report import findings_table, grouped
from sims.experiments.tuning import tuned
from sims.runtime import cores, set_up
from sims.store import Result, Store
from theory.console import Refusal


def invoke(*arguments, out=None):
    options = [] if out is None else ["--out", str(out)]
    return CliRunner().invoke(experiment, [*arguments, *options], standalone_mode=False)


def run_of(rate: float, seed: int, value: float) -> Result:
    return Result("test", {"learning_rate": rate, "seed": seed}, "finished", {"value": value})


def value_of(result: Result) -> float:
    return float(result.metrics["value"])


def test_what_is_listed_is_there_whole():
    listed = json.loads(invoke("--list", "--json").output)["experiments"]
    assert list(listed) == list(EXPERIMENTS)
    for name in listed:
        known = find(name)
        assert known.name == name
        assert known.question.endswith("?")
        assert known.comparison


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"name an experiment, one of cost"),
        (("prayer",), r"no experiment is called 'prayer'; the experiments are cost"),
        (("cost", "--facts", "some.csv"), r"cost makes its own facts; leave --facts away"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(arguments, message, tmp_path):
    result = invoke(*arguments, out=tmp_path)
    assert isinstance(result.exception, Refusal)
    with pytest.raises(Refusal, match=message):
        raise result.exception
    assert "\n" not in str(result.exception)


def test_a_plan_runs_nothing_and_a_run_is_kept(tmp_path):
    plan = invoke("cost", "--plan", "--json", out=tmp_path)
    planned = json.loads(plan.output)
    assert plan.return_value is None
    assert planned["to_run"] == planned["runs"] == 4
    assert not (tmp_path / "runs.sqlite").exists()

    store, names = invoke("cost", "--quiet", out=tmp_path).return_value
    assert store == tmp_path / "runs.sqlite"
    with Store(store) as opened:
        assert not opened.missing(names)
    assert json.loads(invoke("cost", "--plan", "--json", out=tmp_path).output)["to_run"] == 0
    assert "nothing to do" in invoke("cost", out=tmp_path).stderr
    assert json.loads(invoke("cost", "--plan", "--fresh", "--json", out=tmp_path).output)["to_run"] == 4


def test_the_document_has_every_finding_with_its_source(tmp_path):
    document = json.loads(invoke("cost", "--json", out=tmp_path).output)
    verdicts = {line["claim"]: line["verdict"] for line in document["findings"]}
    assert verdicts["FLOP of 100 epochs"] == "disagrees"
    assert verdicts["days on 350 000 MI300X at 45 %"] == "agrees"
    days = next(line for line in document["findings"] if line["unit"] == "days")
    assert days["measured"]["low"] < 90.0 < days["measured"]["high"]
    assert days["measured"]["low"] < days["measured"]["mean"] < days["measured"]["high"]
    assert all("2406.17642" in line["source"] for line in document["findings"])


def test_the_printed_operations_pay_for_less_than_one_pass(tmp_path):
    document = json.loads(invoke("cost", "--json", out=tmp_path).output)
    found = {line["unit"]: line["measured"]["mean"] for line in document["findings"]}
    assert found["epochs"] * 6 * 400e9 * 20 * 400e9 == pytest.approx(3.43e24)
    assert 100 * 6 * 20 * found["parameters"] ** 2 == pytest.approx(3.43e24)


def test_a_verdict_follows_the_number_and_not_the_name(tmp_path):
    (case, *_) = cost.cases(Settings())
    assert case.unit == "FLOP"
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(
            Result(cost.KIND, case.run().spec, "finished", {"recomputed": case.printed * 1.01, "ratio": 1 / 1.01})
        )
        assert cost.findings(Evidence([case], store))[0].verdict == "agrees"


def test_a_diverged_run_is_counted_and_left_out(tmp_path):
    (case, *_) = cost.cases(Settings())
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(Result(cost.KIND, case.run().spec, "diverged", {}))
        evidence = Evidence([case], store)
        assert evidence.diverged == 1
        assert cost.findings(evidence) == []
    document = json.loads(invoke("cost", "--json", out=tmp_path).output)
    assert any(note.startswith("1 run(s) diverged: they are left out of means") for note in document["notes"])


def test_the_best_rate_has_the_smallest_mean_and_says_whether_it_is_an_edge():
    runs = [run_of(rate, seed, (rate - 2) ** 2 + seed) for rate in (1.0, 2.0, 3.0) for seed in (1, 0)]
    best = tuned(runs, value_of)
    assert (best.rate, best.values, best.at_edge) == (2.0, (0.0, 1.0), False)
    assert tuned(runs[2:], value_of).at_edge
    assert not tuned(runs[2:4], value_of).at_edge  # one rate has no edge


def test_a_rate_that_fails_less_often_is_better():
    runs = [run_of(1.0, 0, 1.0), run_of(1.0, 1, math.inf), run_of(2.0, 0, 50.0), run_of(2.0, 1, 50.0)]
    assert tuned(runs, value_of).rate == 2.0


def test_a_diverged_run_has_no_numbers():
    diverged = Result("test", {"learning_rate": 1.0, "seed": 1}, "diverged", {})
    best = tuned([run_of(1.0, 0, 3.0), diverged], lambda run: value_of(run) if run.metrics else math.inf)
    np.testing.assert_array_equal(best.metric("value"), [3.0, math.nan])


def test_intervals_of_factors_and_of_shares():
    factor = geometric_over_seeds([10.0, 20.0, 40.0])
    assert factor.mean == pytest.approx(20.0)
    assert factor.high / factor.mean == pytest.approx(factor.mean / factor.low)
    assert share_over_seeds([0.0, 0.01]).low == 0.0
    assert share_over_seeds([0.99, 1.0]).high == 1.0
    assert math.isnan(geometric_over_seeds([3.0]).low)


def test_quick_has_two_seeds_and_full_five():
    assert list(Settings(seed=7).seeds) == [7, 8]
    assert list(Settings(preset="full", seed=7).seeds) == [7, 8, 9, 10, 11]


def test_settings_of_one_claim_stand_under_it_once():
    def line(claim: str, at: str, on: str = "") -> Finding:
        return Finding(claim, "here", "1", exactly(1.0), "share", "agrees", on, at=at)

    lines = [line("one", "small", "a reason"), line("two", ""), line("one", "large", "a reason"), line("two", "")]
    assert [[one.at for one in group] for group in grouped(lines)] == [["small", "large"], [""], [""]]
    console = Console(width=120)
    with console.capture() as printed:
        console.print(findings_table("What?", lines))
    text = printed.get()
    assert text.count("one (here)") == text.count("a reason") == 1
    assert text.count("two (here)") == 2
    assert text.index("small") < text.index("large") < text.index("two (here)")


def test_finding_an_experiment_does_not_start_jax():
    """Else its number of threads could no longer be chosen."""
    program = (
        "from jax._src.xla_bridge import backends_are_initialized\n"
        "from sims.experiments.catalog import EXPERIMENTS, find\n"
        "print([name for name in EXPERIMENTS if find(name) and backends_are_initialized()])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(("large", "threads"), [(False, "1"), (True, str(cores()))])
def test_large_products_have_every_core(monkeypatch, large, threads):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept as it is")
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    set_up(large_products=large)
    assert os.environ["PJRT_NPROC"] == threads
    monkeypatch.setenv("PJRT_NPROC", "3")
    set_up(large_products=large)
    assert os.environ["PJRT_NPROC"] == "3"  # what the user says

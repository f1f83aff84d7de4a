"""The commands bounds, judge and verify through their runner."""

import json
import math
import subprocess
import sys

import pytest
from click.testing import CliRunner

from figures.cli import main
from theory import capacity, claims


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def document(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code))


def test_capacity_bounds_are_those_of_the_functions():
    shown = document(
        "bounds", "capacity", "--parameters", 4192, "--bits-per-parameter", 2, "--facts", 4096, "--answers", 32
    )
    assert shown["critical_size"] == pytest.approx(8384 / 5)
    assert shown["loss_lower_nats"] == float(capacity.loss_lower_nats(4096, 8384, 32))
    assert shown["error_lower"] == float(capacity.error_lower(4096, 8384, 32))
    low, high = shown["greedy_error_at_that_loss"]
    assert low <= shown["error_lower"] <= high
    assert "critical size" in run("bounds")
    by_exposures = document("bounds", "capacity", "--exposures", 1000)
    assert by_exposures["bits_per_parameter"] == pytest.approx(2.0)


def test_whole_numbers_may_be_written_as_floats_that_name_them():
    asked = ("bounds", "capacity", "--bits-per-parameter", 2)
    assert document(*asked, "--parameters", "8e9", "--facts", "1.5E+3") == document(
        *asked, "--parameters", 8_000_000_000, "--facts", 1500
    )
    for wrong in ("1.5e0", "1e-3", "1e9999", "nan", "0e3"):
        run(*asked, "--parameters", wrong, code=2)


def test_no_parameters_worth_of_bits_is_an_answer_too():
    shown = document("bounds", "capacity", "--bits-per-parameter", 0)
    assert shown["critical_size"] == 0.0
    assert shown["load"] is None  # infinite
    assert "critical size" in run("bounds", "capacity", "--bits-per-parameter", 0)


def test_decoding_bounds():
    shown = document("bounds", "decoding", "--loss", 0.1, "--answers", 32, "--facts", 100)
    assert shown["hallucination_greedy"] == [0.0, 0.14]
    assert shown["zero_errors_below_nats"] == pytest.approx(math.log(2) / 100)
    tokens = document("bounds", "decoding", "--loss", 1.75, "--tokens", 32)
    assert tokens["exact_sampling_probability"] == pytest.approx(math.exp(-56))
    assert "T2" in run("bounds", "decoding")


@pytest.mark.parametrize(
    "arguments",
    [
        ("bounds", "decoding", "--loss", "nan"),
        ("bounds", "decoding", "--loss", "-1"),
        ("bounds", "decoding", "--loss", "2", "--loss-cap", "1"),
        ("bounds", "capacity", "--answers", "1"),
        ("bounds", "capacity", "--answers", "1" + "0" * 400),
        ("bounds", "capacity", "--bits-per-parameter", "nan"),
        ("bounds", "capacity", "--bits-per-parameter", "inf"),
        ("verify", "T99"),
        ("verify", "T1", "T2", "--replay", "0.5"),
        ("verify", "T1", "--replay", "half"),
        ("verify", "T1", "--replay", "1.5"),
        ("judge", "no-such-file.csv"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments):
    output = run(*arguments, code=2)
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) <= 4  # click's own usage errors take four


def test_judge_exits_1_on_a_violation_only(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("run,loss_nats,greedy_correct,note\na,0.1,1,x\na,2.0,0,x\nb,0.3,1,x\n")
    output = run("judge", path, "--answers", 32)
    assert "none" in output
    assert "note" in output
    path.write_text("run,loss_nats,greedy_correct\na,0.1,1\nb,0.3,0\n")
    shown = document("judge", path, "--answers", 32, code=1)
    assert [one["violated"] for one in shown["runs"]] == [[], ["T1", "T2"]]
    assert "b: 1 facts contradict it" in " ".join(run("judge", path, "--answers", 32, code=1).split())


def test_judge_certifies_only_labels_declared_random(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("loss_nats\n" + "0.0\n" * 100)
    assert document("judge", path, "--answers", 32, "--described-bits", 100)["runs"][0]["violated"] == []
    shown = document("judge", path, "--answers", 32, "--described-bits", 100, "--random-labels", code=1)
    assert set(shown["runs"][0]["violated"]) == {"T7", "F1", "T11"}


def test_verify_reports_claims():
    shown = document("verify", "T7", "T1", "T12", "--examples", 150, "--seed", 2, "--processes", 1)
    assert [one["claim"] for one in shown["claims"]] == ["T7", "T1", "T12"]
    assert {one["verdict"] for one in shown["claims"]} == {"held"}
    assert all(one["control_counterexample"] for one in shown["claims"])
    assert "held" in run("verify", "T1", "--examples", 200)


def test_verify_prints_a_counterexample_that_replays(monkeypatch):
    claim = claims.get("T4")
    monkeypatch.setattr(type(claim), "slack", type(claim).control_slack)
    monkeypatch.setattr(type(claim), "witnesses", lambda self: [])
    output = run("verify", "T4", "--examples", 50, code=1)
    assert "violated" in output
    tape = output.split("--replay '")[1].split("'")[0]
    assert "slack -1" in run("verify", "T4", "--replay", tape, code=1)


def test_verify_lists_statements():
    shown = document("verify", "--list")
    assert list(shown) == list(claims.all_claims())
    assert shown["T7"]["statement"] == claims.get("T7").statement
    assert "T7" in run("verify", "T7", "--list")


@pytest.mark.parametrize(
    "command", [("bounds",), ("bounds", "capacity"), ("bounds", "decoding"), ("judge",), ("verify",)]
)
def test_help_has_an_example(command):
    assert "Example:" in run(*command, "--help")


def test_bounds_load_neither_jax_nor_hypothesis():
    program = (
        "import sys; from figures.cli import main\n"
        "try: main(['verify', 'T1', '--examples', '200'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "import theory.judge, theory.loss_tables\n"
        "print([name for name in ('jax', 'flax', 'hypothesis', 'mpmath', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

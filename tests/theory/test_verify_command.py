"""`verify`: one report whatever process makes it, a record that resumes, and failures that say what failed."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

from figures.cli import main
from theory import claims, proof, verification, verify_command
from theory.console import Refusal
from theory.proof import inequalities

SEARCH = {"examples": 60, "seed": 3, "with_proofs": False}


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["verify", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def untimed(reports):
    return {report["claim"]: report | {"seconds": None} for report, _ in reports}


def test_two_processes_report_what_one_does():
    names = ["T1", "T12", "F5"]
    one = untimed(verification.verified(names, **SEARCH, processes=1))
    two = untimed(verification.verified(names, **SEARCH, processes=2))
    assert one == two
    assert set(one) == set(names)


def test_a_report_goes_into_json_and_back():
    report = verification.verify("T1", examples=10, seed=0, with_proofs=True)
    assert json.loads(json.dumps(report, allow_nan=False)) == json.loads(json.dumps(report))
    assert report["passed"]
    assert [one["verdict"] for one in report["proofs"]] == ["proved"] * 4
    assert all(edge["why"] for one in report["proofs"] for edge in one["edges"])


def test_a_record_is_not_repeated(tmp_path, monkeypatch):
    path = tmp_path / "searches" / "record.jsonl"
    run("T1", "T12", "--examples", 60, "--processes", 1, "--record", path)
    before = path.read_text()
    assert len(before.splitlines()) == 2
    again = json.loads(run("T1", "T12", "--examples", 60, "--record", path, "--json"))
    assert path.read_text() == before
    assert [one["seconds"] for one in again["claims"]] == [json.loads(line)["seconds"] for line in before.splitlines()]
    run("T1", "T12", "--examples", 61, "--processes", 1, "--record", path)
    assert len(path.read_text().splitlines()) == 4  # another search is another report
    monkeypatch.setattr(verification, "code_of", lambda claim: "changed")
    run("T1", "--examples", 60, "--record", path)
    assert len(path.read_text().splitlines()) == 5  # and so is that of other code


@pytest.mark.parametrize("line", ["half a li", "[1, 2]", '{"claim": "T1"}'])
def test_a_record_that_is_none_is_refused(tmp_path, line):
    path = tmp_path / "record.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(Refusal, match="line 1: not a report of verify; remove the line"):
        verification.Record(path).reports(["T1"], **SEARCH)
    assert "remove the line" in run("T1", "--record", path, code=2)


def test_a_fingerprint_of_code_follows_the_functions_a_claim_uses():
    decoding, capacity = (verification.code_of(claims.get(name)) for name in ("T1", "T7"))
    assert decoding == verification.code_of(claims.get("T2"))
    assert decoding != capacity


def test_a_proof_that_fails_fails_the_check_and_names_the_box(monkeypatch):
    (first, *rest) = inequalities()["T25"]
    false = dataclasses.replace(first, variables=(proof.variable("x", 0, 3),))
    monkeypatch.setattr(verification, "inequalities", lambda: {"T1": [false, *rest]})
    output = run("T1", "--prove", "--examples", 20, code=1)
    assert "1 of 2" in output
    assert f"{first.name}: refuted at " in output
    assert first.statement in " ".join(output.split())


def test_a_control_that_stands_is_said(monkeypatch):
    claim = claims.get("T3")
    monkeypatch.setattr(type(claim), "control_slack", lambda self, case: 1.0)
    assert "the negative control stood 2000 examples" in run("T3", "--examples", 5, code=1)


def test_a_witness_off_its_bound_is_said(monkeypatch):
    claim = claims.get("T3")
    monkeypatch.setattr(type(claim), "gap", lambda self, case: 0.5)
    assert "a witness is 0.5 from equality" in run("T3", "--examples", 5, code=1)


def test_lines_come_in_the_order_of_the_claims(monkeypatch):
    reports = [(verification.verify(name, **SEARCH), []) for name in ("T12", "T1", "F5")]  # as processes finish them
    monkeypatch.setattr(verify_command, "verified", lambda *_, **__: iter(reports))
    output = run("F5", "T12", "T1")
    assert [line.split()[0] for line in output.splitlines()] == ["claim", "F5", "T12", "T1"]


def test_list_states_the_inequalities_too():
    assert "On a box: e^-l > 1 - e^-l" in " ".join(run("T1", "--list").split())
    shown = json.loads(run("T5", "--list", "--json"))
    assert [one["name"] for one in shown["T5"]["inequalities"]] == [one.name for one in inequalities()["T5"]]

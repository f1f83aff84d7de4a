"""The command `facts`, through its runner and through the root command."""

import json

import pytest
from click.testing import CliRunner

from figures.cli import main
from sims.fact_files import read_facts
from sims.facts_cli import facts
from sims.synthetic import SyntheticLaw
from theory.console import REFUSED, Refusal

FILE = "question,answer\nFrance?,Paris\nFrance?,Lyon\nSpain?,Madrid\nspain?,Madrid\nSpain?,Madrid\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "capitals.csv"
    path.write_text(FILE)
    return path


def run(*arguments):
    return CliRunner().invoke(facts, [str(argument) for argument in arguments])


def test_report_in_words(file):
    result = run(file)
    assert result.exit_code == 0
    for words in [
        "CSV with commas, UTF-8",
        "5: 2 kept as facts, 1 merged as exact repetitions, 2 set aside",
        "3, of which 1 have several answers",
        "1 questions differ only in case",
        "0.0000 bits per fact",
        "'France?': 'Paris' (line 2), 'Lyon' (line 3)",
    ]:
        assert words in result.output


def test_report_as_json_names_every_conflict(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("question,answer\n" + "".join(f"q{n},a\nq{n},b\n" for n in range(9)) + "r,c\n")
    document = json.loads(run(path, "--json").output)
    assert (document["rows"], document["facts"], document["rows_set_aside"]) == (19, 1, 18)
    assert [conflict["question"] for conflict in document["conflicts"]] == [f"q{n}" for n in range(9)]
    assert document["conflicts"][1]["answers"] == {"a": [4], "b": [5]}
    assert "and 4 more; --json names them all" in run(path).output


def test_policy_and_columns_reach_the_reader(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("frage,antwort\nq,a\nq,b\n")
    document = json.loads(
        run(path, "--question-column", "frage", "--answer-column", "antwort", "--conflicts", "keep", "--json").output
    )
    assert (document["facts"], document["policy"], document["answer_entropy_bits"]) == (2, "keep", 1.0)


@pytest.mark.parametrize(
    ("flags", "law"),
    [
        ([], SyntheticLaw(0)),
        (["--answers", "string32", "--seed", "5"], SyntheticLaw.string32(5)),
        (["--answers", "100", "--answer-tokens", "3", "--law", "zipf"], SyntheticLaw(0, 100, "zipf", answer_tokens=3)),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_generated_file_is_read_back_exactly(tmp_path, flags, law, ending):
    path = tmp_path / f"made.{ending}"
    result = run("--generate", 200, "--out", path, *flags)
    assert result.exit_code == 0
    assert f"{law.answer_entropy_bits():.4g} bits each" in result.output
    read = read_facts(path, conflicts="refuse")
    assert (list(read.questions), list(read.answers)) == law.texts(200)
    assert read.report.distinct_questions == 200


def test_generated_file_of_fewer_facts_is_a_prefix(tmp_path):
    for count in (10, 50):
        assert run("--generate", count, "--out", tmp_path / f"{count}.csv").exit_code == 0
    assert (tmp_path / "50.csv").read_text().startswith((tmp_path / "10.csv").read_text())


def test_nothing_is_overwritten(file):
    result = run("--generate", 3, "--out", file)
    assert isinstance(result.exception, Refusal)
    assert file.read_text() == FILE


@pytest.mark.parametrize(
    "arguments",
    [[], ["--generate", "3"], ["x.csv", "--generate", "3"], ["x.csv", "--out", "y.csv"], ["--answers", "few"]],
)
def test_wrong_use_is_explained(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.output


@pytest.mark.parametrize(
    "flags",
    [["--answers", "1"], ["--answers", "string32", "--answer-tokens", "2"], ["--question-tokens", "1"]],
)
def test_impossible_facts_are_refused(tmp_path, flags):
    result = run("--generate", 100, "--out", tmp_path / "made.csv", *flags)
    assert isinstance(result.exception, Refusal)
    assert not (tmp_path / "made.csv").exists()


def test_the_root_command_refuses_in_one_line(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("question,answer\nq\n")
    result = CliRunner().invoke(main, ["facts", str(path)])
    assert result.exit_code == REFUSED
    assert result.output.startswith(f"Error: {path}: line 2: ")
    assert result.output.count("\n") == 1

"""The application of memory experts: a file of facts becomes a folder that answers exactly, or says unknown."""

import csv
import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from figures.cli import main
from sims.fact_files import read_facts
from sims.memory import known
from sims.memory.decoding import greedy
from sims.memory.folder import Settings
from sims.memory.known import question_tokens
from sims.memory.memory import Memory
from sims.memory.model import given_model
from tests.sims.memory_making import (
    FACTS,
    PLAIN,
    SETTINGS,
    assert_all_right,
    contents,
    mome,
    store,
    written,
)
from theory.console import CHECK_FAILED, MOST_SEED, REFUSED, Refusal


def test_a_new_process_answers_every_fact_from_the_files(stored, tmp_path):
    facts = written(tmp_path / "facts.csv", FACTS)
    command = f"from figures.cli import main; main(['mome', 'check', {str(stored)!r}, {str(facts)!r}, '--json'])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["facts"], report["right"], report["failures"]) == (len(FACTS), len(FACTS), [])
    assert report["least_probability"] > 0.5


def test_conflicting_rows_are_named_every_one_of_them(stored):
    with (stored / "conflicts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    first = len(FACTS) + 2
    # Lines are counted in the file, where some facts take several.
    lines = [int(line) for line, *_ in rows[1:]]
    assert rows[0] == ["line", "question", "answer"]
    assert [row[1:] for row in rows[1:]] == [["who is it?", answer] for answer in ("she", "he", "she")]
    assert lines == [lines[0], lines[0] + 1, lines[0] + 2]
    assert lines[0] >= first


def test_a_question_is_normalized_before_it_is_asked(stored):
    with Memory.load(stored) as memory:
        assert memory.ask("WHO leads Group 3?").is_exactly("Name 10")
        assert not memory.ask("who leads  group 3?").known  # spaces were not asked to be ignored


def test_an_answer_says_with_what_probability_and_from_which_experts(stored):
    with Memory.load(stored) as memory:
        answer = memory.ask("One byte?")
    assert len(answer.probabilities) == 2  # the byte and the end
    assert min(answer.probabilities) == answer.least_probability > 0.5
    assert answer.experts is not None
    assert answer.experts.shape == (2, SETTINGS.chosen)
    assert ((answer.experts >= 0) & (answer.experts < SETTINGS.experts)).all()
    assert len(np.unique(answer.experts)) > SETTINGS.chosen  # the end has experts of its own


def test_an_unknown_question_passes_the_backbone_bit_for_bit_and_names_what_is_near(stored):
    questions = ["who leads group 21?", "who leads group 5", "entirely different", "who leads group 5?"]
    with Memory.load(stored) as memory:
        answers = memory.ask_all(questions)
        assert [answer.known for answer in answers] == [False, False, False, True]
        assert answers[0].text is None
        assert answers[1].nearest[0][0] == "who leads group 5?"
        asked = memory.index.asked(questions, memory.settings)
        with_memory = memory.decode(questions, asked)
        alone = greedy(memory.backbone, *question_tokens(questions), end=257, room=memory.room)
    np.testing.assert_array_equal(with_memory.tokens[:3], alone.tokens[:3])
    assert with_memory.probabilities[:3].tobytes() == alone.probabilities[:3].tobytes()
    assert not with_memory.accepted[:3].any()
    assert with_memory.tokens[3].tolist() != alone.tokens[3].tolist()


def test_what_cannot_be_a_stored_question_is_unknown_or_refused(stored):
    with Memory.load(stored) as memory:
        assert not memory.ask("x" * 5000).known  # longer than anything the backbone reads
        for text in ("", " \n", "a\0b", "\ud800"):
            with pytest.raises(Refusal, match="a question"):
                memory.ask(text)
        with pytest.raises(Refusal, match="has 97 tokens, and the backbone reads at most 95"):
            memory.decode(["x" * 96], memory.index.asked(["x" * 96], memory.settings))


def test_one_long_question_does_not_make_all_others_long(monkeypatch):
    """Fingerprints are those of each question alone, and no array has a row of the longest for each of many."""
    questions = [*(f"{number}?" for number in range(2100)), "x" * 300, "x" * 50_000, *["y" * 9000] * 1000]
    asked, sizes = (0, 2099, 2100, 2101, 2102, 3101), []
    alone = np.concatenate([known.fingerprints_of([questions[row]], 3) for row in asked])

    def recorded(some):
        tokens, lengths = question_tokens(some)
        sizes.append(tokens.size)
        return tokens, lengths

    monkeypatch.setattr(known, "question_tokens", recorded)
    found = known.fingerprints_of(questions, 3)
    np.testing.assert_array_equal(found[list(asked)], alone)
    assert len(np.unique(found, axis=0)) == len(questions) - 999
    assert max(sizes) <= 2**22


def test_the_example_of_the_readme_runs(stored, tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(from sims.memory.*?)```", readme, flags=re.DOTALL)
    assert found is not None
    (tmp_path / "memory").symlink_to(stored)
    monkeypatch.chdir(tmp_path)
    exec(found[1].replace("What is the capital of Chile?", PLAIN[0][0]))
    assert capsys.readouterr().out == PLAIN[0][1] + "\n"


def test_check_lists_failures_and_fails(stored, tmp_path):
    rows = [*FACTS, ("never seen?", "no"), ("who leads group 1?", "Somebody else")]
    del rows[1]  # what was stored for this question
    result = mome("check", stored, written(tmp_path / "facts.csv", rows), "--json", "--quiet")
    assert result.exit_code == CHECK_FAILED
    report = json.loads(result.output)
    assert (report["facts"], report["right"], report["unknown"]) == (len(rows), len(rows) - 2, 1)
    assert [(row["question"], row["answer"]) for row in report["failures"]] == [
        ("never seen?", None),
        ("who leads group 1?", "Name 37"),
    ]
    shown = mome("check", stored, tmp_path / "facts.csv", "--quiet")
    assert "'never seen?': 'no', not unknown" in shown.output


def test_export_gives_the_facts_back(stored, tmp_path):
    target = tmp_path / "back.csv"
    assert mome("export", stored, "--to", target, "--quiet").exit_code == 0
    back = read_facts(target)
    expected = read_facts(stored / "facts.csv")
    assert (back.questions, back.answers) == (expected.questions, expected.answers)
    assert dict(zip(back.questions, back.answers, strict=True)) == {q.casefold(): a for q, a in FACTS}
    assert mome("export", stored, "--quiet").stdout_bytes == target.read_bytes()
    assert "exists already" in mome("export", stored, "--to", target).output
    packed = tmp_path / "back.jsonl.gz"
    assert mome("export", stored, "--to", packed, "--quiet").exit_code == 0
    assert gzip.decompress(packed.read_bytes()).startswith(b'{"question": "who leads group 0?", "answer": "Name 0"}\n')
    assert (read_facts(packed).questions, read_facts(packed).answers) == (expected.questions, expected.answers)


def test_ask_answers_a_question_a_file_and_a_prompt(stored, tmp_path):
    assert mome("ask", stored, "who leads group 2?").output.splitlines()[0] == "Name 74"
    unknown = mome("ask", stored, "who leads group 2 now?").output.splitlines()
    assert unknown[0] == "unknown"
    assert unknown[1].startswith("  near")
    assert unknown[1].endswith("who leads group 2?")
    questions = tmp_path / "questions.csv"
    questions.write_text("question\nwho leads group 2?\nwho else?\n", encoding="utf-8")
    assert mome("ask", stored, "--file", questions).output.splitlines() == ["Name 74", "unknown"]
    answers = json.loads(mome("ask", stored, "--file", questions, "--json").output)["answers"]
    assert [(answer["known"], answer["answer"]) for answer in answers] == [(True, "Name 74"), (False, None)]
    typed = CliRunner().invoke(main, ["mome", "ask", str(stored)], input="who leads group 2?\nwho else?\n\nnot read\n")
    assert [line for line in typed.stdout.splitlines() if not line.startswith(" ")] == ["Name 74", "unknown"]
    assert mome("ask", stored, "one", "--file", questions).exit_code == REFUSED


def test_the_prompt_takes_lines_as_they_are_and_goes_on_after_one_that_cannot_be_asked(stored):
    lines = [b" who leads group 2?", b"a\0b", b"\xff?", b"who leads group 2?"]
    done = CliRunner().invoke(main, ["mome", "ask", str(stored)], input=b"\n".join(lines))
    assert done.stdout.splitlines() == ["unknown", "Name 74"]  # the first has a space that was not stored
    refused = [line for line in done.stderr.splitlines() if line.startswith("a question holds")]
    assert refused == [
        "a question holds a NUL character; remove it",
        "a question holds half a surrogate pair, which is no character; correct it",
    ]
    assert done.exit_code == REFUSED


def test_the_report_proposes_a_command_that_works(folder, tmp_path):
    rows = [('What\'s "this" & $HOME?', "it")]
    store(tmp_path / "one", rows)
    again = mome(
        "memorize", tmp_path / "one.csv", "--out", tmp_path / "one", "--normalize", "casefold", "--experts", 1024
    )
    assert again.exit_code == 0, again.output
    assert "1 of 1 facts stored" in again.output
    words = shlex.split(again.output.splitlines()[-1].removeprefix("ask it: "))
    assert mome(*words[2:]).output.splitlines()[0] == "it"


# Other addresses and settings


def test_nearest_addresses_answer_a_paraphrase_and_not_what_is_far(tmp_path):
    random = np.random.default_rng(0)  # names that have next to nothing in common
    names = ["".join(random.choice(list("abcdefghiklmnoprstuvyz"), 9)).title() for _ in range(60)]
    rows = [(f"Where was {name} born?", f"in {name[::-1]}") for name in names]
    folder = tmp_path / "nearest"
    settings = Settings(experts=8192, addresses="nearest", false_acceptance=0.2)
    assert store(folder, rows, settings)["stored"] == len(rows)
    with Memory.load(folder) as memory:
        assert np.isfinite(memory.index.radius)
        answers = memory.ask_all([f"{name} was born where?" for name in names])
        strange = memory.ask_all([f"Which color has item {number}?" for number in range(50)])
        exact = memory.ask_all([question for question, _ in rows])
    assert all(answer.is_exactly(stored) for answer, (_, stored) in zip(exact, rows, strict=True))
    right = [answer.is_exactly(stored) for answer, (_, stored) in zip(answers, rows, strict=True)]
    assert np.mean(right) > 0.7
    assert np.mean([answer.known for answer in strange]) <= 0.2


def test_a_backbone_is_used_again_and_must_fit(stored, tmp_path):
    rows = [("another?", "fact")]
    store(tmp_path / "second", rows, model=given_model(stored))
    assert (tmp_path / "second" / "backbone.safetensors").read_bytes() == (stored / "backbone.safetensors").read_bytes()
    assert_all_right(tmp_path / "second", rows)
    for source, message in [(tmp_path / "nowhere", "neither a checkpoint"), (stored, "the backbone reads 96")]:
        with pytest.raises(Refusal, match=message):
            store(tmp_path / "third", [("long?", "x" * 120)], model=given_model(source))
        assert not (tmp_path / "third").exists()


def test_a_plan_writes_nothing(stored, tmp_path):
    facts = written(tmp_path / "facts.csv", FACTS)
    planned = json.loads(mome("memorize", facts, "--out", tmp_path / "new", "--plan", "--json").output)
    tokens = sum(len(answer.encode()) + 1 for _, answer in FACTS)
    assert planned["answer tokens"] == tokens
    assert planned["experts"] == 1 << (4 * tokens - 1).bit_length()
    assert planned["bank bytes"] == planned["experts"] * 128 * 4
    assert not (tmp_path / "new").exists()
    before = contents(stored)
    words = ["memorize", tmp_path / "facts.csv", "--experts", 1024, "--normalize", "casefold", "--json", "--plan"]
    assert json.loads(mome(*words, "--out", stored, "--fresh").output)["folder"].endswith("is deleted)")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes").touch()
    # The memory has three rows more, which were set aside: their facts are the same, and its seed is not.
    assert json.loads(mome(*words, "--out", stored).output)["folder"] == f"{stored} (complete already)"
    for flags, message in [
        (["--out", tmp_path / "else"], "holds 'notes' and no memory; choose another folder"),
        (["--out", stored, "--seed", 1], "holds a memory of other facts or settings"),
    ]:
        planned, done = mome(*words, *flags), mome(*words[:-1], *flags)
        assert (planned.exit_code, done.exit_code) == (REFUSED, REFUSED)
        assert message in planned.output
        assert message in done.output
    more = written(tmp_path / "more.csv", [("new?", "x"), *FACTS[:2]])
    assert json.loads(mome("add", stored, more, "--plan", "--json").output)["facts to add"] == 1
    assert contents(stored) == before


def test_seeds_are_those_that_random_keys_take(tmp_path):
    words = ["memorize", written(tmp_path / "facts.csv", PLAIN), "--out", tmp_path / "new", "--plan", "--seed"]
    assert mome(*words, MOST_SEED).exit_code == 0
    largest = 40 * (MOST_SEED + 10)  # of the worlds of a later seed
    assert int(jax.random.key_data(jax.random.key(largest))[1]) == largest
    refused = mome(*words, MOST_SEED + 1)
    assert refused.exit_code == REFUSED
    assert f"--seed': {MOST_SEED + 1} is not in the range" in refused.output


def test_a_memory_that_could_not_store_all_says_so_and_goes_on_with_the_rest(tmp_path):
    """One pass at a high load leaves some facts above the threshold."""
    rows = [(f"number {number}?", f"answer {number * 7919 % 1009}") for number in range(24)]
    folder = tmp_path / "tight"
    tight = Settings(experts=300)
    report = store(folder, rows, tight, most_passes=1)
    assert 0 < report["stored"] < len(rows)
    failed = read_facts(folder / "not_stored.csv")
    assert len(failed) == len(rows) - report["stored"]
    with Memory.load(folder) as memory:
        answers = memory.ask_all([question for question, _ in rows])
    right = {question for (question, stored), one in zip(rows, answers, strict=True) if one.is_exactly(stored)}
    assert right == {question for question, _ in rows} - set(failed.questions)
    again = mome("memorize", tmp_path / "tight.csv", "--out", folder, "--experts", 300, "--quiet")
    assert again.exit_code == CHECK_FAILED
    assert "not_stored.csv" in again.output
    roomy = store(folder, rows, Settings(experts=1024), fresh=True)
    assert roomy["stored"] == len(rows)
    assert not (folder / "not_stored.csv").exists()

"""The application of memory experts: a file of facts becomes a folder that answers exactly, or says unknown."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from figures.cli import main
from sims.fact_files import read_facts, write_facts
from sims.memory import changing
from sims.memory.adding import add
from sims.memory.changing import change_fact, undo_last
from sims.memory.decoding import greedy
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity
from sims.memory.known import question_tokens
from sims.memory.memorizing import memorize
from sims.memory.memory import Memory
from sims.memory.saved import bank_values
from theory.console import CHECK_FAILED, REFUSED, Refusal

SIZES = {"context": 96, "width": 32, "layers": 1, "heads": 2}  # of a backbone that nobody waits for
SETTINGS = Settings(experts=1024, normalize="casefold", false_acceptance=0.01)
AWKWARD = [
    ('Comma, "quotes"?', 'He said "no", twice'),
    ("Line\nbreak?", "first\nsecond\r\nthird"),
    (
        "\u0645\u0627 \u0639\u0627\u0635\u0645\u0629 \u0645\u0635\u0631\u061f",
        "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
    ),
    ("\U0001f600?", "\U0001f469\u200d\U0001f680 \U0001f1e8\U0001f1f1"),
    ("Blank around?", "  a \t"),
    ("Replacement?", "\ufffd\ufffd"),
    ("One byte?", "x"),
    ("=1+1", "'; DROP TABLE facts; --"),
]
PLAIN = [(f"who leads group {number}?", f"Name {number * 37 % 101}") for number in range(20)]
FACTS = PLAIN + AWKWARD
CONFLICTING = [("who is it?", "she"), ("Who is it?", "he"), ("WHO is it?", "she")]  # one question once folded


def written(path: Path, rows) -> Path:
    write_facts(path, *zip(*rows, strict=True))
    return path


def facts_of(path: Path, rows, settings: Settings = SETTINGS):
    path.unlink(missing_ok=True)
    return read_facts(written(path, rows), identity=Identity.parse(settings.normalize))


def store(folder: Path, rows, settings: Settings = SETTINGS, **options):
    facts = facts_of(folder.with_name(folder.name + ".csv"), rows, settings)
    options = {"backbone_sizes": SIZES, "pretrain_seconds": 0.0, "quiet": True} | options
    return memorize(facts, Folder(folder), settings, **options)


def mome(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["mome", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def assert_all_right(folder: Path, rows) -> None:
    with Memory.load(folder) as memory:
        for (_, stored), answer in zip(rows, memory.ask_all([question for question, _ in rows]), strict=True):
            assert answer.is_exactly(stored), (stored, answer)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "memory"
    report = store(folder, FACTS + CONFLICTING)
    assert (report["facts"], report["stored"], report["set_aside_rows"]) == (len(FACTS), len(FACTS), 3)
    return folder


@pytest.fixture
def folder(stored, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(stored, tmp_path / "memory"))


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
        with pytest.raises(Refusal, match="at most 94 bytes"):
            memory.decode(["x" * 96], memory.index.asked(["x" * 96], memory.settings))


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


# More facts, single facts


def test_added_facts_are_stored_beside_the_old_ones_and_contradictions_are_named(folder, tmp_path):
    before = (folder / "conflicts.csv").read_text(encoding="utf-8")
    new = [("new one?", "first"), ("Who leads group 4?", "not Name 47"), ("new two?", "a"), ("New two?", "b")]
    new += [("new three?", "x"), ("who leads group 5?", "Name 84")]
    result = mome("add", folder, written(tmp_path / "more.csv", new), "--quiet", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert (report["added"], report["facts"], report["stored"]) == (2, len(FACTS) + 2, len(FACTS) + 2)
    assert report["contradicting"] == [
        {"line": 3, "question": "who leads group 4?", "answer": "not Name 47", "stored": "Name 47"}
    ]
    assert_all_right(folder, [*FACTS, ("new one?", "first"), ("new three?", "x")])
    after = (folder / "conflicts.csv").read_text(encoding="utf-8")
    assert after.removeprefix(before).splitlines() == [
        "3,who leads group 4?,not Name 47",
        "4,new two?,a",
        "5,new two?,b",
    ]
    named = mome("add", folder, tmp_path / "more.csv", "--quiet")
    assert "0 facts were new" in named.output
    assert "'Name 47' is stored, 'not Name 47' is not" in named.output
    refused = mome("add", folder, tmp_path / "more.csv", "--conflicts", "refuse", "--quiet")
    assert refused.exit_code == REFUSED


def test_adding_nothing_new_changes_nothing(folder, tmp_path):
    before = contents(folder)
    report = add(facts_of(tmp_path / "same.csv", FACTS[3:9]), Folder(folder), quiet=True)
    assert (report["added"], report["stored"]) == (0, len(FACTS))
    assert contents(folder) == before


def test_facts_can_be_added_when_the_states_are_gone(folder, tmp_path):
    (folder / "states.npy").unlink()
    add(facts_of(tmp_path / "more.csv", [("new one?", "first")]), Folder(folder), quiet=True)
    assert_all_right(folder, [*FACTS, ("new one?", "first")])


def test_more_than_can_be_stored_is_refused_before_anything_is_written(folder, tmp_path):
    many = [(f"q {number}", "a long answer that takes room") for number in range(40)]
    before = contents(folder)
    with pytest.raises(Refusal, match=r"tokens are more than 1,024 experts.*--experts 8192"):
        add(facts_of(tmp_path / "many.csv", many), Folder(folder), quiet=True)
    assert contents(folder) == before
    with pytest.raises(Refusal, match="more than 64 experts"):
        store(tmp_path / "never", many, Settings(experts=64))
    assert not (tmp_path / "never").exists()
    assert mome("add", folder, tmp_path / "many.csv", "--plan").exit_code == REFUSED


def test_an_edit_is_done_and_taken_back_to_the_same_bits(folder):
    kept = ("bank.safetensors", "facts.csv", "index.safetensors")
    states = []

    def state():
        return bank_values(Folder(folder)).tobytes(), *(contents(folder)[name] for name in kept[1:])

    edits = [("who leads group 7?", "A new leader"), ("who was added?", "a fact"), ("One byte?", None)]
    facts = dict(FACTS)
    for question, answer in edits:
        states.append(state())
        changed = change_fact(Folder(folder), question, answer)
        assert changed.done
        assert changed.left < 1e-3
        assert all(one.worst_token_nats < SETTINGS.threshold_nats for one in changed.moved)
        facts.pop(question, None)
        if answer is not None:
            assert changed.worst_token_nats is not None
            assert changed.worst_token_nats < SETTINGS.threshold_nats
            facts[question] = answer
        assert_all_right(folder, list(facts.items()))
    with Memory.load(folder) as memory:
        assert not memory.ask("One byte?").known
    for (question, answer), before in reversed(list(zip(edits, states, strict=True))):
        undone = undo_last(Folder(folder))
        assert (undone.question, undone.before) == (question.casefold(), answer)
        assert state() == before
    assert_all_right(folder, FACTS)
    with pytest.raises(Refusal, match="no edit is left"):
        undo_last(Folder(folder))


def test_an_edit_moves_only_who_is_named_and_as_far_as_is_said(folder):
    """Against the bank itself: what every other fact reads, before and after."""
    with Memory.load(folder) as memory:
        selections = {answer.question: np.array(answer.experts) for answer in memory.ask_all([q for q, _ in FACTS])}
        before = np.array(bank_values(Folder(folder)))
    changed = change_fact(
        Folder(folder), "a question of many bytes?", "an answer of very many bytes, so that rows meet"
    )
    after = np.array(bank_values(Folder(folder)))
    rows = np.flatnonzero((before != after).any(axis=1))
    assert len(rows) == changed.rows > 0
    readers = {q.casefold() for q, experts in selections.items() if np.isin(experts, rows).any()}
    assert {one.question for one in changed.moved} == readers
    assert changed.others == len(FACTS)


def test_an_edit_in_a_full_bank_is_repaired_by_passes_over_all_facts(tmp_path, monkeypatch):
    """At a load of .8 nobody can be left alone: without the passes the edit is refused, with them all is stored."""
    tokens = sum(len(answer.encode()) + 1 for _, answer in PLAIN)
    store(tmp_path / "full", PLAIN, replace(SETTINGS, experts=int(tokens / 0.8)))
    edit = Folder(tmp_path / "full"), "who was added late?", "somebody"
    with monkeypatch.context() as without:
        without.setattr(changing._Stored, "_repaired", lambda self, plan, *_: plan)
        assert not change_fact(*edit).done
    assert change_fact(*edit).done
    assert_all_right(tmp_path / "full", [*PLAIN, edit[1:]])
    undo_last(edit[0])
    assert_all_right(tmp_path / "full", PLAIN)


def test_edits_that_cannot_be_made_change_nothing(folder):
    before = contents(folder)
    for question, answer, message in [
        ("who leads group 1?", "Name 37", "has that answer already"),
        ("nobody asked?", None, "is not stored"),
        ("who leads group 1?", " ", "the answer is empty"),
        ("", "x", "the question is empty"),
        ("who?", "\ud800", "half a surrogate"),
        ("who?", "x" * 200, "the backbone reads 96"),
    ]:
        with pytest.raises(Refusal, match=message):
            change_fact(Folder(folder), question, answer)
        assert contents(folder) == before, message
    for words in (["q"], ["q", "--answer", "a", "--delete"], ["--answer", "a"], ["q", "--undo"]):
        assert mome("edit", folder, *words).exit_code == REFUSED


def test_an_edit_from_before_facts_were_added_cannot_be_taken_back(folder, tmp_path):
    change_fact(Folder(folder), "who leads group 7?", "Another")
    add(facts_of(tmp_path / "more.csv", [("new one?", "first")]), Folder(folder), quiet=True)
    with pytest.raises(Refusal, match="no edit is left"):
        undo_last(Folder(folder))


def test_who_asks_keeps_others_from_changing_the_rows_he_reads(folder):
    with Memory.load(folder) as memory:
        before = contents(folder)
        with pytest.raises(Refusal, match="open elsewhere"):
            change_fact(Folder(folder), "who leads group 7?", "Another")
        after = contents(folder)
        assert after["memory.json"] == before["memory.json"]  # nothing is pending
        assert memory.ask("who leads group 7?").is_exactly("Name 57")
    assert change_fact(Folder(folder), "who leads group 7?", "Another").done


def test_one_process_writes_at_a_time(folder):
    with Folder(folder).only_writer(), pytest.raises(Refusal, match="another process is writing"):
        change_fact(Folder(folder), "who leads group 7?", "Another")


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
    store(tmp_path / "second", rows, backbone_from=Folder(stored))
    assert (tmp_path / "second" / "backbone.safetensors").read_bytes() == (stored / "backbone.safetensors").read_bytes()
    assert_all_right(tmp_path / "second", rows)
    for source, message in [(tmp_path / "nowhere", "cannot be read"), (stored, "the backbone reads 96")]:
        with pytest.raises(Refusal, match=message):
            store(tmp_path / "third", [("long?", "x" * 120)], backbone_from=Folder(source))
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
    more = written(tmp_path / "more.csv", [("new?", "x"), *FACTS[:2]])
    assert json.loads(mome("add", stored, more, "--plan", "--json").output)["facts to add"] == 1
    assert contents(stored) == before


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


# Folders that are not what they should be


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("memory.json", lambda content: b"{"),
        ("memory.json", lambda content: b'{"format": 2}'),
        ("memory.json", lambda content: content.replace(b'"experts": 1024', b'"experts": "1024"')),
        (
            "memory.json",
            lambda content: content.replace(b'"format": 1', b'"format": 1, "pending": {"files": ["../x"]}'),
        ),
        ("bank.safetensors", lambda content: content[:-1]),
        ("backbone.safetensors", lambda content: content[:500] + b"\x01" + content[501:]),
        ("index.safetensors", lambda content: b"nothing"),
        ("index.safetensors", None),
    ],
)
def test_a_damaged_memory_is_refused_in_one_line(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        assert damage(content) != content
        path.write_bytes(damage(content))
    for words in (["ask", folder, "who leads group 2?"], ["edit", folder, "who?", "--answer", "me"]):
        result = mome(*words)
        assert result.exit_code == REFUSED, result.output
        assert len(result.output.splitlines()) == 1
        assert str(folder) in result.output


def test_a_damaged_row_is_noticed_when_it_is_read(folder):
    with Memory.load(folder) as memory:
        experts = memory.ask("One byte?").experts
        assert experts is not None
        row = int(experts[0, 0])
    bank = folder / "bank.safetensors"
    content = bytearray(bank.read_bytes())
    values = np.array(bank_values(Folder(folder)))
    place = bytes(content).index(values[row].tobytes())
    content[place] ^= 1
    bank.write_bytes(content)
    with Memory.load(folder) as memory:
        with pytest.raises(Refusal, match="checksum"):
            memory.ask("One byte?")
        assert memory.ask("who leads group 2?").known


def test_no_folder_is_made_or_deleted_that_is_no_memory(stored, tmp_path):
    facts = written(tmp_path / "facts.csv", FACTS)
    for words in (["ask", "q"], ["edit", "q", "--answer", "a"], ["add", facts], ["check", facts], ["export"]):
        result = mome(words[0], tmp_path / "typo", *words[1:])
        assert result.exit_code == REFUSED, result.output
        assert "is no memory" in result.output
    assert not (tmp_path / "typo").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "facts.csv").write_text("question,answer\nmine,kept\n", encoding="utf-8")
    for flags in ([], ["--fresh"]):
        result = mome("memorize", facts, "--out", mine, *flags)
        assert result.exit_code == REFUSED
        assert "holds 'facts.csv' and no memory" in result.output
    assert (mine / "facts.csv").read_text(encoding="utf-8").endswith("mine,kept\n")


@pytest.mark.parametrize("what", ["file", "link", "header"])
def test_fresh_deletes_a_memory_and_nothing_else(folder, tmp_path, what):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "000001.safetensors").write_text("precious")
    if what == "file":
        (folder / "thesis.tex").write_text("precious")
    elif what == "link":
        (folder / "edits").symlink_to(outside)
    else:
        (folder / "memory.json").write_text('{"format": "of another program"}')
    before = contents(folder)
    with pytest.raises(Refusal, match=r"no part of a memory|not of format"):
        store(folder, FACTS[:2], fresh=True)
    assert contents(folder) == before
    assert (outside / "000001.safetensors").read_text() == "precious"


def test_other_facts_or_settings_do_not_overwrite_a_memory(folder):
    before = contents(folder)
    for rows, settings in [(FACTS[:5], SETTINGS), (FACTS + CONFLICTING, Settings(experts=2048, normalize="casefold"))]:
        with pytest.raises(Refusal, match="other facts or settings"):
            store(folder, rows, settings)
    assert contents(folder) == before
    assert store(folder, FACTS + CONFLICTING)["stored"] == len(FACTS)  # the same ones: nothing to do
    assert contents(folder) == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--normalize", "nfkc"],
        ["--conflicts", "keep"],
        ["--false-acceptance", "0.5"],
        ["--chosen", "9", "--experts", "8"],
        ["--experts", "8"],
        ["--threshold-nats", "nan"],
        ["--backbone", "nowhere"],
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(tmp_path, flags):
    facts = written(tmp_path / "facts.csv", FACTS)
    result = mome("memorize", facts, "--out", tmp_path / "new", *flags)
    assert result.exit_code == REFUSED, result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "new").exists()

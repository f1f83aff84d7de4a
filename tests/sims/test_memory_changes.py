"""More facts for a memory, and single ones changed: the others are kept, and what moved is said."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sims.memory import changing
from sims.memory.adding import add
from sims.memory.changing import change_fact, undo_last
from sims.memory.folder import Folder, Settings
from sims.memory.memory import Memory
from sims.memory.saved import bank_values
from tests.sims.memory_making import (
    FACTS,
    PLAIN,
    SETTINGS,
    assert_all_right,
    contents,
    facts_of,
    mome,
    store,
    written,
)
from theory.console import REFUSED, Refusal


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
        ("who?", "x" * 200, "the backbone reads 96; shorten it, or memorize all facts in a new folder"),
        ("who?", "x" * 2000, r"this edit: 1 of 1 facts have more than 1024 tokens.*: shorten them$"),
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

"""Files of two memories, or of one before and after a change, are refused as a memory; nothing large is read for it."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from mome_jax.disk import DiskBank
from mome_jax.row_files import Checksums
from mome_jax.saving import save
from sims.fact_files import read_facts, write_facts
from sims.memory.adding import add
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.changing import change_fact, undo_last
from sims.memory.folder import Folder
from sims.memory.memory import Memory
from tests.sims.memory_making import FACTS, PLAIN, SIZES, assert_all_right, contents, facts_of, mome, store
from theory.console import REFUSED, Refusal

BELONGS = "belongs to another state of this memory; restore the whole folder from one copy"
NEW = [("a new question?", "a new answer")]


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A memory of other answers, with a backbone of the same sizes."""
    folder = tmp_path_factory.mktemp("other") / "memory"
    store(folder, [(question, answer[::-1]) for question, answer in FACTS])
    arrays, header = ByteBackbone.fresh(jax.random.key(1), **SIZES).to_arrays()
    save(folder / "backbone.safetensors", arrays, header, overwrite=True)
    return folder


def refused_by_all(folder: Path, name: str, *, when_asked: bool = True) -> None:
    """Asking, editing and adding say so of this file, and change nothing."""
    before = contents(folder)
    more = facts_of(folder.parent / "more.csv", NEW)
    acts = [
        lambda: change_fact(Folder(folder), *NEW[0]),
        lambda: undo_last(Folder(folder)),
        lambda: add(more, Folder(folder), quiet=True),
    ]
    if Folder(folder).read_header()["edits"] == 0:
        del acts[1]
    for act in [lambda: Memory.load(folder).close(), *acts] if when_asked else acts:
        with pytest.raises(Refusal) as refused:
            act()
        assert str(refused.value) == f"{folder / name}: {BELONGS}"
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["bank.safetensors", "index.safetensors", "backbone.safetensors"])
def test_a_file_of_another_memory_is_refused(folder, other, name):
    source = other / name
    if name == "index.safetensors":  # that of the same questions is the same
        assert (folder / name).read_bytes() == source.read_bytes()
        store(other.parent / "fewer", PLAIN)
        source = other.parent / "fewer" / name
    shutil.copyfile(source, folder / name)
    refused_by_all(folder, name)
    result = mome("ask", folder, "One byte?")
    assert (result.exit_code, result.output) == (REFUSED, f"Error: {folder / name}: {BELONGS}\n")


def test_a_bank_of_another_size_is_refused(folder):
    (folder / "bank.safetensors").unlink()
    DiskBank.store(folder / "bank.safetensors", np.zeros((2048, SIZES["width"]), np.float32)).close()
    refused_by_all(folder, "bank.safetensors")


@pytest.mark.parametrize("change", ["added", "answered", "reworded"])
def test_a_table_changed_by_hand_is_refused(folder, change):
    facts = read_facts(folder / "facts.csv")
    questions, answers = list(facts.questions), list(facts.answers)
    if change == "added":
        questions, answers = [*questions, "mine?"], [*answers, "mine"]
    elif change == "answered":
        answers[3] = "another"
    else:
        questions[3] = "who leads the third group?"
    (folder / "facts.csv").unlink()
    write_facts(folder / "facts.csv", questions, answers)
    refused_by_all(folder, "facts.csv", when_asked=False)
    with Memory.load(folder) as memory:
        assert memory.ask("who leads group 3?").is_exactly("Name 10")  # the table has no part in it
        with pytest.raises(Refusal, match=BELONGS):
            memory.ask("who leads no group?")  # but in naming stored questions


def test_states_of_other_facts_are_not_taken_for_those_of_the_stored_ones(folder):
    states = np.load(folder / "states.npy")
    np.save(folder / "states.npy", states[::-1])
    with pytest.raises(Refusal, match=rf"states\.npy: {BELONGS}"):
        add(facts_of(folder.parent / "more.csv", NEW), Folder(folder), quiet=True)


def test_a_report_of_another_writing_is_not_told_as_this_one(folder, other):
    shutil.copyfile(other / "report.json", folder / "report.json")
    with pytest.raises(Refusal, match=rf"report\.json: {BELONGS}"):
        add(facts_of(folder.parent / "same.csv", FACTS[:2]), Folder(folder), quiet=True)


def test_files_from_before_or_after_an_edit_are_refused(folder):
    names = ("bank.safetensors", "index.safetensors", "facts.csv")
    copies = [contents(folder)]
    for question in ("who came first?", "who came last?"):
        assert change_fact(Folder(folder), question, "somebody").done
        copies.append(contents(folder))
    for now in (2, 1, 0):  # each time with the files of the other two states
        for then in {0, 1, 2} - {now}:
            for name in names:
                assert copies[then][name] != copies[now][name]
                (folder / name).write_bytes(copies[then][name])
                refused_by_all(folder, name, when_asked=name != "facts.csv")
                (folder / name).write_bytes(copies[now][name])
        if now:
            undo_last(Folder(folder))
    assert_all_right(folder, FACTS)


def test_opening_a_memory_reads_no_row_and_sums_no_checksums(stored, monkeypatch):
    def never(*_):
        raise AssertionError("the whole bank was read")

    for name in ("summed", "span", "take"):
        monkeypatch.setattr(Checksums, name, never)
    Memory.load(stored).close()

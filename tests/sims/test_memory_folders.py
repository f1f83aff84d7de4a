"""Folders that are no memory, a damaged one or one of something else: refused in a line, and nothing is changed."""

import contextlib
import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from sims.memory import memory as memory_module
from sims.memory.changing import change_fact
from sims.memory.folder import Folder, Settings
from sims.memory.memory import Memory
from sims.memory.saved import bank_values, write_states
from tests.sims.memory_making import CONFLICTING, FACTS, SETTINGS, contents, mome, store, written
from theory.console import REFUSED, Refusal


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("memory.json", lambda content: b"{"),
        ("memory.json", lambda content: b'{"format": 1}'),
        ("memory.json", lambda content: b"[" * 100_000),
        ("memory.json", lambda content: content.replace(b'"experts": 1024', b'"experts": 2048')),
        ("memory.json", lambda content: content.replace(b'"addresses": "exact"', b'"addresses": "learned"')),
        ("memory.json", lambda content: content.replace(b'"seed": 0', b'"seed": 1')),
        ("memory.json", lambda content: content.replace(b'"longest_answer"', b'"longest"')),
        ("memory.json", lambda content: content.replace(b'"format": 2', b'"format": 2, "pending": null')),
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


def test_help_does_not_wait_for_jax():
    program = """
import sys
from figures.cli import main
main(["mome", "memorize", "--help"], standalone_mode=False)
print("JAX" if "jax" in sys.modules else "no JAX")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--addresses [exact|nearest|mixed|learned]" in done.stdout
    assert done.stdout.splitlines()[-1] == "no JAX"


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
        ["--addresses", "mixed", "--chosen", "1"],
        ["--addresses", "learned", "--chosen", "16385", "--experts", "65536"],
        ["--addresses", "mixed", "--chosen", "32770", "--experts", "65536"],
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


@pytest.mark.parametrize(
    ("pending", "message"),
    [
        (
            {"files": ["../facts.csv"], "gone": [], "rows": None},
            r"memory\.json: what it says is pending makes no sense",
        ),
        ({"files": [["a"]], "gone": [], "rows": None}, r"memory\.json: what it says is pending makes no sense"),
        ({"files": [], "gone": [], "rows": "000007.safetensors"}, r"000007\.safetensors: cannot be read"),
    ],
)
def test_what_is_pending_and_cannot_be_completed_is_said_to_who_asks(folder, monkeypatch, pending, message):
    monkeypatch.setattr(memory_module, "_SECONDS_BETWEEN", 0.0)
    header = Folder(folder).read_header()
    Folder(folder).write_header(header | {"pending": pending})
    with pytest.raises(Refusal, match=message):
        Memory.load(folder)
    assert Folder(folder).read_header()["pending"] == pending
    Folder(folder).write_header(header)
    Memory.load(folder).close()


MINE = ["notes.next", "thesis.unfinished", ".facts.csv", "edits/notes.undo", "edits/thesis.next", "work/notes.txt"]
LEFT = [
    "bank.safetensors.next",
    "facts.csv.next.unfinished",
    ".index.safetensors.next.0123456789abcdef.unfinished",
    "memory.json.unfinished",
    "edits/000001.undo",
    "edits/000001.safetensors",
    "edits/.000001.safetensors.0123456789abcdef.unfinished",
    "work/pass.safetensors",
]


def test_a_writer_removes_what_a_killed_one_left_and_nothing_else(folder):
    before = contents(folder)
    for name in [*MINE, *LEFT]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("precious")
    (folder / "chapters.next").mkdir()
    (folder / "states.npy.next").mkdir()
    with Folder(folder).only_writer():
        pass
    assert not [name for name in LEFT if (folder / name).exists()]
    assert [(folder / name).read_text() for name in MINE] == ["precious"] * len(MINE)
    assert (folder / "chapters.next").is_dir()
    for name in MINE:  # each of them is enough to keep --fresh from deleting anything
        (folder / name).unlink()
    (folder / "chapters.next").rmdir()
    (folder / "states.npy.next").rmdir()
    for name in MINE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("precious")
        with pytest.raises(Refusal, match="no part of a memory, so nothing was deleted"):
            store(folder, FACTS[:2], fresh=True)
        (folder / name).unlink()
    assert contents(folder) == before


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'"x"', b"[" * 100_000])
def test_a_damaged_report_is_refused_in_one_line(folder, content):
    (folder / "report.json").write_bytes(content)
    facts = written(folder.parent / "facts.csv", FACTS + CONFLICTING)
    flags = ["--experts", "1024", "--normalize", "casefold"]
    for words in (["add", folder, facts], ["memorize", facts, "--out", folder, *flags], ["show", folder]):
        result = mome(*words)
        assert result.exit_code == REFUSED, result.output
        assert len(result.output.splitlines()) == 1
        assert f"{folder / 'report.json'}: " in result.output


@contextlib.contextmanager
def no_file_larger_than(size: int):
    """As on a full disk: the system writes no more than so many bytes of any file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_said_in_one_line_and_the_old_file_stays(folder):
    before, memory = contents(folder), Folder(folder)
    header, states = memory.read_header(), np.zeros((100, 32), np.float32)
    for name, write in (
        ("memory.json", lambda: memory.write_header(header)),
        ("states.npy", lambda: write_states(memory.states, states)),
    ):
        with no_file_larger_than(300), pytest.raises(Refusal) as refused:
            write()
        assert str(refused.value).startswith(f"{folder / name}: cannot be written (")
        assert str(refused.value).endswith("); make room, or move away what lies in its place")
    with memory.only_writer():
        assert contents(folder) == before


def test_a_file_where_the_edits_belong_is_said_in_one_line(folder):
    (folder / "edits").write_text("precious")
    before = contents(folder)
    with pytest.raises(Refusal, match=r"edits: cannot be written \(File exists\); .* move away what lies in its place"):
        change_fact(Folder(folder), "One byte?", None)
    assert contents(folder) == before


def test_files_that_cannot_reach_the_disk_do_not_take_their_places(folder, monkeypatch):
    memory = Folder(folder)
    before = contents(folder)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    memory.next(memory.report).write_text("{}")
    with monkeypatch.context() as once:
        once.setattr(os, "fsync", full)
        with pytest.raises(Refusal, match=r"cannot be written \(No space left on device\)"):
            memory.replace(memory.read_header(), [memory.report])
    with memory.only_writer():
        assert contents(folder) == before

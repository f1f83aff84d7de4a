"""A small memory for the tests: its facts, how it is stored, what is asked of it."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from figures.cli import main
from sims.fact_files import read_facts, write_facts
from sims.memory.folder import Folder, Settings
from sims.memory.identity import Identity
from sims.memory.memorizing import memorize
from sims.memory.memory import Memory

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


def stored_memory(places: pytest.TempPathFactory) -> Path:
    """A memory of FACTS, once per process: to be read alone."""
    folder = places.getbasetemp() / "stored" / "memory"
    if not folder.exists():
        folder.parent.mkdir()
        report = store(folder, FACTS + CONFLICTING)
        assert (report["facts"], report["stored"], report["set_aside_rows"]) == (len(FACTS), len(FACTS), 3)
    return folder

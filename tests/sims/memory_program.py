"""A program that writes a memory and is killed, again and again, at points of its own choice; see the test beside it.

    python memory_program.py FACTS MORE WHOLE INTERRUPTED

Each writing happens in a process of its own, forked before JAX starts. In the folder WHOLE none is killed. In the
folder INTERRUPTED each command is killed at every point in turn, and then given once more. Printed as JSON, for each
command: which of the points killed a process, and the checksums of the files of both folders afterwards.
"""

import json
import os
import pkgutil
import signal
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from mome_jax.saving import load
from sims.fact_files import read_facts
from sims.memory import memorizing, pretraining
from sims.memory.adding import add
from sims.memory.changing import change_fact, undo_last
from sims.memory.folder import Folder, Settings

Point = tuple[str, int, str]  # what is called, the how-manieth time, and whether the kill comes before it or after
SIZES = {"context": 64, "width": 32, "layers": 1, "heads": 2}
SETTINGS = Settings(experts=900)

MEMORIZE = [
    ("sims.memory.folder.Folder.write_header", 1, "before"),  # there is nothing but a lock
    ("os.fsync", 1, "before"),  # the header has no name yet
    ("sims.memory.memorizing.steps_within", 1, "after"),
    ("sims.memory.pretraining._step", 2, "after"),
    ("sims.memory.memorizing.save", 1, "before"),  # the backbone
    ("numpy.save", 1, "after"),  # the states have no name yet
    ("sims.memory.memorizing.Work._after_pass", 2, "after"),
    ("sims.memory.memorizing.Work._after_pass", 2, "after"),  # of the pass after that
    ("sims.memory.memorizing.DiskBank.store", 1, "before"),
    ("sims.memory.folder.Folder.replace", 1, "before"),
    ("sims.memory.folder.Folder._finish_replacing", 1, "before"),  # the header says what is pending
    ("sims.memory.folder.Folder._finish_replacing", 1, "after"),  # and still does
]
ADD = [
    ("sims.memory.memorizing.Work._after_pass", 2, "after"),
    ("sims.memory.folder.Folder.replace", 1, "before"),
    ("sims.memory.folder.Folder._finish_replacing", 1, "before"),
]
EDIT = [
    ("sims.memory.folder.Folder.replace", 1, "before"),
    ("mome_jax.journal.record", 1, "after"),  # no row has its place yet
]
UNDO = [("sims.memory.folder.Folder._finish_replacing", 1, "before")]


def main(facts: str, more: str, whole: Folder, interrupted: Folder) -> None:
    def memorize(folder: Folder) -> None:
        os.environ["MEASURED"] = f"{folder.path}.measured"
        options = {"backbone_sizes": SIZES, "pretrain_seconds": 9.0, "quiet": True}
        memorizing.memorize(read_facts(facts), folder, SETTINGS, **options)

    report = {}
    for act, points in (
        (memorize, MEMORIZE),
        (lambda folder: add(read_facts(more), folder, quiet=True), ADD),
        (lambda folder: change_fact(folder, "number 3?", None), EDIT),
        (undo_last, UNDO),
    ):
        assert not _dies(act, whole, None)
        killed = [_dies(act, interrupted, point) for point in points]
        edits = json.loads((interrupted.path / "memory.json").read_text())["edits"]
        if edits != json.loads((whole.path / "memory.json").read_text())["edits"]:
            assert not _dies(act, interrupted, None)  # else the edit was recorded, and is completed by whoever comes
        assert not _dies(_settle, interrupted, None)
        report[f"{len(report)}"] = [killed, _checksums(whole), _checksums(interrupted)]
    print(json.dumps(report))


def _settle(folder: Folder) -> None:
    with folder.only_writer():
        pass


def _steps(*_: object, **__: object) -> int:
    """In place of the clock, which says another number each time: one that was recorded has to count."""
    measured = Path(os.environ["MEASURED"])
    count = 1 + (int(measured.read_text()) if measured.exists() else 0)
    measured.write_text(str(count))
    return 3 if count <= 2 else 1  # the first one may be lost with the process that found it


def _checksums(folder: Folder) -> dict[str, int]:
    """Of every file whose bits the facts decide; banks have a random number in their header, so of their arrays."""
    found = {}
    for path in sorted(folder.path.rglob("*")):
        if path.suffix == ".safetensors":
            found |= {f"{path.name}/{name}": zlib.crc32(array.tobytes()) for name, array in load(path)[0].items()}
        elif path.is_file() and path.name not in ("memory.json", "report.json", "bank.safetensors.journal"):
            found[path.name] = zlib.crc32(path.read_bytes())  # the two have seconds in them
    return found


def _dies(act: Callable[[Folder], object], folder: Folder, point: Point | None) -> bool:
    """Whether a process of its own is killed at the point."""
    child = os.fork()
    if not child:
        try:
            if point is not None:
                _kill_at(*point)
            act(folder)
        except BaseException as error:
            print(f"{point}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), point
    return status < 0


def _kill_at(name: str, count: int, when: str) -> None:
    target, attribute = name.rsplit(".", 1)
    owner = pkgutil.resolve_name(target)
    original, calls = getattr(owner, attribute), 0

    def killing(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, killing)


def _run(arguments: Sequence[str]) -> None:
    pretraining.TOKENS_PER_STEP = 256  # several steps, of few facts
    memorizing.steps_within = _steps
    main(arguments[0], arguments[1], Folder(arguments[2]), Folder(arguments[3]))


if __name__ == "__main__":
    _run(sys.argv[1:])

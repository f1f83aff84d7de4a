"""A memory's folder: which files it consists of, what its header states, and that one process writes at a time.

memory.json           settings, what was memorized, how far it got, beside which checkpoint (if beside one): written
                      whole or not at all
facts.csv             the facts that the bank answers, as a table
conflicts.csv         questions with several answers, which were set aside (only if there are any)
not_stored.csv        facts that the last writing could not store (only if there are any)
backbone.safetensors  the frozen model, unless that is a checkpoint
bank.safetensors      the experts, memory-mapped when read
index.safetensors     which questions are known, and what the learned query needs
report.json           what the last writing came to
states.npy            states of the backbone where an answer token is due; may be deleted, is computed again
edits                 a file for each edit that can be taken back
work                  what a killed run left for its successor; gone when the work is done

The header has a checksum of its own, and says which state of each other file belongs to it (`sims.memory.saved`): files
of two memories, or of one memory before and after a change, are not taken for a memory.

A file that changes is first written beside its place, with the ending .next. Once the header says that they are
pending, all of them take their places, whatever happens: who opens the folder next completes it.
"""

import contextlib
import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sims.memory.files import as_json, refusals, sync, write_whole, writing
from theory.console import Refusal

if TYPE_CHECKING:
    from mome_jax.disk import DiskBank  # and with it JAX, which settings and headers do not need: see `mome --help`

FORMAT = 2
SLOTS = 2**14  # of learned addresses; fewer are found by more paraphrases and shared by more facts
Addresses = Literal["exact", "nearest", "mixed", "learned"]
Procedure = Literal["projection", "gradient"]
Dtype = Literal["float32", "bfloat16"]  # of a checkpoint's weights and what multiplies them; states are float32
COUNTED = ("facts", "stored", "set_aside_rows", "tokens", "passes")  # in every report of a writing
_EDIT = re.compile(r"\d{6}\.(safetensors|undo)")
# What a killed process may leave of a file: its successor, or either of them unfinished.
_LEFT = re.compile(r"\.(.+?)(\.next)?\.[0-9a-f]{16}\.unfinished|(.+?)(\.next|\.unfinished|\.next\.unfinished)")


@dataclass(frozen=True)
class Settings:
    """What decides the bits of a memory, beside its facts and its backbone."""

    experts: int  # M
    chosen: int = 4  # k: experts a token
    addresses: Addresses = "exact"
    share: float = 0.8  # of the weight, to the exact half of mixed addresses
    normalize: str = "exact"  # steps of normalization of a question, as `sims.memory.identity` spells them
    threshold_nats: float = 0.6931471805599453  # ln 2: below it greedy decoding is right (T1)
    false_acceptance: float = 0.01  # q: share of unknown questions that may be taken for known ones
    procedure: Procedure = "projection"
    seed: int = 0

    def __post_init__(self):
        for name, value, among in (
            ("addresses", self.addresses, get_args(Addresses)),
            ("procedure", self.procedure, get_args(Procedure)),
        ):
            if value not in among:
                raise Refusal(f"--{name} {value}: choose one of {', '.join(among)}")
        if not 1 <= self.chosen <= self.experts < 2**31:
            raise Refusal(
                f"{self.chosen} of {self.experts} experts cannot be chosen; give more experts, at most 2^31 - 1, or "
                "choose fewer"
            )
        if self.slots_chosen > SLOTS:
            raise Refusal(f"--chosen {self.chosen}: learned addresses have {SLOTS} slots to choose from; choose fewer")
        if self.addresses == "mixed" and not self.slots_chosen:
            raise Refusal(f"--chosen {self.chosen}: mixed addresses choose experts in two ways; choose 2 or more")
        if not 0.0 < self.share < 1.0:
            raise Refusal(f"--share {self.share}: the exact half has more than nothing and less than all")
        if not 0.0 < self.threshold_nats < float("inf"):
            raise Refusal(
                f"--threshold-nats {self.threshold_nats}: a threshold is positive; ln 2 = 0.693 is the default"
            )
        if not 0.0 < self.false_acceptance <= 0.2:
            raise Refusal(f"--false-acceptance {self.false_acceptance}: give a rate above 0 and at most 0.2")

    @property
    def slots_chosen(self) -> int:
        """How many of the k experts learned addresses choose."""
        return {"mixed": self.chosen // 2, "learned": self.chosen}.get(self.addresses, 0)


class Folder:
    """The paths of one memory and its header.

    `moved_checkpoint` is where the checkpoint lies beside which it was made, if no longer where the header says.
    """

    def __init__(self, path: str | os.PathLike[str], moved_checkpoint: Path | None = None):
        self.path, self.moved_checkpoint = Path(path), moved_checkpoint
        self.facts = self.path / "facts.csv"
        self.conflicts = self.path / "conflicts.csv"
        self.not_stored = self.path / "not_stored.csv"
        self.backbone = self.path / "backbone.safetensors"
        self.bank = self.path / "bank.safetensors"
        self.index = self.path / "index.safetensors"
        self.report = self.path / "report.json"
        self.states = self.path / "states.npy"
        self.edits = self.path / "edits"
        self.work = self.path / "work"
        self.saved_pass = self.work / "pass.safetensors"
        self._header = self.path / "memory.json"
        self._lock = self.path / ".lock"

    def exists(self) -> bool:
        """Whether a memory was ever begun here."""
        return self._header.is_file()

    def read_header(self) -> dict[str, Any]:
        """What `memory.json` states; raises Refusal if it is not there, damaged or of another format."""
        try:
            header = json.loads(self._header.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise Refusal(f"{self.path}: is no memory (it has no memory.json); make one with `mome memorize`") from None
        except (OSError, ValueError, RecursionError) as error:
            raise Refusal(f"{self._header}: cannot be read ({error}); restore it from a copy") from None
        if (
            not isinstance(header, dict)
            or header.get("format") != FORMAT
            or not isinstance(header.get("complete"), bool)
        ):
            raise Refusal(
                f"{self._header}: is not of format {FORMAT}, which this version reads; memorize the facts anew"
            )
        if header.pop("checksum", None) != _checksum(header):
            raise Refusal(f"{self._header}: was damaged or changed by hand; restore the whole folder from one copy")
        return header

    def complete_header(self) -> dict[str, Any]:
        """The header of a memory that can be asked; raises Refusal if it is not complete."""
        return self._complete(self.read_header())

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Replace `memory.json`; a crash leaves the old one or the new one."""
        header = {**header, "format": FORMAT}
        write_whole(self._header, as_json({**header, "checksum": _checksum(header)}))

    def settings(self) -> Settings:
        """The settings that the header states."""
        stated, example = self.read_header().get("settings"), asdict(Settings(experts=4))
        kinds = {name: type(value) for name, value in example.items()}
        if not isinstance(stated, dict) or {name: type(value) for name, value in stated.items()} != kinds:
            raise Refusal(f"{self._header}: its settings are damaged; restore it from a copy")
        return Settings(**stated)

    def read_report(self) -> dict[str, Any]:
        """What the last writing came to; raises Refusal if the file cannot be read or does not say."""
        try:
            report = json.loads(self.report.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise Refusal(f"{self.report}: cannot be read ({error}); restore it from a copy") from None
        if not isinstance(report, dict) or not all(type(report.get(name)) is int for name in COUNTED):
            raise Refusal(f"{self.report}: is no report of a writing; restore it from a copy")
        return report

    def next(self, path: Path) -> Path:
        """Where the successor of a file is written before it takes its place."""
        return path.with_name(path.name + ".next")

    def replace(self, header: Mapping[str, Any], paths: Iterable[Path], rows: Path | None = None) -> None:
        """Let this header and the successors of these files take their places, and write `rows` to the bank.

        All of it happens or none. A file without a successor vanishes. `rows` is a file in `edits` with the arrays
        `experts` and `rows`. Raises Refusal, and changes nothing, if the bank is to be written and is open elsewhere.
        """
        paths = list(paths)
        kept = [path for path in paths if self.next(path).exists()]
        with writing(self.path):
            for path in kept:
                sync(self.next(path))
        pending = {
            "files": [path.name for path in kept],
            "gone": [path.name for path in paths if path not in kept],
            "rows": None if rows is None else rows.name,
        }
        with contextlib.nullcontext() if rows is None else self._writable_bank() as bank:
            self.write_header({**header, "pending": pending})
            self._finish_replacing(pending, bank)
        self.write_header(header)

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[dict[str, Any]]:
        """Nobody else writes meanwhile; yields the header of this complete memory, in which nothing is pending.

        Raises Refusal if it is none, or somebody else writes to it.
        """
        self.read_header()  # before anything is made in a folder that is no memory
        with self._locked():
            yield self._complete(self._settle())

    @contextlib.contextmanager
    def begun(self, identity: Mapping[str, Any], *, fresh: bool = False) -> Iterator[dict[str, Any]]:
        """As `only_writer`, for a memory that may be new or half done; `fresh` deletes what is there first.

        Raises Refusal if the folder holds something else, or a memory whose header states another identity.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(f"{self.path}: cannot be made ({error.strerror}); choose another folder") from None
        with self._locked():
            if fresh and self.exists():
                self._clear()
            header: dict[str, Any] = {**identity, "complete": False}
            if self.exists():
                header = self._settle()
            elif foreign := [entry.name for entry in self.path.iterdir() if entry.name not in self._first_names()]:
                raise Refusal(f"{self.path}: holds {foreign[0]!r} and no memory; choose another folder")
            else:
                self.write_header(header)
            if any(header.get(name) != value for name, value in identity.items()):
                raise Refusal(
                    f"{self.path}: holds a memory of other facts or settings, or beside another model or with "
                    "another template; choose another folder, `mome add` more facts, or start over with --fresh"
                )
            yield header

    def clear_work(self) -> None:
        """Remove what the work left for a successor; whatever else lies in its folder stays."""
        with contextlib.suppress(OSError):  # there is none, or something else is in it
            for entry in filter(self._is_own, list(self.work.iterdir())):
                entry.unlink()
            self.work.rmdir()

    def _complete(self, header: dict[str, Any]) -> dict[str, Any]:
        if not header["complete"]:
            raise Refusal(f"{self.path}: is not complete; run the `mome memorize` that began it again")
        return header

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            file = self._lock.open("w")
        except OSError as error:
            raise Refusal(f"{self.path}: cannot be written ({error.strerror}); check its permissions") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Refusal(f"{self.path}: another process is writing to this memory; wait for it") from None
            yield

    def _settle(self) -> dict[str, Any]:
        """Complete what a killed process had begun to replace, and remove what it left; the header afterwards."""
        header = self.read_header()
        pending = header.pop("pending", None)
        if pending is not None:
            self._check_pending(pending)
            with contextlib.nullcontext() if pending["rows"] is None else self._writable_bank() as bank:
                self._finish_replacing(pending, bank)
            self.write_header(header)
        if header["complete"]:
            self.clear_work()
        for entry in [*self.path.iterdir(), *(self.edits.iterdir() if self.edits.is_dir() else ())]:
            is_edit = entry.parent == self.edits and self._is_own(entry) and not self._is_left(entry)
            is_void = is_edit and (entry.suffix == ".undo" or int(entry.stem) > header.get("edits", 0))
            if is_void or self._is_left(entry):
                entry.unlink()
        return header

    def _writable_bank(self) -> "DiskBank":
        from mome_jax.disk import DiskBank

        with refusals():
            return DiskBank.open(self.bank, writable=True)

    def _finish_replacing(self, pending: Mapping[str, Any], bank: "DiskBank | None") -> None:
        if bank is not None:
            from mome_jax.saving import load

            with refusals():
                arrays, _ = load(self.edits / pending["rows"])
                bank.write_rows(arrays["experts"], arrays["rows"])
        with writing(self.path):
            for name in pending["files"]:
                successor = self.next(self.path / name)
                if successor.exists():
                    successor.replace(self.path / name)
            for name in pending["gone"]:
                (self.path / name).unlink(missing_ok=True)

    def _check_pending(self, pending: Any) -> None:
        names = {path.name for path in self._files()}
        right = isinstance(pending, dict) and set(pending) == {"files", "gone", "rows"}
        if not (
            right
            and all(
                isinstance(pending[list_], list) and names.issuperset(map(str, pending[list_]))
                for list_ in ("files", "gone")
            )
            and (pending["rows"] is None or _EDIT.fullmatch(str(pending["rows"])))
        ):
            raise Refusal(f"{self._header}: what it says is pending makes no sense; restore it from a copy")

    def _first_names(self) -> set[str]:
        """What a process that was killed may leave where no memory was begun yet."""
        return {self._lock.name, self._header.name + ".unfinished"}

    def _files(self) -> tuple[Path, ...]:
        """What can be replaced."""
        tables = (self.facts, self.conflicts, self.not_stored, self.report)
        return (*tables, self.backbone, self.bank, self.index, self.states)

    def _is_own(self, entry: Path) -> bool:
        """Whether an entry of the folder is part of the memory, or left by a process that was killed."""
        if entry.is_symlink():
            return False
        if entry in (self.edits, self.work):
            return entry.is_dir() and all(map(self._is_own, entry.iterdir()))
        return entry.is_file() and (self._is_of(entry.parent, entry.name) or self._is_left(entry))

    def _is_left(self, entry: Path) -> bool:
        """Whether an entry is what a process that was killed left of a file."""
        left = _LEFT.fullmatch(entry.name)
        whole = left is not None and self._is_of(entry.parent, left[1] or left[3])
        return whole and entry.is_file() and not entry.is_symlink()

    def _is_of(self, folder: Path, name: str) -> bool:
        """Whether a file of the memory has this name in its folder, or in one of the two in it."""
        if folder == self.edits:
            return _EDIT.fullmatch(name) is not None
        if folder == self.work:
            return name == self.saved_pass.name
        files = (*self._files(), self._header, self._lock)
        return name in {path.name for path in files} | {self.bank.name + ".journal"}

    def _clear(self) -> None:
        """Delete the memory; raises Refusal, and deletes nothing, if this is none or anything else lies here."""
        self.read_header()
        if foreign := [entry.name for entry in self.path.iterdir() if not self._is_own(entry)]:
            raise Refusal(
                f"{self.path}: holds {foreign[0]!r}, which is no part of a memory, so nothing was deleted; move it away"
            )
        for folder in (self.edits, self.work):
            if folder.is_dir():
                for entry in folder.iterdir():
                    entry.unlink()
                folder.rmdir()
        for entry in self.path.iterdir():
            if entry not in (self._header, self._lock):
                entry.unlink()
        self._header.unlink()  # at last: until then a killed process leaves a memory, which can be deleted again


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON has them."""
    return asdict(settings)


def _checksum(header: Mapping[str, Any]) -> str:
    """CRC-32 of a header: it finds accidents, not forgeries."""
    return f"{zlib.crc32(json.dumps(header, sort_keys=True).encode()):08x}"

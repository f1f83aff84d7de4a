"""A memory's folder: which files it consists of, what its header states, and that one process writes at a time.

memory.json           settings, what was memorized, how far it got: written whole or not at all
facts.csv             the facts that the bank answers, as a table
conflicts.csv         questions with several answers, which were set aside (only if there are any)
backbone.safetensors  the frozen model
bank.safetensors      the experts, memory-mapped when read
index.safetensors     which questions are known, and what the learned query needs
states.npy            states of the backbone where an answer token is due; may be deleted, is computed again
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from mome_jax.disk import DiskBank
from mome_jax.saving import load
from theory.console import Refusal

FORMAT = 1
Addresses = Literal["exact", "nearest", "mixed", "learned"]
Procedure = Literal["projection", "gradient"]


@dataclass(frozen=True)
class Settings:
    """What decides the bits of a memory, beside its facts and its backbone."""

    experts: int  # M
    chosen: int = 4  # k: experts a token
    addresses: Addresses = "exact"
    share: float = 0.8  # of the weight, to the exact half of mixed addresses
    normalize: str = ""  # steps of normalization of a question, as `sims.memory.identity` spells them
    threshold_nats: float = 0.6931471805599453  # ln 2: below it greedy decoding is right (T1)
    false_acceptance: float = 0.01  # q: share of unknown questions that may be taken for known ones
    procedure: Procedure = "projection"
    seed: int = 0

    def __post_init__(self):
        if self.addresses not in get_args(Addresses):
            raise Refusal(f"--addresses {self.addresses}: choose one of {', '.join(get_args(Addresses))}")
        if self.experts < 1 or not 1 <= self.chosen <= self.experts:
            raise Refusal(
                f"{self.chosen} of {self.experts} experts cannot be chosen; give more experts or choose fewer"
            )
        if not 0.0 < self.share < 1.0:
            raise Refusal(f"--share {self.share}: the exact half has more than nothing and less than all")
        if not 0.0 < self.threshold_nats < float("inf"):
            raise Refusal(
                f"--threshold-nats {self.threshold_nats}: a threshold is positive; ln 2 = 0.693 is the default"
            )
        if not 0.0 < self.false_acceptance < 1.0:
            raise Refusal(f"--false-acceptance {self.false_acceptance}: a rate lies between 0 and 1")


class Folder:
    """The paths of one memory and its header."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.facts = self.path / "facts.csv"
        self.conflicts = self.path / "conflicts.csv"
        self.not_stored = self.path / "not_stored.csv"
        self.backbone = self.path / "backbone.safetensors"
        self.bank = self.path / "bank.safetensors"
        self.index = self.path / "index.safetensors"
        self.states = self.path / "states.npy"
        self.edits = self.path / "edits"  # one file an edit, from which it is completed or taken back
        self.work = self.path / "work"  # what a killed run left for its successor; gone when the work is done
        self._header = self.path / "memory.json"

    def exists(self) -> bool:
        """Whether a memory was ever begun here."""
        return self._header.is_file()

    def read_header(self) -> dict[str, Any]:
        """What `memory.json` states; raises Refusal if it is not there, damaged or of another format."""
        try:
            header = json.loads(self._header.read_text())
        except FileNotFoundError:
            raise Refusal(f"{self.path}: is no memory (it has no memory.json); make one with `mome memorize`") from None
        except (OSError, ValueError) as error:
            raise Refusal(f"{self._header}: cannot be read ({error}); restore it from a copy") from None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise Refusal(
                f"{self._header}: is not of format {FORMAT}, which this version reads; memorize the facts again"
            )
        return header

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Replace `memory.json`; a crash leaves the old one or the new one."""
        unfinished = self._header.with_suffix(".unfinished")
        with unfinished.open("w") as file:
            json.dump({"format": FORMAT, **header}, file, indent=1, sort_keys=True, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._header)

    def settings(self) -> Settings:
        """The settings that the header states."""
        stated = self.read_header().get("settings")
        names = {field.name for field in fields(Settings)}
        if not isinstance(stated, dict) or set(stated) != names:
            raise Refusal(f"{self._header}: its settings are incomplete; restore it from a copy")
        return Settings(**stated)

    def next(self, path: Path) -> Path:
        """Where the successor of a file is written before it takes its place."""
        return path.with_name(path.name + ".next")

    def replace(self, header: Mapping[str, Any], paths: Iterable[Path], rows: Path | None = None) -> None:
        """Let the successors of these files and this header take their places, and write `rows` to the bank.

        All of it happens or none: once the header says what is pending, whoever opens the folder completes it. `rows`
        is a file with the arrays `experts` and `rows`.
        """
        pending = {"files": [path.name for path in paths], "rows": None if rows is None else rows.name}
        self.write_header({**header, "pending": pending})
        self.settle()

    def settle(self) -> dict[str, Any]:
        """Complete what a killed process had begun to replace; the header afterwards."""
        header = self.read_header()
        pending = header.pop("pending", None)
        if pending is None:
            return header
        if pending["rows"] is not None:
            arrays, _ = load(self.edits / pending["rows"])
            with DiskBank.open(self.bank, writable=True) as bank:
                bank.write_rows(arrays["experts"], arrays["rows"])
        for name in pending["files"]:
            successor = self.next(self.path / name)
            if successor.exists():
                successor.replace(self.path / name)
        self.write_header(header)
        return header

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[None]:
        """Nobody else writes to this memory meanwhile; raises Refusal if somebody does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Refusal(f"{self.path}: another process is writing to this memory; wait for it") from None
            yield


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON has them."""
    return asdict(settings)

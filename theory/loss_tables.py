"""Reading per-fact losses: a CSV or Parquet file with one row per fact.

Columns: loss_nats (required); run (a name; without it the file is one run), greedy_correct (true/false or 1/0),
tokens (whole numbers), entropy_nats, size (facts of the run). Other columns are left alone and named. A cell that
cannot be what its column says is refused with its line; nothing is guessed, filled in or dropped.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.console import Refusal
from theory.table_files import read_cells

COLUMNS = ("run", "loss_nats", "greedy_correct", "tokens", "entropy_nats", "size")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|\+?inf(inity)?", re.ASCII | re.IGNORECASE)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class LossTable:
    """The rows of one run, in the order of the file; a column that the file lacks is None."""

    run: str
    losses_nats: NDArray[np.float64]
    greedy_correct: NDArray[np.bool_] | None
    tokens: NDArray[np.int64] | None
    entropy_nats: NDArray[np.float64] | None
    size: int | None


@dataclass(frozen=True)
class LossFile:
    """All runs of a file, in order of first appearance, and the columns that were not used."""

    runs: tuple[LossTable, ...]
    unused_columns: tuple[str, ...]


def read_losses(path: Path) -> LossFile:
    """Read `path`, a .csv or .parquet file, strictly; Refusal in one line naming file, line and remedy."""
    path = Path(path)
    cells = read_cells(path)
    if "loss_nats" not in cells.columns:
        only = next(iter(cells.columns)) if len(cells.columns) == 1 else ""
        separator = " (columns are separated by commas)" if re.search(r"[;\t|]", only) else ""
        raise Refusal(
            f"{path}, line 1: there is no column loss_nats{separator}; rename the column that holds the losses"
        )
    known = {name: cells.columns[name] for name in COLUMNS if name in cells.columns}
    runs: dict[str, _Rows] = {}
    for row, where in enumerate(cells.places):
        values = {name: _parsed(path, where, name, column[row]) for name, column in known.items()}
        runs.setdefault(values.get("run", path.stem), _Rows()).add(path, where, values)
    if not runs:
        raise Refusal(f"{path}: the file has no rows; it needs one row per fact below the header")
    tables = tuple(rows_of_run.table(path, name) for name, rows_of_run in runs.items())
    return LossFile(tables, tuple(name for name in cells.columns if name not in COLUMNS))


@dataclass
class _Rows:
    """What has been read of one run."""

    columns: dict[str, list] = field(default_factory=dict)
    last: str = ""

    def add(self, path: Path, where: str, values: dict[str, Any]) -> None:
        size, known = values.get("size"), self.columns.get("size")
        if known and known[0] != size:
            raise Refusal(
                f"{path}, {where}: size is {size} but was {known[0]} before in the same run; "
                f"give every run its own name in a column run"
            )
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)
        self.last = where

    def table(self, path: Path, name: str) -> LossTable:
        columns = self.columns
        size, rows = columns.get("size", [None])[0], len(columns["loss_nats"])
        if size is not None and rows > size:
            raise Refusal(
                f"{path}, {self.last}: run {name!r} has {rows} rows but size {size}; "
                f"were runs mixed? give every run its own name in a column run"
            )
        return LossTable(
            run=name,
            losses_nats=np.array(columns["loss_nats"]),
            greedy_correct=np.array(columns["greedy_correct"]) if "greedy_correct" in columns else None,
            tokens=np.array(columns["tokens"]) if "tokens" in columns else None,
            entropy_nats=np.array(columns["entropy_nats"]) if "entropy_nats" in columns else None,
            size=size,
        )


def _parsed(path: Path, where: str, column: str, cell: Any) -> Any:
    """The value of a cell, by what its column holds."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise Refusal(f"{path}, {where}: {column} is empty; fill it in for every row, or leave the column out")
    try:
        return _PARSERS[column](cell)
    except ValueError as error:
        raise Refusal(f"{path}, {where}: {column} is {str(cell)[:40]!r}; {error}") from error


def _name(cell: Any) -> str:
    return str(cell).strip()


def _non_negative(cell: Any) -> float:
    if isinstance(cell, str):
        number = float(cell) if _NUMBER.fullmatch(cell.strip()) else math.nan
    else:
        number = float(cell) if isinstance(cell, (int, float)) and not isinstance(cell, bool) else math.nan
    if not number >= 0.0:
        raise ValueError("it must be a number >= 0 (inf where the answer has probability 0)")
    return number


def _finite(cell: Any) -> float:
    number = _non_negative(cell)
    if math.isinf(number):
        raise ValueError("it must be a finite number >= 0")
    return number


def _whole(cell: Any) -> int:
    number = _non_negative(cell)
    if not (1 <= number < 2**53 and number == int(number)):
        raise ValueError("it must be a whole number >= 1")
    return int(number)


def _truth(cell: Any) -> bool:
    word = str(cell).strip().lower()
    if word not in _TRUTHS:
        raise ValueError("it must be true or false, 1 or 0")
    return _TRUTHS[word]


_PARSERS = {
    "run": _name,
    "loss_nats": _non_negative,
    "greedy_correct": _truth,
    "tokens": _whole,
    "entropy_nats": _finite,
    "size": _whole,
}

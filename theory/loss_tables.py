"""Reading per-fact losses: a CSV or Parquet file with one row per fact.

Columns: loss_nats (required); run (a name; without it the file is one run), greedy_correct (true/false or 1/0),
tokens (whole numbers), entropy_nats, size (facts of the run). Other columns are left alone and named. A cell that
cannot be what its column says is refused with its line; nothing is guessed, filled in or dropped.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.console import Refusal

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
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file; give a CSV or Parquet file with a column loss_nats")
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise Refusal(f"{path}: cannot tell the format from the name; save it as .csv or .parquet")
    rows = readers[path.suffix.lower()](path)
    header = next(rows)[1]
    names = _checked_header(path, header)
    places = {name: names.index(name) for name in COLUMNS if name in names}
    runs: dict[str, _Rows] = {}
    for where, cells in rows:
        values = {name: _parsed(path, where, name, cells[place]) for name, place in places.items()}
        runs.setdefault(values.get("run", path.stem), _Rows()).add(path, where, values)
    if not runs:
        raise Refusal(f"{path}: the file has no rows; it needs one row per fact below the header")
    tables = tuple(rows_of_run.table(path, name) for name, rows_of_run in runs.items())
    return LossFile(tables, tuple(name for name in names if name not in COLUMNS))


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


def _csv_rows(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    """The header and then every row, each with its line; blank lines hold nothing and are passed over."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        width = None
        try:
            for cells in reader:
                where = f"line {reader.line_num}"
                if not cells:
                    continue
                if width is not None and len(cells) != width:
                    raise Refusal(f"{path}, {where}: {len(cells)} cells where the header has {width}; repair the line")
                width = len(cells)
                yield where, cells
        except UnicodeDecodeError as error:
            raise Refusal(f"{path}, after line {reader.line_num}: not UTF-8; save the file as UTF-8") from error
        except csv.Error as error:
            raise Refusal(f"{path}, line {reader.line_num}: {error}; repair the quoting") from error
    if width is None:
        raise Refusal(f"{path}: the file is empty; it needs a header with a column loss_nats")


def _parquet_rows(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    """The column names and then every row, each with its number."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Refusal(
            f"{path}: reading Parquet needs pyarrow; install loss-threshold[parquet], or save as CSV"
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise Refusal(f"{path}: not a readable Parquet file ({error}); save it again, or as CSV") from error
    yield "the schema", table.column_names
    columns = [column.to_pylist() for column in table.columns]
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield f"row {number}", cells


def _checked_header(path: Path, header: Sequence[Any]) -> list[str]:
    names = [str(name).strip() for name in header]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise Refusal(f"{path}, line 1: column {doubled[0]!r} appears twice; rename one")
    if "loss_nats" not in names:
        separator = " (columns are separated by commas)" if len(names) == 1 and re.search(r"[;\t|]", names[0]) else ""
        raise Refusal(
            f"{path}, line 1: there is no column loss_nats{separator}; rename the column that holds the losses"
        )
    return names


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

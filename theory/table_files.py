"""Tables as CSV or Parquet files: reading that names the place of every cell, writing that is whole or not at all."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from theory.console import Refusal


@dataclass(frozen=True)
class Cells:
    """What stands in a file: one list of cells a column, as text (CSV) or as stored (Parquet)."""

    places: list[str]  # "line 7" or "row 7" of each row
    columns: dict[str, list[Any]]


def read_cells(path: Path) -> Cells:
    """Read a .csv or .parquet file with a header; Refusal names the file, the line and the remedy.

    Header names and cells of a CSV file are stripped; blank lines hold nothing and are passed over.
    """
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file; give a .csv or .parquet file")
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise Refusal(f"{path}: cannot tell the format from the name; save it as .csv or .parquet")
    places, header, columns = readers[path.suffix.lower()](path)
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise Refusal(f"{path}, line 1: column {doubled[0]!r} appears twice; rename one")
    return Cells(places, dict(zip(header, columns, strict=True)))


def _read_csv(path: Path) -> tuple[list[str], list[str], list[list[Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] = []
        places, columns = [], []
        try:
            for cells in filter(None, reader):
                if not header:
                    header = [cell.strip() for cell in cells]
                    columns = [[] for _ in header]
                    continue
                where = f"line {reader.line_num}"
                if len(cells) != len(header):
                    wanted = f"{len(cells)} cells where the header has {len(header)}"
                    raise Refusal(f"{path}, {where}: {wanted}; repair the line")
                places.append(where)
                for column, cell in zip(columns, cells, strict=True):
                    column.append(cell.strip())
        except UnicodeDecodeError as error:
            raise Refusal(f"{path}, after line {reader.line_num}: not UTF-8; save the file as UTF-8") from error
        except csv.Error as error:
            raise Refusal(f"{path}, line {reader.line_num}: {error}; repair the quoting") from error
    if not header:
        raise Refusal(f"{path}: the file is empty; it needs a header and one row a line")
    return places, header, columns


def _read_parquet(path: Path) -> tuple[list[str], list[str], list[list[Any]]]:
    arrow, parquet = _pyarrow(path)
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise Refusal(f"{path}: not a readable Parquet file ({error}); save it again, or as CSV") from error
    places = [f"row {number}" for number in range(1, table.num_rows + 1)]
    return places, list(table.column_names), [column.to_pylist() for column in table.columns]


def write_columns(columns: Mapping[str, np.ndarray], path: Path, *, overwrite: bool = False) -> None:
    """Write columns of one length as .csv or .parquet, by the file's name. Floats round-trip; NaN is an empty cell."""
    if path.exists() and not overwrite:
        raise Refusal(f"{path}: exists; choose another name or overwrite it with --fresh")
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise Refusal(f"{path}: a table is written as .csv or .parquet; choose one of these endings")
    if path.suffix == ".parquet":
        _pyarrow(path)  # refuse before anything is written
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        writers[path.suffix](columns, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(columns: Mapping[str, np.ndarray], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(_texts(column) for column in columns.values()), strict=True))


def _texts(column: np.ndarray) -> list[Any]:
    if column.dtype.kind == "f":
        return ["" if np.isnan(value) else repr(value) for value in column.tolist()]
    return column.tolist()


def _write_parquet(columns: Mapping[str, np.ndarray], path: Path) -> None:
    arrow, parquet = _pyarrow(path)
    parquet.write_table(arrow.table({name: arrow.array(column.tolist()) for name, column in columns.items()}), path)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Refusal(f"{path}: Parquet needs pyarrow; install loss-threshold[parquet], or use .csv") from error
    return pyarrow, parquet

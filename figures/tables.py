"""The tables that figures draw: their columns, units and meanings; and reading them from a file.

A table is a mapping from column names to arrays of one length, one row a run, or one row a point in the long tables.
Anybody's own runs can be drawn: a CSV or Parquet file with the columns that `loss-threshold figures --list` names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from theory.console import Refusal
from theory.table_files import read_cells

Table = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """What a column holds. Numbers lie in [least, most]; NaN (an empty cell) says that a run has no such number."""

    meaning: str
    unit: str = ""
    kind: Literal["number", "whole", "flag", "text"] = "number"
    least: float = -np.inf
    most: float = np.inf
    default: float | bool | str = np.nan  # what a table without this column, or an empty cell, means


_SHARE = {"unit": "share", "least": 0.0, "most": 1.0}
_NATS = {"unit": "nats", "least": 0.0}

TABLES: dict[str, dict[str, Column]] = {
    "runs": {
        "size": Column("number of facts trained on", "facts", "whole", least=1),
        "answers": Column("possible answers (of a token, if answers have several)", "answers", "whole", least=2),
        "loss_nats": Column("mean loss of a fact, summed over its answer's tokens", **_NATS),
        "hallucination_greedy": Column("facts that greedy decoding gets wrong; a tie is wrong", **_SHARE),
        "hallucination_sampled": Column("mean probability that a sampled answer is wrong", **_SHARE),
        "width": Column("width of the network", "units", least=1, default=1),
        "network": Column("linear, mlp, transformer, or your own word", kind="text", default="network"),
        "layers": Column("layers", "layers", least=0, default=0),
        "heads": Column("heads", "heads", least=0, default=0),
        "inputs": Column("inputs: features, or tokens of context", "inputs", least=0, default=0),
        "parameters": Column("trained parameters; 0 if not known", "parameters", least=0, default=0),
        "seed": Column("runs that differ in the seed alone are one point with a range", default=0),
        "exposures": Column("how often each fact was shown; 0 if not known", "exposures", least=0, default=0),
        "learning_rate": Column("of several learning rates the best is drawn", least=0, default=0),
        "optimizer": Column("optimizer", kind="text", default=""),
        "schedule": Column("schedule of the learning rate", kind="text", default=""),
        "minibatch": Column("facts of a minibatch", "facts", least=0, default=0),
        "until_stored": Column("whether a run stops when every fact is stored", kind="flag", default=False),
        "facts": Column("name of the data set", kind="text", default=""),
        "labels_random": Column("uniform, independent, permuted or given", kind="text", default=""),
        "status": Column("finished or diverged; diverged runs are not drawn", kind="text", default="finished"),
        "tokens_per_answer": Column("tokens of an answer, its end token included", "tokens", least=1, default=1),
        "label_bits": Column("bits of all answers; log2 of the answers, added up, if not known", "bits", least=0),
        "stored_rate": Column("facts with every token under ln 2", **_SHARE),
        "bits_memorized": Column("bits of the answers less the loss in bits", "bits"),
        "certified_bits": Column("bits that describe the network, quantized; of random labels only", "bits", least=0),
        "fingerprint": Column("name of the run, `run` in the other tables", kind="text", default=""),
    },
    "curves": {
        "size": Column("number of facts trained on", "facts", "whole", least=1),
        "exposure": Column("how often each fact was shown so far", "exposures", least=0),
        "loss_nats": Column("mean training loss of a fact up to that exposure", **_NATS),
        "width": Column("width of the network", "units", least=1, default=1),
        "run": Column("name of the run", kind="text", default=""),
    },
    "next_token": {
        "run": Column("name of the run", kind="text"),
        "size": Column("number of facts trained on", "facts", "whole", least=1),
        "loss_nats": Column("mean loss of the run", **_NATS),
        "fact": Column("number of the fact", kind="whole", least=0),
        "label": Column("token that is the answer", kind="whole", least=0),
        "token": Column("token", kind="whole", least=0),
        "probability": Column("probability of the token", **_SHARE),
        "width": Column("width of the network", "units", least=1, default=1),
    },
}


def rows(table: Table) -> int:
    """Number of rows."""
    return len(next(iter(table.values()))) if table else 0


def where(table: Table, keep: np.ndarray) -> dict[str, np.ndarray]:
    """The rows where `keep` is true, or the rows of these numbers."""
    return {name: np.asarray(column)[keep] for name, column in table.items()}


def column(table: Table, name: str, *, of: str) -> np.ndarray:
    """A column of table `of`, or its default in every row if the table lacks it."""
    documented = TABLES[of][name]
    if name in table:
        return np.asarray(table[name])
    return np.full(rows(table), documented.default, dtype=object if documented.kind == "text" else None)


def read_table(path: Path, name: str) -> dict[str, np.ndarray]:
    """Read table `name` from a CSV or Parquet file; columns that are not documented are left alone.

    Raises Refusal naming the file, the line and the column of the first cell that is not what the column holds.
    """
    if name not in TABLES:
        raise Refusal(f"--table {name}={path}: no table is called {name}; the tables are {', '.join(TABLES)}")
    read = read_cells(path)
    places, raw = read.places, read.columns
    known = {header: cells for header, cells in raw.items() if header in TABLES[name]}
    if not known:
        raise Refusal(f"{path}: it has no column of table {name}; see `loss-threshold figures --list` for the names")
    if not places:
        raise Refusal(f"{path}: the file has no rows; it needs one row per {'run' if name == 'runs' else 'point'}")
    return {header: _parsed(path, places, header, cells, TABLES[name][header]) for header, cells in known.items()}


_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_NUMBER = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|inf|nan)|", re.ASCII | re.IGNORECASE)


def _parsed(path: Path, places: Sequence[str], name: str, cells: Sequence, documented: Column) -> np.ndarray:
    """The cells as what the column holds; an empty cell of numbers is NaN."""

    def refusal(row: int, wanted: str) -> Refusal:
        return Refusal(f"{path}, {places[row]}: {name} is {str(cells[row])[:40]!r}; it must be {wanted}")

    texts = ["" if cell is None else str(cell) for cell in cells]
    if documented.kind == "text":
        return np.array(texts, dtype=object)
    if documented.kind == "flag":
        for row, text in enumerate(texts):
            if text.lower() not in _FLAGS:
                raise refusal(row, "true or false, 1 or 0")
        return np.array([_FLAGS[text.lower()] for text in texts])
    numbers = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        if not _NUMBER.fullmatch(text):
            raise refusal(row, "a number")
        if text:
            numbers[row] = float(text)
        if documented.kind == "whole" and np.isfinite(numbers[row]) and numbers[row] % 1:
            raise refusal(row, "a whole number")
        if not (np.isnan(numbers[row]) or documented.least <= numbers[row] <= documented.most):
            upper = f" and at most {documented.most:g}" if np.isfinite(documented.most) else ""
            raise refusal(row, f"a number, at least {documented.least:g}{upper}")
    return numbers

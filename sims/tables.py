"""Stored runs as documented tables, and tables as CSV or Parquet files.

runs        one row a run: what it was (fingerprint ... size), what came out (parameters ... certified_ratio), where.
per_fact    run, size, fact, loss_nats, greedy_correct, tokens, entropy_nats: the table that `judge` reads.
curves      run, size, width, exposure, loss_nats: mean training loss up to each exposure.
next_token  run, size, width, loss_nats, fact, fact_loss_nats, label, token, probability: first answer token.
"""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from sims.runs import KIND
from sims.store import Result, Store, table
from theory.console import Refusal

Table = dict[str, np.ndarray]


def runs(store: Store, names: Iterable[str] | None = None) -> Table:
    """Every stored run, or the named ones, without their arrays."""
    return table(store.results(KIND, names))


def per_fact(store: Store, names: Iterable[str] | None = None) -> Table:
    """Losses of every fact of the runs that kept them."""

    def rows(run: Result, arrays: Mapping[str, np.ndarray]) -> Table | None:
        if "loss_nats" not in arrays:
            return None
        losses = arrays["loss_nats"]
        return _block(
            len(losses),
            run=run.fingerprint,
            size=run.spec["size"],
            fact=np.arange(len(losses)),
            loss_nats=losses,
            greedy_correct=arrays["greedy_correct"],
            tokens=arrays["tokens"],
            entropy_nats=run.metrics["entropy_floor_nats"],
        )

    return _gather(store, names, rows)


def curves(store: Store, names: Iterable[str] | None = None) -> Table:
    """Training curves."""

    def rows(run: Result, arrays: Mapping[str, np.ndarray]) -> Table:
        exposures = arrays["curve_exposures"]
        return _block(
            len(exposures),
            run=run.fingerprint,
            size=run.spec["size"],
            width=run.spec["width"],
            learning_rate=run.spec["learning_rate"],
            seed=run.spec["seed"],
            exposure=exposures,
            loss_nats=arrays["curve_loss_nats"],
        )

    return _gather(store, names, rows)


def next_token(store: Store, names: Iterable[str] | None = None) -> Table:
    """Distributions over the first answer token of the first few facts of each run."""

    def rows(run: Result, arrays: Mapping[str, np.ndarray]) -> Table | None:
        if "shown_probabilities" not in arrays:
            return None
        probabilities, labels = arrays["shown_probabilities"], arrays["shown_labels"]
        facts, answers = probabilities.shape
        with np.errstate(divide="ignore"):
            losses = -np.log(probabilities[np.arange(facts), labels])
        return _block(
            probabilities.size,
            run=run.fingerprint,
            size=run.spec["size"],
            width=run.spec["width"],
            loss_nats=run.metrics["loss_nats"],
            fact=np.repeat(np.arange(facts), answers),
            fact_loss_nats=np.repeat(losses, answers),
            label=np.repeat(labels, answers),
            token=np.tile(np.arange(answers), facts),
            probability=probabilities.reshape(-1),
        )

    return _gather(store, names, rows)


def _block(rows: int, **columns: object) -> Table:
    return {name: np.broadcast_to(np.asarray(value), rows) for name, value in columns.items()}


def _gather(store: Store, names: Iterable[str] | None, rows) -> Table:
    blocks = [rows(run, store.arrays(run.fingerprint)) for run in store.results(KIND, names)]
    blocks = [block for block in blocks if block is not None]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def write(columns: Mapping[str, np.ndarray], file: Path, *, overwrite: bool = False) -> None:
    """Write a table as CSV or Parquet, by the file's name; whole or not at all. Floats round-trip."""
    if file.exists() and not overwrite:
        raise Refusal(f"{file}: exists; choose another name or overwrite it with --fresh")
    if file.suffix not in (".csv", ".parquet"):
        raise Refusal(f"{file}: a table is written as .csv or .parquet; choose one of these endings")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        (_write_csv if file.suffix == ".csv" else _write_parquet)(columns, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(columns: Mapping[str, np.ndarray], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(_texts(column) for column in columns.values()), strict=True))


def _texts(column: np.ndarray) -> list:
    if column.dtype.kind == "f":  # what was not measured is an empty cell, as pandas reads and writes it
        return ["" if np.isnan(value) else repr(value) for value in column.tolist()]
    return column.tolist()


def _write_parquet(columns: Mapping[str, np.ndarray], file: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise Refusal(f"{file}: Parquet needs pyarrow; install loss-threshold[parquet], or write .csv") from error
    arrays = {name: pyarrow.array(column.tolist()) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), file)

"""Stored runs of the study as tables, one mapping from column to array each.

populations  one row a population: what it was, what came out of it
memories     one row a population of memories
cells        population, kind, question_model, answer_model, families of both, correctness
courses      population, world_seed, width, then the curves of `portrait` and loss_nats: one row a snapshot
calibration  population, question (real or imaginary), confidence, right, share: one row a bin that is not empty
"""

from collections.abc import Iterable

import numpy as np

from sims.imagination import memories
from sims.imagination.asking import KINDS
from sims.imagination.population import KIND
from sims.store import Result, Store, table

Table = dict[str, np.ndarray]


def study_tables(store: Store, names: Iterable[str] | None = None) -> dict[str, Table]:
    """Every table of the finished runs (all, or the named ones); a table without rows is left out."""
    wanted = None if names is None else list(names)
    runs = [one for one in store.results(KIND, wanted) if one.status == "finished"]
    arrays = {one.fingerprint: store.arrays(one.fingerprint) for one in runs}
    found = {
        "populations": table(runs),
        "memories": table(store.results(memories.KIND, wanted)),
        "cells": _joined([block for one in runs for block in _cells(one, arrays[one.fingerprint])]),
        "courses": _joined([_course(one, arrays[one.fingerprint]) for one in runs if one.spec["snapshots"] > 1]),
        "calibration": _joined([block for one in runs for block in _calibration(one, arrays[one.fingerprint])]),
    }
    return {name: columns for name, columns in found.items() if columns}


def _cells(run: Result, arrays: dict[str, np.ndarray]) -> list[Table]:
    blocks = []
    for kind in KINDS:
        if f"{kind}_correctness" in arrays:
            correctness = arrays[f"{kind}_correctness"]
            asks, answers = np.indices(correctness.shape).reshape(2, -1)
            columns = {
                "question_model": asks,
                "answer_model": answers,
                "question_family": asks // run.spec["seeds"],
                "answer_family": answers // run.spec["seeds"],
                "correctness": correctness.reshape(-1),
            }
            blocks.append(_block(correctness.size, population=run.fingerprint, kind=kind, **columns))
    return blocks


def _course(run: Result, arrays: dict[str, np.ndarray]) -> Table:
    curves = {name.removeprefix("curve_"): values for name, values in arrays.items() if name.startswith("curve_")}
    same = {"population": run.fingerprint, "world_seed": run.spec["world_seed"], "width": run.spec["width"]}
    return _block(len(curves["steps"]), **same, **curves)


def _calibration(run: Result, arrays: dict[str, np.ndarray]) -> list[Table]:
    blocks = []
    for question in ("real", "imaginary"):
        confidence, right, share = arrays[f"calibration_{question}"]
        there = share > 0
        columns = {"confidence": confidence[there], "right": right[there], "share": share[there]}
        blocks.append(_block(int(there.sum()), population=run.fingerprint, question=question, **columns))
    return blocks


def _block(rows: int, **columns: object) -> Table:
    return {name: np.broadcast_to(np.asarray(value), rows) for name, value in columns.items()}


def _joined(blocks: list[Table]) -> Table:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}

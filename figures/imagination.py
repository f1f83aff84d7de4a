"""The figures of shared imagination: what `imagine study` draws from its stored runs.

A figure is a pure function from tables (see `sims.imagination.tables`) to a picture, as everywhere in this package.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from figures.families import Pictures
from figures.render import render
from figures.tables import Table, rows, where

imagined = Pictures(["figures.imagination_agreement", "figures.imagination_loss"])

CHANCE = 0.25
WITHIN, ACROSS, REAL, MEMORY = "#2E8B57", "#B8405A", "#14366F", "#D0902A"


def draw_study(store: Path, names: Iterable[str] | None, out: Path) -> list[Path]:
    """Draw what these runs (all, if None) have data for; returns what was written, pictures first."""
    from sims.imagination.tables import study_tables  # here, because they import JAX
    from sims.store import Store

    with Store(store) as opened:
        tables = study_tables(opened, names)
    return sorted(render(imagined.drawable(tables), tables, out), key=lambda path: path.suffix != ".png")


def plain(table: Table, **but: object) -> dict[str, np.ndarray]:
    """Populations at the usual setting, save for what is named: overlap is free unless it is given.

    The usual width, steps and network are those of most rows.
    """
    wanted: dict[str, object] = {
        "world_rule_share": 0.0,
        "world_popularity": 0.0,
        "same_weights": False,
        "stated_share": 0.0,
        "snapshots": 1,
        "width": usual(table, "width"),
        **but,
    }
    keep = np.ones(rows(table), bool)
    for name, value in wanted.items():
        if value is not None:
            keep &= table[name] == value
    return where(table, keep)


def usual(table: Table, name: str):
    """The most frequent value of a column."""
    values, counts = np.unique(table[name], return_counts=True)
    return values[counts.argmax()]


def over_worlds(table: Table, by: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(values of `by`, mean of `name` over the rows of each)."""
    at = np.unique(table[by])
    numbers = table[name].astype(float)
    return at, np.array([np.nanmean(numbers[table[by] == one]) for one in at])

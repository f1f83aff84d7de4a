"""The figures of experiments: what `loss-threshold experiment NAME` draws from its stored runs.

A figure is a pure function from tables (see `sims.experiments.tables`) to a picture, as everywhere in this package.
"""

from collections.abc import Iterable
from pathlib import Path

from figures.families import Pictures
from figures.render import render

_FAMILIES = (
    "cost",
    "exposures",
    "retrieval",
    "unseen",
    "causes",
    "memory_tuning",
    "indistinguishable",
    "regularization",
    "forgetting",
    "randomization",
)
measured = Pictures([f"figures.experiments_{family}" for family in _FAMILIES])


def draw_experiment(store: Path, names: Iterable[str] | None, out: Path) -> list[Path]:
    """Draw what these runs (all, if None) have data for; returns what was written, pictures first."""
    from sims.experiments.tables import experiment_tables  # here, because they import JAX
    from sims.store import Store

    with Store(store) as opened:
        tables = experiment_tables(opened, names)
    return sorted(render(measured.drawable(tables), tables, out), key=lambda path: path.suffix != ".png")

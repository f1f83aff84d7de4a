"""The figures of experiments: what `loss-threshold experiment NAME` draws from its stored runs.

A figure is a pure function from tables (see `sims.experiments.tables`) to a picture, as everywhere in this package.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path

from matplotlib.figure import Figure

from figures.registry import Drawable
from figures.render import render
from figures.style import styled
from figures.tables import Table, rows

_FAMILIES = ("cost", "exposures", "retrieval", "unseen", "causes", "memory_tuning")
_PICTURES: dict[str, Drawable] = {}
_NEEDS: dict[str, tuple[str, ...]] = {}


def measured(
    name: str, *, needs: tuple[str, ...], caption: str, claims: tuple[str, ...] = ()
) -> Callable[[Callable[[Mapping[str, Table]], Figure]], Drawable]:
    """Register the decorated function as figure `name`, which is drawn where the tables `needs` have rows."""

    def register(draw: Callable[[Mapping[str, Table]], Figure]) -> Drawable:
        @wraps(draw)
        def drawn(tables: Mapping[str, Table]) -> Figure:
            with styled():
                return draw(tables)

        _PICTURES[name] = Drawable(name, drawn, {}, caption, claims)
        _NEEDS[name] = needs
        return _PICTURES[name]

    return register


def all_measured() -> dict[str, Drawable]:
    """Every figure by name, in the order in which they are drawn."""
    for family in _FAMILIES:
        importlib.import_module(f"figures.experiments_{family}")
    return dict(_PICTURES)


def drawable(tables: Mapping[str, Table]) -> list[Drawable]:
    """The figures that these tables have rows for."""
    return [one for name, one in all_measured().items() if all(rows(tables.get(need, {})) for need in _NEEDS[name])]


def draw_experiment(store: Path, names: Iterable[str] | None, out: Path) -> list[Path]:
    """Draw what these runs (all, if None) have data for; returns what was written, pictures first."""
    from sims.experiments.tables import experiment_tables  # here, because they import JAX
    from sims.store import Store

    with Store(store) as opened:
        tables = experiment_tables(opened, names)
    return sorted(render(drawable(tables), tables, out), key=lambda path: path.suffix != ".png")

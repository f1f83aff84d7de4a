"""Every figure by name: what it needs, what it shows, which claims stand in it.

A figure is a pure function from tables to `matplotlib.figure.Figure`: it reads no file and keeps no state.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps

from matplotlib.figure import Figure

from figures.style import styled
from figures.tables import TABLES, Table, rows
from theory.console import Refusal

_FAMILIES = ("threshold", "region", "bits", "next_token", "curves")  # modules of this package that register figures
_FIGURES: dict[str, "Drawable"] = {}


@dataclass(frozen=True)
class Drawable:
    """A registered figure; call it with tables."""

    name: str
    draw: Callable[[Mapping[str, Table]], Figure]
    needs: Mapping[str, tuple[str, ...]]  # table -> the columns without which nothing can be drawn
    caption: str  # one sentence
    claims: tuple[str, ...]

    def __call__(self, tables: Mapping[str, Table]) -> Figure:
        """Draw in the style of the package. Raises Refusal if a table or column is missing."""
        if lacks := self.lacks(tables):
            raise Refusal(f"figure {self.name}: {lacks}")
        return self.draw(tables)

    def lacks(self, tables: Mapping[str, Table]) -> str:
        """What is missing to draw this figure, and what to do; empty if nothing is."""
        for name, columns in self.needs.items():
            if name not in tables or not rows(tables[name]):
                return f"no rows in table {name}; run `loss-threshold sweep`, or give --table {name}=FILE"
            if missing := [column for column in columns if column not in tables[name]]:
                meanings = ", ".join(f"{column} ({TABLES[name][column].meaning})" for column in missing)
                return f"table {name} lacks {meanings}; add the column"
        return ""


def figure(
    name: str, *, needs: Mapping[str, tuple[str, ...]], caption: str, claims: tuple[str, ...] = ()
) -> Callable[[Callable[[Mapping[str, Table]], Figure]], Drawable]:
    """Register the decorated function as figure `name`, drawn in the style of the package."""
    wanted = [(table, column) for table, columns in needs.items() for column in columns]
    if unknown := [f"{table}.{column}" for table, column in wanted if column not in TABLES[table]]:
        raise ValueError(f"figure {name} needs columns that no table documents: {', '.join(unknown)}")
    if name in _FIGURES:
        raise ValueError(f"two figures are called {name}")

    def register(draw: Callable[[Mapping[str, Table]], Figure]) -> Drawable:
        @wraps(draw)
        def drawn(tables: Mapping[str, Table]) -> Figure:
            with styled():
                return draw(tables)

        _FIGURES[name] = Drawable(name, drawn, dict(needs), caption, claims)
        return _FIGURES[name]

    return register


def all_figures() -> dict[str, Drawable]:
    """Every figure by name, in the order in which they are drawn."""
    return in_order(_FIGURES, [f"figures.{family}" for family in _FAMILIES])


def in_order(figures: Mapping[str, Drawable], modules: Sequence[str]) -> dict[str, Drawable]:
    """The figures that these modules register on import, module by module, whichever was imported first."""
    for module in modules:
        importlib.import_module(module)
    return dict(sorted(figures.items(), key=lambda item: modules.index(item[1].draw.__module__)))


def find(name: str) -> Drawable:
    """The figure of this name. Raises Refusal that lists the names."""
    known = all_figures()
    if name not in known:
        raise Refusal(f"no figure is called {name!r}; the figures are {', '.join(known)}")
    return known[name]

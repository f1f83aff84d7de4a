"""From stored runs to pictures: what the commands `figures` and `sweep` draw."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from figures.registry import all_figures
from figures.render import render
from figures.tables import Table
from theory.console import Refusal


def draw_runs(store: Path, names: Iterable[str] | None, out: Path) -> list[Path]:
    """Draw every figure that these runs (all, if None) have data for; returns what was written, pictures first."""
    tables = stored_tables(store, names)
    paths = render([name for name, figure in all_figures().items() if not figure.lacks(tables)], tables, out)
    return sorted(paths, key=lambda path: path.suffix != ".png")


def stored_tables(store: Path, names: Iterable[str] | None = None) -> dict[str, Table]:
    """The tables of a store's runs (all, or the named ones). Raises Refusal if there is no store."""
    from sims import tables  # here, because it imports JAX, which drawing somebody's own table does not need
    from sims.store import Store

    if not store.exists():
        raise Refusal(f"{store}: there is no such store; run `loss-threshold sweep`, or name one with --store")
    wanted = None if names is None else list(names)
    with Store(store) as opened:
        every: Mapping[str, Table] = {
            "runs": tables.runs(opened, wanted),
            "curves": tables.curves(opened, wanted),
            "next_token": tables.next_token(opened, wanted),
        }
    return {name: table for name, table in every.items() if table}

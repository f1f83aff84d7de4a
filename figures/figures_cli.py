"""The command `figures`: draw the figures again, from stored runs or from anybody's table."""

from pathlib import Path

import click

from figures.drawing import stored_tables
from figures.registry import Drawable, all_figures, find
from figures.render import render
from figures.tables import TABLES, Column, Table, read_table
from theory.console import Refusal, print_json, shared_flags


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--table",
    "table_files",
    multiple=True,
    metavar="NAME=FILE",
    help="Draw a table of your own, CSV or Parquet, in the place of the store's; see --list for its columns.",
)
@shared_flags("store", "out", "list", "json")
def figures(
    names: tuple[str, ...],
    table_files: tuple[str, ...],
    store: Path | None,
    out: Path,
    list_names: bool,
    as_json: bool,
) -> None:
    """Draw the figures NAME (all, if none is named) as PNG and PDF, with the plotted numbers as CSV, in OUT/figures.

    The data come from the store of `sweep`, or from tables of your own: then no store is read.

    \b
    Example:
      loss-threshold figures
      loss-threshold figures bits loss-threshold --store out/runs.sqlite
      loss-threshold figures --table runs=my_runs.csv --out my_figures
    """
    if list_names:
        _print_list(as_json=as_json)
        return
    wanted = [find(name) for name in dict.fromkeys(names)] or list(all_figures().values())
    tables = _own_tables(table_files)
    if store is not None or not tables:
        tables = stored_tables(store or out / "runs.sqlite") | tables
    lacking = {figure.name: lacks for figure in wanted if (lacks := figure.lacks(tables))}
    if lacking and (names or len(lacking) == len(wanted)):
        name, lacks = next(iter(lacking.items()))
        raise Refusal(f"figure {name}: {lacks}")
    paths = render([figure.name for figure in wanted if figure.name not in lacking], tables, out / "figures")
    if as_json:
        print_json({"written": [str(path) for path in paths], "not_drawn": lacking})
        return
    for path in paths:
        if path.suffix == ".png":
            click.echo(f"{path} (and .pdf, .csv)")
    for name, lacks in lacking.items():
        click.echo(f"{name} not drawn: {lacks}")


def _own_tables(table_files: tuple[str, ...]) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for text in table_files:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise Refusal(f"--table {text}: say which table the file is, as in --table runs={text or 'FILE'}")
        if name in tables:
            raise Refusal(f"--table {text}: table {name} is given twice; join the files")
        tables[name] = read_table(Path(file), name)
    return tables


def _print_list(*, as_json: bool) -> None:
    known = all_figures()
    if as_json:
        print_json(
            {
                "figures": {
                    name: {"caption": one.caption, "claims": one.claims, "needs": one.needs}
                    for name, one in known.items()
                },
                "tables": {
                    table: {name: {"unit": one.unit, "meaning": one.meaning} for name, one in columns.items()}
                    for table, columns in TABLES.items()
                },
            }
        )
        return
    for figure in known.values():
        claims = f" ({', '.join(figure.claims)})" if figure.claims else ""
        click.echo(f"{figure.name:<16} {figure.caption}{claims}")
    for table, columns in TABLES.items():
        click.echo(f"\ntable {table}, one row a {'run' if table == 'runs' else 'point'}:")
        for name, column in columns.items():
            click.echo(f"  {name:<23} {_described(name, table, column, list(known.values()))}")


def _described(name: str, table: str, column: Column, known: list[Drawable]) -> str:
    unit = f" [{column.unit}]" if column.unit else ""
    users = [figure.name for figure in known if name in figure.needs.get(table, ())]
    return f"{column.meaning}{unit}" + (f"; needed by {', '.join(users)}" if users else "")

"""Commands where a run is followed by its picture: a verb of sims returns its store, the root draws it."""

from pathlib import Path
from typing import Any

import click

from sims import cli as sims_cli


def _then_drawn(command: click.Command) -> click.Command:
    """The same command, whose result is drawn if it returned a store and names of runs."""

    def callback(**flags: Any) -> None:
        assert command.callback is not None
        trained: tuple[Path, list[str]] | None = command.callback(**flags)
        if trained is not None:
            from figures.drawing import draw_runs

            store, names = trained
            paths = draw_runs(store, names, flags["out"] / "figures")
            if not flags["as_json"]:
                for path in paths:
                    click.echo(path)

    return click.Command(
        command.name, params=command.params, callback=callback, help=command.help, short_help=command.short_help
    )


sweep = _then_drawn(sims_cli.sweep)

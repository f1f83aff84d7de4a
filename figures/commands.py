"""Commands that are followed by their picture: a verb of sims returns what is to be drawn, the root draws it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sims import cli as sims_cli
from sims.experiments import cli as experiments_cli
from sims.imagination import cli as imagination_cli

Draw = Callable[..., list[Path]]  # of what the command returned, and the folder of its pictures


def _draw_runs(store: Path, names: list[str], out: Path) -> list[Path]:
    from figures.drawing import draw_runs

    return draw_runs(store, names, out)


def _draw_study(store: Path, names: list[str], out: Path) -> list[Path]:
    from figures.imagination import draw_study

    return draw_study(store, names, out)


def _draw_experiment(store: Path, names: list[str], out: Path) -> list[Path]:
    from figures.experiments import draw_experiment

    return draw_experiment(store, names, out)


def then_drawn(command: click.Command, draw: Draw = _draw_runs) -> click.Command:
    """The same command, whose result is drawn if it returned one: a store and names of runs, or a description."""

    def callback(**flags: Any) -> None:
        assert command.callback is not None
        result: tuple[Any, ...] | None = command.callback(**flags)
        if result is not None:
            paths = draw(*result, flags["out"] / "figures")
            if not flags["as_json"]:
                for path in paths:
                    click.echo(path)

    return click.Command(
        command.name, params=command.params, callback=callback, help=command.help, short_help=command.short_help
    )


sweep = then_drawn(sims_cli.sweep)
experiment = then_drawn(experiments_cli.experiment, _draw_experiment)


class _Imagine(imagination_cli.Commands):
    """`imagine`, whose study is followed by its pictures."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        return then_drawn(command, _draw_study) if command is not None and cmd_name == "study" else command


imagine = _Imagine("imagine", help=imagination_cli.imagine.help)

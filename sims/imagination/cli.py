"""The commands of shared imagination: `imagine study` simulates families of models, `imagine llm` asks real ones."""

import importlib
from pathlib import Path
from typing import Any

import click

from theory.console import shared_flags


@click.command(short_help="Simulate families of models that imagine alike, or not.")
@click.option(
    "--network",
    type=click.Choice(["mlp", "transformer"]),
    default="mlp",
    show_default=True,
    help="What a model is; the transformer takes far longer, without context and course.",
)
@shared_flags("seed", "preset", "out", "store", "plan", "fresh", "json", "quiet")
def study(**flags: Any) -> tuple[Path, list[str]] | None:
    """Do models that learned apart invent alike, and what does the loss threshold change? A table of hypotheses.

    `quick` has one world and takes a few minutes, `full` five worlds with everything; what is stored is not run again.

    \b
    Examples:
      loss-threshold imagine study
      loss-threshold imagine study --preset full --plan
    """
    from sims.imagination.study_command import run_study

    return run_study(flags)


_COMMANDS = {
    "study": ("sims.imagination.cli:study", "Simulate families of models that imagine alike, or not."),
    "llm": ("sims.imagination.llm_command:llm", "The same questions to models behind an endpoint."),
}


class Commands(click.Group):
    """The verbs of `imagine`, whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now; None if there is none."""
        if cmd_name not in _COMMANDS:
            return None
        module, function = _COMMANDS[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), function)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what each does without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])


@click.group(cls=Commands)
def imagine() -> None:
    """Shared imagination: do models answer alike about what does not exist?

    \b
    Examples:
      loss-threshold imagine study
      loss-threshold imagine llm --models models.toml
    """

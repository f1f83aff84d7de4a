"""The root command `loss-threshold`: verbs are names until one is used, so that `--help` imports nothing heavy."""

import importlib

import click

from theory.console import REFUSED, Refusal

VERBS = {
    "sweep": ("figures.commands:sweep", "Train a grid of networks on facts of growing number; picture and table."),
    "bounds": ("theory.cli:bounds", "Evaluate the bounds for your numbers."),
    "judge": ("theory.cli:judge", "Hold anybody's per-fact losses against every claim that applies."),
    "verify": ("theory.verify_command:verify", "Attack the claims and report how they stood."),
    "construct": ("theory.construct_command:construct", "Write down a network with a wanted loss and hallucination."),
    "mome": ("figures.memory_commands:mome", "Memorize facts exactly with memory experts; ask, check, edit."),
    "experiment": ("figures.commands:experiment", "Reproduce and question the founding paper's experiments."),
    "imagine": ("figures.commands:imagine", "Shared imagination: families of models simulated, or real ones asked."),
    "facts": ("sims.facts_cli:facts", "Say what is in a facts file, or generate one."),
    "figures": ("figures.figures_cli:figures", "Draw the figures again from stored runs or from your table."),
    "export": ("sims.cli:export", "Write stored runs as CSV or Parquet."),
    "doctor": ("figures.doctor:doctor", "Versions, devices, cache, and what is missing for what."),
}


class _Refused(click.ClickException):
    """A refusal as click reports it: one line, and its own exit code."""

    exit_code = REFUSED


class _Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, function = VERBS[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), function)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_text) for verb, (_, help_text) in VERBS.items()])

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            raise _Refused(" ".join(str(refusal).split())) from refusal


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="loss-threshold")
def main() -> None:
    """When does a network start to hallucinate? Theory and simulation of the loss threshold.

    \b
    Example:
      loss-threshold sweep                          # two minutes, ends with a figure
      loss-threshold sweep --facts my_facts.csv     # the same on your facts
      loss-threshold judge my_losses.csv --answers 32
    """

"""The command `experiment`: one of the founding paper's questions, asked of networks that fit on this machine."""

from pathlib import Path
from typing import Any

import click

from sims.checkpoints.template import template_flag
from theory.console import shared_flags


@click.command(short_help="Reproduce and question the founding paper's experiments.")
@click.argument("name", required=False)
@shared_flags("list")
@click.option(
    "--preset",
    type=click.Choice(["quick", "full", "sizes", "appendix-a"]),
    default="quick",
    show_default=True,
    help="How much to do. sizes: networks of many widths (regularization); appendix-a: the founding paper's recipe for "
    "a checkpoint (randomization).",
)
@shared_flags("facts", "columns")
@click.option("--count", type=click.IntRange(1), help="Take the first so many facts. [default: what the preset says]")
@click.option(
    "--backbone",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder with a checkpoint (config.json, safetensors, tokenizer.json) to adapt. Without it: a byte "
    "transformer that is pretrained here.",
)
@template_flag
@shared_flags("seed", "out", "store", "plan", "fresh", "json", "quiet")
def experiment(name: str | None, **flags: Any) -> tuple[Path, list[str]] | None:
    """Run experiment NAME: what the paper claims, what comes out here, whether they agree, and a figure.

    `quick` takes two seeds and few settings, `full` and `sizes` five seeds; --plan says how long. What is stored is
    not run again.

    \b
    Examples:
      loss-threshold experiment --list
      loss-threshold experiment cost
      loss-threshold experiment exposures --preset full --plan
      loss-threshold experiment randomization --facts facts.csv --preset full --count 64
      loss-threshold experiment regularization --facts facts.csv --preset sizes
      loss-threshold experiment randomization --facts facts.csv --backbone checkpoint --preset appendix-a
    """
    from sims.audit import AuditViolation
    from sims.experiments.command import run_experiment

    try:
        return run_experiment(name, flags)
    except AuditViolation as violation:  # the theory or the audit is broken: stop, with everything that is known
        raise click.ClickException(f"an audit failed: {violation}") from violation

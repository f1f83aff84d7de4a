"""The commands of sims: `sweep` trains a grid and returns its store, `export` writes stored runs as a table."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from theory.console import Refusal, shared_flags


class _Numbers(click.ParamType):
    """Comma-separated numbers, or powers of sqrt 2 as `128..16384`."""

    name = "numbers"

    def __init__(self, kind: type = int):
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple:
        if isinstance(value, tuple):
            return value
        try:
            if self.kind is int and ".." in value:
                from sims.grid import size_grid

                first, last = (int(end) for end in value.split(".."))
                numbers = size_grid(first, last)
            else:
                numbers = tuple(self.kind(text) for text in value.split(","))
        except (ValueError, ZeroDivisionError):
            numbers = ()
        if not numbers or min(numbers) <= 0 or not all(np.isfinite(numbers)):
            self.fail(f"{value!r}: give positive numbers separated by commas" + ", or 128..16384", param, ctx)
        return tuple(dict.fromkeys(numbers))


@click.command(short_help="Train a grid of networks on facts of growing number.")
@shared_flags("facts", "columns")
@click.option(
    "--held-out",
    type=click.FloatRange(0, 0.9),
    default=0.05,
    show_default=True,
    help="Share of a file's questions kept unseen, to ask for confidence.",
)
@click.option(
    "--shuffle-answers",
    is_flag=True,
    help="Permute a file's answers: no rule is left to learn, and the capacity bound holds.",
)
@click.option(
    "--answer-classes",
    "answers",
    default="32",
    show_default=True,
    help="Classes the answer is one of (a file: a keyed hash, or `all`); several: 16,32.",
)
@click.option(
    "--law",
    type=click.Choice(["uniform", "zipf"]),
    default="uniform",
    show_default=True,
    help="Law of synthetic answers.",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Tokens of a synthetic answer (transformer).",
)
@click.option(
    "--vocabulary",
    type=click.Choice(["bytes", "words"]),
    default="bytes",
    show_default=True,
    help="How a transformer reads a file.",
)
@click.option("--network", type=click.Choice(["linear", "mlp", "transformer"]), default="mlp", show_default=True)
@click.option(
    "--sizes",
    type=_Numbers(),
    help="Numbers of facts. [default: 128..16384, transformer 128..2048, or what a file has]",
)
@click.option("--widths", type=_Numbers(), help="[default: 16,32,64; transformer: 8]")
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True, help="Layers of a transformer.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many seeds, from --seed on.")
@shared_flags("seed")
@click.option(
    "--learning-rates",
    type=_Numbers(float),
    help="For every size. [default: three around the best one, scaled to the steps of each run]",
)
@click.option("--exposures", type=_Numbers(), default="250", show_default=True, help="How often each fact is shown.")
@click.option("--minibatch", type=click.IntRange(1), default=256, show_default=True)
@click.option("--optimizer", type=click.Choice(["adam", "adafactor", "sgd"]), default="adam", show_default=True)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant", "stepwise"]),
    help="[default: cosine to zero; with --until-stored stepwise]",
)
@click.option("--until-stored", is_flag=True, help="Stop a run when every fact is under ln 2; exposures are the most.")
@click.option("--keep-per-fact", is_flag=True, help="Keep the loss of every fact, for `export --per-fact` and `judge`.")
@shared_flags("out", "store", "plan", "fresh", "json", "quiet")
def sweep(**flags: Any) -> tuple[Path, list[str]] | None:
    """Train many small networks on growing sets of facts: where does loss leave zero, where does hallucination begin?

    Only runs that the store lacks are trained: the same command again resumes, a wider grid adds to it.

    \b
    Examples:
      loss-threshold sweep
      loss-threshold sweep --facts people.csv --shuffle-answers
      loss-threshold sweep --widths 64 --exposures 125,250,500,1000 --plan
    """
    from sims import sweep_command
    from sims.audit import AuditViolation

    try:
        return sweep_command.run_sweep(flags)
    except AuditViolation as violation:  # the theory or the audit is broken: stop, with everything that is known
        raise click.ClickException(f"an audit failed: {violation}") from violation


@click.command(short_help="Write stored runs as CSV or Parquet.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--per-fact", is_flag=True, help="One row a fact of the runs that kept them: what `judge` reads.")
@click.option("--curves", is_flag=True, help="One row a point of a training curve.")
@shared_flags("out", "store", "fresh", "quiet")
def export(file: Path, per_fact: bool, curves: bool, out: Path, store: Path | None, fresh: bool, quiet: bool) -> None:
    """Write stored runs to FILE, .csv or .parquet by its name; one row a run. An existing FILE needs --fresh.

    \b
    Examples:
      loss-threshold export runs.csv
      loss-threshold export losses.parquet --per-fact
    """
    from sims import tables
    from sims.store import Store
    from theory.table_files import write_columns

    path = store or out / "runs.sqlite"
    if not path.exists():
        raise Refusal(f"{path}: no store there; run `loss-threshold sweep` first or name one with --store")
    if per_fact and curves:
        raise Refusal("--per-fact and --curves are two tables; choose one")
    with Store(path) as opened:
        columns = tables.per_fact(opened) if per_fact else tables.curves(opened) if curves else tables.runs(opened)
    if not columns or not len(next(iter(columns.values()))):
        hint = "train with `sweep --keep-per-fact`" if per_fact else "run `loss-threshold sweep`"
        raise Refusal(f"{path}: holds no such rows; {hint}")
    write_columns(columns, file, overwrite=fresh)
    if not quiet:
        click.echo(f"{file}: {len(next(iter(columns.values())))} rows")

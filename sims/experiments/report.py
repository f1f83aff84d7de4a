"""What an experiment ends with: its table of findings, what was held equal, and what to be wary of."""

import math
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Columns

from sims.experiments.experiment import Evidence, Experiment, Measurements, Settings
from sims.experiments.finding import Finding
from sims.intervals import Interval
from theory.console import print_json


def report(experiment: Experiment, evidence: Evidence, settings: Settings, path: Path, *, as_json: bool) -> None:
    """Print the findings as text or as one JSON document."""
    lines = experiment.findings(evidence)
    measured = None if experiment.measurements is None else experiment.measurements(evidence)
    notes = [*experiment.notes(evidence), *_own_notes(evidence, settings)]
    if as_json:
        print_json(
            {
                "experiment": experiment.name,
                "question": experiment.question,
                "comparison": experiment.comparison,
                "preset": settings.preset,
                "store": str(path),
                "diverged": evidence.diverged,
                "findings": [line.document for line in lines],
                "measurements": [] if measured is None else measured.document,
                "notes": notes,
            }
        )
        return
    console = Console(width=None if Console().is_terminal else 150)
    console.print(_table(experiment, lines))
    if measured is not None:
        console.print(_measurements(measured))
    click.echo(experiment.comparison)
    for note in notes:
        click.echo(f"* {note}")


def _own_notes(evidence: Evidence, settings: Settings) -> list[str]:
    notes = []
    over_seeds = len({result.spec["seed"] for _, result in evidence.all if "seed" in result.spec})
    if over_seeds and not settings.full:
        notes.append(f"preset quick: {over_seeds} seeds, few settings; intervals over two seeds are wide")
    if evidence.diverged:
        notes.append(f"{evidence.diverged} run(s) diverged and count as failed")
    return notes


def _table(experiment: Experiment, lines: list[Finding]) -> Columns:
    title = f"{experiment.question} 95 % intervals over seeds, unless another range is named"
    columns = Columns(title=title, title_justify="left")
    columns.add_column("claim", ratio=7)
    columns.add_column("printed in", ratio=3)
    columns.add_column("expected", justify="right", ratio=3)
    columns.add_column("measured", justify="right", ratio=4)
    columns.add_column("unit", ratio=3)
    columns.add_column("verdict", ratio=4)
    for line in lines:
        verdict = f"{line.verdict} {line.on}" if line.verdict == "depends on" else line.verdict
        if line.on and line.verdict != "depends on":
            verdict += f" ({line.on})"
        columns.add_row(line.claim, line.source, line.expected, shown(line.measured), _unit(line), verdict)
    return columns


def _measurements(measured: Measurements) -> Columns:
    columns = Columns(title=measured.title, title_justify="left")
    for place, heading in enumerate(measured.headings):
        columns.add_column(heading, justify="right" if place else "left")
    for row in measured.rows:
        columns.add_row(*row)
    return columns


def _unit(line: Finding) -> str:
    plain = math.isnan(line.measured.low) or line.over == "seeds"
    return line.unit if plain else f"{line.unit}; over {line.over}"


def shown(interval: Interval) -> str:
    """An interval as text, four digits each.

    >>> shown(Interval(0.5, 0.25, 0.75))
    '0.5 (0.25 to 0.75)'
    """
    if math.isnan(interval.mean):
        return "-"
    ends = "" if math.isnan(interval.low) else f" ({interval.low:.4g} to {interval.high:.4g})"
    return f"{interval.mean:.4g}{ends}"

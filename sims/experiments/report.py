"""What an experiment ends with: its table of findings, what was held equal, and what to be wary of."""

import math
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
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
    console.print(findings_table(experiment.question, lines))
    if measured is not None:
        console.print(_measurements(measured))
    click.echo(experiment.comparison)
    for note in notes:
        click.echo(f"* {note}")


def _own_notes(evidence: Evidence, settings: Settings) -> list[str]:
    notes = []
    over_seeds = len({result.spec["seed"] for _, result in evidence.all if "seed" in result.spec})
    if over_seeds and settings.preset == "quick":
        notes.append(f"preset quick: {over_seeds} seeds, few settings; intervals over two seeds are wide")
    if evidence.diverged:
        left_out = "they are left out of means, and no learning rate is the best because of them"
        notes.append(f"{evidence.diverged} run(s) diverged: {left_out}")
    return notes


def findings_table(question: str, lines: list[Finding]) -> Columns:
    """One claim after the other, with where it is printed; under it the settings at which it was tested."""
    title = f"{question} 95 % intervals over seeds, unless another range is named"
    columns = Columns(title=title, title_justify="left", box=SIMPLE_HEAD, expand=True)
    columns.add_column("claim (where it is printed)", ratio=12)
    columns.add_column("expected", justify="right", ratio=5)
    columns.add_column("measured", justify="right", ratio=6)
    columns.add_column("unit", ratio=3)
    columns.add_column("verdict", ratio=6)
    for lines_of_claim in grouped(lines):
        first, reason = lines_of_claim[0], ""
        claim = f"{first.claim} ({first.source})"
        if first.at:
            columns.add_row(claim)
        for line in lines_of_claim:
            told = line.on if line.on != reason else ""  # a reason is not repeated under the same claim
            reason = line.on
            named = Padding(line.at, (0, 0, 0, 2)) if line.at else claim
            columns.add_row(named, line.expected, shown(line.measured, line.unit), _unit(line), _verdict(line, told))
        columns.add_section()
    return columns


def grouped(lines: list[Finding]) -> list[list[Finding]]:
    """Lines of one claim together, in the order in which claims come first; one without a setting stands alone."""
    groups: dict[tuple[str, str] | int, list[Finding]] = {}
    for place, line in enumerate(lines):
        groups.setdefault((line.claim, line.source) if line.at else place, []).append(line)
    return list(groups.values())


def _verdict(line: Finding, reason: str) -> str:
    if not reason:
        return line.verdict if not line.on else f"{line.verdict}, as above"
    return f"{line.verdict} {reason}" if line.verdict == "depends on" else f"{line.verdict} ({reason})"


def _measurements(measured: Measurements) -> Columns:
    columns = Columns(title=measured.title, title_justify="left", box=SIMPLE_HEAD)
    for place, heading in enumerate(measured.headings):
        columns.add_column(heading, justify="right" if place else "left")
    for row in measured.rows:
        columns.add_row(*row)
    return columns


def _unit(line: Finding) -> str:
    plain = math.isnan(line.measured.low) or line.over == "seeds"
    return line.unit if plain else f"{line.unit}; over {line.over}"


def shown(interval: Interval, unit: str = "") -> str:
    """An interval as text, four digits each; a share that is not all is less than 1.

    >>> shown(Interval(0.5, 0.25, 0.75)), shown(Interval(0.99996, 0.9999, 1.0), "share of facts")
    ('0.5 (0.25 to 0.75)', '0.9999 (0.9999 to 1)')
    """
    if math.isnan(interval.mean):
        return "-"
    most = 0.9999 if unit.startswith("share") else math.inf
    mean, low, high = (f"{min(end, most) if end < 1.0 else end:.4g}" for end in interval)
    return mean if math.isnan(interval.low) else f"{mean} ({low} to {high})"

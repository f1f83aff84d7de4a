"""What `imagine study` ends with: hypotheses against measurements, baselines, the paper's questions."""

import math
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Columns

from sims.imagination.baselines import BASELINES
from sims.imagination.evidence import Evidence
from sims.imagination.hypotheses import Prediction
from sims.imagination.paper_questions import PaperQuestion
from sims.intervals import Interval
from theory.console import print_json

CAUTION = "Simulation shows that mechanisms suffice to make models imagine alike, not that they act in large models."


def report(
    lines: Sequence[Prediction], questions: Sequence[PaperQuestion], evidence: Evidence, path: Path, *, as_json: bool
) -> None:
    """Print the predictions as text or as one JSON document."""
    if as_json:
        print_json(_document(lines, questions, evidence, path))
        return
    console = Console(width=None if Console().is_terminal else 130)
    console.print(_agreement_table(evidence))
    console.print(_predictions_table(lines, len(evidence.worlds)))
    for question in questions:
        click.echo(f"\n{question.question}\n  {question.counterpart}")
        for name, interval in question.numbers.items():
            click.echo(f"    {name:<32} {_shown(interval)}")
    held = sum(line.holds for line in lines)
    click.echo(f"\n{held} of {len(lines)} predictions hold. {CAUTION}")
    if evidence.diverged:
        click.echo(f"{evidence.diverged} run(s) diverged and are left out.")


def _agreement_table(evidence: Evidence) -> Columns:
    columns = Columns(title="Direct questions: how often the question model's answer is given", title_justify="left")
    columns.add_column("population")
    headings = ("loss, nats", "within families", "across families", *(f"{name}, across" for name in BASELINES))
    for heading in headings:
        columns.add_column(heading, justify="right")
    roles = [
        role for word in ("overlap", "marginals", "rule", "width", "context", "course") for role in evidence.roles(word)
    ]
    for role in [*roles, "same weights"]:
        names = ("loss_nats", "direct_in_family", "direct_cross_family")
        found = [
            evidence.metric(role, name) for name in (*names, *(f"direct_{name}_cross_family" for name in BASELINES))
        ]
        if math.isfinite(found[0].mean):
            columns.add_row(role, *(_shown(one) for one in found))
    return columns


def _predictions_table(lines: Sequence[Prediction], worlds: int) -> Columns:
    over = "models and questions" if worlds == 1 else f"{worlds} worlds"
    columns = Columns(title=f"Hypotheses; 95 % intervals over {over}", title_justify="left")
    columns.add_column("hypothesis")
    for heading in ("expected", "measured", "holds"):
        columns.add_column(heading, justify="right")
    for line in lines:
        columns.add_row(line.hypothesis, line.expected, _shown(line.measured), "yes" if line.holds else "NO")
    return columns


def _shown(interval: Interval) -> str:
    ends = f" ({interval.low:.3f}-{interval.high:.3f})" if math.isfinite(interval.low) else ""
    return f"{interval.mean:.3f}{ends}" if math.isfinite(interval.mean) else "-"


def _document(lines: Sequence[Prediction], questions: Sequence[PaperQuestion], evidence: Evidence, path: Path) -> dict:
    return {
        "store": str(path),
        "worlds": len(evidence.worlds),
        "diverged": evidence.diverged,
        "predictions": [
            {
                "hypothesis": line.hypothesis,
                "expected": line.expected,
                "measured": line.measured._asdict(),
                "holds": line.holds,
            }
            for line in lines
        ],
        "paper_questions": [
            {
                "question": one.question,
                "counterpart": one.counterpart,
                "numbers": {name: interval._asdict() for name, interval in one.numbers.items()},
            }
            for one in questions
        ],
        "caution": CAUTION,
    }

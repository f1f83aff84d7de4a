"""What the command `experiment` does: cases to runs, plan or progress, and the findings at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sims.experiments.catalog import EXPERIMENTS, find
from sims.experiments.experiment import Case, Evidence, Experiment, Settings
from sims.experiments.report import report
from sims.experiments.running import run_cases
from sims.progress import Progress
from sims.runtime import set_up
from sims.store import Store
from sims.sweep import workers
from theory.console import Refusal, print_json

_SAY_BEFORE_SECONDS = 60.0  # a run expected to take longer says so before it begins


def run_experiment(name: str | None, flags: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Do what the flags say; returns the store and the names of the runs, or None after --plan and --list."""
    if flags["list_names"]:
        _print_list(as_json=flags["as_json"])
        return None
    if name is None:
        raise Refusal(f"name an experiment, one of {', '.join(EXPERIMENTS)}; --list says what they ask")
    experiment, path = find(name), flags["store"] or flags["out"] / "runs.sqlite"
    set_up(large_products=experiment.large_products)
    settings = Settings(**{field: flags[field] for field in Settings.__dataclass_fields__})
    planned = experiment.planned(settings)
    names = list(dict.fromkeys(case.fingerprint for case in planned))
    if flags["plan"]:
        _print_plan(experiment, planned, path, fresh=flags["fresh"], as_json=flags["as_json"])
        return None
    with Store(path) as store:
        if flags["fresh"]:
            store.delete(names)
        _run(experiment.name, planned, store, quiet=flags["quiet"] or flags["as_json"])
        report(experiment, Evidence(planned, store), settings, path, as_json=flags["as_json"])
    return path, names


def _run(name: str, planned: list[Case], store: Store, *, quiet: bool) -> None:
    todo = _absent(planned, store)
    if not todo:
        if not quiet:
            click.echo(f"All {len(planned)} runs are in {store.path}; nothing to do.", err=True)
        return
    work = sum(case.seconds for case in todo)
    text = f"{name}: {len(todo)} runs"
    if work / workers() > _SAY_BEFORE_SECONDS:
        text += f", about {_duration(work / workers())}"
    with Progress(text, work, quiet=quiet) as progress:
        for finished, _ in enumerate(run_cases(todo, store, progress.advance), start=1):
            progress.say(f"{name}: {finished} of {len(todo)} runs")


def _absent(planned: list[Case], store: Store) -> list[Case]:
    absent = set(store.missing(case.fingerprint for case in planned))
    return [case for case in {one.fingerprint: one for one in planned}.values() if case.fingerprint in absent]


def _print_plan(experiment: Experiment, planned: list[Case], path: Path, *, fresh: bool, as_json: bool) -> None:
    todo = list({case.fingerprint: case for case in planned}.values())
    runs = len(todo)
    if path.exists() and not fresh:
        with Store(path) as store:
            todo = _absent(planned, store)
    document = {
        "experiment": experiment.name,
        "question": experiment.question,
        "comparison": experiment.comparison,
        "store": str(path),
        "runs": runs,
        "stored": runs - len(todo),
        "to_run": len(todo),
        "expected_seconds": sum(case.seconds for case in todo) / workers(),
    }
    if as_json:
        print_json(document)
        return
    click.echo(f"{experiment.question}\n{experiment.comparison}")
    takes = _duration(document["expected_seconds"])
    click.echo(f"{runs} runs, {document['stored']} are in {path}; the others take about {takes}.")


def _duration(seconds: float) -> str:
    """In words that can be grasped.

    >>> _duration(60), _duration(7100), _duration(200_000)
    ('60 seconds', '118 minutes', '56 hours')
    """
    if seconds > 7200:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"


def _print_list(*, as_json: bool) -> None:
    if as_json:
        print_json({"experiments": EXPERIMENTS})
        return
    for name, question in EXPERIMENTS.items():
        click.echo(f"{name:<14} {question}")

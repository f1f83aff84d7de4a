"""What the command `imagine study` does: cases to runs, plan or progress, and the report at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sims.imagination.evidence import Evidence
from sims.imagination.hypotheses import predictions
from sims.imagination.paper_questions import paper_questions
from sims.imagination.population import Population
from sims.imagination.study import Case, cases, run_cases
from sims.imagination.study_report import report
from sims.progress import Progress
from sims.runtime import set_up
from sims.store import Store
from theory.console import print_json


def run_study(flags: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Do what the flags say; returns the store and the names of the runs, or None after --plan."""
    set_up()
    path = flags["store"] or flags["out"] / "runs.sqlite"
    planned = cases(flags["preset"], flags["seed"], flags["network"])
    names = list(dict.fromkeys(case.fingerprint for case in planned))
    if flags["plan"]:
        _print_plan(planned, path, fresh=flags["fresh"], as_json=flags["as_json"])
        return None
    with Store(path) as store:
        if flags["fresh"]:
            store.delete(names)
        _run(planned, store, quiet=flags["quiet"] or flags["as_json"])
        evidence = Evidence(planned, store)
        report(predictions(evidence), paper_questions(evidence), evidence, path, as_json=flags["as_json"])
    return path, names


def _run(planned: list[Case], store: Store, *, quiet: bool) -> None:
    absent = set(store.missing(case.fingerprint for case in planned))
    todo = [case for case in planned if case.fingerprint in absent]
    if not todo:
        if not quiet:
            click.echo(f"All {len(planned)} runs are in {store.path}; nothing to train.", err=True)
        return
    work = sum(case.work for case in {case.fingerprint: case for case in todo}.values())
    with Progress(f"imagining: {len(absent)} runs", work, quiet=quiet) as progress:
        for finished, _ in enumerate(run_cases(todo, store, progress.advance), start=1):
            progress.say(f"imagining: {finished} of {len(absent)} runs")


def _print_plan(planned: list[Case], path: Path, *, fresh: bool, as_json: bool) -> None:
    there: set[str] = set()
    if path.exists() and not fresh:
        with Store(path) as store:
            names = [case.fingerprint for case in planned]
            there = set(names) - set(store.missing(names))
    unique = {case.fingerprint: case for case in planned}
    worlds = sorted({case.what.world.seed for case in planned})
    models = sum(case.what.models for case in unique.values() if isinstance(case.what, Population))
    document = {
        "store": str(path),
        "worlds": worlds,
        "runs": len(unique),
        "stored": len(there),
        "to_run": len(unique) - len(there),
        "networks": models,
        "roles": list(dict.fromkeys(case.role for case in planned)),
    }
    if as_json:
        print_json(document)
        return
    click.echo(f"{len(unique)} runs in {len(worlds)} world(s), {models} networks; {len(there)} are in {path}.")
    click.echo("  " + "\n  ".join(document["roles"]))

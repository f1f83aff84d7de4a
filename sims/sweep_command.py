"""What the command `sweep` does: flags to grid, plan or progress, and the report at the end."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import click

from sims import tables
from sims.fact_files import read_facts
from sims.facts import Dataset, file_dataset, synthetic_facts
from sims.grid import Grid, MakeDataset, Planned, planned_runs, size_grid
from sims.progress import Progress
from sims.runtime import set_up
from sims.store import Store
from sims.sweep import missing, sweep
from sims.sweep_plan import print_plan
from sims.sweep_report import report
from sims.training import Recipe
from theory.console import Refusal

_LARGEST = {"linear": 2**14, "mlp": 2**14, "transformer": 2**11}  # a fact costs a transformer far more
_SMALLEST = 2**7
# Rates on both sides of the best one for 4000 steps (see Grid.scale_rates), by network and optimizer.
_RATES = {
    ("mlp", "adam"): (0.03, 0.075, 0.19),
    ("linear", "adam"): (0.003, 0.01, 0.03, 0.1, 0.3),
    ("transformer", "adam"): (0.003, 0.01, 0.03),
    ("mlp", "sgd"): (0.3, 1.0, 3.0),
    ("linear", "sgd"): (1.0, 3.0, 10.0),
    ("transformer", "sgd"): (0.03, 0.1, 0.3),
    ("mlp", "adafactor"): (0.03, 0.1, 0.3),
    ("linear", "adafactor"): (0.03, 0.1, 0.3),
    ("transformer", "adafactor"): (0.001, 0.003, 0.01),
}


def run_sweep(flags: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Do what the flags say; returns the store and the names of the runs, or None after --plan."""
    set_up()
    path = flags["store"] or flags["out"] / "runs.sqlite"
    make, largest = _facts(flags)
    grid = _grid(flags, largest)
    planned = planned_runs(grid, make, keep_per_fact=flags["keep_per_fact"])
    names = [one.run.fingerprint for one in planned]
    if flags["plan"]:
        print_plan(grid, make, planned, path, fresh=flags["fresh"], as_json=flags["as_json"])
        return None
    with Store(path) as store:
        if flags["fresh"]:
            store.delete(names)
        todo = missing(planned, store, keep_per_fact=flags["keep_per_fact"])
        if flags["keep_per_fact"]:  # trained before without them: the same bits come again, now with every fact
            store.delete(one.run.fingerprint for one in todo)
        _train(todo, len(planned), store, quiet=flags["quiet"] or flags["as_json"])
        report(tables.runs(store, names), path, as_json=flags["as_json"])
    return path, names


def _facts(flags: Mapping[str, Any]) -> tuple[MakeDataset, int]:
    """How to make the data set of a seed, and how many facts there are at most."""
    tokens = flags["network"] == "transformer"
    if flags["facts_file"] is None:
        largest = max(flags["sizes"] or (_LARGEST[flags["network"]],))
        if flags["shuffle_answers"]:
            raise Refusal("--shuffle-answers permutes a file's answers; synthetic answers are random already")

        @lru_cache(2)
        def synthetic(seed: int, answers: int | str) -> Dataset:
            return synthetic_facts(
                largest, seed=seed, answers=_number(answers), law=flags["law"], answer_tokens=flags["answer_tokens"]
            )

        return synthetic, largest

    facts = read_facts(
        flags["facts_file"],
        question_column=flags["question_column"],
        answer_column=flags["answer_column"],
        conflicts=flags["conflicts"],
    )

    @lru_cache(2)
    def from_file(seed: int, answers: int | str) -> Dataset:
        return file_dataset(
            facts,
            seed=seed,
            answer_classes=answers if answers == "all" else _number(answers),
            shuffle_answers=flags["shuffle_answers"],
            held_out=flags["held_out"],
            vocabulary=flags["vocabulary"] if tokens else None,
        )

    return from_file, len(from_file(flags["seed"], _answers(flags)[0]))


def _answers(flags: Mapping[str, Any]) -> tuple[int | str, ...]:
    return tuple(text if text in ("all", "string32") else _number(text) for text in flags["answers"].split(","))


def _number(text: int | str) -> Any:
    if text == "string32":
        return text
    try:
        return int(text)
    except ValueError:
        raise Refusal(f"--answer-classes {text}: give a number, several as 16,32, or `all`") from None


def _grid(flags: Mapping[str, Any], largest: int) -> Grid:
    network = flags["network"]
    sizes = flags["sizes"] or size_grid(_SMALLEST, _LARGEST[network])
    if not flags["sizes"] and largest < sizes[-1]:
        sizes = (*(size for size in sizes if size < largest), largest)
    schedule = flags["schedule"] or ("stepwise" if flags["until_stored"] else "cosine")
    if flags["until_stored"] and schedule == "cosine":
        raise Refusal("--until-stored and --schedule cosine contradict each other; use constant or stepwise")
    widths = {"linear": (1,), "mlp": (16, 32, 64), "transformer": (8,)}[network]
    return Grid(
        network=network,
        sizes=sizes,
        widths=flags["widths"] or widths,
        answers=_answers(flags),
        seeds=tuple(range(flags["seed"], flags["seed"] + flags["seeds"])),
        learning_rates=flags["learning_rates"] or _RATES[network, flags["optimizer"]],
        scale_rates=not flags["learning_rates"],
        exposures=flags["exposures"],
        recipe=Recipe(
            optimizer=flags["optimizer"],
            schedule=schedule,
            minibatch=flags["minibatch"],
            until_stored=flags["until_stored"],
        ),
        layers=flags["layers"],
    )


def _train(todo: Sequence[Planned], planned: int, store: Store, *, quiet: bool) -> None:
    if not todo:
        if not quiet:
            click.echo(f"All {planned} runs are in {store.path}; nothing to train.", err=True)
        return
    flops = sum(one.run.flops for one in todo)
    with Progress(f"training {len(todo)} of {planned} runs", flops, quiet=quiet) as progress:
        results = sweep(todo, store, audits=planned, advanced=progress.advance)
        for finished, _ in enumerate(results, start=1):
            progress.say(f"{finished} of {len(todo)} runs trained")

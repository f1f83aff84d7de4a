"""What every command of `loss-threshold` shares: one refusal, one set of flags, one way to print a result.

It lives at the bottom of the arrow so that each package's commands can use it.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

CHECK_FAILED = 1  # the work was done and the answer is no
REFUSED = 2  # what the user gave us could not be used; nothing was changed
MOST_SEED = 10**8  # random keys hold 32 bits of a seed, and an experiment makes up to 40 of each


class Refusal(ValueError):
    """Something a user gave us that cannot be used, said in one line: where, what is wrong, what to do."""


# One spelling and one meaning for each flag, wherever it appears.
_FLAGS: dict[str, Callable] = {
    "facts": click.option(
        "--facts",
        "facts_file",
        type=click.Path(path_type=Path),
        help="A CSV, TSV or JSONL file of questions and answers. Without it: synthetic facts.",
    ),
    "columns": lambda command: click.option(
        "--question-column", default="question", show_default=True, help="Column that holds the question."
    )(
        click.option("--answer-column", default="answer", show_default=True, help="Column that holds the answer.")(
            click.option(
                "--conflicts",
                type=click.Choice(["set-aside", "first", "refuse", "keep"]),
                default="set-aside",
                show_default=True,
                help="What to do with a question that has several answers.",
            )(command)
        )
    ),
    "store": click.option(
        "--store",
        type=click.Path(path_type=Path),
        help="SQLite file that keeps finished runs. [default: OUT/runs.sqlite]",
    ),
    "out": click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("out"),
        show_default=True,
        help="Folder for everything that is written.",
    ),
    "seed": click.option(
        "--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True, help="First random seed."
    ),
    "preset": click.option(
        "--preset", type=click.Choice(["quick", "full"]), default="quick", show_default=True, help="How much to do."
    ),
    "plan": click.option("--plan", is_flag=True, help="Read and check everything, say what would be done, do nothing."),
    "fresh": click.option(
        "--fresh", is_flag=True, help="Start over: delete the results that this command would reuse."
    ),
    "json": click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text."),
    "quiet": click.option("--quiet", is_flag=True, help="Print results only, no progress."),
    "list": click.option("--list", "list_names", is_flag=True, help="List the names this command knows."),
}


def shared_flags(*names: str) -> Callable[[Callable], Callable]:
    """Give a click command the flags `names`, in this order; each has the same meaning in every command."""

    def decorate(command: Callable) -> Callable:
        for name in reversed(names):
            command = _FLAGS[name](command)
        return command

    return decorate


def print_json(document: Mapping[str, Any]) -> None:
    """Print `document` as strict JSON: numbers that JSON has no word for (NaN, infinities) become null."""
    click.echo(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

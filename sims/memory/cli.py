"""`loss-threshold mome`: memorize a facts file exactly, ask it, check it, change it."""

from pathlib import Path
from typing import Any

import click

from sims.checkpoints.template import template_flag
from sims.memory.folder import Addresses, Dtype, Procedure
from sims.runtime import keep_programs
from theory.console import CHECK_FAILED, Refusal, shared_flags

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_moved = click.option(
    "--backbone", type=_FOLDER, help="Where the memory's checkpoint is now. [default: where it was when memorizing]"
)


@click.group()
def mome() -> None:
    """A mixture of memory experts: facts stored exactly beside a frozen model.

    \b
    Example:
      loss-threshold mome memorize my_facts.csv --out memory
      loss-threshold mome ask memory "What is the capital of Chile?"
      loss-threshold mome check memory my_facts.csv
    """


@mome.command()
@click.argument("file", type=_FILE)
@click.option("--out", type=_FOLDER, required=True, help="Folder of the memory, made new or taken up where it stopped.")
@shared_flags("columns")
@click.option("--experts", type=click.IntRange(1), help="Experts M. [default: a power of two, 4 or more a token]")
@click.option("--chosen", type=click.IntRange(1), default=4, show_default=True, help="Experts k a token.")
@click.option(
    "--addresses",
    type=click.Choice(list(Addresses.__args__)),
    default="exact",
    show_default=True,
    help="How a question finds its experts: by a hash of its exact text; by the nearest stored question; by both a "
    "hash and product keys; by product keys alone.",
)
@click.option(
    "--share", type=float, default=0.8, show_default=True, help="Weight of the exact half of mixed addresses."
)
@click.option(
    "--backbone",
    type=_FOLDER,
    help="The frozen model: a Llama-, Mistral-, Qwen- or Gemma-family checkpoint (config.json, safetensors, "
    "tokenizer.json), or a memory whose model is used again. [default: one is pretrained]",
)
@click.option(
    "--dtype", type=click.Choice(list(Dtype.__args__)), help="Numbers of a checkpoint's weights. [default: float32]"
)
@template_flag
@click.option("--pretrain-seconds", type=click.FloatRange(0), default=45.0, show_default=True, help="At most so long.")
@click.option(
    "--normalize", default="exact", show_default=True, help="What does not tell questions apart: of nfc,casefold,space."
)
@click.option(
    "--threshold-nats", type=float, default=0.6931471805599453, help="Every token ends below. [default: ln 2]"
)
@click.option("--passes", type=click.IntRange(1), default=50, show_default=True, help="Stop after so many passes.")
@click.option(
    "--false-acceptance", type=float, default=0.01, show_default=True, help="Unknown taken for known, wanted."
)
@click.option(
    "--procedure",
    type=click.Choice(list(Procedure.__args__)),
    default="projection",
    show_default=True,
    help="Projection writes, or gradient steps on the chosen experts as in the founding paper.",
)
@shared_flags("seed", "plan", "fresh", "json", "quiet")
def memorize(**flags: Any) -> None:
    """Store every fact of FILE so that greedy decoding gives its answer back, and say so fact by fact.

    A killed run is taken up by the same command after its last pass. Questions with several answers are set aside in
    conflicts.csv. Exit code 1 if a fact could not be stored.

    \b
    Example:
      loss-threshold mome memorize my_facts.csv --out memory
      loss-threshold mome memorize my_facts.csv --out memory --plan      # bytes, load, passes; writes nothing
      loss-threshold mome memorize my_facts.csv --backbone Llama-3.2-1B --out memory
    """
    keep_programs()
    from sims.memory.commands import run_memorize

    _end(run_memorize(flags))


@mome.command()
@click.argument("folder", type=_FOLDER)
@click.argument("file", type=_FILE)
@_moved
@shared_flags("columns", "plan", "json", "quiet")
def add(**flags: Any) -> None:
    """Store the facts of FILE too, in the memory that is there; every earlier fact is checked again.

    \b
    Example:
      loss-threshold mome add memory more_facts.csv
    """
    keep_programs()
    from sims.memory.commands import run_add

    _end(run_add(flags))


@mome.command()
@click.argument("folder", type=_FOLDER)
@click.argument("question", required=False)
@click.option("--file", "questions_file", type=_FILE, help="Ask every question of this file.")
@click.option("--question-column", default="question", show_default=True, help="Column that holds the question.")
@_moved
@shared_flags("json")
def ask(**flags: Any) -> None:
    """Answer QUESTION, or say that it is unknown and which stored questions are nearest; without one, a prompt.

    \b
    Example:
      loss-threshold mome ask memory "What is the capital of Chile?"
      loss-threshold mome ask memory --file questions.csv --json
    """
    if flags["question"] is not None and flags["questions_file"] is not None:
        raise Refusal("give one question or --file, not both")
    keep_programs()
    from sims.memory.commands import run_ask

    run_ask(flags)


@mome.command()
@click.argument("folder", type=_FOLDER)
@click.argument("file", type=_FILE)
@_moved
@shared_flags("columns", "json", "quiet")
def check(**flags: Any) -> None:
    """Ask every question of FILE and compare; failures are listed, and the exit code is 1 if there is one.

    \b
    Example:
      loss-threshold mome check memory my_facts.csv
    """
    keep_programs()
    from sims.memory.commands import run_check

    _end(run_check(flags))


@mome.command()
@click.argument("folder", type=_FOLDER)
@click.argument("question", required=False)
@click.option("--answer", help="The new answer; a new question is inserted.")
@click.option("--delete", is_flag=True, help="Forget the question: it becomes unknown.")
@click.option("--undo", is_flag=True, help="Take back the last edit, to the same bits.")
@_moved
@shared_flags("json")
def edit(**flags: Any) -> None:
    """Insert, change or delete one fact, and prove on the spot which others moved and by how much.

    \b
    Example:
      loss-threshold mome edit memory "Who is the mayor of Springfield?" --answer Quimby
      loss-threshold mome edit memory "Who is the mayor of Springfield?" --delete
      loss-threshold mome edit memory --undo
    """
    wanted = [flags["answer"] is not None, flags["delete"], flags["undo"]]
    if sum(wanted) != 1 or (flags["question"] is None) != flags["undo"]:
        raise Refusal("give a QUESTION with --answer TEXT or --delete, or --undo alone")
    keep_programs()
    from sims.memory.commands import run_edit

    _end(run_edit(flags))


@mome.command()
@click.argument("folder", type=_FOLDER)
@click.option(
    "--to", "target", type=_FILE, help="A CSV, TSV or JSONL file to write, or .gz of one. [default: print CSV]"
)
@_moved
@shared_flags("quiet")
def export(**flags: Any) -> None:
    """Write the facts as the model answers them now, question by question, read from the saved files.

    \b
    Example:
      loss-threshold mome export memory --to facts.csv
    """
    keep_programs()
    from sims.memory.commands import run_export

    _end(run_export(flags))


@mome.command()
@click.argument("folder", type=_FOLDER)
@_moved
@shared_flags("out", "json")
def show(**flags: Any) -> tuple[dict[str, Any]] | None:
    """Say what a memory holds, and draw its architecture with its own numbers into OUT/figures.

    Headers and file sizes are read, not the bank, and nothing in FOLDER is written. A checkpoint that is no longer
    where it was is told, not refused.

    \b
    Example:
      loss-threshold mome show memory
    """
    from sims.memory.show import run_show

    return run_show(flags)


def _end(done: bool) -> None:
    if not done:
        raise SystemExit(CHECK_FAILED)

"""The command `facts`: say what is in a facts file, or generate one."""

from pathlib import Path

import click

from sims.entropy import label_entropy_bits
from sims.fact_files import read_facts, write_facts
from sims.fact_report import ConflictPolicy, FactReport, Lengths
from sims.features import answer_labels
from sims.synthetic import SyntheticLaw
from theory.console import Refusal, print_json, shared_flags

_SHOWN_CONFLICTS = 5
_CLASSES = 32  # the classes that a sweep uses unless told otherwise


class _Answers(click.ParamType):
    """A number of possible symbols, or the word string32."""

    name = "INTEGER|string32"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        return "string32" if value == "string32" else click.INT(value, param, ctx)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@shared_flags("columns")
@click.option("--generate", type=click.IntRange(1), metavar="N", help="Write N synthetic facts to --out.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write; .csv, .tsv or .jsonl. Never overwritten.")
@click.option("--answers", type=_Answers(), default=32, show_default=True, help="Possible symbols of an answer.")
@click.option("--answer-tokens", type=int, default=1, show_default=True, help="Symbols in an answer.")
@click.option("--law", type=click.Choice(["uniform", "zipf"]), default="uniform", show_default=True)
@click.option("--zipf-exponent", type=float, default=1.0, show_default=True, help="For --law zipf.")
@click.option("--question-tokens", type=int, default=4, show_default=True, help="Characters of a question's key.")
@shared_flags("seed", "json")
def facts(
    file: Path | None,
    question_column: str,
    answer_column: str,
    conflicts: ConflictPolicy,
    generate: int | None,
    out: Path | None,
    answers: int | str,
    answer_tokens: int,
    law: str,
    zipf_exponent: float,
    question_tokens: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say what is in FILE, or write N synthetic facts with --generate N --out FILE.

    FILE is CSV (commas, tabs or semicolons) or JSONL, compressed with gzip or not. It is read strictly: either every
    row is accounted for, or the first line that cannot be used is named.

    \b
    Example:
      loss-threshold facts my_facts.csv
      loss-threshold facts --generate 1000 --answers string32 --out strings.csv
    """
    if (file is None) == (generate is None):
        raise click.UsageError("name a FILE to read, or say --generate N --out FILE to write one")
    if generate is not None:
        if out is None:
            raise click.UsageError("--generate needs --out FILE")
        shape = {"law": law, "zipf_exponent": zipf_exponent, "question_tokens": question_tokens}
        if answers == "string32":
            if answer_tokens != 1:
                raise Refusal("--answer-tokens: string32 answers have 32 characters; leave the flag out")
            source = SyntheticLaw.string32(seed, **shape)
        else:
            source = SyntheticLaw(seed, answers=int(answers), answer_tokens=answer_tokens, **shape)
        _generate(source, generate, out, as_json)
    elif file is not None:
        if out is not None:
            raise click.UsageError("--out is for --generate; a FILE is only read")
        read = read_facts(file, question_column=question_column, answer_column=answer_column, conflicts=conflicts)
        class_bits = label_entropy_bits(answer_labels(read.answers, _CLASSES, seed=seed)[0])
        if as_json:
            print_json({**read.report.as_dict(), "answer_classes": _CLASSES, "class_entropy_bits": class_bits})
        else:
            _print_report(read.report, class_bits)


def _generate(source: SyntheticLaw, count: int, out: Path, as_json: bool) -> None:
    questions, answers = source.texts(count)
    write_facts(out, questions, answers)
    entropy = source.answer_entropy_bits()
    if as_json:
        print_json({"file": str(out), "facts": count, **source.spec, "answer_entropy_bits": entropy})
    else:
        click.echo(f"{out}: {count:,} facts, {entropy:.4g} bits each, {count * entropy:,.0f} bits in all")


def _print_report(report: FactReport, class_bits: float) -> None:
    def line(name: str, value: str) -> None:
        click.echo(f"  {name:<20}{value}")

    click.echo(f"{report.source}: {report.layout}")
    accounted = f"{report.facts:,} kept as facts, {report.merged_rows:,} merged as exact repetitions"
    line("rows", f"{report.rows:,}: {accounted}, {report.rows_set_aside:,} set aside")
    if report.blank_lines:
        line("blank lines", f"{report.blank_lines:,}, skipped")
    line(
        "distinct questions", f"{report.distinct_questions:,}, of which {len(report.conflicts):,} have several answers"
    )
    line(
        "near duplicates",
        f"{report.near_duplicate_questions:,} questions differ only in case, spacing or Unicode form (kept)",
    )
    line("distinct answers", f"{report.distinct_answers:,}")
    line("question length", _lengths(report.question_characters))
    line("answer length", _lengths(report.answer_characters))
    line("answer entropy", f"{report.answer_entropy_bits:.4f} bits per fact; {class_bits:.4f} as {_CLASSES} classes")
    line("best exact recall", f"{report.best_exact_recall:.2%} of the rows, with one answer per question")
    for note in report.notes:
        line("note", note)
    if report.conflicts:
        _print_conflicts(report)


def _print_conflicts(report: FactReport) -> None:
    what_was_done = {"set-aside": "all their rows were set aside", "first": "the first answer was kept"}
    done = what_was_done.get(report.policy, "all answers were kept: the loss cannot fall below their entropy")
    click.echo(f"  {len(report.conflicts):,} conflicting question(s); {done}:")
    for conflict in report.conflicts[:_SHOWN_CONFLICTS]:
        click.echo(f"    {conflict}")
    if len(report.conflicts) > _SHOWN_CONFLICTS:
        click.echo(f"    and {len(report.conflicts) - _SHOWN_CONFLICTS:,} more; --json names them all")


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.shortest:,} to {lengths.longest:,} characters, {lengths.mean:.1f} on average"

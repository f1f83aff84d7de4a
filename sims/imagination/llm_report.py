"""What a study with real models found, as files and as text."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from sims.imagination.llm_agreement import pairs, spread
from sims.imagination.llm_jobs import AnswerJob, QuestionJob
from sims.imagination.llm_matrix import NOT_ANSWERED, Answers, Table, cells, gather_answers, means, position_shares
from sims.imagination.llm_models import Models
from sims.imagination.llm_questions import Question, write_questions
from sims.imagination.llm_study import Study
from sims.store import Result, Store

_ACCOUNT = ("requests", "input_tokens", "output_tokens")


def collect(study: Study, store: Store) -> dict[str, Any]:
    """Everything that the store holds of the study: cells and means, pairs of models, accounts and notes."""
    question_jobs = study.question_jobs()
    known = [question for question in study.known_questions(store) if question is not None]
    questions = list(dict.fromkeys(known))
    answer_jobs = study.answer_jobs(questions)
    names = {job.fingerprint for job in (*question_jobs, *answer_jobs)}
    rows = {row.fingerprint: row for row in store.results(names=names)}
    answers = gather_answers(questions, study.models, answer_jobs, rows)
    table = cells(answers, study.models)
    return {
        "answers": answers,
        "rows": {(job.model.name, job.question): rows.get(job.fingerprint) for job in answer_jobs},
        "cells": table,
        "means": means(table),
        "spread": spread(answers, study.models, study.seed),
        "pairs": pairs(answers, study.seed),
        "positions": position_shares(answers, study.seed),
        "accounts": accounts(study.models, [*question_jobs, *answer_jobs], rows),
        "notes": _notes(study, len(known) - len(questions), table),
    }


def accounts(
    models: Models, jobs: Iterable[QuestionJob | AnswerJob], rows: Mapping[str, Result]
) -> list[dict[str, Any]]:
    """For each model: how its jobs ended, its requests and tokens, and their cost at the prices of the models file."""
    by_model = {model.name: (Counter(), Counter()) for model in models.models}
    for name, (model_name, role) in {job.fingerprint: (job.model.name, job.role) for job in jobs}.items():
        if row := rows.get(name):
            outcomes, account = by_model[model_name]
            outcomes[f"{row.metrics['outcome']} ({role})"] += 1
            account.update({key: row.metrics[key] for key in _ACCOUNT})
            account["tokens_estimated"] += bool(row.metrics["tokens_estimated"])
    return [
        {
            "model": model.name,
            "outcomes": dict(sorted(by_model[model.name][0].items())),
            **{key: by_model[model.name][1][key] for key in (*_ACCOUNT, "tokens_estimated")},
            "cost": model.cost(*(by_model[model.name][1][key] for key in _ACCOUNT[1:])),
        }
        for model in models.models
    ]


def _notes(study: Study, repeated: int, table: Table) -> list[str]:
    notes = []
    if repeated:
        notes.append(f"{repeated} questions were invented again by the same model, and count once")
    unknown = sorted(set(table["question_model"][table["relation"] == "unknown"]))
    if unknown:
        notes.append(f"no family is known of {', '.join(unknown)}: say it in [families] of the models file")
    if study.questions is None and study.per_topic > 1:
        notes.append("the questions of one model, kind and topic were asked for independently of each other")
    return notes


def write_files(found: Mapping[str, Any], out: Path) -> list[Path]:
    """Write llm_matrix.csv, llm_pairs.csv, llm_answers.csv and llm_questions.jsonl, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    answers: Answers = found["answers"]
    paths = [out / name for name in ("llm_matrix.csv", "llm_pairs.csv", "llm_answers.csv", "llm_questions.jsonl")]
    contents = (_csv(found["cells"]), _csv(found["pairs"]), _csv(_answer_table(answers, found["rows"])))
    for path, text in zip(paths, contents, strict=False):
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text, encoding="utf-8", newline="")
        os.replace(partial, path)
    partial = paths[-1].with_name(paths[-1].name + ".partial")
    write_questions(partial, answers.questions)
    os.replace(partial, paths[-1])
    return paths


def _csv(table: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    columns = [column.tolist() if isinstance(column, np.ndarray) else column for column in table.values()]
    for row in zip(*columns, strict=True):
        writer.writerow("" if isinstance(value, float) and math.isnan(value) else value for value in row)
    return text.getvalue()


def _answer_table(answers: Answers, rows: Mapping[tuple[str, Question], Result | None]) -> dict[str, list[Any]]:
    """One row for each question and answer model: who, what was chosen, and how the job ended."""
    names = ("question", "kind", "topic", "question_model", "answer_model", "outcome", "chosen", "correct", "right")
    lines = []
    for q, question in enumerate(answers.questions):
        for a, name in enumerate(answers.answer_models):
            row = rows.get((name, question))
            outcome = "not asked" if row is None else row.metrics["outcome"]
            chosen = int(answers.chosen[q, a])
            shown = "" if chosen == NOT_ANSWERED else chosen
            right = "" if chosen == NOT_ANSWERED else int(answers.right[q, a])
            who = (question.fingerprint(), question.kind, question.topic, question.question_model, name)
            lines.append((*who, outcome, shown, question.correct, right))
    columns = list(zip(*lines, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def document(found: Mapping[str, Any]) -> dict[str, Any]:
    """The report for --json."""
    lists = ("means", "spread", "positions", "accounts", "notes")
    return {**{name: _rows(found[name]) for name in ("cells", "pairs")}, **{name: found[name] for name in lists}}


def _rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*(c.tolist() for c in table.values()), strict=True)]


def print_report(found: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """The matrices and means as text."""
    table: Table = found["cells"]
    for kind in dict.fromkeys(table["kind"]):
        _print_matrix(kind, table)
    pooled = {(row["kind"], row["relation"]): row for row in found["spread"]}
    for row in found["means"]:
        _print_mean(row, pooled.get((row["kind"], row["relation"])))
    for kind, p in dict.fromkeys((row["kind"], row["family_p"]) for row in found["spread"]):
        if not math.isnan(p):
            click.echo(f"{kind}: if families meant nothing, they would agree as much with probability {p:.3g}")
    click.echo(
        "Chance is 25.0 %. A mean counts every cell alike, a pooled one every answer; its interval resamples models "
        "and questions. The intervals of the cells are in the table."
    )
    for row in found["accounts"]:
        ended = ", ".join(f"{count} {outcome}" for outcome, count in row["outcomes"].items()) or "nothing asked"
        rough = " (tokens partly estimated)" if row["tokens_estimated"] else ""
        tokens = f"{row['input_tokens']} + {row['output_tokens']} tokens"
        click.echo(f"{row['model']}: {ended}; {row['requests']} requests, {tokens}, cost {row['cost']:.4f}{rough}")
    for note in found["notes"]:
        click.echo(f"note: {note}")
    for path in paths:
        click.echo(str(path))


def _print_mean(row: Mapping[str, Any], pooled: Mapping[str, Any] | None) -> None:
    interval = ""
    if pooled is not None:
        ends = f"95 % from {_percent(pooled['low'])} to {_percent(pooled['high'])}"
        interval = f"; pooled {_percent(pooled['mean'])}, {ends}"
    click.echo(
        f"{row['kind']}, {row['relation'].replace('_', '-')}: correct {_percent(row['correctness'])} of the answered, "
        f"answered {_percent(row['answer_rate'])} of the asked ({row['cells']} cells, {row['asked']} asked){interval}"
    )


def _print_matrix(kind: str, table: Table) -> None:
    here = table["kind"] == kind
    names = list(dict.fromkeys(table["answer_model"][here]))
    cell = dict(zip(zip(table["question_model"][here], table["answer_model"][here], strict=True),
                    table["correctness"][here], strict=True))  # fmt: skip
    inventors = list(dict.fromkeys(table["question_model"][here]))
    width = max(len(name) for name in [*inventors, "invented by"]) + 1
    click.echo(f"Correct of the answered, {kind} questions (columns: answer models)")
    click.echo(f"{'invented by':<{width}}" + " ".join(f"{name:>9}" for name in names))
    for inventor in inventors:
        shown = (f"{_percent(cell[inventor, name]):>{max(9, len(name))}}" for name in names)
        click.echo(f"{inventor:<{width}}" + " ".join(shown))


def _percent(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{100 * rate:.1f} %"

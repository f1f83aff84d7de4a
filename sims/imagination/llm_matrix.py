"""Question models by answer models: correctness and answer rate of each cell, and the means of what belongs together.

Letters: Q questions, A answer models. Correctness = correct / answered, answer rate = answered / asked; chance is 1/4.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from sims.imagination.llm_jobs import AnswerJob
from sims.imagination.llm_models import Models
from sims.imagination.llm_parsing import LETTERS
from sims.imagination.llm_questions import Question
from sims.intervals import wilson
from sims.store import Result

Table = dict[str, np.ndarray]
RELATIONS = ("self", "in_family", "cross_family", "unknown")
CHANCE = 0.25
NOT_ANSWERED = -1


@dataclass(frozen=True)
class Answers:
    """All answers in the shape that measures take. Options count in the order of the question, not as shown."""

    questions: tuple[Question, ...]
    answer_models: tuple[str, ...]
    correct: Int[np.ndarray, " Q"]  # the option that the question model calls correct
    chosen: Int[np.ndarray, "Q A"]  # NOT_ANSWERED where there is no answer
    asked: Bool[np.ndarray, "Q A"]  # False where the question is yet to be asked

    @property
    def answered(self) -> Bool[np.ndarray, "Q A"]:
        """Where an option was chosen."""
        return self.chosen != NOT_ANSWERED

    @property
    def right(self) -> Bool[np.ndarray, "Q A"]:
        """Where the option that the question model calls correct was chosen."""
        return self.chosen == self.correct[:, None]

    def places(self, seed: int) -> Int[np.ndarray, "Q A"]:
        """Where the chosen option stood among those shown, from 0; NOT_ANSWERED where there is no answer."""
        orders = np.array([question.order(seed) for question in self.questions]).reshape(-1, len(LETTERS))
        places = np.take_along_axis(np.argsort(orders, axis=1), np.maximum(self.chosen, 0), axis=1)
        return np.where(self.answered, places, NOT_ANSWERED)


def gather_answers(
    questions: Sequence[Question], models: Models, jobs: Sequence[AnswerJob], rows: Mapping[str, Result]
) -> Answers:
    """The answers that `rows` (by fingerprint) hold to the questions."""
    names = tuple(model.name for model in models.of("answer"))
    place = {(job.model.name, job.question): job.fingerprint for job in jobs}
    chosen = np.full((len(questions), len(names)), NOT_ANSWERED)
    asked = np.zeros(chosen.shape, dtype=bool)
    for q, question in enumerate(questions):
        for a, name in enumerate(names):
            if row := rows.get(place[name, question]):
                asked[q, a] = True
                chosen[q, a] = row.metrics["chosen"]
    correct = np.array([question.correct for question in questions], dtype=int)
    return Answers(tuple(questions), names, correct, chosen, asked)


def cells(answers: Answers, models: Models) -> Table:
    """One row for each kind of question, question model and answer model; rates with their 95 % intervals.

    A correctness without any answer is NaN. `relation` is one of RELATIONS; unknown where the models file gives no
    family for the question model.
    """
    kinds = np.array([question.kind for question in answers.questions], dtype=object)
    inventors = np.array([question.question_model for question in answers.questions], dtype=object)
    rows = []
    for kind in dict.fromkeys(kinds):
        for inventor in dict.fromkeys(inventors[kinds == kind]):
            here = (kinds == kind) & (inventors == inventor)
            for a, name in enumerate(answers.answer_models):
                counts = [int(of[here, a].sum()) for of in (answers.asked, answers.answered, answers.right)]
                families = (models.family(inventor), models.family(name))
                rows.append((kind, inventor, name, *families, _relation(inventor, name, *families), *counts))
    names = ("kind", "question_model", "answer_model", "question_family", "answer_family", "relation")
    columns = list(zip(*rows, strict=True)) or [()] * 9
    text = {
        name: np.array([part or "" for part in column], dtype=object)
        for name, column in zip(names, columns, strict=False)
    }
    asked, answered, correct = (np.array(column, dtype=int) for column in columns[6:])
    return {
        **text,
        "asked": asked,
        "answered": answered,
        "correct": correct,
        **_rate("answer_rate", answered, asked),
        **_rate("correctness", correct, answered),
    }


def _relation(inventor: str, name: str, family: str | None, other: str | None) -> str:
    if inventor == name:
        return "self"
    if family is None or other is None:
        return "unknown"
    return "in_family" if family == other else "cross_family"


def _rate(name: str, successes: np.ndarray, trials: np.ndarray) -> Table:
    low, high = wilson(successes, trials)
    with np.errstate(invalid="ignore"):
        return {name: successes / np.where(trials, trials, np.nan), f"{name}_low": low, f"{name}_high": high}


def means(table: Table) -> list[dict[str, str | int | float]]:
    """For each kind: mean over the cells of each relation and of all, every cell with an answer counting alike."""
    return [row for kind in dict.fromkeys(table["kind"]) for row in _means_of_kind(table, kind)]


def _means_of_kind(table: Table, kind: str) -> Iterator[dict[str, str | int | float]]:
    for relation in (*RELATIONS, "all"):
        here = (table["kind"] == kind) & ((table["relation"] == relation) | (relation == "all"))
        answered = here & (table["answered"] > 0)
        if not here.any():
            continue
        yield {
            "kind": kind,
            "relation": relation,
            "cells": int(here.sum()),
            "asked": int(table["asked"][here].sum()),
            "answered": int(table["answered"][here].sum()),
            "correct": int(table["correct"][here].sum()),
            "answer_rate": _mean(table["answer_rate"][here & (table["asked"] > 0)]),
            "correctness": _mean(table["correctness"][answered]),
        }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def position_shares(answers: Answers, seed: int) -> list[dict[str, str | float]]:
    """How often each answer model chose the option shown first, second, ...: 1/4 each if the place does not matter.

    The baseline "always the same place" is right as often as the shuffle puts the correct option there.
    """
    places = answers.places(seed)
    rows = []
    for a, name in enumerate(answers.answer_models):
        counts = np.bincount(places[answers.answered[:, a], a], minlength=len(LETTERS))
        shares = (counts / max(1, counts.sum())).tolist()
        rows.append({"answer_model": name, **dict(zip(LETTERS, shares, strict=True))})
    return rows

"""How alike real models answer, and how sure the means are: the measures and statistics of the simulated study.

Letters: Q question models, A answer models, n questions, m = 4 options.
"""

import numpy as np

from sims.imagination import measures, statistics
from sims.imagination.llm_matrix import NOT_ANSWERED, Answers, Table
from sims.imagination.llm_models import Models
from sims.imagination.llm_parsing import LETTERS


def pairs(answers: Answers, seed: int) -> Table:
    """One row for each kind of question and pair of answer models, over all questions that both answered.

    Choices are the places of the options as they were shown, in an order that is independent of what they say: what
    two models agree on beyond their habits of place is what the chance-corrected measures see.
    """
    places = answers.places(seed)
    orders = np.array([question.order(seed) for question in answers.questions]).reshape(-1, len(LETTERS))
    right = (orders == answers.correct[:, None]).argmax(axis=1)
    kinds = np.array([question.kind for question in answers.questions], dtype=object)
    rows = []
    for kind in dict.fromkeys(kinds):
        here = kinds == kind
        for i, first in enumerate(answers.answer_models):
            for j, second in enumerate(answers.answer_models[i + 1 :], start=i + 1):
                a, b = places[here, i], places[here, j]
                rows.append({"kind": kind, "first": first, "second": second, **_alike(a, b, right[here])})
    names = list(rows[0]) if rows else ["kind", "first", "second"]
    return {name: np.array([row[name] for row in rows], dtype=None if rows else object) for name in names}


def _alike(a: np.ndarray, b: np.ndarray, right: np.ndarray) -> dict[str, float]:
    options = len(LETTERS)
    both = (a != NOT_ANSWERED) & (b != NOT_ANSWERED)
    found = {
        "agreement": measures.agreement(a, b),
        "lift": measures.lift(a, b, options),
        "cohen_kappa": measures.cohen_kappa(a, b, options),
        "error_consistency": measures.error_consistency(a == right, b == right, both),
        "capa": measures.capa(measures.one_hot(a, options), measures.one_hot(b, options), right),
        "wrong_agreement": measures.wrong_agreement(a, b, right),
    }
    return {"answered_by_both": int(both.sum()), **{name: float(value) for name, value in found.items()}}


def spread(answers: Answers, models: Models, seed: int) -> list[dict[str, str | float]]:
    """For each kind: pooled correctness of each relation with a two-way bootstrap interval, and the test of families.

    Over the models that both invented and answered; a kind with fewer than two of them is left out.
    """
    rows: list[dict[str, str | float]] = []
    for kind in dict.fromkeys(question.kind for question in answers.questions):
        names, values = _square(answers, kind)
        if len(names) < 2:
            continue
        families = [models.family(name) for name in names]
        family = np.array([sorted(set(families), key=str).index(one) for one in families])
        found = statistics.two_way_bootstrap(values, family, seed)
        p = _family_p(values, family, seed)
        rows += [
            {"kind": kind, "relation": relation, **interval._asdict(), "family_p": p}
            for relation, interval in found.items()
            if np.isfinite(interval.mean)
        ]
    return rows


def _square(answers: Answers, kind: str) -> tuple[list[str], np.ndarray]:
    """(names, whether each was right [Q A n]) of the models in both roles; NaN without an answer, and as padding."""
    inventors = np.array([q.question_model if q.kind == kind else "" for q in answers.questions], dtype=object)
    names = [name for name in answers.answer_models if name in inventors]
    columns = [answers.answer_models.index(name) for name in names]
    right = np.where(answers.answered, answers.right, np.nan)[:, columns]
    blocks = [right[inventors == name].T for name in names]
    longest = max((block.shape[1] for block in blocks), default=0)
    padded = [np.pad(block, ((0, 0), (0, longest - block.shape[1])), constant_values=np.nan) for block in blocks]
    return names, np.array(padded)


def _family_p(values: np.ndarray, family: np.ndarray, seed: int) -> float:
    """p-value of "families mean nothing"; NaN where it cannot be said: a cell is empty, or families have one model."""
    sizes = np.unique(family, return_counts=True)[1]
    answered = np.isfinite(values).sum(axis=-1)
    if (answered == 0).any() or len(sizes) < 2 or sizes.max() < 2:
        return float("nan")
    return statistics.permutation_test(np.nansum(values, axis=-1) / answered, family, seed)

"""Facts with flaws: some questions with two answers, some left out, some with a wrong answer, some said in copies.

Which questions are flawed is decided by three orders of their own, so that flaws overlap as independent ones do, and a
larger share holds a smaller one.

Letters: q questions, V answers; the truth of a question is the answer that it has before anything is done to it.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from sims.facts import Dataset
from sims.keyed import keyed_order, keyed_uniforms


@dataclass(frozen=True)
class Flaws:
    """Shares of the questions. Each copy of a fact is wrong or not by itself; a question has one row a copy."""

    conflicting: float = 0.0  # said twice, the second time with another answer
    missing: float = 0.0  # asked, never said
    wrong: float = 0.0  # said with another answer than the true one
    copies: int = 1

    def __post_init__(self):
        for name in ("conflicting", "missing", "wrong"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        if self.copies < 1:
            raise ValueError(f"copies must be 1 or more, got {self.copies}")


def flawed(facts: Dataset, flaws: Flaws, seed: int) -> Dataset:
    """What is trained on: rows of (question, answer), of the q questions of `facts`, in no particular order.

    Exactly round(share q) questions have each flaw (wrong: of each copy). A conflicting question gives its second
    answer once a copy; a missing one has no row. The result has no bits of its own: its labels are "given".
    """
    question = np.tile(np.arange(len(facts), dtype=np.int32), flaws.copies)
    said = np.concatenate([_with_wrong_ones(facts, flaws.wrong, seed, copy) for copy in range(flaws.copies)])
    conflicting = np.isin(question, _chosen(seed, "conflicting", len(facts), flaws.conflicting))
    second = _another(facts.labels, facts.answers, seed, "second answers")[question[conflicting]]
    question = np.concatenate([question, question[conflicting]])
    said = np.concatenate([said, second])
    kept = ~np.isin(question, _chosen(seed, "missing", len(facts), flaws.missing))
    question, said = question[kept], said[kept]
    return replace(
        facts,
        name=f"{facts.name}, flawed",
        features=facts.features[question],
        labels=said,
        labels_random="given",
        questions=question,
        whole_answers=said,
        unseen=facts.unseen[:0],
        tokenized=None,
        _drawn_bits=None,
    )


def first(facts: Dataset, count: int) -> Dataset:
    """The first `count` facts, as classes."""
    rows = slice(count)
    return replace(
        facts,
        features=facts.features[rows],
        labels=facts.labels[rows],
        questions=facts.questions[rows],
        whole_answers=facts.whole_answers[rows],
        unseen=facts.unseen[:0],
        tokenized=None,
        _drawn_bits=None,
    )


def luck(facts: Dataset) -> float:
    """Probability that an answer drawn as the answers are hits an unknown one: sum of squared frequencies, 1/V drawn.

    It is what a guess gets right on facts that were left out, where answers are independent of questions.
    """
    if facts.labels_random == "uniform":
        return 1.0 / facts.answers
    shares = np.bincount(facts.labels, minlength=facts.answers) / len(facts)
    return float(np.sum(shares**2))


def _with_wrong_ones(facts: Dataset, share: float, seed: int, copy: int) -> Int[np.ndarray, " q"]:
    said = facts.labels.copy()
    wrong = _chosen(seed, f"wrong/{copy}", len(facts), share)
    said[wrong] = _another(facts.labels, facts.answers, seed, f"wrong answers/{copy}")[wrong]
    return said


def _chosen(seed: int, stream: str, count: int, share: float) -> Int[np.ndarray, " m"]:
    return keyed_order(seed, stream, count)[: round(share * count)]


def _another(labels: Int[np.ndarray, " q"], answers: int, seed: int, stream: str) -> Int[np.ndarray, " q"]:
    """For each label another one, all V - 1 equally likely."""
    draws = keyed_uniforms(seed, stream, np.arange(len(labels)), 1)[:, 0]
    return ((labels + 1 + (draws * (answers - 1)).astype(np.int32)) % answers).astype(np.int32)

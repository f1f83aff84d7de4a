"""Data sets for training: facts as feature vectors with classes, and as tokens, from a law or from a file.

The facts of a data set stand in an order of their own, so that its first n facts are the data set of size n.

Letters: n facts, u unseen questions, d features.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int32

from sims import features as question_input
from sims import synthetic
from sims.entropy import arrangement_bits, conflict_floor_nats, label_entropy_bits
from sims.fact_report import Facts
from sims.keyed import keyed_order, keyed_uniforms, text_hash
from sims.synthetic import SyntheticLaw
from sims.tokens import LONGEST_FACT, SymbolVocabulary, TokenizedFacts, tokenize, tokenize_symbols
from theory.console import Refusal

# How the labels came about, which decides whether a capacity bound holds (T7, T11). "uniform" and "independent": drawn
# from a law, independently; "permuted": a file's answers in random order; "given": a file's answers as they are.
LabelOrigin = Literal["uniform", "independent", "permuted", "given"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a network learns. Row i is fact i; a question that occurs in several rows has one number in `questions`.

    Networks that answer in one step see `features` and `labels`; the transformer sees `tokenized`, whose whole
    answers are numbered in `whole_answers`. Methods take `whole=True` for the latter.
    """

    name: str
    fingerprint: str  # of everything that decides the facts and their order, not of how many are made
    features: Float32[np.ndarray, "n d"]
    labels: Int32[np.ndarray, " n"]
    answers: int  # V: labels lie in [0, V)
    labels_random: LabelOrigin
    questions: Int32[np.ndarray, " n"]
    whole_answers: Int32[np.ndarray, " n"]
    unseen: Float32[np.ndarray, "u d"]  # features of questions without an answer in the data
    tokenized: TokenizedFacts | None
    description: Mapping[str, Any]  # what to print about it
    _drawn_bits: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def entropy_floor_nats(self, count: int | None = None, *, whole: bool = False) -> float:
        """Smallest mean loss any network can have on the first `count` facts: 0 unless questions conflict."""
        return conflict_floor_nats(self.questions[:count], self._answers(whole)[:count])

    def answer_entropy_bits(self, count: int | None = None, *, whole: bool = False) -> float:
        """Entropy of the answers' frequencies among the first `count` facts, in bits per fact."""
        return label_entropy_bits(self._answers(whole)[:count])

    def label_bits(self, count: int | None = None, *, whole: bool = False) -> float | None:
        """-log2 of the probability with which the first `count` answers came about; None for "given" answers.

        It is n log2 V for uniform labels, and takes the place of n log2 V in the capacity bounds otherwise: for any
        learner of 2^B states, E[product of its probabilities / this probability] <= 2^B.
        """
        if self._drawn_bits is not None:
            return float(self._drawn_bits[whole][:count].sum())
        if self.labels_random == "permuted":
            return arrangement_bits(self._answers(whole), len(self) if count is None else min(count, len(self)))
        return None

    def _answers(self, whole: bool) -> Int32[np.ndarray, " n"]:
        return self.whole_answers if whole else self.labels


def synthetic_facts(
    count: int,
    *,
    seed: int,
    answers: int | Literal["string32"] = 32,
    law: Literal["uniform", "zipf"] = "uniform",
    zipf_exponent: float = 1.0,
    answer_tokens: int = 1,
    feature_dim: int = 32,
    question_tokens: int = 4,
    question_symbols: int = 32,
    unseen: int = 1024,
) -> Dataset:
    """The first `count` facts of a law, with `unseen` questions that no number of facts reaches.

    A fact is a standard normal key vector with a label in [0, answers), and a question of random tokens, all
    different, with an answer of `answer_tokens` tokens. The label is the answer's first token: all of it when it has
    one. "string32" is an answer of 32 random characters. Raises Refusal for values that cannot be used.
    """
    shape: dict[str, Any] = {
        "law": law,
        "zipf_exponent": zipf_exponent,
        "feature_dim": feature_dim,
        "question_tokens": question_tokens,
        "question_symbols": question_symbols,
    }
    if answers == "string32":
        facts = SyntheticLaw.string32(seed, **shape)
    else:
        facts = SyntheticLaw(seed, answers=answers, answer_tokens=answer_tokens, **shape)
    facts.check_count(count, unseen)
    index, unseen_index = np.arange(count), facts.unseen_index(unseen)
    symbols = facts.answer_tokens_of(index)
    with np.errstate(divide="ignore"):  # a symbol of probability 0 is never drawn
        bits = -np.log2(facts.symbol_probabilities())[symbols]
    return Dataset(
        name=f"synthetic facts, {law}",
        fingerprint=_fingerprint({"kind": "synthetic", "formula": synthetic.FORMULA, "unseen": unseen, **facts.spec}),
        features=facts.features(index),
        labels=symbols[:, 0].astype(np.int32),
        answers=facts.answers,
        labels_random="uniform" if law == "uniform" else "independent",
        questions=index.astype(np.int32),
        whole_answers=np.unique(symbols, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32),
        unseen=facts.features(unseen_index, stream="unseen"),
        tokenized=tokenize_symbols(
            facts.question_tokens_of(index),
            symbols,
            facts.question_tokens_of(unseen_index),
            SymbolVocabulary(facts.answers, facts.question_symbols),
        ),
        description={**facts.spec, "answer_entropy_bits": facts.answer_entropy_bits()},
        _drawn_bits=(bits[:, 0], bits.sum(axis=1)),
    )


def file_dataset(
    facts: Facts,
    *,
    seed: int,
    feature_dim: int = 32,
    answer_classes: int | Literal["all"] = 32,
    shuffle_answers: bool = False,
    held_out: float = 0.0,
    vocabulary: Literal["bytes", "words"] | None = None,
    longest: int = LONGEST_FACT,
) -> Dataset:
    """A file's facts in a random order, so that the first n are a random n of them.

    The seed decides the order, the classes of the answers, and with `shuffle_answers` which question gets which
    answer; the features and the questions held out (those whose hash falls into the share `held_out`) are the same
    for every seed. `vocabulary` adds tokens for the transformer. Raises Refusal for what cannot be used.
    """
    if not 0.0 <= held_out < 1.0:
        raise Refusal(f"the share of held-out questions must be at least 0 and below 1, got {held_out}")
    hashes = np.array([text_hash(question, "held-out") for question in facts.questions], dtype=np.uint64)
    is_unseen = keyed_uniforms(0, "held-out", hashes, 1)[:, 0] < held_out
    rows = np.flatnonzero(~is_unseen)
    if rows.size == 0:
        raise Refusal(
            f"{facts.report.source}: all {len(facts)} facts fell into the held-out share {held_out}; lower it"
        )
    rows = rows[keyed_order(seed, "order", rows.size)]
    questions = [facts.questions[row] for row in rows]
    answers = [facts.answers[row] for row in rows]
    if shuffle_answers:
        answers = [answers[place] for place in keyed_order(seed, "shuffled answers", len(answers))]
    unseen = list(dict.fromkeys(facts.questions[row] for row in np.flatnonzero(is_unseen)))

    asked = {question: number for number, question in enumerate(sorted(set(questions)))}
    numbers = np.array([asked[question] for question in questions], dtype=np.int32)
    seen_features, unseen_features = question_input.question_features(list(asked), width=feature_dim, unseen=unseen)
    labels, classes = question_input.answer_labels(answers, answer_classes, seed=seed)
    given = {answer: number for number, answer in enumerate(sorted(set(answers)))}
    options = {
        "seed": seed,
        "feature_dim": feature_dim,
        "answer_classes": answer_classes,
        "shuffle_answers": shuffle_answers,
        "held_out": held_out,
        "vocabulary": vocabulary,
    }
    lines = [facts.lines[row] for row in rows]
    dataset = Dataset(
        name=Path(facts.report.source).name + (", answers shuffled" if shuffle_answers else ""),
        fingerprint=_fingerprint(
            {"kind": "file", "formula": question_input.FORMULA, "content": facts.fingerprint, **options}
        ),
        features=seen_features[numbers],
        labels=labels,
        answers=classes,
        labels_random="permuted" if shuffle_answers else "given",
        questions=numbers,
        whole_answers=np.array([given[answer] for answer in answers], dtype=np.int32),
        unseen=unseen_features,
        tokenized=tokenize(questions, answers, vocabulary, unseen=unseen, longest=longest, lines=lines)
        if vocabulary
        else None,
        description={},
    )
    return replace(
        dataset,
        description={
            **options,
            "facts": len(dataset),
            "unseen_questions": len(unseen),
            "feature_collisions": question_input.feature_collisions(seen_features),
            "class_entropy_bits": dataset.answer_entropy_bits(),
            "answer_entropy_bits": dataset.answer_entropy_bits(whole=True),
        },
    )


def _fingerprint(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

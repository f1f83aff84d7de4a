"""Data sets: nested, with the law they claim, honest about floors and about what can be certified."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sims.fact_files import read_facts
from sims.fact_report import Row, facts_from_rows
from sims.facts import file_dataset, synthetic_facts
from sims.synthetic import SyntheticLaw
from theory.console import Refusal

LAWS = [
    {},
    {"answers": 7, "law": "zipf", "zipf_exponent": 1.5},
    {"answers": 5, "answer_tokens": 3, "feature_dim": 5},
    {"answers": "string32"},
]


def made_facts(count: int, answers: int = 50):
    rows = [Row(f"What is the color of item {n}?", f"color {n * 7919 % answers}", n + 2) for n in range(count)]
    return facts_from_rows(rows, source="colors.csv")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [1, 5, 300])
def test_fewer_facts_are_the_first_of_more(law, size):
    small, large = synthetic_facts(size, seed=4, **law), synthetic_facts(1000, seed=4, **law)
    assert small.fingerprint == large.fingerprint
    for name in ("features", "labels", "questions"):
        assert np.array_equal(getattr(small, name), getattr(large, name)[:size])
    assert np.array_equal(small.unseen, large.unseen)
    assert np.array_equal(small.tokenized.tokens, large.tokenized.tokens[:size])
    assert np.array_equal(small.tokenized.unseen, large.tokenized.unseen)
    assert small.label_bits(whole=True) == pytest.approx(large.label_bits(size, whole=True))


@given(st.integers(0, 2**50), st.lists(st.integers(0, 10**6 - 1), min_size=1, max_size=20))
def test_a_fact_depends_on_law_and_number_only(seed, numbers):
    law = SyntheticLaw(seed, law="zipf", answer_tokens=2)
    index = np.array(numbers)
    for draw in (law.features, law.question_tokens_of, law.answer_tokens_of):
        assert np.array_equal(draw(index), np.concatenate([draw(index[i : i + 1]) for i in range(len(index))]))


def test_synthetic_facts_have_the_shape_and_law_they_claim():
    facts = synthetic_facts(20_000, seed=0, unseen=100)
    assert (facts.features.dtype, facts.features.shape) == (np.float32, (20_000, 32))
    assert (facts.labels.dtype, facts.answers, len(facts)) == (np.int32, 32, 20_000)
    assert stats.chisquare(np.bincount(facts.labels, minlength=32)).pvalue > 1e-3
    assert stats.kstest(facts.features.ravel().astype(np.float64), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(facts.features.T, facts.labels) - np.eye(33)).max() < 5 / math.sqrt(20_000)
    assert facts.label_bits(1000) == 5000.0
    assert facts.entropy_floor_nats() == 0.0
    assert facts.labels_random == "uniform"
    assert facts.unseen.shape == (100, 32)


def test_questions_never_repeat_and_unseen_ones_are_new():
    facts = synthetic_facts(700, seed=1, question_tokens=2, unseen=324)  # all 32^2 of them
    asked = np.concatenate([facts.tokenized.tokens, facts.tokenized.unseen])[:, :2]
    assert len(np.unique(asked, axis=0)) == 1024
    with pytest.raises(Refusal, match="more than the 1024 questions"):
        synthetic_facts(700, seed=1, question_tokens=2, unseen=325)
    assert len(np.unique(np.concatenate([facts.features, facts.unseen]), axis=0)) == 1024


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_zipf_answers_follow_their_law(exponent):
    facts = synthetic_facts(50_000, seed=2, answers=20, law="zipf", zipf_exponent=exponent)
    weights = np.arange(1, 21) ** -exponent
    shares = weights / weights.sum()
    assert stats.chisquare(np.bincount(facts.labels, minlength=20), 50_000 * shares).pvalue > 1e-3
    assert facts.labels_random == "independent"
    assert facts.label_bits() == pytest.approx(-np.log2(shares[facts.labels]).sum())
    assert facts.description["answer_entropy_bits"] == pytest.approx(-(shares * np.log2(shares)).sum())


def test_multi_token_answers_and_strings():
    facts = synthetic_facts(500, seed=0, answers=6, answer_tokens=4)
    answers = facts.tokenized.tokens[facts.tokenized.answer_mask].reshape(500, 5)
    assert (answers[:, -1] == facts.tokenized.end).all()
    assert np.array_equal(answers[:, 0], facts.labels)
    assert facts.label_bits(whole=True) == pytest.approx(500 * 4 * math.log2(6))
    assert facts.label_bits() == pytest.approx(500 * math.log2(6))
    strings = synthetic_facts(500, seed=0, answers="string32")
    assert strings.label_bits(1, whole=True) == pytest.approx(32 * math.log2(36))
    assert (strings.tokenized.answer_lengths == 33).all()
    assert strings.answer_entropy_bits(whole=True) == pytest.approx(math.log2(500))


def test_fingerprint_knows_everything_but_the_count():
    def fingerprint(seed=0, **law):
        return synthetic_facts(3, seed=seed, **law).fingerprint

    different = [fingerprint(**law) for law in LAWS] + [fingerprint(1), fingerprint(unseen=7)]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    "law",
    [{"answers": 1}, {"law": "cauchy"}, {"zipf_exponent": math.nan}, {"answer_tokens": 0}, {"question_symbols": 37}],
)
def test_impossible_laws_are_refused(law):
    with pytest.raises(Refusal, match=next(iter(law))):
        synthetic_facts(3, seed=0, **law)
    with pytest.raises(Refusal, match="number of facts"):
        synthetic_facts(0, seed=0)


def test_file_facts_keep_their_answers_in_a_random_order():
    facts = made_facts(400)
    data = file_dataset(facts, seed=0, vocabulary="bytes", answer_classes="all")
    tokens, mask = data.tokenized.tokens, data.tokenized.answer_mask
    asked = [data.tokenized.vocabulary.decode(row[: marked.argmax()]) for row, marked in zip(tokens, mask, strict=True)]
    told = [data.tokenized.vocabulary.decode(row[marked]) for row, marked in zip(tokens, mask, strict=True)]
    assert dict(zip(asked, told, strict=True)) == dict(zip(facts.questions, facts.answers, strict=True))
    assert asked != list(facts.questions)
    other = file_dataset(facts, seed=1)
    assert not np.array_equal(other.questions, data.questions)
    assert np.array_equal(other.features[np.argsort(other.questions)], data.features[np.argsort(data.questions)])
    assert data.labels_random == "given"
    assert data.label_bits() is None
    assert data.answer_entropy_bits() == pytest.approx(facts.report.answer_entropy_bits)
    assert data.description["feature_collisions"] == 0


def test_shuffled_answers_are_the_same_answers_elsewhere():
    facts = made_facts(400)
    given_order = file_dataset(facts, seed=3)
    shuffled = file_dataset(facts, seed=3, shuffle_answers=True)
    assert np.array_equal(shuffled.features, given_order.features)
    assert np.array_equal(np.sort(shuffled.labels), np.sort(given_order.labels))
    assert (shuffled.whole_answers == given_order.whole_answers).mean() < 0.1
    assert shuffled.labels_random == "permuted"
    assert shuffled.fingerprint != given_order.fingerprint
    counts = np.bincount(shuffled.whole_answers)
    expected = (math.lgamma(401) - sum(math.lgamma(count + 1) for count in counts)) / math.log(2)
    assert shuffled.label_bits(whole=True) == pytest.approx(expected)
    assert shuffled.label_bits(100) < shuffled.label_bits(200) < 200 * 5.3


def test_kept_conflicts_have_their_entropy_as_floor():
    rows = [Row("France?", answer, line) for line, answer in enumerate(["Paris", "Paris", "Lyon"])]
    facts = facts_from_rows([*rows, Row("Spain?", "Madrid", 5)], conflicts="keep")
    data = file_dataset(facts, seed=0, answer_classes="all")
    expected = (2 * math.log(3 / 2) + math.log(3)) / 4
    assert data.entropy_floor_nats() == pytest.approx(expected)
    assert data.entropy_floor_nats(whole=True) == pytest.approx(expected)
    assert data.entropy_floor_nats(1) == 0.0
    assert len(np.unique(data.features, axis=0)) == 2


def test_held_out_rows_are_the_unseen_questions_of_every_seed():
    facts = made_facts(2000)
    data = [file_dataset(facts, seed=seed, held_out=0.1, vocabulary="words") for seed in (0, 1)]
    assert len(data[0]) + len(data[0].unseen) == 2000
    assert len(data[0].unseen) == pytest.approx(200, abs=60)
    assert np.array_equal(data[0].unseen, data[1].unseen)
    assert len(data[0].tokenized.unseen) == len(data[0].unseen)
    seen = {tuple(row) for row in data[0].features.tolist()}
    assert not seen & {tuple(row) for row in data[0].unseen.tolist()}
    assert file_dataset(facts, seed=0).unseen.shape == (0, 32)
    with pytest.raises(Refusal, match="held-out"):
        file_dataset(facts, seed=0, held_out=1.0)
    with pytest.raises(Refusal, match="held-out"):
        file_dataset(made_facts(1), seed=0, held_out=0.999999)


def test_file_fingerprint_knows_content_and_options():
    facts = made_facts(20)
    changed = facts_from_rows([Row(q, a + ".", 2) for q, a in zip(facts.questions, facts.answers, strict=True)])
    fingerprints = [
        file_dataset(facts, seed=0).fingerprint,
        file_dataset(changed, seed=0).fingerprint,
        file_dataset(facts, seed=1).fingerprint,
        file_dataset(facts, seed=0, feature_dim=8).fingerprint,
        file_dataset(facts, seed=0, answer_classes=16).fingerprint,
        file_dataset(facts, seed=0, held_out=0.2).fingerprint,
        file_dataset(facts, seed=0, vocabulary="bytes").fingerprint,
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    moved = dataclasses.replace(facts.report, source="elsewhere.csv")
    assert file_dataset(dataclasses.replace(facts, report=moved), seed=0).fingerprint == fingerprints[0]


@pytest.mark.parametrize("name", ["27_single_fact.csv", "28_all_same_answer.csv", "33_prefix_questions.csv"])
def test_small_and_odd_files_become_data_sets(shared_data, name):
    facts = read_facts(shared_data / "awkward" / name)
    data = file_dataset(facts, seed=0, vocabulary="words", shuffle_answers=True)
    assert np.isfinite(data.features).all()
    assert data.description["feature_collisions"] == 0
    assert data.label_bits() == pytest.approx({"27": 0.0, "28": 0.0, "33": math.log2(24)}[name[:2]], abs=5)
    assert len(np.unique(data.features, axis=0)) == len(facts)

"""Learned queries: they are what the formula says, paraphrases find their fact, unknown text has no part."""

import collections
import csv
import gzip
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mome_jax.saving import load, save
from sims.memory.queries import HiddenQueries, QuestionQueries
from theory.console import Refusal

STORED = [f"Where was {name} born?" for name in ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Kurt G\u00f6del")] + [
    "Who wrote Faust?",
    "Who wrote Hamlet?",
    "?",
]
ASKED = ["Alan Turing was born where?", "Hamlet was written by whom?", "the birthplace of Kurt G\u00f6del", "xyz", ""]


def weights(question: str) -> dict[str, float]:
    """Weights straight from the formula, by the grams' own texts."""

    def held(text: str) -> set[str]:
        padded = f" {text} "
        grams = {"3:" + padded[place : place + 3] for place in range(len(padded) - 2)}
        return grams | {"w:" + word for word in re.findall(r"\w+", text)}

    counts = collections.Counter(gram for stored in STORED for gram in held(stored))
    return {gram: math.log((1 + len(STORED)) / max(1, counts[gram])) ** 2 * (gram in counts) for gram in held(question)}


def cosine(one: dict[str, float], two: dict[str, float]) -> float:
    product = sum(weight * two.get(gram, 0.0) for gram, weight in one.items())
    return product / (math.dist(one.values(), [0] * len(one)) * math.dist(two.values(), [0] * len(two)))


def test_inner_products_are_the_cosines_of_squared_idf():
    queries = QuestionQueries.of(STORED, width=16384)  # so wide that the projection keeps angles to about 1/128
    stored, asked = queries(STORED), queries(ASKED[:3])
    expected = [[cosine(weights(question), weights(other)) for other in STORED] for question in ASKED[:3]]
    np.testing.assert_allclose(asked @ stored.T, expected, atol=4 / 128)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
    assert (asked @ stored.T).argmax(axis=1).tolist() == [1, 5, 3]


def test_the_known_share_is_that_of_the_squared_weights():
    queries = QuestionQueries.of(STORED)
    vectors, share = queries.with_known_share([*STORED, *ASKED])
    np.testing.assert_allclose(share[: len(STORED)], 1)
    assert share[-2] == share[-1] == 0  # nothing of "xyz" and of the empty question is known
    assert not vectors[-2:].any()
    found = weights(ASKED[1])
    known = sum(weight**2 for weight in found.values())
    unknown = sum(weight == 0 for weight in found.values()) * math.log(1 + len(STORED)) ** 4
    assert share[len(STORED) + 1] == pytest.approx(known / (known + unknown), rel=1e-5)


def test_a_query_does_not_depend_on_its_neighbors_nor_on_being_saved(tmp_path):
    queries = QuestionQueries.of(STORED, width=100, seed=4)
    together = queries(ASKED)
    for row, question in enumerate(ASKED):
        np.testing.assert_allclose(queries([question])[0], together[row], atol=1e-6)
    save(tmp_path / "queries.safetensors", *queries.to_arrays())
    again = QuestionQueries.from_arrays(*load(tmp_path / "queries.safetensors"))
    np.testing.assert_array_equal(again(ASKED), together)
    assert not np.allclose(QuestionQueries.of(STORED, width=100, seed=5)(ASKED[:1]), together[:1])


def test_arrays_that_do_not_fit_are_refused():
    arrays, header = QuestionQueries.of(STORED).to_arrays()
    shuffled = {**arrays, "grams": arrays["grams"][::-1]}
    shorter = {**arrays, "weights": arrays["weights"][1:]}
    for wrong in (shuffled, shorter, {}, {**arrays, "grams": arrays["grams"].astype(np.int64)}):
        with pytest.raises(Refusal, match=r"^here: "):
            QuestionQueries.from_arrays(wrong, header, "here")
    with pytest.raises(Refusal):
        QuestionQueries.from_arrays(arrays, {**header, "width": "128"})
    with pytest.raises(ValueError, match="need a question"):
        QuestionQueries.of([])


def test_most_real_paraphrases_find_their_fact(shared_data):
    wordings = collections.defaultdict(list)
    with gzip.open(shared_data / "pararel_paraphrases.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            wordings[row["fact_id"]].append(row["question"])
    facts = [found for found in wordings.values() if len(found) > 1]
    random = np.random.default_rng(0)
    chosen = [facts[fact] for fact in random.choice(len(facts), 2000, replace=False)]
    stored, asked = zip(
        *[[found[place] for place in random.choice(len(found), 2, False)] for found in chosen], strict=True
    )
    queries = QuestionQueries.of(stored)
    nearest = (queries(asked) @ queries(stored).T).argmax(axis=1)
    assert (nearest == np.arange(len(stored))).mean() >= 0.92  # .95 measured; 85 % is the least that is wanted


def test_whitening_divides_each_variance_by_itself_and_a_thousandth_of_their_mean():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6)) * [10, 3, 1, 1, 0.5, 0.1]
    states = (random.normal(size=(4000, 6)) @ mixing.T + 5).astype(np.float32)
    queries = HiddenQueries.of(states)
    white = (states - np.asarray(queries.mean)) @ np.asarray(queries.whitening).T
    variances = np.linalg.eigvalsh(np.cov(states.T.astype(np.float64), bias=True))
    expected = variances / (variances + 1e-3 * variances.mean())
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(white.T, bias=True)), expected, atol=1e-3)
    assert expected.min() < 0.5 < 0.99 < expected.max()  # both sides of the rule are seen
    found = jax.jit(jax.vmap(queries))(jnp.asarray(states[:50]))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, white[:50] / np.linalg.norm(white[:50], axis=1, keepdims=True), atol=1e-3)
    again = HiddenQueries(**queries.to_arrays())
    np.testing.assert_allclose(jax.vmap(again)(jnp.asarray(states[:3])), found[:3], atol=1e-5)


def test_states_that_are_all_alike_give_finite_queries():
    queries = HiddenQueries.of(np.ones((10, 4), dtype=np.float32))
    assert np.isfinite(np.asarray(queries(jnp.ones(4)))).all()

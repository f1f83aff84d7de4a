"""Question features and answer classes: label-free, white, distinct, balanced as a hash allows."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sims.fact_files import read_facts
from sims.features import answer_labels, feature_collisions, question_features
from theory.console import Refusal

TEMPLATE = [f"What is the value stored under id {number:06d}?" for number in range(4000)]


def nearest_distances(features: np.ndarray, sample: int = 500) -> np.ndarray:
    features = features.astype(np.float64)
    squares = np.square(features).sum(axis=1)
    distances = squares[:sample, None] + squares - 2 * features[:sample] @ features.T
    distances[np.arange(sample), np.arange(sample)] = np.inf
    return np.sqrt(np.maximum(distances.min(axis=1), 0.0))


def test_questions_of_one_template_become_white_and_separate():
    features, _ = question_features(TEMPLATE)
    assert features.dtype == np.float32
    assert feature_collisions(features) == 0
    eigenvalues = np.linalg.eigvalsh(np.cov(features.T))
    assert eigenvalues[0] > 0.7
    assert eigenvalues[-1] < 1.4
    assert np.abs(features.mean(axis=0)).max() < 0.05
    gaussian = nearest_distances(np.random.default_rng(0).standard_normal(features.shape))
    assert np.median(nearest_distances(features)) > 0.9 * np.median(gaussian)


def test_unseen_questions_use_the_same_map_and_size():
    order = np.random.default_rng(0).permutation(4000)
    seen, held_out = [TEMPLATE[place] for place in order[:3000]], [TEMPLATE[place] for place in order[3000:]]
    features, unseen = question_features(seen, unseen=held_out + seen[:5])
    assert np.array_equal(unseen[-5:], features[:5])
    assert np.square(unseen[:-5]).mean() == pytest.approx(1.0, abs=0.15)


def test_features_do_not_depend_on_the_order_of_questions():
    order = np.random.default_rng(0).permutation(1000)
    features, _ = question_features(TEMPLATE[:1000])
    shuffled, _ = question_features([TEMPLATE[place] for place in order])
    np.testing.assert_allclose(shuffled, features[order], atol=1e-4)


def test_an_edited_question_stays_nearest_to_its_original():
    """The features are of the text: a hash of the whole question would send every edit elsewhere."""
    first = ["Ada", "Alan", "Emmy", "Grace", "Kurt", "Sofia", "Carl", "Mary", "John", "Rosa"]
    last = ["Lovelace", "Turing", "Noether", "Hopper", "Gödel", "Gauss", "Curie", "Ampère", "Volta", "Hertz"]
    questions = [f"In which town was {a} {b} born?" for a in first for b in last]
    features, edited = question_features(questions, unseen=[question[:-1] for question in questions])
    distances = np.linalg.norm(edited[:, None] - features[None], axis=2)
    assert (distances.argmin(axis=1) == np.arange(100)).mean() > 0.9


@settings(max_examples=25)  # each example decomposes two 256 x 256 matrices
@given(st.lists(st.text(max_size=12), unique=True, min_size=1, max_size=12), st.integers(4, 40))
@example(["a", "a ", "a\u00a0", "A"], 32)
@example([""], 4)
@example(["x", ""], 4)
def test_distinct_questions_get_distinct_finite_features(questions, width):
    questions = [text.encode(errors="ignore").decode() for text in questions]
    questions = list(dict.fromkeys(questions))
    features, unseen = question_features(questions, width=width, unseen=questions[:1])
    assert features.shape == (len(questions), width)
    assert np.isfinite(features).all()
    assert feature_collisions(features) == 0
    np.testing.assert_allclose(unseen[0], features[0], atol=1e-4)


def test_features_lie_on_their_grid():
    """What makes them equal on machines whose last digits differ; the grid is far finer than what separates facts."""
    features, _ = question_features(TEMPLATE[:500])
    assert np.array_equal(features * 2**14, np.round(features * 2**14))
    assert nearest_distances(features).min() > 1000 / 2**14


def test_collisions_are_counted():
    rows = np.array([[1, 2], [3, 4], [1, 2], [1, 2]], dtype=np.float32)
    assert feature_collisions(rows) == 2


@pytest.mark.parametrize("name", ["entityquestions_test.csv", "pararel_uuid.csv", "world_cities_ids.csv"])
def test_real_questions_become_white_and_separate(shared_data, name):
    features, _ = question_features(read_facts(shared_data / name).questions)
    assert feature_collisions(features) == 0
    eigenvalues = np.linalg.eigvalsh(np.cov(features.T))
    assert 0.9 < eigenvalues[0] < eigenvalues[-1] < 1.1
    gaussian = nearest_distances(np.random.default_rng(0).standard_normal(features.shape))
    assert np.median(nearest_distances(features)) > 0.85 * np.median(gaussian)


def test_width_is_checked():
    with pytest.raises(ValueError, match="width"):
        question_features(["a"], width=0)
    with pytest.raises(ValueError, match="width"):
        question_features(["a"], width=257)


def test_hashed_classes_are_balanced_keyed_and_stable():
    answers = [f"answer {number}" for number in range(32_000)]
    labels, classes = answer_labels(answers, 32)
    assert (classes, labels.dtype) == (32, np.int32)
    counts = np.bincount(labels, minlength=32)
    chi_square = np.square(counts - 1000).sum() / 1000  # mean 31, standard deviation 7.9 for a uniform hash
    assert 10 < chi_square < 62
    assert np.array_equal(answer_labels(answers[5:9], 32)[0], labels[5:9])
    other, _ = answer_labels(answers, 32, seed=1)
    assert (other == labels).mean() == pytest.approx(1 / 32, abs=0.01)


def test_equal_answers_share_a_class_and_all_gives_each_its_own():
    answers = ["b", "a", "b", "A", "c"]
    labels, classes = answer_labels(answers, "all")
    assert (labels.tolist(), classes) == ([2, 1, 2, 0, 3], 4)
    hashed, _ = answer_labels(answers, 7)
    assert hashed[0] == hashed[2]
    assert answer_labels(["yes"], "all")[1] == 2  # a softmax over one class would have nothing to learn


def test_too_many_classes_are_refused_with_their_cost():
    answers = [str(number) for number in range(29_411)]
    parameters = 33 * 64 + 65 * 29_411
    with pytest.raises(Refusal, match=rf"29411 classes .* {parameters:,} parameters and {6 * parameters:,} FLOPs"):
        answer_labels(answers, "all")
    for classes in (1, 0, -3, 2049):
        with pytest.raises(Refusal, match="--answer-classes"):
            answer_labels(answers[:10], classes)

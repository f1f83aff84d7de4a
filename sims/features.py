"""How a question becomes input and an answer a class, for the networks that answer in one step.

A question is counted into a sketch: its character 3-grams, 4-grams and words, each with a hashed place and sign
(signed feature hashing, Weinberger et al. 2009), the sketch scaled to length 1. Questions of one template have nearly
equal sketches, so the mean is removed and the sketch whitened: with covariance U diag(l) U^T over the questions and
a fixed random W of orthonormal columns,

    text(q)    = (sketch(q) - mean) U diag(sqrt(l) / (l + 0.03 mean(l))) U^T W,  scaled to mean square 1,
    feature(q) = sqrt(0.9) text(q) + sqrt(0.1) own(q),

own(q) being a normal vector drawn from the hash of the whole question: it keeps questions distinct that share all
their n-grams. No label enters. On real files the features have covariance near the identity, as synthetic ones have.

Letters: n questions, u unseen questions, d features, s sketch entries, v classes.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from sims.keyed import keyed_normals, keyed_words, mix, text_hash
from theory.console import Refusal

FORMULA = 1  # part of a data set's identity: raise it when any number below changes
LARGEST_ANSWER_CLASSES = 2048
_GRAMS = (3, 4)
_SKETCH_WIDTH = 256
_OWN_SHARE = 0.1
_GRID = 2.0**14
_CHUNK = 8192  # questions sketched at a time, so that memory stays flat
_REFERENCE_WIDTHS = (32, 64)  # features and hidden units of the network whose cost a refusal states


def question_features(
    questions: Sequence[str], *, width: int = 32, unseen: Sequence[str] = ()
) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "u d"]]:
    """Features of the questions, and of unseen ones by the same map; mean and whitening come from `questions` alone.

    The numbers do not depend on a seed: a file's questions look the same in every run. Raises ValueError if `width`
    is not between 1 and the sketch width of 256.
    """
    if not 1 <= width <= _SKETCH_WIDTH:
        raise ValueError(f"width must be between 1 and {_SKETCH_WIDTH}, got {width}")
    sketches = _sketches(questions)
    mean = sketches.mean(axis=0, dtype=np.float64)
    whitening = _whitening(sketches, mean, width)

    def text_part(rows: Float32[np.ndarray, "m s"]) -> Float[np.ndarray, "m d"]:
        chunks = [rows[start : start + _CHUNK] for start in range(0, max(1, len(rows)), _CHUNK)]
        return np.concatenate([(chunk - mean) @ whitening for chunk in chunks])

    seen_text = text_part(sketches)
    scale = np.sqrt(np.square(seen_text).mean())
    own, own_unseen = _own_vectors(questions, width), _own_vectors(unseen, width)
    if scale < 1e-9:  # one question, or none that differs from another by its n-grams
        return _rounded(own), _rounded(own_unseen)
    own_scale, text_scale = np.sqrt(_OWN_SHARE), np.sqrt(1.0 - _OWN_SHARE) / scale
    seen = text_scale * seen_text + own_scale * own
    other = text_scale * text_part(_sketches(unseen)) + own_scale * own_unseen
    return _rounded(seen), _rounded(other)


def _rounded(features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return (np.round(features * _GRID) / _GRID).astype(np.float32)


def feature_collisions(features: Float[np.ndarray, "n d"]) -> int:
    """How many rows equal an earlier row in every entry; give it the features of distinct questions."""
    rows = np.ascontiguousarray(features)
    return len(rows) - len(np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))))


def answer_labels(
    answers: Sequence[str], classes: int | Literal["all"], *, seed: int = 0
) -> tuple[Int32[np.ndarray, " n"], int]:
    """The class of each answer, and the number of classes V.

    A number: V classes by a keyed hash of the exact text, so that equal answers share a class and distinct ones
    collide with probability 1/V. "all": one class for each distinct answer, in sorted order. Raises Refusal with the
    cost if there are more classes than a small network can be trained on.
    """
    distinct = sorted(set(answers))
    if classes == "all":
        count, numbers = max(2, len(distinct)), np.arange(len(distinct))
    else:
        count, numbers = classes, _hashed_classes(distinct, classes, seed)
    if not 2 <= count <= LARGEST_ANSWER_CLASSES:
        raise Refusal(_class_refusal(count, classes))
    number_of = dict(zip(distinct, numbers.tolist(), strict=True))
    return np.array([number_of[answer] for answer in answers], dtype=np.int32), count


def _hashed_classes(distinct: Sequence[str], classes: int, seed: int) -> Int[np.ndarray, " k"]:
    hashes = np.array([text_hash(answer, "answer") for answer in distinct], dtype=np.uint64)
    uniforms = keyed_words(seed, "answer-class", hashes, 1)[:, 0] >> np.uint64(32)
    return ((uniforms * np.uint64(max(classes, 0))) >> np.uint64(32)).astype(np.int64)


def _class_refusal(count: int, classes: int | str) -> str:
    if count < 2:
        return f"--answer-classes {classes}: a network needs 2 classes or more to choose from"
    features, hidden = _REFERENCE_WIDTHS

    def parameters(outputs: int) -> int:
        return (features + 1) * hidden + (hidden + 1) * outputs

    ratio = parameters(count) / parameters(32)
    return (
        f"--answer-classes {classes}: {count} classes give a {features}-{hidden}-{count} network {parameters(count):,} "
        f"parameters and {6 * parameters(count):,} FLOPs per fact and step, {ratio:.0f} times those of 32 classes; "
        f"choose {LARGEST_ANSWER_CLASSES} classes or fewer, or the transformer, which writes answers token by token"
    )


def _whitening(
    sketches: Float32[np.ndarray, "n s"], mean: Float[np.ndarray, " s"], width: int
) -> Float[np.ndarray, "s d"]:
    """The map from centered sketches to features: directions no question takes stay at zero, the others become equal.

    The fewer the questions, the stronger the shrinkage: without it, unseen questions come out larger than seen ones.
    """
    covariance = np.zeros((_SKETCH_WIDTH, _SKETCH_WIDTH))
    for start in range(0, len(sketches), _CHUNK):
        centered = sketches[start : start + _CHUNK] - mean
        covariance += centered.T @ centered
    eigenvalues, vectors = np.linalg.eigh(covariance / len(sketches))
    eigenvalues = np.maximum(eigenvalues, 0.0)
    shrunk = eigenvalues + _SKETCH_WIDTH / len(sketches) * eigenvalues.mean()
    gains = np.divide(np.sqrt(eigenvalues), shrunk, out=np.zeros_like(shrunk), where=shrunk > 0)
    directions = np.linalg.qr(keyed_normals(0, "projection", np.arange(_SKETCH_WIDTH), width).astype(np.float64))[0]
    return (vectors * gains) @ (vectors.T @ directions)


def _own_vectors(questions: Sequence[str], width: int) -> Float32[np.ndarray, "n d"]:
    hashes = np.array([text_hash(question, "question") for question in questions], dtype=np.uint64)
    return keyed_normals(0, "question", hashes, width)


def _sketches(questions: Sequence[str]) -> Float32[np.ndarray, "n s"]:
    """Signed counts of hashed n-grams and words, one row of length 1 for each question (0 if it has none)."""
    sketches = np.zeros((len(questions), _SKETCH_WIDTH), dtype=np.float32)
    word_hashes: dict[str, int] = {}
    for start in range(0, len(questions), _CHUNK):
        chunk = questions[start : start + _CHUNK]
        parts = [gram_hashes(chunk, length) for length in _GRAMS] + [_word_hashes(chunk, word_hashes)]
        rows, hashes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        places = rows * _SKETCH_WIDTH + (hashes % np.uint64(_SKETCH_WIDTH)).astype(np.int64)
        signs = 1.0 - 2.0 * (hashes >> np.uint64(63))
        counts = np.bincount(places, signs, len(chunk) * _SKETCH_WIDTH).reshape(len(chunk), _SKETCH_WIDTH)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        sketches[start : start + _CHUNK] = counts / np.where(lengths > 0, lengths, 1.0)
    return sketches


def gram_hashes(questions: Sequence[str], length: int) -> tuple[Int[np.ndarray, " g"], np.ndarray]:
    """(row, 64-bit hash) of every run of `length` characters that lies inside one question."""
    characters = np.frombuffer("".join(questions).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(question) for question in questions])
    rows = np.repeat(np.arange(len(questions)), lengths)
    places = max(0, characters.size - length + 1)
    hashes = np.full(places, length, dtype=np.uint64)
    for offset in range(length):
        hashes = mix(hashes + characters[offset : offset + places])
    inside = rows[:places] == rows[length - 1 : length - 1 + places]
    return rows[:places][inside], hashes[inside]


def _word_hashes(questions: Sequence[str], known: dict[str, int]) -> tuple[Int[np.ndarray, " w"], np.ndarray]:
    """(row, 64-bit hash) of every word; hashes already computed are kept in `known`."""
    rows, hashes = [], []
    for row, question in enumerate(questions):
        for word in question.split():
            if word not in known:
                known[word] = text_hash(word, "word")
            rows.append(row)
            hashes.append(known[word])
    return np.array(rows, dtype=np.int64), np.array(hashes, dtype=np.uint64)

"""What needs no mind: answers by the most frequent value, by the nearest real thing, by position.

They are set beside every number of a model. The first two know one family's corpus, the last knows nothing.

Letters: F families, Q question models, n questions, m options, V values.
"""

import numpy as np
from jaxtyping import Float

from sims.imagination.asking import Asked
from sims.imagination.world import Corpus, Questions, World, corpora, name_of

BASELINES = ("frequent", "nearest", "position")
_AT_ONCE = 2048  # questions compared with all facts


def baseline_scores(world: World, name: str, questions: Questions) -> Float[np.ndarray, "F Q n V"]:
    """Score of every value for every question [Q n], from each family's corpus; ties mean that it does not know."""
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; known: {', '.join(BASELINES)}")
    if name == "position":
        return np.zeros((world.families, *questions.thing.shape, world.values))
    score = _frequent if name == "frequent" else _nearest
    flat = Questions(*(column.reshape(-1) for column in questions))
    scores = np.stack([score(world, corpus, flat) for corpus in corpora(world)])
    return scores.reshape(world.families, *questions.thing.shape, world.values)


def baseline_right(world: World, name: str, asked: Asked) -> Float[np.ndarray, "Q F n"]:
    """Chance that the baseline of each family picks the question model's answer: ties are drawn among.

    `position` picks the first option.
    """
    if name == "position":
        right = (asked.answer == 0).astype(float)
        return np.repeat(right[:, None], world.families, axis=1)
    scores = baseline_scores(world, name, asked.questions)
    shown = np.take_along_axis(scores, asked.options[None], axis=-1)
    best = shown == shown.max(axis=-1, keepdims=True)
    chances = best / best.sum(axis=-1, keepdims=True)
    return np.take_along_axis(chances, asked.answer[None, ..., None], axis=-1)[..., 0].swapaxes(0, 1)


def _frequent(world: World, corpus: Corpus, questions: Questions) -> np.ndarray:
    """How often the corpus has each value for the topic and relation of a question."""
    counts = np.zeros((world.topics, world.relations, world.values))
    topic = name_of(world, corpus.questions.thing)[:, 0]
    np.add.at(counts, (topic, corpus.questions.relation, corpus.value), 1.0)
    return counts[name_of(world, questions.thing)[:, 0], questions.relation]


def _nearest(world: World, corpus: Corpus, questions: Questions) -> np.ndarray:
    """Votes for each value among the real things that have most of topic and name in common with the imaginary one."""
    things = corpus.questions.thing[:: world.relations]
    values = corpus.value.reshape(-1, world.relations)
    known, scores = name_of(world, things), []
    for first in range(0, len(questions.thing), _AT_ONCE):
        asked = name_of(world, questions.thing[first : first + _AT_ONCE])
        relation = questions.relation[first : first + _AT_ONCE]
        common = (asked[:, None] == known[None]).sum(axis=-1)
        nearest = common == common.max(axis=-1, keepdims=True)
        says = values[:, relation].T[..., None] == np.arange(world.values)
        scores.append((nearest[..., None] & says).sum(axis=1))
    return np.concatenate(scores).astype(float)

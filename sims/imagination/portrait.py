"""A moment of a population: who answers what, how alike beliefs are, and how sure models are of real and imaginary.

Letters: M models, Q question models, A answer models, n questions, q questions of all, F facts, V values.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from mome_jax.gate import separability
from sims.imagination.asking import Answers, Asked, all_logits, answer, ask, confidence, drawn_values, with_options
from sims.imagination.population import Population, logits_of
from sims.imagination.reading import words
from sims.imagination.statistics import model_bootstrap, relation_masks
from sims.imagination.world import corpora
from sims.intervals import Interval, mean_interval
from sims.networks import Parameters

QUESTIONS = 512  # of each question model
_BINS = 10  # of confidence, for calibration


class Moment(NamedTuple):
    """Every model's questions of one kind, and everybody's beliefs and answers."""

    asked: Asked
    logits: Float[np.ndarray, "Q A n V"]
    answers: Answers

    @property
    def beliefs(self) -> Float[np.ndarray, "A q V"]:
        """Logits of each answer model on everybody's questions."""
        return of_answer_models(self.logits)


def moment(population: Population, parameters: Parameters, kind: str = "direct", count: int = QUESTIONS) -> Moment:
    """Ask and answer `count` questions of every model (leaves [M ...])."""
    asked = ask(population, parameters, count, kind)
    logits = all_logits(population, parameters, asked.questions)
    return Moment(asked, logits, answer(logits, asked))


def of_answer_models(values: np.ndarray) -> np.ndarray:
    """[Q A n ...] -> [A q ...]: each answer model on everybody's questions."""
    swapped = values.swapaxes(0, 1)
    return swapped.reshape(len(swapped), -1, *values.shape[3:])


def portrait(population: Population, parameters: Parameters, now: Moment) -> dict[str, float]:
    """Agreement, correlation, confidence, by relation of the models; `now` is the moment of direct questions."""
    models = np.arange(population.models)
    drawn = drawn_values(population, now.logits[models, models])
    sampled = with_options(population, now.asked.questions, drawn)
    beliefs = now.beliefs
    real, imaginary = confidence(real_logits(population, parameters)), confidence(beliefs)
    to_sampled = answer(now.logits, sampled)
    found = {
        "agreement": now.answers.correctness,
        "sampled_question": to_sampled.correctness,  # the question model draws its answer, the answer model does not
        "sampled_agreement": _sampled_agreement(to_sampled, sampled),
        "correlation": _correlations(beliefs),
        "coincidence": _coincidences(beliefs),
    }
    intervals = {
        f"{name}_{relation}": interval
        for name, matrix in found.items()
        for relation, interval in model_bootstrap(matrix, population.family, population.world.seed).items()
    }
    of_models = {
        "confidence_real": real.mean(axis=1),
        "confidence_imaginary": imaginary.mean(axis=1),
        "separability": np.array([separability(*pair) for pair in zip(real, imaginary, strict=True)]),
    }
    return with_ends(intervals | {name: mean_interval(values) for name, values in of_models.items()})


def with_ends(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Each interval as three numbers: NAME, NAME_low, NAME_high."""
    return {
        f"{name}{end}": value
        for name, interval in intervals.items()
        for end, value in zip(("", "_low", "_high"), interval, strict=True)
    }


def real_logits(population: Population, parameters: Parameters) -> Float[np.ndarray, "M F V"]:
    """What each model believes about the facts that it was taught."""
    found = [
        logits_of(population, parameters, words(population.world, corpus.questions))[population.family == family]
        for family, corpus in enumerate(corpora(population.world))
    ]
    return np.concatenate(found)


def taught_values(population: Population) -> Int[np.ndarray, "M F"]:
    """The values that each model was taught."""
    return np.stack([corpora(population.world)[family].value for family in population.family])


def calibration(population: Population, parameters: Parameters, now: Moment) -> dict[str, Float[np.ndarray, "3 b"]]:
    """Confidence, how often the likeliest value is "right", and share of the questions, by bins of confidence.

    Right is the fact on real questions, and on imaginary ones what a question model of another family says.
    """
    place = now.asked.answer[..., None]
    said = np.take_along_axis(now.asked.options, place, axis=-1)[..., 0]
    cross = relation_masks(population.family)["cross_family"]
    real = real_logits(population, parameters)
    samples = {
        "real": (confidence(real), real.argmax(axis=-1) == taught_values(population)),
        "imaginary": (confidence(now.logits)[cross], (now.logits.argmax(axis=-1) == said[:, None])[cross]),
    }
    return {f"calibration_{name}": _binned(sure.ravel(), right.ravel()) for name, (sure, right) in samples.items()}


def _binned(sure: Float[np.ndarray, " n"], right: np.ndarray) -> Float[np.ndarray, "3 b"]:
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    sums = (np.bincount(place, weights=values, minlength=_BINS) for values in (sure, right))
    means = [np.divide(one, count, out=np.full(_BINS, np.nan), where=count > 0) for one in sums]
    return np.stack([*means, count / count.sum()])


def _correlations(beliefs: Float[np.ndarray, "M q V"]) -> Float[np.ndarray, "M M"]:
    """Pearson correlations of centered logits, as `measures.logit_correlation` gives pair by pair, in one product."""
    centered = (beliefs - beliefs.mean(axis=-1, keepdims=True)).reshape(len(beliefs), -1).astype(np.float64)
    products = centered @ centered.T
    scale = np.sqrt(np.diagonal(products))
    return products / (scale[:, None] * scale[None, :])


def _coincidences(beliefs: Float[np.ndarray, "M q V"]) -> Float[np.ndarray, "M M"]:
    chances = softmax(beliefs, axis=-1).reshape(len(beliefs), -1).astype(np.float64)
    return chances @ chances.T / beliefs.shape[1]


def _sampled_agreement(answers: Answers, asked: Asked) -> Float[np.ndarray, "Q A"]:
    """Chance that an answer drawn from the options' probabilities is the question model's, which was drawn too."""
    place = np.broadcast_to(asked.answer[:, None, :, None], (*answers.probabilities.shape[:3], 1))
    return np.take_along_axis(answers.probabilities, place, axis=-1)[..., 0].mean(axis=-1)

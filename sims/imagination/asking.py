"""Questions about what does not exist, and the answers of every model: the matrix of question and answer models.

A question model picks an imaginary thing and one of its relations, gives the value it believes in, adds three others
and shuffles the four. It sees nothing else; nor does an answer model, which picks the likeliest option or abstains.

    direct    nothing is stated beside the question;
    context   the question model first states what it believes about another relation of the thing;
    leaking   what it states is the answer itself.

Letters: Q question models, A answer models, n questions each, m options, T words, V values.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax, softmax

from sims.imagination.population import Population, logits_of
from sims.imagination.reading import words
from sims.imagination.world import Questions, direct, imaginary
from sims.keyed import keyed_uniforms
from sims.networks import Parameters

KINDS = ("direct", "context", "leaking")
OPTIONS = 4
POOL = 1024  # imaginary things that questions are about
ABSTAINED = -1


class Asked(NamedTuple):
    """Questions of every question model, with their options and the place of the answer among them."""

    questions: Questions  # [Q n]
    options: Int[np.ndarray, "Q n m"]  # values
    answer: Int[np.ndarray, "Q n"]  # which option the question model calls right


class Answers(NamedTuple):
    """What every answer model says to every question of every question model."""

    chosen: Int[np.ndarray, "Q A n"]  # an option, or ABSTAINED
    probabilities: Float[np.ndarray, "Q A n m"]  # softmax over the options shown
    right: Bool[np.ndarray, "Q A n"]  # the question model's answer was chosen

    @property
    def correctness(self) -> Float[np.ndarray, "Q A"]:
        """Right answers over answers given; NaN where none was given."""
        given = self.answered.sum(axis=-1)
        return np.divide(self.right.sum(axis=-1), given, out=np.full(given.shape, np.nan), where=given > 0)

    @property
    def answered(self) -> Bool[np.ndarray, "Q A n"]:
        """Where an option was chosen."""
        return self.chosen != ABSTAINED

    @property
    def answer_rate(self) -> Float[np.ndarray, "Q A"]:
        """Answers given over questions asked."""
        return self.answered.mean(axis=-1)


def ask(
    population: Population, parameters: Parameters, count: int, kind: str = "direct", sampled: bool = False
) -> Asked:
    """`count` questions of every model (leaves [M ...]); with `sampled` its answer is drawn from its beliefs."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of question {kind!r}; known: {', '.join(KINDS)}")
    questions = invented(population, count)
    if kind != "direct":
        questions = _with_statement(population, parameters, questions, leaking=kind == "leaking")
    beliefs = own_logits(population, parameters, questions)
    value = drawn_values(population, beliefs) if sampled else beliefs.argmax(axis=-1)
    return with_options(population, questions, value)


def invented(population: Population, count: int) -> Questions:
    """Things and relations that each question model asks about, nothing stated; [Q n]."""
    world = population.world
    pool = imaginary(world, min(POOL, world.imaginary_things))
    drawn = np.stack([_uniforms(population, model, "questions", count, 2) for model in range(population.models)])
    thing, relation = (drawn * (len(pool), world.relations)).astype(np.int64).transpose(2, 0, 1)
    return direct(pool[thing], relation)


def own_logits(population: Population, parameters: Parameters, questions: Questions) -> Float[np.ndarray, "Q n V"]:
    """What each question model believes about its own questions."""
    models = np.arange(population.models)
    return all_logits(population, parameters, questions)[models, models]


def all_logits(population: Population, parameters: Parameters, questions: Questions) -> Float[np.ndarray, "Q A n V"]:
    """Logits of every model on the questions [Q n] of every model."""
    tokens = words(population.world, questions)
    count = tokens.shape[1]
    logits = logits_of(population, parameters, tokens.reshape(-1, tokens.shape[-1]))
    return logits.reshape(len(logits), -1, count, logits.shape[-1]).swapaxes(0, 1)


def drawn_values(population: Population, logits: Float[np.ndarray, "Q n V"]) -> Int[np.ndarray, "Q n"]:
    """One value of each distribution (Gumbel's way)."""
    count, values = logits.shape[1:]
    drawn = np.stack([_uniforms(population, model, "sampling", count, values) for model in range(len(logits))])
    return (logits - np.log(-np.log(drawn + 2.0**-54))).argmax(axis=-1)


def with_options(population: Population, questions: Questions, value: Int[np.ndarray, "Q n"]) -> Asked:
    """Add three other values to the answer, each set of three alike likely, and shuffle."""
    values = population.world.values
    count = value.shape[1]
    drawn = np.stack([_uniforms(population, model, "options", count, values) for model in range(len(value))])
    np.put_along_axis(drawn, value[..., None], -1.0, axis=-1)  # the answer sorts first, then values at random
    shown = drawn.argsort(axis=-1)[..., :OPTIONS]
    place = np.stack([_uniforms(population, model, "places", count, OPTIONS) for model in range(len(value))])
    order = place.argsort(axis=-1)
    return Asked(questions, np.take_along_axis(shown, order, axis=-1), order.argmin(axis=-1))


def answer(
    logits: Float[np.ndarray, "Q A n V"], asked: Asked, least_confidence: Float[np.ndarray, " A"] | None = None
) -> Answers:
    """The likeliest option for every answer model; where it is less sure than `least_confidence`, it abstains.

    Confidence is the probability of the likeliest value before any option is seen (see `confidence`).
    """
    shown = np.take_along_axis(logits, asked.options[:, None], axis=-1)
    chosen = shown.argmax(axis=-1)
    if least_confidence is not None:
        chosen = np.where(confidence(logits) < least_confidence[None, :, None], ABSTAINED, chosen)
    return Answers(chosen, softmax(shown, axis=-1), chosen == asked.answer[:, None])


def confidence(logits: Float[np.ndarray, "*n V"]) -> Float[np.ndarray, "*n"]:
    """Probability of the likeliest value."""
    return np.exp(log_softmax(logits, axis=-1).max(axis=-1))


def _with_statement(
    population: Population, parameters: Parameters, questions: Questions, *, leaking: bool
) -> Questions:
    """State what the question model believes about the asked relation, or about another one, at random."""
    world, count = population.world, questions.thing.shape[1]
    relation = questions.relation
    if not leaking:
        if world.relations < 2:
            raise ValueError("a statement about another relation needs two relations")
        drawn = np.stack([_uniforms(population, model, "stated", count, 1)[:, 0] for model in range(population.models)])
        relation = (relation + 1 + (drawn * (world.relations - 1)).astype(np.int64)) % world.relations
    believed = own_logits(population, parameters, direct(questions.thing, relation)).argmax(axis=-1)
    return questions._replace(stated_relation=relation, stated_value=believed)


def _uniforms(population: Population, model: int, what: str, count: int, words_each: int) -> np.ndarray:
    return keyed_uniforms(population.world.seed, f"{what}/{model}", np.arange(count), words_each)

"""How question models invent: which questions they would choose, and what happens as one goes on inventing.

Letters: Q question models, A answer models, n questions, K places in a chain.
"""

import numpy as np
from jaxtyping import Float

from sims.imagination.asking import all_logits, answer, confidence, own_logits, with_options
from sims.imagination.population import Population, logits_of
from sims.imagination.reading import words
from sims.imagination.statistics import relation_means
from sims.imagination.world import NOTHING, Questions, direct, imaginary
from sims.networks import Parameters

_OFFERED = 256  # imaginary things from which questions are chosen, with all their relations
_CHOSEN_SHARE = 0.125
_CHAINS = 256  # things that each question model goes on inventing about


def favorites_in_common(population: Population, parameters: Parameters) -> dict[str, float]:
    """Share of the questions that two models would both ask: of those offered, the eighth that each is surest of.

    The share expected of models that choose alone is an eighth.
    """
    world = population.world
    things = imaginary(world, min(_OFFERED, world.imaginary_things))
    offered = direct(np.repeat(things, world.relations), np.tile(np.arange(world.relations), len(things)))
    sure = confidence(logits_of(population, parameters, words(world, offered)))
    count = max(1, int(_CHOSEN_SHARE * sure.shape[1]))
    chosen = np.zeros(sure.shape)
    np.put_along_axis(chosen, np.argsort(-sure, axis=1, kind="stable")[:, :count], 1.0, axis=1)
    means = relation_means(chosen @ chosen.T / count, population.family)
    return {f"favorites_{relation}": means[relation] for relation in ("in_family", "cross_family")}


def chain_correctness(population: Population, parameters: Parameters) -> dict[str, np.ndarray]:
    """Mean correctness [K] along chains: each question states what its question model said just before.

    A chain asks for every relation of one thing in turn, from a random one on.
    """
    world, models = population.world, population.models
    things = np.tile(imaginary(world, min(_CHAINS, world.imaginary_things)), (models, 1))
    first = (things + np.arange(models)[:, None]) % world.relations
    found: dict[str, list[float]] = {"in_family": [], "cross_family": []}
    said = _nothing_stated(things.shape)
    for place in range(world.relations):
        relation = (first + place) % world.relations
        questions = Questions(things, relation, *said)
        value = own_logits(population, parameters, questions).argmax(axis=-1)
        asked = with_options(population, questions, value)
        right = answer(all_logits(population, parameters, questions), asked).correctness
        means = relation_means(right, population.family)
        for name, values in found.items():
            values.append(means[name])
        said = (relation, value)
    return {f"chain_{name}": np.array(values) for name, values in found.items()}


def _nothing_stated(shape: tuple[int, ...]) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    nothing = np.full(shape, NOTHING)
    return nothing, nothing

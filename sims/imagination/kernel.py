"""What infinite width predicts: the correlation of two families' beliefs about imaginary things; nothing is fitted.

A network of one hidden layer and infinite width, trained by gradient flow on squared loss, becomes the kernel
predictor f(x) = a(x)' Y with a(x) = K^-1 k(x), K its neural tangent kernel on the facts (Jacot, Gabriel & Hongler
2018), Y the values as centered one-hot vectors, plus what the initial weights leave behind. Values of different facts
are independent, so that two families' predictors correlate through the facts they share alone:

    rho = sum over x and shared facts i of a_i(x) b_i(x) / sqrt(sum |a(x)|^2 sum |b(x)|^2).

Questions are made of w words of equal length, so that the kernel of two questions depends on the number of words that
they have in common and on nothing else. Our networks have finite width and are trained by Adam on cross-entropy: the
prediction is of another learner, and how far it carries is measured.

Letters: w words of a question, F facts, n questions, V values.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sims.imagination.reading import WORD_LENGTH, features, words
from sims.imagination.world import Corpus, World, corpora, direct, imaginary

_QUESTIONS = 128  # imaginary things that the prediction is averaged over
_NODES = 80  # of Gauss and Hermite's rule


class Kernels(NamedTuple):
    """Kernels of two questions with 0 .. w words in common."""

    prior: Float[np.ndarray, " c"]  # of the network's output before training (NNGP), readout of variance 1/width
    tangent: Float[np.ndarray, " c"]  # neural tangent kernel, biases left out


def kernels(world: World) -> Kernels:
    """The kernels of the MLP of `reading`: GELU units, He's weights, words of equal length."""
    asked = world.name_parts + 2
    squared_length = asked * WORD_LENGTH**2
    variance = 2.0 * squared_length / features(world)
    common = np.arange(asked + 1) / asked
    units, slopes = zip(*(gelu_duals(variance, correlation) for correlation in common), strict=True)
    prior = np.array(units)
    return Kernels(prior, prior + 2.0 * common * squared_length / features(world) * np.array(slopes))


@cache
def gelu_duals(variance: float, correlation: float) -> tuple[float, float]:
    """E[g(u) g(v)] and E[g'(u) g'(v)] for GELU g (its tanh form) and normals u, v of this variance and correlation.

    >>> value, slope = gelu_duals(1.0, 1.0)
    >>> round(value, 4), round(slope, 4)
    (0.4252, 0.4558)
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    scale = math.sqrt(variance)
    u = scale * nodes[:, None] + 0.0 * nodes[None, :]
    v = scale * (correlation * nodes[:, None] + math.sqrt(1.0 - correlation**2) * nodes[None, :])
    (g_u, slope_u), (g_v, slope_v) = _gelu(u), _gelu(v)
    return float((weights * g_u * g_v).sum()), float((weights * slope_u * slope_v).sum())


def belief_correlation(world: World) -> float:
    """Correlation rho of the logits of two families' infinitely wide networks on imaginary things, for the first two.

    Assumes that values are independent and uniform: no rule, no popularity. ValueError otherwise.
    """
    if world.rule_share > 0 or world.popularity > 0:
        raise ValueError("the kernel predicts the correlation through shared facts alone: no rule, no popularity")
    if world.shared_things in (0, world.things):
        return float(world.shared_things > 0)
    a, b = (_weights(world, corpus) for corpus in corpora(world)[:2])
    shared = world.shared_things * world.relations  # they come first in every corpus
    return float((a[:shared] * b[:shared]).sum() / math.sqrt((a**2).sum() * (b**2).sum()))


def seed_correlation(world: World, loss_nats: float) -> float:
    """Correlation of two infinitely wide networks of one family whose initial weights alone differ.

    What training leaves of the initial function on unseen questions has the variance of the prior given the facts; the
    trained part is as large as the margin ln((V - 1) p / (1 - p)), p = exp(-loss), that the loss stands for.
    """
    corpus = corpora(world)[0]
    prior = kernels(world).prior
    facts, asked = words(world, corpus.questions), words(world, _imaginary_questions(world))
    weights = _weights(world, corpus)
    left = (
        prior[-1]
        - 2.0 * (weights * prior[_common(facts, asked)]).sum(axis=0)
        + (weights * (prior[_common(facts, facts)] @ weights)).sum(axis=0)
    )
    right = math.exp(-loss_nats)
    margin = math.log((world.values - 1) * right / -math.expm1(-loss_nats))
    signal = margin**2 / world.values * float((weights**2).sum())
    return signal / (signal + float(np.maximum(left, 0.0).sum()))


def _imaginary_questions(world: World):
    things = imaginary(world, min(_QUESTIONS, world.imaginary_things))
    return direct(np.repeat(things, world.relations), np.tile(np.arange(world.relations), len(things)))


def _weights(world: World, corpus: Corpus) -> Float[np.ndarray, "F n"]:
    """How much each fact counts for each imaginary question: K^-1 k(x)."""
    tangent = kernels(world).tangent
    facts = words(world, corpus.questions)
    asked = words(world, _imaginary_questions(world))
    return np.linalg.solve(tangent[_common(facts, facts)], tangent[_common(facts, asked)])


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of words in common, place by place; the two of the statement, which is empty, do not count."""
    return (a[:, None, 2:] == b[None, :, 2:]).sum(axis=-1)


def _gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GELU in the tanh form that `jax.nn.gelu` has by default, and its slope."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    tanh = np.tanh(inner)
    slope = math.sqrt(2.0 / math.pi) * (1.0 + 3 * 0.044715 * x**2)
    return 0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh**2) * slope

"""Interference in associative memories: how often a sum of outer products recalls the right answer (T14).

Two memories of n facts with random keys in d dimensions, and laws (approximations, not bounds) for their accuracy:

  Hebbian     W = sum_i e_{y_i} x_i', V answers, unit keys x_i; fact i is recalled as argmax_c (W x_i)_c.
  Embeddings  W = sum_i u_i x_i', Gaussian u_i and x_i of variance 1/d per entry; recalled as argmax_j u_j' W x_i.

The laws treat all scores as independent normal numbers. For the second memory this is the crudest where d is small:
the squared norms of x and u, which vary by sqrt(2/d), are taken to be 1.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr

from theory.rounding import counted

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_Z = np.linspace(-9.0, 9.0, 721)  # the trapezoid rule is exact to rounding for these smooth integrands
_WEIGHTS = np.exp(-(_Z**2) / 2) / np.exp(-(_Z**2) / 2).sum()


def hebbian_memory(keys: ArrayLike, labels: ArrayLike, answers: int) -> Floats:
    """The memory W = sum_i e_{y_i} x_i', shape (V, d), of keys, shape (n, d), and labels, shape (n,).

    >>> hebbian_memory([[1.0, 0.0], [0.0, 1.0]], [1, 1], 3).tolist()
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    """
    keys = np.asarray(keys, dtype=np.float64)
    memory = np.zeros((answers, keys.shape[1]))
    np.add.at(memory, np.asarray(labels), keys)
    return memory


def embedding_memory(outputs: ArrayLike, keys: ArrayLike) -> Floats:
    """The memory W = sum_i u_i x_i', shape (d, d), of outputs u and keys x, both of shape (n, d)."""
    return np.asarray(outputs, dtype=np.float64).T @ np.asarray(keys, dtype=np.float64)


def hebbian_accuracy(answer_counts: ArrayLike, width: int) -> float:
    """Share of facts that a Hebbian memory recalls, n_c of them with answer c (law T14).

    The score of class c is noise of variance n_c/d; the right class has 1 and one fact less of noise. A fact of class y
    is recalled with probability E_z prod_{c != y} Phi((1 + sigma_y z)/sigma_c).

    >>> round(hebbian_accuracy([64] * 8, width=128), 3)
    0.525
    """
    counts, d = counted("answer_counts", answer_counts, least=0), float(counted("width", width))
    own = 1.0 + np.sqrt(np.maximum(0.0, counts - 1.0) / d)[:, None] * _Z
    with np.errstate(divide="ignore", invalid="ignore"):
        log_beaten = log_ndtr(own[:, None, :] / np.sqrt(counts / d)[None, :, None])
    log_beaten = np.where((counts == 0.0)[None, :, None], np.where(own > 0.0, 0.0, -np.inf)[:, None, :], log_beaten)
    log_beaten[np.arange(len(counts)), np.arange(len(counts))] = 0.0
    return float(counts @ (np.exp(log_beaten.sum(axis=1)) @ _WEIGHTS) / counts.sum())


def hebbian_threshold(answers: int, width: int) -> float:
    """Number of facts V d/(2 ln V) around which the recall of a Hebbian memory collapses; an asymptotic scale.

    >>> round(hebbian_threshold(8, 128), 1)
    246.2
    """
    v = float(counted("answers", answers, least=2))
    return v * float(counted("width", width)) / (2.0 * math.log(v))


def embedding_accuracy(facts: int, width: int) -> float:
    """Share of facts that the memory of Gaussian embeddings recalls (law T14b).

    Truth 1 with variance n/d^2, each of the n - 1 rivals 0 with variance n/d^2 + 2/d: the 2/d are the rival's overlaps
    with the fact's own output and key.

    >>> [round(embedding_accuracy(n, width=128), 2) for n in (422, 830, 1600)]
    [0.99, 0.77, 0.34]
    """
    n, d = float(counted("facts", facts)), float(counted("width", width))
    ratio = (1.0 + math.sqrt(n) / d * _Z) / math.sqrt(n / d**2 + 2.0 / d)
    return float(np.exp((n - 1.0) * log_ndtr(ratio)) @ _WEIGHTS)

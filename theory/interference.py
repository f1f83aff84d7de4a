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

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(240)
_FAR = 9.0  # standard deviations, beyond which the normal law has 1e-19


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
    used = counts[counts > 0.0]
    recalled = 0.0
    for place, own in enumerate(used):
        rivals, noise = np.delete(used, place), math.sqrt((own - 1.0) / d)
        # An answer that no fact has scores exactly 0, and is beaten where the right one is positive.
        least = -1.0 / noise if len(used) < len(counts) and noise > 0.0 else -_FAR
        z, weights = _normal_nodes(least)
        beaten = log_ndtr((1.0 + noise * z)[:, None] / np.sqrt(rivals / d)).sum(axis=1)
        recalled += own * float(weights @ np.exp(beaten))
    return float(recalled / used.sum())


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
    z, weights = _normal_nodes(-_FAR)
    ratio = (1.0 + math.sqrt(n) / d * z) / math.sqrt(n / d**2 + 2.0 / d)
    return float(np.exp((n - 1.0) * log_ndtr(ratio)) @ weights)


def _normal_nodes(least: float) -> tuple[Floats, Floats]:
    """Nodes z > `least` and weights of the expectation over a standard normal z, for smooth integrands."""
    low = min(_FAR, max(-_FAR, least))
    z = low + (_FAR - low) * (_NODES + 1.0) / 2.0
    return z, _WEIGHTS * (_FAR - low) / 2.0 * np.exp(-(z**2) / 2.0) / math.sqrt(2.0 * math.pi)

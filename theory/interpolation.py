"""A two-layer network of 2n + d numbers that gives n distinct points any values (T15), with a head of 2V numbers.

Zhang et al. 2017 (arXiv 1611.03530), Theorem 1: x -> sum_j w_j max(<a, x> - b_j, 0) with one direction a, shape (d,),
and n each of weights w and biases b. The projections of the points are sorted and each bias is the projection before,
so the network is the line through one point after the other. Letters: n points in d dimensions, V answers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_DIRECTIONS = 32  # tried; the one with the widest gap between projections is taken


@dataclass(frozen=True)
class Interpolant:
    """The weights: direction a, shape (d,); weights w and biases b, both of shape (n,)."""

    direction: Floats
    weights: Floats
    biases: Floats

    @property
    def parameters(self) -> int:
        """2n + d."""
        return self.direction.size + self.weights.size + self.biases.size

    def __call__(self, points: ArrayLike) -> Floats:
        """Values, shape (points,), at points of shape (points, d)."""
        active = np.maximum(0.0, (np.asarray(points, dtype=np.float64) @ self.direction)[:, None] - self.biases)
        return active @ self.weights

    def rounding(self, points: ArrayLike) -> float:
        """Bound on what float64 loses at these points: it grows like 1/(smallest gap between projections)."""
        points = np.asarray(points, dtype=np.float64)
        active = np.maximum(0.0, (points @ self.direction)[:, None] - self.biases)
        projected = np.abs(points).max() * np.abs(self.direction).sum() + np.abs(self.biases).max()
        slopes = np.abs(self.weights)
        lost = 4.0 * (len(self.weights) + self.direction.size) * float(np.spacing(1.0))
        return lost * float((active @ slopes).max() + projected * slopes.sum())


def interpolant(points: ArrayLike, values: ArrayLike, seed: int = 0) -> Interpolant:
    """The network through points, shape (n, d), with values, shape (n,).

    Equal points with equal values are merged; ValueError if their values differ.

    >>> network = interpolant([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], [5.0, 3.0, 5.0])
    >>> network.parameters, network([[0.0, 1.0], [1.0, 0.0]]).round(9).tolist()
    (6, [5.0, 3.0])
    """
    unique, values = _distinct(np.asarray(points, dtype=np.float64), np.asarray(values, dtype=np.float64))
    direction = _separating(unique, np.random.default_rng(seed))
    projections = unique @ direction
    order = np.argsort(projections)
    projections, values = projections[order], values[order]
    widest = float(np.diff(projections).max(initial=0.0)) or 1.0
    biases = np.concatenate([[projections[0] - widest], projections[:-1]])
    slopes = np.diff(values, prepend=0.0) / (projections - biases)
    return Interpolant(direction, np.diff(slopes, prepend=0.0), biases)


def _distinct(points: Floats, values: Floats) -> tuple[Floats, Floats]:
    if points.ndim != 2 or values.shape != points.shape[:1] or not len(points):
        raise ValueError("points must have shape (n, d) and values shape (n,), n >= 1")
    if not (np.all(np.isfinite(points)) and np.all(np.isfinite(values))):
        raise ValueError("points and values must be finite")
    unique, first, place = np.unique(points + 0.0, axis=0, return_index=True, return_inverse=True)
    different = np.flatnonzero(values != values[first][place.reshape(-1)])
    if different.size:
        other = int(first[place.reshape(-1)[different[0]]])
        raise ValueError(f"points {other} and {int(different[0])} are equal but their values differ")
    return unique, values[first]


def _separating(points: Floats, rng: np.random.Generator) -> Floats:
    """Of some random directions the one along which the smallest gap between points is the widest."""
    directions = rng.normal(size=(_DIRECTIONS, points.shape[1]))
    gaps = [np.diff(np.sort(points @ direction)).min(initial=np.inf) for direction in directions]
    best = int(np.argmax(gaps))
    if not gaps[best] > 0.0:
        raise ValueError("float64 cannot tell the points apart along a line")
    return directions[best]


def head_sharpness(loss_nats: float) -> float:
    """The beta = -ln tanh(delta / 2) of the head, with which the loss is at most delta > 0, whatever V.

    >>> round(head_sharpness(0.1), 3)
    2.997
    """
    if not loss_nats > 0.0:
        raise ValueError(f"loss_nats must be > 0, got {loss_nats!r}")
    return -math.log(math.tanh(loss_nats / 2.0))


def head_logits(values: ArrayLike, answers: int, loss_nats: float) -> Floats:
    """Logits beta (2 c y - c^2) of answers c = 0, ..., V - 1, shape (n, V): a parabola around the value y.

    2V numbers turn the interpolated label into a classifier whose loss is at most `loss_nats`.

    >>> head_logits([1.0], 3, 0.1).argmax()
    np.int64(1)
    """
    c = np.arange(answers, dtype=np.float64)
    return head_sharpness(loss_nats) * (2.0 * np.asarray(values, dtype=np.float64)[:, None] * c - c**2)

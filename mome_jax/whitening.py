"""Queries on one scale: an affine map after which they have mean zero and unit covariance, fitted to many of them.

Hidden states of a network lie in a narrow cone and spread along a few directions; unwhitened, most queries choose the
same few experts.

Letters: n queries, d their width.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mome_jax.pytrees import pytree


@pytree
class Moments:
    """Number, mean and scatter (sum of squared deviations from the mean) of queries seen so far, in float64."""

    count: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def none(cls, width: int) -> "Moments":
        """Before the first query."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def add(self, queries: Any) -> "Moments":
        """With n queries [n d] more (Chan et al. 1983: exact whatever the parts)."""
        some = np.asarray(queries, np.float64)
        if not len(some):
            return self
        mean, count = some.mean(axis=0), self.count + len(some)
        apart = mean - self.mean
        scatter = (some - mean).T @ (some - mean) + np.outer(apart, apart) * (self.count * len(some) / count)
        return Moments(count, self.mean + apart * (len(some) / count), self.scatter + scatter)


@pytree
class Whitening:
    """x -> matrix (x - mean)."""

    mean: Float[Array, " d"]
    matrix: Float[Array, "d d"]

    def __call__(self, query: Float[Array, " d"]) -> Float[Array, " d"]:
        """The whitened query."""
        return self.matrix @ (query - self.mean)

    @classmethod
    def fit(cls, queries: Any, shrinkage: float = 0.01) -> "Whitening":
        """The map for queries [n d], or for `Moments` gathered part by part.

        `matrix` is the symmetric inverse root of (1 - shrinkage) C + shrinkage mean(diagonal of C) I, with C the
        covariance: 0 is full whitening and needs more queries than d, 1 only sets the scale. Raises ValueError for a
        shrinkage outside of [0, 1], for fewer than two queries, numbers that are not finite, and a singular covariance.

        >>> whitening = Whitening.fit(np.array([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]]), shrinkage=0.0)
        >>> [float(number) for number in whitening.mean]
        [2.0, 3.0]
        """
        moments = queries if isinstance(queries, Moments) else Moments.none(np.shape(queries)[-1]).add(queries)
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage = {shrinkage}: choose from 0 to 1")
        if moments.count < 2 or not np.isfinite(moments.scatter).all():
            raise ValueError(f"whitening is fitted to at least 2 finite queries, got {moments.count}")
        covariance = moments.scatter / (moments.count - 1)
        width = len(covariance)
        scale = np.trace(covariance) / width
        values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * scale * np.eye(width))
        if values[0] <= width * np.finfo(np.float64).eps * max(values[-1], np.finfo(np.float64).tiny):
            raise ValueError(
                f"the {moments.count} queries span fewer than {width} dimensions: a shrinkage above 0 makes up for it"
            )
        matrix = (vectors / np.sqrt(values)) @ vectors.T
        return cls(jnp.asarray(moments.mean, jnp.float32), jnp.asarray(matrix, jnp.float32))

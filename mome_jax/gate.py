"""Known or unknown: a threshold on a score, and the read that leaves the state alone when the answer is unknown.

Exact questions are told apart by the filter of `mome_jax.cuckoo`; scores are for learned ones, where a larger score
speaks for known. Nothing here knows where a score comes from.

Letters: v width of the state, m held-out unknown scores, q the wanted false acceptance rate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray
from scipy.special import betaincinv

Floats = NDArray[np.float64]
Scores = Array | np.ndarray | Sequence[Any]


def gated(known: Bool[Array, ""], state: Float[Array, " v"], memory_output: Float[Array, " v"]) -> Float[Array, " v"]:
    """State + memory_output where the question is known; else the bits of the state, whatever the memory holds.

    The sum is chosen or not chosen, never multiplied: adding 0 would turn -0 into 0, and 0 times NaN is NaN.

    >>> gated(jnp.bool_(False), jnp.array([-0.0, 1.0]), jnp.array([jnp.nan, jnp.inf]))
    Array([-0.,  1.], dtype=float32)
    """
    return jnp.where(known, state + memory_output, state)


@dataclass(frozen=True)
class ScoreGate:
    """Known means a score above the threshold, which is the `rank`-th smallest of m held-out unknown scores."""

    threshold: float
    rank: int
    held_out: int  # m
    wanted_rate: float  # q

    def accepts(self, score: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether one score is above the threshold, which is rounded up to the precision of the score. NaN is not."""
        dtype = jnp.asarray(score).dtype
        rounded = np.asarray(self.threshold).astype(dtype)
        if float(rounded) < self.threshold:
            rounded = np.nextafter(rounded, np.asarray(np.inf, dtype))
        return jnp.asarray(score) > jnp.asarray(rounded)

    @property
    def guaranteed_rate(self) -> float:
        """1 - rank/(m + 1): at least the chance that another unknown question is accepted, over it and the held-out."""
        return 1.0 - self.rank / (self.held_out + 1)

    def rate_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Where the false acceptance rate of this very threshold lies with this confidence over the held-out scores.

        The rate is Beta(m + 1 - rank, rank) for continuous scores; ties make it smaller, so the upper end still holds.
        Equal tails. Raises ValueError unless 0 < confidence < 1.
        """
        tail = _tail(confidence)
        above = self.held_out + 1 - self.rank
        lower, upper = (float(betaincinv(above, self.rank, share)) for share in (tail, 1.0 - tail))
        return lower, upper


def calibrate(unknown_scores: Scores, false_acceptance_rate: float) -> ScoreGate:
    """The lowest threshold that held-out unknown scores [m] justify for a wanted false acceptance rate q.

    Split-conformal: if the held-out questions and another unknown one are exchangeable, it is accepted with probability
    at most 1 - r/(m + 1) <= q, r = ceil((1 - q)(m + 1)), at every m; without ties also at least q - 1/(m + 1).
    Scores must be in the precision that will be asked. Raises ValueError for NaN or where q < 1/(m + 1): too few.

    >>> gate = calibrate([0.1, 0.2, 0.3, 0.4], 0.25)
    >>> gate.rank, gate.threshold
    (4, 0.4)
    """
    q = false_acceptance_rate
    if not 0.0 < q < 1.0:
        raise ValueError(f"the false acceptance rate must be in (0, 1), got {q}")
    scores = np.sort(_scores("unknown_scores", unknown_scores))
    m = scores.size
    rank = max(1, math.ceil((1.0 - q) * (m + 1) * (1.0 - 1e-12)))  # not one higher for the last bit of 1 - q
    if rank > m:
        raise ValueError(f"a rate of {q} needs {math.ceil(1.0 / q) - 1} held-out unknown scores or more, got {m}")
    return ScoreGate(float(scores[rank - 1]), rank, m, q)


@dataclass(frozen=True)
class OperatingCurve:
    """Rates of the gate `score > threshold`: thresholds from the highest score down to -infinity, all [p]."""

    thresholds: Floats
    false_acceptance: Floats
    true_acceptance: Floats


def operating_curve(known_scores: Scores, unknown_scores: Scores) -> OperatingCurve:
    """The receiver operating characteristic of two samples of scores, with one point per different score.

    >>> operating_curve([2.0, 3.0], [1.0, 2.0]).true_acceptance
    array([0. , 0.5, 1. , 1. ])
    """
    known = np.sort(_scores("known_scores", known_scores))
    unknown = np.sort(_scores("unknown_scores", unknown_scores))
    thresholds = np.append(np.unique(np.concatenate([known, unknown]))[::-1], -np.inf)
    above = [1.0 - np.searchsorted(each, thresholds, side="right") / each.size for each in (unknown, known)]
    return OperatingCurve(thresholds, *above)


def separability(known_scores: Scores, unknown_scores: Scores) -> float:
    """The area under the curve: Pr[known > unknown] + Pr[known = unknown]/2 for one of each (Mann and Whitney).

    >>> separability([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    known, unknown = _scores("known_scores", known_scores), np.sort(_scores("unknown_scores", unknown_scores))
    below = np.searchsorted(unknown, known, side="left").sum()
    ties = np.searchsorted(unknown, known, side="right").sum() - below
    return float((below + 0.5 * ties) / (known.size * unknown.size))


def rate_interval(accepted: int, asked: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) for a rate of which `accepted` of `asked` were seen.

    >>> rate_interval(0, 100)[0], round(rate_interval(0, 100)[1], 6)
    (0.0, 0.036217)
    """
    if not 0 <= accepted <= asked or asked < 1:
        raise ValueError(f"accepted must be between 0 and asked >= 1, got {accepted} of {asked}")
    tail = _tail(confidence)
    lower = 0.0 if accepted == 0 else float(betaincinv(accepted, asked - accepted + 1, tail))
    upper = 1.0 if accepted == asked else float(betaincinv(accepted + 1, asked - accepted, 1.0 - tail))
    return lower, upper


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    return (1.0 - confidence) / 2.0


def _scores(name: str, scores: Scores) -> Floats:
    found = np.asarray(scores).astype(np.float64)
    if found.ndim != 1 or found.size == 0 or np.isnan(found).any():
        raise ValueError(f"{name} must be a list of numbers without NaN, got {found.size} of shape {found.shape}")
    return found

"""From exposures to loss: why one epoch is not enough (T13), and how many exposures a certificate takes.

Letters: V answers, eta the learning rate, t exposures of a fact, m its margin, the logit of the answer above every
other. A linear layer with orthonormal keys starts at 0 and follows the gradient flow of the summed cross-entropy, one
unit of time per exposure of the fact; then dm/dt = eta V / (e^m + V - 1), whatever the other facts do. Keys of norm
|x|: eta |x|^2. No bias, momentum or decay. Statements and proofs are in `theory.exposure_claims`. Arguments broadcast
as NumPy arrays do; nothing here is rounded to a side.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory import capacity
from theory.rounding import LN2, counted, finite, non_negative

Floats = NDArray[np.float64]

_NEWTON_STEPS = 60  # it stops by itself after about ten


def margin_after(exposures: ArrayLike, *, answers: ArrayLike, learning_rate: ArrayLike) -> Floats:
    """Margin m after t exposures: the root of e^m - 1 + (V - 1) m = eta V t (T13).

    Newton from the right of the root, where a convex increasing function lets it fall without overshooting.

    >>> margin = margin_after(10.0, answers=32, learning_rate=1.0)
    >>> bool(np.isclose(np.expm1(margin) + 31 * margin, 320.0))
    True
    """
    t, v, rate = np.broadcast_arrays(
        finite("exposures", exposures),
        counted("answers", answers, least=2),
        finite("learning_rate", learning_rate),
    )
    flow_time = rate * t
    margin = np.minimum(flow_time, np.log1p(v * flow_time))
    for _ in range(_NEWTON_STEPS):
        excess = np.expm1(margin) + (v - 1.0) * margin - v * flow_time
        fallen = np.maximum(0.0, margin - excess / (np.exp(margin) + v - 1.0))
        if np.all(fallen >= margin):
            break
        margin = np.minimum(fallen, margin)
    return margin


def loss_after(exposures: ArrayLike, *, answers: ArrayLike, learning_rate: ArrayLike = 1.0) -> Floats:
    """Loss ln(1 + (V - 1) e^-m) of a fact after t exposures, nats; ln V at 0, about (V - 1)/(eta V t) far out.

    >>> loss_after([0.0, 1000.0], answers=32).round(4).tolist()
    [3.4657, 0.001]
    """
    margin = margin_after(exposures, answers=answers, learning_rate=learning_rate)
    return np.log1p((counted("answers", answers, least=2) - 1.0) * np.exp(-margin))


def exposures_to_loss(loss_nats: ArrayLike, *, answers: ArrayLike, learning_rate: ArrayLike = 1.0) -> Floats:
    """Exposures t = [e^m - 1 + (V - 1) m]/(eta V), m = ln((V - 1)/(e^loss - 1)), until a fact has this loss in nats.

    0 < loss <= ln V. The inverse of `loss_after`. From 1.75 to .0175 nats takes 31 times the exposures with 32 answers,
    7.9 times with 32 000.

    >>> one_epoch, known = exposures_to_loss([1.75, 0.0175], answers=32)
    >>> round(float(known / one_epoch), 1)
    31.2
    """
    loss, v = np.broadcast_arrays(non_negative("loss_nats", loss_nats), counted("answers", answers, least=2))
    if np.any((loss == 0.0) | (loss > np.log(v))):
        raise ValueError("loss_nats must be > 0 and <= ln(answers): training starts at ln(answers) and never reaches 0")
    margin = _margin_at(loss, v)
    return (np.expm1(margin) + (v - 1.0) * margin) / (finite("learning_rate", learning_rate) * v)


def _margin_at(loss: Floats, v: Floats) -> Floats:
    """ln((V - 1)/(e^loss - 1)), written so that it keeps its digits near ln V, where it vanishes."""
    from_start = loss - np.log(v)
    near = -np.log1p(v * np.expm1(np.maximum(-0.25, from_start)) / (v - 1.0))
    return np.where(from_start > -0.25, near, np.log(v - 1.0) - loss - np.log(-np.expm1(-loss)))


def exposures_until_certain(answers: ArrayLike, learning_rate: ArrayLike = 1.0) -> Floats:
    """Exposures until a fact's own loss is ln 2, below which greedy decoding is right: about ln V/eta, whatever n.

    [V - 2 + (V - 1) ln(V - 1)]/(eta V).

    >>> round(float(exposures_until_certain(32)), 3)
    4.264
    """
    v = counted("answers", answers, least=2)
    return (v - 2.0 + (v - 1.0) * np.log(v - 1.0)) / (finite("learning_rate", learning_rate) * v)


def exposures_until_mean_certifies(facts: ArrayLike, answers: ArrayLike, learning_rate: ArrayLike = 1.0) -> Floats:
    """Exposures per fact until the mean loss alone certifies zero errors, L = ln 2 / n: about n (V - 1)/(eta V ln 2).

    Compare `exposures_until_certain`: certify each fact, not the mean.

    >>> float(exposures_until_mean_certifies(1000, 32)) > 300 * float(exposures_until_certain(32))
    True
    """
    return exposures_to_loss(LN2 / counted("facts", facts), answers=answers, learning_rate=learning_rate)


def published_exposures(bits_per_parameter: ArrayLike) -> Floats:
    """Exposures E at which the published law alpha_inf (1 - e^-aE) gives this many bits per parameter (T12).

    Infinite from alpha_inf = 2.00197 on. The inverse of `capacity.published_bits_per_parameter`.

    >>> published_exposures([1.0, 2.0, 2.5]).round(6).tolist()
    [100.0, 1000.0, inf]
    """
    bits = non_negative("bits_per_parameter", bits_per_parameter)
    limit, speed = capacity.exposure_law()
    return np.where(bits < limit, -np.log1p(-np.minimum(bits / limit, 1.0 - 1e-16)) / speed, np.inf)

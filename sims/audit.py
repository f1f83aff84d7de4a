"""Certified bits: how few bits describe a trained network, and how much it still knows from them (T11).

The weights are rounded to a grid of 2^b levels per tensor and the network is measured again. B counts all that the
evaluation needs and that labels could have shaped: the codes, two float32 numbers a tensor for its grid, and log2 of
the number of formats tried. What it memorized may not exceed B by more than chance allows; more is a bug.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from sims.networks import Parameters
from theory.capacity import Certificate, certify_bits

FORMATS = (2, 3, 4, 6, 8)  # bits a weight
FAILURE_BITS = 40.0  # the chance that an audit of honest labels fails is below 2^-40
_GRID_BITS = 64  # two float32 numbers: lowest value and spacing


class AuditViolation(RuntimeError):
    """More bits were memorized than the described weights can hold: a bug, or labels that are not random."""


@dataclass(frozen=True)
class Audit:
    """One format of one network."""

    bits_per_weight: int
    certificate: Certificate


def quantize(parameters: Parameters, bits: int) -> tuple[Parameters, float]:
    """The network rounded to 2^bits evenly spaced levels per tensor, and the bits that describe it.

    Both are what a decoder would rebuild from codes, lowest value and spacing: nothing else enters the evaluation.
    """
    leaves, structure = jax.tree.flatten(parameters)
    described = float(sum(leaf.size * bits + _GRID_BITS for leaf in leaves))
    return jax.tree.unflatten(structure, [_round_to_grid(np.asarray(leaf), bits) for leaf in leaves]), described


def _round_to_grid(weights: np.ndarray, bits: int) -> np.ndarray:
    lowest = np.float32(weights.min())
    spacing = np.float32((np.float64(weights.max()) - lowest) / (2**bits - 1))
    if spacing == 0:
        return np.full_like(weights, lowest)
    codes = np.clip(np.rint((weights.astype(np.float64) - lowest) / spacing), 0, 2**bits - 1)
    return (lowest + codes.astype(np.float32) * spacing).astype(np.float32)


def audit(
    parameters: Parameters,
    total_loss_bits: Callable[[Parameters], float],
    label_bits: float,
    facts: int,
    *,
    certifiable: bool = True,
    audits: int = 1,
    formats: Sequence[int] = FORMATS,
) -> list[Audit]:
    """Audit one network in every format. `label_bits` is -log2 of the probability of its labels (Dataset.label_bits).

    `audits` is how many networks share the chance of failure. Raises AuditViolation with a full report, unless the
    labels are not random (`certifiable` false): then nothing forbids a ratio above one, and it is only reported.
    """
    choice_bits = math.log2(len(formats))
    results = []
    for bits in formats:
        rounded, described = quantize(parameters, bits)
        loss_bits = total_loss_bits(rounded)
        certificate = certify_bits(
            label_bits, loss_bits, described + choice_bits, facts=facts, failure_bits=FAILURE_BITS, audits=audits
        )
        if certifiable and not certificate.holds:
            raise AuditViolation(
                f"{bits} bits a weight: {certificate.memorized_bits:.1f} of {label_bits:.1f} label bits memorized, but "
                f"{described + choice_bits:.1f} bits describe the network and at most {certificate.allowed_bits:.1f} "
                f"are allowed over {facts} facts and {audits} audits. Either the labels were not independent of "
                "the network's code, seeds and order, or the audit is wrong."
            )
        results.append(Audit(bits, certificate))
    return results

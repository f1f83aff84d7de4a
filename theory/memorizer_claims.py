"""The claims T15 and T16: explicit memorizers, each with the cases that attack it."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass

import numpy as np

from theory import capacity, interpolation, memorizers, packing
from theory.claims import Identity, register
from theory.rounding import LN2
from theory.search import Draw


@dataclass(frozen=True)
class LabeledPoints:
    """Points with labels below `answers`, and the loss that is wanted of them."""

    points: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    answers: int
    loss_nats: float


@register
class Interpolation(Identity[LabeledPoints]):
    """A two-layer network of 2n + d numbers, sum_j w_j max(<a, x> - b_j, 0), gives n distinct points any labels; equal
    points with equal labels are merged, with different ones refused. The head beta (2cy - c^2), beta = -ln tanh(delta /
    2), 2V numbers more, makes it a classifier of loss at most delta.
    """

    name, title, status = "T15", "2n + d weights memorize n points", "proved"
    source = "Zhang et al. 2017, arXiv 1611.03530; the head: this project"
    assumptions = (
        "points that are equal have equal labels",
        "float64 keeps their projections apart: rounding grows like 1/(smallest gap)",
    )
    proof = (
        "Along a generic direction the projections differ. Sorted, with each bias at the projection before, the matrix "
        "max(z_i - b_j, 0) is triangular with a positive diagonal. Head: the rivals of c are at beta (c - c')^2, and "
        "1 + 2 sum_k e^(-beta k) = coth(beta / 2) = e^delta."
    )
    dropped = "one of the n weights is left out"
    tolerance = 0.0

    def cases(self, draw: Draw) -> LabeledPoints:
        dimensions, answers = draw.integer(1, 4), draw.integer(2, 9)
        places: dict[tuple[float, ...], int] = {}
        facts = []
        for _ in range(draw.integer(1, 12)):
            point = tuple(draw.choice((draw.real(-3.0, 3.0), 0.0, 1.0)) for _ in range(dimensions))
            facts.append((point, places.setdefault(point, draw.integer(0, answers - 1))))
        return LabeledPoints(
            tuple(point for point, _ in facts), tuple(label for _, label in facts), answers, draw.real(1e-6, 2.0)
        )

    def _network(self, case: LabeledPoints) -> interpolation.Interpolant:
        return interpolation.interpolant(case.points, case.labels)

    def left(self, case: LabeledPoints) -> float:
        """Largest distance of a value of the network from its label."""
        return float(np.abs(self._network(case)(case.points) - np.array(case.labels)).max())

    def right(self, case: LabeledPoints) -> float:
        """Nothing."""
        return 0.0

    def perturbed(self, case: LabeledPoints) -> float:
        network = self._network(case)
        weights = network.weights.copy()
        weights[0] = 0.0
        damaged = interpolation.Interpolant(network.direction, weights, network.biases)
        return float(np.abs(damaged(case.points) - np.array(case.labels)).max())

    def error_bound(self, case: LabeledPoints) -> float:
        return self._network(case).rounding(case.points)

    def slack(self, case: LabeledPoints) -> float:
        """Also the size, and the room of the largest loss below the wanted one."""
        network = self._network(case)
        distinct = len(set(case.points))
        if network.parameters != 2 * distinct + len(case.points[0]):
            return -1.0
        values = network(case.points)
        logits = interpolation.head_logits(values, case.answers, case.loss_nats)
        losses = memorizers.cross_entropies(logits, np.array(case.labels))
        off = 4.0 * case.answers * interpolation.head_sharpness(case.loss_nats) * network.rounding(case.points)
        return min(super().slack(case), case.loss_nats - float(losses.max()) + off + 1e-14)


@dataclass(frozen=True)
class Labels:
    """Labels of n facts, below `answers`."""

    labels: tuple[int, ...]
    answers: int


@register
class PackedTable(Identity[Labels]):
    """A table of n answers packed into ceil(n log2 V) bits has loss 0 on any labels: less than one bit above the n
    log2 V - B <= loss of T7.
    """

    name, title, status, source = "T16", "A packed table meets T7", "proved", "this project"
    assumptions = ("the order of the questions is known: the table holds answers only",)
    proof = "The labels are the digits of a number below V^n in base V, which ceil(log2 V^n) bits hold."
    dropped = "each answer is packed on its own, into ceil(log2 V) bits"
    tolerance = 0.0

    def cases(self, draw: Draw) -> Labels:
        answers = draw.choice((2, 3, 5, 10, 32, 100))
        return Labels(tuple(draw.integer(0, answers - 1) for _ in range(draw.integer(1, 80))), answers)

    def left(self, case: Labels) -> float:
        """Bits of the table."""
        return float(packing.packed_bits(len(case.labels), case.answers))

    def right(self, case: Labels) -> float:
        """Bits that the network read from the table saves on its labels, certified by T11."""
        packed = packing.pack(case.labels, case.answers)
        logits = packing.packed_table_logits(packed, len(case.labels), case.answers)
        loss_bits = float(memorizers.cross_entropies(logits, np.array(case.labels)).sum()) / LN2
        described = self.left(case)
        certificate = capacity.certify(loss_bits, len(case.labels), case.answers, described, failure_bits=0.0)
        return certificate.memorized_bits if certificate.holds else -math.inf

    def perturbed(self, case: Labels) -> float:
        return float(len(case.labels) * (case.answers - 1).bit_length())

    def error_bound(self, case: Labels) -> float:
        """Less than one bit."""
        return 1.0 - 1e-9

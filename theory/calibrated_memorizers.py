"""Calibrated networks whose weights are written down: one for every point of the region T6b.

A network is a few *cells*: rows of probabilities with weights. The questions of a cell share its row, and their
answers come with the row's frequencies. Those are real numbers, so each fact has a frequency of its own in the data;
loss and error are means with these frequencies. Letters as in `theory.calibration`; everything is float64.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory import calibration
from theory.calibration import Decoding, Floats
from theory.memorizers import NEVER

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Rows of probabilities, shape (cells, V), and the share of the data that falls on each, shape (cells,)."""

    weights: Floats
    rows: Floats

    @property
    def mean_loss(self) -> float:
        """Mean entropy of the rows, nats, which is the mean loss of a calibrated model."""
        logs = np.log(np.where(self.rows > 0.0, self.rows, 1.0))
        return math.fsum((-self.weights[:, None] * self.rows * logs).ravel())

    @property
    def greedy_error(self) -> float:
        """H_map, one minus the mean of the largest probabilities."""
        return math.fsum(self.weights * (self.rows.sum(axis=1) - self.rows.max(axis=1)))

    @property
    def sampled_error(self) -> float:
        """H_sampled, the mean of 1 - sum row^2."""
        return math.fsum((self.weights[:, None] * self.rows * (1.0 - self.rows)).ravel())

    def error(self, decoding: Decoding) -> float:
        """One of the two."""
        return self.greedy_error if decoding == "greedy" else self.sampled_error


def calibrated_cells(mean_loss_nats: float, error_rate: float, *, answers: int, decoding: Decoding) -> Cells:
    """Cells with this mean loss and this error rate (T6b), at most four of them.

    At one error rate the lowest loss is a mixture of two uniform rows and the highest one or two peaked rows; a mixture
    of both has the same rate, and a loss that moves evenly from the one to the other. ValueError outside the region.
    """
    if not calibration.calibrated_region_contains(mean_loss_nats, error_rate, answers=answers, decoding=decoding):
        raise ValueError(f"error rate {error_rate!r} is impossible for a calibrated mean loss {mean_loss_nats!r}")
    rate = min(error_rate, 1.0 - 1.0 / answers)
    lowest, highest = _lowest(rate, answers), _highest(rate, answers, decoding)
    span = highest.mean_loss - lowest.mean_loss
    share = min(1.0, max(0.0, (mean_loss_nats - lowest.mean_loss) / span)) if span > 0.0 else 0.0
    return unchecked_mixture(lowest, highest, share)


def unchecked_mixture(lowest: Cells, highest: Cells, share: float) -> Cells:
    """`share` of the data on the cells of `highest`, the rest on those of `lowest`; cells without data are left out."""
    weights = np.concatenate([(1.0 - share) * lowest.weights, share * highest.weights])
    rows = np.concatenate([lowest.rows, highest.rows])
    return Cells(weights[weights != 0.0], rows[weights != 0.0])


def _lowest(error_rate: float, answers: int) -> Cells:
    """Uniform rows over i and i + 1 answers."""
    right = 1.0 - error_rate
    i = min(answers - 1, math.floor(1.0 / right))
    more = error_rate * 2.0 if i == 1 else (i + 1) * (1.0 - i * right)  # weight of the flatter row
    more = min(1.0, max(0.0, more))
    rows = np.zeros((2, answers))
    rows[0, :i], rows[1, : i + 1] = 1.0 / i, 1.0 / (i + 1)
    return Cells(np.array([1.0 - more, more]), rows)


def _highest(error_rate: float, answers: int, decoding: Decoding) -> Cells:
    """One answer above the rest; sampled and beyond the tangent point, such a row and the uniform one."""
    if decoding == "greedy":
        return Cells(np.ones(1), _peaked(error_rate, answers)[None])
    tangent, end = float(calibration.tangent_point(answers)), 1.0 - 1.0 / answers
    if error_rate <= tangent or answers == 2:
        return Cells(np.ones(1), _peaked(float(calibration.peaked_row_error(error_rate, answers)), answers)[None])
    flat = (error_rate - tangent) / (end - tangent)
    return Cells(np.array([1.0 - flat, flat]), np.stack([_peaked(1.0 / answers, answers), _peaked(end, answers)]))


def _peaked(error: float, answers: int) -> Floats:
    row = np.full(answers, error / (answers - 1))
    row[0] = 1.0 - error
    return row


@dataclass(frozen=True)
class WeightedFacts:
    """A table of logits, shape (n, V), the facts' answers, shape (n,), and their frequencies, shape (n,), sum 1."""

    logits: Floats
    labels: Integers
    frequencies: Floats


def fewest_facts(cells: Cells) -> int:
    """How many facts it takes: one for each answer that a cell gives a probability."""
    return int(np.count_nonzero(cells.rows))


def weighted_facts(cells: Cells, facts: int) -> WeightedFacts:
    """`facts` facts spread over the cells so that each cell's answers have its row's frequencies.

    A cell's answer gets facts in proportion to its share of the data, at least one; they share its frequency evenly.
    ValueError below `fewest_facts`.
    """
    cell, answer = np.nonzero(cells.rows)
    if facts < len(cell):
        raise ValueError(f"these cells need {len(cell)} facts, one per answer of a cell, got {facts}")
    shares = cells.weights[cell] * cells.rows[cell, answer]
    wanted = shares / shares.sum() * (facts - len(cell))
    counts = 1 + np.floor(wanted).astype(np.int64)
    counts[np.argsort(np.floor(wanted) - wanted, kind="stable")[: facts - counts.sum()]] += 1
    pair = np.repeat(np.arange(len(cell)), counts)
    rows = np.where(cells.rows > 0.0, np.log(np.where(cells.rows > 0.0, cells.rows, 1.0)), NEVER)
    return WeightedFacts(rows[cell[pair]], answer[pair].astype(np.int64), (shares / counts)[pair])

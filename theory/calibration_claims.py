"""The claims T5 and T6b: what the loss of a calibrated model says about decoding, with the cases that attack them."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass

import numpy as np

from theory import calibrated_memorizers, calibration, memorizers
from theory.calibrated_memorizers import Cells
from theory.calibration import Decoding
from theory.claims import Bound, register
from theory.search import Draw

_CALIBRATED = "facts that share a row have answers distributed as the row"
_DECODINGS: tuple[Decoding, Decoding] = ("greedy", "sampled")


@dataclass(frozen=True)
class Groups:
    """Facts grouped by the row they share: how often each answer occurs in each group, over V answers.

    `rows` are the rows that the model gives to the groups, unnormalized; the counts themselves if it is calibrated.
    `meets` names the inequalities that a witness meets with equality.
    """

    counts: tuple[tuple[float, ...], ...]
    rows: tuple[tuple[float, ...], ...]
    meets: tuple[str, ...] = ()

    @property
    def answers(self) -> int:
        """V."""
        return len(self.rows[0])

    def measured(self) -> tuple[float, float, float]:
        """Mean loss in nats, greedy error with ties broken in favor of the first answer, and sampled error."""
        counts, rows = np.array(self.counts, dtype=np.float64), np.array(self.rows, dtype=np.float64)
        rows = rows / rows.sum(axis=1, keepdims=True)
        losses = -np.log(np.where(counts > 0.0, rows, 1.0))
        total = counts.sum()
        right = counts[np.arange(len(rows)), rows.argmax(axis=1)]
        return (
            math.fsum((counts * losses).ravel()) / total,
            math.fsum(counts.sum(axis=1) - right) / total,
            math.fsum((counts * (1.0 - rows)).ravel()) / total,
        )


def _calibrated(*counts: tuple[float, ...], meets: tuple[str, ...] = ()) -> Groups:
    return Groups(counts, counts, meets)


@register
class CalibratedEnvelopes(Bound[Groups]):
    """A calibrated model with mean loss L nats has phi(e) ln 2 <= L for its greedy and its sampled error e, where phi
    joins the points ((i-1)/i, log2 i) by straight lines, so e <= L / (2 ln 2); and L <= h(pi) + pi ln(V-1) for its
    greedy error pi, L <= psi_V(g) for its sampled error g.
    """

    name, title, status = "T5", "Loss of calibrated models", "proved"
    source = "Feder & Merhav 1994; Fano; psi_V: this project"
    assumptions = (
        _CALIBRATED,
        "so the mean loss is the mean entropy of the rows, and the error is 1 - the mean of their largest entries",
        "ties are broken without looking at the label",
    )
    proof = (
        "At a fixed largest entry the entropy is concave in the rest, so it is least at a vertex: all entries but one "
        "equal the largest; between two uniform rows it is above the line, and mixtures fill the hull. It is most "
        "where the rest is even; h is concave, and of the curve g -> h along (a, b, ..., b) the hull is the tangent "
        "from (1 - 1/V, ln V), which touches at a = 1 - 1/V."
    )
    dropped = "of calibration only this is kept: the mean loss is the mean entropy of the rows"
    tolerance = 1e-14

    def cases(self, draw: Draw) -> Groups:
        answers = draw.integer(2, 6)
        return _calibrated(*(self._group(draw, answers) for _ in range(draw.integer(1, 4))))

    def _group(self, draw: Draw, answers: int) -> tuple[float, ...]:
        """Counts, or shares, or a peaked group, of some weight."""
        kind, weight = draw.choice(("counts", "peaked", "shares")), draw.choice((1.0, 3.0, 50.0))
        if kind == "peaked":
            peak = draw.real(1.0 / answers, 1.0)
            return tuple([weight * peak] + [weight * (1.0 - peak) / (answers - 1)] * (answers - 1))
        if kind == "counts":
            return (weight, *(weight * draw.integer(0, 3) for _ in range(answers - 1)))
        return tuple(weight * draw.real(1e-3, 1.0) for _ in range(answers))

    def slack(self, case: Groups) -> float:
        return min(self._slacks(case).values())

    def gap(self, witness: Groups) -> float:
        return max(abs(self._slacks(witness)[name]) for name in witness.meets)

    def _slacks(self, case: Groups) -> dict[str, float]:
        """Distance from each inequality, in nats for the envelopes and in rate for their inverses."""
        loss, *errors = case.measured()
        slacks = {"half the entropy": float(calibration.calibrated_error_upper(loss)) - max(errors)}
        for decoding, error in zip(_DECODINGS, errors, strict=True):
            error = min(error, 1.0 - 1.0 / case.answers)
            low, high = calibration.calibrated_loss_range(error, answers=case.answers, decoding=decoding)
            slacks[f"{decoding} from below"], slacks[f"{decoding} from above"] = float(loss - low), float(high - loss)
            least, most = calibration.calibrated_error_rates(
                min(loss, math.log(case.answers)), answers=case.answers, decoding=decoding
            )
            slacks[f"least {decoding} error"], slacks["greatest error"] = float(error - least), float(most - error)
        return slacks

    def control_cases(self, draw: Draw) -> Groups:
        """Two rows, the first wrong by a hair and the second right, mixed until loss and entropy agree."""
        hair, peak = draw.real(0.0005, 0.2), draw.real(0.7, 0.999)
        first, second = (0.5 + hair, 0.5 - hair, 0.0), (peak, 1.0 - peak, 0.0)
        excess = -math.log(first[1]) - _entropy(first)
        surplus = _entropy(second) + math.log(second[0])
        share = surplus / (excess + surplus)
        return Groups(((0.0, share, 0.0), (1.0 - share, 0.0, 0.0)), (first, second))

    def control_slack(self, case: Groups) -> float:
        loss, greedy, _ = case.measured()
        return float(calibration.calibrated_error_upper(loss)) - greedy

    def witnesses(self) -> list[Groups]:
        lower = ("greedy from below", "sampled from below", "greatest error")
        touching = tuple(15.0 / 16 if i == 0 else 1.0 / 16 / 15 for i in range(16))
        return [
            _calibrated((1, 0, 0, 0), (1, 1, 0, 0), meets=(*lower, "half the entropy")),
            _calibrated((5, 5, 5, 0, 0, 0), (2, 2, 2, 2, 0, 0), meets=lower),
            _calibrated((4, 3, 3, 3), meets=("greedy from above",)),
            _calibrated((13, 1, 1, 1), meets=("greedy from above", "sampled from above", "least greedy error")),
            _calibrated((19, 2, 2, 2), meets=("sampled from above", "least sampled error")),
            _calibrated(touching, (1.0 / 16,) * 16, meets=("sampled from above", "least sampled error")),
            _calibrated((9, 1), (9, 1), meets=("sampled from above", "least sampled error")),
        ]


def _entropy(row: tuple[float, ...]) -> float:
    return -math.fsum(p * math.log(p) for p in row if p)


@dataclass(frozen=True)
class CalibratedPoint:
    """A wanted point: an error rate, and how far the loss is from the lowest to the highest there."""

    answers: int
    error_rate: float
    height: float
    extra_facts: int


@register
class CalibratedNetworks(Bound[CalibratedPoint]):
    """The region between the envelopes of T5, greedy and sampled, has no hole: for every point there is an explicit
    calibrated table of logits whose mean loss and error rate are the wanted ones.
    """

    name, title, status, source = "T6b", "A calibrated network everywhere", "proved", "this project"
    assumptions = (
        _CALIBRATED,
        "facts may differ in frequency; with equal frequencies the region is an outer bound, for every n",
        "at least one fact per answer of a cell",
        "an error rate of 0 or above 1e-300, where float64 keeps its digits",
    )
    proof = (
        "At one error rate, mix the cells of least loss (two uniform rows) with those of greatest loss (peaked rows): "
        "the rate stays and the loss moves evenly from the one to the other."
    )
    dropped = "the mixture may go beyond its ends, to negative weights"
    tolerance = 0.0

    def cases(self, draw: Draw) -> CalibratedPoint:
        return self._point(draw, draw.real(0.0, 1.0))

    def control_cases(self, draw: Draw) -> CalibratedPoint:
        return self._point(draw, draw.real(1.01, 1.5))

    def _point(self, draw: Draw, height: float) -> CalibratedPoint:
        answers = draw.integer(2, 8)
        rate = draw.choice((draw.real(0.0, 1.0 - 1.0 / answers), 1.0 - 1.0 / draw.integer(1, answers)))
        return CalibratedPoint(answers, rate if rate > 1e-300 else 0.0, height, draw.integer(0, 9))

    def slack(self, case: CalibratedPoint) -> float:
        return min(self._room(case, decoding) for decoding in _DECODINGS)

    def control_slack(self, case: CalibratedPoint) -> float:
        return self.slack(case)

    def _room(self, case: CalibratedPoint, decoding: Decoding) -> float:
        """1e-12 minus the largest error of loss, rate and calibration; -1 if the point is said to be outside."""
        low = float(calibration.least_entropy_nats(case.error_rate))
        high = float(calibration.greatest_entropy_nats(case.error_rate, answers=case.answers, decoding=decoding))
        wanted = low + case.height * max(0.0, high - low)
        try:
            cells = calibrated_memorizers.calibrated_cells(
                wanted, case.error_rate, answers=case.answers, decoding=decoding
            )
        except ValueError:
            return -1.0
        return 1e-12 - self._largest_error(cells, wanted, case, decoding)

    def _largest_error(self, cells: Cells, wanted: float, case: CalibratedPoint, decoding: Decoding) -> float:
        """Measured on the facts and on the table alone."""
        built = calibrated_memorizers.weighted_facts(
            cells, calibrated_memorizers.fewest_facts(cells) + case.extra_facts
        )
        losses = memorizers.cross_entropies(built.logits, built.labels)
        rows = np.exp(built.logits)
        right = rows.max(axis=1) if decoding == "greedy" else np.exp(-losses)
        _, group = np.unique(built.logits, axis=0, return_inverse=True)
        answered = np.zeros((group.max() + 1, case.answers))
        np.add.at(answered, (group, built.labels), built.frequencies)
        share = answered.sum(axis=1)[group]
        return max(
            abs(math.fsum(built.frequencies * losses) - wanted),
            abs(math.fsum(built.frequencies * (1.0 - right)) - case.error_rate),
            float(np.abs(answered[group] - share[:, None] * rows).max()),
            abs(math.fsum(built.frequencies) - 1.0),
        )

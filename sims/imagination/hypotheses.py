"""What was expected of shared imagination, what came out, and whether it holds.

A prediction is a number with a tolerance, or a bound; it comes from chance, from theory or from a first study of the
same kind, whose numbers the tolerances allow for. What is measured is a mean over models with an interval: over
models and questions in one world, over worlds where there are several.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from sims.imagination.asking import OPTIONS
from sims.imagination.evidence import Evidence
from sims.imagination.memories import nearest_key_agreement
from sims.imagination.world import World as Setting
from sims.intervals import Interval, difference, ratio
from theory.agreement import agreement

CHANCE = 1 / OPTIONS
_CHANCE_TOLERANCE = 0.02
_THEORY_TOLERANCE = 0.04  # of an agreement predicted from a correlation: logits are not quite normal
_KERNEL_TOLERANCE = 0.08  # of a correlation predicted at infinite width, for networks of width 64
_REACHED_NATS = 1.6  # loss at which the correlation of imaginations is expected to be reached
_STORED_NATS = 0.001  # loss down to which it is expected not to move
_ABSTAINS = 0.984
_SEPARABILITY = {2.0: 0.54, 0.84: 0.62, 0.001: 0.92}  # expected at these losses, of the first study
_HALF = "overlap 0.5"


@dataclass(frozen=True)
class Prediction:
    """One line of the study's table."""

    hypothesis: str
    expected: str
    measured: Interval
    holds: bool


def predictions(evidence: Evidence) -> list[Prediction]:
    """Of every hypothesis that the runs can speak to, in the order of the design."""
    found = [line for part in _PARTS for line in part(evidence)]
    return [line for line in found if math.isfinite(line.measured.mean)]


def _near(hypothesis: str, predicted: float, measured: Interval, tolerance: float) -> Prediction:
    holds = abs(measured.mean - predicted) <= tolerance
    return Prediction(hypothesis, f"{predicted:.3f} ± {tolerance:g}", measured, holds)


def _above(hypothesis: str, bound: float, measured: Interval) -> Prediction:
    """Holds if the lower end of the interval is above the bound; the mean, where there is no interval."""
    least = measured.low if math.isfinite(measured.low) else measured.mean
    return Prediction(hypothesis, f"> {bound:.3f}", measured, least > bound)


def _nothing_shared(evidence: Evidence) -> list[Prediction]:
    wanted = {
        "overlap 0": "nothing shared: families agree at chance",
        "same weights": "same initial weights, nothing else: chance",
        "marginals 0": "frequent values, each family its own: chance",
        "rule 0": "a rule, each family its own: chance",
    }
    lines = [
        _near(text, CHANCE, evidence.metric(role, "direct_cross_family"), _CHANCE_TOLERANCE)
        for role, text in wanted.items()
    ]
    for name in ("cohen_kappa", "error_consistency", "capa", "capa_discrete"):
        measured = evidence.metric("overlap 0", f"pairs_{name}_cross_family")
        lines.append(_near(f"nothing shared: {name.replace('_', ' ')}", 0.0, measured, 0.03))
    return lines


def _overlap(evidence: Evidence) -> list[Prediction]:
    lines = []
    for role in evidence.roles("overlap")[1:]:
        overlap = float(role.rpartition(" ")[2])
        measured = evidence.metric(role, "direct_cross_family")
        if 0.0 < overlap < 1.0:
            # What the seeds blur is divided out (Spearman 1904).
            across, within = ((role, f"correlation_{relation}") for relation in ("cross_family", "in_family"))
            blurred = evidence.combined(ratio, across, within)
            predicted = evidence.metric(role, "kernel_correlation").mean
            text = f"correlation across over within families, overlap {overlap:g} (kernel)"
            lines.append(_near(text, predicted, blurred, _KERNEL_TOLERANCE))
        through = [evidence.metric(role, name).mean for name in ("correlation_in_family", "kernel_correlation")]
        if not math.isfinite(math.prod(through)):
            continue  # the kernel is that of an MLP
        predicted = agreement(min(1.0, max(0.0, math.prod(through))), OPTIONS, Setting().values)
        lines.append(
            _near(
                f"agreement of families, overlap {overlap:g} (kernel and T25)", predicted, measured, _THEORY_TOLERANCE
            )
        )
    ends = (("overlap 1", f"direct_{relation}") for relation in ("in_family", "cross_family"))
    together = evidence.combined(difference, *ends)
    lines.append(_near("all shared: within less across families", 0.0, together, _CHANCE_TOLERANCE))
    return lines


def _other_mechanisms(evidence: Evidence) -> list[Prediction]:
    lines = []
    for role, text in (("marginals 1", "frequent values shared, facts not"), ("rule 1", "a rule shared, facts not")):
        lines.append(
            _above(f"{text}: above chance", CHANCE + _CHANCE_TOLERANCE, evidence.metric(role, "direct_cross_family"))
        )
    widths = evidence.roles("width")
    if len(widths) > 1:
        for narrow, wide in pairwise(widths):
            name = "direct_cross_family"
            grows = evidence.combined(difference, (wide, name), (narrow, name))
            lines.append(_above(f"all shared: {wide} agrees more than {narrow}", 0.0, grows))
    return lines


def _context(evidence: Evidence) -> list[Prediction]:
    lines = []
    for role in evidence.roles("context"):
        width = role.rpartition(" ")[2]
        for kind, text in (("leaking", "an answer that leaks helps"), ("context", "another statement does not help")):
            gain = evidence.combined(difference, (role, f"{kind}_cross_family"), (role, "direct_cross_family"))
            line = f"nothing shared, width {width}: {text}"
            lines.append(_above(line, 0.1, gain) if kind == "leaking" else _near(line, 0.0, gain, _CHANCE_TOLERANCE))
    return lines


def _course(evidence: Evidence) -> list[Prediction]:
    lines = []
    for role in evidence.roles("course"):
        width = role.rpartition(" ")[2]
        for name, words in (("correlation", "correlation"), ("agreement", "agreement")):
            late, early = (evidence.along(role, f"{name}_cross_family", nats) for nats in (_STORED_NATS, _REACHED_NATS))
            text = f"{words} across families at .001 over that at {_REACHED_NATS} nats, width {width}"
            lines.append(_near(text, 1.0, ratio(late, early), 0.2))
        for nats, expected in _SEPARABILITY.items():
            text = f"real from imaginary by confidence (AUC) at {nats:g} nats, width {width}"
            lines.append(_near(text, expected, evidence.along(role, "separability", nats), 0.05))
    return lines


def _memories(evidence: Evidence) -> list[Prediction]:
    lines = []
    for role in evidence.roles("shared router"):
        overlap = float(role.rpartition(" ")[2])
        measured = evidence.metric(role, "ungated_cross_family")
        text = f"memories of one router, overlap {overlap:g} (nearest key)"
        lines.append(_near(text, nearest_key_agreement(overlap), measured, 0.03))
    memory, network = ("shared router 0.5", "ungated_cross_family"), (_HALF, "direct_cross_family")
    more = evidence.combined(difference, memory, network)
    lines.append(_above("ungated memories of one router agree more than networks, overlap 0.5", 0.0, more))
    for gate in ("similarity", "fingerprint"):
        for router in ("shared", "separate"):
            role = f"{router} router 0.5"
            abstains = evidence.metric(role, f"{gate}_abstains_imaginary")
            text = f"gate by {gate}, {router} router: abstains on imaginary questions"
            lines.append(Prediction(text, f">= {_ABSTAINS}", abstains, abstains.mean >= _ABSTAINS))
            answers = evidence.metric(role, f"{gate}_right_real")
            text = f"gate by {gate}, {router} router: right on real questions"
            lines.append(Prediction(text, "= 1", answers, answers.mean == 1.0))
    return lines


_PARTS = (_nothing_shared, _overlap, _other_mechanisms, _context, _course, _memories)

"""The four feasible regions of loss and hallucination, with networks that were built at points of them."""

import math
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import calibration, decoding, memorizers
from theory.rounding import LN2

_ANSWERS, _FACTS = 32, 24
_ANY, _CALIBRATED = "#E6EBF2", "#A9C4E4"


@picture(
    "feasible-regions",
    caption="Which rates of hallucination a mean loss allows, and networks that were built at points of the regions.",
    claims=("T1", "T2", "T3", "T5", "T6", "T6b"),
)
def feasible_regions() -> Figure:
    """Left greedy decoding, right sampling: any model, calibrated models, built networks."""
    drawn = style.new_figure(style.PAGE, 3.6)
    greedy, sampled = drawn.subplots(1, 2, sharey=True)
    loss = np.linspace(0.0, math.log(_ANSWERS), 257)
    panels: tuple[tuple[Axes, Literal["greedy", "sampled"], tuple], ...] = (
        (greedy, "greedy", decoding.greedy_error_rates(loss, answers=_ANSWERS)),
        (sampled, "sampled", decoding.sampled_error_rates(loss)),
    )
    for axes, words, bounds in panels:
        axes.set_label(words)
        style.band(axes, loss, *bounds, f"any model, {words}, share", color=_ANY, zorder=0)
        inner = calibration.calibrated_error_rates(loss, answers=_ANSWERS, decoding=words)
        style.band(axes, loss, *inner, f"calibrated models, {words}, share", color=_CALIBRATED, zorder=1)
        style.line(axes, loss, bounds[1], f"most wrong, {words}, share", color=style.THEORY, linewidth=1.1)
        axes.set_xlim(-0.04, 1.02 * loss[-1])
        axes.set_xlabel("mean loss of a fact (nats)")
        style.percent_axis(axes, "")
    greedy.set_ylabel("facts answered wrong")
    _built(greedy, sampled)
    _words(greedy, sampled)
    dot = Line2D([], [], color=COLORS[3], marker="o", markersize=3.5, linestyle="none")
    entries = [
        (Patch(color=_ANY), "possible (T2, T3)"),
        (Patch(color=_CALIBRATED), "possible if calibrated (T5)"),
        (dot, f"networks with weights written down, {_FACTS} facts (T6)"),
    ]
    caption = (
        f"{_ANSWERS} answers, many facts; no cap on a fact's loss. Greedy decoding needs {LN2:.3f} nats for an error, "
        "so a mean loss leaves the wide region open. A model whose probabilities are the frequencies it meets "
        "errs on at most half its entropy in bits, and at least as much as Fano's inequality says."
    )
    style.below(drawn, caption, entries)
    return drawn


def _built(greedy: Axes, sampled: Axes) -> None:
    """Networks over the regions: for each the loss and the rate of its own logits are drawn, not the wanted ones."""
    labels, points = np.arange(_FACTS) % _ANSWERS, {"greedy": [], "sampled": []}
    for mean in np.arange(0.25, 3.4, 0.25):
        most = int(decoding.greedy_error_counts(mean, facts=_FACTS, answers=_ANSWERS)[1])
        for wrong in range(0, most + 1, 4):
            losses = memorizers.greedy_losses(mean, wrong, facts=_FACTS, answers=_ANSWERS)
            rows = memorizers.logits_with_losses(losses, np.arange(_FACTS) < wrong, labels, _ANSWERS)
            loss = memorizers.cross_entropies(rows, labels).mean()
            points["greedy"].append((loss, memorizers.greedy_wrong(rows, labels).mean()))
        low, high = decoding.sampled_error_rates(mean, facts=_FACTS)
        for wanted in np.linspace(low, high, 2 + int(6 * (high - low))):
            losses = memorizers.sampled_losses(mean, float(wanted), facts=_FACTS)
            rows = memorizers.logits_with_losses(losses, losses >= math.log(_ANSWERS), labels, _ANSWERS)
            seen = memorizers.cross_entropies(rows, labels)
            points["sampled"].append((seen.mean(), -np.expm1(-seen).mean()))
    for axes, name in ((greedy, "greedy"), (sampled, "sampled")):
        loss, rate = np.array(points[name]).T
        style.points(
            axes, loss, rate, f"built networks, {name}, share", color=COLORS[3], marker="o", markersize=2.2, zorder=3,
            clip_on=False,
        )  # fmt: skip


def _words(greedy: Axes, sampled: Axes) -> None:
    near = {"textcoords": "offset points", "fontsize": 7.5, "color": style.INK}
    for axes, name in ((greedy, "Greedy decoding"), (sampled, "Sampling")):
        axes.annotate(name, (0, 1), (0, 6), "axes fraction", "offset points", fontweight="bold")
    greedy.annotate(r"at most $L\,/\ln 2$", (LN2, 1), (2, -9), va="center", **near)
    sampled.annotate("at most\n$1 - e^{-L}$", (1.0, 1 - math.exp(-1.0)), (-8, 6), ha="right", **near)

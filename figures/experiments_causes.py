"""What each cause of hallucination adds, stacked; each flaw alone beside its theory; what temperature does."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table
from sims.experiments.causes_findings import (
    CAUSES,
    DOSE,
    FLAWS,
    ROOM,
    TEMPERATURES,
    THRESHOLD,
    WORDS,
    added,
    column,
    expected_share,
    situations,
)

_COLORS: dict[str, str] = dict(zip(CAUSES, ("#D0902A", "#4BA3DD", "#B8405A", "#7A3E9D", "#14366F"), strict=True))
_MARKERS = dict(zip(FLAWS, ("^", "o", "s"), strict=True))


@measured(
    "experiment-causes",
    needs=("causes",),
    caption="How much hallucination each cause adds, averaged over the orders in which they can be put in.",
    claims=("F5", "T1", "T3"),
)
def causes(tables: Mapping[str, Table]) -> Figure:
    """Left: the stack, one bar a situation. Middle: flaws alone. Right: temperature."""
    rows = {name: np.asarray(values) for name, values in tables["causes"].items()}
    finished = rows["status"] == "finished"
    rows = {name: values[finished] for name, values in rows.items()}
    picture = style.new_figure(style.PAGE, 3.6)
    left, middle, right = picture.subplots(1, 3, width_ratios=(1.5, 1, 1))
    entries = [*_stack(left, rows), *_alone(middle, rows), *_temperature(right, rows)]
    text = (
        f"{causes.caption} {DOSE:.0%} of the questions have each flaw. Errors against the truth. Right: gray lines "
        "have more facts or fewer passes."
    )
    style.below(picture, text, entries, columns=3)
    return picture


def _stack(axes: Axes, rows: Table) -> list:
    axes.set_label("what each cause adds")
    handles, labels = {}, []
    for place, situation in enumerate(situations(rows)):
        top = 0.0
        for cause, shares in added(rows, situation).items():
            height = float(shares.mean())
            name = f"{WORDS.get(cause, cause)}, share of questions"
            handles[cause] = style.bars(
                axes, [place], [height], name, bottom=top, color=_COLORS[cause], width=0.7, linewidth=0
            )
            top += height
        labels.append(situation.words.replace(", ", "\n"))
    few = len(labels) < 6
    axes.set_xticks(range(len(labels)), labels, fontsize=6 if few else 5, rotation=0 if few else 90)
    axes.tick_params(axis="x", length=0)
    style.percent_axis(axes, "hallucination")
    return [(handles[cause], WORDS.get(cause, cause)) for cause in reversed(CAUSES) if cause in handles]


def _alone(axes: Axes, rows: Table) -> list:
    axes.set_label("each flaw alone")
    axes.set(xlabel="share of questions with it")
    style.percent_axis(axes, "hallucination, T = 1")
    doses = np.unique(rows["wrong"][rows["copies"] == 1])
    luck = float(column(rows, "luck").mean())
    theory = None
    for flaw in FLAWS:
        expected = [expected_share(flaw, dose, luck) for dose in doses]
        theory = style.line(axes, doses, expected, f"{WORDS[flaw]}, theory", color=style.THEORY, linestyle=":")
        found = [(dose, share) for dose in doses for share in column(rows, "hallucination_at_1", {flaw: dose})]
        x, y = np.array(found).T
        style.points(
            axes,
            x,
            y,
            f"{WORDS[flaw]} alone, share",
            color=_COLORS[flaw],
            marker=_MARKERS[flaw],
            markersize=4,
        )
    return [(theory, "theory")]


def _temperature(axes: Axes, rows: Table) -> list:
    axes.set_label("temperature")
    axes.set(xlabel="sampling temperature")
    style.percent_axis(axes, "hallucination, no flaw")
    band = None
    for situation in situations(rows):
        means = {
            name: np.array([column(rows, f"{name}_at_{t:g}", situation=situation).mean() for t in TEMPERATURES])
            for name in ("hallucination", "least", "most")
        }
        color = style.FAINT
        if situation == ROOM:
            color, name = _COLORS[THRESHOLD], f"{situation.words}, bounds"
            band = style.band(axes, TEMPERATURES, means["least"], means["most"], name, color=color, alpha=0.15)
        name = f"{situation.words}, share"
        style.line(axes, TEMPERATURES, means["hallucination"], name, color=color, linewidth=1)
    return [(band, "what the losses leave open")] if band else []

"""What held-out examples say about who hallucinates, and what the facts themselves say."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table, where
from sims.experiments.indistinguishable_findings import ACCURACY, FACTS_ASKED, HELD_OUT, LOSS, PAIRS

_COLORS = dict(zip([pair.name for pair in PAIRS], ("#14366F", "#B8405A", "#2E8B57"), strict=True))
_MARKERS = dict(zip([pair.name for pair in PAIRS], ("o", "s", "^"), strict=True))
_DASHES = {ACCURACY: "-", LOSS: ":"}
_SIDESTEP = 0.24  # powers of two between pairs, so that intervals do not hide each other


@measured(
    "experiment-indistinguishable",
    needs=("indistinguishable", "indistinguishable_sorting"),
    caption="Held-out accuracy does not find the model that gives the facts; the loss on one fact does.",
    claims=("T1",),
)
def indistinguishable(tables: Mapping[str, Table]) -> Figure:
    """Left: held-out accuracy of the two models of a pair. Right: how often the better one is the right one."""
    width = int(np.min(tables["indistinguishable"]["width"]))
    worlds, sortings = (
        where(tables[name], np.asarray(tables[name]["width"]) == width)
        for name in ("indistinguishable", "indistinguishable_sorting")
    )
    picture = style.new_figure(style.PAGE, 3.8)
    left, right = picture.subplots(1, 2)
    entries = _accuracies(left, worlds)
    entries += _sortings(right, sortings)
    count = len(worlds["pair"]) // len(np.unique(worlds["pair"]))
    text = (
        f"{indistinguishable.caption} Width {width}, {count} worlds, one point each; of a pair the first gives every "
        "fact, the second hallucinates. Bars: 95 % intervals (Wilson); a coin is right half of the time."
    )
    style.below(picture, text, entries, columns=3)
    return picture


def _accuracies(axes: Axes, worlds: Table) -> list:
    axes.set_label("held-out accuracy")
    entries = []
    for name in _COLORS:
        pair = where(worlds, worlds["pair"] == name)
        options = {"color": _COLORS[name], "marker": _MARKERS[name], "markersize": 4, "alpha": 0.8}
        drawn = style.points(axes, pair["accuracy_other"], pair["accuracy_recalling"], f"{name}, accuracy", **options)
        entries.append((drawn, name))
    every = np.concatenate([worlds["accuracy_other"], worlds["accuracy_recalling"]])
    room = 0.1 * (np.ptp(every) or 0.1)
    ends = np.array([every.min() - room, every.max() + room])
    entries.append((style.line(axes, ends, ends, "equal, accuracy", color=style.FAINT, linewidth=0.8), "equal, chance"))
    axes.set(
        xlabel="held-out accuracy of the one that hallucinates", ylabel="held-out accuracy of the one that recalls"
    )
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    return entries


def _sortings(axes: Axes, sortings: Table) -> list:
    axes.set_label("the better one recalls")
    style.size_axis(axes, [FACTS_ASKED[0], HELD_OUT[-1]], "questions asked", most=8, base=4)
    by_words = {}
    for by, dashes in _DASHES.items():
        for place, name in enumerate(_COLORS):
            rows = where(sortings, (sortings["by"] == by) & (sortings["pair"] == name))
            asked = rows["asked"] * np.exp2(_SIDESTEP * (place - 1))
            options = {"color": _COLORS[name], "linestyle": dashes, "marker": _MARKERS[name], "markersize": 3}
            drawn = style.line(axes, asked, rows["probability"], f"{name} by {by}, probability", **options)
            for end in ("low", "high"):
                style.points(axes, asked, rows[end], f"{name} by {by}, {end} end", color=_COLORS[name], marker="_")
            axes.vlines(asked, rows["low"], rows["high"], color=_COLORS[name], linewidth=0.7)
            by_words[by] = drawn
    style.horizontal(axes, 0.5, "a coin, probability", color=style.FAINT, linewidth=0.8)
    style.percent_axis(axes, "pairs in which the better one recalls")
    words = {ACCURACY: "sorted by held-out accuracy (lines)", LOSS: "sorted by loss on the facts (dotted)"}
    return [(by_words[by], words[by]) for by in _DASHES]

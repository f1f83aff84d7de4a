"""How much of a rule is forgotten when random strings are memorized: over parameters, and over facts."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table, where
from sims.experiments.forgetting_findings import MOMENTS, Setting
from sims.experiments.regularization_findings import UNHARMED_POINTS, points_over_seeds

_LOOKS = {"full": ("#B8405A", "o"), "LoRA": ("#14366F", "s"), "MoME": ("#2E8B57", "^")}
_DASHES = dict(zip(MOMENTS, ("solid", "dashed"), strict=True))


@measured(
    "experiment-forgetting",
    needs=("forgetting",),
    caption="How many points of its accuracy on a rule a network forgets while it memorizes random strings.",
)
def forgetting(tables: Mapping[str, Table]) -> Figure:
    """Left: over the parameters of the network. Right: over the number of facts."""
    table = {name: np.asarray(column) for name, column in tables["forgetting"].items()}
    usual, middle = _usual(table, "facts", "width"), _usual(table, "width", "facts")
    picture = style.new_figure(style.PAGE, 3.7)
    left, right = picture.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    entries = {}
    sides = ((left, "facts", usual, "parameters"), (right, "width", middle, "facts"))
    for axes, held, value, along in sides:
        axes.axhspan(-UNHARMED_POINTS, UNHARMED_POINTS, color=style.THEORY, alpha=0.12, linewidth=0)
        rows = where(table, table[held] == value)
        for moment in MOMENTS:
            for method in _LOOKS:
                runs = where(rows, (rows["moment"] == moment) & (rows["method"] == method))
                if len(runs["seed"]) and not (method == "MoME" and moment == "rule_after"):  # writes end when stored
                    _line(axes, runs, along, moment, method, entries)
    style.size_axis(left, where(table, table["facts"] == usual)["parameters"], f"parameters, {usual} facts", base=10)
    style.size_axis(right, where(table, table["width"] == middle)["facts"], f"facts, width {middle}")
    left.set(ylim=(-8, 104), ylabel="points of the rule forgotten")
    seeds = len(np.unique(table["seed"]))
    text = (
        f"{forgetting.caption} At the most sparing rate of each network. Small dots: each of {seeds} seeds; bars: "
        "Student's 95 % interval over them. Gray: the rule is as it was, to a point, as the paper claims of 8 billion "
        "parameters."
    )
    style.below(picture, text, [(drawn, words) for words, drawn in entries.items()], columns=2)
    return picture


def _usual(table: Table, name: str, over: str) -> int:
    """The value at which there are the most different ones of the other column; the least of such."""
    values = np.unique(table[name])
    return int(max(values, key=lambda value: (len(np.unique(table[over][table[name] == value])), -value)))


def _line(axes: Axes, runs: Table, along: str, moment: str, method: str, entries: dict) -> None:
    color, marker = _LOOKS[method]
    later = moment != next(iter(MOMENTS))
    name = f"{method}, {MOMENTS[moment].words}"
    sizes = np.unique(runs[along])
    found = [points_over_seeds(runs["forgotten"][runs[along] == size].tolist()) for size in sizes]
    mean = [one.mean for one in found]
    alpha = 0.45 if later else 1.0
    if not later:
        style.points(
            axes, runs[along], runs["forgotten"], f"{name}: a seed, points", color=color, marker=".", alpha=0.4
        )
        for size, one in zip(sizes, found, strict=True):
            if np.isfinite(one.low):
                ends = f"{name}: interval, points"
                style.line(axes, [size, size], one[1:], ends, color=color, linewidth=3, alpha=0.25)
    drawn = style.line(
        axes, sizes, mean, f"{name}: mean, points", color=color, marker=marker, markersize=4.5, alpha=alpha,
        linestyle=_DASHES[moment], linewidth=1.2, markerfacecolor="white" if later else color,
    )  # fmt: skip
    network = Setting(method, int(runs["rank"][0]), 0, 0).network
    entries[f"{network}, {MOMENTS[moment].words}"] = drawn

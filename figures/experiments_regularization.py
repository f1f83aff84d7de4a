"""Accuracy on an unrelated rule before and after random strings were memorized, beside what was stored."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table, where
from sims.experiments.finding import share_over_seeds
from sims.experiments.regularization_findings import FASTEST, SPARING, UNGATED, Cell

_WHICH = {FASTEST: ("#B8405A", -0.22), SPARING: ("#14366F", 0.0), UNGATED: ("#D0902A", 0.22)}


@measured(
    "experiment-regularization",
    needs=("regularization",),
    caption="How much of a rule that the network knew is left after it has memorized random strings, method by method.",
)
def regularization(tables: Mapping[str, Table]) -> Figure:
    """Left: accuracy on the rule, before and after. Right: facts stored. One row a method."""
    table = {name: np.asarray(column) for name, column in tables["regularization"].items()}
    cells = list(
        dict.fromkeys(Cell(*row) for row in zip(*(table[name].tolist() for name in Cell._fields), strict=True))
    )
    picture = style.new_figure(style.PAGE, 1.5 + 0.42 * len(cells))
    left, right = picture.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    left.set_label("accuracy on the rule")
    right.set_label("facts stored")
    entries = {}
    for which, (color, shift) in _WHICH.items():
        for place, cell in enumerate(cells):
            keep = table["which"] == which
            for name, value in cell._asdict().items():
                keep &= table[name] == value
            if keep.any():
                _row(left, right, where(table, keep), place + shift, which, color, entries)
    for axes, label in ((left, "held-out examples of the rule answered"), (right, "facts stored")):
        axes.set(xlim=(-0.03, 1.03), xlabel=label, ylim=(len(cells) - 0.5, -0.5))
        axes.set_xticks([0, 0.5, 1] if axes is right else [0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(axis="y", length=0)
    left.set_yticks(range(len(cells)), [cell.words for cell in cells])
    seeds = len(np.unique(table["seed"]))
    text = (
        f"{regularization.caption} Small dots: each of {seeds} seeds; pale bars: Student's 95 % interval over them. "
        "The most sparing rate is the one that forgets least among those that store everything."
    )
    style.below(
        picture,
        text,
        [(drawn, words) for words, drawn in entries.items()],
        columns=4 if UNGATED not in table["which"] else 2,
    )
    return picture


def _row(left: Axes, right: Axes, runs: Table, y: float, which: str, color: str, entries: dict) -> None:
    before, after, stored = (runs[name].astype(float) for name in ("rule_before", "rule_after", "stored"))
    mean, low, high = share_over_seeds(after)
    rows = np.full(len(after), y)
    if np.isfinite(low):
        style.line(left, [low, high], [y, y], f"{which}: interval after, share", color=color, linewidth=3.0, alpha=0.25)
    style.line(left, [before.mean(), mean], [y, y], f"{which}: lost, share", color=color, linewidth=0.8)
    style.points(left, after, rows, f"{which}: after, a seed, share", color=color, marker="o", markersize=2.5)
    known = {"color": style.INK, "marker": "|", "markersize": 8}
    entries["before"] = style.points(left, [before.mean()], [y], f"{which}: before, share", **known)
    drawn = style.points(left, [mean], [y], f"{which}: after, share", color=color, marker="o", markersize=5.5)
    entries[f"after, at {which}"] = drawn
    style.points(right, stored, rows, f"{which}: facts stored, share", color=color, marker="s", markersize=4)

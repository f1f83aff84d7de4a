"""Printed costs over recomputed ones, from the stored experiment."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table, rows, where


@measured(
    "experiment-cost",
    needs=("cost",),
    caption="The published cost of training until nothing is hallucinated, printed over recomputed.",
    claims=("T26",),
)
def cost(tables: Mapping[str, Table]) -> Figure:
    """One row a number: 1 where the printed number comes out, red where it does not."""
    table = where(tables["cost"], np.argsort(-tables["cost"]["ratio"], kind="stable"))
    picture = style.new_figure(style.PAGE, 1.3 + 0.3 * rows(table))
    axes = picture.subplots()
    axes.set_label("printed over recomputed")
    axes.set_xscale("log")
    axes.set(xlim=(5e-4, 20), ylim=(rows(table) - 0.5, -0.5), xlabel="printed / recomputed")
    style.vertical(axes, 1.0, "equal, ratio", color=style.FAINT, linewidth=0.8)
    for place, what in enumerate(table["what"]):
        ratio = table["ratio"][place]
        color = style.INK if abs(ratio - 1) <= table["tolerance"][place] else style.ALARM
        if "at_least" in table and np.isfinite(table["at_least"][place]):
            ends = table["printed"][place] / np.array([table["at_most"][place], table["at_least"][place]])
            style.line(axes, ends, [place, place], f"{what}, over 35 to 55 % of the peak, ratio", color=color)
        style.points(axes, [ratio], [place], f"{what}, ratio", color=color, marker="o")
        text = f"{ratio:.2f}" if ratio > 0.1 else f"1 / {1 / ratio:,.0f}"
        axes.annotate(text, (ratio, place), (0, 6), textcoords="offset points", fontsize=7, color=color, ha="center")
    axes.set_yticks(range(rows(table)), list(table["what"]))
    axes.tick_params(axis="y", length=0)
    style.below(picture, f"{cost.caption} 400 billion parameters, 100 epochs (arXiv 2406.17642, section 6).")
    return picture

"""Training curves: loss against exposures, from data sets that fit to data sets that do not."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.registry import figure
from figures.runs import of_main_runs, spread
from figures.tables import Table, column, rows, where
from theory.rounding import LN2

_MOST_CURVES = 8


@figure(
    "training-curve",
    needs={"curves": ("size", "exposure", "loss_nats")},
    caption="Loss falls to zero with exposures if the facts fit, and to a floor if they do not.",
    claims=("T7",),
)
def training_curve(tables: Mapping[str, Table]) -> Figure:
    """One curve for each size (median over runs), for the largest width."""
    table = of_main_runs(tables, "curves")
    table = where(table, np.isfinite(table["loss_nats"].astype(float)) & (table["exposure"].astype(float) > 0))
    if not rows(table):
        return style.nothing("no curve in the table has a finite loss")
    width = column(table, "width", of="curves").astype(float)
    table = where(table, width == width.max())
    picture = style.new_figure(style.COLUMN + 1.0, 3.3)
    axes = picture.subplots()
    axes.set_label("training curves")
    shown = spread(np.unique(table["size"]), _MOST_CURVES)
    entries = []
    for place, size in enumerate(shown):
        shade = mpl.colormaps["cividis"](0.85 * place / max(1, len(shown) - 1))
        entries.append(
            (_curve(axes, where(table, table["size"] == size), f"{size:,.0f} facts", shade), f"{size:,.0f} facts")
        )
    style.size_axis(axes, table["exposure"].astype(float), "exposures of each fact", most=6)
    style.horizontal(axes, LN2, "ln 2, nats", color=style.FAINT, linewidth=0.7, zorder=0)
    axes.annotate("ln 2", (0, LN2), (2, 2), ("axes fraction", "data"), "offset points", fontsize=7, color=style.FAINT)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("training loss of a fact (nats)")
    of_width = f" Networks of width {width.max():g}." if width.max() > 1 else ""
    style.below(
        picture,
        f"{training_curve.caption}{of_width} Median of runs, at each size's best learning rate.",
        entries,
        columns=4,
    )
    return picture


def _curve(axes: Axes, table: Table, label: str, color) -> Line2D:
    exposure, loss = (table[name].astype(float) for name in ("exposure", "loss_nats"))
    at = np.unique(exposure)
    median = np.array([np.median(loss[exposure == one]) for one in at])
    marker = "o" if len(at) < 3 else ""
    return style.line(axes, at, median, f"{label}, median of runs, nats", color=color, marker=marker)

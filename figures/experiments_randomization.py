"""Loss curves of true and of random answers, method by method, and what lies between them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from figures import style
from figures.experiments import measured
from figures.tables import Table, where
from sims.experiments.randomization_findings import MARGIN_NATS, RANDOM, TRUE
from sims.experiments.regularization_findings import Cell

_COLORS, _DASHES = {TRUE: "#14366F", RANDOM: "#B8405A"}, {TRUE: "-", RANDOM: "--"}
_LEAST_NATS = 1e-4
_METHODS = ("full", "LoRA", "MoME")


@measured(
    "experiment-randomization",
    needs=("randomization", "randomization_differences"),
    caption="A pretrained network is taught true answers, or random ones in their place.",
    claims=("T1",),
)
def randomization(tables: Mapping[str, Table]) -> Figure:
    """Above: loss of both kinds of answers against epochs, a panel a method. Below: the difference with its band."""
    curves, differences = tables["randomization"], tables["randomization_differences"]
    cells = _drawn(curves)
    picture = style.new_figure(style.PAGE, 4.9)
    grid = picture.subplots(2, len(cells), sharex="col", sharey="row", squeeze=False, height_ratios=(3, 2))
    entries = {}
    for (above, below), cell in zip(grid.T, cells, strict=True):
        above.set_title(_words(cell), fontsize=8)
        others = [other for other in _cells(curves) if other.method == cell.method and other != cell]
        entries |= _curves(above, curves, cell, others)
        entries |= _difference(below, differences, cell)
        below.set_xlabel("epochs")
    grid[0, 0].set_ylim(max(_LEAST_NATS, 0.5 * float(np.min(curves["low"]))), None)
    grid[0, 0].set_ylabel("loss, nats a token")
    grid[1, 0].set_ylabel("random less true")
    text = (
        f"{randomization.caption} Mean of a token's loss; bands above are extremes over seeds, below 95 % for all "
        "epochs at once, over runs and questions; gray: within a tenth of ln 2."
    )
    style.below(picture, text, [(drawn, words) for words, drawn in entries.items()], columns=3)
    return picture


def _cells(table: Table) -> list[Cell]:
    columns = zip(*(table[name].tolist() for name in Cell._fields), strict=True)
    return list(dict.fromkeys(Cell(*row) for row in columns))


def _drawn(curves: Table) -> list[Cell]:
    """Of each method the optimizer that learns fastest, by the sum of its losses over epochs and both kinds."""
    chosen = []
    for method in _METHODS:
        of_method = [cell for cell in _cells(curves) if cell.method == method]
        if of_method:
            chosen.append(min(of_method, key=lambda cell: _of(curves, cell)["middle"].sum()))
    return chosen


def _of(table: Table, cell: Cell) -> Table:
    keep = np.all([np.asarray(table[name]) == getattr(cell, name) for name in Cell._fields], axis=0)
    return where(table, keep)


def _words(cell: Cell) -> str:
    return cell.words.removesuffix(f", width {cell.width}")


def _curves(axes: Axes, curves: Table, cell: Cell, others: list[Cell]) -> dict:
    axes.set_label(f"loss, {_words(cell)}")
    axes.set_yscale("log")
    entries, faint = {}, {}
    for other in others:
        rows = _of(curves, other)
        rows = where(rows, rows["answers"] == RANDOM)
        name = f"{other.words}, {RANDOM} answers, nats"
        faint["random answers, other optimizers"] = style.line(
            axes, rows["epoch"], _shown(rows["middle"]), name, color=style.FAINT, linewidth=0.6
        )
    for answers, color in _COLORS.items():
        rows = _of(curves, cell)
        rows = where(rows, rows["answers"] == answers)
        name = f"{cell.words}, {answers} answers, nats"
        low, high = _shown(rows["low"]), _shown(rows["high"])
        style.band(axes, rows["epoch"], low, high, f"{name}, extremes", color=color, alpha=0.2)
        drawn = style.line(axes, rows["epoch"], _shown(rows["middle"]), name, color=color, linestyle=_DASHES[answers])
        entries[f"{answers} answers"] = drawn
    threshold = style.horizontal(axes, np.log(2), "ln 2, nats", color=style.THEORY, linestyle=":", linewidth=0.8)
    return {**entries, **faint, "ln 2": threshold}


def _difference(axes: Axes, differences: Table, cell: Cell) -> dict:
    axes.set_label(f"difference, {_words(cell)}")
    rows = _of(differences, cell)
    ends = [rows["epoch"].min(), rows["epoch"].max()]
    style.band(axes, ends, [-MARGIN_NATS] * 2, [MARGIN_NATS] * 2, "margin, nats", color="#DDDDDD", zorder=0)
    name = f"{cell.words}, random less true, nats"
    style.band(axes, rows["epoch"], rows["low"], rows["high"], f"{name}, band", color="#2E8B57", alpha=0.25)
    drawn = style.line(axes, rows["epoch"], rows["middle"], name, color="#2E8B57")
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.8)
    axes.yaxis.set_major_locator(FixedLocator([-10, -1, -0.1, 0, 0.1, 1, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return {"random less true": drawn}


def _shown(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, _LEAST_NATS)

"""What clearing the mind of hallucinations costs: the printed numbers beside the recomputed ones."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory.claims import Record, get


@picture(
    "cost",
    caption="The published cost of training until nothing is hallucinated, printed and recomputed.",
    claims=("T26",),
)
def cost_table() -> Figure:
    """One row a number: what is printed, what comes out, and their ratio on a logarithmic axis."""
    claim = get("T26")
    assert isinstance(claim, Record)
    rows = list(claim.published())
    drawn = style.new_figure(style.PAGE, 1.2 + 0.3 * len(rows))
    axes, table = drawn.subplots(1, 2, width_ratios=(1.1, 1), sharey=True)
    table.axis("off")
    axes.set_label("printed over recomputed")
    axes.set_xscale("log")
    axes.set(xlim=(5e-4, 20), ylim=(len(rows) - 0.5, -0.6), xlabel="printed / recomputed")
    style.vertical(axes, 1.0, "equal", color=style.FAINT, linewidth=0.8)
    _row(table, -0.8, ("printed", "recomputed", "ratio"), color=style.FAINT)
    for place, row in enumerate(rows):
        color = COLORS[1] if row.agrees else style.ALARM
        style.points(axes, [row.ratio], [place], row.what, color=color, marker="o", markersize=6)
        ratio = f"{row.ratio:.2f}" if row.agrees else f"1 / {1 / row.ratio:,.0f}"
        _row(
            table,
            place,
            (_number(row.printed), _number(row.recomputed), ratio),
            color=style.INK if row.agrees else color,
        )
    axes.set_yticks(range(len(rows)), [row.what for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    caption = (
        "100 epochs over the compute-optimal data of a model with 400 billion parameters (arXiv 2406.17642). The "
        "operations printed there are too few by the factor shown; days, power and price of the same paragraph agree "
        "with the recomputed number to within a fifth."
    )
    style.below(drawn, caption)
    return drawn


def _row(axes: Axes, place: float, words: tuple[str, str, str], color: str) -> None:
    for column, text in enumerate(words):
        axes.text(
            (0.3, 0.72, 1.0)[column],
            place,
            text,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            color=color,
        )


def _number(value: float) -> str:
    if value < 1e6:
        return f"{value:,.0f}"
    power = math.floor(math.log10(value))
    return rf"${value / 10**power:.2f}\times 10^{{{power}}}$"

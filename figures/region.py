"""The feasible region: which pairs of loss and hallucination a network can have, and where trained ones are."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import style
from figures.registry import figure
from figures.runs import complete, finished
from figures.tables import Table, rows
from sims.summary import outside_region
from theory import decoding
from theory.rounding import LN2

_REGION = "#E6EBF2"


@figure(
    "feasible-region",
    needs={"runs": ("size", "answers", "loss_nats", "hallucination_greedy", "hallucination_sampled")},
    caption="Every trained network lies in the region of loss and hallucination that theory allows.",
    claims=("T1", "T2", "T3", "T6"),
)
def feasible_region(tables: Mapping[str, Table]) -> Figure:
    """Left greedy decoding, right sampling; the region of many facts, every run in it, runs outside marked in red."""
    runs = finished(complete(tables["runs"]))
    if not rows(runs):
        return style.nothing("every run in the table diverged")
    picture = style.new_figure(style.PAGE, 3.9)
    greedy, sampled = picture.subplots(1, 2, sharey=True)
    loss = runs["loss_nats"].astype(float)
    guesses = _guesses(runs)
    right = 1.06 * float(np.max(np.concatenate([loss, guesses, [2 * LN2]])))
    curve = np.concatenate([np.linspace(0, LN2, 65), np.linspace(LN2, right, 128)])
    for axes, words, bounds in (
        (greedy, "greedy decoding", decoding.greedy_error_rates(curve, answers=2**52)),
        (sampled, "sampling", decoding.sampled_error_rates(curve)),
    ):
        axes.set_label(words)
        style.band(axes, curve, *bounds, f"region of {words} for many facts, share", color=_REGION, zorder=0)
        style.line(axes, curve, bounds[1], f"most wrong with {words}, share", color=style.THEORY, linewidth=1.1)
        for guess in guesses:
            style.vertical(axes, guess, "loss of a guess, nats", color=style.FAINT, linewidth=0.7)
        axes.set_xlim(-0.015 * right, right)
        axes.set_xlabel("loss of a fact (nats)")
        style.percent_axis(axes, "")
    greedy.set_ylabel("facts decoded wrong")
    outside = _runs(greedy, runs, "hallucination_greedy") + _runs(sampled, runs, "hallucination_sampled")
    _explain(greedy, sampled, guesses)
    others = rows(tables["runs"]) - rows(runs)
    style.below(picture, _caption(rows(runs), others, outside), _legend(runs, outside), columns=5)
    return picture


def _guesses(runs: Table) -> np.ndarray:
    """Loss of a guess, nats: the entropy of an answer, once for each number of answers and of tokens."""
    kinds = np.stack([runs["answers"], np.round(runs["tokens_per_answer"])])
    bits = runs["label_bits"] / runs["size"]
    return np.array([LN2 * np.median(bits[(kind == kinds.T).all(axis=1)]) for kind in np.unique(kinds, axis=1).T])


def _runs(axes: Axes, runs: Table, column: str) -> int:
    loss, rate, width = (runs[name].astype(float) for name in ("loss_nats", column, "width"))
    for one in np.unique(width):
        at = width == one
        style.points(
            axes, loss[at], rate[at], f"runs, {style.name_of(one)}, share", color=style.color_of(one),
            marker=style.marker_of(one), markersize=3.2, markeredgecolor="white", markeredgewidth=0.3, alpha=0.8,
            clip_on=False, zorder=3,
        )  # fmt: skip
    outside = outside_region(runs, column)
    if outside.any():
        style.points(
            axes, loss[outside], rate[outside], "runs outside, share", color=style.ALARM, marker="o", markersize=8,
            markerfacecolor="none", markeredgewidth=1.5, clip_on=False, zorder=4,
        )  # fmt: skip
    return int(outside.sum())


def _explain(greedy: Axes, sampled: Axes, guesses: np.ndarray) -> None:
    for axes, name in ((greedy, "Greedy decoding"), (sampled, "Sampling")):
        axes.annotate(name, (0, 1), (0, 6), "axes fraction", "offset points", fontweight="bold")
    at_most = {"textcoords": "offset points", "fontsize": 7.5, "va": "top", "color": style.INK}
    greedy.annotate(r"at most $L\,/\ln 2$ are wrong", (LN2, 1), (4, -5), **at_most)
    sampled.annotate("at most\n$1 - e^{-L}$\nare wrong", (0, 1), (4, 0), **at_most)
    if len(guesses) == 1:
        for axes in (greedy, sampled):
            axes.annotate(
                f"guessing: {guesses[0]:.2f} nats", (guesses[0], 0.3), (-2, 0), textcoords="offset points", rotation=90,
                ha="right", va="bottom", fontsize=7, color=style.FAINT,
            )  # fmt: skip


def _legend(runs: Table, outside: int) -> list:
    entries: list = [(Patch(color=_REGION, linewidth=0), "possible (T2, T3; many facts)")]
    for one in np.unique(runs["width"].astype(float)):
        mark = Line2D([], [], color=style.color_of(one), marker=style.marker_of(one), linestyle="none")
        entries.append((mark, style.name_of(one)))
    if outside:
        mark = Line2D([], [], color=style.ALARM, marker="o", markersize=8, markerfacecolor="none", linestyle="none")
        entries.append((mark, "outside"))
    return entries


def _caption(drawn: int, diverged: int, outside: int) -> str:
    verdict = "none lies" if not outside else f"{outside} of the points lie"
    text = (
        f"Each point is one of {drawn:,} trained networks; {verdict} outside of the region that theory allows for its "
        "number of facts. For every point of the region there is a network (T6): training chooses where in it to land."
    )
    return text + (f" Not drawn because diverged: {diverged:,}." if diverged else "")

"""Losses of single facts, key facts against the rest, for every way to train and to tune."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table, where
from sims.experiments.memory_tuning_findings import COMPUTE_OPTIMAL, MODELS

_PARTS = {"key": ("key facts", "#B8405A", "-"), "rest": ("the rest, held out", "#4BA3DD", "--")}
_LEAST_NATS, _MOST_NATS = 1e-3, 60.0
_SHARES = np.linspace(0.005, 0.995, 100)


@measured(
    "experiment-memory-tuning",
    needs=("memory_tuning",),
    caption="Memory tuning brings key facts to near zero loss; what it does to the rest depends on where it writes.",
    claims=("T1",),
)
def memory_tuning(tables: Mapping[str, Table]) -> Figure:
    """One panel a model: the share of facts with at most so much loss."""
    losses = {name: np.asarray(column) for name, column in tables["memory_tuning"].items()}
    widths = np.unique(losses["width"])
    width = widths[len(widths) // 2]
    losses = where(losses, losses["width"] == width)
    models = [model for model in MODELS if np.any(losses["model"] == model)]
    picture = style.new_figure(style.PAGE, 0.9 + 1.45 * -(-len(models) // 3))
    grid = picture.subplots(-(-len(models) // 3), 3, sharex=True, sharey=True, squeeze=False).flat
    entries = {}
    for axes, model in zip(grid, models, strict=False):
        axes.set_label(model)
        axes.set_title(model, fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(_LEAST_NATS, _MOST_NATS)
        style.percent_axis(axes, "")
        style.vertical(axes, np.log(2), "ln 2, nats", color=style.FAINT, linewidth=0.7)
        if model != COMPUTE_OPTIMAL:
            words, optimal = "the rest under compute-optimal", _quantiles(losses, COMPUTE_OPTIMAL, "rest")
            entries[words] = style.line(axes, optimal, _SHARES, f"{words}, share", color=style.FAINT, linewidth=0.8)
        for part, (words, color, dashes) in _PARTS.items():
            found = _quantiles(losses, model, part)
            entries[words] = style.line(axes, found, _SHARES, f"{words}, share", color=color, linestyle=dashes)
    for axes in picture.axes[-3:]:
        axes.set_xlabel("loss of a fact, nats")
    for axes in picture.axes[::3]:
        axes.set_ylabel("facts with at most\nthis loss", fontsize=7)
    seeds = len(np.unique(losses["seed"]))
    text = f"{memory_tuning.caption} Width {width}, {seeds} seeds together; the vertical line is ln 2."
    style.below(picture, text, [(drawn, words) for words, drawn in entries.items()], columns=3)
    return picture


def _quantiles(losses: Table, model: str, part: str) -> np.ndarray:
    values = losses["loss_nats"][(losses["model"] == model) & (losses["part"] == part)]
    return np.maximum(np.quantile(values, _SHARES), _LEAST_NATS)

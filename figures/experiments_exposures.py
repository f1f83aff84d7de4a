"""Passes until everything is stored, against load; the exposure law; T13 beside a training curve."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table, rows, where
from sims.experiments.exposures_findings import ABOUT_100, flow_curve
from theory.capacity import published_bits_per_parameter

_COLORS = {"adam": "#14366F", "sgd": "#D0902A", "adafactor": "#B8405A"}
_MARKERS = {"adam": "o", "sgd": "^", "adafactor": "s"}


@measured(
    "experiment-exposures",
    needs=("exposures", "exposure_curves"),
    caption="How many passes bring every fact under ln 2 depends on how full the network is.",
    claims=("T13", "T12"),
)
def exposures(tables: Mapping[str, Table]) -> Figure:
    """Left: passes until all is stored. Middle: bits after so many exposures. Right: T13."""
    picture = style.new_figure(style.PAGE, 3.4)
    left, middle, right = picture.subplots(1, 3)
    entries = [*_passes(left, tables["exposures"]), *_law(middle, tables["exposures"])]
    entries += _curves(right, tables["exposures"], tables["exposure_curves"])
    text = f"{exposures.caption} One point a seed at the best learning rate; gray: within a factor of two of 100."
    style.below(picture, text, entries, columns=4)
    return picture


def _passes(axes: Axes, runs: Table) -> list:
    axes.set_label("passes until stored")
    entries = []
    asked = where(runs, runs["until_stored"].astype(bool) & (runs["network"] == "mlp"))
    style.band(axes, [0, 4], [ABOUT_100[0]] * 2, [ABOUT_100[1]] * 2, "about 100, passes", color="#DDDDDD", zorder=0)
    axes.set(xlabel="answer bits per parameter", ylabel="passes until every fact is under ln 2", xlim=(0, 2.1))
    axes.set_yscale("log")
    if not rows(asked):
        return entries
    usual = _most_frequent(asked["minibatch"])
    asked = where(asked, asked["minibatch"] == usual)
    for optimizer in np.unique(asked["optimizer"]):
        points = []
        for width in np.unique(asked["width"]):
            same = where(asked, (asked["optimizer"] == optimizer) & (asked["width"] == width))
            points += [_fastest(where(same, same["size"] == size)) for size in np.unique(same["size"])]
        load, passes = (np.concatenate(part) for part in zip(*points, strict=True))
        color, marker = _COLORS[optimizer], _MARKERS[optimizer]
        name = f"{optimizer}, passes"
        entries.append((style.points(axes, load, passes, name, color=color, marker=marker, markersize=4), optimizer))
    return entries


def _fastest(runs: Table) -> tuple[np.ndarray, np.ndarray]:
    """(bits per parameter, passes) of each seed at the rate that stores everything in the fewest passes."""
    best, found = np.inf, (np.empty(0), np.empty(0))
    for rate in np.unique(runs["learning_rate"]):
        same = where(runs, runs["learning_rate"] == rate)
        if np.all(same["stored_rate"].astype(float) == 1.0) and same["exposures_used"].mean() < best:
            best = same["exposures_used"].mean()
            found = same["size"] * np.log2(same["answers"]) / same["parameters"], same["exposures_used"]
    return found


def _law(axes: Axes, runs: Table) -> list:
    axes.set_label("bits after exposures")
    fine = np.geomspace(1, 1000, 60)
    law = style.line(axes, fine, published_bits_per_parameter(fine), "published law, bits", color=style.THEORY)
    axes.set(xlabel="exposures of each fact", ylabel="bits per parameter", xscale="log")
    kept = where(runs, (runs["network"] == "mlp") & ~runs["until_stored"].astype(bool))
    if not rows(kept):
        return [(law, "published exposure law (T12)")]
    kept = where(kept, kept["size"] == kept["size"].max())
    points = []
    for count in np.unique(kept["exposures"]):
        same = where(kept, kept["exposures"] == count)
        bits = same["bits_per_parameter"].astype(float)
        rates = np.unique(same["learning_rate"])
        best = max(rates, key=lambda rate: np.nanmean(bits[same["learning_rate"] == rate]))
        points += [(count, bit) for bit in bits[same["learning_rate"] == best]]
    x, y = np.array(points).T
    width = kept["width"][0]
    drawn = style.points(axes, x, y, "MLP, bits", color=style.color_of(width), marker="D", markersize=4)
    return [(law, "published exposure law (T12)"), (drawn, f"MLP, {kept['size'][0]:,} facts")]


def _curves(axes: Axes, runs: Table, curves: Table) -> list:
    axes.set_label("training curve")
    axes.set(xlabel="exposures of each fact", ylabel="loss, nats", xscale="log", yscale="log")
    entries = []
    for row in np.flatnonzero((runs["network"] == "linear") & (runs["status"] == "finished")):
        curve = where(curves, curves["run"] == runs["fingerprint"][row])
        rate = runs["learning_rate"][row] * runs["inputs"][row] / runs["size"][row]
        theory = flow_curve(curve["exposure"], int(runs["answers"][row]), rate)
        seed = runs["seed"][row]
        drawn = style.line(axes, curve["exposure"], curve["loss_nats"], f"linear, seed {seed}, nats", color="#2E8B57")
        flow = style.line(axes, curve["exposure"], theory, f"T13, seed {seed}, nats", color=style.THEORY, linestyle=":")
        entries = [(drawn, "linear network"), (flow, "T13")]
    style.horizontal(axes, np.log(2), "ln 2, nats", color=style.FAINT, linewidth=0.7)
    return entries


def _most_frequent(values: np.ndarray):
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]

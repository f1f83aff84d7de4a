"""Questions without an answer in the data: error against its floors, miscalibration, gates against q = 2^-(B/n)."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table

_ERROR, _CONFIDENCE, _GATE = "#B8405A", "#D0902A", "#14366F"


@measured(
    "experiment-unseen",
    needs=("learners", "gates"),
    caption="What a trained network gets wrong about what its data do not say.",
    claims=("T17", "T18", "T20", "F3"),
)
def unseen(tables: Mapping[str, Table]) -> Figure:
    """Left: error, its floor, miscalibration against exposures. Right: bits a gate spends and needs."""
    picture = style.new_figure(style.PAGE, 3.4)
    left, right = picture.subplots(1, 2)
    entries = [*_learners(left, tables["learners"]), *_gates(right, tables["gates"])]
    text = f"{unseen.caption} One point a seed (left) and a format (right); a gate below the line would break F3."
    style.below(picture, text, entries, columns=3)
    return picture


def _learners(axes: Axes, table: Table) -> list:
    axes.set_label("learners")
    order = np.argsort(table["exposures"], kind="stable")
    exposures = table["exposures"][order]
    entries = []
    for name, words, color, marker in (
        ("error_greedy", "error", _ERROR, "o"),
        ("overconfidence", "miscalibration", _CONFIDENCE, "s"),
    ):
        x = table[name][order].astype(float)
        entries.append((style.points(axes, exposures, x, f"{words}, share", color=color, marker=marker), words))
    floor = float(np.mean(table["memorizer_error"].astype(float)))
    singletons = float(np.mean(table["singleton_share"].astype(float)))
    entries.append((style.horizontal(axes, floor, "best learner, share", color=style.THEORY), "best learner (T18b)"))
    drawn = style.horizontal(axes, singletons, "singletons, share", color=style.FAINT, linestyle=":")
    entries.append((drawn, "singletons"))
    axes.set(xscale="log", xlabel="exposures of each sample", ylabel="share of questions asked", ylim=(-0.02, None))
    return entries


def _gates(axes: Axes, table: Table) -> list:
    axes.set_label("gates")
    names = sorted(name.removeprefix("spent_") for name in table if name.startswith("spent_"))
    spent, needed = (
        np.concatenate([table[f"{kind}_{name}"].astype(float) for name in names]) for kind in ("spent", "needed")
    )
    drawn = style.points(axes, needed, spent, "gate, bits a key", color=_GATE, marker="D", markersize=4)
    ends = np.array([np.minimum(needed, spent).min(), max(needed.max(), spent.max())]) * [0.8, 1.2]
    bound = style.line(axes, ends, ends, "spent = needed, bits a key", color=style.THEORY)
    axes.set(xscale="log", yscale="log", xlabel="bits a key needed for its rejections", ylabel="bits a key spent")
    return [(drawn, "rounded gate"), (bound, "no gate below (F3)")]

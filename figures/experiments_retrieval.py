"""The same facts in an index, a table and memory experts: what is found, what is invented, what it weighs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.experiments import measured
from figures.tables import Table

_SHARES = (
    ("paraphrase_guessed", "asked in other words: right if never rejected", "#777777"),
    ("paraphrase_right", "asked in other words: right", "#2E8B57"),
    ("paraphrase_wrong", "asked in other words: wrong", "#B8405A"),
    ("answered_unknown", "subject not stored: answered", "#D0902A"),
    ("answered_near", "fact not stored: answered", "#7A3E9D"),
)


@measured(
    "experiment-retrieval",
    needs=("retrieval",),
    caption="What each way to look facts up finds when they are asked in other words, and what it invents.",
    claims=("T20",),
)
def retrieval(tables: Mapping[str, Table]) -> Figure:
    """Left: shares of questions, one row a method. Right: bytes of a fact."""
    table = tables["retrieval"]
    methods = list(dict.fromkeys(sorted(table["method"], key=lambda name: (name.startswith("MoME"), name))))
    picture = style.new_figure(style.PAGE, 1.6 + 0.45 * len(methods))
    left, right = picture.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    left.set_label("shares of questions")
    right.set_label("bytes a fact")
    entries = []
    for shift, (name, words, color) in zip((-0.3, -0.15, 0.0, 0.15, 0.3), _SHARES, strict=True):
        x, y = _over(table, methods, name)
        drawn = style.points(left, x, y + shift, f"{words}, share", color=color, marker="o", markersize=5)
        entries.append((drawn, words))
    x, y = _over(table, methods, "bytes_per_fact")
    style.points(right, x, y, "bytes of a fact, bytes", color=style.INK, marker="s", markersize=5)
    left.set(xlim=(-0.03, 1.03), xlabel="share of questions", ylim=(len(methods) - 0.5, -0.5))
    right.set(xscale="log", xlabel="bytes of a fact")
    left.set_yticks(range(len(methods)), methods)
    left.tick_params(axis="y", length=0)
    text = f"{retrieval.caption} One point a seed."
    style.below(picture, text, entries, columns=2)
    return picture


def _over(table: Table, methods: list[str], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(values of a column, row of its method in the picture)."""
    return table[name].astype(float), np.array([methods.index(method) for method in table["method"]], float)

"""What a loss means for the next token: the distributions of one network at high, middling and zero loss."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import style
from figures.registry import figure
from figures.runs import of_main_runs
from figures.tables import Table, column, rows, where

_MOST_TOKENS = 32
_WRONG = "#A9B4C2"


@figure(
    "next-token",
    needs={"next_token": ("run", "size", "loss_nats", "fact", "label", "token", "probability")},
    caption="The next-token distribution of a trained network at high, middling and zero loss.",
    claims=("T1",),
)
def next_token(tables: Mapping[str, Table]) -> Figure:
    """Up to three panels: the same question, asked of runs with a high, a middling and the least loss."""
    table = of_main_runs(tables, "next_token", same_seed=True)
    table = where(table, np.isfinite(table["loss_nats"].astype(float)))
    if not rows(table):
        return style.nothing("no run in the table finished")
    table = _widest(table)
    runs = _high_middling_low(table)
    picture = style.new_figure(max(style.COLUMN, 2.333 * len(runs)), 2.9)
    fact = _shared_fact(runs)
    for axes, run in zip(np.atleast_1d(picture.subplots(1, len(runs), sharey=True)), runs, strict=False):
        _panel(axes, run, fact)
    first = picture.axes[0]
    style.percent_axis(first, "probability of the token")
    first.annotate(
        "above one half: greedy is right", (1, 0.5), (0, -2), ("axes fraction", "data"), "offset points",
        ha="right", va="top", fontsize=7, color=style.FAINT,
    )  # fmt: skip
    widths = np.unique(column(table, "width", of="next_token"))
    color = style.color_of(float(widths[0]))
    entries = [
        (Patch(color=color), "the right token"),
        (Patch(color=_WRONG), "wrong tokens"),
        (Line2D([], [], color=style.FAINT, linewidth=0.7, alpha=0.6), "the other facts shown to the run"),
    ]
    style.below(
        picture,
        _caption(widths, fact, [float(run["loss_nats"][0]) for run in runs]),
        entries,
        columns=3 if len(runs) > 1 else 1,
    )
    return picture


def _widest(table: Table) -> dict[str, np.ndarray]:
    width = column(table, "width", of="next_token").astype(float)
    return where(table, width == width.max())


def _high_middling_low(table: Table) -> list[dict[str, np.ndarray]]:
    """The runs with the largest loss, with the one nearest to half of it, and with the least."""
    run, loss = table["run"].astype(str), table["loss_nats"].astype(float)
    names, first = np.unique(run, return_index=True)
    losses = loss[first]
    wanted = (losses.max(), (losses.max() + losses.min()) / 2, losses.min())
    chosen = dict.fromkeys(int(np.argmin(np.abs(losses - one))) for one in wanted)
    return [where(table, run == names[one]) for one in chosen]


def _shared_fact(runs: list[dict[str, np.ndarray]]) -> float:
    """The fact, known to every run, whose loss is most typical: least far from the run's mean, over all runs."""
    common = set.intersection(*({float(one) for one in run["fact"]} for run in runs))
    if not common:
        return np.nan

    def far(fact: float) -> float:
        return sum(abs(_loss(run, fact) - float(run["loss_nats"][0])) for run in runs)

    return min(sorted(common), key=far)


def _loss(run: Table, fact: float) -> float:
    right = (run["fact"] == fact) & (run["token"] == run["label"])
    return float(-np.log(np.maximum(run["probability"][right], 1e-12)).sum())


def _panel(axes: Axes, run: Table, fact: float) -> None:
    axes.set_label(f"{run['size'][0]:,.0f} facts")
    color = style.color_of(float(column(run, "width", of="next_token")[0]))
    fact = fact if np.isfinite(fact) else float(run["fact"][0])
    for other in np.unique(run["fact"]):
        if other != fact:
            falling = np.sort(run["probability"][run["fact"] == other])[::-1][:_MOST_TOKENS]
            style.line(
                axes, 1 + np.arange(len(falling)), falling, f"fact {other:g}, probability, tokens by rank",
                color=style.FAINT, linewidth=0.7, alpha=0.6, zorder=3,
            )  # fmt: skip
    here = where(run, run["fact"] == fact)
    order = np.argsort(-here["probability"], kind="stable")
    probability, right = here["probability"][order], (here["token"] == here["label"])[order]
    rank = 1 + np.arange(len(order))
    shown = rank <= _MOST_TOKENS
    style.bars(
        axes, rank[shown & ~right], probability[shown & ~right], f"fact {fact:g}, wrong tokens by rank", color=_WRONG
    )
    style.bars(
        axes, rank[shown & right], probability[shown & right], f"fact {fact:g}, right token by rank", color=color
    )
    style.horizontal(axes, 0.5, "one half", color=style.FAINT, linewidth=0.7, zorder=0)
    axes.set_xlabel("tokens, most probable first")
    axes.set_xlim(0.2, min(len(order), _MOST_TOKENS) + 0.8)
    axes.annotate(
        f"{run['size'][0]:,.0f} facts: loss {_nats(float(run['loss_nats'][0]))}", (0, 1), (0, 6), "axes fraction",
        "offset points", fontweight="bold",
    )  # fmt: skip
    axes.annotate(
        _verdict(rank, probability, right), (0.97, 0.9), xycoords="axes fraction", ha="right", va="top", fontsize=7.5
    )


def _nats(loss: float) -> str:
    return f"{loss:.2f} nats" if loss >= 0.005 else "under 0.005 nats"


def _share(share: float) -> str:
    """A share in percent that calls nothing 0 or 100 % which is not."""
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return "over 99.9 %" if 0.9995 < share < 1 else f"{100 * share:.1f} %"


def _verdict(rank: np.ndarray, probability: np.ndarray, right: np.ndarray) -> str:
    if not right.any():
        return "the right token\nis not in the table"
    share, place = float(probability[right][0]), int(rank[right][0])
    unique = place == 1 and (len(probability) == 1 or probability[1] < share)
    greedy = "greedy decoding: right" if unique else f"greedy decoding: wrong,\nthe right one is number {place}"
    return f"right token: {_share(share)}\n{greedy}\nsampling: wrong {_share(1 - share)}"


def _caption(widths: np.ndarray, fact: float, losses: list[float]) -> str:
    width = f" of width {widths[0]:g}" if widths[0] > 1 else ""
    same = "The same question" if np.isfinite(fact) else "A question"
    text = f"{same}, asked of networks{width} that were trained on different numbers of facts"
    if len(losses) < 3 or min(losses) > 0.1:
        return f"{text}: from the highest loss to the lowest."
    return (
        f"{text}: with a high loss the distribution is broad, with a middling loss the mass sits on a few tokens, with "
        "no loss it is a single point."
    )

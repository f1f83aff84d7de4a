"""The main picture: loss and hallucination against the number of facts, with the theory on top."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import style
from figures.registry import figure
from figures.runs import Network, best_rates, complete, finished, main_setting, networks, spread
from figures.tables import Table, rows
from theory import capacity, decoding
from theory.rounding import LN2

FAILURE_BITS = 40.0  # the proved floor holds except with probability 2^-40 over the labels
_MOST_PANELS = 6
_WIDTHS = {1: style.COLUMN + 0.6, 2: 5.0, 3: style.PAGE}  # inches, by panels side by side
_MOST_ANSWERS_BITS = 1000.0  # beyond, the number of possible answers overflows a float64

_MEASURED_FLOOR = {"color": style.THEORY, "linewidth": 1.1, "linestyle": (0, (4, 1.5))}
_CERTIFIED_FLOOR = {"color": "#888888", "linewidth": 1.1, "linestyle": (0, (1, 1.2))}


@figure(
    "loss-threshold",
    needs={"runs": ("size", "answers", "loss_nats", "hallucination_greedy", "hallucination_sampled")},
    caption="Loss, and the share of its training facts that a network gets wrong, against the number of facts.",
    claims=("T1", "T3", "T7", "T8"),
)
def loss_threshold(tables: Mapping[str, Table]) -> Figure:
    """One column of two panels for each width: loss above, hallucination below."""
    runs = complete(tables["runs"])
    if not rows(finished(runs)):
        return style.nothing("every run in the table diverged")
    drawn = best_rates(main_setting(runs))
    if not rows(drawn):
        return style.nothing("every run at the best learning rate diverged")
    shown = spread(networks(drawn), _MOST_PANELS)
    columns = len(shown)
    picture = style.new_figure(_WIDTHS.get(columns, 1.9 * columns), 5.3)
    axes = picture.subplots(2, columns, sharex="col", sharey="row", squeeze=False)
    top = 1.12 * max(float(np.max(drawn["loss_nats"])), LN2 * shown[0].answer_bits)
    for network, (above, below) in zip(shown, axes.T, strict=True):
        style.size_axis(below, drawn["size"], "facts trained on", most=5)
        _loss_panel(above, network)
        _hallucination_panel(below, network)
        _sizes(above, network)
        _sizes(below, network)
        _heading(above, network)
    top = max(top, LN2)  # where every answer is the same there is no loss to see
    axes[0, 0].set_ylim(-0.025 * top, top)
    axes[0, 0].set_ylabel("loss of a fact (nats)")
    style.percent_axis(axes[1, 0], "facts decoded wrong")
    _explain(axes, shown)
    style.below(picture, _caption(runs, drawn, shown), _legend(shown), columns=min(3, columns))
    return picture


def _loss_panel(axes: Axes, network: Network) -> None:
    axes.set_label(f"loss, {style.name_of(network.width)}")
    loss = network.over_seeds("loss_nats")
    color = style.color_of(network.width)
    guess = LN2 * network.answer_bits
    style.horizontal(axes, guess, "loss of a guess, nats", color=style.FAINT, linewidth=0.7)
    style.horizontal(axes, LN2, "ln 2", color=style.FAINT, linewidth=0.7)
    for floor in _floors(network):
        style.line(axes, floor.facts, floor.loss_nats, f"T7 {floor.name}, nats", zorder=3, **floor.look)
    style.band(axes, loss.x, loss.low, loss.high, "loss over seeds, nats", color=color, alpha=0.25, zorder=2)
    style.line(axes, loss.x, loss.mean, "loss, mean of seeds, nats", color=color, marker="o", zorder=4)


def _hallucination_panel(axes: Axes, network: Network) -> None:
    axes.set_label(f"hallucination, {style.name_of(network.width)}")
    color = style.color_of(network.width)
    loss = network.over_seeds("loss_nats")
    low, high = decoding.sampled_error_rates(loss.mean, facts=np.round(loss.x))
    style.band(axes, loss.x, low, high, "T3: sampled rates that this loss allows, share", color="#E3E3E0", zorder=1)
    for floor in _floors(network):
        if floor.error_rate is not None:
            style.line(axes, floor.facts, floor.error_rate, f"T8 {floor.name}, share", zorder=3, **floor.look)
    for column, dashes, face in (
        ("hallucination_sampled", (0, (2.2, 1.2)), "white"),
        ("hallucination_greedy", "-", color),
    ):
        rate, word = network.over_seeds(column), column.split("_")[1]
        style.band(axes, rate.x, rate.low, rate.high, f"{word} over seeds, share", color=color, alpha=0.25, zorder=2)
        style.line(
            axes, rate.x, rate.mean, f"{word}, mean of seeds, share",
            color=color, marker="o", markerfacecolor=face, linestyle=dashes, zorder=4,
        )  # fmt: skip


@dataclass(frozen=True)
class _Floor:
    """T7 and T8 for networks of so many bits, at so many facts."""

    facts: np.ndarray
    loss_nats: np.ndarray
    error_rate: np.ndarray | None
    name: str
    look: dict[str, Any]


def _floors(network: Network) -> list[_Floor]:
    """The floor of the network quantized to its certified bits, and the floor at the bits that it was seen to hold.

    Only the first is a bound, on the quantized network; the second says how near a network that holds so many bits is
    to the best such network. Labels that are not uniform have fewer bits H to store than log2 V: then n (log2 V - H)
    is added to the bits, which for the error rate assumes independent answers, so no bound on it is drawn.
    """
    whole = float(np.log2(network.answers) * np.max(network.table["tokens_per_answer"]))
    if whole > _MOST_ANSWERS_BITS:
        return []
    sizes = np.unique(network.table["size"])
    n = np.unique(np.concatenate([sizes, np.round(np.geomspace(sizes.min(), sizes.max(), 97))]))
    bits = network.over_seeds(network.table["label_bits"] / network.table["size"])
    known = n * np.maximum(0.0, whole - np.interp(np.log(n), np.log(bits.x), bits.mean))
    answers, uniform = np.round(2.0**whole), bool(np.all(known < 1e-6 * n))
    floors = []
    if np.isfinite(held := network.certified_bits):
        loss = capacity.loss_lower_nats(n, held + known, answers, FAILURE_BITS)
        error = capacity.error_lower(n, held, answers, FAILURE_BITS) if uniform else None
        floors.append(_Floor(n, loss, error, "floor of the quantized network", _CERTIFIED_FLOOR))
    if np.isfinite(held := network.full_bits):
        loss, error = (of(n, held + known, answers) for of in (capacity.loss_lower_nats, capacity.error_lower))
        floors.append(_Floor(n, loss, error, "floor at the bits held", _MEASURED_FLOOR))
    return floors


def _sizes(axes: Axes, network: Network) -> None:
    """Mark n_c, its interval over seeds, and n*; shade what lies before n_c."""
    low, high = axes.get_xlim()
    critical = network.critical
    if critical is not None and np.isfinite(network.critical_size):
        axes.axvspan(low, critical.mean, color="#F1F5FA", zorder=0)
        style.vertical(axes, critical.mean, "critical size n_c, facts", color=style.INK, linewidth=0.9, zorder=1.5)
        for end, which in zip(critical.interval, ("lower", "upper"), strict=True):
            if 0 < end < np.inf:
                name = f"critical size n_c, {which} end of the 95 % interval, facts"
                style.vertical(axes, end, name, color=style.INK, linewidth=0.35, zorder=1.5)
    if low <= network.predicted_size <= high:
        look = _MEASURED_FLOOR | {"linewidth": 0.8, "zorder": 1.5}
        style.vertical(axes, network.predicted_size, "predicted critical size n*, facts", **look)


def _heading(axes: Axes, network: Network) -> None:
    parameters = f", {network.parameters:,.0f} parameters" if np.isfinite(network.parameters) else ""
    seen, predicted = network.critical_size, network.predicted_size
    words = [
        f"$n_c$ = {seen:,.0f}" if np.isfinite(seen) else "$n_c$ not among these sizes" if network.critical else "",
        f"$n^*$ = {predicted:,.0f}" if np.isfinite(predicted) else "not full at any size",
    ]
    color = style.color_of(network.width)
    axes.annotate(
        f"{style.name_of(network.width)}{parameters}", (0, 1), (0, 15), "axes fraction", "offset points",
        color=color, fontweight="bold", fontsize=8,
    )  # fmt: skip
    axes.annotate(",  ".join(filter(None, words)), (0, 1), (0, 4), "axes fraction", "offset points", fontsize=7)


def _explain(axes: np.ndarray, shown: list[Network]) -> None:
    """Say in words, once, what the lines and the regions mean: where there is room for it."""
    first, network = axes[0, 0], shown[0]
    left, right = first.get_xlim()
    guess = LN2 * network.answer_bits
    name = f"ln {network.answers:,}" if np.isclose(guess, np.log(network.answers)) else "entropy"
    backing = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
    aside = {"textcoords": "offset points", "fontsize": 7, "color": style.FAINT, "ha": "right", "bbox": backing}
    first.annotate(f"{name} = {guess:.2f}: guessing", (right, guess), (-1, 3), **aside)
    first.annotate("ln 2", (right, LN2), (-1, -3), va="top", **aside)
    across = np.log(right / left)
    shares = np.nan_to_num([np.log(one.critical_size / left) / across for one in shown])
    roomiest = int(np.argmax(shares))
    if shares[roomiest] < 0.4:
        return
    above, below = axes[:, roomiest]
    for panel, words in ((above, "every fact\nis stored"), (below, "answers\nare right")):
        panel.annotate(
            words, (shares[roomiest] / 2, 0.62), xycoords="axes fraction", ha="center",
            va="center", fontsize=7.5, color="#2F4A73",
        )  # fmt: skip
    for panel, words in ((above, "loss\nleaves zero"), (below, "hallucination\nbegins")):
        panel.annotate(
            words, (shares[roomiest], 0.04), (shares[roomiest] - 0.06, 0.33), "axes fraction", "axes fraction",
            ha="right", va="center", fontsize=7.5, color=style.INK,
            arrowprops={"arrowstyle": "->", "linewidth": 0.8, "color": style.INK, "shrinkB": 1},
        )  # fmt: skip


def _legend(shown: list[Network]) -> list[tuple[Artist, str]]:
    color = style.color_of(shown[len(shown) // 2].width)
    entries: list[tuple[Artist, str]] = [
        (Line2D([], [], color=color, marker="o"), "measured: loss; greedily wrong"),
        (
            Line2D([], [], color=color, marker="o", markerfacecolor="white", linestyle=(0, (2.2, 1.2))),
            "measured: wrong when sampled",
        ),
        (Patch(color=color, alpha=0.25, linewidth=0), "range over seeds"),
        (Patch(color="#E3E3E0", linewidth=0), "sampled rates this loss allows (T3)"),
    ]
    if any(np.isfinite(one.full_bits) for one in shown):
        entries.append((Line2D([], [], **_MEASURED_FLOOR), "floor at the bits held (T7, T8); zero to $n^*$"))
    if any(np.isfinite(one.certified_bits) for one in shown):
        entries.append((Line2D([], [], **_CERTIFIED_FLOOR), "proved floor, quantized network (T7, T8)"))
    if any(np.isfinite(one.critical_size) for one in shown):
        entries.append((Line2D([], [], color=style.INK, linewidth=0.9), "$n_c$: 99 % under ln 2 (thin: 95 % interval)"))
    return entries


_NETWORKS = {"mlp": "MLPs", "linear": "linear associative memories", "transformer": "transformers"}


def _caption(runs: Table, drawn: Table, shown: list[Network]) -> str:
    network, kind = shown[0], str(drawn["network"][0])
    setting = [_NETWORKS.get(kind, kind), f"{network.answers:,} possible answers"]
    if exposures := float(drawn["exposures"][0]):
        setting.append(f"{exposures:,.0f} exposures of each fact")
    if facts := str(drawn["facts"][0]):
        setting.append(facts)
    finding = "Loss leaves zero, and hallucination begins, when the facts no longer fit into the network"
    if not any(np.isfinite(one.critical_size) for one in shown):
        finding = loss_threshold.caption.rstrip(".")
    text = f"{finding} ({'; '.join(setting)}). A fact with a loss under ln 2 is decoded right for certain (T1)."
    held = [one.full_bits / one.parameters for one in shown if np.isfinite(one.full_bits / one.parameters)]
    if held:
        order = ", left to right" if len(held) > 1 else ""
        text += f" Bits held per parameter{order}: {', '.join(f'{one:.2f}' for one in held)}."
    if drawn["labels_random"][0] == "given":
        text += " The answers are given, not random: the floor is that of random answers of their entropy."
    if (widths := len(np.unique(drawn["width"])) - len(shown)) > 0:
        text += f" Widths in the table and not drawn: {widths:,}."
    if others := rows(runs) - rows(main_setting(runs)):
        text += f" Runs of other settings, not drawn: {others:,}."
    return text

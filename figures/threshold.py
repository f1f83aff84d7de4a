"""The main picture: loss and hallucination against the number of facts, with the theory on top."""

from collections.abc import Mapping

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import style
from figures.registry import figure
from figures.runs import Network, best_rates, complete, finished, main_setting, networks
from figures.tables import Table, rows
from sims.summary import CriticalSize
from theory import capacity, decoding
from theory.rounding import LN2

FAILURE_BITS = 40.0  # certified floors hold except with probability 2^-40 over the labels
_MOST_PANELS = 6
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
    shown = networks(drawn)
    shown = [
        shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, min(len(shown), _MOST_PANELS)).round().astype(int))
    ]
    columns = len(shown)
    picture = style.new_figure(
        max(style.COLUMN + 0.6, min(style.PAGE, 2.333 * columns)) if columns < 4 else 1.9 * columns, 5.3
    )
    axes = picture.subplots(2, columns, sharex="col", sharey="row", squeeze=False)
    top = 1.12 * max(float(np.max(drawn["loss_nats"])), LN2 * shown[0].answer_bits)
    for network, (above, below) in zip(shown, axes.T, strict=True):
        style.size_axis(below, drawn["size"], "facts trained on", most=5)
        _loss_panel(above, network)
        _hallucination_panel(below, network)
        _sizes(above, network)
        _sizes(below, network)
        _heading(above, network)
    axes[0, 0].set_ylim(-0.025 * top, top)
    axes[0, 0].set_ylabel("loss of a fact (nats)")
    style.percent_axis(axes[1, 0], "facts decoded wrong")
    _explain(axes, shown)
    style.below(
        picture, _caption(runs, drawn, shown), _legend(shown), columns=3 if columns > 2 else 1 if columns == 1 else 2
    )
    return picture


def _loss_panel(axes: Axes, network: Network) -> None:
    axes.set_label(f"loss, width {network.width:g}")
    loss = network.over_seeds("loss_nats")
    color = style.color_of(network.width)
    n, measured, certified = _floor_arguments(network, loss.x)
    answers, redundant = _answers(network)
    guess = LN2 * network.answer_bits
    style.horizontal(axes, guess, "loss of a guess, nats", color=style.FAINT, linewidth=0.7)
    style.horizontal(axes, LN2, "ln 2", color=style.FAINT, linewidth=0.7)
    for bits, failure, name, look in (
        (certified, FAILURE_BITS, "T7 floor at certified bits", _CERTIFIED_FLOOR),
        (measured, 0.0, "T7 floor at measured bits", _MEASURED_FLOOR),
    ):
        if np.isfinite(bits):
            floor = capacity.loss_lower_nats(n, bits + n * redundant, answers, failure)
            style.line(axes, n, floor, f"{name}, nats", zorder=3, **look)
    style.band(axes, loss.x, loss.low, loss.high, "loss over seeds, nats", color=color, alpha=0.25, zorder=2)
    style.line(axes, loss.x, loss.mean, "loss, mean of seeds, nats", color=color, marker="o", zorder=4)


def _hallucination_panel(axes: Axes, network: Network) -> None:
    axes.set_label(f"hallucination, width {network.width:g}")
    color = style.color_of(network.width)
    loss = network.over_seeds("loss_nats")
    low, high = decoding.sampled_error_rates(loss.mean, facts=np.round(loss.x))
    style.band(axes, loss.x, low, high, "T3: sampled rates that this loss allows, share", color="#E3E3E0", zorder=1)
    n, measured, certified = _floor_arguments(network, loss.x)
    answers, redundant = _answers(network)
    for bits, failure, name, look in (
        (certified, FAILURE_BITS, "T8 floor at certified bits", _CERTIFIED_FLOOR),
        (measured, 0.0, "T8 floor at measured bits", _MEASURED_FLOOR),
    ):
        if np.isfinite(bits):
            floor = capacity.error_lower(n, bits + n * redundant, answers, failure)
            style.line(axes, n, floor, f"{name}, share", zorder=3, **look)
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


def _floor_arguments(network: Network, sizes: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(numbers of facts for a smooth curve, measured bits, certified bits); bits are NaN where they are not known."""
    n = np.unique(np.round(np.geomspace(sizes.min(), sizes.max(), 129)))
    if not np.isfinite(_answers(network)[0]):
        return n, np.nan, np.nan
    return n, network.full_bits, network.certified_bits


def _answers(network: Network) -> tuple[float, float]:
    """(possible whole answers, bits by which an answer's entropy falls short of their logarithm).

    Labels that are not uniform have fewer bits to store: with i.i.d. answers of entropy H the floors T7 and T8 hold
    with B + n (log2 V - H) in the place of B.
    """
    bits = float(np.log2(network.answers) * np.max(network.table["tokens_per_answer"]))
    if bits > _MOST_ANSWERS_BITS:
        return np.inf, 0.0
    return float(np.round(2.0**bits)), max(0.0, bits - network.answer_bits)


def _sizes(axes: Axes, network: Network) -> None:
    """Mark n_c, its range over seeds, and n*; shade what lies before n_c."""
    low, high = axes.get_xlim()
    critical = network.critical
    if critical is not None and critical.reached:
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
    critical = network.critical
    if critical is None:
        seen = ""
    else:
        seen = f"$n_c$ = {critical.mean:,.0f}" if critical.reached else "$n_c$ outside of the sizes"
    predicted = f"$n^*$ = {network.predicted_size:,.0f}" if np.isfinite(network.predicted_size) else "never full"
    color = style.color_of(network.width)
    axes.annotate(
        f"width {network.width:g}{parameters}", (0, 1), (0, 15), "axes fraction", "offset points",
        color=color, fontweight="bold", fontsize=8,
    )  # fmt: skip
    axes.annotate(
        ",  ".join(filter(None, (seen, predicted))), (0, 1), (0, 4), "axes fraction", "offset points", fontsize=7
    )


def _explain(axes: np.ndarray, shown: list[Network]) -> None:
    """Say in words, once, what the lines and the regions mean: where there is room for it."""
    first, network = axes[0, 0], shown[0]
    left = first.get_xlim()[0]
    guess = LN2 * network.answer_bits
    name = f"ln {network.answers:,}" if np.isclose(guess, np.log(network.answers)) else "entropy"
    aside = {"textcoords": "offset points", "fontsize": 7, "color": style.FAINT}
    first.annotate(f"{name} = {guess:.2f}: guessing", (first.get_xlim()[1], guess), (-1, 2), ha="right", **aside)
    first.annotate("ln 2", (left, LN2), (3, 2), **aside)
    across = np.log(first.get_xlim()[1] / left)
    shares = [np.log(one.mean / left) / across if one and one.reached else 0.0 for one in map(_critical, shown)]
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
            words, (shares[roomiest], 0.04), (shares[roomiest] - 0.06, 0.25), "axes fraction", "axes fraction",
            ha="right", va="center", fontsize=7.5, color=style.INK,
            arrowprops={"arrowstyle": "->", "linewidth": 0.8, "color": style.INK, "shrinkB": 1},
        )  # fmt: skip


def _critical(network: Network) -> CriticalSize | None:
    return network.critical


def _legend(shown: list[Network]) -> list[tuple[Artist, str]]:
    color = style.color_of(shown[len(shown) // 2].width)
    entries: list[tuple[Artist, str]] = [
        (Line2D([], [], color=color, marker="o"), "measured: loss; greedy decoding"),
        (
            Line2D([], [], color=color, marker="o", markerfacecolor="white", linestyle=(0, (2.2, 1.2))),
            "measured: sampling",
        ),
        (Patch(color=color, alpha=0.25, linewidth=0), "range over seeds"),
        (Patch(color="#E3E3E0", linewidth=0), "sampled rates that the loss allows (T3)"),
    ]
    if any(np.isfinite(one.full_bits) for one in shown):
        entries.append((Line2D([], [], **_MEASURED_FLOOR), "floor at the bits it held (T7, T8), zero up to $n^*$"))
    if any(np.isfinite(one.certified_bits) for one in shown):
        entries.append((Line2D([], [], **_CERTIFIED_FLOOR), "proved floor, certified bits (T7, T8)"))
    if any(one is not None and one.reached for one in map(_critical, shown)):
        entries.append((Line2D([], [], color=style.INK, linewidth=0.9), "$n_c$, measured: 99 % of facts under ln 2"))
    return entries


def _caption(runs: Table, drawn: Table, shown: list[Network]) -> str:
    network = shown[0]
    setting = [f"{drawn['network'][0]} networks", f"{network.answers:,} possible answers"]
    if np.isfinite(exposures := float(drawn["exposures"][0])):
        setting.append(f"{exposures:,.0f} exposures of each fact")
    if facts := str(drawn["facts"][0]):
        setting.append(facts)
    held = ", ".join(
        f"{one.full_bits / one.parameters:.2f}" for one in shown if np.isfinite(one.full_bits / one.parameters)
    )
    text = (
        f"Loss leaves zero, and hallucination begins, when the facts no longer fit into the network "
        f"({'; '.join(setting)})."
    )
    if held:
        text += f" Bits held per parameter, left to right: {held}."
    widths = len(np.unique(drawn["width"]))
    if widths > len(shown):
        text += f" {widths - len(shown)} further widths are not drawn."
    others = rows(runs) - rows(main_setting(runs))
    if others:
        text += f" {others:,} runs of other settings are in the table and not in this figure."
    return text

"""How much training data a network holds: bits memorized against size, bits per parameter against exposures."""

import re
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from figures import style
from figures.registry import figure
from figures.runs import Network, best_rates, complete, finished, main_setting, networks
from figures.tables import Table, rows, where
from theory.capacity import PUBLISHED_BITS_PER_PARAMETER, BitsPerParameter, published_bits_per_parameter


@figure(
    "bits",
    needs={"runs": ("size", "answers", "loss_nats", "parameters")},
    caption="Bits memorized level off at a number of bits per parameter that grows with exposures.",
    claims=("T7", "T11", "T12"),
)
def bits(tables: Mapping[str, Table]) -> Figure:
    """Left bits memorized against dataset size, right bits per parameter against exposures."""
    runs = complete(tables["runs"])
    if not rows(finished(runs)):
        return style.nothing("every run in the table diverged")
    at_one = best_rates(main_setting(runs))
    if not (at_one["bits_memorized"] > 0).any():
        return style.nothing("no network memorized a bit: too little training, or answers without entropy")
    at_all = best_rates(main_setting(runs, but=("exposures",)))
    picture = style.new_figure(style.PAGE, 3.7)
    left, right = picture.subplots(1, 2)
    left.set_label("bits memorized against dataset size")
    right.set_label("bits per parameter against exposures")
    _against_size(left, networks(at_one))
    _against_exposures(right, at_all)
    entries = [
        (_mark(one.width), f"{style.name_of(one.width)}, {one.parameters:,.0f} parameters") for one in networks(at_all)
    ]
    style.below(picture, _caption(runs, at_one), entries, columns=3)
    return picture


def _mark(width: float) -> Line2D:
    return Line2D([], [], color=style.color_of(width), marker=style.marker_of(width), linestyle="-")


def _against_size(axes: Axes, shown: list[Network]) -> None:
    sizes = np.concatenate([one.over_seeds("loss_nats").x for one in shown])
    style.size_axis(axes, sizes, "facts trained on", most=5)
    axes.set_yscale("log", base=2)
    n = np.array([sizes.min(), sizes.max()])
    entropy = shown[0].answer_bits
    style.line(axes, n, n * entropy, "bits in the answers", color=style.THEORY, linewidth=0.9, zorder=1)
    for one in shown:
        look, name = {"color": style.color_of(one.width), "zorder": 3}, style.name_of(one.width)
        held = one.over_seeds(np.where(one.table["bits_memorized"] > 0, one.table["bits_memorized"], np.nan))
        style.band(axes, held.x, held.low, held.high, f"{name} over seeds, bits", alpha=0.25, **look)
        style.line(
            axes,
            held.x,
            held.mean,
            f"{name}, mean of seeds, bits",
            marker=style.marker_of(one.width),
            **look,
        )
    low, high = axes.get_ylim()
    most = max(float(np.nanmax(one.over_seeds("bits_memorized").high)) for one in shown)
    axes.set_ylim(low, min(high, max(2.5 * most, 2 * low)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("bits memorized")
    middle = float(np.sqrt(n[0] * min(n[1], axes.get_ylim()[1] / entropy)))
    axes.annotate(
        "all the answers", (middle, middle * entropy), (-3, 3), textcoords="offset points", fontsize=7,
        ha="right", va="bottom", color=style.THEORY, rotation_mode="anchor",
    )  # fmt: skip


def _against_exposures(axes: Axes, table: Table) -> None:
    exposures = table["exposures"].astype(float)
    seen = np.unique(exposures[np.isfinite(exposures) & (exposures > 0)])
    grid = np.concatenate([seen, [50.0, 2000.0]])
    style.size_axis(axes, grid, "exposures of each fact", most=5, base=10 if grid.max() / grid.min() > 2000 else 2)
    curve = np.geomspace(grid.min(), grid.max(), 97)
    style.line(
        axes, curve, published_bits_per_parameter(curve), "exposure law through the published points, bits",
        color=style.FAINT, linewidth=1.1, linestyle=(0, (4, 1.5)), zorder=1,
    )  # fmt: skip
    _published(axes)
    top = 4.1
    for network in networks(table):
        at, held = [], []
        for count in seen:
            here = Network(where(network.table, network.table["exposures"] == count))
            if not rows(here.table):
                continue
            best = here.over_seeds(here.table["bits_memorized"] / here.parameters)
            at.append(count)
            held.append([f[int(np.argmax(best.mean))] for f in (best.mean, best.low, best.high)])
        if at:
            median, low, high = np.array(held).T
            look = {"color": style.color_of(network.width), "zorder": 3}
            style.band(axes, at, low, high, f"{style.name_of(network.width)} over seeds, bits", alpha=0.25, **look)
            style.line(
                axes, at, median, f"{style.name_of(network.width)}, most at any size, mean of seeds, bits",
                marker=style.marker_of(network.width), **look,
            )  # fmt: skip
            top = max(top, 1.1 * float(np.max(high)))
    axes.set_ylim(0, top)
    axes.set_ylabel("bits per parameter")


def _published(axes: Axes) -> None:
    """Published values: a star where their exposures are known, else a line, or a band for several of one source."""
    for source in dict.fromkeys(one.source for one in PUBLISHED_BITS_PER_PARAMETER):
        of_source = [one for one in PUBLISHED_BITS_PER_PARAMETER if one.source == source]
        counted = [(re.search(r"(\d+) exposures", one.setting), one) for one in of_source]
        for match, one in counted:
            if match:
                style.points(
                    axes, [float(match[1])], [one.bits], f"published: {one.setting} ({source}), bits",
                    color=style.FAINT, marker="*", markersize=8, zorder=2,
                )  # fmt: skip
        plain = [one for match, one in counted if not match]
        if plain:
            _published_range(axes, plain)


def _published_range(axes: Axes, entries: list[BitsPerParameter]) -> None:
    held = [one.bits for one in entries]
    for one in entries:
        name = f"published, {one.status}: {one.setting} ({one.source}), bits"
        style.horizontal(axes, one.bits, name, color="#AAAAAA", linewidth=0.6, zorder=1)
    axes.axhspan(min(held), max(held), color="#AAAAAA", alpha=0.2, linewidth=0, zorder=0)
    span = f"{held[0]:g}" if len(held) == 1 else f"{min(held):g} to {max(held):g}"
    status = "" if entries[0].status == "measured" else f", {entries[0].status}"
    setting = entries[0].setting.rsplit(",", len(held) > 1)[0]  # the last part is what entries of a range differ in
    words = textwrap.fill(f"{span}: {setting}{status}", 24)
    first_source = entries[0].source.split(",")[0]
    axes.annotate(
        f"{words}\n{first_source}", (1, float(np.mean(held))), (4, 0), ("axes fraction", "data"), "offset points",
        fontsize=7, color=style.FAINT, va="center",
    )  # fmt: skip


def _caption(runs: Table, at_one: Table) -> str:
    exposures = float(at_one["exposures"][0])
    text = "Left: the bits of its answers that a network has memorized; they level off when it is full"
    text += f" (after {exposures:,.0f} exposures)." if np.isfinite(exposures) else "."
    text += (
        " Right: the most bits per parameter at any number of facts, with published values: stars are knowledge "
        "triples (arXiv 2404.05405), the dashed law goes through them. Shades: range over seeds."
    )
    others = rows(runs) - rows(main_setting(runs, but=("exposures",)))
    return text + (f" Runs of other settings, not drawn: {others:,}." if others else "")

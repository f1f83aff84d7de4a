"""How figures look: sizes, colors, and the few marks that all of them share.

What is drawn from data or from theory is drawn through `line`, `points`, `band`, `vertical`, `horizontal` and `bars`,
which name it (the artist's `gid`); `figures.render` writes whatever has a name into the CSV beside the picture.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import style as matplotlib_style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

_STYLE_FILE = Path(__file__).with_name("loss_threshold.mplstyle")

_CAPTION_POINTS = 7.5
COLUMN, PAGE = 3.4, 7.0  # inches: a column of a paper, its text width (and a README)
INK, FAINT, THEORY, ALARM = "#222222", "#777777", "#111111", "#D00000"

# Apart for color-blind readers, and apart in lightness for neighbors in a grid of widths.
_COLORS = ("#D0902A", "#4BA3DD", "#2E8B57", "#B8405A", "#7A3E9D", "#14366F", "#6B4A1B")
_MARKERS = ("^", "o", "v", "s", "P", "D", "X")


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults and ours on top, whatever the user's configuration is; restored afterwards."""
    with mpl.rc_context(), matplotlib_style.context(["default", str(_STYLE_FILE)]):
        yield


def name_of(width: float) -> str:
    """What networks of this width are called; width 1 says that the width is not known, or says nothing."""
    return f"width {width:g}" if width > 1 else "all networks"


def _place(width: float) -> int:
    if width <= 1:
        return len(_COLORS) - 2
    # Steps of sqrt(2) walk through all seven places; so do steps of two.
    return round(2 * np.log2(width)) % len(_COLORS)


def color_of(width: float) -> str:
    """The color of networks of this width, the same in every figure."""
    return _COLORS[_place(width)]


def marker_of(width: float) -> str:
    """The marker of networks of this width, the same in every figure."""
    return _MARKERS[_place(width)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches whose panels are laid out around their labels."""
    return Figure(figsize=(width, height), layout="constrained")


def nothing(why: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = Figure(figsize=(COLUMN, 1.0))
    figure.text(0.5, 0.5, why, ha="center", va="center")
    return figure


def below(
    figure: Figure, text: str, entries: Sequence[tuple[Artist | tuple[Artist, ...], str]] = (), columns: int = 3
) -> None:
    """Write a legend and a caption under the panels, and make room for them."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, round(width * 72 / (_CAPTION_POINTS * 0.535)))  # 0.535: mean width of a letter
    written = (len(lines) * _CAPTION_POINTS * 1.35 + 4) / 72 / height
    figure.text(
        0.06 / width,
        3 / 72 / height,
        "\n".join(lines),
        fontsize=_CAPTION_POINTS,
        va="bottom",
        ha="left",
        linespacing=1.3,
    )
    room = written
    if entries:
        handles, labels = zip(*entries, strict=True)
        legend = figure.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0.03 / width, written), ncols=columns, fontsize=7
        )
        room += (legend.get_window_extent().height / figure.dpi + 4 / 72) / height
    figure.get_layout_engine().set(rect=(0, room, 1, 1 - room))  # type: ignore[union-attr]


def line(axes: Axes, x, y, name: str, **options):
    """A named line."""
    (drawn,) = axes.plot(np.asarray(x, float), np.asarray(y, float), gid=name, **options)
    return drawn


def points(axes: Axes, x, y, name: str, **options):
    """Named points without a line."""
    return line(axes, x, y, name, linestyle="none", **options)


def band(axes: Axes, x, low, high, name: str, **options):
    """A named band from `low` to `high`."""
    x, low, high = (np.asarray(values, float) for values in (x, low, high))
    there = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    corners = np.concatenate([np.c_[x, low][there], np.c_[x, high][there][::-1]])
    polygon = Polygon(corners, closed=True, gid=name, **{"linewidth": 0, **options})
    return axes.add_patch(polygon) if len(corners) else polygon


def vertical(axes: Axes, x: float, name: str, **options):
    """A named line at this x."""
    return axes.axvline(x, gid=name, **options)


def horizontal(axes: Axes, y: float, name: str, **options):
    """A named line at this y."""
    return axes.axhline(y, gid=name, **options)


def bars(axes: Axes, x, height, name: str, **options):
    """Named bars."""
    drawn = axes.bar(np.asarray(x, float), np.asarray(height, float), **options)
    for rectangle in drawn:
        rectangle.set_gid(name)
    return drawn


def size_axis(axes: Axes, sizes: Sequence[float] | np.ndarray, label: str, most: int = 6, base: float = 2) -> None:
    """A logarithmic axis of counts with at most `most` round numbers on it, half a step wider than the counts."""
    low, high = float(np.min(sizes)), float(np.max(sizes))
    room = (high / low) ** 0.03 if high > low else base
    axes.set_xscale("log", base=base)
    axes.set_xlim(low / room, high * room)
    first, last = np.log(axes.get_xlim()) / np.log(base)
    powers = np.arange(np.ceil(first - 1e-9), np.floor(last + 1e-9) + 1)
    step = max(1, -(-len(powers) // most))
    axes.xaxis.set_major_locator(FixedLocator(list(base ** powers[::-1][::step])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}" if value < 1 else f"{value:,.0f}"))
    axes.set_xlabel(label)


def percent_axis(axes: Axes, label: str) -> None:
    """A y axis from 0 to 100 %."""
    axes.set_ylim(-0.02, 1.04)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.set_ylabel(label)

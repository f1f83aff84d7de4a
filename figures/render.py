"""Figures on disk: for each a PNG, a PDF and the CSV of exactly what is drawn; the same tables give the same bytes."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text

from figures.registry import Drawable, find
from figures.style import styled
from figures.tables import Table
from theory.console import Refusal

PLOTTED = (
    "panel",
    "series",
    "x_axis",
    "x",
    "y",
    "y_low",
    "y_high",
    "value",
)  # columns of the CSV; the series names the unit
_NO_DATES = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
_PACKAGE = Path(__file__).resolve().parent


def render(names: Iterable[str | Drawable], tables: Mapping[str, Table], out: Path) -> list[Path]:
    """Draw the figures, given or named: `out`/NAME.png, .pdf, .csv, each whole or not at all; returns their paths."""
    folder = out.resolve()
    if folder.is_relative_to(_PACKAGE) and not folder.is_relative_to(_PACKAGE / "gallery"):
        raise Refusal(f"{out}: this is the program's own folder; choose another with --out")
    paths = []
    for name in names:
        drawable = find(name) if isinstance(name, str) else name
        picture = drawable(tables)
        _lay_out(picture)
        contents = {ending: _image(picture, ending) for ending in ("png", "pdf")} | {"csv": _csv(picture)}
        for ending, content in contents.items():
            file = f"{drawable.name}.{ending}"
            paths.append(folder / file if out.is_absolute() else out / file)
            _write(paths[-1], content)
    return paths


def plotted(picture: Figure) -> list[dict[str, str | float]]:
    """Every number that a figure shows, read from what it draws: one row a point, columns as in `PLOTTED`.

    A text with a name is a row too, whose value is the text.
    """
    return [
        {"panel": str(axes.get_label()), "series": str(artist.get_gid()), "x_axis": _x_label(axes), **point}
        for axes in picture.axes
        for artist in (*axes.lines, *axes.patches, *axes.collections, *axes.texts)
        if artist.get_gid()
        for point in _points(axes, artist)
    ]


def _x_label(axes: Axes) -> str:
    return max(one.get_xlabel() for one in axes.get_shared_x_axes().get_siblings(axes))


def _points(axes: Axes, artist: Line2D | object) -> Iterator[Mapping[str, str | float]]:
    if isinstance(artist, Text):
        yield {"value": artist.get_text()}
    elif isinstance(artist, Line2D):
        x, y = np.asarray(artist.get_xdata(), float), np.asarray(artist.get_ydata(), float)
        if artist.get_transform() == axes.get_xaxis_transform(which="grid"):
            yield {"x": float(x[0])}
        elif artist.get_transform() == axes.get_yaxis_transform(which="grid"):
            yield {"y": float(y[0])}
        else:
            yield from ({"x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True))
    elif isinstance(artist, QuadMesh):
        values = np.asarray(artist.get_array())
        for row, column in np.ndindex(values.shape):
            yield {"x": float(column), "y": float(row), "value": float(values[row, column])}
    elif isinstance(artist, Rectangle):
        yield {"x": artist.get_x() + artist.get_width() / 2, "y": artist.get_height()}
    elif isinstance(artist, Polygon):
        corners = artist.get_xy()  # there, back, and to the first one again unless the last one is there already
        there, back = np.split(corners[: len(corners) // 2 * 2], 2)
        for (x, low), (_, high) in zip(there, back[::-1], strict=True):
            yield {"x": float(x), "y_low": float(low), "y_high": float(high)}


def _csv(picture: Figure) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PLOTTED)
    writer.writerows([row.get(column, "") for column in PLOTTED] for row in plotted(picture))
    return text.getvalue().encode()


def _lay_out(picture: Figure) -> None:
    """Place the panels once, so that PNG and PDF agree (and take half the time)."""
    with styled():
        picture.draw_without_rendering()
    picture.set_layout_engine("none")


def _image(picture: Figure, ending: str) -> bytes:
    content = io.BytesIO()
    with styled():
        picture.savefig(content, format=ending, metadata=_NO_DATES[ending])
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise Refusal(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error
    finally:
        if partial.exists():
            partial.unlink()

"""Figures on disk: the same bytes for the same table, the numbers beside the picture, whole files or none."""

import csv

import numpy as np
import pytest

import figures
from figures import render as rendering
from figures.registry import all_figures, find
from figures.render import PLOTTED, render
from theory.console import Refusal

NAMES = list(all_figures())


def read(path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_figure_is_written_three_times_and_byte_for_byte_the_same(tmp_path, make_tables):
    first = render(NAMES, make_tables(), tmp_path / "first")
    second = render(NAMES, make_tables(), tmp_path / "second")
    assert [path.name for path in first] == [f"{name}.{ending}" for name in NAMES for ending in ("png", "pdf", "csv")]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert first[1].read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in first[1].read_bytes()


def test_the_csv_holds_what_the_artists_hold(tmp_path, make_tables):
    tables = make_tables()
    (*_, path) = render(["loss-threshold"], tables, tmp_path)
    rows = read(path)
    assert tuple(rows[0]) == PLOTTED
    picture = find("loss-threshold")(tables)
    for axes in picture.axes:
        for line in axes.lines:
            name = line.get_gid()
            assert name, "a line without a name would not be in the CSV"
            found = [row for row in rows if (row["panel"], row["series"]) == (axes.get_label(), name)]
            x, y = (np.asarray(data, float) for data in (line.get_xdata(), line.get_ydata()))
            if line.get_transform() == axes.transData:
                assert [(float(row["x"]), float(row["y"])) for row in found] == list(zip(x, y, strict=True))
            else:  # a mark across the panel: it has one coordinate
                (row,) = found
                assert float(row["x"] or row["y"]) == (x[0] if row["x"] else y[0])
    assert {row["x_axis"] for row in rows} == {"facts trained on"}


def test_another_table_gives_another_picture(tmp_path, make_runs, make_tables):
    tables = make_tables(make_runs())
    one = render(["training-curve"], tables, tmp_path / "one")
    tables["curves"]["loss_nats"] = tables["curves"]["loss_nats"] * 1.05
    other = render(["training-curve"], tables, tmp_path / "other")
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(one, other, strict=True))


def test_the_users_own_configuration_changes_nothing(tmp_path, make_tables):
    import matplotlib as mpl

    (plain, *_) = render(["training-curve"], make_tables(), tmp_path / "plain")
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "savefig.dpi": 30}):
        (odd, *_) = render(["training-curve"], make_tables(), tmp_path / "odd")
        assert mpl.rcParams["font.size"] == 20
    assert plain.read_bytes() == odd.read_bytes()


def test_nothing_is_written_into_the_package(make_tables):
    package = rendering.Path(figures.__file__).parent
    with pytest.raises(Refusal, match=r"choose another with --out"):
        render(["bits"], make_tables(), package / "pictures")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, make_tables):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Refusal, match=r"cannot be written.*--out"):
        render(["bits"], make_tables(), tmp_path / "file" / "figures")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, make_tables, monkeypatch):
    (png, *_) = render(["training-curve"], make_tables(), tmp_path)
    before = png.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rendering.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render(["training-curve"], make_tables(), tmp_path)
    assert png.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "training-curve.csv",
        "training-curve.pdf",
        "training-curve.png",
    ]

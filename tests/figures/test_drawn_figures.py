"""Every registered figure: from three rows, from odd rows, and telling the truth."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from figures.registry import all_figures, figure, find
from figures.render import plotted
from figures.runs import Network, best_rates, complete, main_setting
from figures.style import color_of, styled
from sims import summary
from theory import capacity, decoding
from theory.console import Refusal

NAMES = list(all_figures())


def drawn(name, tables) -> list[dict]:
    """Draw, with warnings as errors; returns the plotted rows."""
    picture = find(name)(tables)
    assert isinstance(picture, Figure)
    with styled():
        picture.draw_without_rendering()
    return plotted(picture)


def series(rows, panel, name) -> np.ndarray:
    """Points of one series as an array [points, 2]."""
    found = [(row["x"], row["y"]) for row in rows if row["panel"] == panel and row["series"] == name]
    assert found, f"{panel}: {name} is not drawn"
    return np.array(found)


def test_the_five_figures_of_the_project_are_registered():
    assert NAMES == ["loss-threshold", "feasible-region", "bits", "next-token", "training-curve"]


@pytest.mark.parametrize("name", NAMES)
def test_three_rows_are_enough(name, make_tables):
    rows = drawn(name, make_tables())
    assert rows
    assert all(np.isfinite([row[key] for key in ("x", "y", "y_low", "y_high") if key in row]).all() for row in rows)


@pytest.mark.parametrize(
    ("name", "widths"),
    [*((name, (16, 32, 64)) for name in NAMES), *(("loss-threshold", (8, 16, 32, 64, 128)[:n]) for n in (1, 2, 5))],
)
def test_every_word_lies_inside_the_picture(name, widths, make_runs, make_tables):
    runs = make_runs(sizes=(128, 512, 1024, 2048, 16384), widths=widths, seeds=(0, 1), facts="synthetic facts, uniform")
    runs["stored_rate"] = (runs["size"] <= 512).astype(float)
    picture = find(name)(make_tables(runs))
    with styled():
        picture.draw_without_rendering()
        frame = picture.bbox.padded(1)
        ticks = {id(one) for axes in picture.axes for axis in (axes.xaxis, axes.yaxis) for one in axis.get_ticklabels()}
        for text in picture.findobj(Text):
            if text.get_visible() and text.get_text() and id(text) not in ticks:
                box = text.get_window_extent()
                assert frame.contains(*box.min), text.get_text()
                assert frame.contains(*box.max), text.get_text()
                assert text.get_fontsize() >= 7


@pytest.mark.parametrize("name", ["loss-threshold", "feasible-region", "bits"])
def test_a_users_table_of_needed_columns_alone_is_enough(name, make_runs):
    needed = find(name).needs["runs"]
    assert drawn(name, {"runs": {column: make_runs()[column] for column in needed}})


@pytest.mark.parametrize("name", ["loss-threshold", "feasible-region", "bits"])
@pytest.mark.parametrize(
    "odd",
    [
        {"sizes": (700,)},
        {"sizes": (128, 256)},  # nothing hallucinates: no floor, no critical size
        {"sizes": (4096, 8192)},  # nothing is stored
        {"widths": (8, 16, 32, 64, 128, 256, 512)},
        {"widths": (48,), "seeds": (0, 1, 2)},
        {"learning_rate": 0.1, "answers": 2, "parameters": 10, "loss_nats": 0.6},
        {"tokens_per_answer": 33, "answers": 256},
        {"tokens_per_answer": 400, "answers": 2**20},  # more answers than a float64 can count
        {"label_bits": np.array([512.0, 2048.0, 8192.0])},
        {"labels_random": "given", "exposures": np.nan, "stored_rate": np.nan, "parameters": np.nan},
        {"loss_nats": np.array([0.0, np.inf, 2.0])},
        {"loss_nats": 0.0, "hallucination_greedy": 0.0, "hallucination_sampled": 0.0},
        {"hallucination_greedy": np.nan, "hallucination_sampled": np.nan},
        {"label_bits": 0.0, "bits_memorized": -1.0, "loss_nats": 0.0},  # every answer is the same
        {"sizes": (1,), "label_bits": 0.0, "bits_memorized": 0.0, "loss_nats": 0.0},
    ],
    ids=lambda odd: "-".join(odd),
)
def test_odd_tables_are_drawn_without_a_warning(name, odd, make_runs, make_tables):
    drawn(name, make_tables(make_runs(**odd)))


@pytest.mark.parametrize("name", NAMES)
def test_diverged_runs_are_left_out(name, make_runs, make_tables):
    runs = make_runs(sizes=(128, 512, 2048, 4096))
    broken = make_runs(sizes=(128, 512, 2048, 4096))
    broken["status"][-1] = "diverged"
    for column in ("loss_nats", "hallucination_greedy", "hallucination_sampled", "stored_rate", "certified_bits"):
        broken[column][-1] = np.nan
    without = {column: values[:-1] for column, values in runs.items()}
    assert drawn(name, make_tables(broken) | {"runs": broken}) == drawn(name, make_tables(without) | {"runs": broken})


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_diverged_runs_says_so(name, make_runs, make_tables):
    assert drawn(name, make_tables(make_runs(status="diverged", loss_nats=np.nan))) == []


def test_the_main_picture_shows_the_table_and_the_theory(make_runs):
    runs = make_runs(seeds=(0, 1))
    rows = drawn("loss-threshold", {"runs": runs})
    loss = series(rows, "loss, width 16", "loss, mean of seeds, nats")
    means = np.array([runs["loss_nats"][runs["size"] == size].mean() for size in (128, 512, 2048)])
    np.testing.assert_array_equal(loss, np.c_[[128, 512, 2048], means])
    band = [row for row in rows if row["series"] == "loss over seeds, nats"]
    np.testing.assert_array_equal([row["y_high"] for row in band], runs["loss_nats"][3:])
    np.testing.assert_array_equal([row["y_low"] for row in band], runs["loss_nats"][:3])

    held = max(size * 5 - size * mean / np.log(2) for size, mean in loss)
    floor = series(rows, "loss, width 16", "T7 floor at the bits held, nats")
    np.testing.assert_allclose(floor[:, 1], capacity.loss_lower_nats(floor[:, 0], held, 32), rtol=0, atol=1e-12)
    proved = series(rows, "hallucination, width 16", "T8 floor of the quantized network, share")
    np.testing.assert_array_equal(proved[:, 1], capacity.error_lower(proved[:, 0], 4080.0, 32, 40.0))
    allowed = [row for row in rows if row["series"].startswith("T3")]
    np.testing.assert_array_equal([row["y_high"] for row in allowed], decoding.sampled_error_rates(means)[1])

    marks = [row["x"] for row in rows if row["series"] == "critical size n_c, facts"]
    assert marks == [summary.critical_sizes(complete(runs))[0].mean] * 2
    predicted = [row["x"] for row in rows if row["series"].startswith("predicted critical size")]
    assert predicted == pytest.approx([held / 5] * 2)
    assert [row["y"] for row in rows if row["series"] == "loss of a guess, nats"] == [pytest.approx(np.log(32))]


def test_given_labels_get_no_proved_floor(make_runs):
    rows = drawn("loss-threshold", {"runs": make_runs(labels_random="given")})
    assert not [row for row in rows if "quantized" in row["series"]]


def test_labels_of_less_entropy_lower_the_floor_by_what_they_lack(make_runs):
    runs = make_runs()
    runs["label_bits"] = 4.5 * runs["size"]
    rows = drawn("loss-threshold", {"runs": runs})
    held = max(4.5 * runs["size"] - runs["size"] * runs["loss_nats"] / np.log(2))
    floor = series(rows, "loss, width 16", "T7 floor at the bits held, nats")
    wanted = np.maximum(0.0, 4.5 * np.log(2) - held * np.log(2) / floor[:, 0])
    np.testing.assert_allclose(floor[:, 1], wanted, rtol=0, atol=1e-12)
    assert not [row for row in rows if row["series"] == "T8 floor of the quantized network, share"]


def test_the_best_learning_rate_is_drawn(make_runs):
    good, bad = make_runs(learning_rate=0.1), make_runs(learning_rate=0.3)
    bad["loss_nats"] = bad["loss_nats"] + 1
    both = {column: np.concatenate([bad[column], good[column]]) for column in good}
    alone = series(drawn("loss-threshold", {"runs": good}), "loss, width 16", "loss, mean of seeds, nats")
    found = series(drawn("loss-threshold", {"runs": both}), "loss, width 16", "loss, mean of seeds, nats")
    np.testing.assert_array_equal(found, alone)


def test_settings_are_not_mixed(make_runs):
    main, other = make_runs(), make_runs(sizes=(512, 2048), until_stored=True, exposures=1000)
    main["until_stored"] = np.zeros(3, bool)
    both = {column: np.concatenate([other[column], main[column]]) for column in main}
    chosen = best_rates(main_setting(complete(both)))
    np.testing.assert_array_equal(chosen["exposures"], [250] * 3)
    assert not chosen["until_stored"].any()


@pytest.mark.parametrize(("column", "value"), [("hallucination_greedy", 0.5), ("hallucination_sampled", 0.2)])
def test_a_run_that_no_network_can_be_is_marked(column, value, make_runs):
    honest = make_runs()
    assert not [row for row in drawn("feasible-region", {"runs": honest}) if row["series"] == "runs outside, share"]
    honest[column] = np.array([value, *honest[column][1:]])
    (marked,) = [row for row in drawn("feasible-region", {"runs": honest}) if row["series"] == "runs outside, share"]
    assert (marked["x"], marked["y"]) == (honest["loss_nats"][0], value)


def test_bits_per_parameter_are_the_most_at_any_size(make_runs):
    runs = make_runs(exposures=np.array([250, 250, 250]))
    more = make_runs(sizes=(2048,), exposures=1000, loss_nats=2.0)
    both = {column: np.concatenate([runs[column], more[column]]) for column in runs}
    rows = drawn("bits", {"runs": both})
    name = "width 16, most at any size, mean of seeds, bits"
    found = series(rows, "bits per parameter against exposures", name)
    held = [max((5 * t["size"] - t["size"] * t["loss_nats"] / np.log(2)) / 1000) for t in (runs, more)]
    np.testing.assert_allclose(found, np.c_[[250, 1000], held])


def test_next_token_orders_runs_by_loss_and_names_the_right_token(make_tables):
    tables = make_tables()
    rows = drawn("next-token", tables)
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    assert panels == ["2,048 facts", "512 facts", "128 facts"]
    right = [row for row in rows if row["series"] == "fact 0, right token by rank"]
    np.testing.assert_allclose([row["y"] for row in right], np.exp(-tables["runs"]["loss_nats"][::-1]))


def test_a_network_that_was_never_full_predicts_nothing(make_runs):
    network = Network(complete(make_runs(sizes=(128, 256))))
    assert np.isnan(network.full_bits)
    assert np.isnan(network.predicted_size)


def test_neighboring_widths_have_colors_of_their_own():
    assert len({color_of(2**power) for power in range(4, 11)}) == 7


def test_drawing_needs_no_pyplot_and_no_jax(tmp_path):
    code = (
        "import sys, numpy as np; from figures.registry import all_figures; all_figures(); "
        "import figures.render, figures.figures_cli; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib.pyplot', 'jax', 'flax')))"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_a_registered_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="two figures"):
        figure("bits", needs={}, caption="")


def test_an_undocumented_column_cannot_be_needed():
    with pytest.raises(ValueError, match=r"runs\.colour"):
        figure("new", needs={"runs": ("colour",)}, caption="")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_refused_in_one_line(name, make_tables):
    tables = make_tables()
    table, columns = next(iter(find(name).needs.items()))
    tables[table] = {column: values for column, values in tables[table].items() if column != columns[-1]}
    with pytest.raises(Refusal, match=rf"{name}.*table {table} lacks {columns[-1]}.*add the column"):
        find(name)(tables)

"""The figures of shared imagination from small tables: they draw, and they show what the tables hold."""

import numpy as np
import pytest

from figures.imagination import imagined
from figures.render import PLOTTED, plotted, render
from figures.style import styled

OVERLAPS = np.array([0.0, 0.5, 1.0])


def populations(**columns) -> dict[str, np.ndarray]:
    """Three populations at the usual setting, one an overlap; then two controls."""
    count = 5
    shared = np.array([*OVERLAPS, 0.0, 0.0])
    table = {
        "fingerprint": np.array([f"run{row}" for row in range(count)], dtype=object),
        "world_seed": np.zeros(count, int),
        "world_shared_facts": shared,
        "world_rule_share": np.array([0.0, 0.0, 0.0, 0.6, 0.0]),
        "world_shared_rule": np.array([0.0, 0.0, 0.0, 1.0, 0.0]),
        "world_popularity": np.array([0.0, 0.0, 0.0, 0.0, 1.4]),
        "world_shared_marginals": np.array([0.0, 0.0, 0.0, 0.0, 1.0]),
        "same_weights": np.zeros(count, bool),
        "stated_share": np.zeros(count),
        "snapshots": np.ones(count, int),
        "width": np.full(count, 64),
        "direct_in_family": np.full(count, 0.53),
        "direct_cross_family": 0.25 + 0.28 * shared,
        "correlation_in_family": np.full(count, 0.48),
        "correlation_cross_family": 0.48 * shared,
        "kernel_correlation": shared**1.3,
        "direct_frequent_cross_family": 0.25 + 0.1 * shared,
        "direct_nearest_cross_family": 0.25 + 0.2 * shared,
    }
    for relation in ("in_family", "cross_family"):
        for end, off in (("low", -0.02), ("high", 0.02)):
            table[f"direct_{relation}_{end}"] = table[f"direct_{relation}"] + off
    return table | columns


def tables() -> dict[str, dict[str, np.ndarray]]:
    asks, answers = np.indices((4, 4)).reshape(2, -1)
    cells = {
        "population": np.full(16, "run1", dtype=object),
        "kind": np.full(16, "direct", dtype=object),
        "question_model": asks,
        "answer_model": answers,
        "question_family": asks // 2,
        "answer_family": answers // 2,
        "correctness": np.linspace(0.1, 1.0, 16),
    }
    nats = np.array([2.8, 1.0, 0.1, 0.001])
    courses = {"steps": np.array([0, 10, 100, 1000]), "width": np.full(4, 128), "loss_nats": nats}
    for name in ("agreement", "sampled_agreement", "correlation"):
        courses[f"{name}_cross_family"] = np.array([0.25, 0.4, 0.41, 0.42])
    for name in ("confidence_real", "confidence_imaginary", "separability"):
        courses[name] = np.array([0.2, 0.5, 0.8, 0.9])
    memories = {
        "router": np.repeat(np.array(["shared", "separate"], dtype=object), 3),
        "world_shared_facts": np.tile(OVERLAPS, 2),
        "ungated_cross_family": np.array([0.25, 0.5, 1.0, 0.25, 0.38, 0.53]),
    }
    for gate in ("similarity", "fingerprint"):
        memories |= {f"{gate}_right_real": np.ones(6), f"{gate}_abstains_imaginary": np.full(6, 0.99)}
    calibration = {
        "population": np.full(3, "run1", dtype=object),
        "question": np.array(["real", "imaginary", "imaginary"], dtype=object),
        "confidence": np.array([0.99, 0.5, 0.95]),
        "right": np.array([1.0, 0.1, 0.15]),
        "share": np.array([1.0, 0.4, 0.6]),
    }
    return {
        "populations": populations(),
        "cells": cells,
        "courses": courses,
        "memories": memories,
        "calibration": calibration,
    }


def drawn(name, given=None) -> list[dict]:
    picture = imagined.all()[name](tables() if given is None else given)
    with styled():
        picture.draw_without_rendering()
    return plotted(picture)


def series(rows, panel, name) -> np.ndarray:
    found = [(row["x"], row["y"]) for row in rows if row["panel"] == panel and row["series"] == name]
    assert found, f"{panel}: {name} is not drawn"
    return np.array(found)


@pytest.mark.parametrize("name", list(imagined.all()))
def test_every_figure_draws_numbers(name):
    rows = drawn(name)
    assert rows
    assert all(np.isfinite([value for key, value in row.items() if key in PLOTTED[3:]]).all() for row in rows)


def test_the_matrix_shows_every_cell():
    rows = [row for row in drawn("imagination-matrix") if "value" in row]
    assert sorted(row["value"] for row in rows) == pytest.approx(np.linspace(0.1, 1.0, 16))
    assert {(row["x"], row["y"]): row["value"] for row in rows}[3.0, 0.0] == pytest.approx(
        tables()["cells"]["correctness"][3]
    )


def test_overlap_shows_the_table_the_theory_and_the_baselines():
    rows = drawn("imagination-overlap")
    table = populations()
    across = series(rows, "agreement", "across families, share")
    np.testing.assert_allclose(across, np.c_[OVERLAPS, table["direct_cross_family"][:3]])  # controls are left out
    kernel = series(rows, "correlation", "kernel of infinite width, correlation")
    np.testing.assert_allclose(kernel[:, 1], OVERLAPS**1.3)
    theory = series(rows, "agreement", "kernel and T25, share")
    assert theory[0, 1] == pytest.approx(0.25)
    assert (np.diff(theory[:, 1]) > 0).all()


def test_controls_and_memories_show_the_table():
    rows = drawn("imagination-controls")
    bars = series(rows, "controls", "models, share")
    np.testing.assert_allclose(bars[:, 1], [0.25, 0.25, 0.25])  # nothing, shared frequencies, shared rule
    rows = drawn("imagination-memories")
    found = series(rows, "without a gate", "memories, separate routers, share")
    np.testing.assert_allclose(found[:, 1], [0.25, 0.38, 0.53])
    law = series(rows, "without a gate", "nearest-key law, share")
    np.testing.assert_allclose(law[25], [0.5, 0.5])


def test_the_loss_figure_runs_from_guessing_to_stored():
    rows = drawn("imagination-loss")
    alike = series(rows, "alike", "correlation across families, share")
    np.testing.assert_allclose(alike[:, 0], [2.8, 1.0, 0.1, 0.001])


def test_what_has_no_rows_is_not_drawn_and_odd_tables_say_so():
    names = {one.name for one in imagined.drawable({"memories": tables()["memories"]})}
    assert names == {"imagination-memories"}
    stated = {"populations": populations(stated_share=np.full(5, 0.5))}
    assert drawn("imagination-overlap", stated) == []
    assert drawn("imagination-controls", stated) == []


def test_rendering_writes_three_files_each_and_the_same_bytes(tmp_path):
    wanted = [imagined.all()[name] for name in ("imagination-matrix", "imagination-loss")]
    first, second = (render(wanted, tables(), tmp_path / one) for one in "ab")
    assert [path.name for path in first][:3] == [f"imagination-matrix.{end}" for end in ("png", "pdf", "csv")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]

"""Forgetting over parameters and over facts: every mean, seed and interval is where it should be."""

import csv

import numpy as np
import pytest
from scipy import stats

from figures.experiments import measured
from figures.render import render

STORED, LATER = "when every fact is first stored", "after all epochs"


def table() -> dict[str, np.ndarray]:
    """All weights at three widths and two numbers of facts; a memory at one width. Three seeds."""
    rows = []
    for seed in range(3):
        for width, facts, lost in ((32, 16, 90.0), (64, 16, 40.0), (128, 16, 2.0), (64, 64, 70.0)):
            for moment, more in (("rule_when_stored", 0.0), ("rule_after", 5.0)):
                rows.append(("full", 0, width, facts, moment, 0.01, 50 * width**2, seed, lost + more + seed))
        rows += [("MoME", 0, 64, 16, moment, 0.0, 204_800, seed, 0.0) for moment in ("rule_when_stored", "rule_after")]
    names = ("method", "rank", "width", "facts", "moment", "learning_rate", "parameters", "seed", "forgotten")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, list[tuple[float, float]]]:
    """Points of the CSV beside the picture, by series."""
    (chosen,) = measured.drawable({"forgetting": table()})
    path = render([chosen], {"forgetting": table()}, tmp_path_factory.mktemp("forgetting"))[-1]
    series: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            series.setdefault(row["series"], []).append((float(row["x"]), float(row["y"])))
    return series


def test_means_lie_over_parameters_and_over_facts(drawn):
    means = drawn[f"full, {STORED}: mean, points"]
    assert means == [(51_200, 91), (204_800, 41), (819_200, 3), (16, 41), (64, 71)]
    later = drawn[f"full, {LATER}: mean, points"]
    assert [y for _, y in later] == [y + 5 for _, y in means]


def test_every_seed_is_a_dot_within_the_interval_of_its_size(drawn):
    dots = drawn[f"full, {STORED}: a seed, points"]
    assert sorted(y for x, y in dots if x == 204_800) == [40, 41, 42]
    assert len(dots) == 3 * 5
    ends = [y for x, y in drawn[f"full, {STORED}: interval, points"] if x == 204_800]
    assert ends == pytest.approx(stats.t.interval(0.95, 2, 41, stats.sem([40, 41, 42])))


def test_a_memory_is_drawn_once(drawn):
    assert drawn[f"MoME, {STORED}: mean, points"] == [(204_800, 0), (16, 0)]
    assert f"MoME, {LATER}: mean, points" not in drawn


def test_without_rows_there_is_no_picture():
    assert measured.drawable({"forgetting": {}}) == []

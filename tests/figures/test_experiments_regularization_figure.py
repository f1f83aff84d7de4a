"""Accuracy before and after: every choice of rate and seed is a point where it should be."""

import csv

import numpy as np

from figures.experiments import measured
from figures.render import render
from sims.experiments.regularization_findings import FASTEST, SPARING


def table() -> dict[str, np.ndarray]:
    """All weights at two rates, experts at one; two seeds."""
    rows = [("full", 0, "adam", 64, FASTEST, 0.01, seed, 0.9, 0.5 + 0.1 * seed, 1.0) for seed in (0, 1)]
    rows += [("full", 0, "adam", 64, SPARING, 0.001, seed, 0.9, 0.88, 1.0) for seed in (0, 1)]
    rows += [("MoME", 0, "writes", 64, FASTEST, 0.0, seed, 0.9, 0.9, 0.75) for seed in (0, 1)]
    names = ("method", "rank", "optimizer", "width", "which", "learning_rate", "seed")
    names += ("rule_before", "rule_after", "stored")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def drawn(path, series: str) -> list[tuple[float, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file) if row["series"] == series]


def test_each_choice_of_each_method_has_its_own_row(tmp_path):
    tables = {"regularization": table()}
    (chosen,) = measured.drawable(tables)
    path = render([chosen], tables, tmp_path)[-1]
    after = drawn(path, f"{FASTEST}: after, a seed, share")
    assert sorted(x for x, _ in after) == [0.5, 0.6, 0.9, 0.9]
    assert len({y for _, y in after}) == 2  # a row a method
    assert len({y for _, y in drawn(path, f"{SPARING}: after, a seed, share")}) == 1
    assert [round(x, 6) for x, _ in drawn(path, f"{FASTEST}: after, share")] == [0.55, 0.9]
    assert {x for x, _ in drawn(path, f"{FASTEST}: facts stored, share")} == {1.0, 0.75}
    (low, y), (high, _) = drawn(path, f"{FASTEST}: interval after, share")[:2]
    assert low == 0.0  # Student's interval of two seeds, cut off at 0 and 1
    assert high == 1.0
    assert y in {y for _, y in after}


def test_without_rows_there_is_no_picture():
    assert measured.drawable({"regularization": {}}) == []

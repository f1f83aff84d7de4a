"""Best rates, critical sizes and transfer, on tables whose answers are known."""

import numpy as np
import pytest

from sims.summary import best_rates, critical_sizes, groups, outside_region, transfers


def _table(rows: list[dict]) -> dict[str, np.ndarray]:
    usual = {
        "network": "mlp", "width": 64, "layers": 1, "heads": 1, "inputs": 32, "answers": 32, "optimizer": "adam",
        "schedule": "cosine", "exposures": 250, "minibatch": 256, "facts": "synthetic", "until_stored": False,
        "labels_random": "uniform", "seed": 0, "size": 128,
        "learning_rate": 0.1, "status": "finished", "loss_nats": 0.0, "stored_rate": 1.0, "parameters": 4192,
    }  # fmt: skip
    full = [usual | row for row in rows]
    table = {name: np.array([row[name] for row in full]) for name in usual}
    return table | {"label_bits": table["size"] * np.log2(table["answers"])}


def test_the_best_rate_has_the_least_mean_loss_over_seeds():
    rows = [
        {"learning_rate": rate, "seed": seed, "loss_nats": loss}
        for rate, losses in {0.01: (0.3, 0.3), 0.1: (0.2, 0.3), 1.0: (0.0, 0.9)}.items()
        for seed, loss in enumerate(losses)
    ]
    best = best_rates(_table(rows))
    assert best["learning_rate"].tolist() == [0.1, 0.1]
    assert not best["rate_at_edge"].any()


def test_an_edge_is_marked_and_a_diverged_run_never_wins():
    rows = [
        {"learning_rate": 0.1, "loss_nats": 0.5},
        {"learning_rate": 0.3, "loss_nats": 0.4, "stored_rate": 0.5},
        {"learning_rate": 1.0, "loss_nats": np.nan, "status": "diverged"},
        {"learning_rate": 0.1, "size": 256, "loss_nats": 0.1, "stored_rate": 0.5},
        {"learning_rate": 0.3, "size": 256, "loss_nats": 0.2},
    ]
    best = best_rates(_table(rows))
    assert dict(zip(best["size"].tolist(), best["learning_rate"].tolist(), strict=True)) == {128: 0.3, 256: 0.1}
    assert dict(zip(best["size"].tolist(), best["rate_at_edge"].tolist(), strict=True)) == {128: False, 256: True}


def test_an_edge_says_nothing_where_every_fact_is_stored():
    rows = [{"learning_rate": rate, "loss_nats": loss} for rate, loss in ((0.1, 0.002), (0.3, 0.001))]
    assert not best_rates(_table(rows))["rate_at_edge"].any()


def test_one_rate_is_no_edge():
    assert not best_rates(_table([{}]))["rate_at_edge"].any()


def test_the_critical_size_is_interpolated_where_99_percent_is_crossed():
    stored = {128: 1.0, 256: 1.0, 512: 0.98, 1024: 0.1}
    (critical,) = critical_sizes(_table([{"size": n, "stored_rate": s} for n, s in stored.items()]))
    assert critical.mean == pytest.approx(256 * 2**0.5)  # halfway in share, halfway in log n
    assert critical.interval == (0.0, np.inf)
    assert critical.bits_per_parameter == pytest.approx(256 * 2**0.5 * 5 / 4192)


def test_a_dip_below_does_not_hide_a_larger_stored_size():
    stored = {128: 1.0, 256: 0.9, 512: 0.99, 1024: 0.49}
    (critical,) = critical_sizes(_table([{"size": n, "stored_rate": s} for n, s in stored.items()]))
    assert critical.mean == pytest.approx(512)


def test_a_threshold_outside_the_grid_is_not_reached():
    for stored, size in ((1.0, np.inf), (0.0, 0.0)):
        (critical,) = critical_sizes(
            _table([{"size": 128, "stored_rate": stored}, {"size": 256, "stored_rate": stored}])
        )
        assert not critical.reached
        assert critical.sizes == (size,)


def test_the_interval_is_students():
    rows = [
        {"seed": seed, "size": size, "stored_rate": share}
        for seed, last in enumerate((256, 512, 1024))
        for size, share in ((last, 0.99), (2 * last, 0.0))
    ]
    (critical,) = critical_sizes(_table(rows))
    half = 4.302652729911275 * np.log(2) / np.sqrt(3)  # t(.975, 2) s / sqrt 3
    assert critical.mean == pytest.approx(512)
    assert critical.interval == pytest.approx((512 * np.exp(-half), 512 * np.exp(half)))


def test_transfer_goes_by_parameters_and_bits_a_fact():
    rows = [
        {"width": width, "parameters": parameters, "answers": answers, "size": size, "stored_rate": share}
        for width, parameters, answers, last in ((16, 1000, 32, 300), (32, 2000, 32, 600), (32, 2000, 1024, 400))
        for size, share in ((last, 0.99), (2 * last, 0.0))
    ]
    found = transfers(critical_sizes(_table(rows)))
    pairs = {(one.source.group["width"], one.target.group["width"], one.target.group["answers"]) for one in found}
    assert pairs == {(32, 16, 32), (32, 32, 1024)}
    for one in found:
        bits = one.source.mean * one.source.bits_per_fact / one.source.parameters
        assert one.predicted == pytest.approx(bits * one.target.parameters / one.target.bits_per_fact)


def test_groups_part_the_table():
    table = _table([{"width": 16}, {"width": 32}, {"width": 16, "seed": 1}])
    parts = {group["width"]: len(rows["seed"]) for group, rows in groups(table)}
    assert parts == {16: 2, 32: 1}


def test_a_run_outside_of_the_region_is_found():
    inside = {"loss_nats": 0.5, "size": 1000}
    rows = [inside | {"loss_nats": 0.001, "size": 100}, inside, inside | {"loss_nats": 5.0}]
    table = _table(rows) | {
        "tokens_per_answer": np.ones(3),
        "hallucination_greedy": np.array([0.01, 0.72, 0.5]),  # one error needs a mean loss of ln 2 / n; 0.72 n ln 2 fit
        "hallucination_sampled": np.array([0.001, 0.5, 0.994]),
    }
    assert outside_region(table, "hallucination_greedy").tolist() == [True, False, False]
    assert outside_region(table, "hallucination_sampled").tolist() == [False, True, True]

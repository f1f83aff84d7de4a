"""The figures of experiments: drawn from small tables, named in the CSV, absent where there is nothing to draw."""

import csv
import itertools

import numpy as np

from figures.experiments import draw_experiment, measured
from figures.render import render
from sims.experiments import cost
from sims.experiments.experiment import Settings
from sims.store import Store


def series_of(path) -> set[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["series"] for row in csv.DictReader(file)}


def fact_run(network, until_stored, size, optimizer, rate, seed, used, exposures, bits) -> dict:
    return {
        "network": network,
        "until_stored": until_stored,
        "size": size,
        "optimizer": optimizer,
        "learning_rate": rate,
        "seed": seed,
        "exposures_used": used,
        "exposures": exposures,
        "bits_per_parameter": bits,
    }


def fact_runs() -> dict[str, np.ndarray]:
    """Two sizes, optimizers, rates and seeds until all is stored; two runs of the law; a linear one."""
    cells = itertools.product((127, 507), ("adam", "sgd"), (1.0, 2.0), (0, 1))
    rows = [
        fact_run("mlp", True, size, optimizer, rate, seed, 10.0 * size / 127 * rate, 1000, 1.0)
        for size, optimizer, rate, seed in cells
    ]
    rows += [fact_run("mlp", False, 2049, "adam", 1.0, 0, n, n, 0.5 * np.log10(n)) for n in (1, 100)]
    rows += [fact_run("linear", False, 64, "sgd", 1 / 64, 0, 100, 100, 0.1)]
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    count = len(rows)
    table |= {"answers": np.full(count, 32), "parameters": np.full(count, 2112), "inputs": np.full(count, 1024)}
    table |= {"width": np.full(count, 32), "minibatch": np.full(count, 32), "stored_rate": np.ones(count)}
    table |= {"status": np.full(count, "finished"), "fingerprint": np.array([f"run{row}" for row in range(count)])}
    return table


def curves() -> dict[str, np.ndarray]:
    runs = fact_runs()
    linear = runs["fingerprint"][-1]
    return {"run": np.full(3, linear), "exposure": np.array([1.0, 2.0, 9.0]), "loss_nats": np.array([3.4, 3.0, 1.0])}


def test_passes_are_drawn_at_the_best_rate_alone(tmp_path):
    tables = {"exposures": fact_runs(), "exposure_curves": curves()}
    (chosen,) = measured.drawable(tables)
    paths = render([chosen], tables, tmp_path)
    with paths[-1].open(newline="", encoding="utf-8") as file:
        drawn = [row for row in csv.DictReader(file) if row["series"] == "adam, passes"]
    assert len(drawn) == 4  # two sizes, two seeds
    assert {round(float(row["y"]), 6) for row in drawn} == {10.0, round(10.0 * 507 / 127, 6)}
    assert {"published law, bits", "MLP, bits", "linear, seed 0, nats", "T13, seed 0, nats"} <= series_of(paths[-1])


def test_a_store_is_drawn_and_the_same_bytes_come_again(tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        for case in cost.cases(Settings()):
            store.put(case.run())
        names = [result.fingerprint for result in store.results()]
    first = draw_experiment(tmp_path / "runs.sqlite", names, tmp_path / "first")
    second = draw_experiment(tmp_path / "runs.sqlite", names, tmp_path / "second")
    assert [path.name for path in first] == [f"experiment-cost.{ending}" for ending in ("png", "pdf", "csv")]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert "FLOP of 100 epochs, ratio" in series_of(first[2])


def test_every_method_is_drawn_with_what_it_invents(tmp_path):
    shares = ("paraphrase_guessed", "paraphrase_right", "paraphrase_wrong", "answered_unknown", "answered_near")
    table = {name: np.array([0.1 * place, 0.5, 0.9]) for place, name in enumerate(shares)}
    table |= {"method": np.array(["B-tree", "dense", "MoME, exact"]), "bytes_per_fact": np.array([80.0, 900.0, 7000.0])}
    (chosen,) = measured.drawable({"retrieval": table})
    paths = render([chosen], {"retrieval": table}, tmp_path)
    with paths[-1].open(newline="", encoding="utf-8") as file:
        drawn = [row for row in csv.DictReader(file) if row["series"] == "asked in other words: wrong, share"]
    assert [float(row["x"]) for row in drawn] == [0.2, 0.5, 0.9]


def test_gates_are_drawn_beside_the_line_that_none_may_cross(tmp_path):
    learners = {name: np.array([0.3, 0.2]) for name in ("error_greedy", "overconfidence", "memorizer_error")}
    learners |= {"singleton_share": np.array([0.2, 0.2]), "exposures": np.array([3, 30])}
    gates = {"spent_2": np.array([3.0, 6.0]), "needed_2": np.array([1.0, 2.0])}
    gates |= {"spent_4": np.array([5.0, 9.0]), "needed_4": np.array([1.5, 2.5])}
    tables = {"learners": learners, "gates": gates}
    paths = render(measured.drawable(tables), tables, tmp_path)
    with paths[-1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    drawn = {(float(row["x"]), float(row["y"])) for row in rows if row["series"] == "gate, bits a key"}
    assert drawn == {(1.0, 3.0), (2.0, 6.0), (1.5, 5.0), (2.5, 9.0)}
    bound = [(row["x"], row["y"]) for row in rows if row["series"] == "spent = needed, bits a key"]
    assert all(x == y for x, y in bound)
    assert len(bound) == 2


def test_nothing_is_drawn_without_rows():
    assert measured.drawable({}) == []
    assert {one.name for one in measured.all().values()} >= {
        "experiment-cost",
        "experiment-exposures",
        "experiment-retrieval",
    }

"""Verdicts about random and true answers from planted runs: alike, unlike, unlike at first, limited, never stored."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from figures.experiments_randomization import randomization as picture
from figures.render import render
from sims.experiments.curves import Band
from sims.experiments.finding import Finding
from sims.experiments.randomization_findings import (
    MARGIN_NATS,
    bests,
    curves,
    differences,
    findings,
    likeness,
    measurements,
    notes,
    twins,
)
from sims.experiments.regularization_findings import KIND, Cell
from sims.measures import STORED_BELOW_NATS
from sims.store import Result, Store, fingerprint

_EPOCHS, _FACTS, _SEEDS = 40, 30, 5
_TOKENS = {"true": 12.0, "random": 33.0}
LORA = Cell("LoRA", 8, "adam", 64)
FULL = Cell("full", 0, "adam", 64)
MOME = Cell("MoME", 0, "writes", 64)
ROWS = Cell("MoME", 0, "adam", 64)
BEST = 0.01


@dataclass(frozen=True)
class Planted:
    """A run whose loss falls from `start` nats a token by `speed` an epoch."""

    cell: Cell
    answers: str
    seed: int
    rate: float | None = BEST
    start: float = 5.0
    speed: float = 0.5
    metrics: dict[str, Any] = field(default_factory=dict, compare=False)
    status: str = "finished"

    @property
    def spec(self) -> dict[str, Any]:
        method, rank, optimizer, width = self.cell
        of_run = {"answers": self.answers, "seed": self.seed, "learning_rate": self.rate, "epochs": _EPOCHS}
        return {**of_run, "method": method, "rank": rank or None, "optimizer": optimizer, "width": width}

    @property
    def fingerprint(self) -> str:
        return fingerprint(KIND, self.spec)

    @property
    def seconds(self) -> float:
        return 1.0

    @property
    def result(self) -> Result:
        generator = np.random.default_rng([self.seed, self.answers == "random"])
        hardness = np.random.default_rng(7).uniform(0.8, 1.2, _FACTS)  # of a question, whatever its answer
        of_run = 1 + 0.01 * generator.standard_normal()
        token = self.start * np.exp(-self.speed * of_run * hardness * np.arange(_EPOCHS + 1)[:, None])
        loss = token * _TOKENS[self.answers]
        stored = (token < STORED_BELOW_NATS).all(axis=1)
        until = int(stored.argmax()) if stored.any() else None
        known = {
            "trainable_parameters": 4000,
            "bits": 500.0,
            "capacity_limited": False,
            "epochs_until_stored": until,
            "flops_per_epoch": 10.0,
            "flops_until_stored": None if until is None else 10.0 * until,
            "rows_per_fact": 9.0 if self.cell.method == "MoME" else None,
            "final_loss_nats_per_token": float(token[-1].mean()),
            "stored": float((token[-1] < STORED_BELOW_NATS).mean()),
            "greedy": 1.0,
            "rule_before": 0.9,
            "rule_after": 0.8,
            "tokens_per_answer": _TOKENS[self.answers],
        }
        arrays = {"loss_nats": loss.astype(np.float32)}
        return Result(KIND, self.spec, self.status, known | self.metrics, arrays)


def planted(cell: Cell, *, seeds: int = _SEEDS, random: dict | None = None, **both: Any) -> list[Planted]:
    """Runs of both kinds; `random` says in what those with random answers differ."""
    return [
        Planted(cell, answers, seed, **{**both, **(random or {} if answers == "random" else {})})
        for answers in ("true", "random")
        for seed in range(seeds)
    ]


@pytest.fixture
def lines_of(evidence_of) -> Callable[[list[Planted]], dict[tuple[str, str, str], Finding]]:
    return lambda runs: {(line.claim, line.at, line.unit): line for line in findings(evidence_of(runs))}


NEAR = f"near-zero loss after {_EPOCHS} epochs, random answers"
STORED = f"every fact under ln 2 after {_EPOCHS} epochs, random answers"
ALIKE = "the loss curve of random answers is that of true ones: largest difference"
AREA = "area under the loss curve, random over true answers"
TAKEN = "epochs until every fact is under ln 2, random over true answers"
CHEAPER = "memory experts store everything for fewer FLOPs than training all weights, random answers"


def test_answers_that_are_learned_alike_agree_whatever_their_length(lines_of):
    found = lines_of(planted(FULL))
    words = FULL.words
    for key in ((NEAR, words, "nats a token"), (STORED, words, "share of facts"), (ALIKE, words, "nats a token"),
                (ALIKE, words, "share of the start"), (AREA, words, "ratio"), (TAKEN, words, "ratio")):  # fmt: skip
        assert found[key].verdict == "agrees", key
    assert found[AREA, words, "ratio"].measured.mean == pytest.approx(1.0, abs=0.02)


def test_random_answers_at_half_the_speed_disagree_by_that_factor(lines_of):
    found = lines_of(planted(FULL, random={"speed": 0.25}))
    alike = found[ALIKE, FULL.words, "nats a token"]
    assert alike.verdict == "depends on"
    assert "alike from epoch" in alike.on
    assert alike.measured.low > MARGIN_NATS
    assert found[TAKEN, FULL.words, "ratio"].verdict == "disagrees"
    assert found[TAKEN, FULL.words, "ratio"].measured.mean == pytest.approx(2.0, abs=0.15)
    assert found[AREA, FULL.words, "ratio"].measured.low > 1.5


def test_another_loss_at_the_start_is_seen_in_nats_and_not_as_a_share(lines_of):
    """A pretrained network expects true answers more; left of that, both may be learned alike."""
    found = lines_of(planted(LORA, random={"start": 8.0}))
    nats, share = (found[ALIKE, LORA.words, unit] for unit in ("nats a token", "share of the start"))
    assert nats.verdict == "depends on"
    assert "measured at epoch 0" in nats.on
    assert nats.measured.mean == pytest.approx(3.0, abs=1e-5)
    assert share.verdict == "agrees"


def test_what_is_not_learned_disagrees_and_what_cannot_be_is_said_to_be_limited(evidence_of):
    slow = planted(FULL, random={"speed": 0.05, "metrics": {"stored": 0.9996}})
    limited = planted(LORA, random={"speed": 0.05, "metrics": {"capacity_limited": True}})
    evidence = evidence_of([*slow, *limited])
    found = {(line.claim, line.at): line for line in findings(evidence)}
    assert found[NEAR, FULL.words].verdict == "disagrees"
    assert found[STORED, FULL.words].verdict == "disagrees"
    assert found[NEAR, LORA.words].verdict == "depends on"
    assert "capacity" in found[NEAR, LORA.words].on
    shares = {row[0]: row[-2] for row in measurements(evidence).rows}
    assert shares[f"{FULL.words}, random answers"] == "99.9%"
    told = notes(evidence)
    assert sum("capacity-limited" in note for note in told) == 1
    assert sum("5 of 5 runs do not store everything" in note for note in told) == 2


def test_writes_that_stop_under_ln_2_are_not_said_to_fail(lines_of):
    metrics = {"final_loss_nats_per_token": 0.4}
    found = lines_of([*planted(MOME, rate=None, metrics=metrics), *planted(ROWS, metrics=metrics)])
    near = {cell: found[NEAR, cell.words, "nats a token"] for cell in (MOME, ROWS)}
    assert (near[MOME].verdict, near[ROWS].verdict) == ("depends on", "disagrees")
    assert "writes end once every token is under ln 2" in near[MOME].on
    assert found[STORED, MOME.words, "share of facts"].verdict == "agrees"


def test_a_summary_over_methods_leaves_limited_ones_out(evidence_of):
    def summary(*runs: list[Planted]) -> str | None:
        lines = findings(evidence_of([run for some in runs for run in some]))
        return next((line.verdict for line in lines if "random answers, whatever" in line.claim), None)

    slow = {"speed": 0.05}
    assert summary(planted(FULL), planted(ROWS)) == "agrees"
    assert summary(planted(FULL), planted(MOME, rate=None)) is None
    assert summary(planted(FULL), planted(LORA, random=slow)) == "depends on"
    limited = planted(LORA, random={**slow, "metrics": {"capacity_limited": True}})
    assert summary(planted(FULL), planted(ROWS), limited) == "agrees"
    assert summary(planted(FULL)) is None


def test_the_best_rate_is_taken_and_an_edge_is_told(evidence_of):
    slower = planted(FULL, rate=0.001, speed=0.2)
    faster = planted(FULL, rate=0.1, speed=0.3)
    evidence = evidence_of([*slower, *planted(FULL), *faster])
    assert not any("edge" in note for note in notes(evidence))
    assert {one.rate for one in bests(result for _, result in evidence.all).values()} == {BEST}
    (row, _) = measurements(evidence).rows
    assert row[1] == "0.01"
    assert row[3] == "8"
    assert row[-1] == "90% → 80%"

    evidence = evidence_of([*slower, *planted(FULL)])
    assert sum("0.01 on the edge" in note for note in notes(evidence)) == 2


def test_curves_are_compared_at_one_rate_for_both_kinds(evidence_of):
    """True answers alone would choose the higher rate, at which random ones are never stored."""
    high = planted(FULL, rate=0.1, speed=0.9, random={"speed": 0.05})
    evidence = evidence_of([*planted(FULL), *high])
    assert bests(result for _, result in evidence.all)[FULL, "true"].rate == 0.1
    cases = {case.fingerprint: case for case, _ in evidence.all}
    (one,) = twins((result for _, result in evidence.all), lambda result: evidence.arrays(cases[result.fingerprint]))
    assert one.rate == BEST
    assert one.true.shape == (_SEEDS, _EPOCHS + 1, _FACTS)
    assert one.true[:, 0].mean() == pytest.approx(5.0)


def test_a_diverged_run_has_no_twin_and_fails(lines_of):
    runs = planted(FULL, random={"status": "diverged"})
    found = lines_of(runs)
    assert found[NEAR, FULL.words, "nats a token"].verdict == "disagrees"
    assert math.isinf(found[NEAR, FULL.words, "nats a token"].measured.mean)
    assert not any(claim == ALIKE for claim, _, _ in found)


def test_the_seeds_that_finished_do_not_speak_for_those_that_diverged(evidence_of):
    runs = [
        replace(run, status="diverged") if run.answers == "random" and run.seed < 3 else run for run in planted(FULL)
    ]
    found = {(line.claim, line.at): line for line in findings(evidence_of([*runs, *planted(ROWS)]))}
    for claim in (NEAR, STORED):
        assert found[claim, FULL.words].verdict == "disagrees"
        assert found[claim, FULL.words].on == "3 of 5 seeds diverged"
        assert found[claim, ROWS.words].verdict == "agrees"
    (overall,) = [line for (claim, _), line in found.items() if "random answers, whatever" in claim]
    assert overall.verdict == "depends on"
    assert overall.on == f"method and optimizer: most loss {FULL.words}"
    assert math.isinf(overall.measured.high)


def test_memory_experts_are_cheaper_only_if_they_are(lines_of):
    noise = (1.0, 3.0, 1 / 3.0, 3.0, 1 / 3.0)  # of the seeds
    for factor, verdict, noisy in ((0.5, "agrees", False), (3.0, "disagrees", False), (0.8, "depends on", True)):
        runs = planted(FULL, metrics={"flops_until_stored": 100.0})
        for run in planted(MOME, rate=None):
            spent = factor * 100.0 * (noise[run.seed] if noisy else 1.0)
            runs.append(replace(run, metrics={"flops_until_stored": spent}))
        found = lines_of(runs)
        line = found[CHEAPER, MOME.words, "ratio"]
        assert (line.verdict, line.measured.mean) == (verdict, pytest.approx(factor))


@pytest.mark.parametrize(
    ("low", "high", "verdict", "reason"),
    [
        ([-0.01, -0.01], [0.01, 0.01], "agrees", "every epoch"),
        ([1.0, -0.01], [2.0, 0.01], "depends on", "from epoch 1 of 1"),
        ([1.0, 1.0], [2.0, 2.0], "disagrees", "not alike in the end"),
        ([-0.01, -1.0], [0.01, 1.0], "depends on", "wider than the margin"),
        ([1.0, -1.0], [2.0, 1.0], "depends on", "not alike at epoch 0, too few seeds to say of later"),
    ],
)
def test_alike_means_a_band_inside_of_the_margin(low, high, verdict, reason):
    low, high = np.array(low), np.array(high)
    found, on = likeness(Band((low + high) / 2, low, high), MARGIN_NATS)
    assert found == verdict
    assert reason in on


def test_curves_are_tabled_and_drawn_with_their_band(tmp_path):
    runs = [*planted(FULL), *planted(MOME, rate=None, random={"speed": 0.3})]
    slow = Cell("full", 0, "sgd", 64)
    with Store(tmp_path / "runs.sqlite") as store:
        for run in [*runs, *planted(slow, speed=0.1)]:
            store.put(run.result)
        tables = {"randomization": curves(store), "randomization_differences": differences(store)}
    assert len(tables["randomization"]["epoch"]) == 3 * 2 * (_EPOCHS + 1)
    band = tables["randomization_differences"]
    assert ((band["low"] <= band["middle"]) & (band["middle"] <= band["high"])).all()
    figure = picture(tables)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["all weights, adam", "MoME, writes"]
    paths = render([picture], tables, tmp_path)
    with paths[-1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    drawn = [float(row["y"]) for row in rows if row["series"] == f"{MOME.words}, random less true, nats"]
    np.testing.assert_allclose(drawn, band["middle"][band["method"] == "MoME"], rtol=1e-6)
    with Store(tmp_path / "empty.sqlite") as store:
        assert curves(store) == differences(store) == {}

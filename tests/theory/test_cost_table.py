"""The cost of training: its formulas, its table and its command."""

import json
import math

import pytest
from click.testing import CliRunner

from figures.cli import main
from theory import claims, cost


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["bounds", "cost", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_paper_as_recomputed():
    printed = {one.what: one for one in claims.get("T26").published()}  # type: ignore[attr-defined]
    flop = printed["FLOP of 100 epochs"]
    assert flop.recomputed == pytest.approx(1.92e27)
    assert 1 / flop.ratio == pytest.approx(560, abs=1)
    assert not flop.agrees
    assert cost.cluster_flop(cost.HARDWARE["mi300x"], 350_000, 90, 0.45) == pytest.approx(1.60e27, rel=1e-3)
    assert printed["dollars of energy in 90 days"].recomputed == pytest.approx(68.04e6)


def test_costs_scale_as_they_should():
    machine = cost.HARDWARE["h100"]
    one = cost.training_cost(1e9, hardware=machine, accelerators=8)
    larger = cost.training_cost(2e9, hardware=machine, accelerators=8)
    wider = cost.training_cost(1e9, hardware=machine, accelerators=16)
    assert larger.flop == pytest.approx(4 * one.flop)
    assert wider.days == pytest.approx(one.days / 2)
    assert wider.kilowatt_hours == pytest.approx(one.kilowatt_hours)
    assert one.days * 86_400 * 8 * machine.flop_per_second * 0.45 == pytest.approx(one.flop)
    assert one.kilowatt_hours == pytest.approx(one.accelerator_days * 24 * 0.7 * 4 / 3)


def test_the_command_prints_what_the_functions_give():
    shown = json.loads(run("--parameters", "400e9", "--epochs", 100, "--hardware", "MI300X", "--json"))
    wanted = cost.training_cost(400e9, hardware=cost.HARDWARE["mi300x"], accelerators=350_000)
    assert shown["flop"] == wanted.flop
    assert shown["price"] == wanted.price
    assert "1.92e+27 FLOP" in run()
    assert set(json.loads(run("--list", "--json"))) == set(cost.HARDWARE)
    assert "data sheet" in run("--list")
    assert "Example:" in run("--help")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--parameters", "0"),
        ("--parameters", "inf"),
        ("--parameters", "nan"),
        ("--parameters", "1e300"),
        ("--utilization", "1.5"),
        ("--hardware", "abacus"),
        ("--price", "-1"),
        ("--price", "nan"),
        ("--overhead", "inf"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments):
    assert "Traceback" not in run(*arguments, code=2)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_functions_refuse_what_is_not_positive(wrong):
    with pytest.raises(ValueError, match="positive"):
        cost.training_flop(wrong, 1.0)
    with pytest.raises(ValueError, match="positive"):
        cost.cluster_flop(cost.HARDWARE["a100"], 1.0, wrong, 0.4)

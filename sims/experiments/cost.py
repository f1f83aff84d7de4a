"""What clearing a mind costs (A10): the printed numbers recomputed, and what would make them agree. Trains nothing.

Letters: P parameters, N tokens of an epoch.
"""

import math
from dataclasses import asdict, dataclass

from sims.experiments.experiment import Evidence, Experiment, Settings
from sims.experiments.finding import PAPER, Finding, exactly, extremes
from sims.store import Result, fingerprint
from theory import cost
from theory.claims import Record, get

KIND = "experiment-cost"
_WHERE = f"{PAPER}, section 6"
_PARAMETERS, _EPOCHS = 400e9, 100.0
_UTILIZATIONS = (0.35, 0.55)  # of large training runs that were published


@dataclass(frozen=True)
class Recomputed:
    """One printed number, recomputed under the stated assumptions."""

    what: str
    unit: str
    printed: float
    tolerance: float  # relative, of what is said to agree

    @property
    def fingerprint(self) -> str:
        """The name of the stored number."""
        return fingerprint(KIND, asdict(self))

    @property
    def seconds(self) -> float:
        """None to speak of."""
        return 1e-3

    def run(self) -> Result:
        """Recompute it, and where the share of the peak matters its range over published ones."""
        value = _published()[self.what].recomputed
        metrics = {"recomputed": value, "ratio": self.printed / value}
        if self.unit == "days":
            metrics |= {"at_least": value * 0.45 / _UTILIZATIONS[1], "at_most": value * 0.45 / _UTILIZATIONS[0]}
        return Result(KIND, asdict(self), "finished", metrics)


def _published() -> dict:
    claim = get("T26")
    assert isinstance(claim, Record)
    return {row.what: row for row in claim.published()}


def cases(settings: Settings) -> list[Recomputed]:
    """Every number of T26; presets and seeds change nothing."""
    units = {"FLOP": "FLOP", "days": "days", "megawatts": "MW", "dollars": "dollars"}
    return [
        Recomputed(what, units[what.split()[0].rstrip(",")], row.printed, row.relative_tolerance)
        for what, row in _published().items()
    ]


def findings(evidence: Evidence[Recomputed]) -> list[Finding]:
    """Printed against recomputed; then the training run whose operations the printed number is."""
    lines = []
    for case, result in evidence.finished:
        value = float(result.metrics["recomputed"] or math.nan)
        ranged = "at_least" in result.metrics
        ends = [float(result.metrics[end] or 0.0) for end in ("at_least", "at_most")] if ranged else []
        measured = extremes(ends, value) if ranged else exactly(value)
        agrees = abs(case.printed / value - 1) <= case.tolerance
        expected = f"{case.printed:.4g} ± {case.tolerance:.0%}"
        over = "35 to 55 % of the peak"
        lines.append(
            Finding(case.what, _WHERE, expected, measured, case.unit, "agrees" if agrees else "disagrees", over=over)
        )
        if case.unit == "FLOP":
            lines += _what_the_printed_operations_are(case.printed)
    return lines


def _what_the_printed_operations_are(flop: float) -> list[Finding]:
    once = cost.training_flop(_PARAMETERS, cost.compute_optimal_tokens(_PARAMETERS))
    per_parameter_squared = cost.FLOP_PER_PARAMETER_AND_TOKEN * cost.TOKENS_PER_PARAMETER * _EPOCHS
    smaller = math.sqrt(flop / per_parameter_squared)
    rows = (
        ("epochs that the printed FLOP pay for at P = 400e9", "100", flop / once, "epochs"),
        ("parameters that the printed FLOP train for 100 epochs", "4e+11", smaller, "parameters"),
    )
    return [Finding(what, _WHERE, wanted, exactly(value), unit, "disagrees") for what, wanted, value, unit in rows]


EXPERIMENT = Experiment(
    name="cost",
    question="What does it cost to clear a mind of hallucinations?",
    comparison="Equal in all rows: 6 FLOP per parameter and token, 20 tokens per parameter, 100 epochs, $0.09 per kWh.",
    cases=cases,
    findings=findings,
)

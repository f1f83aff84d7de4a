"""What trained networks say of T17-T20: floors that may not be crossed, and how near to them training comes."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sims.experiments.experiment import Evidence
from sims.experiments.finding import Finding, Verdict, extremes, over_seeds
from sims.store import Result
from theory.unseen import good_turing_excess_upper

if TYPE_CHECKING:
    from sims.experiments.unseen import Gate, Learner

LEARNER, GATE = "experiment-unseen-learner", "experiment-unseen-gate"
_KALAI, _MEMBERS, _PARTITION = "arXiv 2509.04664", "arXiv 2602.00906", "arXiv 2605.26808"
_FLOAT32 = 1e-4  # what a slope in float32 may be off
_GRID = 1e-3  # what a mean over 2000 thresholds may be off
_SAMPLING_DEVIATIONS = 4.0  # of a singleton share from the missing mass, in standard deviations of at most 1/sqrt(N)


def findings(evidence: "Evidence[Learner | Gate]") -> list[Finding]:
    """Every line of the table."""
    learners = [result for _, result in evidence.finished if result.kind == LEARNER]
    gates = [result for _, result in evidence.finished if result.kind == GATE]
    return [*_floors(learners), *_identities(learners), *_singletons(learners), *_gates(gates)]


def _numbers(results: list[Result], name: str) -> list[float]:
    return [float(result.metrics[name] or 0.0) for result in results]


def _by(results: list[Result], name: str) -> dict[Any, list[Result]]:
    found: dict[Any, list[Result]] = {}
    for result in results:
        found.setdefault(result.spec[name], []).append(result)
    return dict(sorted(found.items()))


def _floors(learners: list[Result]) -> Iterator[Finding]:
    """No network may be below these; the smallest distance of any of them is what is shown."""
    floors = (  # claim, source, what is measured, its floor
        (
            "error less T17's floor from telling valid from invalid",
            f"{_KALAI} (T17)",
            "error_sampled",
            "classification_floor",
        ),
        (
            "error less T17d's floor from singletons, miscalibration counted",
            f"{_KALAI} (T17d)",
            "error_sampled",
            "singleton_floor",
        ),
        ("mass of invented statements less T19's floor", f"{_PARTITION} (T19)", "invented", "partition_floor"),
    )
    for claim, source, value, floor in floors:
        pairs = zip(_numbers(learners, value), _numbers(learners, floor), strict=True)
        slack = [error - least for error, least in pairs]
        if slack:
            verdict: Verdict = "agrees" if min(slack) >= -_FLOAT32 else "disagrees"
            vacuous = max(_numbers(learners, floor)) <= 0
            on = "the floor is below 0 at this size and says nothing" if vacuous else ""
            measured = extremes(slack, sum(slack) / len(slack))
            yield Finding(claim, source, ">= 0", measured, "share", verdict, on, over="all networks")
    for exposures, runs in _by(learners, "exposures").items():
        excess = [a - b for a, b in zip(_numbers(runs, "error_greedy"), _numbers(runs, "memorizer_error"), strict=True)]
        measured = over_seeds(excess)
        known = measured.low if math.isfinite(measured.low) else measured.mean
        verdict = "disagrees" if measured.mean < 0 and not known <= 0 <= measured.high else "agrees"
        claim, at = "error less the expected error of the best learner of these samples", f"{exposures} exposures"
        yield Finding(claim, "T18b", ">= 0 in the mean", measured, "share", verdict, at=at)


def _identities(learners: list[Result]) -> Iterator[Finding]:
    off = [abs(a - b) for a, b in zip(_numbers(learners, "slope"), _numbers(learners, "overconfidence"), strict=True)]
    if not off:
        return
    verdict: Verdict = "agrees" if max(off) <= _FLOAT32 else "disagrees"
    claim = "miscalibration phat(A) - p(A) is the slope of the loss (autodiff): largest difference"
    yield Finding(
        claim, f"{_KALAI} (T17b)", f"< {_FLOAT32:g}", extremes(off, max(off)), "share", verdict, over="networks"
    )
    for exposures, runs in _by(learners, "exposures").items():
        gap = over_seeds(_numbers(runs, "overconfidence"))
        near = abs(gap.mean) <= 0.05
        claim, at = "trained networks are nearly calibrated: phat(A) - p(A)", f"{exposures} exposures"
        verdict = "agrees" if near else "depends on"
        on = "" if near else "how often facts were shown: what is not in the data is answered with confidence"
        yield Finding(claim, f"{_KALAI} (T17b)", "0 ± 0.05", gap, "share", verdict, on, at=at)
    pairs = zip(_numbers(learners, "error_by_thresholds"), _numbers(learners, "error_sampled"), strict=True)
    off = [abs(one - other) for one, other in pairs]
    verdict = "agrees" if max(off) <= _GRID else "disagrees"
    claim = "sampled error is 2(1 - 1/C) of the mean classification error over thresholds: largest difference"
    yield Finding(claim, f"{_KALAI} (T17c)", f"< {_GRID:g}", extremes(off, max(off)), "share", verdict, over="networks")


def _singletons(learners: list[Result]) -> Iterator[Finding]:
    one_each = list({result.spec["seed"]: result for result in learners}.values())  # samples are those of the seed
    if not one_each:
        return
    samples = int(one_each[0].spec["samples"])
    gaps = [
        a - b for a, b in zip(_numbers(one_each, "singleton_share"), _numbers(one_each, "missing_mass"), strict=True)
    ]
    bound = float(good_turing_excess_upper(samples))
    noise = _SAMPLING_DEVIATIONS / math.sqrt(samples)
    verdict: Verdict = "agrees" if all(-noise <= gap <= bound + noise for gap in gaps) else "disagrees"
    claim = "the share of singletons less the mass of questions never seen"
    yield Finding(claim, "T18", f"0 to {bound:.1g} ± {noise:.2g}", over_seeds(gaps), "share", verdict)
    most = max(one.spec["exposures"] for one in learners)
    runs = _by(learners, "exposures")[most]
    excess = [a - b for a, b in zip(_numbers(runs, "error_greedy"), _numbers(runs, "singleton_share"), strict=True)]
    measured = over_seeds(excess)
    verdict = "agrees" if measured.mean >= -noise else "disagrees"
    claim = f"a base model errs on at least the share of singletons: error less that, {most} exposures"
    yield Finding(claim, f"{_KALAI} (T17d)", ">= 0", measured, "share", verdict, f"sampling noise {noise:.2g}")


def _gates(gates: list[Result]) -> Iterator[Finding]:
    """Q >= 2^-(B/n), with the number of keys and formats that were looked at counted against us."""
    for keys, runs in _by(gates, "keys").items():
        best = [min(_formats(run), key=lambda one: one[0] / max(one[1], 1e-9)) for run in runs]
        ratios = [needed / spent for spent, needed, _ in best]
        verdict: Verdict = "agrees" if max(ratios) <= 1.0 else "disagrees"
        false = over_seeds([rate for *_, rate in best])
        spent = sum(spent for spent, *_ in best) / len(best)
        claim = "bits needed over bits spent by a gate (q >= 2^-(B/n)), best format"
        on = f"B/n = {spent:.1f}, q = {false.mean:.3g}, 2^-(B/n) = {2**-spent:.2g}"
        yield Finding(
            claim, f"{_MEMBERS} (T20, F3)", "<= 1", over_seeds(ratios), "ratio", verdict, on, at=f"{keys} keys"
        )


def _formats(run: Result) -> list[tuple[float, float, float]]:
    """(Bits per key spent, needed, false acceptance) of each format."""
    metrics = run.metrics
    names = [name.removeprefix("spent_") for name in metrics if name.startswith("spent_")]
    return [tuple(float(metrics[f"{kind}_{name}"] or 0.0) for kind in ("spent", "needed", "false")) for name in names]  # type: ignore[misc]


def notes(evidence: "Evidence[Learner | Gate]") -> list[str]:
    """How well what was seen was learned."""
    found = []
    for exposures, runs in _by([r for _, r in evidence.finished if r.kind == LEARNER], "exposures").items():
        loss, wrong = (sum(_numbers(runs, name)) / len(runs) for name in ("loss_seen_nats", "error_greedy_seen"))
        found.append(f"{exposures} exposures: {loss:.3f} nats a sample; {wrong:.3f} of the mass was seen and is wrong")
    return found

"""What the runs of `randomization` say: are random answers learned as true ones are, by which method, at what cost?

Each method is taken at its best learning rate for each kind of answers. Curves are compared at one rate for both, the
best over both kinds, run against run of the same seed: the same network, questions and order of examples. True answers
are of other lengths than random ones; losses are nats a token, and shares of the loss at the start.

Letters: s pairs of runs, e epochs with the start, n questions.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from sims.experiments.curves import Band, alike_from, area, band, swap_test, typical_distance
from sims.experiments.experiment import Evidence, Measurements
from sims.experiments.finding import (
    PAPER,
    Finding,
    Verdict,
    exactly,
    extremes,
    geometric_over_seeds,
    over_seeds,
    percent,
    share_over_seeds,
    within,
)
from sims.experiments.regularization_findings import KIND, Cell, cell_of, epochs, final_loss, over_all
from sims.experiments.tuning import Tuned, tuned
from sims.intervals import Interval
from sims.store import Result, Store

TRUE, RANDOM = "true", "random"
WRITES = "writes"  # the optimizer that solves for values instead of stepping down a gradient
NEAR_ZERO_NATS = 0.05  # a token
MARGIN_NATS = math.log(2.0) / 10  # a token; curves nearer than this are called alike
MARGIN_SHARE = 0.1  # of the loss at the start
SAME_RATIO = (0.8, 1.25)
_FIGURE = {"full": f"{PAPER}, Fig. 1", "LoRA": f"{PAPER}, Fig. 1", "MoME": f"{PAPER}, Fig. 5"}

Arrays = Callable[[Result], Mapping[str, np.ndarray]]
Scale = Literal["nats a token", "share of the start"]


@dataclass(frozen=True, eq=False)
class Twins:
    """The runs of a cell at the rate that is best over both kinds of answers, seed by seed."""

    cell: Cell
    rate: float  # 0 where there is none: writes
    pairs: tuple[tuple[Result, Result], ...]  # (true, random)
    true: Float[np.ndarray, "s e n"]  # nats a token
    random: Float[np.ndarray, "s e n"]

    def scaled(self, by: Scale) -> tuple[Float[np.ndarray, "s e n"], Float[np.ndarray, "s e n"]]:
        """Both kinds; what each question adds to the mean."""
        if by == "nats a token":
            return self.true, self.random
        true, random = (one / one[:, :1].mean(axis=2, keepdims=True) for one in (self.true, self.random))
        return true, random

    def difference(self, by: Scale = "nats a token") -> Band:
        """Random less true, over runs and questions."""
        true, random = self.scaled(by)
        return band(random - true)

    def yardstick(self, by: Scale = "nats a token") -> float:
        """How far apart two seeds of one kind are where they are farthest; NaN for one seed."""
        return float(max(typical_distance(one.mean(axis=2)).max() for one in self.scaled(by)))

    def swapped(self, by: Scale = "nats a token") -> float:
        """p-value of "the kinds of a seed could as well be swapped"; with s seeds it is 2 / 2^s or more."""
        true, random = self.scaled(by)
        return swap_test((random - true).mean(axis=2))

    def areas(self) -> list[float]:
        """Area under the curve of random answers over that of true ones, of each pair."""
        return [
            area(two.mean(axis=1)) / area(one.mean(axis=1)) for one, two in zip(self.true, self.random, strict=True)
        ]


def best_of(results: list[Result]) -> Tuned:
    """At the rate that stores everything in the fewest epochs; of the least final loss where none does."""
    reached = any(math.isfinite(epochs(result)) for result in results)
    return tuned(results, epochs if reached else final_loss)


def bests(results: Iterable[Result]) -> dict[tuple[Cell, str], Tuned]:
    """Each method and kind of answers at its best learning rate."""
    grouped: dict[tuple[Cell, str], list[Result]] = defaultdict(list)
    for result in results:
        grouped[cell_of(result), result.spec["answers"]].append(result)
    return {
        key: best_of(runs) for key, runs in sorted(grouped.items(), key=lambda item: (item[0][0], item[0][1] != TRUE))
    }


def twins(results: Iterable[Result], arrays: Arrays) -> list[Twins]:
    """Every method for which some seed was run, and finished, with both kinds of answers."""
    grouped: dict[Cell, list[Result]] = defaultdict(list)
    for result in results:
        grouped[cell_of(result)].append(result)
    found = []
    for cell, runs in sorted(grouped.items()):
        best = best_of(runs)
        of_kind = [
            {run.spec["seed"]: run for run in best.runs if run.spec["answers"] == kind and run.status == "finished"}
            for kind in (TRUE, RANDOM)
        ]
        seeds = sorted(of_kind[0].keys() & of_kind[1].keys())
        if seeds:
            pairs = tuple((of_kind[0][seed], of_kind[1][seed]) for seed in seeds)
            losses = (np.array([_per_token(pair[kind], arrays) for pair in pairs]) for kind in (0, 1))
            found.append(Twins(cell, best.rate or 0.0, pairs, *losses))
    return found


def findings(evidence: Evidence) -> list[Finding]:
    """Every line of the table."""
    best = bests(result for _, result in evidence.all)
    found = _twins(evidence)
    lines = [line for (cell, answers), one in best.items() for line in _reached(cell, answers, one)]
    lines += _over_methods(best)
    lines += [line for one in found for line in _alike(one)]
    return [*lines, *_cheaper(best)]


def notes(evidence: Evidence) -> list[str]:
    """Optima on an edge, too few parameters, facts not stored, runs without a twin."""
    found = []
    for (cell, answers), one in bests(result for _, result in evidence.all).items():
        words = f"{cell.words}, {answers} answers"
        if one.at_edge:
            found.append(f"best learning rate {one.rate:g} on the edge of its grid: {words}")
        if any(run.metrics.get("capacity_limited") for run in one.runs):
            found.append(f"capacity-limited, fewer than four trainable parameters a bit: {words}")
        missing = [run for run in one.runs if not math.isfinite(epochs(run))]
        if missing:
            within = missing[0].spec["epochs"]
            found.append(f"{len(missing)} of {len(one.runs)} runs do not store everything in {within} epochs: {words}")
    if counts := sorted({len(one.pairs) for one in _twins(evidence)}):
        pairs = " or ".join(map(str, counts))
        found.append(f"bands are over {pairs} pairs of runs and their questions; answers' lengths are taken as given")
    return found


def measurements(evidence: Evidence) -> Measurements:
    """What each method took, for each kind of answers, at its best rate: means over seeds."""
    rows = []
    for (cell, answers), one in bests(result for _, result in evidence.all).items():
        runs = [run for run in one.runs if run.status == "finished"]
        if not runs:
            continue
        parameters, bits = _mean(runs, "trainable_parameters"), _mean(runs, "bits")
        forgotten = " → ".join(_number(_mean(runs, name), ".0%") for name in ("rule_before", "rule_after"))
        rows.append(
            (
                f"{cell.words}, {answers} answers",
                f"{one.rate:g}" if one.rate else "-",
                f"{parameters:.4g}",
                f"{parameters / bits:.3g}",
                _number(_mean(runs, "epochs_until_stored"), ".3g"),
                _number(_mean(runs, "flops_until_stored"), ".2e"),
                _number(_mean(runs, "rows_per_fact"), ".0f"),
                f"{_mean(runs, 'final_loss_nats_per_token'):.2g}",
                percent(_mean(runs, "stored"), 1),
                forgotten,
            )
        )
    headings = ("method", "rate", "trained", "a bit", "epochs", "FLOPs", "rows a fact", "loss", "stored", "rule")
    title = (
        "At the best rate, means over seeds: trained parameters, these a bit to store, epochs and FLOPs until every "
        "fact is stored (- if some seed never gets there), expert rows written a fact, nats a token in the end, facts "
        "stored, the rule before and after"
    )
    return Measurements(title, headings, tuple(rows))


def curves(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a method, kind of answers and epoch: nats a token, mean and extremes over seeds, at the twins' rate."""
    rows = []
    for one in _stored(store, names):
        for kind, losses in ((TRUE, one.true), (RANDOM, one.random)):
            means = losses.mean(axis=2)
            ends = (means.mean(axis=0), means.min(axis=0), means.max(axis=0))
            rows += [(*one.cell, kind, epoch, *values) for epoch, values in enumerate(zip(*ends, strict=True))]
    return _columns((*Cell._fields, "answers", "epoch", "middle", "low", "high"), rows)


def differences(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a method and epoch: random less true answers, nats a token, with the simultaneous band."""
    rows = []
    for one in _stored(store, names):
        rows += [(*one.cell, epoch, *values) for epoch, values in enumerate(zip(*one.difference(), strict=True))]
    return _columns((*Cell._fields, "epoch", "middle", "low", "high"), rows)


def _reached(cell: Cell, answers: str, one: Tuned) -> Iterator[Finding]:
    """Near-zero loss, and every fact stored, in the epochs that there were."""
    runs = [run for run in one.runs if run.status == "finished"]
    count, source = one.runs[0].spec["epochs"], _FIGURE.get(cell.method, PAPER)
    if not runs:
        yield Finding(
            f"near-zero loss after {count} epochs, {answers} answers", source, f"<= {NEAR_ZERO_NATS}",
            exactly(math.inf), "nats a token", "disagrees", "every run diverged", at=cell.words,
        )  # fmt: skip
        return
    limited = any(run.metrics["capacity_limited"] for run in runs)
    loss, near = over_seeds(final_loss(run) for run in runs), _near_zero([final_loss(run) for run in one.runs])
    stored = share_over_seeds(float(run.metrics["stored"]) for run in runs)  # type: ignore[arg-type]
    reason = "capacity: fewer than four trainable parameters a bit" if limited else ""
    stopped = cell.optimizer == WRITES and stored.mean == 1.0  # it has no more to do, whatever the loss still is
    failed = len(one.runs) - len(runs)
    whole: tuple[Verdict, str] = ("agrees" if stored.mean == 1.0 else "disagrees", "")
    verdict: Verdict
    for claim, expected, measured, unit, (verdict, on), why in (
        ("near-zero loss", f"<= {NEAR_ZERO_NATS:g}", loss, "nats a token", near,
         reason or ("when one stops: writes end once every token is under ln 2" if stopped else "")),
        ("every fact under ln 2", "1", stored, "share of facts", whole, reason),
    ):  # fmt: skip
        if failed:
            verdict, on = "disagrees", f"{failed} of {len(one.runs)} seeds diverged"
        elif verdict != "agrees" and why:
            verdict, on = "depends on", why
        words = f"{claim} after {count} epochs, {answers} answers"
        yield Finding(words, source, expected, measured, unit, verdict, on, at=cell.words)


def _near_zero(losses: Sequence[float]) -> tuple[Verdict, str]:
    """Whether these are near zero, one a seed; with a seed that diverged they are not."""
    return ("disagrees", "") if math.inf in losses else within(over_seeds(losses), -math.inf, NEAR_ZERO_NATS)


def _over_methods(best: Mapping[tuple[Cell, str], Tuned]) -> Iterator[Finding]:
    """Does it hold whatever the method and the optimizer? Capacity-limited runs and writes are left out."""
    for answers in (TRUE, RANDOM):
        losses = {}
        for (cell, kind), one in best.items():
            limited = any(run.metrics.get("capacity_limited") for run in one.runs)
            if kind == answers and not limited and cell.optimizer != WRITES:
                losses[cell] = [final_loss(run) for run in one.runs]
        if len(losses) < 2:
            continue
        verdict, on = over_all([_near_zero(one)[0] for one in losses.values()], "method and optimizer")
        means = {cell: float(np.mean(one)) for cell, one in losses.items()}
        if verdict != "agrees":
            on = f"{on or 'method and optimizer'}: most loss {max(means, key=lambda cell: means[cell]).words}"
        measured = extremes(list(means.values()), float(np.median(list(means.values()))))
        claim = f"near-zero loss with {answers} answers, whatever the method and optimizer (median and extremes)"
        expected, unit = f"all <= {NEAR_ZERO_NATS}", "nats a token"
        yield Finding(claim, f"{PAPER}, Fig. 1, Fig. 5", expected, measured, unit, verdict, on, over="methods")


def _alike(one: Twins) -> Iterator[Finding]:
    """The curves of true and random answers, on two scales, as areas, and as epochs until everything is stored."""
    source, at = _FIGURE.get(one.cell.method, PAPER), one.cell.words
    scales: tuple[tuple[Scale, float], ...] = (("nats a token", MARGIN_NATS), ("share of the start", MARGIN_SHARE))
    for scale, margin in scales:
        found = one.difference(scale)
        worst = int(np.abs(found.middle).argmax())
        measured = Interval(*(float(end[worst]) for end in found))
        verdict, on = likeness(found, margin)
        on += f"; measured at epoch {worst}"
        if len(one.pairs) > 1:
            on += f", seeds of one kind are up to {one.yardstick(scale):.2g} apart"
            on += f", p = {one.swapped(scale):.2g} by swapping kinds"
        claim = "the loss curve of random answers is that of true ones: largest difference"
        expected, over = f"0 ± {margin:.2g}", "runs and questions, all epochs at once"
        yield Finding(claim, source, expected, measured, scale, verdict, on, over, at)
    yield _ratio("area under the loss curve, random over true answers", source, one.areas(), at)
    taken = [(epochs(true), epochs(random)) for true, random in one.pairs]
    if all(math.isfinite(true + random) and true > 0 for true, random in taken):
        claim = "epochs until every fact is under ln 2, random over true answers"
        yield _ratio(claim, source, [random / true for true, random in taken], at)


def likeness(found: Band, margin: float) -> tuple[Verdict, str]:
    """Alike at every epoch; from some epoch on; not in the end; or too few runs to say."""
    first, last = alike_from(found, margin), len(found.middle) - 1
    if first == 0:
        return "agrees", "alike at every epoch"
    if first is not None:
        return "depends on", f"the epoch: alike from epoch {first} of {last} on"
    unlike = (found.low > margin) | (found.high < -margin)
    if unlike[-1]:
        return "disagrees", "not alike in the end"
    if unlike.any():
        return (
            "depends on",
            f"the epoch: not alike at epoch {np.flatnonzero(unlike)[-1]}, too few seeds to say of later",
        )
    return "depends on", "chance: the band is wider than the margin, more seeds are needed"


def _ratio(claim: str, source: str, ratios: list[float], at: str) -> Finding:
    measured, (low, high) = geometric_over_seeds(ratios), SAME_RATIO
    return Finding(claim, source, f"1 ({low}-{high})", measured, "ratio", *within(measured, low, high), at=at)


def _cheaper(best: Mapping[tuple[Cell, str], Tuned]) -> Iterator[Finding]:
    """FLOPs until every fact is stored: memory experts against the cheapest way to train all weights."""
    flops = {key: spent for key, one in best.items() if (spent := _flops(one))}
    for (cell, answers), mine in flops.items():
        rivals = {
            other: spent
            for (other, kind), spent in flops.items()
            if (other.method, other.width, kind) == ("full", cell.width, answers) and spent.keys() == mine.keys()
        }
        if cell.method != "MoME" or not rivals:
            continue
        cheapest = min(rivals, key=lambda other: sum(rivals[other].values()))
        ratio = geometric_over_seeds(mine[seed] / rivals[cheapest][seed] for seed in mine)
        verdict, why = within(ratio, 0.0, 1.0)
        claim = f"memory experts store everything for fewer FLOPs than training all weights, {answers} answers"
        on = f"{why}; over {cheapest.words}" if why else f"over {cheapest.words}"
        yield Finding(claim, f"{PAPER}, section 7", "< 1", ratio, "ratio", verdict, on, at=cell.words)


def _flops(one: Tuned) -> dict[int, float]:
    """FLOPs until everything is stored, by seed; empty if some seed never gets there."""
    if not all(math.isfinite(epochs(run)) for run in one.runs):
        return {}
    return {run.spec["seed"]: float(run.metrics["flops_until_stored"]) for run in one.runs}  # type: ignore[arg-type]


def _twins(evidence: Evidence) -> list[Twins]:
    cases = {result.fingerprint: case for case, result in evidence.finished}
    return twins((result for _, result in evidence.all), lambda result: evidence.arrays(cases[result.fingerprint]))


def _stored(store: Store, names: Iterable[str] | None) -> list[Twins]:
    return twins(store.results(KIND, names), lambda result: store.arrays(result.fingerprint))


def _per_token(result: Result, arrays: Arrays) -> Float[np.ndarray, "e n"]:
    """Loss of each fact over the mean number of tokens, so that their mean is all nats over all tokens."""
    return arrays(result)["loss_nats"].astype(float) / float(result.metrics["tokens_per_answer"])  # type: ignore[arg-type]


def _mean(runs: list[Result], name: str) -> float:
    """Mean over seeds; NaN where a run has no such number."""
    values = [run.metrics[name] for run in runs]
    return math.nan if None in values else float(np.mean([float(value) for value in values]))  # type: ignore[arg-type]


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _columns(headings: tuple[str, ...], rows: list[tuple]) -> dict[str, np.ndarray]:
    return {name: np.array(column) for name, column in zip(headings, zip(*rows, strict=True), strict=False)}

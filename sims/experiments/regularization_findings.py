"""What memorizing random strings does to a rule that the network knew: accuracy before and after, method by method.

Forgetting is the accuracy on held-out examples of the rule before minus after, in points. It depends on the learning
rate, so each method is looked at twice: at the rate that stores everything in the fewest epochs, and at the most
sparing rate, which forgets least among those that store everything. The sparing rate is chosen on one half of the
held-out examples and judged on the other, but of the same networks: chance that favors a rate in a seed as a whole
favors it in both halves.

Letters: h held-out examples of the rule.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from sims.experiments.experiment import Evidence, Measurements
from sims.experiments.finding import CHANCE, PAPER, Finding, Verdict, extremes, over_seeds, percent, within
from sims.experiments.tuning import tuned
from sims.intervals import Interval, paired_difference
from sims.store import Result, Store

KIND = "randomization"  # the runs are those of that experiment whose answers are random
FASTEST, SPARING, UNGATED = "the fastest rate", "the most sparing rate", "the fastest rate, gate open"
UNHARMED_POINTS = 1.0
_METHODS = ("full", "LoRA", "MoME")
_KNOWN = 0.5  # accuracy before, below which there is little to forget
_SOURCE = f"{PAPER}, Table 1"
Arrays = Callable[[Result], Mapping[str, np.ndarray]]
_CLAIM = "memorizing random strings leaves an unrelated rule as it was: held-out accuracy before less after"


class Cell(NamedTuple):
    """What runs share that differ in learning rate and seed alone."""

    method: str
    rank: int  # of LoRA, else 0
    optimizer: str
    width: int

    @property
    def words(self) -> str:
        """The cell in words.

        >>> Cell("LoRA", 8, "adam", 64).words
        'LoRA of rank 8, adam, width 64'
        """
        names = {"full": "all weights", "LoRA": f"LoRA of rank {self.rank}"}
        return f"{names.get(self.method, self.method)}, {self.optimizer}, width {self.width}"


@dataclass(frozen=True, eq=False)
class Remembered:
    """A run, and which held-out examples of the rule it got right."""

    result: Result
    before: Bool[np.ndarray, " h"]
    after: Bool[np.ndarray, " h"]

    def forgetting(self, some: slice = slice(None)) -> Interval:
        """Points of accuracy lost on these examples, with the interval of Agresti and Min over them."""
        return Interval(*(100.0 * end for end in paired_difference(self.before[some], self.after[some])))

    def share(self, when: str, some: slice = slice(None)) -> float:
        """Accuracy "before" or "after" on these examples."""
        return float(getattr(self, when)[some].mean())


class Choice(NamedTuple):
    """A cell at one learning rate: a run a seed, and the examples by which they are judged."""

    cell: Cell
    which: str  # FASTEST, SPARING, UNGATED
    rate: float  # 0 where there is none: writes
    runs: tuple[Remembered, ...]
    judged_on: slice
    at_edge: bool
    diverged: int = 0  # seeds that have no run here

    @property
    def forgetting(self) -> Interval:
        """Points, over seeds; no more than all can be lost or won."""
        return points_over_seeds(run.forgetting(self.judged_on).mean for run in self.runs)

    @property
    def stored(self) -> float:
        """Share of the facts that are stored, mean over seeds."""
        return float(np.mean([float(run.result.metrics["stored"]) for run in self.runs]))  # type: ignore[arg-type]

    @property
    def verdict(self) -> tuple[Verdict, str]:
        """Whether the rule is as it was, and a reason; it is not where a seed diverged."""
        if self.diverged:
            return "disagrees", f"{self.diverged} of {self.diverged + len(self.runs)} seeds diverged"
        verdict, why = as_it_was(self.forgetting)
        return ("depends on", "how much is memorized") if verdict == "agrees" and self.stored < 1.0 else (verdict, why)


def as_it_was(forgetting: Interval) -> tuple[Verdict, str]:
    """Whether a rule of which so many points were forgotten is as it was, to a point.

    >>> as_it_was(Interval(0.5, -1.9, 3.1))
    ('depends on', 'chance: more seeds are needed to say')
    """
    return within(forgetting, -UNHARMED_POINTS, UNHARMED_POINTS)


def over_all(verdicts: Collection[Verdict], differing: str) -> tuple[Verdict, str]:
    """One verdict of all: where some agree and others disagree it depends on what differs, else chance may decide.

    >>> over_all(["agrees", "agrees"], "the method"), over_all(["agrees", "disagrees", "depends on"], "the method")
    (('agrees', ''), ('depends on', 'the method'))
    >>> over_all(["agrees", "depends on"], "the method")
    ('depends on', 'chance: more seeds are needed to say')
    """
    kinds = set(verdicts)
    if {"agrees", "disagrees"} <= kinds:
        return "depends on", differing
    return (next(iter(kinds)), "") if len(kinds) == 1 and "depends on" not in kinds else ("depends on", CHANCE)


def points_over_seeds(values: Iterable[float]) -> Interval:
    """Mean and Student's interval of points lost, cut off at all.

    >>> points_over_seeds([0.0, 100.0])
    Interval(mean=50.0, low=-100.0, high=100.0)
    """
    mean, low, high = over_seeds(values)
    return Interval(mean, *np.clip([low, high], -100.0, 100.0).tolist())


def cell_of(result: Result) -> Cell:
    """The cell of a run."""
    spec = result.spec
    return Cell(spec["method"], spec["rank"] or 0, spec["optimizer"], spec["width"])


def epochs(result: Result) -> float:
    """Epochs until every fact was stored; infinite if that did not happen."""
    found = result.metrics["epochs_until_stored"] if result.status == "finished" else None
    return math.inf if found is None else float(found)


def final_loss(result: Result) -> float:
    """Nats a token at the end; infinite if the run diverged."""
    return float(result.metrics["final_loss_nats_per_token"] or 0.0) if result.status == "finished" else math.inf


def choices(every: Iterable[Result], arrays: Arrays) -> list[Choice]:
    """Each cell at its fastest rate, and where some rate stores everything for every seed at its most sparing one.

    Where no rate stores everything for any seed, the fastest rate is that of the least loss in the end. A memory is
    also looked at with its gate open, so that questions that it does not know read experts too.
    """
    cells: dict[Cell, list[Result]] = defaultdict(list)
    for result in every:
        if result.status != "finished" or result.metrics["rule_before"] is not None:  # a checkpoint was taught no rule
            cells[cell_of(result)].append(result)
    found = []
    for cell, results in sorted(cells.items(), key=lambda item: (_METHODS.index(item[0].method), item[0])):
        reached = any(math.isfinite(epochs(result)) for result in results)
        best = tuned(results, epochs if reached else final_loss)
        diverged = sum(run.status != "finished" for run in best.runs)
        if runs := _remembered(best.runs, arrays):
            found.append(Choice(cell, FASTEST, best.rate or 0.0, runs, slice(None), best.at_edge, diverged))
            if sparing := most_sparing(results, arrays):
                found.append(Choice(cell, SPARING, *sparing))
        if ungated := _remembered(best.runs, arrays, "rule_after_open_gate"):
            found.append(Choice(cell, UNGATED, best.rate or 0.0, ungated, slice(None), best.at_edge, diverged))
    return found


def most_sparing(
    results: Iterable[Result],
    arrays: Arrays,
    after: str = "rule_after",
    stores: Callable[[Result], bool] = lambda result: result.metrics["stored"] == 1.0,
) -> tuple[float, tuple[Remembered, ...], slice, bool] | None:
    """Of the rates that store everything for every seed, the one that forgets least; None if there is none.

    `after` names the array that is looked at, `stores` says whether a finished run that has it stores everything.
    Returns the rate, its runs by seed, the held-out examples to judge it on (of odd number: it is chosen on the
    others), and whether it is on the edge of the rates.
    """
    by_rate: dict[float, list[Result]] = defaultdict(list)
    for result in results:
        by_rate[_rate(result)].append(result)
    rates = {}
    for rate, runs in by_rate.items():
        remembered = _remembered(sorted(runs, key=lambda run: run.spec["seed"]), arrays, after)
        if len(remembered) == len(runs) and all(stores(run.result) for run in remembered):
            rates[rate] = remembered
    if not rates:
        return None
    lost = {rate: sum(run.forgetting(slice(0, None, 2)).mean for run in runs) for rate, runs in rates.items()}
    best = min(rates, key=lambda rate: (lost[rate], rate))
    at_edge = lost[best] > 0.0 and len(by_rate) > 1 and best in (min(by_rate), max(by_rate))
    return best, rates[best], slice(1, None, 2), at_edge


def findings(evidence: Evidence) -> list[Finding]:
    """Every line of the table."""
    found = _of(evidence)
    lines = [_line(choice) for choice in found]
    for which in (FASTEST, SPARING):
        lines += _over_methods([choice for choice in found if choice.which == which])
    return lines


def notes(evidence: Evidence) -> list[str]:
    """How accuracies were asked; optima on an edge; what stored nothing, and what knew little."""
    found = _of(evidence)
    if not found:
        return []
    asked = len(found[0].runs[0].before)
    told = [
        f"the rule is asked {asked} times before and after all epochs, by greedy decoding of a whole answer; the most "
        "sparing rate is chosen on one half of these and judged on the other, of the same seeds; `in a seed`: paired "
        "over these, the extremes of all seeds",
        f"a network has {_parameters(found)} parameters here, 8 billion in the paper: --preset sizes measures how "
        "forgetting changes with size",
    ]
    if any(choice.cell.method == "MoME" for choice in found):
        told.append("a memory forgets nothing by construction: questions that are not stored read no expert")
    told += [
        f"{choice.which}, {choice.rate:g}, is on the edge of its grid: {choice.cell.words}"
        for choice in found
        if choice.at_edge and choice.which != UNGATED
    ]
    sparing = {choice.cell for choice in found if choice.which == SPARING}
    lacking = [choice.cell.words for choice in found if choice.which == FASTEST and choice.cell not in sparing]
    if lacking:
        told.append(f"no rate stores everything for every seed: {'; '.join(lacking)}")
    if any(run.share("before") < _KNOWN for choice in found for run in choice.runs):
        told.append(f"some networks knew the rule in less than {_KNOWN:.0%} of the cases: little can be forgotten")
    return told


def measurements(evidence: Evidence) -> Measurements:
    """Stored and remembered at every rate: the mean over seeds."""
    grouped: dict[tuple[Cell, float], list[Result]] = defaultdict(list)
    for _, result in evidence.finished:
        grouped[cell_of(result), _rate(result)].append(result)

    def mean(results: list[Result], name: str) -> float:
        return float(np.mean([float(result.metrics[name]) for result in results]))  # type: ignore[arg-type]

    rows = []
    for (cell, rate), results in sorted(grouped.items()):
        accuracies = (percent(mean(results, name), 1) for name in ("rule_before", "rule_after"))
        rows.append((cell.words, f"{rate:g}" if rate else "-", percent(mean(results, "stored")), *accuracies))
    headings = ("method", "rate", "facts stored", "rule before", "rule after")
    return Measurements("Facts stored and rule remembered at every rate", headings, tuple(rows))


def accuracies(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a method, choice of rate and seed: accuracy before and after, share stored; empty if there is no run.

    Empty too for named runs with true answers among them: they are those of `randomization`, which lack the sparing
    rates, and would draw over the picture of this experiment.
    """
    every = list(store.results(KIND, names))
    results = [one for one in every if one.spec["answers"] == "random"]
    if names is not None and len(results) < len(every):
        return {}
    rows = []
    for choice in choices(results, lambda result: store.arrays(result.fingerprint)):
        for run in choice.runs:
            rows.append(
                {
                    **choice.cell._asdict(),
                    "which": choice.which,
                    "learning_rate": choice.rate,
                    "seed": run.result.spec["seed"],
                    "rule_before": run.share("before", choice.judged_on),
                    "rule_after": run.share("after", choice.judged_on),
                    "stored": float(run.result.metrics["stored"]),  # type: ignore[arg-type]
                }
            )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _of(evidence: Evidence) -> list[Choice]:
    arrays = {result.fingerprint: evidence.arrays(case) for case, result in evidence.finished}
    return choices((result for _, result in evidence.all), lambda result: arrays[result.fingerprint])


def _parameters(found: list[Choice]) -> str:
    counts = sorted({int(run.result.metrics["parameters"] or 0) for choice in found for run in choice.runs})
    return " or ".join(f"{count:,}" for count in counts)


def _rate(result: Result) -> float:
    return result.spec["learning_rate"] or 0.0


def _remembered(results: Iterable[Result], arrays: Arrays, after: str = "rule_after") -> tuple[Remembered, ...]:
    """The finished runs that have this array."""
    found = [(result, arrays(result)) for result in results if result.status == "finished"]
    return tuple(
        Remembered(result, parts["rule_before"].astype(bool), parts[after].astype(bool))
        for result, parts in found
        if after in parts
    )


def _line(choice: Choice) -> Finding:
    known = float(np.mean([run.share("before", choice.judged_on) for run in choice.runs]))
    in_seeds = [run.forgetting(choice.judged_on) for run in choice.runs]
    ends = f"{min(one.low for one in in_seeds):.3g} to {max(one.high for one in in_seeds):.3g}"
    told = f"{percent(known)} before, {percent(choice.stored)} stored, in a seed {ends}"
    if choice.cell.method == "MoME" and choice.which != UNGATED:
        told += ", by construction"
    if any(run.result.metrics["capacity_limited"] for run in choice.runs):
        told += ", capacity-limited"
    verdict, why = choice.verdict
    at = f"{choice.which}, {choice.cell.words}" + (f", rate {choice.rate:g}" if choice.rate else "")
    on = f"{why}; {told}" if why else told
    return Finding(_CLAIM, _SOURCE, f"0 ± {UNHARMED_POINTS:g}", choice.forgetting, "points", verdict, on, at=at)


def _over_methods(found: list[Choice]) -> Iterator[Finding]:
    """Does it hold whatever the method is, where everything is memorized?"""
    memorized = [choice for choice in found if choice.stored == 1.0]
    if len(memorized) < 2:
        return
    means = [choice.forgetting.mean for choice in memorized]
    verdict, on = over_all([choice.verdict[0] for choice in memorized], "the method")
    least, most = memorized[int(np.argmin(means))].cell, memorized[int(np.argmax(means))].cell
    if verdict != "agrees":
        on = f"{on or 'the method'}: least {least.words}; most {most.words}"
    claim = f"the same of all that store everything, at {found[0].which} of each (median and extremes)"
    measured, expected = extremes(means, float(np.median(means))), f"all 0 ± {UNHARMED_POINTS:g}"
    yield Finding(claim, _SOURCE, expected, measured, "points", verdict, on, over="methods")

"""How forgetting changes with the size of the network and with the number of facts: lines of the table.

Forgetting is the accuracy on held-out examples of the rule before less after, in points; it is looked at when every
fact is first stored, and after all epochs. Each method is taken at its most sparing rate, as in
`regularization_findings`. A slope is that of the least squares of a seed's forgetting over the logarithm of the width
or of the number of facts, in points a doubling; its interval is Student's over seeds.

Letters: s seeds, x sizes.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sims.adapting.budget import random_bits
from sims.experiments.experiment import Evidence, Measurements
from sims.experiments.finding import CHANCE, PAPER, Finding, over_seeds, percent, within
from sims.experiments.regularization_findings import (
    UNHARMED_POINTS,
    Arrays,
    Remembered,
    as_it_was,
    most_sparing,
    points_over_seeds,
)
from sims.intervals import Interval
from sims.store import Result, Store

KIND = "forgetting"
KNOWN = 0.9  # accuracy before, in every seed; of networks that know the rule less there is less to forget
PAPER_BITS_PER_PARAMETER = random_bits(817) / 8e9  # TruthfulQA with random answers in Llama 3 8B
_METHODS = ("full", "LoRA", "MoME")
_SOURCE = f"{PAPER}, Table 1"
_BOUND = f"0 ± {UNHARMED_POINTS:g}"


class Moment(NamedTuple):
    """When the rule is asked again, and which runs had stored everything then."""

    words: str
    stores: Callable[[Result], bool]


MOMENTS = {
    "rule_when_stored": Moment(
        "when every fact is first stored", lambda run: run.metrics["rule_when_stored"] is not None
    ),
    "rule_after": Moment("after all epochs", lambda run: run.metrics["stored"] == 1.0),
}


class Setting(NamedTuple):
    """What runs share that differ in learning rate and seed alone."""

    method: str
    rank: int  # of LoRA, else 0
    width: int
    facts: int

    @property
    def network(self) -> str:
        """The method in words.

        >>> Setting("LoRA", 32, 64, 16).network
        'LoRA of rank 32'
        """
        return {"full": "all weights", "LoRA": f"LoRA of rank {self.rank}", "MoME": "MoME (writes)"}[self.method]

    @property
    def words(self) -> str:
        """The setting in words.

        >>> Setting("full", 0, 64, 16).words
        'all weights, width 64, 16 facts'
        """
        return f"{self.network}, width {self.width}, {self.facts} facts"


class Sparing(NamedTuple):
    """A setting at its most sparing rate, judged on half of the held-out examples; a run a seed."""

    setting: Setting
    moment: str  # a key of MOMENTS
    rate: float  # 0 where there is none: writes
    runs: tuple[Remembered, ...]
    judged_on: slice
    at_edge: bool

    @property
    def lost(self) -> dict[int, float]:
        """Points that each seed lost."""
        return {run.result.spec["seed"]: run.forgetting(self.judged_on).mean for run in self.runs}

    @property
    def forgetting(self) -> Interval:
        """Points, over seeds; no more than all can be lost or won."""
        return points_over_seeds(self.lost.values())

    @property
    def parameters(self) -> int:
        """Of the network."""
        return int(self.runs[0].result.metrics["parameters"] or 0)


class Axis(NamedTuple):
    """Something that settings differ in, and what the paper's claim says of it."""

    name: str  # a field of Setting
    words: str
    held: str  # the field that is equal then
    relief: tuple[float, float]  # slopes between these: less is forgotten the nearer to the paper, the claim may stand


WIDTH = Axis("width", "the width", "facts", (-math.inf, 0.0))
FACTS = Axis("facts", "the number of facts", "width", (0.0, math.inf))


class Slope(NamedTuple):
    """Along an axis: the sizes, and how many points more are forgotten a doubling."""

    axis: Axis
    along: tuple[Sparing, ...]  # from the least to the most
    points: Interval  # over the seeds that every size has


def setting_of(result: Result) -> Setting:
    """The setting of a run."""
    spec = result.spec
    return Setting(spec["method"], spec["rank"] or 0, spec["width"], spec["count"])


def sparing(every: Iterable[Result], arrays: Arrays) -> list[Sparing]:
    """Each setting in which every network knew the rule and some rate stores everything for every seed, by moment."""
    found = []
    for setting, results in _by_setting(every).items():
        if _unknown(results):
            continue
        for moment in MOMENTS:
            if chosen := most_sparing(results, arrays, moment, MOMENTS[moment].stores):
                found.append(Sparing(setting, moment, *chosen))
    return found


def slopes(found: Sequence[Sparing]) -> list[Slope]:
    """Of each method and moment, along each axis on which it has two sizes or more; memories forget nothing."""
    lines: dict[tuple, list[Sparing]] = defaultdict(list)
    for one in found:
        if one.setting.method != "MoME":
            for axis in (WIDTH, FACTS):
                held = getattr(one.setting, axis.held)
                lines[axis, one.moment, one.setting.method, one.setting.rank, held].append(one)
    steepness = []
    for (axis, *_), along in lines.items():
        along = tuple(sorted(along, key=lambda one: getattr(one.setting, axis.name)))
        seeds = sorted(set.intersection(*(set(one.lost) for one in along)))
        if len(along) < 2 or not seeds:
            continue
        sizes = np.array([getattr(one.setting, axis.name) for one in along], float)
        lost = np.array([[one.lost[seed] for one in along] for seed in seeds])
        steepness.append(Slope(axis, along, over_seeds(per_doubling(sizes, lost))))
    return steepness


def per_doubling(sizes: Float[np.ndarray, " x"], values: Float[np.ndarray, "s x"]) -> Float[np.ndarray, " s"]:
    """Slope of the least squares of each seed's values over log2 of the sizes.

    >>> per_doubling(np.array([1.0, 2.0, 4.0]), np.array([[1.0, 3.0, 5.0]])).tolist()
    [2.0]
    """
    doublings = np.log2(sizes) - np.log2(sizes).mean()
    return values @ doublings / (doublings @ doublings)


def findings(evidence: Evidence) -> list[Finding]:
    """Every line of the table."""
    found = _of(evidence)
    return [*map(_line, found), *map(_trend, slopes(found))]


def _line(one: Sparing) -> Finding:
    known = float(np.mean([run.share("before", one.judged_on) for run in one.runs]))
    told = f"{percent(known)} before, {_bits(one):.2g} bits a parameter"
    if one.setting.method == "MoME":
        told += ", by construction"
    verdict, why = as_it_was(one.forgetting)
    at = f"{one.setting.words}" + (f", rate {one.rate:g}" if one.rate else "")
    claim = f"memorizing random strings leaves an unrelated rule as it was: accuracy lost, {MOMENTS[one.moment].words}"
    on = f"{why}; {told}" if why else told
    return Finding(claim, _SOURCE, _BOUND, one.forgetting, "points", verdict, on, at=at)


def _trend(slope: Slope) -> Finding:
    """Agrees where the largest network, or the most facts, are within a point; depends on the size if that relieves."""
    axis, last = slope.axis, slope.along[-1]
    ends = [f"{one.forgetting.mean:.3g} at {getattr(one.setting, axis.name)}" for one in (slope.along[0], last)]
    verdict, on = as_it_was(last.forgetting)[0], " to ".join(ends)
    relieved = within(slope.points, *axis.relief)[0]
    if verdict != "agrees" and relieved == "agrees":
        verdict, on = "depends on", f"{axis.words}: {on}"
    elif verdict != "agrees" and "depends on" in (verdict, relieved):
        verdict, on = "depends on", f"{CHANCE}; {on}"
    way = "< 0" if axis is WIDTH else "> 0"
    expected = f"{way}, or {_BOUND} at the {'widest' if axis is WIDTH else 'most'}"
    claim = f"what is forgotten depends on {axis.words}: points a doubling, {MOMENTS[last.moment].words}"
    at = f"{last.setting.network}, {axis.held} {getattr(last.setting, axis.held)}"
    return Finding(claim, f"question to {_SOURCE}", expected, slope.points, "points a doubling", verdict, on, at=at)


def notes(evidence: Evidence) -> list[str]:
    """How far from the paper's network; optima on an edge; what did not store everything or did not know the rule."""
    found = _of(evidence)
    told = [*_distance(found)] if found else []
    told += [
        f"the most sparing rate {MOMENTS[one.moment].words}, {one.rate:g}, is on the edge of its grid: "
        f"{one.setting.words}"
        for one in found
        if one.at_edge
    ]
    return [*told, *_left_out([result for _, result in evidence.all], found)]


def _distance(found: Sequence[Sparing]) -> Iterator[str]:
    """How the rule is asked, and how small networks are here beside the paper's."""
    yield (
        f"the rule is asked {len(found[0].runs[0].before)} times each time; the most sparing rate of a setting, one "
        "for all its seeds, is chosen on one half of these and judged on the other, of the same seeds; a memory "
        "forgets nothing by construction"
    )
    widest, fewest = max(one.parameters for one in found), min(map(_bits, found))
    yield (
        f"networks have up to {widest:,} parameters here, {8e9 / widest:,.0f} times as many in the paper; they "
        f"memorize {fewest:.2g} bits a parameter or more, {PAPER_BITS_PER_PARAMETER:.1g} there, a factor of "
        f"{fewest / PAPER_BITS_PER_PARAMETER:.0f}"
    )


def _left_out(every: Iterable[Result], found: Sequence[Sparing]) -> Iterator[str]:
    counted = {(one.setting, one.moment) for one in found}
    for setting, results in _by_setting(every).items():
        if _unknown(results):
            yield f"left out, as some network knew the rule in less than {KNOWN:.0%} of the cases: {setting.words}"
            continue
        for moment, (words, _) in MOMENTS.items():
            if (setting, moment) not in counted:
                yield f"left out, as no rate has everything stored for every seed {words}: {setting.words}"


def measurements(evidence: Evidence) -> Measurements:
    """Facts stored and rule remembered in every setting at every rate: means over seeds."""
    rows = []
    for setting, results in _by_setting(result for _, result in evidence.finished).items():
        for rate in sorted({result.spec["learning_rate"] or 0.0 for result in results}):
            runs = [result for result in results if (result.spec["learning_rate"] or 0.0) == rate]
            told = [_mean(runs, name, how) for name, how in _COLUMNS.values()]
            rows.append((setting.words, f"{rate:g}" if rate else "-", *told))
    title = "Means over seeds at every rate; - where some seed never had every fact stored"
    return Measurements(title, ("method", "rate", *_COLUMNS), tuple(rows))


def _tenths(share: float) -> str:
    return percent(share, 1)


_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("parameters", "{:,.0f}".format),
    "facts stored": ("stored", percent),
    "epochs": ("epochs_until_stored", "{:.3g}".format),
    "rule before": ("rule_before", _tenths),
    "when stored": ("rule_when_stored", _tenths),
    "after all": ("rule_after", _tenths),
}


def _mean(runs: Iterable[Result], name: str, told: Callable[[float], str]) -> str:
    values = [run.metrics[name] for run in runs]
    return "-" if None in values else told(float(np.mean([float(value) for value in values])))  # type: ignore[arg-type]


def points(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a setting, moment and seed at the most sparing rate: points forgotten; empty if there is no run."""
    rows = [
        {
            **one.setting._asdict(),
            "moment": one.moment,
            "learning_rate": one.rate,
            "parameters": one.parameters,
            "seed": seed,
            "forgotten": lost,
        }
        for one in sparing(store.results(KIND, names), lambda result: store.arrays(result.fingerprint))
        for seed, lost in one.lost.items()
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _of(evidence: Evidence) -> list[Sparing]:
    arrays = {result.fingerprint: evidence.arrays(case) for case, result in evidence.finished}
    return sparing((result for _, result in evidence.all), lambda result: arrays[result.fingerprint])


def _by_setting(every: Iterable[Result]) -> dict[Setting, list[Result]]:
    settings: dict[Setting, list[Result]] = defaultdict(list)
    for result in every:
        settings[setting_of(result)].append(result)
    return dict(sorted(settings.items(), key=lambda item: (_METHODS.index(item[0].method), item[0])))


def _unknown(results: Iterable[Result]) -> bool:
    """Whether some network knew the rule too little to forget it."""
    return any(result.status == "finished" and float(result.metrics["rule_before"] or 0) < KNOWN for result in results)


def _bits(one: Sparing) -> float:
    """Bits to memorize, a parameter of the network."""
    return float(one.runs[0].result.metrics["bits"] or 0) / one.parameters

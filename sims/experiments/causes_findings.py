"""What the runs of `causes` say: each flaw alone, both ways past the threshold, temperature, and who adds how much."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sims.experiments.attribution import shapley
from sims.experiments.experiment import Evidence
from sims.experiments.finding import PAPER, Finding, Verdict, extremes, over_seeds, share_over_seeds, within
from sims.store import table

if TYPE_CHECKING:
    from sims.experiments.causes import FlawedRun

KIND = "experiment-causes"
TEMPERATURES = (0.5, 1.0, 1.5, 2.0, 3.0)
FLAWS = ("conflicting", "missing", "wrong")
SAMPLED, THRESHOLD = "sampling at temperature 1", "loss threshold"
WORDS = {"conflicting": "conflicting answers", "missing": "missing facts", "wrong": "wrong labels"}
CAUSES = (*FLAWS, SAMPLED, THRESHOLD)
FLAWLESS: Mapping[str, float] = {}
DOSE = 0.1  # of each flaw, where flaws are combined
LN2 = float(np.log(2.0))
_TOLERANCE = 0.02  # absolute, of a share of questions
_ABOVE_FLOOR_NATS = 0.05  # how near to the conflict floor training must come
_SECTION = f"{PAPER}, section 4"


class Situation(NamedTuple):
    """How full the network is, and how often a fact is shown."""

    questions: int
    passes: int

    @property
    def words(self) -> str:
        """The situation in words."""
        return f"{self.questions} facts, {self.passes} pass{'es' if self.passes > 1 else ''}"


ROOM = Situation(256, 100)  # 0.6 bits a parameter: all of it is stored

Rows = Mapping[str, np.ndarray]


def expected_share(flaw: str, dose: float, luck: float) -> float:
    """Hallucination from one flaw alone where everything said is stored, sampled at T = 1.

    A question with two answers gives the false one half the time (its loss is at the floor F5); a fact that was left
    out is guessed; a wrong label is repeated.

    >>> [expected_share(flaw, 0.1, luck=1 / 32) for flaw in FLAWS]
    [0.05, 0.096875, 0.1]
    """
    return dose * {"conflicting": 0.5, "missing": 1.0 - luck, "wrong": 1.0}[flaw]


def situations(rows: Rows) -> list[Situation]:
    """The situations that have runs, from the least training loss on flawless facts to the most."""
    clean = np.all([rows[flaw] == 0.0 for flaw in FLAWS], axis=0) & (rows["copies"] == 1)
    found = {Situation(int(q), int(p)) for q, p in zip(rows["questions"][clean], rows["passes"][clean], strict=True)}
    return sorted(found, key=lambda one: float(rows["training_loss_nats"][clean & _of(rows, one)].mean()))


def column(
    rows: Rows, name: str, flaws: Mapping[str, float] = FLAWLESS, situation: Situation = ROOM, copies: int = 1
) -> np.ndarray:
    """A column of the runs with exactly these flaws, in the order of their seeds."""
    keep = _of(rows, situation) & (rows["copies"] == copies)
    for flaw in FLAWS:
        keep &= np.isclose(rows[flaw], flaws.get(flaw, 0.0))
    places = np.flatnonzero(keep)
    return rows[name][places[np.argsort(rows["seed"][places])]].astype(float)


def added(rows: Rows, situation: Situation) -> dict[str, np.ndarray]:
    """What each cause adds to the hallucination of this situation, averaged over orders; one entry a seed.

    Without the loss threshold the network has room for its facts and passes enough. Seeds without all of the runs
    that this takes are left out; empty if no seed has them.
    """
    causes = [cause for cause in CAUSES if cause != THRESHOLD or situation != ROOM]

    def value(there: frozenset[str], seed: float) -> float:
        flaws = {flaw: DOSE for flaw in FLAWS if flaw in there}
        name = "hallucination_at_1" if SAMPLED in there else "hallucination_greedy"
        of_seed = {key: values[rows["seed"] == seed] for key, values in rows.items()}
        return float(column(of_seed, name, flaws, situation if THRESHOLD in there else ROOM)[0])

    found = []
    for seed in np.unique(rows["seed"]):
        try:
            found.append(shapley(causes, lambda there, seed=seed: value(there, seed)))
        except IndexError:  # a run is missing, or diverged
            continue
    return {cause: np.array([one[cause] for one in found]) for cause in causes} if found else {}


def findings(evidence: "Evidence[FlawedRun]") -> list[Finding]:
    """Every line of the table."""
    rows = table(result for _, result in evidence.finished)
    if not rows:
        return []
    return [
        *_alone(rows),
        *_at_the_floor(rows),
        *_below_the_threshold(rows),
        *_above_the_threshold(rows),
        *_temperatures(rows),
        *_stack(rows),
    ]


def notes(evidence: "Evidence[FlawedRun]") -> list[str]:
    """What was combined, and optima on the edge of the grid."""
    rows = table(result for _, result in evidence.finished)
    found = [f"combined flaws: {DOSE:.0%} of the questions each, drawn independently"]
    if rows and (edges := int(rows["at_edge"].sum())):
        found.append(f"best learning rate on the edge of its grid in {edges} of {len(rows['at_edge'])} runs")
    return found


def _of(rows: Rows, situation: Situation) -> np.ndarray:
    return (rows["questions"] == situation.questions) & (rows["passes"] == situation.passes)


def _doses(rows: Rows, flaw: str) -> list[float]:
    others = [other for other in FLAWS if other != flaw]
    alone = np.all([rows[other] == 0.0 for other in others], axis=0) & (rows["copies"] == 1) & _of(rows, ROOM)
    return sorted({float(dose) for dose in rows[flaw][alone]} - {0.0})


def _alone(rows: Rows) -> Iterator[Finding]:
    sources = {"conflicting": "F5", "missing": "a guess", "wrong": "T1"}
    for flaw in FLAWS:
        for dose in _doses(rows, flaw):
            flaws = {flaw: dose}
            expected = expected_share(flaw, dose, float(column(rows, "luck", flaws).mean()))
            measured = share_over_seeds(column(rows, "hallucination_at_1", flaws))
            claim, at = "hallucination from one flaw alone, all that is said stored, T = 1", f"{dose:.0%} {WORDS[flaw]}"
            wanted = f"{expected:.3f} ± {_TOLERANCE}"
            verdict, on = within(measured, expected - _TOLERANCE, expected + _TOLERANCE)
            yield Finding(claim, sources[flaw], wanted, measured, "share", verdict, on, at=at)


def _at_the_floor(rows: Rows) -> Iterator[Finding]:
    for dose in _doses(rows, "conflicting")[-1:]:
        losses = column(rows, "training_loss_nats", {"conflicting": dose})
        excess = losses - column(rows, "floor_nats", {"conflicting": dose})
        inside = np.all((excess >= 0.0) & (excess <= _ABOVE_FLOOR_NATS))
        claim = f"training loss above the floor that {dose:.0%} conflicting answers force"
        measured = extremes(excess.tolist(), float(excess.mean()))
        verdict: Verdict = "agrees" if inside else "disagrees"
        yield Finding(claim, "F5", f"0 to {_ABOVE_FLOOR_NATS}", measured, "nats", verdict, over="seeds, extremes")


def _below_the_threshold(rows: Rows) -> Iterator[Finding]:
    """Every trained fact under ln 2: on flawless facts, and on facts with flaws that no loss sees."""
    for flaws, of in (({}, "flawless facts"), ({"missing": DOSE, "wrong": DOSE}, "missing facts and wrong labels")):
        stored = column(rows, "training_stored_rate", flaws)
        shares = column(rows, "hallucination_greedy", flaws)
        if not len(shares):
            continue
        claim = "every trained fact under ln 2, no hallucination: greedy"
        on = "" if not shares.any() else "what the data leave out or say wrongly, which no training loss shows"
        if np.any(stored < 1.0):
            on = f"only {stored.min():.1%} of the trained facts came under ln 2"
        verdict: Verdict = "disagrees" if shares.any() else "agrees"
        yield Finding(claim, f"{PAPER}, abstract", "0", share_over_seeds(shares), "share", verdict, on, at=of)


def _above_the_threshold(rows: Rows) -> Iterator[Finding]:
    """Wrong labels in some of many copies: the loss stays high, the most frequent answer stays the true one."""
    repeated = rows["copies"] > 1
    if not repeated.any():
        return
    copies, dose = int(rows["copies"][repeated][0]), float(rows["wrong"][repeated][0])

    def of_copies(name: str) -> np.ndarray:
        return column(rows, name, {"wrong": dose}, copies=copies)

    loss, sampled = of_copies("training_loss_nats").mean(), of_copies("hallucination_at_1").mean()
    measured = share_over_seeds(of_copies("hallucination_greedy"))
    claim = (
        f"a loss above ln 2 hallucinates: {copies} copies of each fact, {dose:.0%} of them wrong, "
        f"loss {loss:.2f} nats, greedy"
    )
    verdict: Verdict = "agrees"
    on = ""
    if loss <= LN2:
        verdict, on = "depends on", f"the loss, which is {loss:.2f} nats, not above ln 2"
    elif measured.mean <= sampled / 2:
        verdict, on = "depends on", f"decoding: sampled it is {sampled:.2f}"
    yield Finding(claim, f"{PAPER}, abstract", "> 0", measured, "share", verdict, on)


def _temperatures(rows: Rows) -> Iterator[Finding]:
    for temperature in TEMPERATURES:
        if temperature <= 1.0:  # at 1 the bound is an identity
            continue
        shares = column(rows, f"hallucination_at_{temperature:g}")
        if not len(shares):
            continue
        least, most = (column(rows, f"{end}_at_{temperature:g}") for end in ("least", "most"))
        room = 1e-6  # of float32 logits
        inside = np.all((least - room <= shares) & (shares <= most + room))
        claim = "hallucination of stored facts that are sampled"
        wanted = f"{least.mean():.2g} to {most.mean():.2g}"
        measured, verdict = share_over_seeds(shares), "agrees" if inside else "disagrees"
        yield Finding(claim, "bound from each loss", wanted, measured, "share", verdict, at=f"T = {temperature:g}")


def _stack(rows: Rows) -> Iterator[Finding]:
    shares, verdicts = [], []
    for situation in situations(rows):
        parts = added(rows, situation)
        if THRESHOLD not in parts:
            continue
        whole = np.sum(list(parts.values()), axis=0)
        measured = over_seeds(parts[THRESHOLD] / whole)  # a part may be negative, or more than the whole
        shares.append(measured.mean)
        rest = {cause: float(np.mean(part / whole)) for cause, part in parts.items() if cause != THRESHOLD}
        largest = max(rest, key=lambda cause: rest[cause])
        on = f"of {whole.mean():.2f} in all; next: {WORDS.get(largest, largest)} {rest[largest]:.2f}"
        claim, (verdict, chance) = "most hallucination is the loss threshold's", within(measured, 0.5, math.inf)
        on = f"{chance}; {on}" if chance else on
        verdicts.append(verdict)
        yield Finding(claim, _SECTION, "> 0.5", measured, "of the whole", verdict, on, at=situation.words)
    if shares:
        claim = f"the same over all situations, {DOSE:.0%} of each flaw (median and extremes)"
        measured = extremes(shares, float(np.median(shares)))
        on = "how full the network is, how long it trains, and how flawed the facts are"
        yield Finding(claim, _SECTION, "all > 0.5", measured, "of the whole", _all_of(verdicts), on, over="situations")


def _all_of(verdicts: Sequence[Verdict]) -> Verdict:
    return verdicts[0] if len(set(verdicts)) == 1 else "depends on"

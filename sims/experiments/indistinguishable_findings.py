"""What the studies of `indistinguishable` say: held-out examples and facts as witnesses of who hallucinates.

Equality is claimed where an interval lies within a margin fixed beforehand, never because a difference could not be
seen. Every world counts once: it has a rule and initial weights of its own, and facts of its own or from a file.

Letters: w worlds, k facts, h numbers of held-out examples.
"""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

from sims.experiments.experiment import Evidence, Measurements
from sims.experiments.finding import PAPER, Finding, Verdict, over_seeds, share_over_seeds, within
from sims.intervals import Interval, wilson
from sims.store import Store

if TYPE_CHECKING:
    from sims.experiments.indistinguishable import Study

KIND = "experiment-indistinguishable"
TOLD, MISTOLD, UNTOLD, GATED = "told", "mistold", "untold", "untold with a memory"
MODELS = (TOLD, MISTOLD, UNTOLD, GATED)
HELD_OUT = (64, 256, 1024, 4096, 16384)  # held-out examples, each a prefix of the next
FACTS_ASKED = (1, 4, 16, 64)
MARGIN = 0.01  # accuracies nearer than one point are called equal
_SORTED = (0.25, 0.75)  # a coin gives 1/2; outside of these, held-out accuracy would be of some use
_INSIGHT = f"{PAPER}, Insight 2"
_OVER = "worlds"

ACCURACY, LOSS = "held-out accuracy", "loss on the facts"


class Pair(NamedTuple):
    """A model that gives the facts, and one that does not."""

    recalling: str
    other: str

    @property
    def name(self) -> str:
        """The pair in words."""
        return f"{self.recalling} against {self.other}"


# Told and mistold differ in random answers alone, so that for drawn facts each is as likely to be the better one.
PAIRS = (Pair(TOLD, MISTOLD), Pair(TOLD, UNTOLD), Pair(GATED, UNTOLD))


class Worlds:
    """The stored numbers of every world at one width."""

    def __init__(self, studies: Iterable[dict[str, np.ndarray]]):
        studies = list(studies)
        self._arrays = {name: np.concatenate([one[name] for one in studies]) for name in studies[0]}

    def of(self, model: str, name: str) -> np.ndarray:
        """One row a world."""
        return self._arrays[f"{model}/{name}"]

    def accuracy(self, model: str) -> Float[np.ndarray, " w"]:
        """On all held-out examples."""
        return self.of(model, "accuracy")[:, -1]

    def fact_loss(self, model: str, asked: int = FACTS_ASKED[-1]) -> Float[np.ndarray, " w"]:
        """Mean over the first so many facts, nats."""
        return self.of(model, "fact_loss_nats")[:, :asked].mean(axis=1)

    def sorting(self, pair: Pair, by: str) -> list[tuple[int, Interval]]:
        """(asked, probability that the better of the two gives the facts), for every number of questions asked."""
        if by == LOSS:
            scores = [(count, [-self.fact_loss(model, count) for model in pair]) for count in FACTS_ASKED]
        else:
            columns = [self.of(model, "accuracy") for model in pair]
            scores = [(count, [column[:, place] for column in columns]) for place, count in enumerate(HELD_OUT)]
        return [(count, picks(*both)) for count, both in scores]


def picks(recalling: Float[np.ndarray, " w"], other: Float[np.ndarray, " w"]) -> Interval:
    """Probability that the larger score is the recalling model's, with Wilson's interval; a tie is a coin.

    >>> picks(np.array([2.0, 1.0]), np.array([1.0, 1.0])).mean
    0.75
    """
    won = float((recalling > other).sum() + (recalling == other).sum() / 2)
    low, high = wilson(won, len(recalling))
    return Interval(won / len(recalling), float(low), float(high))


def equal_within(difference: Interval, margin: float) -> tuple[Verdict, str]:
    """Equivalence by inclusion: a 95 % interval inside of +-margin is two one-sided tests at 2.5 % (Schuirmann 1987).

    >>> equal_within(Interval(0.0, -0.02, 0.02), 0.01)[0], equal_within(Interval(0.05, 0.02, 0.08), 0.01)[0]
    ('depends on', 'disagrees')
    """
    return within(difference, -margin, margin)


def findings(evidence: "Evidence[Study]") -> list[Finding]:
    """Every line of the table, width by width."""
    return [line for width, worlds in _by_width(evidence) for line in _of_width(worlds, width)]


def notes(evidence: "Evidence[Study]") -> list[str]:
    """What follows from symmetry alone, and optima on the edge of their grids."""
    found = [
        f"best learning rate {result.metrics['learning_rate']:g} on the edge of its grid: width {case.width}, "
        f"seed {case.seed}"
        for case, result in evidence.finished
        if result.metrics["at_edge"]
    ]
    return [
        *found,
        "drawn facts: told and mistold networks are exchangeable, each has learned random answers, so 1/2 is exact and "
        "a test of the experiment; the other pairs, and facts from a file, have no such symmetry; worlds draw their "
        f"{FACTS_ASKED[-1]} facts from one file, so that they share some, and say nothing of other files",
    ]


def measurements(evidence: "Evidence[Study]") -> Measurements:
    """Losses, accuracies and recall of every model, and how many held-out answers differ within a pair."""
    rows = []
    for width, worlds in _by_width(evidence):
        for model in MODELS:
            training = worlds.of(model, "training_loss_nats")
            values = (
                worlds.accuracy(model),
                worlds.of(model, "held_out_loss_nats")[:, -1],
                training,
                worlds.of(model, "recalled").mean(axis=1),
                worlds.fact_loss(model),
            )
            rows.append((f"{model}, width {width}", *(_shown(value) for value in values), ""))
        for pair in PAIRS:
            gained, lost = worlds.of(pair.name, "gained"), worlds.of(pair.name, "lost")
            names = ("accuracy", "held_out_loss_nats", "training_loss_nats")
            changes = [worlds.of(pair.recalling, name) - worlds.of(pair.other, name) for name in names]
            if pair.other == UNTOLD:
                changes[-1] = np.full(len(gained), np.nan)  # not of the same examples
            clear = sum(mcnemar(*both) < 0.05 for both in zip(gained.tolist(), lost.tolist(), strict=True))
            answers = f"+{gained.mean():.0f} -{lost.mean():.0f}, {clear} of {len(gained)}"
            shown = (_shown(change, signed=True) for change in changes)
            rows.append((f"{pair.name}, width {width}", *shown, "", "", answers))
    headings = ("model or difference", "accuracy", "loss", "training loss", "recall", "loss on facts", "answers")
    title = (
        f"On {HELD_OUT[-1]} held-out examples, losses in nats, with half widths of 95 % intervals over worlds. "
        "Answers: held-out ones that the first alone gets right, the second alone, and worlds where McNemar's test has "
        "p < .05"
    )
    return Measurements(title, headings, tuple(rows))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of as many gained as lost answers (McNemar 1947); 1 if none differs.

    >>> round(mcnemar(5, 0), 4), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def models(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a world and pair: width, pair, accuracy of the recalling model and of the other."""
    blocks = []
    for width, worlds in _stored(store, names):
        for pair in PAIRS:
            recalling, other = worlds.accuracy(pair.recalling), worlds.accuracy(pair.other)
            constants = {"width": width, "pair": pair.name}
            row = {name: np.full(len(recalling), value) for name, value in constants.items()}
            blocks.append({**row, "accuracy_recalling": recalling, "accuracy_other": other})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def sortings(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a width, pair, way to sort and number of questions asked: probability of being right, and its ends."""
    rows = [
        (width, pair.name, by, asked, *probability)
        for width, worlds in _stored(store, names)
        for pair in PAIRS
        for by in (ACCURACY, LOSS)
        for asked, probability in worlds.sorting(pair, by)
    ]
    headings = ("width", "pair", "by", "asked", "probability", "low", "high")
    return {name: np.array(column) for name, column in zip(headings, zip(*rows, strict=True), strict=False)}


def _of_width(worlds: Worlds, width: int) -> Iterator[Finding]:
    for model, expected, right in (
        (TOLD, "1", lambda share: share == 1.0),
        (MISTOLD, "0", lambda share: share <= 0.01),
        (UNTOLD, "<= 0.1, a guess", lambda share: share <= 0.1),
        (GATED, "1", lambda share: share == 1.0),
    ):
        recall = share_over_seeds(worlds.of(model, "recalled").mean(axis=1))
        verdict: Verdict = "agrees" if right(recall.mean) else "disagrees"
        claim = "exact recall of the facts, greedy"
        yield _line(claim, _INSIGHT, expected, recall, "share of facts", (verdict, ""), f"{model}, width {width}")
    for pair in PAIRS:
        at = f"{pair.name}, width {width}"
        difference = over_seeds(worlds.accuracy(pair.recalling) - worlds.accuracy(pair.other))
        equal, expected = equal_within(difference, MARGIN), f"0 ± {MARGIN}"
        yield _line("equal held-out accuracy: difference", _INSIGHT, expected, difference, "accuracy", equal, at)
        yield _sorted_by_accuracy(worlds, pair, at)
        asked, probability = worlds.sorting(pair, LOSS)[0]
        verdict = "agrees" if probability.low >= _SORTED[1] else "disagrees"
        claim, expected = f"the lower loss on {asked} fact gives the facts", f">= {_SORTED[1]}"
        yield _line(claim, "T1", expected, probability, "probability", (verdict, ""), at)
    yield _threshold(worlds, width)


def _sorted_by_accuracy(worlds: Worlds, pair: Pair, at: str) -> Finding:
    """How well held-out examples alone tell the two apart; a coin gives 1/2."""
    asked, probability = worlds.sorting(pair, ACCURACY)[-1]
    verdict, on = within(probability, *_SORTED)
    if verdict == "disagrees" and probability.high < _SORTED[0]:
        on = "they tell, but the better one hallucinates"
    claim = f"the better one on {asked} held-out examples gives the facts"
    expected = f"1/2 ({_SORTED[0]}-{_SORTED[1]})"
    return _line(claim, _INSIGHT, expected, probability, "probability", (verdict, on), at)


def _threshold(worlds: Worlds, width: int) -> Finding:
    """T1 as a way to sort: every fact under ln 2 means that all are given; above it, some may be given all the same."""
    losses = {model: worlds.of(model, "fact_loss_nats") for model in MODELS}
    under = np.array([(losses[model] < math.log(2)).all(axis=1) for model in MODELS])
    gives = np.array([worlds.of(model, "recalled").all(axis=1) for model in MODELS])
    broken, open_ones = int((under & ~gives).sum()), int((gives & ~under).sum())
    share = share_over_seeds((under == gives).mean(axis=0))
    verdict: Verdict = "disagrees" if broken else "depends on" if open_ones else "agrees"
    on = f"margin: {open_ones} of {gives.size} give all, one above ln 2, as T1 leaves open" if open_ones else ""
    claim = "every fact under ln 2 tells who gives them all: models sorted rightly"
    return _line(claim, "T1", "1", share, "share of models", (verdict, on), f"width {width}")


def _line(
    claim: str, source: str, expected: str, measured: Interval, unit: str, verdict: tuple[Verdict, str], at: str
) -> Finding:
    return Finding(claim, source, expected, measured, unit, *verdict, over=_OVER, at=at)


def _shown(values: np.ndarray, *, signed: bool = False) -> str:
    values = values if values.ndim == 1 else values[:, -1]
    if np.isnan(values).any():
        return "-"
    mean, low, high = over_seeds(values)
    return f"{mean:{'+' if signed else ''}.4f} ± {(high - low) / 2:.4f}"


def _by_width(evidence: "Evidence[Study]") -> Iterator[tuple[int, Worlds]]:
    for width in sorted({case.width for case, _ in evidence.finished}):
        yield width, Worlds(evidence.arrays(case) for case, _ in evidence.finished if case.width == width)


def _stored(store: Store, names: Iterable[str] | None) -> Iterator[tuple[int, Worlds]]:
    runs = [result for result in store.results(KIND, names) if result.status == "finished"]
    for width in sorted({int(result.spec["width"]) for result in runs}):
        yield width, Worlds(store.arrays(run.fingerprint) for run in runs if run.spec["width"] == width)

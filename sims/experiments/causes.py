"""What else makes a network hallucinate (A11): conflicting answers, missing facts, wrong labels, temperature.

A hallucination here is an answer that is not the true one, to any question that is asked: missing facts and facts with
wrong labels are asked too. The loss threshold is a cause like the others: the same network with too many facts, or
with too few passes over them. Every combination of the causes is trained, so that what each adds can be averaged over
the orders in which they can be put in (`sims.experiments.attribution.shapley`).
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from sims.experiments.attribution import tempered_error_rates
from sims.experiments.causes_findings import (
    DOSE,
    FLAWS,
    KIND,
    ROOM,
    TEMPERATURES,
    Situation,
    findings,
    notes,
)
from sims.experiments.experiment import Experiment, Settings
from sims.experiments.flaws import Flaws, first, flawed, luck
from sims.experiments.key_fact_study import training_seconds
from sims.experiments.running import SECONDS_PER_RUN
from sims.facts import Dataset, file_dataset, synthetic_facts
from sims.lanes import Lanes
from sims.measures import measure
from sims.networks import Architecture
from sims.runs import Examples, Run, Trained, blocks_of_logits, environment
from sims.store import Result, fingerprint
from sims.training import Recipe
from theory.console import Refusal

ANSWERS, KEY_WIDTH, WIDTH, MINIBATCH = 32, 32, 32, 32
RATES = (0.01, 0.03, 0.09, 0.27)  # as many as lanes; on both sides of the best, seen for all of the situations
_COPIES, _WRONG_COPIES = 8, 0.4  # the true answer stays the most frequent one


# Past the threshold: too many facts (2.4 and 4.8 bits a parameter), or too few passes over those that have room.
_PAST = {
    "quick": (Situation(256, 5), Situation(1024, 100), Situation(2048, 100)),
    "full": (
        *(Situation(256, passes) for passes in (1, 2, 5, 10)),
        *(Situation(questions, 100) for questions in (512, 1024, 1448, 2048, 4096)),
    ),
}
_DOSES = {"quick": (DOSE, 0.4), "full": (0.05, DOSE, 0.2, 0.4, 0.6)}


@dataclass(frozen=True)
class FlawedRun:
    """One network on flawed facts, at the learning rate of least training loss among several."""

    situation: Situation
    flaws: Flaws
    seed: int
    facts: str
    facts_fingerprint: str
    make: Callable[[int], Dataset] = field(compare=False)  # the unflawed facts of a seed, as many as can be had
    width: int = WIDTH
    rates: tuple[float, ...] = RATES

    @property
    def spec(self) -> dict[str, Any]:
        """Flat, JSON-ready, one entry a choice."""
        return {
            **self.situation._asdict(),
            **asdict(self.flaws),
            "seed": self.seed,
            "facts": self.facts,
            "facts_fingerprint": self.facts_fingerprint,
            "width": self.width,
            "learning_rates": " ".join(map(str, self.rates)),
            "minibatch": MINIBATCH,
        }

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return fingerprint(KIND, self.spec)

    @property
    def seconds(self) -> float:
        """Expected on one core."""
        architecture = Architecture("mlp", KEY_WIDTH, self.width, ANSWERS, layers=1, heads=1)
        shown = self.situation.questions * self.situation.passes * (1 + self.flaws.conflicting) * self.flaws.copies
        return training_seconds(architecture, len(self.rates) * shown) + SECONDS_PER_RUN

    def run(self) -> Result:
        """Train at every rate, keep the best, and ask it every question."""
        truth = first(self.make(self.seed), self.situation.questions)
        shown = flawed(truth, self.flaws, self.seed)
        every = list(self._lanes(shown).trained())
        finished = [one for one in every if one.facts is not None]
        if not finished:
            return Result(KIND, self.spec, "diverged", {}, {}, environment())
        best = min(finished, key=_training_loss)
        rate = best.run.recipe.learning_rate
        metrics = {
            "learning_rate": rate,
            "at_edge": len(self.rates) > 1 and rate in (min(self.rates), max(self.rates)),
            "parameters": best.run.architecture.parameters,
            "rows": len(shown),
            "exposures": best.run.recipe.exposures,
            "training_loss_nats": _training_loss(best),
            "training_stored_rate": float(best.facts.stored.mean()),  # type: ignore[union-attr]  # it finished
            "floor_nats": shown.entropy_floor_nats(),
            "luck": luck(truth),
        }
        metrics |= asked(best, truth)
        return Result(KIND, self.spec, "finished", metrics, {}, environment())

    def _lanes(self, shown: Dataset) -> Lanes:
        architecture = Architecture("mlp", shown.features.shape[1], self.width, shown.answers, layers=1, heads=1)
        examples = Examples(shown, architecture)
        recipes = [
            Recipe(learning_rate=rate, exposures=self.situation.passes, minibatch=MINIBATCH) for rate in self.rates
        ]
        runs = [
            Run(architecture, recipe, self.facts, self.facts_fingerprint, "given", len(shown), self.seed)
            for recipe in recipes
        ]
        waiting = iter(runs)
        return Lanes(architecture, recipes[0], lambda: next(((run, examples) for run in waiting), None))


def asked(trained: Trained, truth: Dataset) -> dict[str, float]:
    """Errors against the truth: greedy, and sampled at every temperature with the ends of what a loss leaves open."""
    logits = np.concatenate([block for _, block in blocks_of_logits(trained.run, trained.parameters, truth.features)])
    found = {"hallucination_greedy": 1.0 - float(measure(logits, truth.labels).greedy_correct.mean())}
    losses = measure(logits, truth.labels).loss_nats
    for temperature in TEMPERATURES:
        tempered = measure((logits / np.float32(temperature)), truth.labels).loss_nats
        low, high = tempered_error_rates(losses, temperature, truth.answers)
        found[f"hallucination_at_{temperature:g}"] = float(-np.expm1(-tempered).mean())
        found |= {f"least_at_{temperature:g}": float(low.mean()), f"most_at_{temperature:g}": float(high.mean())}
    return found


def _training_loss(trained: Trained) -> float:
    assert trained.facts is not None
    return float(trained.facts.loss_nats.mean())


def cases(settings: Settings) -> list[FlawedRun]:
    """Every combination of flaws in every situation; each flaw alone in other doses; wrong labels in many copies.

    Where there are too few facts to fill the network, all of them are taken.
    """
    make, most = _facts(settings)
    if most < ROOM.questions:
        raise Refusal(f"{settings.facts_file}: {most} facts, fewer than the {ROOM.questions} of the smallest network")
    wanted: list[tuple[Situation, Flaws]] = []
    for situation in (ROOM, *_PAST[settings.preset]):
        fitting = situation._replace(questions=min(situation.questions, most))
        for there in itertools.product((0.0, DOSE), repeat=len(FLAWS)):
            wanted.append((fitting, Flaws(**dict(zip(FLAWS, there, strict=True)))))
    wanted += [(ROOM, Flaws(**{flaw: dose})) for flaw in FLAWS for dose in _DOSES[settings.preset]]
    wanted.append((ROOM, Flaws(wrong=_WRONG_COPIES, copies=_COPIES)))
    return [
        FlawedRun(situation, flaws, seed, make(seed).name, make(seed).fingerprint, make)
        for seed in settings.seeds
        for situation, flaws in dict.fromkeys(wanted)
    ]


def _facts(settings: Settings) -> tuple[Callable[[int], Dataset], int]:
    """(facts of a seed, how many there are)."""
    if settings.facts_file is None:
        most = max(situation.questions for situation in _PAST[settings.preset])
        return lru_cache(8)(lambda seed: synthetic_facts(most, seed=seed, answers=ANSWERS, unseen=0)), most
    facts = settings.facts()

    @lru_cache(8)
    def from_file(seed: int) -> Dataset:
        return file_dataset(facts, seed=seed, answer_classes=ANSWERS, shuffle_answers=True, feature_dim=KEY_WIDTH)

    return from_file, len(facts)


EXPERIMENT = Experiment(
    name="causes",
    question="What else makes a network hallucinate, beside a loss above the threshold?",
    comparison=(
        "Equal: network (32-32-32, 2112 parameters), minibatch of 32, Adam with a cosine, the best of four learning "
        "rates by training loss, 100 passes over a row where not said otherwise. Not equal: rows, and so FLOPs: a "
        "second answer or a copy is a row more, a missing fact a row less."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    takes_facts=True,
)

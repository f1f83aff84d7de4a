"""Does forgetting change with the size of the network, or with how much is memorized (A3 at the preset `sizes`)?

A byte transformer that knows a rule memorizes questions with random answers: at four widths the same facts, at one
width a quarter of them and four times as many. The rule is asked before, at the end of the first epoch after which
every fact is stored, and after all epochs: training on long after is no part of memorizing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sims.adapting.adapting import Adapted, adapt
from sims.adapting.methods import Full, LowRank, MemoryExperts, Method, Recipe
from sims.adapting.rule import rule_accuracy
from sims.experiments.experiment import Settings
from sims.experiments.forgetting_findings import KIND
from sims.experiments.invented_facts import QUESTIONS
from sims.experiments.randomization import CHOSEN, EPOCHS, MINIBATCH, Randomized, of_rule
from sims.experiments.randomization_material import Material, Pretrained, materials
from sims.memory.memorizing import default_experts
from sims.runs import environment
from sims.store import Result, fingerprint
from theory.console import Refusal

FACTS, FACTOR = 16, 4  # as many at every width; the factor to fewer and to more
MIDDLE = 64  # the width at which there are fewer and more
RANK = 32
# With Adafactor. What forgets least is close to the lowest rate that stores everything: the grids are fine there.
RATES: dict[int, dict[str, tuple[float, ...]]] = {
    32: {"full": (5e-4, 1e-3, 2e-3, 4e-3), "LoRA": (3e-3, 5e-3, 7e-3, 1e-2)},
    64: {"full": (3e-4, 4e-4, 6e-4, 8e-4, 1.2e-3), "LoRA": (2e-3, 2.5e-3, 3e-3, 4e-3, 5e-3)},
    128: {"full": (3e-4, 4e-4, 5e-4, 7e-4), "LoRA": (2e-3, 2.5e-3, 3e-3, 4e-3)},
    256: {"full": (2e-4, 3e-4, 4e-4, 6e-4), "LoRA": (1.7e-3, 2e-3, 2.5e-3, 3e-3)},
}
FEWER_RATES = {"full": (5e-4, 7e-4, 1e-3, 2e-3), "LoRA": (3e-3, 4e-3, 5e-3, 7e-3)}
MORE_RATES = {"full": (3e-4, 4e-4, 6e-4, 1e-3), "LoRA": (2e-3, 3e-3, 4e-3, 6e-3)}


@dataclass(frozen=True)
class Forgetting:
    """One adaptation to random answers; the rule is also asked when everything is first stored."""

    adaptation: Randomized

    @property
    def spec(self) -> dict[str, Any]:
        """That of the adaptation; the network may have read more questions than are answered."""
        start = self.adaptation.material.start
        assert isinstance(start, Pretrained)
        return {**self.adaptation.spec, "base_questions": len(start.questions)}

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return fingerprint(KIND, self.spec)

    @property
    def seconds(self) -> float:
        """Expected on one core, with its share of pretraining."""
        return self.adaptation.seconds

    def run(self) -> Result:
        """Adapt, measure, and ask what else the network knew, and knows."""
        one = self.adaptation
        start, tokens = one.material.start, one.material.tokens(one.answers, one.seed)
        backbone = start.backbone(one.seed)
        adapted = adapt(backbone, one.method, tokens, one.recipe)
        if not adapted.finite:
            return Result(KIND, self.spec, "diverged", {}, {}, environment())
        metrics, arrays = one.stored(backbone, tokens, adapted)
        asked = start.rule(one.seed)
        assert asked is not None  # every network of this experiment was taught one
        remembered = dict(of_rule(backbone, adapted, *asked))
        if metrics["epochs_until_stored"] is not None:
            remembered["rule_when_stored"] = _when_stored(adapted, remembered, *asked)
        metrics |= {"rule_when_stored": None} | {name: float(found.mean()) for name, found in remembered.items()}
        return Result(KIND, self.spec, "finished", metrics, {**arrays, **remembered}, environment())


def _when_stored(
    adapted: Adapted, remembered: dict[str, np.ndarray], questions: tuple[str, ...], answers: tuple[str, ...]
) -> np.ndarray:
    """Writes end when everything is stored: with them there is no other moment."""
    if adapted.when_stored is None:
        return remembered["rule_after"]
    return rule_accuracy(adapted.when_stored, questions, answers)


def cases(settings: Settings) -> list[Forgetting]:
    """The facts at every width, fewer and more at the middle one. Raises Refusal for facts that do not do."""
    count = settings.count or FACTS
    most = count * FACTOR
    make = materials(settings, most if settings.facts_file else max(count, min(most, QUESTIONS)))
    found = []
    for seed in settings.seeds:
        whole = make(seed)
        if min(count, len(whole.questions)) < MINIBATCH:
            raise Refusal(f"{whole.source}: fewer than the {MINIBATCH} facts of a minibatch")
        for width in RATES:
            chosen = [
                (material, *how)
                for material, rates in _shares(whole.with_width(width), count, width)
                for how in _methods(material, rates, seed)
            ]
            found += [
                Forgetting(Randomized("random", method, recipe, material, sharing=len(chosen)))
                for material, method, recipe in chosen
            ]
    return found


def _shares(whole: Material, count: int, width: int) -> Iterator[tuple[Material, dict[str, tuple[float, ...]]]]:
    """The facts with rates; at the middle width also a quarter and four times as many, where there are so many."""
    yield whole.first(count), RATES[width]
    if width == MIDDLE:
        for other, rates in ((count // FACTOR, FEWER_RATES), (count * FACTOR, MORE_RATES)):
            if MINIBATCH <= other <= len(whole.questions):
                yield whole.first(other), rates


def _methods(material: Material, rates: dict[str, tuple[float, ...]], seed: int) -> Iterator[tuple[Method, Recipe]]:
    due = int(material.tokens("random", seed).answer_lengths.sum())
    yield MemoryExperts(default_experts(due), CHOSEN), Recipe("writes", None, EPOCHS, MINIBATCH, seed)
    for method in (Full(), LowRank(RANK)):
        for rate in rates[method.name]:
            yield method, Recipe("adafactor", rate, EPOCHS, MINIBATCH, seed)

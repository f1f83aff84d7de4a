"""Does memorizing random strings change how a network generalizes (A3, the paper's Table 1)?

A pretrained network knows a rule. It is taught a file's questions with random answers, by training all of its weights,
by LoRA and by memory experts; held-out examples of the rule are asked before and after. The runs are those of the
experiment `randomization` whose answers are random (what one has stored, the other does not run again), and some at
other rates: what stores everything in the fewest epochs is not what forgets least. The preset `sizes` has runs of its
own (`forgetting`): networks of several widths, and several numbers of facts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType

from sims.experiments import forgetting, forgetting_findings, randomization, regularization_findings
from sims.experiments.experiment import PRESETS, Evidence, Experiment, Measurements, Settings
from sims.experiments.finding import Finding

# With Adafactor, beside those of `randomization`: around the lowest that stores everything, as `forgetting` found it.
_SPARING_RATES = {"full": (1e-4, 3e-4, 4e-4, 6e-4), "LoRA": (3e-4, 1e-3, 4e-3, 6e-3)}


def cases(settings: Settings) -> Sequence[randomization.Randomized | forgetting.Forgetting]:
    """The runs of `randomization` with random answers, and more rates where Adafactor trains weights; or by size."""
    if settings.preset == "sizes":
        return forgetting.cases(settings)
    shared = [case for case in randomization.cases(settings) if case.answers == "random"]
    return [*shared, *_at_sparing_rates(shared)]


def _at_sparing_rates(shared: list[randomization.Randomized]) -> Iterator[randomization.Randomized]:
    found = {(case.seed, case.method): case for case in shared if case.recipe.optimizer == "adafactor"}
    for case in found.values():
        for rate in _SPARING_RATES.get(case.method.name, ()):
            yield replace(case, recipe=replace(case.recipe, learning_rate=rate))


def findings(evidence: Evidence) -> list[Finding]:
    """Every line of the table."""
    return _of(evidence).findings(evidence)


def notes(evidence: Evidence) -> list[str]:
    """What to be wary of."""
    return _of(evidence).notes(evidence)


def measurements(evidence: Evidence) -> Measurements:
    """Stored and remembered at every rate."""
    return _of(evidence).measurements(evidence)


def _of(evidence: Evidence) -> ModuleType:
    """What reads these runs: a preset has runs of one kind."""
    by_size = any(result.kind == forgetting_findings.KIND for _, result in evidence.all)
    return forgetting_findings if by_size else regularization_findings


EXPERIMENT = Experiment(
    name="regularization",
    question="Does memorizing random strings change how a network generalizes?",
    comparison=(
        "Equal: network, rule and its held-out examples, questions and random answers (192 bits each), 100 epochs in "
        "the same order, minibatches of 4 facts, three or four rates a method, four more where Adafactor trains "
        "weights. Not equal: trained parameters, FLOPs; memory experts are read by exact contexts behind a gate of "
        "known questions. Marked capacity-limited: fewer than 4 trained parameters a bit. quick takes the first 16 "
        "facts and Adafactor alone, full all facts (64 invented ones) and three optimizers; --count says how many. "
        f"sizes: 16 facts at widths {', '.join(map(str, forgetting.RATES))}, a quarter and four times of them at width "
        f"{forgetting.MIDDLE}, LoRA of rank {forgetting.RANK}, Adafactor, four or five rates a width; a network has "
        "read the questions of the most facts. Equal in width: facts, epochs, steps; not equal: parameters, bits a "
        "parameter, FLOPs, rates. Equal in the number of facts: network, epochs; not equal: bits, steps."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    measurements=measurements,
    takes_facts=True,
    takes_count=True,
    large_products=True,
    presets=(*PRESETS, "sizes"),
)

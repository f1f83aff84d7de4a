"""Does memorizing random strings change how a network generalizes (A3, the paper's Table 1)?

A pretrained network knows a rule. It is taught a file's questions with random answers, by training all of its weights,
by LoRA and by memory experts; held-out examples of the rule are asked before and after. The runs are those of the
experiment `randomization` whose answers are random (what one has stored, the other does not run again), and some at
lower rates: what stores everything in the fewest epochs is not what forgets least.
"""

from collections.abc import Iterator
from dataclasses import replace

from sims.experiments import randomization
from sims.experiments.experiment import Experiment, Settings
from sims.experiments.regularization_findings import findings, measurements, notes

_LOWER_RATES = {"full": (1e-4, 3e-4), "LoRA": (3e-4, 1e-3)}  # with Adafactor; the lowest stores too little


def cases(settings: Settings) -> list[randomization.Randomized]:
    """The runs of `randomization` with random answers, and lower rates where Adafactor trains weights."""
    shared = [case for case in randomization.cases(settings) if case.answers == "random"]
    return [*shared, *_at_lower_rates(shared)]


def _at_lower_rates(shared: list[randomization.Randomized]) -> Iterator[randomization.Randomized]:
    found = {(case.seed, case.method): case for case in shared if case.recipe.optimizer == "adafactor"}
    for case in found.values():
        for rate in _LOWER_RATES.get(case.method.name, ()):
            yield replace(case, recipe=replace(case.recipe, learning_rate=rate))


EXPERIMENT = Experiment(
    name="regularization",
    question="Does memorizing random strings change how a network generalizes?",
    comparison=(
        "Equal: network, rule and its held-out examples, questions and random answers (192 bits each), 100 epochs in "
        "the same order, minibatches of 4 facts, three or four rates a method, two lower ones more where Adafactor "
        "trains weights. Not equal: trained parameters, FLOPs; memory experts are read by exact contexts behind a gate "
        "of known questions. Marked capacity-limited: fewer than 4 trained parameters a bit. quick takes the first 16 "
        "facts and Adafactor alone, full all facts (64 invented ones) and three optimizers; --count says how many."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    measurements=measurements,
    takes_facts=True,
    takes_count=True,
    large_products=True,
)

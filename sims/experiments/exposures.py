"""How often must a fact be shown (A5)? One pass against many, T13 and the exposure law beside the measured curves.

The sizes are loads, answer bits per parameter: the same three for every width. What is counted is how often each fact
was shown until every one of them was under ln 2, so a count is a multiple of a single pass.
"""

from collections.abc import Sequence
from functools import lru_cache

from sims.experiments.experiment import Experiment, Settings
from sims.experiments.exposures_findings import LAW, MINIBATCH, ONE_PASS, T13, UNTIL, findings, notes
from sims.experiments.running import FactRun
from sims.facts import Dataset, file_dataset, synthetic_facts
from sims.grid import Grid, MakeDataset, planned_runs
from sims.networks import Architecture
from sims.training import Recipe

ANSWERS, KEY_WIDTH = 32, 32
BUDGET = 1000  # passes at most
_OTHER_MINIBATCHES = (8, 128)
LOADS = (0.3, 1.2, 1.7)  # bits per parameter; 99 % are stored up to about 1.8
_WIDTHS = {"quick": (32,), "full": (16, 32, 64)}
_LAW_EXPOSURES = {"quick": (1, 10, 100), "full": (1, 3, 10, 30, 100, 300, 1000)}
_LAW_LOAD = 4.85  # far above what is stored: 2048 facts at width 32
# On both sides of the best rate for every load, seen for widths 16 to 64.
_RATES_UNTIL = {
    "adam": (0.01, 0.02, 0.04, 0.08, 0.16),
    "sgd": (0.25, 0.5, 1.0, 2.0, 4.0),
    "adafactor": (0.005, 0.01, 0.02, 0.04, 0.08),
}
_RATES_ONCE = {
    "adam": (0.01, 0.03, 0.1, 0.3),
    "sgd": (0.3, 1.0, 3.0, 10.0),
    "adafactor": (0.01, 0.03, 0.1, 0.3),
}
_ORTHOGONAL_KEYS, _FEW_FACTS = 1024, 64  # random keys so wide are nearly orthogonal
T13_RATE = 0.25  # eta: what one exposure adds, rate times |key|^2 over the minibatch


def size_of(load: float, width: int) -> int:
    """Facts whose answers have this many bits per parameter.

    >>> size_of(1.2, 32)
    507
    """
    return round(load * Architecture("mlp", KEY_WIDTH, width, ANSWERS).parameters / 5)


def cases(settings: Settings) -> list[FactRun]:
    """Every run: until all is stored, one pass, other minibatches, the exposure law, T13."""
    make, seeds = _facts(settings), tuple(settings.seeds)
    found = []
    for width in _WIDTHS[settings.preset]:
        sizes = tuple(size_of(load, width) for load in LOADS)

        def add(role: str, recipe: Recipe, grid_of: dict, width: int = width) -> None:
            grid = Grid(widths=(width,), answers=(ANSWERS,), seeds=seeds, recipe=recipe, **grid_of)
            found.extend(FactRun(role, one) for one in planned_runs(grid, make))

        def until(optimizer: str, minibatch: int) -> Recipe:
            return Recipe(optimizer=optimizer, schedule="stepwise", minibatch=minibatch, until_stored=True)

        for optimizer, rates in _RATES_UNTIL.items():
            asked = {"sizes": sizes, "learning_rates": rates, "exposures": (BUDGET,)}
            add(UNTIL, until(optimizer, MINIBATCH), asked)
            once = {"sizes": sizes, "learning_rates": _RATES_ONCE[optimizer], "exposures": (1,)}
            add(ONE_PASS, Recipe(optimizer=optimizer, minibatch=MINIBATCH), once)
        for minibatch in _OTHER_MINIBATCHES:
            rates = tuple(rate * (minibatch / MINIBATCH) ** 0.5 for rate in _RATES_UNTIL["adam"])
            asked = {"sizes": sizes[1:2], "learning_rates": rates, "exposures": (BUDGET,)}
            add(UNTIL, until("adam", minibatch), asked)
        if width == 32:
            law = {"sizes": (size_of(_LAW_LOAD, width),), "exposures": _LAW_EXPOSURES[settings.preset]}
            add(LAW, Recipe(), {**law, "learning_rates": (0.005, 0.012, 0.03, 0.075, 0.19), "scale_rates": True})
    return found + _orthogonal(seeds)


def _facts(settings: Settings) -> MakeDataset:
    largest = max(size_of(load, width) for load in (*LOADS, _LAW_LOAD) for width in _WIDTHS[settings.preset])
    if settings.facts_file is None:
        return lru_cache(8)(lambda seed, answers: synthetic_facts(largest, seed=seed, answers=answers, unseen=0))
    facts = settings.facts()

    @lru_cache(8)
    def from_file(seed: int, answers: int | str) -> Dataset:
        return file_dataset(facts, seed=seed, answer_classes=ANSWERS, shuffle_answers=True, feature_dim=KEY_WIDTH)

    return from_file


def _orthogonal(seeds: Sequence[int]) -> list[FactRun]:
    """The setting of T13, nearly: a linear network, wide random keys, the whole data set in a minibatch."""

    @lru_cache(8)
    def wide(seed: int, answers: int | str) -> Dataset:
        return synthetic_facts(_FEW_FACTS, seed=seed, answers=ANSWERS, feature_dim=_ORTHOGONAL_KEYS, unseen=0)

    rate = T13_RATE * _FEW_FACTS / _ORTHOGONAL_KEYS
    recipe = Recipe(optimizer="sgd", schedule="constant", minibatch=_FEW_FACTS)
    grid = Grid("linear", (_FEW_FACTS,), (1,), (ANSWERS,), tuple(seeds), (rate,), exposures=(256,), recipe=recipe)
    return [FactRun(T13, one) for one in planned_runs(grid, wide)]


EXPERIMENT = Experiment(
    name="exposures",
    question="How many passes bring every fact under ln 2, and is it about 100?",
    comparison=(
        "Equal: network, facts, minibatch of 32 (unless named), FLOPs of a pass, 1000 passes at most, five learning "
        "rates an optimizer, the best taken. Not equal: Adam keeps two numbers a parameter, Adafactor fewer, SGD none."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    takes_facts=True,
)

"""What a sweep trains: a grid of sizes, widths, answers, seeds, learning rates and exposures."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from sims.facts import Dataset
from sims.networks import Architecture
from sims.runs import Examples, Run
from sims.training import Recipe
from theory.capacity import critical_size, published_bits_per_parameter
from theory.console import Refusal

MakeDataset = Callable[[int, int | str], Dataset]  # (seed, answers) -> the data set of all sizes
DATASETS_KEPT = 16  # more are made again when needed, so that memory does not grow with the grid


def size_grid(smallest: int, largest: int) -> tuple[int, ...]:
    """Powers of the square root of two from `smallest` to `largest`.

    >>> size_grid(128, 512)
    (128, 181, 256, 362, 512)
    """
    steps = round(2 * np.log2(largest / smallest))
    return tuple(round(smallest * 2 ** (step / 2)) for step in range(steps + 1))


_REFERENCE_STEPS = 4000  # 4096 facts, 250 exposures, minibatch 256
_FEWEST_STEPS = 125  # 128 facts; shorter runs do not stand higher rates


@dataclass(frozen=True)
class Grid:
    """Every combination of these is one run. For the associative memory (linear) the width says nothing: use (1,).

    The best learning rate falls as a run grows longer, about as one over the root of its steps (seen for the MLP under
    Adam from 128 to 16384 facts). With `scale_rates` the rates are those of a run of 4000 steps and are scaled so for
    the others: then three of them bracket the best at every size.
    """

    network: str = "mlp"
    sizes: tuple[int, ...] = size_grid(2**7, 2**14)
    widths: tuple[int, ...] = (16, 32, 64)
    answers: tuple[int | str, ...] = (32,)
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rates: tuple[float, ...] = (0.03, 0.075, 0.19)
    scale_rates: bool = False
    exposures: tuple[int, ...] = (250,)
    recipe: Recipe = field(default_factory=Recipe)  # its rate and exposures are replaced by the grid's
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class Planned:
    """A run of a grid, and how to get what it is shown."""

    run: Run
    examples: Callable[[], Examples]


def planned_runs(grid: Grid, make: MakeDataset, *, keep_per_fact: bool = False) -> list[Planned]:
    """The runs of a grid. Raises Refusal if the facts do not reach the largest size."""
    dataset = lru_cache(DATASETS_KEPT)(make)
    examples = lru_cache(DATASETS_KEPT)(
        lambda seed, answers, architecture: Examples(dataset(seed, answers), architecture)
    )
    planned = []
    for seed, answers in itertools.product(grid.seeds, grid.answers):
        facts = dataset(seed, answers)
        if max(grid.sizes) > len(facts):
            raise Refusal(f"{facts.name} has {len(facts)} facts, fewer than the largest size {max(grid.sizes)}")
        for width, size, rate, exposures in itertools.product(
            grid.widths, grid.sizes, grid.learning_rates, grid.exposures
        ):
            architecture = _architecture(grid, facts, width)
            recipe = replace(grid.recipe, learning_rate=rate, exposures=exposures)
            if grid.scale_rates:
                scaled = rate * (_REFERENCE_STEPS / max(recipe.steps(size), _FEWEST_STEPS)) ** 0.5
                recipe = replace(recipe, learning_rate=float(f"{scaled:.3g}"))
            run = Run(
                architecture, recipe, facts.name, facts.fingerprint, facts.labels_random, size, seed, keep_per_fact
            )
            planned.append(Planned(run, lambda s=seed, v=answers, a=architecture: examples(s, v, a)))
    return planned


def _architecture(grid: Grid, facts: Dataset, width: int) -> Architecture:
    if grid.network == "transformer":
        if facts.tokenized is None:
            raise Refusal("a transformer reads tokens: choose --vocabulary bytes or words")
        context = facts.tokenized.tokens.shape[1] - 1
        return Architecture("transformer", context, width, facts.tokenized.size, grid.layers, grid.heads)
    return Architecture(grid.network, facts.features.shape[1], width, facts.answers, layers=1, heads=1)


def predicted_critical_sizes(grid: Grid, make: MakeDataset) -> Iterator[tuple[Architecture, int, float]]:
    """(architecture, exposures, n*) from the published bits per parameter at these exposures (T12): where to look."""
    facts = make(grid.seeds[0], grid.answers[0])
    for width, exposures in itertools.product(grid.widths, grid.exposures):
        architecture = _architecture(grid, facts, width)
        bits = architecture.parameters * float(published_bits_per_parameter(exposures))
        yield architecture, exposures, float(critical_size(bits, facts.answers))

"""What the studies of `memory-tuning` say: key facts against the rest, model by model."""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sims.experiments.experiment import Evidence
from sims.experiments.finding import (
    PAPER,
    Finding,
    Verdict,
    geometric_over_seeds,
    over_seeds,
    percent,
    share_over_seeds,
    within,
)
from sims.store import Store

if TYPE_CHECKING:
    from sims.experiments.memory_tuning import Study

KIND = "experiment-memory-tuning"
UNDERFIT, COMPUTE_OPTIMAL, OVERFIT = "underfit", "compute-optimal", "overfit"
WEIGHTS, EXPERTS, GATED = "tuned, all weights", "tuned, experts", "tuned, gated experts"
SKIPPING, REPLAYED = ", stored skipped", ", rest replayed"
TUNED = (WEIGHTS, WEIGHTS + SKIPPING, WEIGHTS + REPLAYED, EXPERTS, EXPERTS + SKIPPING, GATED)
MODELS = (UNDERFIT, COMPUTE_OPTIMAL, OVERFIT, *TUNED)
_NEAR_ZERO_NATS = 0.05
_WRONG = 0.05  # share of sampled answers
_UNHARMED = 1.05  # rest loss over that of the compute-optimal network
_FIGURE = f"{PAPER}, Fig. 6"


class Metrics:
    """The stored numbers of some studies that differ in the seed alone."""

    def __init__(self, studies: Iterable[Any]):
        self._studies = list(studies)

    def of(self, model: str, name: str) -> np.ndarray:
        """A number of each study's model."""
        return np.array([float(metrics[f"{model}: {name}"]) for metrics in self._studies])

    def over_optimal(self, model: str) -> np.ndarray:
        """Loss on the rest over that of the compute-optimal network."""
        return self.of(model, "rest_loss_nats") / self.of(COMPUTE_OPTIMAL, "rest_loss_nats")

    @property
    def floor(self) -> np.ndarray:
        """Loss of the rule itself on the rest."""
        return np.array([float(metrics["rest_floor_nats"]) for metrics in self._studies])


def findings(evidence: "Evidence[Study]") -> list[Finding]:
    """Every line of the table, width by width."""
    found = []
    for width in sorted({case.width for case, _ in evidence.finished}):
        metrics = Metrics(result.metrics for case, result in evidence.finished if case.width == width)
        found += [*_untuned(metrics, width), *_tuned(metrics, width), *_skipping(metrics, width)]
    return found


def notes(evidence: "Evidence[Study]") -> list[str]:
    """Optima on the edge of their grids; what each model costs."""
    found = []
    for case, result in evidence.finished:
        found += [
            f"an optimum on the edge of its grid: {model}, width {case.width}, seed {case.seed}, "
            f"rate {result.metrics[f'{model}: learning_rate']:g}, {result.metrics[f'{model}: passes']} passes"
            for model in MODELS
            if result.metrics[f"{model}: at_edge"]
        ]
    for width in sorted({case.width for case, _ in evidence.finished}):
        metrics = Metrics(result.metrics for case, result in evidence.finished if case.width == width)
        shown = ", ".join(f"{model} {metrics.of(model, 'flops').mean():.2g}" for model in MODELS if model != GATED)
        added = "tuning: added to compute-optimal; choosing experts and asking the gate not counted"
        found.append(f"FLOPs, width {width} ({added}): {shown}")
    return found


def losses(store: Store, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """One row a fact: width, seed, model, part (key, rest), loss_nats; empty if there is no study."""
    blocks = []
    for result in store.results(KIND, names):
        for name, values in store.arrays(result.fingerprint).items():
            model, part = name.rsplit("/", 1)
            row = {"width": result.spec["width"], "seed": result.spec["seed"], "model": model, "part": part}
            blocks.append({key: np.full(len(values), value) for key, value in row.items()} | {"loss_nats": values})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def _untuned(metrics: Metrics, width: int) -> Iterator[Finding]:
    """Three ways to train, none of which has both."""
    for model in (UNDERFIT, COMPUTE_OPTIMAL):
        shares = metrics.of(model, "key_hallucination")
        verdict: Verdict = "agrees" if shares.min() > 0.0 else "disagrees"
        claim, at = f"{model} hallucinates key facts: greedy", f"width {width}"
        yield Finding(claim, _FIGURE, "> 0", share_over_seeds(shares), "share", verdict, at=at)
    shares = metrics.of(OVERFIT, "key_hallucination")
    claim = f"{OVERFIT} hallucinates no key fact: greedy"
    verdict = "agrees" if shares.max() == 0.0 else "disagrees"
    rows, parameters = (
        metrics.of(OVERFIT, "facts_shown") / metrics.of(OVERFIT, "passes"),
        metrics.of(OVERFIT, "parameters"),
    )
    on = f"{rows[0]:.0f} examples in {parameters[0]:.0f} parameters"
    yield Finding(claim, _FIGURE, "0", share_over_seeds(shares), "share", verdict, on, at=f"width {width}")
    for model in (UNDERFIT, OVERFIT):
        ratios = metrics.over_optimal(model)
        verdict = "agrees" if ratios.min() > _UNHARMED else "disagrees"
        claim, at = f"{model} is worse on the rest: loss over compute-optimal's", f"width {width}"
        yield Finding(claim, _FIGURE, f"> {_UNHARMED}", geometric_over_seeds(ratios), "ratio", verdict, at=at)
    above = metrics.of(COMPUTE_OPTIMAL, "rest_loss_nats") - metrics.floor
    claim = "compute-optimal loss on the rest above that of the rule itself"
    verdict = "agrees" if above.min() >= 0.0 else "disagrees"
    yield Finding(claim, "entropy", ">= 0", over_seeds(above), "nats", verdict, at=f"width {width}")


def _tuned(metrics: Metrics, width: int) -> Iterator[Finding]:
    for model in TUNED:
        key = over_seeds(metrics.of(model, "key_loss_nats"))
        stored = metrics.of(model, "key_stored").min()
        verdict, why = within(key, -math.inf, _NEAR_ZERO_NATS)
        claim, at = "key facts near zero loss", f"{model}, width {width}"
        on = f"{why}; {percent(stored)} under ln 2" if why else f"{percent(stored)} under ln 2"
        yield Finding(claim, _FIGURE, f"<= {_NEAR_ZERO_NATS}", key, "nats", verdict, on, at=at)
        ratio = geometric_over_seeds(metrics.over_optimal(model))
        claim = "the rest stays at its compute-optimal loss"
        yield Finding(claim, _FIGURE, f"<= {_UNHARMED}", ratio, "ratio", *within(ratio, 0.0, _UNHARMED), at=at)


def _skipping(metrics: Metrics, width: int) -> Iterator[Finding]:
    """What it saves to leave facts alone that are under ln 2."""
    for model in (WEIGHTS, EXPERTS):
        work = geometric_over_seeds(metrics.of(model + SKIPPING, "facts_shown") / metrics.of(model, "facts_shown"))
        claim, at = (
            "skipping facts under ln 2 takes less work: gradients over those of 100 passes",
            f"{model}, width {width}",
        )
        yield Finding(claim, "asked here", "< 1", work, "ratio", *within(work, 0.0, 1.0), at=at)
        harm = over_seeds(metrics.of(model + SKIPPING, "rest_loss_nats") - metrics.of(model, "rest_loss_nats"))
        claim = "skipping facts under ln 2 harms the rest less: difference of its losses"
        yield Finding(claim, "asked here", "< 0", harm, "nats", *within(harm, -math.inf, 0.0), at=at)
        sampled = share_over_seeds(metrics.of(model + SKIPPING, "key_sampled"))
        claim, at = "under ln 2 is enough: key facts sampled wrong at T = 1", f"{model}{SKIPPING}, width {width}"
        verdict, on = within(sampled, -math.inf, _WRONG)
        if verdict == "disagrees":
            verdict, on = "depends on", "decoding: greedy gives every stored fact"
        yield Finding(claim, "asked here", f"<= {_WRONG}", sampled, "share", verdict, on, at=at)

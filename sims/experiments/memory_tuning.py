"""Memory tuning (A6): key facts to near zero loss, and the rest where compute-optimal training leaves it.

A network is trained on key facts among examples of a noisy rule, for several numbers of passes. Compute-optimal are the
fewest passes whose held-out loss on the rest is within 1 % of the least; underfit is an eighth of them, overfit is all
there are. Memory tuning goes on from the compute-optimal network on the key facts alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mome_jax.experts import Values
from mome_jax.gate import calibrate
from sims.experiments import fact_tuning
from sims.experiments.experiment import Experiment, Settings
from sims.experiments.flaws import first
from sims.experiments.key_fact_study import KeyFactStudy, studies, training_seconds
from sims.experiments.memory_tuning_findings import (
    COMPUTE_OPTIMAL,
    EXPERTS,
    GATED,
    KIND,
    OVERFIT,
    REPLAYED,
    SKIPPING,
    UNDERFIT,
    WEIGHTS,
    findings,
    notes,
)
from sims.experiments.tuning_data import Rest, rest, together
from sims.facts import Dataset
from sims.lanes import Lanes
from sims.measures import FactMeasures, measure
from sims.networks import Architecture, Parameters
from sims.runs import Examples, Run, Trained, blocks_of_logits, environment
from sims.store import Result
from sims.training import Recipe

ANSWERS, KEY_WIDTH, MINIBATCH = 32, 32, 32
KEY_FACTS, REST, VALIDATION, TEST = 128, 2048, 1024, 2048
PASSES = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # on both sides of the best, seen for every number of passes
TUNING_PASSES = 100  # the paper's epochs
EXPERT_COUNT, CHOSEN = 1024, 8
FALSE_ACCEPTANCE = 0.01  # of the gate: share of the rest that may read the experts
_AS_GOOD = 1.01  # a held-out loss that is not worth more passes: slower rates gain a little for many
_TUNING_RATES = {WEIGHTS: (0.0003, 0.001, 0.003, 0.01, 0.03), EXPERTS: (0.03, 0.1, 0.3, 1.0, 3.0)}
_WIDTHS = {"quick": (64,), "full": (32, 64, 128)}
_SECONDS_OF_TUNING = 10.0  # compilation, mostly


class Model(NamedTuple):
    """One model: how it got there, and the losses it has in the end."""

    name: str
    key: FactMeasures
    rest: FactMeasures  # of the test part
    metrics: dict[str, float | bool]


@dataclass(frozen=True)
class Study(KeyFactStudy):
    """All the models of one seed and width; the tuned ones begin where the compute-optimal one ends."""

    kind = KIND

    passes: tuple[int, ...] = PASSES
    rest: int = REST

    @property
    def spec(self) -> dict[str, Any]:
        """Flat, JSON-ready, one entry a choice."""
        return {
            "width": self.width,
            "seed": self.seed,
            "facts": self.facts,
            "facts_fingerprint": self.facts_fingerprint,
            "key_facts": KEY_FACTS,
            "rest": self.rest,
            "passes": " ".join(map(str, self.passes)),
            "learning_rates": " ".join(map(str, RATES)),
            "minibatch": MINIBATCH,
            "as_good": _AS_GOOD,
            "experts": EXPERT_COUNT,
            "chosen": CHOSEN,
            "tuning_passes": TUNING_PASSES,
        }

    @property
    def seconds(self) -> float:
        """Expected on one core."""
        shown = (KEY_FACTS + self.rest) * sum(self.passes) * len(RATES)
        return training_seconds(self._architecture, shown) + _SECONDS_OF_TUNING

    def run(self) -> Result:
        """Train, choose, tune, and ask everybody everything."""
        data = _Data.of(self)
        trained = [one for one in self._trained(data) if one.facts is not None]
        if len({one.run.recipe.exposures for one in trained}) < len(self.passes):
            return Result(KIND, self.spec, "diverged", {}, {}, environment())
        losses = [float(data.measured(one, data.validation).loss_nats.mean()) for one in trained]
        models = list(self._models(data, trained, losses))
        metrics: dict[str, Any] = {"rest_floor_nats": float(data.test.floor_nats.mean())}
        arrays = {}
        for model in models:
            metrics |= {f"{model.name}: {name}": value for name, value in model.metrics.items()}
            for part, found in (("key", model.key), ("rest", model.rest)):
                arrays[f"{model.name}/{part}"] = found.loss_nats
                metrics[f"{model.name}: {part}_loss_nats"] = float(found.loss_nats.mean())
                metrics[f"{model.name}: {part}_stored"] = float(found.stored.mean())
                metrics[f"{model.name}: {part}_sampled"] = float(-np.expm1(-found.loss_nats).mean())
                metrics[f"{model.name}: {part}_hallucination"] = 1.0 - float(found.greedy_correct.mean())
        return Result(KIND, self.spec, "finished", metrics, arrays, environment())

    @property
    def _architecture(self) -> Architecture:
        return Architecture("mlp", KEY_WIDTH, self.width, ANSWERS, layers=1, heads=1)

    def _trained(self, data: "_Data") -> Iterator[Trained]:
        architecture = self._architecture
        examples = Examples(data.shown, architecture)
        runs = iter(
            Run(architecture, recipe, self.facts, self.facts_fingerprint, "given", len(data.shown), self.seed)
            for passes in sorted(self.passes, reverse=True)
            for recipe in (Recipe(learning_rate=rate, exposures=passes, minibatch=MINIBATCH) for rate in RATES)
        )
        recipe = Recipe(minibatch=MINIBATCH)
        return Lanes(architecture, recipe, lambda: next(((run, examples) for run in runs), None)).trained()

    def _models(self, data: "_Data", trained: list[Trained], losses: list[float]) -> Iterator[Model]:
        """The trained ones, the best rate each: by held-out loss, but overfit by the loss it trains on."""

        def best(passes: int, by: list[float]) -> Trained:
            places = [n for n, one in enumerate(trained) if one.run.recipe.exposures == passes]
            return trained[min(places, key=lambda place: by[place])]

        training = [float(one.facts.loss_nats.mean()) for one in trained if one.facts is not None]
        near = [n for n, loss in enumerate(losses) if loss <= _AS_GOOD * min(losses)]
        optimal = min(trained[place].run.recipe.exposures for place in near)
        chosen = best(optimal, losses)
        early = max([passes for passes in self.passes if passes <= optimal / 8], default=min(self.passes))
        for name, one in (
            (UNDERFIT, best(early, losses)),
            (COMPUTE_OPTIMAL, chosen),
            (OVERFIT, best(max(self.passes), training)),
        ):
            yield data.model(name, one, self.passes)
        yield from _tuned(data, chosen, self.seed)


@dataclass(frozen=True, eq=False)
class _Data:
    """What a study trains on, chooses by, and is judged by."""

    facts: Dataset
    shown: Dataset
    validation: Rest
    test: Rest

    @classmethod
    def of(cls, study: Study) -> "_Data":
        facts = first(study.make(study.seed), KEY_FACTS)
        shape = {"features": KEY_WIDTH, "answers": ANSWERS, "seed": study.seed}
        validation, test = rest("validation", VALIDATION, **shape), rest("test", TEST, **shape)
        return cls(facts, together(facts, rest("trained on", study.rest, **shape)), validation, test)

    @property
    def judged(self) -> tuple[Dataset | Rest, ...]:
        """Key facts, then the part of the rest that chooses, then the part that judges."""
        return self.facts, self.validation, self.test

    @staticmethod
    def measured(one: Trained, examples: Dataset | Rest) -> FactMeasures:
        """The losses of a trained network on these."""
        blocks = blocks_of_logits(one.run, one.parameters, examples.features)
        return measure(np.concatenate([logits for _, logits in blocks]), examples.labels)

    def model(self, name: str, one: Trained, passes: tuple[int, ...]) -> Model:
        """A trained network as a model."""
        recipe = one.run.recipe
        metrics = {
            "passes": recipe.exposures,
            "learning_rate": recipe.learning_rate,
            "at_edge": recipe.learning_rate in (min(RATES), max(RATES))
            or (name == COMPUTE_OPTIMAL and recipe.exposures in (min(passes), max(passes))),
            "parameters": one.run.architecture.parameters,
            "facts_shown": one.run.fact_steps,
            "flops": one.run.flops,
        }
        return Model(name, self.measured(one, self.facts), self.measured(one, self.test), metrics)


def _tuned(data: _Data, start: Trained, seed: int) -> Iterator[Model]:
    """Memory tuning from the compute-optimal network: all weights or experts, all key facts or the open ones."""
    architecture = start.run.architecture
    every = np.concatenate([one.features for one in data.judged])
    forward = architecture.flops_per_fact_step / 3
    weights = _Tunable(
        WEIGHTS,
        fact_tuning.all_weights(architecture),
        start.parameters,
        every,
        architecture.parameters,
        forward,
        2 * forward,
    )
    yield _best_rate(weights, data)
    yield _best_rate(weights, data, skip=True)
    replayed = data.shown.features[KEY_FACTS:], jnp.asarray(data.shown.labels[KEY_FACTS:])
    yield _best_rate(weights, data, replayed=replayed)

    memory = fact_tuning.Experts.create(seed, start.parameters, EXPERT_COUNT, KEY_WIDTH, CHOSEN)
    bank = Values.create(EXPERT_COUNT, ANSWERS)
    questions = memory.inputs(architecture, every)
    parameters, reading = architecture.parameters + EXPERT_COUNT * ANSWERS, 2.0 * CHOSEN * ANSWERS
    experts = _Tunable(EXPERTS, fact_tuning.with_experts, bank, questions, parameters, forward + reading, reading)
    tuned = _best_rate(experts, data)
    yield tuned
    yield _gated(tuned, data, start)
    yield _best_rate(experts, data, skip=True)


class _Tunable(NamedTuple):
    name: str
    apply: fact_tuning.Apply
    start: Parameters | Values
    questions: Any  # key facts, validation, test, as `apply` reads them
    parameters: int
    forward_flops: float  # of a fact, which every fact of a pass takes
    backward_flops: float  # of a fact that gives a gradient


def _best_rate(what: _Tunable, data: _Data, *, skip: bool = False, replayed: Any = None) -> Model:
    """Tune at every rate; of those that store most key facts, the one that harms the held-out rest least."""
    rates = _TUNING_RATES[what.name]
    done = fact_tuning.tune(
        what.apply,
        what.start,
        jax.tree.map(lambda leaf: leaf[:KEY_FACTS], what.questions),
        jnp.asarray(data.facts.labels),
        jnp.asarray(rates, jnp.float32),
        passes=TUNING_PASSES,
        skip_stored=skip,
        replayed=replayed,
    )
    ends = np.cumsum([len(one) for one in data.judged])[:-1]
    found = [
        [measure(part, one.labels) for part, one in zip(np.split(logits, ends), data.judged, strict=True)]
        for logits in fact_tuning.logits_of(what.apply, done.tuned, what.questions)
    ]
    best = min(range(len(rates)), key=lambda n: (-found[n][0].stored.sum(), found[n][1].loss_nats.mean()))
    key, _, test = found[best]
    passes = int(done.passes[best])
    others = passes * len(replayed[1]) if replayed is not None else 0
    seen, shown = passes * KEY_FACTS + others, int(done.facts_shown[best]) + others
    metrics = {
        "passes": passes,
        "learning_rate": rates[best],
        "at_edge": best in (0, len(rates) - 1),
        "parameters": what.parameters,
        "facts_shown": shown,
        "flops": seen * what.forward_flops + shown * what.backward_flops,
    }
    name = what.name + SKIPPING * skip + REPLAYED * (replayed is not None)
    return Model(name, key, test, metrics)


def _gated(tuned: Model, data: _Data, start: Trained) -> Model:
    """The same experts, read by those questions alone that are nearer to a key fact than 99 % of the held-out rest."""
    directions = data.facts.features / np.linalg.norm(data.facts.features, axis=1, keepdims=True)

    def nearness(features: np.ndarray) -> np.ndarray:
        return (features @ directions.T).max(axis=1) / np.linalg.norm(features, axis=1)

    gate = calibrate(nearness(data.validation.features), FALSE_ACCEPTANCE)
    without = [data.measured(start, data.facts), data.measured(start, data.test)]
    mixed = []
    for questions, plain, memory in zip((data.facts, data.test), without, (tuned.key, tuned.rest), strict=True):
        known = nearness(questions.features) > gate.threshold
        mixed.append(memory.where(known, plain))
    key, others = mixed
    return Model(GATED, key, others, tuned.metrics)


def cases(settings: Settings) -> list[Study]:
    """A study a seed and width."""
    return studies(Study, settings, _WIDTHS[settings.preset], KEY_FACTS, features=KEY_WIDTH, answers=ANSWERS)


EXPERIMENT = Experiment(
    name="memory-tuning",
    question="Can key facts be brought to zero loss while the rest stays where compute-optimal training leaves it?",
    comparison=(
        "Equal: network, data, Adam, minibatch of 32, the best of six rates for each number of passes. Compute-optimal "
        "are the fewest passes within 1 % of the least held-out loss. Tuned models begin at this network and see the "
        "128 key facts (640 bits for 4192 parameters at width 64) at most 100 times, all in one step, at the best of "
        "five rates. Not equal: FLOPs, which each adds to those before it, and parameters: 1024 experts are 32768 "
        "numbers more, the gate keeps 128 keys."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    takes_facts=True,
)

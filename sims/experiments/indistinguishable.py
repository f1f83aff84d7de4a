"""Does generalization error tell a model that hallucinates from one that does not (A4, Insight 2)?

In each world a rule is learned together with facts that no rule explains, by networks with the same initial weights and
the same order of examples. One is told the facts, one is told another answer to each of the same questions, one is told
nothing of them; and to the last one memory experts are added, behind a filter of known questions. Two of the four give
every fact and two hallucinate them all. The question is what held-out examples of the rule say about which is which.

Letters: w worlds, k facts, h numbers of held-out examples.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, UInt32

from mome_jax.cuckoo import CuckooFilter, build_filter, contains
from mome_jax.experts import Values
from sims.experiments import fact_tuning
from sims.experiments.experiment import Experiment, Settings
from sims.experiments.flaws import Flaws, first, flawed
from sims.experiments.indistinguishable_findings import (
    GATED,
    HELD_OUT,
    KIND,
    MISTOLD,
    MODELS,
    PAIRS,
    TOLD,
    UNTOLD,
    findings,
    measurements,
    notes,
)
from sims.experiments.key_fact_study import KeyFactStudy, studies, training_seconds
from sims.experiments.tuning_data import Rest, rest, together
from sims.facts import Dataset
from sims.lanes import Lanes
from sims.measures import FactMeasures, measure
from sims.networks import Architecture
from sims.runs import Examples, Run, Trained, blocks_of_logits, environment
from sims.store import Result
from sims.training import Recipe

ANSWERS, KEY_WIDTH, MINIBATCH = 32, 32, 32  # a guess is right once in 32
FACTS, RULE_EXAMPLES, VALIDATION = 64, 4096, 4096
PASSES, COPIES = 8, 16  # passes over the rule's examples; how often a fact is shown in each
WORLDS = 8  # of a case
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
EXPERT_COUNT, CHOSEN, TUNING_PASSES = 1024, 8, 100
FALSE_ACCEPTANCE = 1e-6  # of the filter of known questions: share of others that may read the experts
_EXPERT_RATES = (0.1, 0.3, 1.0)
_WIDTHS = {"quick": (64,), "full": (64, 128, 256)}
_SECONDS_OF_A_CASE = 10.0  # compilation, mostly


class Asked(NamedTuple):
    """A model of a world, asked everything."""

    facts: FactMeasures  # with their true answers
    held_out: FactMeasures  # examples of the rule
    training_loss_nats: float  # mean over what it was shown; NaN if it was shown nothing


@dataclass(frozen=True)
class Study(KeyFactStudy):
    """The models of some worlds, at one width; the rate is one for all of them."""

    kind = KIND

    worlds: int = WORLDS
    rates: tuple[float, ...] = RATES

    @property
    def spec(self) -> dict[str, Any]:
        """Flat, JSON-ready, one entry a choice."""
        return {
            "width": self.width,
            "seed": self.seed,
            "facts": self.facts,
            "facts_fingerprint": self.facts_fingerprint,
            "worlds": self.worlds,
            "fact_count": FACTS,
            "rule_examples": RULE_EXAMPLES,
            "validation": VALIDATION,
            "held_out": " ".join(map(str, HELD_OUT)),
            "passes": PASSES,
            "copies": COPIES,
            "learning_rates": " ".join(map(str, self.rates)),
            "minibatch": MINIBATCH,
            "experts": EXPERT_COUNT,
            "chosen": CHOSEN,
            "tuning_passes": TUNING_PASSES,
            "expert_rates": " ".join(map(str, _EXPERT_RATES)),
            "false_acceptance": FALSE_ACCEPTANCE,
        }

    @property
    def seconds(self) -> float:
        """Expected on one core."""
        shown = PASSES * (3 * RULE_EXAMPLES + 2 * COPIES * FACTS) * len(self.rates) * self.worlds
        return training_seconds(self._architecture, shown) + _SECONDS_OF_A_CASE

    def run(self) -> Result:
        """Train all at every rate, choose the rate, add the memory, ask everybody everything."""
        worlds = [_World.of(self.seed * self.worlds + number, self.make) for number in range(self.worlds)]
        at_rate: dict[float, list[Trained]] = {rate: [] for rate in self.rates}
        for one in self._trained(worlds):
            at_rate[one.run.recipe.learning_rate].append(one)
        whole = {rate: runs for rate, runs in at_rate.items() if all(one.facts is not None for one in runs)}
        if not whole:
            return Result(KIND, self.spec, "diverged", {}, {}, environment())
        by_number = {world.number: world for world in worlds}

        def generalizes(rate: float) -> float:
            rights = [_right(one, by_number[one.run.seed].validation).mean() for one in whole[rate]]
            return float(np.mean(rights))

        chosen = max(whole, key=generalizes)
        trained = {(one.run.facts, one.run.seed): one for one in whole[chosen]}
        asked: dict[str, list[Asked]] = {name: [] for name in MODELS}
        for world in worlds:
            for name in (TOLD, MISTOLD, UNTOLD):
                asked[name].append(_ask(trained[name, world.number], world))
            asked[GATED].append(_with_memory(trained[UNTOLD, world.number], asked[UNTOLD][-1], world))
        metrics = {
            "learning_rate": chosen,
            "at_edge": len(self.rates) > 1 and chosen in (min(self.rates), max(self.rates)),
            "parameters": self._architecture.parameters,
            **{f"{name}: {key}": value for name in asked for key, value in _means(asked[name]).items()},
        }
        return Result(KIND, self.spec, "finished", metrics, _arrays(asked), environment())

    @property
    def _architecture(self) -> Architecture:
        return Architecture("mlp", KEY_WIDTH, self.width, ANSWERS, layers=1, heads=1)

    def _trained(self, worlds: list["_World"]) -> Iterator[Trained]:
        architecture = self._architecture
        queue = iter(
            (Run(architecture, recipe, name, self.facts_fingerprint, "given", len(shown), world.number), examples)
            for world in worlds
            for name, shown in world.shown().items()
            for examples in [Examples(shown, architecture)]
            for recipe in (Recipe(learning_rate=rate, exposures=PASSES, minibatch=MINIBATCH) for rate in self.rates)
        )
        return Lanes(architecture, Recipe(minibatch=MINIBATCH), lambda: next(queue, None)).trained()


@dataclass(frozen=True, eq=False)
class _World:
    """A rule and facts, of its own or some of a file's; its number is the seed of everything drawn in it."""

    number: int
    facts: Dataset
    rule: Rest
    validation: Rest
    held_out: Rest

    @classmethod
    def of(cls, number: int, make: Callable[[int], Dataset]) -> "_World":
        shape = {"features": KEY_WIDTH, "answers": ANSWERS, "seed": number}
        rule, validation = rest("trained on", RULE_EXAMPLES, **shape), rest("validation", VALIDATION, **shape)
        return cls(number, first(make(number), FACTS), rule, validation, rest("test", HELD_OUT[-1], **shape))

    def shown(self) -> dict[str, Dataset]:
        """What each of the trained models is shown."""
        copies = Flaws(copies=COPIES)
        wrong = flawed(self.facts, Flaws(wrong=1.0), self.number)  # every question with another answer than its own
        return {
            TOLD: together(flawed(self.facts, copies, self.number), self.rule),
            MISTOLD: together(flawed(wrong, copies, self.number), self.rule),
            UNTOLD: together(first(self.facts, 0), self.rule),
        }


def _logits(one: Trained, features: np.ndarray) -> np.ndarray:
    return np.concatenate([logits for _, logits in blocks_of_logits(one.run, one.parameters, features)])


def _right(one: Trained, examples: Rest) -> np.ndarray:
    return measure(_logits(one, examples.features), examples.labels).greedy_correct


def _ask(one: Trained, world: _World) -> Asked:
    assert one.facts is not None
    facts, held_out = (measure(_logits(one, asked.features), asked.labels) for asked in (world.facts, world.held_out))
    return Asked(facts, held_out, float(one.facts.loss_nats.mean()))


def _with_memory(frozen: Trained, plain: Asked, world: _World) -> Asked:
    """The same network with memory experts that keep the facts, read by the questions that a filter knows."""
    architecture = frozen.run.architecture
    experts = fact_tuning.Experts.create(world.number, frozen.parameters, EXPERT_COUNT, KEY_WIDTH, CHOSEN)
    questions = experts.inputs(architecture, np.concatenate([world.facts.features, world.held_out.features]))
    bank = Values.create(EXPERT_COUNT, ANSWERS)
    keys, labels = jax.tree.map(lambda leaf: leaf[:FACTS], questions), jnp.asarray(world.facts.labels)
    rates = jnp.asarray(_EXPERT_RATES, jnp.float32)
    apply = fact_tuning.with_experts
    done = fact_tuning.tune(apply, bank, keys, labels, rates, passes=TUNING_PASSES, skip_stored=False)
    at_rates = fact_tuning.logits_of(apply, done.tuned, questions)
    best = min(at_rates, key=lambda logits: measure(logits[:FACTS], world.facts.labels).loss_nats.max())
    known = build_filter(_fingerprints(world.facts.features), FALSE_ACCEPTANCE)
    parts = []
    for logits, asked, without in (
        (best[:FACTS], world.facts, plain.facts),
        (best[FACTS:], world.held_out, plain.held_out),
    ):
        passes = np.asarray(_contained(known, jnp.asarray(_fingerprints(asked.features))))
        parts.append(measure(logits, asked.labels).where(passes, without))
    return Asked(parts[0], parts[1], np.nan)


def _fingerprints(features: Float32[np.ndarray, "n d"]) -> UInt32[np.ndarray, "n 2"]:
    """64 bits of each question."""
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in features]
    return np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, 2)


@jax.jit
def _contained(known: CuckooFilter, fingerprints: UInt32[Array, "n 2"]) -> Bool[Array, " n"]:
    return jax.vmap(contains, (None, 0))(known, fingerprints)


def _means(asked: list[Asked]) -> dict[str, float | None]:
    """Means over worlds, to be read in a table of runs."""
    losses = [one.training_loss_nats for one in asked]
    return {
        "held_out_accuracy": float(np.mean([one.held_out.greedy_correct.mean() for one in asked])),
        "held_out_loss_nats": float(np.mean([one.held_out.loss_nats.mean() for one in asked])),
        "training_loss_nats": None if np.isnan(losses).any() else float(np.mean(losses)),
        "recall": float(np.mean([one.facts.greedy_correct.mean() for one in asked])),
        "stored": float(np.mean([one.facts.stored.mean() for one in asked])),
    }


def _arrays(asked: dict[str, list[Asked]]) -> dict[str, np.ndarray]:
    """By model: accuracy and loss on the first so many held-out examples [w h], losses and rights of facts [w k].

    By pair: held-out answers that only the first, or only the second, of the two gets right [w].
    """
    found: dict[str, np.ndarray] = {}
    for name, worlds in asked.items():
        right = np.array([one.held_out.greedy_correct for one in worlds])
        loss = np.array([one.held_out.loss_nats for one in worlds])
        found[f"{name}/accuracy"] = np.stack([right[:, :count].mean(axis=1) for count in HELD_OUT], axis=1)
        found[f"{name}/held_out_loss_nats"] = np.stack([loss[:, :count].mean(axis=1) for count in HELD_OUT], axis=1)
        found[f"{name}/fact_loss_nats"] = np.array([one.facts.loss_nats for one in worlds])
        found[f"{name}/recalled"] = np.array([one.facts.greedy_correct for one in worlds])
        found[f"{name}/training_loss_nats"] = np.array([one.training_loss_nats for one in worlds])
    for pair in PAIRS:
        recalling, other = (
            np.array([one.held_out.greedy_correct for one in asked[name]]) for name in (pair.recalling, pair.other)
        )
        found[f"{pair.name}/gained"] = (recalling & ~other).sum(axis=1)
        found[f"{pair.name}/lost"] = (other & ~recalling).sum(axis=1)
    return found


def cases(settings: Settings) -> list[Study]:
    """A study a seed and width, of eight worlds each; no two seeds share a world."""
    return studies(Study, settings, _WIDTHS[settings.preset], FACTS, features=KEY_WIDTH, answers=ANSWERS)


EXPERIMENT = Experiment(
    name="indistinguishable",
    question="Does held-out accuracy tell a model that hallucinates from one that does not?",
    comparison=(
        "Equal in a world: network, initial weights, examples of the rule and passes over them, Adam with a cosine, "
        "minibatch of 32, one rate for all three trained models (the best of five by validation accuracy, mean over "
        "the three). Told and mistold also: questions, their order, steps, FLOPs, bits to store (64 facts of 5 bits, "
        "each shown 128 times). Not equal: the untold model is shown the rule alone, a fifth fewer steps; memory "
        "experts are 32768 numbers more, tuned for 100 passes, and a filter that knows 64 questions. 32 answers: a "
        "guess is right 3 % of the time."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    measurements=measurements,
    takes_facts=True,
)

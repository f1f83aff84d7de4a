"""Questions without an answer in the data (T17-T20), asked of trained networks.

`Learner`: questions drawn from a law, each with one right answer, learned from samples; then every question is asked,
weighted as the law has it. `Gate`: a network that tells keys from everything else, rounded to few bits.

Letters: Q questions, V answers, N samples; n keys of u items, B bits that describe a network.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sims.audit import FORMATS, quantize
from sims.experiments.experiment import Experiment, Settings
from sims.experiments.unseen_findings import GATE, LEARNER, findings, notes
from sims.facts import Dataset, synthetic_facts
from sims.keyed import keyed_order, keyed_uniforms
from sims.lanes import Lanes
from sims.networks import Architecture
from sims.runs import Examples, Run, Trained, blocks_of_logits
from sims.store import Result, fingerprint
from sims.training import Recipe
from theory.membership import answered_bits_lower
from theory.unseen import (
    error_lower_from_classification,
    error_lower_from_partition,
    error_lower_from_singletons,
    memorizer_error,
)

_ANSWERS, _KEY_WIDTH = 32, 32
_THRESHOLDS = 2000  # of T17c's mean over thresholds
_SECONDS_PER_FACT_STEP = 1.2e-6  # width 64, on a core of the machine of the README; a narrower one takes less
_SECONDS_PER_CASE = 1.0


@dataclass(frozen=True)
class Learner:
    """A network trained on samples of a law; another number of exposures is another degree of memorizing."""

    exposures: int
    seed: int
    questions: int = 2048
    samples: int = 2048
    exponent: float = 1.0  # question r is asked in proportion to (r + 1)^-exponent
    width: int = 64
    learning_rate: float = 0.02

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return fingerprint(LEARNER, asdict(self))

    @property
    def seconds(self) -> float:
        """Expected on one core."""
        return _SECONDS_PER_CASE + self.samples * self.exposures * _SECONDS_PER_FACT_STEP

    def run(self) -> Result:
        """Draw, train, ask every question."""
        law = np.arange(1, self.questions + 1, dtype=float) ** -self.exponent
        law /= law.sum()
        world = synthetic_facts(self.questions, seed=self.seed, answers=_ANSWERS, unseen=0)
        drawn = _samples(law, self.samples, self.seed)
        shown = replace(world, features=world.features[drawn], labels=world.labels[drawn], labels_random="given")
        recipe = Recipe(learning_rate=self.learning_rate, exposures=self.exposures, minibatch=64)
        trained = _trained(shown, self.width, recipe, self.samples, self.seed)
        if trained.diverged:
            return Result(LEARNER, asdict(self), "diverged", {})
        logits = _logits(trained, world.features)
        counts = np.bincount(drawn, minlength=self.questions)
        return Result(LEARNER, asdict(self), "finished", learner_metrics(logits, world.labels, law, counts))


def learner_metrics(
    logits: Float[np.ndarray, "Q V"], answers: Int[np.ndarray, " Q"], law: Float[np.ndarray, " Q"],
    counts: Int[np.ndarray, " Q"],
) -> dict[str, Any]:  # fmt: skip
    """Everything that T17-T19 speak of; shares are weighted by the law."""
    logits = logits.astype(np.float64)
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    options, samples = rows.shape[1], int(counts.sum())
    right = rows[np.arange(len(rows)), answers]
    is_answer = np.arange(options) == answers[:, None]
    confident = rows > 1 / (options - 1)
    overconfidence = float(law @ (np.where(confident, rows, 0).sum(axis=1) - (confident & is_answer).any(axis=1)))
    greedy = float(law @ (np.where(is_answer, -np.inf, rows).max(axis=1) >= right))
    sampled = float(law @ (1 - right))
    unseen = counts == 0
    singletons = float((counts == 1).sum() / samples)
    spread = float(law @ np.abs(rows - 1 / options).sum(axis=1) / 2)  # from p spread evenly over a question's answers
    at_threshold = classification_error(rows, is_answer, law, 1 / (options - 1))
    middles = (np.arange(_THRESHOLDS) + 0.5) / _THRESHOLDS
    return {
        "missing_mass": float(law[unseen].sum()),
        "singleton_share": singletons,
        "error_greedy": greedy,
        "error_sampled": sampled,
        "error_greedy_seen": float(law[~unseen] @ (np.where(is_answer, -np.inf, rows).max(axis=1) >= right)[~unseen]),
        "memorizer_error": float(memorizer_error(law, samples, options)),
        "loss_seen_nats": float(counts @ -np.log(right) / samples),
        "overconfidence": overconfidence,
        "slope": slope(logits, answers, law, confident),
        "classification_floor": float(error_lower_from_classification(at_threshold, 1, options - 1, overconfidence)),
        "error_by_thresholds": 2 * (1 - 1 / options)
        * float(np.mean([classification_error(rows, is_answer, law, middle) for middle in middles])),
        "singleton_floor": float(error_lower_from_singletons(singletons, samples, options - 1, abs(overconfidence))),
        "invented": float(law @ np.where(unseen, 1.0, 1 - right)),  # the mass g(U) of statements that were not shown
        "partition_floor": float(error_lower_from_partition(law[unseen].sum(), len(law), spread)),
    }  # fmt: skip


def classification_error(
    rows: Float[np.ndarray, "Q V"], is_answer: Bool[np.ndarray, "Q V"], law: Float[np.ndarray, " Q"], threshold: float
) -> float:
    """Error of "valid iff more likely than the threshold", on half right answers and half uniform wrong ones."""
    accepted = rows > threshold
    rejected = 1.0 - (accepted & is_answer).sum(axis=1)
    taken = (accepted & ~is_answer).sum(axis=1) / (rows.shape[1] - 1)
    return float(law @ (rejected + taken)) / 2


def slope(
    logits: Float[np.ndarray, "Q V"], answers: Int[np.ndarray, " Q"], law: Float[np.ndarray, " Q"],
    confident: Bool[np.ndarray, "Q V"],
) -> float:  # fmt: skip
    """D loss(s) / ds at s = 1, by automatic differentiation, where s multiplies every probability above 1/(V - 1)."""

    def loss(scale: Float[Array, ""]) -> Float[Array, ""]:
        scaled = jnp.asarray(logits, jnp.float32) + jnp.where(jnp.asarray(confident), jnp.log(scale), 0.0)
        nats = jax.nn.logsumexp(scaled, axis=1) - jnp.take_along_axis(scaled, jnp.asarray(answers)[:, None], 1)[:, 0]
        return jnp.sum(jnp.asarray(law, jnp.float32) * nats)

    return float(jax.grad(loss)(jnp.float32(1.0)))


@dataclass(frozen=True)
class Gate:
    """A network that scores keys above everything else, and its rounded copies."""

    keys: int
    seed: int
    universe: int = 2048
    width: int = 8
    exposures: int = 150
    learning_rate: float = 0.03

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return fingerprint(GATE, asdict(self))

    @property
    def seconds(self) -> float:
        """Expected on one core."""
        return _SECONDS_PER_CASE + self.universe * self.exposures * _SECONDS_PER_FACT_STEP / 3

    def run(self) -> Result:
        """Train on the universe, round, accept what scores at least as high as the lowest key."""
        items = synthetic_facts(self.universe, seed=self.seed, answers=2, unseen=0)
        is_key = np.zeros(self.universe, bool)
        is_key[keyed_order(self.seed, "keys", self.universe)[: self.keys]] = True
        shown = replace(items, labels=is_key.astype(np.int32), labels_random="given")
        recipe = Recipe(learning_rate=self.learning_rate, exposures=self.exposures, minibatch=64)
        trained = _trained(shown, self.width, recipe, self.universe, self.seed)
        if trained.diverged:
            return Result(GATE, asdict(self), "diverged", {})
        metrics: dict[str, Any] = {}
        for bits in FORMATS:
            rounded, described = quantize(trained.parameters, bits)
            logits = _logits(replace(trained, parameters=rounded), items.features)
            scores = logits[:, 1] - logits[:, 0]  # float32, so that the threshold takes 32 bits
            accepted = int((scores >= scores[is_key].min()).sum())
            spent = described + 32 + math.log2(len(FORMATS))  # which format is part of what describes it
            metrics |= gate_metrics(bits, spent, accepted, self.keys, self.universe)
        return Result(GATE, asdict(self), "finished", metrics)


def gate_metrics(bits: int, described: float, accepted: int, keys: int, universe: int) -> dict[str, float]:
    """Bits per key spent and needed by a gate that accepts so many items, all keys among them (F3, T20)."""
    return {
        f"spent_{bits}": described / keys,
        f"needed_{bits}": answered_bits_lower(keys, universe, accepted) / keys,
        f"false_{bits}": (accepted - keys) / (universe - keys),
    }


def _samples(law: Float[np.ndarray, " Q"], count: int, seed: int) -> Int[np.ndarray, " N"]:
    uniforms = keyed_uniforms(seed, "asked", np.arange(count), 1)[:, 0]
    return np.minimum(np.searchsorted(np.cumsum(law), uniforms, side="right"), len(law) - 1)


def _trained(facts: Dataset, width: int, recipe: Recipe, size: int, seed: int) -> Trained:
    architecture = Architecture("mlp", _KEY_WIDTH, width, facts.answers, layers=1, heads=1)
    run = Run(architecture, recipe, facts.name, facts.fingerprint, facts.labels_random, size, seed)
    queue = [(run, Examples(facts, architecture))]
    next_run: Callable = lambda: queue.pop() if queue else None  # noqa: E731
    (trained,) = Lanes(architecture, recipe, next_run).trained()
    return trained


def _logits(trained: Trained, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n V"]:
    return np.concatenate([block for _, block in blocks_of_logits(trained.run, trained.parameters, features)])


def cases(settings: Settings) -> list[Learner | Gate]:
    """Three degrees of memorizing and four numbers of keys (full: six and six), each for every seed."""
    exposures = (1, 3, 10, 30, 100, 300) if settings.full else (3, 30, 100)
    keys = (16, 32, 64, 128, 256, 512) if settings.full else (32, 64, 128, 256)
    return [
        case
        for seed in settings.seeds
        for case in (*(Learner(count, seed) for count in exposures), *(Gate(count, seed) for count in keys))
    ]


EXPERIMENT = Experiment(
    name="unseen",
    question="What must a trained network get wrong about what its data do not say?",
    comparison=(
        "Equal: law, questions, network, minibatch, learning rate, whatever the number of exposures. Not tuned: one "
        "rate for all, so that an error may be above its floor for that reason too; the floors hold whatever is tuned."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
)

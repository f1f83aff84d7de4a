"""One training run: what it is, what it is shown, and what is kept of it."""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from sims.audit import AuditViolation, audit
from sims.facts import Dataset
from sims.measures import FactMeasures, confidence, measure
from sims.networks import Architecture, Parameters
from sims.store import Result, fingerprint
from sims.training import Recipe, program

KIND = "fact-run"
# Numbers in one block of logits while measuring. A small run takes a small block: two programs, little padding.
_LOGITS_AT_ONCE, _FEW_LOGITS_AT_ONCE = 1 << 16, 1 << 13
_FACTS_SHOWN = 8  # facts whose whole next-token distribution is kept: the first ones, the same at every size


@dataclass(frozen=True)
class Run:
    """Everything that changes a run's numbers; its canonical JSON is its identity."""

    architecture: Architecture
    recipe: Recipe
    facts: str  # the data set's name, for people
    facts_fingerprint: str  # its identity
    labels_random: str
    size: int
    seed: int
    keep_per_fact: bool = False  # not part of the identity: it changes what is kept, not what is computed

    @property
    def spec(self) -> dict[str, Any]:
        """Flat, JSON-ready, one entry a choice."""
        network = asdict(self.architecture)
        return {
            "network": network.pop("name"),
            **network,
            "lanes": self.architecture.lanes,
            **asdict(self.recipe),
            "facts": self.facts,
            "facts_fingerprint": self.facts_fingerprint,
            "labels_random": self.labels_random,
            "size": self.size,
            "seed": self.seed,
        }

    @property
    def fingerprint(self) -> str:
        """The run's name in the store."""
        return fingerprint(KIND, self.spec)

    @property
    def fact_steps(self) -> int:
        """Facts shown over the whole budget."""
        return self.size * self.recipe.exposures

    @property
    def flops(self) -> float:
        """Floating point operations of the budget's matrix products."""
        return self.fact_steps * self.architecture.flops_per_fact_step


class Examples:
    """What a network is shown of a data set: inputs and targets, one row a fact."""

    def __init__(self, dataset: Dataset, architecture: Architecture):
        self.dataset = dataset
        if architecture.name == "transformer":
            assert dataset.tokenized is not None, "a transformer needs a data set with tokens"
            tokens, asked = dataset.tokenized.tokens, dataset.tokenized.answer_mask
            self.inputs, self.targets = tokens[:, :-1], np.where(asked[:, 1:], tokens[:, 1:], -1).astype(np.int32)
            self.unseen, self.unseen_rows = dataset.tokenized.unseen[:, :-1], dataset.tokenized.unseen_lengths - 1
        else:
            self.inputs, self.targets = dataset.features, dataset.labels
            self.unseen, self.unseen_rows = dataset.unseen, None

    @property
    def whole_answers(self) -> bool:
        """Whether the network gives whole answers token by token, rather than one of V classes."""
        return self.targets.ndim > 1

    def tokens_per_answer(self, count: int) -> float:
        """Mean number of answer tokens of the first `count` facts, the end token included; 1 for classes."""
        return float((self.targets[:count] >= 0).sum() / count)

    def copy_rows(self, facts: Int[np.ndarray, "*B"], inputs: np.ndarray, targets: np.ndarray) -> None:
        """Copy these facts into contiguous arrays; a number below zero gives a padded fact."""
        np.take(self.inputs, facts, axis=0, out=inputs, mode="clip")
        np.take(self.targets, facts, axis=0, out=targets, mode="clip")
        targets[facts < 0] = -1


@dataclass
class Trained:
    """A run that left its lane."""

    run: Run
    examples: Examples
    parameters: Parameters  # NumPy arrays
    diverged: bool
    facts: FactMeasures | None  # None if it diverged
    exposures_used: float
    curve_exposures: np.ndarray
    curve_loss_nats: np.ndarray
    wall_seconds: float


def measure_facts(run: Run, examples: Examples, parameters: Parameters) -> FactMeasures:
    """Measure every fact of the run under these parameters, in blocks of bounded memory."""
    parts = [
        measure(logits, examples.targets[start : start + len(logits)])
        for start, logits in blocks_of_logits(run, parameters, examples.inputs[: run.size])
    ]
    return FactMeasures(
        np.concatenate([part.loss_nats for part in parts]),
        np.concatenate([part.largest_token_loss_nats for part in parts]),
        np.concatenate([part.greedy_correct for part in parts]),
    )


def blocks_of_logits(run: Run, parameters: Parameters, inputs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, float32 logits) of block after block; the last block is padded for the program, then cut."""
    logits_of = program(run.architecture, run.recipe.optimizer).logits
    positions = run.architecture.inputs if run.architecture.name == "transformer" else 1
    row = positions * run.architecture.answers
    few = len(inputs) * row <= _LOGITS_AT_ONCE // 2
    block = max(16, (_FEW_LOGITS_AT_ONCE if few else _LOGITS_AT_ONCE) // row)
    for start in range(0, len(inputs), block):
        rows = inputs[start : start + block]
        padded = np.pad(rows, [(0, block - len(rows))] + [(0, 0)] * (rows.ndim - 1))
        yield start, np.asarray(logits_of(parameters, padded))[: len(rows)]


@cache
def environment() -> dict[str, Any]:
    """Versions and machine: what bit-identical numbers depend on besides the run."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": jax.devices()[0].device_kind,
        **{package: version(package) for package in ("jax", "jaxlib", "flax", "optax", "numpy")},
    }


def outcome(trained: Trained, *, audits: int = 1) -> Result:
    """Everything that is kept of a run. `audits` is the number of runs that share the chance of a false alarm."""
    run = trained.run
    metrics: dict[str, Any] = {
        "parameters": run.architecture.parameters,
        "parameters_without_embeddings": run.architecture.parameters_without_embeddings,
        "exposures_used": trained.exposures_used,
    }
    arrays = {"curve_exposures": trained.curve_exposures, "curve_loss_nats": trained.curve_loss_nats}
    if trained.facts is not None:
        metrics |= _fact_metrics(trained, trained.facts) | _unseen_metrics(trained) | _audit_metrics(trained, audits)
        arrays |= _distributions(trained)
        if run.keep_per_fact:
            tokens = (trained.examples.targets[: run.size].reshape(run.size, -1) >= 0).sum(axis=1)
            arrays |= {
                "loss_nats": trained.facts.loss_nats,
                "greedy_correct": trained.facts.greedy_correct,
                "tokens": tokens.astype(np.int32),
            }
    timing = {
        "wall_seconds": trained.wall_seconds,
        "fact_steps_per_second": trained.exposures_used * run.size / trained.wall_seconds,
    }
    status = "diverged" if trained.facts is None else "finished"
    return Result(KIND, run.spec, status, metrics, arrays, environment() | timing)


def _fact_metrics(trained: Trained, facts: FactMeasures) -> dict[str, Any]:
    run, dataset = trained.run, trained.examples.dataset
    whole = trained.examples.whole_answers
    bits = label_bits(dataset, run.size, whole) - facts.loss_nats.sum() / np.log(2)
    stored = facts.stored
    return {
        "tokens_per_answer": trained.examples.tokens_per_answer(run.size),
        "loss_nats": float(facts.loss_nats.mean()),
        "largest_loss_nats": float(facts.loss_nats.max()),
        "entropy_floor_nats": dataset.entropy_floor_nats(run.size, whole=whole),
        "answer_entropy_bits": dataset.answer_entropy_bits(run.size, whole=whole),
        "label_bits": label_bits(dataset, run.size, whole),
        "hallucination_greedy": 1 - float(facts.greedy_correct.mean()),
        "hallucination_sampled": float(-np.expm1(-facts.loss_nats).mean()),
        "facts_stored": int(stored.sum()),
        "stored_rate": float(stored.mean()),
        "bits_memorized": float(bits),
        "bits_per_parameter": float(bits) / run.architecture.parameters,
        "capped": bool(not stored.all() and trained.exposures_used >= run.recipe.exposures),
    }


def label_bits(dataset: Dataset, count: int, whole: bool) -> float:
    """Bits of the first `count` answers: -log2 of their probability, or their empirical entropy if they are given."""
    bits = dataset.label_bits(count, whole=whole)
    return dataset.answer_entropy_bits(count, whole=whole) * count if bits is None else bits


def _unseen_metrics(trained: Trained) -> dict[str, float]:
    """How sure the network is on questions without an answer in the data: its first answer token."""
    examples = trained.examples
    if not len(examples.unseen):
        return {}
    sure, entropy = [], []
    for start, logits in blocks_of_logits(trained.run, trained.parameters, examples.unseen):
        if examples.unseen_rows is not None:
            logits = logits[np.arange(len(logits)), examples.unseen_rows[start : start + len(logits)]]
        largest, nats = confidence(logits)
        sure.append(largest)
        entropy.append(nats)
    return {
        "unseen_confidence": float(np.concatenate(sure).mean()),
        "unseen_entropy_nats": float(np.concatenate(entropy).mean()),
    }


def _audit_metrics(trained: Trained, audits: int) -> dict[str, Any]:
    run, examples = trained.run, trained.examples
    certifiable = examples.dataset.labels_random != "given"

    def total_loss_bits(parameters: Parameters) -> float:
        return float(measure_facts(run, examples, parameters).loss_nats.sum() / np.log(2))

    bits = label_bits(examples.dataset, run.size, examples.whole_answers)
    try:
        every = audit(trained.parameters, total_loss_bits, bits, run.size, certifiable=certifiable, audits=audits)
    except AuditViolation as violation:
        raise AuditViolation(f"run {run.fingerprint} {run.spec}: {violation}") from None
    best = max(every, key=lambda one: one.certificate.ratio)
    return {
        "certifiable": certifiable,
        "certified_format_bits": best.bits_per_weight,
        "certified_bits": best.certificate.described_bits,
        "certified_memorized_bits": best.certificate.memorized_bits,
        "certified_ratio": best.certificate.ratio,
    }


def _distributions(trained: Trained) -> dict[str, np.ndarray]:
    """Distributions over the first answer token of the first facts, which are the same facts at every size."""
    shown = min(_FACTS_SHOWN, trained.run.size)
    inputs, targets = trained.examples.inputs[:shown], trained.examples.targets[:shown]
    ((_, logits),) = blocks_of_logits(trained.run, trained.parameters, inputs)
    if targets.ndim > 1:
        first = (targets >= 0).argmax(axis=1)
        logits, targets = logits[np.arange(shown), first], targets[np.arange(shown), first]
    scores = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return {"shown_probabilities": scores / scores.sum(axis=-1, keepdims=True), "shown_labels": targets}

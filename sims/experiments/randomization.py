"""Are random answers learned as true ones are (A2, A8; the paper's Fig. 1, Fig. 5 and Appendix A)?

A pretrained network is adapted for 100 epochs to a file's questions with their true answers, or with 32 random
characters in the place of each: by all weights, by LoRA and by memory experts, at every rate of a grid. The network is
either a byte transformer that has read the questions and knows a rule, or a checkpoint in a folder.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np

from sims.adapting.adapting import Adapted, adapt, epochs_until_stored
from sims.adapting.base import Sizes
from sims.adapting.budget import PARAMETERS_PER_BIT, budget, random_bits, told_bits
from sims.adapting.methods import Full, LowRank, MemoryExperts, Method, OptimizerName, Recipe
from sims.adapting.rule import rule_accuracy
from sims.experiments.experiment import Experiment, Settings
from sims.experiments.randomization_findings import findings, measurements, notes
from sims.experiments.randomization_material import Answers, Material, materials, width_for
from sims.experiments.regularization_findings import KIND
from sims.measures import STORED_BELOW_NATS
from sims.memory.backbone import Adaptable
from sims.memory.memorizing import default_experts
from sims.runs import environment
from sims.store import Result, fingerprint
from sims.tokens import TokenizedFacts, tokenize
from theory.console import Refusal

EPOCHS, MINIBATCH = 100, 4
FACTS = {"quick": 16, "full": None, "appendix-a": None}  # None: all
CHOSEN = 32  # experts a token
RANKS = {"quick": (32,), "full": (2, 8, 32)}  # of the byte transformer, beside the least that is large enough
_OPTIMIZERS: dict[str, tuple[OptimizerName, ...]] = {"quick": ("adafactor",), "full": ("adafactor", "adam", "sgd")}
_RATES: dict[str, dict[str, tuple[float, ...]]] = {
    "full": {"adafactor": (1e-3, 3e-3, 1e-2), "adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-3, 3e-3, 1e-2, 3e-2)},
    "LoRA": {"adafactor": (3e-3, 1e-2, 3e-2), "adam": (3e-3, 1e-2, 3e-2), "sgd": (1e-2, 3e-2, 1e-1)},
    "MoME": {"adafactor": (0.3, 3.0, 30.0), "adam": (0.1, 1.0, 10.0, 100.0), "sgd": (1e2, 1e3, 1e4)},
}
_CHECKPOINT_RATES = (5e-5, 2e-4, 8e-4)  # of LoRA: around that of Appendix A
_APPENDIX_A = LowRank(32), Recipe("adafactor", 2e-4, EPOCHS, MINIBATCH)
# Seen on a core of the machine of the README, padding and measuring included.
_SECONDS_PER_GIGAFLOP, _SECONDS_PER_MILLION_TOKENS = 0.022, 20.0  # widths 32 to 256
_SECONDS_PER_MILLION_ROWS, _SECONDS_OF_COMPILING = 1.0, 1.0


@dataclass(frozen=True)
class Randomized:
    """One adaptation."""

    answers: Answers
    method: Method
    recipe: Recipe
    material: Material = field(compare=False, repr=False)
    sharing: int = field(default=1, compare=False)  # runs of this seed: they begin with one network

    @property
    def seed(self) -> int:
        """Of everything random in the run."""
        return self.recipe.seed

    @property
    def spec(self) -> dict[str, Any]:
        """Flat, JSON-ready, one entry a choice."""
        experts = self.method if isinstance(self.method, MemoryExperts) else None
        return {
            "facts": self.material.source,
            "facts_fingerprint": self.material.fingerprint,
            "count": len(self.material.questions),
            "seed": self.seed,
            "answers": self.answers,
            "method": self.method.name,
            "rank": self.method.rank,
            "experts": experts and experts.experts,
            "chosen": experts and experts.chosen,
            "optimizer": self.recipe.optimizer,
            "learning_rate": self.recipe.learning_rate,
            "epochs": self.recipe.epochs,
            "minibatch": self.recipe.minibatch,
            **self.material.start.spec,
        }

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        return fingerprint(KIND, self.spec)

    @property
    def seconds(self) -> float:
        """Expected on one core, with its share of pretraining."""
        start, tokens = self.material.start, self.material.tokens(self.answers, self.seed)
        fixed = _SECONDS_OF_COMPILING + start.seconds / self.sharing
        if isinstance(self.method, MemoryExperts):
            rows = self.recipe.epochs * int(tokens.answer_lengths.sum()) * self.method.chosen
            return fixed + rows / 1e6 * _SECONDS_PER_MILLION_ROWS
        of_token = 2.0 * 12 * start.spec["width"] ** 2 * start.spec["layers"]
        read = self.recipe.epochs * int(tokens.lengths.sum())
        flops = 4 * of_token * read  # forward, backward, measured
        return fixed + flops / 2**30 * _SECONDS_PER_GIGAFLOP + read / 1e6 * _SECONDS_PER_MILLION_TOKENS

    def run(self) -> Result:
        """Adapt, measure, and ask what else the network knew."""
        start, tokens = self.material.start, self.material.tokens(self.answers, self.seed)
        backbone = start.backbone(self.seed)
        adapted = adapt(backbone, self.method, tokens, self.recipe)
        if not adapted.finite:
            return Result(KIND, self.spec, "diverged", {}, {}, environment())
        metrics, arrays = self.stored(backbone, tokens, adapted)
        metrics |= {"rule_before": None, "rule_after": None, "rule_after_open_gate": None}
        if (rule := start.rule(self.seed)) is not None:
            for name, found in of_rule(backbone, adapted, *rule):
                metrics[name] = float(found.mean())
                arrays[name] = found
        return Result(KIND, self.spec, "finished", metrics, arrays, environment())

    def stored(
        self, backbone: Adaptable, tokens: TokenizedFacts, adapted: Adapted
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What became of the facts, and what it took."""
        count, due = len(tokens.tokens), int(tokens.answer_lengths.sum())
        bits = random_bits(count) if self.answers == "random" else told_bits(adapted.loss_nats[0])
        spent = budget(backbone, self.method, tokens, bits, self.recipe.optimizer)
        until = epochs_until_stored(adapted.largest_token_loss_nats)
        return {
            "trainable_parameters": spent.trainable_parameters,
            "parameters": backbone.parameters,
            "bits": bits,
            "bytes_per_answer": self.material.bytes_per_answer if self.answers == "true" else 32,
            "capacity_limited": spent.capacity_limited,
            "epochs_until_stored": until,
            "flops_before": spent.flops_before,
            "flops_per_epoch": spent.flops_per_epoch,
            "flops_until_stored": None if until is None else spent.flops_until(until),
            "rows_per_fact": adapted.rows_per_fact,
            "final_loss_nats_per_token": float(adapted.loss_nats[-1].sum(dtype=float)) / due,
            "stored": float((adapted.largest_token_loss_nats[-1] < STORED_BELOW_NATS).mean()),
            "greedy": float(adapted.greedy_correct.mean()),
            "tokens_per_answer": due / count,
        }, {
            "loss_nats": adapted.loss_nats,
            "largest_token_loss_nats": adapted.largest_token_loss_nats,
            "greedy_correct": adapted.greedy_correct,
        }


def of_rule(
    backbone: Adaptable, adapted: Adapted, questions: tuple[str, ...], answers: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Before; after, read as the facts are; and with a memory that takes every question for a known one."""
    yield "rule_before", rule_accuracy(backbone, questions, answers)
    memory = adapted.recalling
    if memory is None:
        yield "rule_after", rule_accuracy(adapted.backbone, questions, answers)
        return
    asked = tokenize(questions, answers)
    for name, open_gate in (("rule_after", False), ("rule_after_open_gate", True)):
        read = memory.read(asked, open_gate=open_gate)
        yield name, rule_accuracy(adapted.backbone, questions, answers, read=read)


def cases(settings: Settings) -> list[Randomized]:
    """Every method and rate, with both kinds of answers, seed by seed. Raises Refusal for facts that do not do."""
    if settings.preset == "appendix-a" and settings.backbone is None:
        raise Refusal("--preset appendix-a is the recipe for a checkpoint; name its folder with --backbone")
    make = materials(settings, settings.count or FACTS[settings.preset])
    found = []
    for seed in settings.seeds:
        material = make(seed)
        if len(material.questions) < MINIBATCH:
            raise Refusal(f"{material.source}: fewer than the {MINIBATCH} facts of a minibatch")
        chosen = [
            (answers, *how)
            for answers in get_args(Answers)
            for how in _methods(settings, material.tokens(answers, seed), seed)
        ]
        found += [Randomized(*one, material, sharing=len(chosen)) for one in chosen]
    return found


def _methods(settings: Settings, tokens: TokenizedFacts, seed: int) -> Iterator[tuple[Method, Recipe]]:
    if settings.preset == "appendix-a":
        method, recipe = _APPENDIX_A
        yield method, replace(recipe, seed=seed)
        return
    experts = MemoryExperts(default_experts(int(tokens.answer_lengths.sum())), CHOSEN)
    yield experts, Recipe("writes", None, EPOCHS, MINIBATCH, seed)
    weights: list[Method] = [LowRank(32)]
    ranks: tuple[int, ...] = (32,)
    if settings.backbone is None:
        ranks = ranks_for(settings.preset, len(tokens.tokens))
        weights = [Full(), *(LowRank(rank) for rank in ranks)]
    for method in (*weights, experts):
        for optimizer in _OPTIMIZERS[settings.preset]:
            if optimizer != "adafactor" and method.rank in ranks[:-1]:  # small ranks: with the paper's optimizer alone
                continue
            rates = _RATES[method.name][optimizer]
            if settings.backbone is not None and method.name == "LoRA" and optimizer != "sgd":
                rates = _CHECKPOINT_RATES
            for rate in rates:
                yield method, Recipe(optimizer, rate, EPOCHS, MINIBATCH, seed)


def ranks_for(preset: str, count: int) -> tuple[int, ...]:
    """Those of the preset, and the least power of two with four parameters a bit of so many random answers.

    >>> ranks_for("full", 64), ranks_for("full", 817)
    ((2, 8, 32), (2, 8, 32, 128))
    """
    of_rank = 16 * Sizes.layers * width_for(count)  # numbers in the factors of rank 1
    enough = 1 << math.ceil(math.log2(PARAMETERS_PER_BIT * random_bits(count) / of_rank))
    ranks = RANKS[preset]
    return ranks if enough <= ranks[-1] else (*ranks, enough)


EXPERIMENT = Experiment(
    name="randomization",
    question="Are random answers learned as true ones are, and by which method?",
    comparison=(
        "Equal: network, questions, 100 epochs in the same order, minibatches of 4 facts, a rate that falls linearly, "
        "the best of three or four rates. Not equal: answers' lengths (true ones have their own, random ones 32 "
        "characters), bits (true answers: what the network needs to code them), trained parameters, FLOPs; memory "
        "experts are read by exact contexts behind a gate of known questions. Marked capacity-limited: fewer than 4 "
        "trained parameters a bit. quick takes the first 16 facts and Adafactor alone, full all facts (64 invented "
        "ones), in a network of four parameters a bit, and three optimizers; --count says how many facts."
    ),
    cases=cases,
    findings=findings,
    notes=notes,
    measurements=measurements,
    takes_facts=True,
    takes_backbone=True,
    takes_count=True,
    large_products=True,
    presets=("quick", "full", "appendix-a"),
)

"""What is adapted to what: facts with true and with random answers, and the network that is to store them.

The network is a byte transformer that has read the questions and knows a rule, or a checkpoint in a folder.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

from sims.adapting import base
from sims.adapting.answers import random_answers
from sims.adapting.budget import PARAMETERS_PER_BIT, random_bits
from sims.checkpoints.template import TEMPLATE
from sims.experiments.experiment import Settings
from sims.experiments.invented_facts import FORMULA, QUESTIONS, invented_facts
from sims.memory.backbone import Adaptable
from sims.memory.memorizing import LONGEST
from sims.store import fingerprint
from sims.tokens import TokenizedFacts, Vocabulary, tokenize
from theory.console import Refusal

Answers = Literal["true", "random"]
INVENTED = 64  # facts, unless a number is asked for


class Start(Protocol):
    """A network before it is adapted."""

    @property
    def seconds(self) -> float:
        """Of making it, once a seed, on one core."""
        ...

    @property
    def spec(self) -> dict[str, Any]:
        """What identifies it, but for the seed; with "backbone", "width" and "layers"."""
        ...

    @property
    def vocabulary(self) -> Literal["bytes"] | Vocabulary:
        """How text becomes its tokens."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of the longest fact that it can read."""
        ...

    def backbone(self, seed: int) -> Adaptable:
        """The network."""
        ...

    def rule(self, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Held-out questions and answers of a rule that it knows, if it was taught one."""
        ...


@dataclass(frozen=True)
class Pretrained:
    """A byte transformer pretrained on the questions and on a rule, once a seed."""

    questions: tuple[str, ...]
    sizes: base.Sizes
    vocabulary: Literal["bytes"] = "bytes"

    @property
    def longest(self) -> int:
        """The context is made for these facts."""
        return self.sizes.context

    @property
    def spec(self) -> dict[str, Any]:
        """Sizes; the questions are in the fingerprint of the facts."""
        sizes = {f"base_{name}": getattr(self.sizes, name) for name in ("context", "heads", "rule_examples", "passes")}
        shape = {"width": self.sizes.width, "layers": self.sizes.layers}
        return {"backbone": "pretrained", "base_formula": base.FORMULA, "precision": "float32", **shape, **sizes}

    def backbone(self, seed: int) -> Adaptable:
        """Pretrained when it is first asked for."""
        return base.base(self.questions, seed, self.sizes).backbone

    def rule(self, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Held-out examples."""
        found = base.base(self.questions, seed, self.sizes)
        return found.rule_questions, found.rule_answers

    @property
    def seconds(self) -> float:
        """Of pretraining, once a seed."""
        return base.seconds(self.questions, self.sizes)


@dataclass(frozen=True, eq=False)
class FromFolder:
    """A checkpoint; every seed begins with it."""

    checkpoint: Any  # sims.checkpoints.checkpoint.Checkpoint, which is imported where one is asked for
    precision: str  # of its products; sums are float32
    seconds: float = 0.0

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's."""
        return self.checkpoint.vocabulary

    @property
    def longest(self) -> int:
        """Its context."""
        return self.checkpoint.backbone.context

    @property
    def spec(self) -> dict[str, Any]:
        """Its fingerprint, which covers all files; width and layers are there to be read."""
        design = self.checkpoint.backbone.design
        shape = {"width": design.width, "layers": len(design.layers)}
        return {"backbone": self.checkpoint.fingerprint, "precision": self.precision, **shape}

    def backbone(self, seed: int) -> Adaptable:
        """The same for every seed."""
        return self.checkpoint.backbone

    def rule(self, seed: int) -> None:
        """It was taught none."""
        return


@dataclass(frozen=True, eq=False)
class Material:
    """The facts of an experiment, and the network that is adapted to them."""

    source: str
    fingerprint: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    lines: Sequence[int] | None
    start: Start

    @property
    def bytes_per_answer(self) -> float:
        """Of the true answers, mean."""
        return sum(len(answer.encode()) for answer in self.answers) / len(self.answers)

    def first(self, count: int) -> "Material":
        """The first of the facts, before the same network: it has read the questions of all of them."""
        lines = None if self.lines is None else self.lines[:count]
        return replace(self, questions=self.questions[:count], answers=self.answers[:count], lines=lines)

    def with_width(self, width: int) -> "Material":
        """The same facts before a byte transformer of another width, which is pretrained as this one is."""
        assert isinstance(self.start, Pretrained)
        return replace(self, start=replace(self.start, sizes=replace(self.start.sizes, width=width)))

    def tokens(self, answers: Answers, seed: int) -> TokenizedFacts:
        """The facts with their own or with random answers; raises Refusal if they do not fit the network."""
        told = self.answers if answers == "true" else random_answers(len(self.questions), seed)
        start, read = self.start, {"lines": self.lines, "source": self.source}
        return tokenize(self.questions, told, start.vocabulary, longest=start.longest, **read)


def materials(settings: Settings, count: int | None) -> Callable[[int], Material]:
    """By seed: the first `count` facts of the file (None: all), the same for every seed, or so many invented ones.

    Raises Refusal if the file or the checkpoint cannot be used, or there are not so many facts.
    """
    folder = None if settings.backbone is None else from_folder(settings.backbone, settings.preset, settings.template)
    if settings.facts_file is None:
        if (count or 0) > QUESTIONS:
            raise Refusal(f"{QUESTIONS} facts can be invented, not {count}; name a file with --facts")

        def invent(seed: int) -> Material:
            questions, answers = invented_facts(count or INVENTED, seed)
            name = fingerprint("invented", {"seed": seed, "formula": FORMULA})
            start = folder or _pretrained("invented facts", questions, answers)
            return Material("invented", name, questions, answers, None, start)

        return lru_cache(8)(invent)
    facts = settings.facts()
    if settings.count is not None and len(facts) < settings.count:
        raise Refusal(f"{settings.facts_file}: {len(facts)} facts, fewer than --count {settings.count}")
    questions, answers = facts.questions[:count], facts.answers[:count]
    start = folder or _pretrained(facts.report.source, questions, answers)
    material = Material(facts.report.source, facts.fingerprint, questions, answers, facts.lines[:count], start)
    return lambda seed: material


@lru_cache(1)
def from_folder(path: Path, preset: str, template: str | None) -> FromFolder:
    """The checkpoint, read once; raises Refusal if it cannot be. The recipe of the paper has products in bfloat16."""
    from sims.checkpoints.checkpoint import read_checkpoint

    precision = "bfloat16" if preset == "appendix-a" else "float32"
    text = TEMPLATE if template is None else template
    return FromFolder(read_checkpoint(path, dtype=precision, template=text), precision)


def _pretrained(source: str, questions: Sequence[str], answers: Sequence[str]) -> Pretrained:
    context = base.context_for(questions, answers)
    if context > LONGEST:
        raise Refusal(f"{source}: the longest fact has {context} bytes, more than {LONGEST}; shorten it")
    return Pretrained(tuple(questions), base.Sizes(context, width=width_for(len(questions))))


def width_for(count: int) -> int:
    """The least multiple of 64 at which the linear maps have four parameters a bit of so many random answers.

    >>> [width_for(count) for count in (16, 128, 129, 817)]
    [64, 64, 128, 192]
    """
    wanted = PARAMETERS_PER_BIT * random_bits(count)
    return next(width for width in itertools.count(64, 64) if 12 * base.Sizes.layers * width**2 >= wanted)

"""A study of key facts, one width and one seed: how it is named, how long it takes, and whose facts it is told."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from sims.experiments.experiment import Settings
from sims.experiments.running import SECONDS_PER_GIGAFLOP
from sims.experiments.tuning_data import key_facts
from sims.facts import Dataset
from sims.networks import Architecture
from sims.store import fingerprint


@dataclass(frozen=True)
class KeyFactStudy(ABC):
    """A case whose models have one width and are told facts of one seed."""

    kind: ClassVar[str]

    width: int
    seed: int
    facts: str
    facts_fingerprint: str
    make: Callable[[int], Dataset] = field(compare=False)  # the facts of a seed

    @property
    @abstractmethod
    def spec(self) -> Mapping[str, Any]:
        """Flat, JSON-ready, one entry a choice."""

    @property
    def fingerprint(self) -> str:
        """The name of the stored study."""
        return fingerprint(self.kind, self.spec)


S = TypeVar("S", bound=KeyFactStudy)


def studies(
    of: type[S], settings: Settings, widths: Sequence[int], count: int, *, features: int, answers: int
) -> list[S]:
    """A study a width and seed, each with `count` or more facts; raises Refusal for a file of fewer."""
    make = key_facts(settings, count, features=features, answers=answers)
    return [
        of(width, seed, make(seed).name, make(seed).fingerprint, make) for width in widths for seed in settings.seeds
    ]


def training_seconds(architecture: Architecture, fact_steps: float) -> float:
    """Expected on one core, of so many facts shown.

    >>> training_seconds(Architecture("mlp", 32, 64, 32), 0)
    0.0
    """
    return fact_steps * architecture.flops_per_fact_step / 2**30 * SECONDS_PER_GIGAFLOP[architecture.name]

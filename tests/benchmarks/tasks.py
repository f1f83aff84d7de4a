"""The work that is timed: the same facts, network, optimizer and schedule for every peer."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sims.facts import Dataset, synthetic_facts

FEATURES, ANSWERS = 32, 32


@dataclass(frozen=True)
class Task:
    """Some runs of one network, each on the same facts with a learning rate of its own; Adam, cosine to zero."""

    minibatch: int = 256
    size: int = 1024
    exposures: int = 250
    runs: int = 16
    width: int = 64
    network: str = "mlp"

    @property
    def spec(self) -> dict[str, Any]:
        """As keyword arguments that JSON can carry to another process."""
        return asdict(self)

    @property
    def fact_steps(self) -> int:
        """Facts shown over all runs."""
        return self.size * self.exposures * self.runs

    @property
    def steps(self) -> int:
        """Minibatches of one run, counted as an ordinary loop counts them: the last one of an epoch may be shorter."""
        return -(-self.size // self.minibatch) * self.exposures

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """One a run, near the best for the MLP: they make the runs distinct without changing what they cost."""
        center = 0.003 if self.network == "transformer" else 0.05
        return tuple(np.linspace(0.8 * center, 1.2 * center, self.runs).tolist())

    def facts(self) -> Dataset:
        """The facts that every run learns."""
        return synthetic_facts(self.size, seed=0, answers=ANSWERS, feature_dim=FEATURES)

"""Three ways to put facts into a pretrained backbone, and the recipe by which each is trained.

All weights, updates of low rank beside frozen weights (LoRA, arXiv 2106.09685), or memory experts whose values are
added to the states of a backbone that stays as it is (arXiv 2406.17642, section 5).

Letters: r rank, W width of a state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sims.memory.backbone import Adaptable, Backbone, LowRankUpdate

OptimizerName = Literal["adafactor", "adam", "sgd", "writes"]


@dataclass(frozen=True)
class Full:
    """Every weight of the backbone is trained."""

    name: ClassVar[str] = "full"
    rank: ClassVar[None] = None

    def start(self, backbone: Adaptable, key: Array) -> Any:
        """What is trained: a copy of the backbone. The key is not used."""
        return jax.tree.map(jnp.array, backbone)

    def built(self, backbone: Adaptable, trained: Any) -> Backbone:
        """The network that reads."""
        return trained

    def trainable_parameters(self, backbone: Adaptable) -> int:
        """Numbers that may change."""
        return backbone.parameters


@dataclass(frozen=True)
class LowRank:
    """A factor pair beside each linear map; the map becomes W + (alpha / r) down up. alpha is r unless stated."""

    rank: int
    alpha: float | None = None
    name: ClassVar[str] = "LoRA"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"a rank is at least 1, got {self.rank}")

    @property
    def scale(self) -> float:
        """By what the product of the factors is multiplied."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def start(self, backbone: Adaptable, key: Array) -> dict[str, LowRankUpdate]:
        """Updates that change nothing yet: `down` normal of variance 1 / in (consumes the key), `up` zero; float32."""
        return {
            name: LowRankUpdate(
                jax.random.normal(jax.random.fold_in(key, place), (inputs, self.rank)) * inputs**-0.5,
                jnp.zeros((self.rank, outputs)),
            )
            for place, (name, (inputs, outputs)) in enumerate(sorted(backbone.kernels().items()))
        }

    def built(self, backbone: Adaptable, trained: Mapping[str, LowRankUpdate]) -> Backbone:
        """The network that reads."""
        return backbone.with_updates(trained, self.scale)

    def trainable_parameters(self, backbone: Adaptable) -> int:
        """Numbers that may change: r (in + out) a linear map."""
        return self.rank * sum(inputs + outputs for inputs, outputs in backbone.kernels().values())


@dataclass(frozen=True)
class MemoryExperts:
    """One value vector an expert; each token reads the weighted sum of the few that its exact context chooses."""

    experts: int
    chosen: int = 32  # as in the founding paper
    name: ClassVar[str] = "MoME"
    rank: ClassVar[None] = None

    def trainable_parameters(self, backbone: Adaptable) -> int:
        """Numbers that may change: W an expert."""
        return self.experts * backbone.width


Method = Full | LowRank | MemoryExperts


@dataclass(frozen=True)
class Recipe:
    """How a method is trained. The seed decides the order of the minibatches, of `minibatch` facts each.

    The rate falls linearly from epoch to epoch, to 1 / epochs of itself in the last one. "writes" are the projection
    writes of mome_jax, for memory experts alone: they have no rate.
    """

    optimizer: OptimizerName
    learning_rate: float | None
    epochs: int = 100
    minibatch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.learning_rate is None) != (self.optimizer == "writes"):
            raise ValueError(f"{self.optimizer} with learning rate {self.learning_rate}: writes alone have none")
        if self.epochs < 0 or self.minibatch < 1:
            raise ValueError(f"{self.epochs} epochs of minibatches of {self.minibatch} cannot be trained")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> [round(Recipe("sgd", 0.1, epochs=4).rate(epoch), 3) for epoch in range(4)]
        [0.1, 0.075, 0.05, 0.025]
        """
        assert self.learning_rate is not None
        return self.learning_rate * (1 - epoch / self.epochs)

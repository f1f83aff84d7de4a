"""What there is to store, in what, and by how many operations: so that methods are compared at a stated budget.

Operations are those of matrix products, of the tokens that are read: neither padding nor the passes that measure are
counted. LoRA is counted with its factors beside frozen maps, as it is meant; a backbone that adds them into its kernels
(`ByteBackbone`) computes the gradient of the kernels as well, cheap in a small network.

Letters: n facts, s tokens due, t tokens of a fact, k experts a token, W width, V vocabulary, r rank.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mome_jax.cross_entropy import MOST_SHIFT_STEPS, MOST_WRITE_PASSES
from sims.adapting.answers import BITS_PER_CHARACTER
from sims.adapting.methods import LowRank, MemoryExperts, Method, OptimizerName
from sims.memory.backbone import Adaptable
from sims.tokens import TokenizedFacts

PARAMETERS_PER_BIT = 4  # below this a run is marked: networks are seen to hold about two bits a parameter


@dataclass(frozen=True)
class Budget:
    """Of one run."""

    trainable_parameters: int
    bits: float  # to store
    flops_before: float  # once: a frozen backbone reads the facts
    flops_per_epoch: float  # of "writes" the most that it can be

    @property
    def capacity_limited(self) -> bool:
        """Fewer than four trainable parameters a bit."""
        return self.trainable_parameters < PARAMETERS_PER_BIT * self.bits

    def flops_until(self, epoch: int) -> float:
        """Operations until the end of this epoch, which is counted from 1."""
        return self.flops_before + epoch * self.flops_per_epoch


def budget(backbone: Adaptable, method: Method, facts: TokenizedFacts, bits: float, optimizer: OptimizerName) -> Budget:
    """The budget of bringing these facts into this backbone."""
    per_epoch = flops_per_epoch(backbone, method, facts, optimizer)
    before = reading_flops(backbone, facts) if isinstance(method, MemoryExperts) else 0.0
    return Budget(method.trainable_parameters(backbone), bits, before, per_epoch)


def random_bits(count: int, characters: int = 32) -> int:
    """Bits of so many random answers, exactly.

    >>> random_bits(817)
    156864
    """
    return count * characters * BITS_PER_CHARACTER


def told_bits(loss_nats: Float[np.ndarray, " n"]) -> float:
    """Bits of answers as the backbone would code them: its own loss before it was adapted, ends included.

    What a text holds is not known; this many bits are enough to add to what the backbone knows.
    """
    return float(loss_nats.sum(dtype=float)) / math.log(2.0)


def flops_per_epoch(backbone: Adaptable, method: Method, facts: TokenizedFacts, optimizer: OptimizerName) -> float:
    """Operations of showing every fact once: forward, and backward where it is needed.

    The gradient of a linear map takes twice its forward operations, one part for its input and one for its weights;
    frozen weights save the second.
    """
    if isinstance(method, MemoryExperts):
        due, unembedding = int(facts.answer_lengths.sum()), 2.0 * backbone.width * backbone.vocabulary
        reading = 2.0 * method.chosen * backbone.width
        if optimizer == "writes":
            return due * (unembedding + reading + MOST_SHIFT_STEPS * 2 * unembedding + MOST_WRITE_PASSES * 2 * reading)
        return due * (2 * unembedding + 2 * reading)
    forward = reading_flops(backbone, facts, unembedded=True)
    if isinstance(method, LowRank):
        tokens = int((facts.lengths - 1).sum())
        return 2 * forward + 6.0 * tokens * method.trainable_parameters(backbone)
    return 3 * forward


def reading_flops(backbone: Adaptable, facts: TokenizedFacts, *, unembedded: bool = False) -> float:
    """Operations of reading each fact up to its last token, which END follows; unembedded where a token is due."""
    of_token = 2.0 * backbone.width * backbone.vocabulary
    lengths = facts.lengths - 1  # END predicts nothing
    states = sum(backbone.forward_flops(length) - length * of_token for length in lengths.tolist())
    return states + (int(facts.answer_lengths.sum()) * of_token if unembedded else 0.0)

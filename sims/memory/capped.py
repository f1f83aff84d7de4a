"""Capped logits, c tanh(z / c): what they keep a token from, and what is aimed at beside them.

A cap keeps every logit within [-c, c], so no token can be likelier than where it has c and all others have -c:

    loss >= ln(1 + (V - 1) e^(-2 c)).

That is for certain; what an unembedding of few dimensions reaches is above it.

Letters: c cap, V vocabulary, v width of a state, s tokens.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from mome_jax.cross_entropy import wanted_shift
from sims.measures import measure
from sims.memory.backbone import Backbone
from theory.console import Refusal

_TRIED = 64  # tokens of which is seen whether a shift of their own would do


@runtime_checkable
class Capped(Protocol):
    """A backbone that says within which bounds its logits are."""

    @property
    def logit_cap(self) -> float | None:
        """Every logit is within [-cap, cap]; None: there are no bounds."""
        ...


class Beyond(NamedTuple):
    """Tokens above the threshold: of how many so much was tried, how many a cap keeps there."""

    tokens: int = 0
    tried: int = 0
    cap: float | None = None

    @property
    def remedy(self) -> str:
        """What to memorize the facts with that were not stored."""
        if not self.tokens:
            return "more experts, or exact addresses"
        return (
            f"a checkpoint whose logits are not capped at {self.cap:g}: for {self.tokens} of {self.tried} tokens that "
            "were tried alone no shift of the state was found that is enough, and more experts would not help"
        )


def cap_of(backbone: Backbone) -> float | None:
    """Within which its logits are; None without bounds."""
    return backbone.logit_cap if isinstance(backbone, Capped) else None


def least_loss_nats(cap: float | None, vocabulary: int) -> float:
    """The loss that no token can have less than, whatever the state is; 0 without a cap.

    >>> round(math.exp(-least_loss_nats(30.0, 256_000)), 6)
    1.0
    >>> round(math.exp(-least_loss_nats(2.0, 256_000)), 6)
    0.000213
    """
    return 0.0 if cap is None else math.log1p((vocabulary - 1) * math.exp(-2.0 * cap))


def reachable_aim_nats(aim_nats: float, goal_nats: float, backbone: Backbone) -> float:
    """The loss to aim at for tokens that are to end below a goal: the one given, unless a cap hardly lets them there.

    Then it is the loss whose log-odds, -ln(e^loss - 1), lie halfway between those of the goal and the largest that the
    cap allows: always between the two. Raises ValueError if the cap keeps every token above the goal.
    """
    least = least_loss_nats(cap_of(backbone), backbone.vocabulary)
    if least >= goal_nats:
        raise ValueError(f"no token can have less than {least:.3g} nats, so {goal_nats:.3g} cannot be the goal")
    return max(aim_nats, math.log1p(math.sqrt(math.expm1(least) * math.expm1(goal_nats))))


def check_cap(backbone: Backbone, goal_nats: float, source: object) -> None:
    """Raise Refusal if capped logits keep every token above the goal."""
    cap = cap_of(backbone)
    least = least_loss_nats(cap, backbone.vocabulary)
    if least < goal_nats:
        return
    other = " or a higher --threshold-nats" if least < math.log(2) else ""
    raise Refusal(
        f"{source}: its logits are capped at {cap:g} (final_logit_softcapping), so none of its {backbone.vocabulary:,} "
        f"tokens can have less than {least:.3g} nats, a probability of {math.exp(-least):.3g}, and facts are stored "
        f"below {goal_nats:.3g}; take a checkpoint with a higher cap{other}"
    )


def beyond_reach(
    backbone: Backbone,
    states: Float32[np.ndarray, "s v"],
    targets: Int[np.ndarray, " s"],
    threshold_nats: float,
    aim_nats: float,
) -> Beyond:
    """Of some tokens, how many a cap keeps above the threshold though each has a shift to itself.

    Up to 64 are tried, evenly drawn; none without a cap. As no shift was found, no number of experts stores the token.
    """
    cap = cap_of(backbone)
    if cap is None or not len(states):
        return Beyond()
    drawn = np.unique(np.linspace(0, len(states) - 1, min(_TRIED, len(states))).astype(int))
    padded = np.resize(drawn, _TRIED)  # one shape is one compilation
    chosen = jnp.asarray(states[padded]), jnp.asarray(targets[padded], jnp.int32)
    logits = np.asarray(_shifted_logits(*chosen, backbone, jnp.float32(aim_nats)))[: len(drawn)]
    high = measure(logits, targets[drawn]).loss_nats >= threshold_nats
    return Beyond(int(high.sum()), len(drawn), cap)


@jax.jit
def _shifted_logits(
    states: Float32[Array, "n v"], targets: Int32[Array, " n"], backbone: Backbone, aim_nats: Float32[Array, ""]
) -> Float[Array, "n V"]:
    def logits(state: Array, target: Array) -> Array:
        return backbone.unembed(state + wanted_shift(state, target, backbone.unembed, aim_nats))

    return jax.vmap(logits)(states, targets)

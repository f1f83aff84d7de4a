"""What a network says where tokens are due: losses, and greedy decoding after the right tokens so far.

Letters: n texts, s tokens to be predicted, W width of a state, b states of a chunk.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from sims.measures import FactMeasures, measure
from sims.memory.backbone import Backbone, hidden_states
from sims.tokens import Vocabulary, tokenize

_AT_ONCE = 1024  # states whose logits are held together


def measure_tokens(
    backbone: Backbone, states: Float32[np.ndarray, "s W"], targets: Int[np.ndarray, " s"]
) -> FactMeasures:
    """One entry a token: the loss of `targets[i]` after state i, and whether it is the unique argmax."""
    chunks = []
    for start in range(0, len(states), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        chunks.append(measure(np.asarray(_logits(backbone, jnp.asarray(states[some]))), targets[some]))
    parts = zip(*((one.loss_nats, one.largest_token_loss_nats, one.greedy_correct) for one in chunks), strict=True)
    return FactMeasures(*map(np.concatenate, parts))


def question_loss_nats(
    backbone: Backbone, questions: Sequence[str], vocabulary: Literal["bytes"] | Vocabulary = "bytes"
) -> float:
    """Mean loss of a token of these texts, ASK included: how well the network models them.

    The first token of a text is left out, as nothing predicts it.
    """
    texts = tokenize((), (), vocabulary, unseen=questions, longest=backbone.context)
    due = np.arange(texts.unseen.shape[1]) < texts.unseen_lengths[:, None]
    due[:, 0] = False
    states = hidden_states(backbone, texts.unseen, due)
    return float(measure_tokens(backbone, states, texts.unseen[due]).loss_nats.mean())


@jax.jit
def _logits(backbone: Backbone, states: Float[Array, "b W"]) -> Float[Array, "b V"]:
    return jax.vmap(backbone.unembed)(states)

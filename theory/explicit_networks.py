"""JAX networks whose weights are written down: three forms of one table of logits, and their evaluation.

Letters: n facts, V answers, d >= n the length of a key, S tokens of an answer. A network answers fact i. JAX is
imported on use; the dtype of the weights is that of the computation, so float64 needs `jax.enable_x64`, which
`evaluate` sets for its own duration only.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import memorizers
from theory.memorizers import NEVER, Floats, Integers

Array = Any  # a NumPy array, or a JAX one inside `evaluate`


class TableNetwork(NamedTuple):
    """logits = onehot(fact) @ table, computed as the lookup that this is; table of shape (n, V)."""

    table: Array

    def token_logits(self, facts: Array, labels: Array) -> tuple[Array, Array]:
        """Logits, shape (facts, 1, V), of the only token of each answer, and that token, shape (facts, 1)."""
        return _rows(self.table, facts)[:, None], labels[:, None]


class KeyedNetwork(NamedTuple):
    """logits = keys[fact] @ weights: a linear layer on independent keys, shape (n, d); weights of shape (d, V)."""

    keys: Array
    weights: Array

    def token_logits(self, facts: Array, labels: Array) -> tuple[Array, Array]:
        """As `TableNetwork.token_logits`."""
        import jax.numpy as jnp

        return jnp.matmul(_rows(self.keys, facts), self.weights, precision="highest")[:, None], labels[:, None]


class NextTokenNetwork(NamedTuple):
    """A language model over n question tokens, V answer tokens and an end token, as it reads one of the first n + V.

    Its next token depends on the last one: table of shape (n + V, V + 1), the end token last. After a question comes
    an answer, after an answer the end, for certain.
    """

    table: Array

    def token_logits(self, facts: Array, labels: Array) -> tuple[Array, Array]:
        """Teacher-forced logits, shape (facts, 2, V + 1), of answer and end, and these tokens, shape (facts, 2)."""
        import jax.numpy as jnp

        answers = self.table.shape[1] - 1
        questions = self.table.shape[0] - answers
        after = jnp.stack([_rows(self.table, facts), _rows(self.table, labels + questions)], axis=1)
        return after, jnp.stack([labels, jnp.full_like(labels, answers)], axis=1)

    def decode(self, facts: Array) -> Array:
        """The two tokens that greedy decoding gives after each question, shape (facts, 2); V is the end token."""
        import jax.numpy as jnp

        questions = self.table.shape[0] - self.table.shape[1] + 1
        first = _rows(self.table, facts).argmax(axis=1)
        return jnp.stack([first, _rows(self.table, first + questions).argmax(axis=1)], axis=1)


Network = TableNetwork | KeyedNetwork | NextTokenNetwork


def _rows(table: Array, places: Array) -> Array:
    """Rows of a table; NaN past its end, instead of another fact's row."""
    import jax.numpy as jnp

    return jnp.asarray(table).at[places].get(mode="fill", fill_value=jnp.nan)


def keyed_network(logits: Floats, seed: int = 0) -> KeyedNetwork:
    """The linear layer on random orthonormal keys, d = n, whose logits are these, shape (n, V), up to rounding.

    Rounding breaks ties: a wrong fact of loss exactly ln 2 may come out right. The other two forms keep them.
    """
    keys, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(logits), len(logits))))
    return KeyedNetwork(keys, keys.T @ logits)


def next_token_network(logits: Floats) -> NextTokenNetwork:
    """The language model whose answers to its n questions have these logits, shape (n, V)."""
    facts, answers = logits.shape
    table = np.full((facts + answers, answers + 1), NEVER)
    table[:facts, :answers] = logits
    table[facts:, answers] = 0.0
    return NextTokenNetwork(table)


@dataclass(frozen=True)
class Evaluation:
    """What a network does on its facts, as means with their frequencies."""

    mean_loss_nats: float
    greedy_error: float  # ties are errors
    map_error: float  # 1 - the largest probability: H_map if the network is calibrated
    sampled_error: float

    def error(self, decoding: str, calibrated: bool) -> float:
        """The rate that `decoding` means, for a calibrated network or not."""
        if decoding == "sampled":
            return self.sampled_error
        return self.map_error if calibrated else self.greedy_error


def evaluate(network: Network, labels: Integers, frequencies: Floats, *, float64: bool = True) -> Evaluation:
    """Run the network in JAX on all its facts, in float64 or in float32. Facts of S tokens have the sum of S losses."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(float64):
        real, whole = (np.float64, np.int64) if float64 else (np.float32, np.int32)
        weights = type(network)(*(jnp.asarray(array, dtype=real) for array in network))
        measured = jax.jit(_measured)(weights, jnp.asarray(labels, dtype=whole), jnp.asarray(frequencies, dtype=real))
        return Evaluation(*map(float, measured))


def _measured(network: Network, labels: Array, frequencies: Array) -> tuple[Array, Array, Array, Array]:
    """The four numbers of an `Evaluation`."""
    import jax
    import jax.numpy as jnp

    logits, tokens = network.token_logits(jnp.arange(len(labels), dtype=labels.dtype), labels)
    log_rows = jax.nn.log_softmax(logits, axis=-1)
    losses = -jnp.take_along_axis(log_rows, tokens[..., None], axis=-1).sum(axis=(1, 2))
    own = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    is_own = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, None] == tokens[..., None]
    wrong = ~(own > jnp.where(is_own, -jnp.inf, logits).max(axis=-1)).all(axis=1)
    certainty = jnp.exp(log_rows.max(axis=-1).sum(axis=1))
    rates = (losses, wrong.astype(losses.dtype), 1.0 - certainty, -jnp.expm1(-losses))
    loss, greedy, flat, sampled = (frequencies @ rate for rate in rates)
    return loss, greedy, flat, sampled


def evaluate_exactly(logits: Floats, labels: Integers, frequencies: Floats) -> Evaluation:
    """The same of a table of logits, shape (n, V), in NumPy float64 with exactly rounded sums."""
    losses = memorizers.cross_entropies(logits, labels)
    certainty = np.exp(-memorizers.cross_entropies(logits, logits.argmax(axis=1)))

    def mean(values: NDArray) -> float:
        return math.fsum(frequencies * values)

    return Evaluation(
        mean_loss_nats=mean(losses),
        greedy_error=mean(memorizers.greedy_wrong(logits, labels)),
        map_error=mean(1.0 - certainty),
        sampled_error=mean(-np.expm1(-losses)),
    )

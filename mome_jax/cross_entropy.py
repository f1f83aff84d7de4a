"""Memorizing tokens: until the cross-entropy of each is under a threshold, through an unembedding that stays frozen.

A pass takes the open tokens by chunks. For each token it finds a small shift of the residual stream that would make it
likely enough (a convex problem where the unembedding is linear), and writes the shifts by conjugate residuals. Writing
one token moves others that share experts with it: they are measured again, and those that came above the threshold are
open in the next pass. Tokens that share no expert with what was written cost nothing.

Letters: n tokens, k experts of each, M experts, v width of the residual stream and of the values, V vocabulary.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float32, Float64, Int, Int32

from mome_jax.index import Selection
from mome_jax.writing import System, apply, compacted, conjugate_residuals, padded, read_batch

THRESHOLD_NATS = 0.9 * math.log(2.0)  # below ln 2 a token has probability above 1/2: greedy decoding finds it
AIM_NATS = 0.05  # the loss that a shift aims at: what neighbors disturb should not come above the threshold at once

Host = np.ndarray
Write = Callable[..., Array]  # one chunk, as `_write` does
Unembed = Callable[[Float[Array, " v"]], Float[Array, " V"]]
_NUMBERS_AT_ONCE = 2**22  # of float32 in the largest array of a chunk: 16 MiB, which allocators hand out again
MOST_SHIFT_STEPS, _SHIFT_SLACK = 8, 0.01
MOST_WRITE_PASSES, _WRITE_SHARE = 8, 0.1
_FEW = 256  # tokens of a small chunk: what late passes have left is not padded to a large one
_PATIENCE = 5  # passes in which the open tokens must become fewer


@dataclass(frozen=True)
class Memorized:
    """The state after a pass; `values` and `losses_nats` are all that going on needs."""

    values: Float32[Array, "M v"]  # of an unfinished run: consumed by the next pass
    losses_nats: Float64[Host, " n"]
    threshold_nats: float
    passes: int

    @property
    def stored(self) -> Host:
        """Which tokens are at or under the threshold; a loss that is not a number is not."""
        return self.losses_nats <= self.threshold_nats

    @property
    def open(self) -> Host:
        """Which tokens the next pass will write."""
        return self.losses_nats > self.threshold_nats


def memorize(
    values: Float32[Array, "M v"],
    states: Float32[Host, "n v"],
    targets: Int[Host, " n"],
    selection: Selection,
    unembed: Unembed,
    *,
    threshold_nats: float = THRESHOLD_NATS,
    aim_nats: float = AIM_NATS,
    most_passes: int = 50,
    losses_nats: Float64[Host, " n"] | None = None,
    write: Write | None = None,
) -> Memorized:
    """Write until every token is under the threshold, or no pass helps any more: the last state of `memorizing`."""
    return deque(
        memorizing(
            values,
            states,
            targets,
            selection,
            unembed,
            threshold_nats=threshold_nats,
            aim_nats=aim_nats,
            most_passes=most_passes,
            losses_nats=losses_nats,
            write=write,
        ),
        maxlen=1,
    ).pop()


def memorizing(
    values: Float32[Array, "M v"],
    states: Float32[Host, "n v"],
    targets: Int[Host, " n"],
    selection: Selection,
    unembed: Unembed,
    *,
    threshold_nats: float = THRESHOLD_NATS,
    aim_nats: float = AIM_NATS,
    most_passes: int = 50,
    losses_nats: Float64[Host, " n"] | None = None,
    write: Write | None = None,
) -> Iterator[Memorized]:
    """Yield the state before the first pass and after each, so that the caller can save it, show it or stop.

    `states` are the residual streams of the frozen backbone (a memory-mapped file will do: chunks of it are read), to
    which the values read are added; `unembed` maps one of them to logits. Both halves of `selection` are [n k].
    The buffer of `values` is consumed. A run that goes on from saved `values` and `losses_nats` makes the same passes,
    bit for bit, as one that was never interrupted. Ends with open tokens if `most_passes` are over, or if their number
    has not fallen for 5 passes: equal selections and states with different targets cannot both be stored.

    Raises ValueError if shapes do not fit, or unless 0 < aim_nats < threshold_nats.
    """
    if not 0.0 < aim_nats < threshold_nats:
        raise ValueError(f"0 < aim_nats < threshold_nats is needed, got {aim_nats} and {threshold_nats}")
    tokens = _Tokens(values, states, targets, selection, unembed, _write if write is None else write)
    losses = tokens.losses_nats(values, np.arange(tokens.count)) if losses_nats is None else losses_nats.copy()
    state = Memorized(values, losses, threshold_nats, 0)
    yield state
    fewest, since = int(state.open.sum()), 0
    for number in range(1, most_passes + 1):
        opened = np.flatnonzero(state.open)
        if opened.size == 0 or since == _PATIENCE:
            return
        values = tokens.written(state.values, state.open, aim_nats)
        moved = tokens.sharing(opened)
        losses = state.losses_nats.copy()
        losses[moved] = tokens.losses_nats(values, moved)
        state = Memorized(values, losses, threshold_nats, number)
        left = int(state.open.sum())
        fewest, since = (left, 0) if left < fewest else (fewest, since + 1)
        yield state


def tokens_at_once(widest: int) -> int:
    """Tokens of a chunk whose largest array has so many numbers for each: from 256 to 8192.

    >>> tokens_at_once(512), tokens_at_once(128_256)
    (8192, 256)
    """
    return 1 << min(13, max(8, (_NUMBERS_AT_ONCE // widest).bit_length() - 1))


class _Tokens:
    """What is to be written, on the host, and the chunks in which it goes to the device."""

    def __init__(
        self, values: Array, states: Host, targets: Host, selection: Selection, unembed: Unembed, write: Write
    ) -> None:
        self.write = write
        self.states, self.targets = states, np.asarray(targets)
        self.experts, self.weights = np.asarray(selection.experts), np.asarray(selection.weights, np.float32)
        self.unembed = unembed if isinstance(unembed, Partial) else Partial(unembed)
        self.size, width = values.shape
        self.count = len(self.targets)
        if not (self.experts.shape == self.weights.shape and len(self.experts) == self.count == len(states)):
            raise ValueError(
                f"{self.count} targets need as many states and selections [n k], got {len(states)} states, experts "
                f"{self.experts.shape} and weights {self.weights.shape}"
            )
        if values.dtype != np.float32 or states.shape[1] != width:
            raise ValueError(
                f"float32 values of the states' width {states.shape[1]} are needed, got {values.dtype} {width}"
            )
        self.vocabulary = jax.eval_shape(self.unembed, jax.ShapeDtypeStruct((width,), np.float32)).shape[0]
        if self.count and not 0 <= self.targets.min() <= self.targets.max() < self.vocabulary:
            raise ValueError(
                f"targets must lie in range({self.vocabulary}), got {self.targets.min()}..{self.targets.max()}"
            )
        self.inside = np.where((self.experts >= 0) & (self.experts < self.size), self.experts, self.size)
        widest = max(self.experts.shape[1] * width, self.vocabulary)
        self.most = tokens_at_once(widest)

    def losses_nats(self, values: Array, which: Host) -> Host:
        """The cross-entropy of some tokens, from the logits on in float64."""
        losses = np.empty(len(which))
        for part, length in self._chunks(len(which)):
            rows = which[part]
            inputs = (padded(array[rows], length) for array in (self.states, self.experts, self.weights))
            logits = np.asarray(_logits(values, *inputs, self.unembed))[: len(rows)]
            losses[part] = _cross_entropy(logits, self.targets[rows])
        return losses

    def written(self, values: Array, opened: Host, aim_nats: float) -> Array:
        """Write the open tokens, chunk after chunk; a chunk sees what the one before it wrote.

        Of all changes that will do, one of least sum over experts of (1 + done tokens that read it) |change|^2 is
        chosen, so that few are disturbed; done are those not open and those of the chunks before.
        """
        readers = self._readers(np.flatnonzero(~opened))
        which = np.flatnonzero(opened)
        for part, length in self._chunks(len(which)):
            rows = which[part]
            ease = 1.0 / np.sqrt(1.0 + readers).astype(np.float32)
            np.add.at(readers, self.inside[rows].ravel(), 1)
            weights = self.weights[rows] * ease[self.inside[rows]]
            system = compacted(self.experts[rows], weights, self.size, length)
            inputs = (padded(array, length) for array in (self.states[rows], self.targets[rows].astype(np.int32)))
            eases = jnp.asarray(ease[np.asarray(system.experts)])
            values = self.write(values, system, eases, *inputs, self.unembed, jnp.float32(aim_nats))
        return values

    def sharing(self, which: Host) -> Host:
        """The tokens that share an expert with some: all whose loss writing these may have changed."""
        touched = np.zeros(self.size + 1, bool)
        touched[self.inside[which]] = True
        touched[self.size] = False
        return np.flatnonzero(touched[self.inside].any(axis=1))

    def _readers(self, which: Host) -> Host:
        """How many of some tokens read each expert; the last number is of what is no expert."""
        return np.bincount(self.inside[which].ravel(), minlength=self.size + 1)

    def _chunks(self, count: int) -> Iterator[tuple[slice, int]]:
        """Slices of range(count) and the length to which each is padded, of which there are two."""
        length = self.most if count > 8 * _FEW else _FEW
        for begin in range(0, count, length):
            yield slice(begin, min(count, begin + length)), length


@jax.jit
def _logits(values: Array, states: Array, experts: Array, weights: Array, unembed: Partial) -> Array:
    return jax.vmap(unembed)(states + read_batch(values, experts, weights))


def _cross_entropy(logits: Float32[Host, "n V"], targets: Int[Host, " n"]) -> Float64[Host, " n"]:
    rows = np.arange(len(targets))
    against = logits - logits[rows, targets].astype(np.float64)[:, None]
    against[rows, targets] = -np.inf
    largest = np.maximum(against.max(axis=1, initial=-np.inf), 0.0)
    with np.errstate(invalid="ignore"):
        others = np.exp(against - largest[:, None]).sum(axis=1)
    return largest + np.log(np.exp(-largest) + others)


@partial(jax.jit, donate_argnums=0)
def _write(
    values: Array, system: System, eases: Array, states: Array, targets: Array, unembed: Partial, aim_nats: Array
) -> Array:
    """Write a chunk; the weights of the system are those of the tokens times the ease of changing each expert."""
    norms, eases = system.norms[:, None], eases[:, None]
    read = apply(system, values.at[system.experts].get(mode="fill", fill_value=0.0) / eases)
    shifts = jax.vmap(wanted_shift, in_axes=(0, 0, None, None))(states + norms * read, targets, unembed, aim_nats)
    scaled = jnp.where(norms > 0.0, shifts / jnp.where(norms > 0.0, norms, 1.0), 0.0)
    tolerance = _WRITE_SHARE * jnp.max(jnp.abs(shifts))
    change, _ = conjugate_residuals(system, scaled, tolerance, jnp.int32(MOST_WRITE_PASSES))
    return values.at[system.experts].add(eases * change, mode="drop", unique_indices=True)


def wanted_shift(
    state: Float32[Array, " v"], target: Int32[Array, ""], unembed: Unembed, aim_nats: Float32[Array, ""]
) -> Float32[Array, " v"]:
    """A small shift of the residual stream after which the target has the loss that is aimed at; zero if it is lower.

    Polyak steps on the log-odds of the target, each as far as the tangent says. Where the unembedding is linear the
    log-odds are concave and no step goes beyond the aim. Where logits are capped, c tanh(z / c), they are flat far out,
    and a tangent may lead beyond everything: a step that lowers the log-odds is taken back, and the next is shorter. So
    the loss is never above that without a shift, also where what is aimed at cannot be reached.
    """

    def log_odds(shift: Array) -> Array:
        logits = unembed(state + shift)
        return logits[target] - jax.nn.logsumexp(logits, where=jnp.arange(logits.shape[0]) != target)

    wanted = -jnp.log(jnp.expm1(aim_nats))

    def unfinished(found: tuple[Array, ...]) -> Array:
        _, odds, _, _, steps = found
        return (wanted - odds > _SHIFT_SLACK) & (steps < MOST_SHIFT_STEPS)

    def step(found: tuple[Array, ...]) -> tuple[Array, ...]:
        shift, odds, slope, length, steps = found
        tried = shift + length * (wanted - odds) / jnp.maximum(jnp.sum(slope * slope), _FLAT) * slope
        tried_odds, tried_slope = jax.value_and_grad(log_odds)(tried)
        better = tried_odds > odds
        kept = jax.tree.map(partial(jnp.where, better), (tried, tried_odds, tried_slope), (shift, odds, slope))
        return *kept, jnp.where(better, jnp.minimum(1.0, 2 * length), _SHORTER * length), steps + 1

    nothing = jnp.zeros_like(state)
    begin = nothing, *jax.value_and_grad(log_odds)(nothing), jnp.float32(1.0), jnp.int32(0)
    return jax.lax.while_loop(unfinished, step, begin)[0]


_FLAT = 1e-12  # a slope below this moves nothing
_SHORTER = 0.25  # of the step before, after one that lowered the log-odds

"""Greedy decoding with a key-value cache, the memory in between: state -> memory -> unembed -> the most probable token.

Rows of near length are padded together. A bucket has a fixed number of places: when enough rows have ended, waiting
ones take their places, so that long answers do not hold up short ones and each bucket compiles twice, once to read
questions and once to write answers.

Letters: n questions, t tokens of the longest, b places, T tokens of a padded question, W width of a state, A room for
an answer, C tokens written a call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree, UInt32

from mome_jax.addresses import extend, start
from sims.memory.backbone import Backbone, CachedBackbone, Recomputing
from sims.memory.buckets import by_width

MOST_PLACES = 512  # rows decoded together
_CACHED_BYTES = _LOGITS_BYTES = 1 << 28  # that all places together may hold: 512 of 256 tokens at width 128, 2 layers
_TOKENS_PER_CALL = 4  # written before the host looks which rows have ended


class Context(NamedTuple):
    """What the memory may go by when it is asked about one token of one row."""

    fingerprint: UInt32[Array, "2"]  # of the answer so far
    question: PyTree  # this row of the data given for each question
    position: Int32[Array, ""]  # tokens of the answer so far


class Recall(NamedTuple):
    """What the memory says for one token."""

    shift: Float[Array, " W"]  # to add to the state
    accepted: Bool[Array, ""]  # if not, the state stays as it is, bit for bit


class Memory(Protocol):
    """What is asked before each token: a JAX pytree called for one row (`jax.tree_util.Partial` makes one)."""

    def __call__(self, context: Context, state: Float[Array, " W"]) -> Recall:
        """The shift for this state."""
        ...


@dataclass(frozen=True, eq=False)
class Decoded:
    """Answers as tokens, in the order of the questions. Places past a row's length hold -1, 0 and False."""

    tokens: Int32[np.ndarray, "n A"]  # END included
    probabilities: Float32[np.ndarray, "n A"]  # of each token, given those before it
    accepted: Bool[np.ndarray, "n A"]  # by the memory, at each token
    lengths: Int32[np.ndarray, " n"]
    ended: Bool[np.ndarray, " n"]  # with END, rather than for want of room

    def said(self, row: int) -> list[int]:
        """The tokens of a row's answer without END."""
        return self.tokens[row, : self.lengths[row] - self.ended[row]].tolist()


def recalled(context: Context, state: Float[Array, " W"], memory: Memory | None) -> tuple[Array, Bool[Array, ""]]:
    """The state that `unembed` reads, and whether the memory had a part in it."""
    if memory is None:
        return state, jnp.array(False)
    shift, accepted = memory(context, state)
    return jnp.where(accepted, state + shift, state), accepted


def greedy(
    backbone: Backbone,
    questions: Int32[np.ndarray, "n t"],
    lengths: Int32[np.ndarray, " n"],
    *,
    end: int,
    room: int,
    memory: Memory | None = None,
    data: PyTree = (),
    fingerprint_seed: int = 0,
    advance: Callable[[float], None] = lambda work: None,
) -> Decoded:
    """The most probable token again and again, until `end`, `room` tokens, or the end of the backbone's context.

    The first `lengths[i]` tokens of row i are read: question and ASK, one token at least. `data` is a pytree of arrays
    with one row for each question, handed to the memory row by row; `fingerprint_seed` is that of the fingerprints of
    answers. Of equally probable tokens the one of lowest id is taken. `advance` is told the number of answers that
    were finished. Raises ValueError if a question has no tokens or does not leave room for one token of answer.
    """
    _check(lengths, room, backbone.context)
    cached = cast(CachedBackbone, backbone if isinstance(backbone, CachedBackbone) else Recomputing(backbone))
    count = len(lengths)
    decoded = Decoded(
        tokens=np.full((count, room), -1, dtype=np.int32),
        probabilities=np.zeros((count, room), dtype=np.float32),
        accepted=np.zeros((count, room), dtype=bool),
        lengths=np.zeros(count, dtype=np.int32),
        ended=np.zeros(count, dtype=bool),
    )
    options = _Options(end, room, fingerprint_seed)
    for rows, width in by_width(lengths, most=backbone.context):
        _Bucket(cached, memory, options, rows, width, questions, lengths, data).run(decoded, advance)
    return decoded


class _Options(NamedTuple):
    """What is fixed while a program is compiled."""

    end: int
    room: int
    fingerprint_seed: int


class _Place(NamedTuple):
    """What one row carries from token to token; batched, each leaf has b rows."""

    cache: PyTree
    state: Float[Array, " W"]  # after all that was read
    fingerprint: UInt32[Array, "2"]
    question: PyTree
    position: Int32[Array, ""]  # tokens written
    limit: Int32[Array, ""]  # most tokens that may be written
    open: Bool[Array, ""]


class _Written(NamedTuple):
    """One token of one row; `wrote` is False where the row had ended before."""

    token: Int32[Array, ""]
    probability: Float[Array, ""]
    accepted: Bool[Array, ""]
    wrote: Bool[Array, ""]


class _Bucket:
    """Questions of near length, decoded in a fixed number of places."""

    def __init__(self, backbone, memory, options: _Options, rows, width: int, questions, lengths, data):
        self.places = min(_places(backbone, width, options.room), 1 << (len(rows) - 1).bit_length())
        self.at_once = max(1, self.places // 2)  # rows that begin together
        self.backbone, self.memory, self.options = backbone, memory, options
        self.waiting, self.width = rows, width
        self.questions, self.lengths, self.data = questions, lengths, data
        self.row_of = np.full(self.places, -1)  # -1: free
        self.slot = 0
        self.batch: _Place | None = None

    def run(self, decoded: Decoded, advance: Callable[[float], None]) -> None:
        """Decode all rows."""
        while self.waiting.size or (self.row_of >= 0).any():
            while self.waiting.size and (free := np.flatnonzero(self.row_of < 0)).size >= self.at_once:
                self._begin(free[: self.at_once])
            self.batch, written = _write(self.backbone, self.memory, self.batch, np.int32(self.slot), self.options)
            self.slot = (self.slot + _TOKENS_PER_CALL) % self.options.room
            advance(self._keep(decoded, written))

    def _begin(self, places: np.ndarray) -> None:
        """Let waiting rows take these places; a place for which no row waits stays closed."""
        rows, self.waiting = self.waiting[: len(places)], self.waiting[len(places) :]
        self.row_of[places[: len(rows)]] = rows
        filled = np.concatenate([rows, np.repeat(rows[:1], len(places) - len(rows))])
        tokens = np.zeros((len(places), self.width), dtype=np.int32)
        width = min(self.width, self.questions.shape[1])
        tokens[:, :width] = self.questions[filled, :width]
        data = jax.tree.map(lambda leaf: leaf[filled], self.data)
        is_row = np.arange(len(places)) < len(rows)
        begun = _read(self.backbone, tokens, self.lengths[filled].astype(np.int32), data, is_row, self.options)
        if self.batch is None:
            self.batch = jax.tree.map(lambda leaf: jnp.zeros((self.places, *leaf.shape[1:]), leaf.dtype), begun)
        self.batch = _seat(self.batch, begun, places)

    def _keep(self, decoded: Decoded, written: _Written) -> int:
        """Put what was written where it belongs; the number of rows that have ended."""
        token, probability, accepted, wrote = (np.asarray(leaf) for leaf in written)
        place, step = np.nonzero(wrote)
        row = self.row_of[place]
        position = decoded.lengths[row] + step  # a row writes without gaps
        decoded.tokens[row, position] = token[place, step]
        decoded.probabilities[row, position] = probability[place, step]
        decoded.accepted[row, position] = accepted[place, step]
        np.add.at(decoded.lengths, row, 1)
        decoded.ended[row[token[place, step] == self.options.end]] = True
        done = (self.row_of >= 0) & ~np.asarray(cast(_Place, self.batch).open)
        self.row_of[done] = -1
        return int(done.sum())


@partial(jax.jit, static_argnames="options")
def _read(
    backbone: CachedBackbone, tokens: Array, lengths: Array, data: PyTree, is_row: Array, options: _Options
) -> _Place:
    """Places of rows that are about to write their first token."""

    def read_one(tokens: Int32[Array, " T"], length: Int32[Array, ""], question: PyTree, is_row: Bool[Array, ""]):
        cache, state = backbone.begin(tokens, length, options.room)
        limit = jnp.minimum(options.room, backbone.context - length)
        return _Place(cache, state, start(options.fingerprint_seed), question, jnp.zeros_like(length), limit, is_row)

    return jax.vmap(read_one)(tokens, lengths, data, is_row)


@partial(jax.jit, donate_argnums=0)
def _seat(batch: _Place, begun: _Place, places: Array) -> _Place:
    return jax.tree.map(lambda all_rows, some: all_rows.at[places].set(some), batch, begun)


@partial(jax.jit, static_argnames="options", donate_argnums=2)
def _write(
    backbone: CachedBackbone, memory: Memory | None, batch: _Place, slot: Array, options: _Options
) -> tuple[_Place, _Written]:
    """Some tokens of each row that is open; `[b C]` of them."""

    def write_one(place: _Place, slot: Int32[Array, ""]) -> tuple[_Place, _Written]:
        context = Context(place.fingerprint, place.question, place.position)
        state, accepted = recalled(context, place.state, memory)
        logits = backbone.unembed(state)
        token = jnp.argmax(logits).astype(jnp.int32)
        cache, following = backbone.advance(place.cache, token, place.position, slot)
        written = _Written(token, jax.nn.softmax(logits)[token], accepted & place.open, place.open)
        position = place.position + place.open.astype(jnp.int32)
        return place._replace(
            cache=cache,
            state=following,
            fingerprint=extend(place.fingerprint, token),
            position=position,
            open=place.open & (token != options.end) & (position < place.limit),
        ), written

    def step(batch: _Place, slot: Int32[Array, ""]) -> tuple[_Place, _Written]:
        return jax.vmap(write_one, (0, None))(batch, slot)

    slots = (slot + jnp.arange(_TOKENS_PER_CALL, dtype=jnp.int32)) % options.room
    batch, written = jax.lax.scan(step, batch, slots)
    return batch, jax.tree.map(lambda leaf: leaf.T, written)


def _places(backbone: CachedBackbone, width: int, room: int) -> int:
    """How many rows go together, so that neither their caches nor their logits outgrow memory; one at least."""
    tokens = jax.ShapeDtypeStruct((width,), np.int32)
    length = jax.ShapeDtypeStruct((), np.int32)
    cache, _ = jax.eval_shape(lambda tokens, length: backbone.begin(tokens, length, room), tokens, length)
    cached = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache) if leaf.ndim)
    return max(1, min(MOST_PLACES, _CACHED_BYTES // max(1, cached), _LOGITS_BYTES // (4 * backbone.vocabulary)))


def _check(lengths: Int32[np.ndarray, " n"], room: int, context: int) -> None:
    if room < 1:
        raise ValueError(f"room must be at least one token, got {room}")
    wrong = np.flatnonzero((lengths < 1) | (lengths >= context))
    if wrong.size:
        raise ValueError(
            f"question {wrong[0]} has {lengths[wrong[0]]} tokens; it must have one at least, and fewer than the "
            f"backbone's context of {context} to leave room for an answer"
        )

"""Greedy decoding: the cache agrees with reading all again, places are taken anew, the memory can decline."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import tree_util

from mome_jax.addresses import fingerprints, start
from sims.memory import decoding
from sims.memory.backbone import Recomputing
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.decoding import Context, Decoded, Recall, greedy

CONTEXT, VOCABULARY, END, ROOM = 24, 12, 8, 6
QUESTIONS = 21


@pytest.fixture(scope="module")
def backbone() -> ByteBackbone:
    fresh = ByteBackbone.fresh(jax.random.key(1), CONTEXT, width=16, layers=2, heads=2, vocabulary=VOCABULARY)
    # Larger embeddings, so that answers depend on questions and END comes up.
    louder = jax.tree.map(lambda leaf: 6 * leaf, fresh.weights)
    return ByteBackbone(louder, fresh.architecture)


@pytest.fixture(scope="module")
def questions() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    lengths = random.integers(1, 17, QUESTIONS).astype(np.int32)
    lengths[0] = CONTEXT - 2  # of another width than the others, without room for a long answer
    return random.integers(0, VOCABULARY, (QUESTIONS, CONTEXT - 2)).astype(np.int32), lengths


def brute_force(backbone, questions, lengths, room, change=lambda row, written, state: state) -> Decoded:
    """One row after the other, the whole sequence read again for each token."""
    hidden, unembed = jax.jit(backbone.hidden), jax.jit(backbone.unembed)
    shape = (len(lengths), room)
    tokens, probabilities = np.full(shape, -1), np.zeros(shape)
    ended = np.zeros(len(lengths), dtype=bool)
    for row, length in enumerate(lengths.tolist()):
        read = np.zeros(CONTEXT, dtype=np.int32)
        read[:length] = questions[row, :length]
        for step in range(min(room, CONTEXT - length)):
            state = change(row, tokens[row, :step], hidden(jnp.asarray(read))[length + step - 1])
            logits = np.asarray(unembed(state), dtype=np.float64)
            tokens[row, step] = token = int(logits.argmax())
            probabilities[row, step] = np.exp(logits[token] - logits.max()) / np.exp(logits - logits.max()).sum()
            read[length + step] = token
            if token == END:
                ended[row] = True
                break
    return Decoded(tokens, probabilities, np.zeros(shape, dtype=bool), (tokens >= 0).sum(axis=1), ended)


def test_the_cached_step_agrees_with_hidden(backbone):
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, CONTEXT), dtype=jnp.int32)
    states = jax.jit(backbone.hidden)(tokens)
    length, room, first_slot = 7, 5, 3  # the ring is passed around, and its first places are overwritten
    padded = tokens.at[length:].set(0)[:16]
    cache, state = jax.jit(backbone.begin, static_argnums=2)(padded, jnp.int32(length), room)
    np.testing.assert_allclose(state, states[length - 1], atol=1e-5)
    advance = jax.jit(backbone.advance)
    for count in range(room):
        slot = jnp.int32((first_slot + count) % room)
        cache, state = advance(cache, tokens[length + count], jnp.int32(count), slot)
        np.testing.assert_allclose(state, states[length + count], atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_it_writes_what_brute_force_writes(backbone, questions, monkeypatch, recompute):
    monkeypatch.setattr(decoding, "MOST_PLACES", 4)  # places are taken again and again
    told = []
    found = greedy(
        Recomputing(backbone) if recompute else backbone, *questions, end=END, room=ROOM, advance=told.append
    )
    expected = brute_force(backbone, *questions, ROOM)
    assert sum(told) == QUESTIONS
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_array_equal(found.ended, expected.ended)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert not found.accepted.any()
    # The case is worth something: some end, some run out of room, some out of context.
    assert found.ended.any()
    assert (~found.ended & (found.lengths == ROOM)).any()
    assert (~found.ended & (found.lengths < ROOM)).any()


@tree_util.register_pytree_node_class
class Dictated:
    """Answers what the question's data says wherever it is in time; declines on rows whose data say so."""

    def __init__(self, directions):
        self.directions = directions

    def tree_flatten(self):
        return (self.directions,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)

    def __call__(self, context: Context, state) -> Recall:
        answer, open_ = context.question
        token = answer[jnp.minimum(context.position, len(answer) - 1)]
        return Recall(1e4 * self.directions[token] - state, open_)


def test_the_memory_is_asked_with_this_rows_data_and_may_decline(backbone, questions, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_PLACES", 4)
    tokens, lengths = questions[0], np.minimum(questions[1], 16)  # one width, few compilations
    random = np.random.default_rng(5)
    answers = random.integers(0, END, (QUESTIONS, ROOM)).astype(np.int32)
    ends = random.integers(0, ROOM, QUESTIONS)
    answers[np.arange(QUESTIONS), ends] = END
    is_open = np.arange(QUESTIONS) % 3 > 0
    kernel = np.asarray(backbone.weights["unembed"]["kernel"])
    memory = Dictated(jnp.asarray(np.linalg.pinv(kernel).astype(np.float32)))
    found = greedy(backbone, tokens, lengths, end=END, room=ROOM, memory=memory, data=(answers, is_open))
    without = greedy(backbone, tokens, lengths, end=END, room=ROOM)
    for row in range(QUESTIONS):
        written = found.tokens[row, : found.lengths[row]]
        if is_open[row]:
            np.testing.assert_array_equal(written, answers[row, : ends[row] + 1])
            assert found.ended[row]
            assert found.accepted[row].tolist() == [step <= ends[row] for step in range(ROOM)]
        else:  # bit for bit what there is without a memory
            np.testing.assert_array_equal(found.tokens[row], without.tokens[row])
            np.testing.assert_array_equal(found.probabilities[row], without.probabilities[row])
            assert not found.accepted[row].any()


def echo(seen_by, context: Context, state) -> Recall:
    """Writes the lowest bit of the fingerprint that it is given."""
    bit = (context.fingerprint[1] & jnp.uint32(1)).astype(jnp.int32)
    return Recall(1e4 * seen_by[bit] - state, jnp.array(True))


def test_the_fingerprint_is_that_of_the_answer_so_far(backbone, questions):
    tokens, lengths = questions[0], np.minimum(questions[1], 16)  # one width, few compilations
    directions = np.linalg.pinv(np.asarray(backbone.weights["unembed"]["kernel"])).astype(np.float32)
    memory = tree_util.Partial(echo, jnp.asarray(directions))
    found = greedy(backbone, tokens, lengths, end=END, room=ROOM, memory=memory, fingerprint_seed=9)
    assert found.accepted.all()
    prefixes = jax.jit(jax.vmap(lambda written: jnp.concatenate([start(9)[None], fingerprints(written, 9)])))(
        found.tokens
    )
    np.testing.assert_array_equal(found.tokens, prefixes[:, :ROOM, 1] & 1)


def test_a_declined_state_keeps_its_bits():
    state = jnp.array([-0.0, 1.5, jnp.inf], dtype=jnp.float32)
    context = Context(jnp.zeros(2, jnp.uint32), (), jnp.int32(0))
    kept, accepted = decoding.recalled(context, state, lambda context, state: Recall(state * jnp.nan, jnp.array(False)))
    assert np.asarray(kept).tobytes() == np.asarray(state).tobytes()
    assert not bool(accepted)
    assert decoding.recalled(context, state, None)[0] is state


def test_what_cannot_be_decoded_is_refused(backbone):
    row = np.zeros((1, CONTEXT), dtype=np.int32)
    for length, room, message in [(0, 4, "has 0 tokens"), (CONTEXT, 4, "to leave room"), (3, 0, "room must be")]:
        with pytest.raises(ValueError, match=message):
            greedy(backbone, row, np.array([length], dtype=np.int32), end=END, room=room)


def test_no_question_has_no_answer(backbone):
    nothing = greedy(backbone, np.zeros((0, 4), np.int32), np.zeros(0, np.int32), end=END, room=3)
    assert nothing.tokens.shape == (0, 3)


def test_rows_decoded_together_fit_into_memory():
    """256 MiB of caches, and as much of logits: of a wide model or a large vocabulary fewer rows."""

    def places(**sizes: int) -> int:
        backbone = ByteBackbone.fresh(jax.random.key(0), 256, heads=2, **sizes)
        return decoding._places(backbone, width=192, room=64)

    a_token = 2 * 4  # bytes of one number of a key and one of a value
    assert places(width=128, layers=2) == 2**28 // (256 * a_token * 128 * 2) == 512
    assert places(width=512, layers=2) == 128
    assert places(width=16, layers=1, vocabulary=2**18) == 2**28 // 2**20

"""The byte backbone: causal states, buckets, pretraining by steps, arrays and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mome_jax.saving import load, save
from sims.memory import buckets
from sims.memory.backbone import Backbone, CachedBackbone, Recomputing, hidden_states
from sims.memory.buckets import batches, padded_widths
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.pretraining import learning_rates, next_token_loss, pretrain, steps_within
from sims.tokens import tokenize
from theory.console import Refusal

SIZES = {"width": 16, "layers": 2, "heads": 2}
FACTS = tokenize(
    [f"Where does number {number} live{'?' * (1 + number % 3)}" for number in range(200)],
    [f"in house {number * 7 % 100}" for number in range(200)],
)


@pytest.fixture(scope="module")
def backbone() -> ByteBackbone:
    return ByteBackbone.fresh(jax.random.key(0), FACTS.tokens.shape[1], vocabulary=FACTS.size, **SIZES)


def test_it_is_a_backbone_with_a_cache_and_recomputing_is_too(backbone):
    for found in (backbone, Recomputing(backbone)):
        assert isinstance(found, Backbone)
        assert isinstance(found, CachedBackbone)
        assert (found.width, found.vocabulary, found.context) == (16, 259, FACTS.tokens.shape[1])


def test_states_are_causal_and_unembedding_is_linear(backbone):
    tokens = jnp.asarray(FACTS.tokens[0])
    changed = tokens.at[20:].set(65)
    hidden = jax.jit(backbone.hidden)
    before, after = hidden(tokens), hidden(changed)
    np.testing.assert_array_equal(before[:20], after[:20])
    assert not np.allclose(before[20:], after[20:])
    one, two = before[3], before[9]
    sums = backbone.unembed(one) + backbone.unembed(two)
    np.testing.assert_allclose(backbone.unembed(one + two), sums, atol=1e-5)


def test_hidden_states_are_those_before_the_marked_tokens(backbone, monkeypatch):
    monkeypatch.setattr("sims.memory.backbone.TOKENS_PER_BATCH", 16 * 64)  # several batches of two widths
    mask = FACTS.answer_mask.copy()
    mask[5] = False  # a fact without a marked token
    mask[6, 2] = True  # and one with a marked token far before the others
    told = []
    states = hidden_states(backbone, FACTS.tokens, mask, advance=told.append)
    assert states.shape == (mask.sum(), 16)
    assert states.dtype == np.float32
    assert sum(told) == len(FACTS.tokens)
    rows = np.asarray(jax.jit(jax.vmap(backbone.hidden))(jnp.asarray(FACTS.tokens)))
    row, place = np.nonzero(mask)
    np.testing.assert_allclose(states, rows[row, place - 1], atol=1e-5)


def test_a_marked_first_token_is_refused(backbone):
    mask = np.zeros_like(FACTS.answer_mask)
    mask[0, 0] = True
    with pytest.raises(ValueError, match="first token"):
        hidden_states(backbone, FACTS.tokens, mask)


def test_pretraining_learns_and_the_number_of_steps_decides_the_weights(monkeypatch):
    monkeypatch.setattr("sims.memory.pretraining.TOKENS_PER_STEP", 16 * 48)
    told = []
    trained = pretrain(FACTS, 12, seed=3, advance=told.append, **SIZES)
    assert told == [1] * 12
    assert trained.steps == 12
    assert trained.steps_in_a_pass >= 12
    assert trained.loss_nats < 0.9 * np.log(259)  # where it begins
    again = pretrain(FACTS, 12, seed=3, **SIZES)
    for one, two in zip(jax.tree.leaves(trained.backbone), jax.tree.leaves(again.backbone), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="one pass over these facts"):
        pretrain(FACTS, trained.steps_in_a_pass + 1, **SIZES)
    assert steps_within(FACTS, 0.0, **SIZES) == 0
    assert steps_within(FACTS, 1e9, **SIZES) == trained.steps_in_a_pass


def test_a_pass_predicts_each_token_once(monkeypatch):
    monkeypatch.setattr("sims.memory.pretraining.TOKENS_PER_STEP", 16 * 48)
    pass_steps = steps_within(FACTS, 1e9, **SIZES)
    predicted = int((FACTS.tokens != FACTS.pad).sum()) - len(FACTS.tokens)  # all but each first one
    assert pretrain(FACTS, pass_steps, **SIZES).tokens == predicted


def test_the_loss_counts_what_is_not_negative(backbone):
    tokens = jnp.asarray(FACTS.tokens[:2, :-1])
    targets = jnp.full(tokens.shape, -1).at[0, 3].set(65).at[1, 7].set(66)
    logits = jax.jit(lambda rows: jax.vmap(jax.vmap(backbone.unembed))(jax.vmap(backbone.hidden)(rows)))(tokens)
    log_probabilities = np.log(np.exp(np.asarray(logits)) / np.exp(np.asarray(logits)).sum(axis=-1, keepdims=True))
    expected = -(log_probabilities[0, 3, 65] + log_probabilities[1, 7, 66]) / 2
    assert float(jax.jit(next_token_loss)(backbone, tokens, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_rates_rise_then_fall_to_a_tenth():
    rates = learning_rates(400)
    top = int(rates.argmax())
    assert 10 <= top <= 40
    assert np.all(np.diff(rates[: top + 1]) > 0)
    assert np.all(np.diff(rates[top:]) < 0)
    assert rates[-1] == pytest.approx(0.1 * rates.max(), rel=0.02)
    assert learning_rates(0).shape == (0,)


def test_arrays_and_header_are_the_backbone(backbone, tmp_path):
    arrays, header = backbone.to_arrays()
    save(tmp_path / "backbone.safetensors", arrays, header)
    loaded = ByteBackbone.from_arrays(*load(tmp_path / "backbone.safetensors"))
    assert loaded.architecture == backbone.architecture
    tokens = jnp.asarray(FACTS.tokens[0])
    np.testing.assert_array_equal(jax.jit(loaded.hidden)(tokens), jax.jit(backbone.hidden)(tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another"}, "no backbone of the format"),
        ({"width": 16.0}, "no backbone of the format"),
        ({"layers": True}, "no backbone of the format"),
        ({"heads": 3}, "not a multiple"),
        ({"width": 32}, "not float32"),
        ({"layers": 3}, "is missing"),
    ],
)
def test_parts_that_do_not_fit_are_refused(backbone, change, message):
    arrays, header = backbone.to_arrays()
    with pytest.raises(Refusal, match=f"^here: .*{message}"):
        ByteBackbone.from_arrays(arrays, {**header, **change}, "here")


@settings(max_examples=50)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 4))
def test_widths_are_the_best_there_are(lengths, count):
    found = padded_widths(np.array(lengths), count)
    assert len(found) <= count

    def padded(widths):
        return sum(min(width for width in widths if width >= length) for length in lengths)

    longest = -(-max(lengths) // 16) * 16
    assert found[-1] == longest
    others = np.random.default_rng(0).integers(1, 14, (40, count - 1)) * 16
    assert all(padded(found) <= padded([*map(int, widths), longest]) for widths in others)


@given(st.lists(st.integers(0, 100), max_size=80), st.integers(1, 500))
def test_every_row_is_in_one_batch_that_it_fits(lengths, tokens):
    lengths = np.array(lengths, dtype=np.int64)
    found = batches(lengths, tokens, most=100)
    assert sorted(row for batch in found for row in batch.rows.tolist()) == list(range(len(lengths)))
    assert all(lengths[batch.rows].max() <= batch.width <= 100 for batch in found)
    assert all(1 <= len(batch.rows) <= batch.size for batch in found)
    assert all(batch.size * batch.width <= max(tokens, batch.width) for batch in found)
    assert len({(batch.size, batch.width) for batch in found}) <= buckets.MOST_WIDTHS


def test_a_cut_is_padded_to_its_shape():
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4)
    cut = buckets.Batch(np.array([2, 0]), 3, 6).cut(tokens, -1)
    assert cut.tolist() == [[8, 9, 10, 11, -1, -1], [0, 1, 2, 3, -1, -1], [-1] * 6]

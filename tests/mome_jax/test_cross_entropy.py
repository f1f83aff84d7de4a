"""Cross-entropy writes: tokens under the threshold, impossible ones reported, interrupted runs go on bit for bit."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from mome_jax.cross_entropy import AIM_NATS, THRESHOLD_NATS, _Tokens, memorize, memorizing, wanted_shift
from mome_jax.index import NULL, Selection

WIDTH, VOCABULARY, RANKS, EXPERTS = 8, 12, 3, 1024
UNEMBEDDING = jnp.asarray(np.random.default_rng(0).normal(size=(WIDTH, VOCABULARY)), jnp.float32)


def _unembed(state: jax.Array) -> jax.Array:
    return state @ UNEMBEDDING


def _tokens(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, Selection]:
    draws = np.random.default_rng(seed)
    states = draws.normal(size=(count, WIDTH)).astype(np.float32)
    chosen = np.stack([draws.choice(EXPERTS, RANKS, replace=False) for _ in range(count)]).astype(np.int32)
    weights = (1.0 + draws.random((count, RANKS))).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return states, draws.integers(0, VOCABULARY, count), Selection(jnp.asarray(chosen), jnp.asarray(weights))


def _reference_losses(values: jax.Array, states: np.ndarray, targets: np.ndarray, selection: Selection) -> np.ndarray:
    table = np.concatenate([np.asarray(values, np.float64), np.zeros((1, WIDTH))])  # the null expert is the last row
    read = np.einsum("nk,nkv->nv", np.asarray(selection.weights, np.float64), table[np.asarray(selection.experts)])
    logits = (states + read) @ np.asarray(UNEMBEDDING, np.float64)
    return special.logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]


def test_every_token_comes_under_the_threshold_and_the_losses_are_true() -> None:
    states, targets, selection = _tokens(600)
    before = _reference_losses(jnp.zeros((EXPERTS, WIDTH)), states, targets, selection)
    assert (before > math.log(2)).mean() > 0.5
    done = memorize(jnp.zeros((EXPERTS, WIDTH)), states, targets, selection, _unembed)
    assert done.stored.all()
    assert done.losses_nats.dtype == np.float64
    np.testing.assert_allclose(
        done.losses_nats, _reference_losses(done.values, states, targets, selection), rtol=1e-4, atol=1e-6
    )
    logits = _reference_losses(done.values, states, targets, selection)
    assert logits.max() <= THRESHOLD_NATS + 1e-5 < math.log(2)
    assert 1 <= done.passes <= 10


def test_tokens_under_the_threshold_cost_nothing_and_the_next_ones_are_added() -> None:
    states, targets, selection = _tokens(300)
    done = memorize(jnp.zeros((EXPERTS, WIDTH)), states, targets, selection, _unembed)
    before = np.asarray(done.values)
    again = memorize(done.values, states, targets, selection, _unembed)
    assert again.passes == 0
    assert (np.asarray(again.values) == before).all()
    changed = targets.copy()
    changed[7] = (targets[7] + 1) % VOCABULARY
    edited = memorize(again.values, states, changed, selection, _unembed)
    assert edited.stored.all()
    moved = np.flatnonzero((np.asarray(edited.values) != before).any(axis=1))
    assert set(np.asarray(selection.experts)[7].tolist()) <= set(moved.tolist())
    assert len(moved) < 0.2 * EXPERTS


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_run_goes_on_bit_for_bit(stop: int, tmp_path) -> None:
    states, targets, selection = _tokens(700, 2)
    whole = memorize(jnp.zeros((EXPERTS, WIDTH)), states, targets, selection, _unembed)
    assert whole.passes > 2
    for state in memorizing(jnp.zeros((EXPERTS, WIDTH)), states, targets, selection, _unembed):
        if state.passes == stop:
            np.savez(tmp_path / "state.npz", values=state.values, losses=state.losses_nats)
            break
    saved = np.load(tmp_path / "state.npz")
    rest = memorize(jnp.asarray(saved["values"]), states, targets, selection, _unembed, losses_nats=saved["losses"])
    assert rest.passes == whole.passes - stop
    assert (np.asarray(rest.values) == np.asarray(whole.values)).all()
    assert (rest.losses_nats == whole.losses_nats).all()


def test_equal_selections_with_different_targets_are_reported_and_the_run_ends() -> None:
    states, targets, selection = _tokens(100, 3)
    chosen, weights = np.asarray(selection.experts).copy(), np.asarray(selection.weights).copy()
    chosen[1], weights[1], states[1] = chosen[0], weights[0], states[0]
    targets[1] = (targets[0] + 1) % VOCABULARY
    chosen[2] = NULL
    states[2] = 0.0
    done = memorize(
        jnp.zeros((EXPERTS, WIDTH)), states, targets, Selection(jnp.asarray(chosen), jnp.asarray(weights)), _unembed
    )
    assert not done.stored[:2].all()
    assert done.losses_nats[2] == pytest.approx(math.log(VOCABULARY))
    assert done.stored[3:].all()
    assert done.passes < 20


def test_a_foreign_expert_is_neither_stored_nor_written() -> None:
    states, targets, selection = _tokens(10, 4)
    chosen = np.asarray(selection.experts).copy()
    chosen[0, 1] = EXPERTS
    broken = Selection(jnp.asarray(chosen), selection.weights)
    done = memorize(jnp.zeros((EXPERTS, WIDTH)), states, targets, broken, _unembed)
    assert math.isnan(done.losses_nats[0])
    assert done.stored.tolist() == [False] + [True] * 9
    assert (np.asarray(done.values)[np.setdiff1d(np.arange(EXPERTS), chosen[1:])] == 0).all()


def test_a_wanted_shift_reaches_the_aim_from_above_and_is_near_the_shortest() -> None:
    states, targets, _ = _tokens(200, 5)
    shifts = jax.jit(jax.vmap(partial(wanted_shift, unembed=_unembed, aim_nats=jnp.float32(AIM_NATS))))(
        jnp.asarray(states), jnp.asarray(targets, jnp.int32)
    )
    nobody = Selection(jnp.full((200, 1), NULL, jnp.int32), jnp.ones((200, 1)))
    values = jnp.zeros((EXPERTS, WIDTH))
    before = _reference_losses(values, states, targets, nobody)
    after = _reference_losses(values, states + np.asarray(shifts), targets, nobody)
    low = before <= AIM_NATS
    assert (np.asarray(shifts)[low] == 0).all()
    assert (after[~low] <= 1.01 * AIM_NATS).mean() > 0.9  # at most 8 steps are taken: some tokens end a little above
    assert after[~low].max() < THRESHOLD_NATS / 2
    assert (after[~low] >= AIM_NATS * (1 - 1e-4)).all()
    shortest = np.asarray(shifts)
    for scale in (0.9, 0.99):  # on the segment to it nothing shorter will do
        less = _reference_losses(values, states + scale * shortest, targets, nobody)
        assert (less[~low] > AIM_NATS).all()


@pytest.mark.parametrize("cap", [4.0, 8.0])
def test_where_logits_are_capped_shifts_come_near_the_best_and_lead_nowhere_worse(cap: float) -> None:
    """The best by a second method: a thousand small steps down the loss itself."""
    rows = jnp.asarray(np.random.default_rng(1).normal(0, 0.3, (300, 32)), jnp.float32)
    states = jnp.asarray(np.random.default_rng(2).normal(size=(20, 32)), jnp.float32)
    targets = jnp.arange(20, dtype=jnp.int32)
    optimizer = optax.adam(0.05)

    def capped(state: jax.Array) -> jax.Array:
        return cap * jnp.tanh(rows @ state / cap)

    def loss(shift: jax.Array, state: jax.Array, target: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(capped(state + shift), target)

    def descended(state: jax.Array, target: jax.Array) -> jax.Array:
        def step(carried: tuple, _: None) -> tuple[tuple, None]:
            shift, moments = carried
            with jax.numpy_dtype_promotion("standard"):
                update, moments = optimizer.update(jax.grad(loss)(shift, state, target), moments)
            return (shift + update, moments), None

        nothing = jnp.zeros_like(state)
        return jax.lax.scan(step, (nothing, optimizer.init(nothing)), None, length=1000)[0][0]

    def losses(find: Callable[..., jax.Array]) -> np.ndarray:
        return np.asarray(jax.vmap(loss)(jax.jit(jax.vmap(find))(states, targets), states, targets))

    best, before = losses(descended), losses(lambda state, _: jnp.zeros_like(state))
    found = losses(partial(wanted_shift, unembed=capped, aim_nats=jnp.float32(1e-5)))
    assert best.min() > 1e-4  # nobody can reach what is aimed at
    assert (found >= best - 1e-3).all()
    assert (found <= before).all()
    assert np.median(found) < 1.1 * np.median(best)


def test_nothing_to_memorize_and_what_does_not_fit() -> None:
    states, targets, selection = _tokens(4)
    none = memorize(
        jnp.zeros((EXPERTS, WIDTH)),
        states[:0],
        targets[:0],
        Selection(selection.experts[:0], selection.weights[:0]),
        _unembed,
    )
    assert none.passes == 0
    assert none.stored.shape == (0,)
    zeros = jnp.zeros((EXPERTS, WIDTH))
    with pytest.raises(ValueError, match="4 targets need as many states"):
        memorize(zeros, states, targets, Selection(selection.experts[:3], selection.weights[:3]), _unembed)
    with pytest.raises(ValueError, match=r"range\(12\), got 12..12"):
        memorize(zeros, states, np.full(4, 12), selection, _unembed)
    with pytest.raises(ValueError, match=r"got 0.7 and 0.6"):
        memorize(zeros, states, targets, selection, _unembed, threshold_nats=0.6, aim_nats=0.7)
    with pytest.raises(ValueError, match="got bfloat16"):
        _Tokens(zeros.astype(jnp.bfloat16), states, targets, selection, _unembed, max)

"""Banks and what is read from them, against a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mome_jax.experts import LowRank, Values, bank_bytes, read, read_every_token
from mome_jax.footprint import available_bytes
from mome_jax.index import NULL, Selection

EXPERTS, STATE, WIDTH, RANK = 11, 5, 3, 2


def _bank(rank, dtype=jnp.float32, seed=0):
    draw = np.random.default_rng(seed)
    if rank == 0:
        return Values(jnp.asarray(draw.normal(size=(EXPERTS, WIDTH)), dtype))
    down, up = draw.normal(size=(EXPERTS, rank, STATE)), draw.normal(size=(EXPERTS, rank, WIDTH))
    return LowRank(jnp.asarray(down, dtype), jnp.asarray(up, dtype))


def _by_hand(bank, experts, weights, state):
    answer = np.zeros(WIDTH)
    for expert, weight in zip(np.asarray(experts), np.asarray(weights, np.float64), strict=True):
        if expert == NULL:
            continue
        if not 0 <= expert < EXPERTS:
            return np.full(WIDTH, np.nan)
        if isinstance(bank, Values):
            answer += weight * np.asarray(bank.values, np.float64)[expert]
        else:
            down, up = (np.asarray(leaf, np.float64)[expert] for leaf in (bank.down, bank.up))
            answer += weight * up.T @ (down @ np.asarray(state, np.float64))
    return answer


IDS = jnp.array(
    [[0, 10, 3, 3], [NULL, 2, NULL, 5], [NULL, NULL, NULL, NULL], [1, 11, 2, 3], [1, -2, 2, 3], [2**31 - 1, 0, 0, 0]],
    jnp.int32,
)


@pytest.mark.parametrize("rank", [0, 1, RANK])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_reading_is_the_loop_in_float64(rank, dtype):
    """Also for repeated, null and out-of-range ids; bfloat16 is what is stored, sums are float32."""
    bank = _bank(rank, dtype)
    draw = np.random.default_rng(1)
    weights = jnp.asarray(draw.random(IDS.shape), jnp.float32)
    states = jnp.asarray(draw.normal(size=(len(IDS), STATE)), jnp.float32)
    answers = jax.jit(jax.vmap(read, in_axes=(None, 0, 0)))(bank, Selection(IDS, weights), states)
    assert answers.dtype == jnp.float32
    wanted = [_by_hand(bank, *one) for one in zip(IDS, weights, states, strict=True)]
    np.testing.assert_allclose(answers, np.array(wanted), rtol=2e-6, atol=2e-6)


def test_null_expert_reads_zero_and_strangers_read_nan_exactly():
    answers = jax.vmap(read, in_axes=(None, 0))(_bank(0), Selection(IDS, jnp.ones(IDS.shape)))
    assert np.array_equal(answers[2], np.zeros(WIDTH))
    assert np.isnan(answers[3:]).all()


@pytest.mark.parametrize("rank", [0, RANK])
def test_a_question_read_at_every_token_is_its_selection_read_at_each(rank):
    bank, selection = _bank(rank), Selection(IDS[1], jnp.array([0.1, 0.2, 0.3, 0.4]))
    states = jnp.asarray(np.random.default_rng(2).normal(size=(6, STATE)), jnp.float32)
    together = read_every_token(bank, selection, states)
    np.testing.assert_allclose(together, [read(bank, selection, state) for state in states], rtol=1e-6, atol=1e-7)


def test_rows_of_experts_are_a_bank_of_them():
    bank = _bank(RANK)
    rows = bank.gather(jnp.array([4, 1], jnp.int32))
    assert rows.experts == 2
    ours = read(rows, Selection(jnp.array([1, 0], jnp.int32), jnp.array([0.3, 0.7])), jnp.ones(STATE))
    theirs = read(bank, Selection(jnp.array([1, 4], jnp.int32), jnp.array([0.3, 0.7])), jnp.ones(STATE))
    np.testing.assert_array_equal(ours, theirs)


def test_two_layers_share_a_bank_by_holding_it():
    """One pytree, read twice: its gradient is the sum over both readings."""
    bank, selection = _bank(RANK), Selection(jnp.array([4, 1], jnp.int32), jnp.array([0.3, 0.7]))

    def second(bank, state):
        return read(bank, selection, jnp.concatenate([state, jnp.zeros(STATE - WIDTH)]))

    def both(lower, upper):
        return jnp.sum(second(upper, read(lower, selection, jnp.ones(STATE))))

    shared = jax.grad(lambda bank: both(bank, bank))(bank)
    apart = jax.tree.map(jnp.add, *jax.grad(both, argnums=(0, 1))(bank, bank))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), shared, apart)
    assert np.any(np.asarray(shared.up) != 0)


def test_adapters_need_a_state():
    with pytest.raises(ValueError, match="act on a state"):
        read(_bank(1), Selection(IDS[0], jnp.ones(4)))


def test_new_banks_answer_zero_and_take_the_stated_bytes():
    values = Values.create(EXPERTS, WIDTH, jnp.bfloat16)
    adapters = LowRank.create(EXPERTS, STATE, WIDTH, RANK, jax.random.key(0), jnp.bfloat16)
    for bank, stated in (
        (values, bank_bytes(EXPERTS, WIDTH, dtype=jnp.bfloat16)),
        (adapters, bank_bytes(EXPERTS, WIDTH, rank=RANK, state_width=STATE, dtype=jnp.bfloat16)),
    ):
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(bank)) == stated
        assert not np.any(read(bank, Selection(IDS[0], jnp.ones(4)), jnp.ones(STATE)))
    down = np.asarray(LowRank.create(400, 25, WIDTH, RANK, jax.random.key(1)).down)
    assert abs(down.var() * 25 - 1) < 0.05


def test_a_bank_that_does_not_fit_is_refused_with_the_numbers():
    stated = bank_bytes(2**20, 64)
    with pytest.raises(ValueError, match=f"{stated:,} bytes and {stated - 1:,} are available"):
        Values.create(2**20, 64, memory_limit_bytes=stated - 1)
    with pytest.raises(ValueError, match="1,048,576 adapters of rank 2"):
        LowRank.create(2**20, 8, 8, 2, jax.random.key(0), memory_limit_bytes=10**6)
    free = available_bytes()
    assert free is not None
    assert free > 0
    with pytest.raises(ValueError, match="are available"):
        Values.create(free // 256 + 2**20, 64)  # more than the machine has: refused, or this test would not survive


@pytest.mark.parametrize("wrong", [{"experts": 0}, {"width": 0}, {"rank": -1}, {"rank": 1}])
def test_bytes_of_an_impossible_bank_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        bank_bytes(**({"experts": 4, "width": 4} | wrong))

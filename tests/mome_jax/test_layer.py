"""The Flax layer: what it adds, and how a model that knows nothing of it takes it in."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mome_jax.experts import LowRank, Values, read
from mome_jax.index import FlatKeys, Heads, ProductKeys, Softmax, select
from mome_jax.layer import Experts, MemoryLayer
from mome_jax.optimizers import Adam, begin, learn
from mome_jax.usage import Usage, balance
from mome_jax.whitening import Whitening

EXPERTS, WIDTH, QUERY, CHOSEN = 20, 6, 4, 3


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _keys(temperature=1.0, seed=2):
    return FlatKeys(_normal(EXPERTS, QUERY, seed=seed), Softmax(temperature))


def _layer(**options):
    keys = options.pop("keys", _keys())
    bank = options.pop("bank", Values(_normal(EXPERTS, WIDTH, seed=1)))
    return MemoryLayer(keys, bank, WIDTH, QUERY, **({"k": CHOSEN} | options), rngs=nnx.Rngs(0))


def _foreign_model():
    """The whole of what it takes; none of the lines but two is about memory."""

    class Model(nnx.Module):
        def __init__(self, width, keys, bank, rngs):
            self.mix = nnx.Linear(width, width, rngs=rngs)
            self.memory = MemoryLayer(keys, bank, width, query_width=4, k=3, rngs=rngs)
            self.out = nnx.Linear(width, 7, rngs=rngs)

        def __call__(self, tokens):
            hidden = tokens + self.mix(tokens)
            hidden = jax.vmap(self.memory)(hidden)
            return self.out(hidden)

    return Model


def test_a_foreign_model_takes_the_layer_in_and_trains_without_touching_the_bank():
    """Its usual training of parameters runs; the bank is no parameter, and answers change with it."""
    Model = _foreign_model()
    assert len(inspect.getsource(_foreign_model).splitlines()) < 20
    keys, bank = FlatKeys(_normal(EXPERTS, 4, seed=2)), Values(_normal(EXPERTS, WIDTH, seed=1))
    model, tokens = Model(WIDTH, keys, bank, nnx.Rngs(0)), _normal(5, WIDTH, seed=3)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters):
        return jnp.mean(jnp.square(nnx.merge(graph, parameters, rest)(tokens) - 1.0))

    assert not any(leaf.shape == bank.values.shape for leaf in jax.tree.leaves(parameters))
    optimizer = optax.sgd(0.1)
    state = optimizer.init(parameters)
    step = jax.jit(jax.value_and_grad(loss))
    first, gradients = step(parameters)
    with jax.numpy_dtype_promotion("standard"):
        changes, state = optimizer.update(gradients, state)
    assert np.any(np.asarray(gradients["memory"]["query"]["kernel"].get_value()) != 0)
    assert np.any(np.asarray(gradients["memory"]["keys"].get_value().keys) != 0)
    assert step(optax.apply_updates(parameters, changes))[0] < first
    model.memory.bank.set_value(Values(jnp.zeros((EXPERTS, WIDTH))))
    np.testing.assert_array_equal(model(tokens), model.out(tokens + model.mix(tokens)))


def test_one_head_adds_what_its_selection_reads():
    layer, state = _layer(), _normal(WIDTH, seed=4)
    selection = select(layer.query(state), layer.keys.get_value(), CHOSEN)
    np.testing.assert_allclose(layer(state), state + read(layer.bank.get_value(), selection), rtol=1e-6)
    cold, warm = (_layer(keys=_keys(temperature)).select(state) for temperature in (0.01, 100.0))
    assert np.array_equal(cold.experts, warm.experts)
    assert cold.weights.max() > warm.weights.max()
    np.testing.assert_allclose(warm.weights, 1 / CHOSEN, atol=0.02)


def test_heads_have_queries_of_their_own_and_are_averaged():
    keys = (_keys(), ProductKeys(_normal(5, 2, seed=12), _normal(4, 2, seed=13)))
    layer = _layer(keys=Heads(keys), whitening=Whitening(jnp.ones(QUERY), 2 * jnp.eye(QUERY)))
    state = _normal(WIDTH, seed=4)
    queries = 2 * (layer.query(state).reshape(2, QUERY) - 1)
    added = sum(read(layer.bank.get_value(), select(queries[head], keys[head], CHOSEN)) for head in range(2))
    assert layer.select(state).experts.shape == (2 * CHOSEN,)
    np.testing.assert_allclose(layer(state), state + added / 2, rtol=1e-5, atol=1e-6)
    assert not np.allclose(queries[0], queries[1])


def test_tokens_of_any_type_keep_it_and_adapters_see_the_state():
    bank = LowRank(_normal(EXPERTS, 2, WIDTH, seed=5), _normal(EXPERTS, 2, WIDTH, seed=6))
    layer, states = _layer(bank=bank), _normal(4, WIDTH, seed=7)
    together = jax.vmap(layer)(states)
    np.testing.assert_allclose(together, [layer(state) for state in states], rtol=1e-5, atol=1e-6)
    wanted = states[0] + read(bank, layer.select(states[0]), states[0])
    np.testing.assert_allclose(together[0], wanted, rtol=1e-5, atol=1e-6)
    assert layer(states[0].astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_two_layers_share_one_bank():
    """Given the same `Experts`, both change when it does, and it is in the model's state once."""
    shared = Experts(Values(_normal(EXPERTS, WIDTH, seed=1)))
    lower, upper = _layer(bank=shared), _layer(bank=shared)
    both, state = nnx.List([lower, upper]), _normal(WIDTH, seed=4)
    assert len(jax.tree.leaves(nnx.state(both, Experts))) == 1
    shared.set_value(Values.create(EXPERTS, WIDTH))
    assert np.array_equal(upper(lower(state)), state)


def test_the_bank_of_a_layer_learns_row_by_row():
    """Selections frozen, values trained by their rows, put back: the layer then says what it was taught."""
    layer = _layer(bank=Values.create(EXPERTS, WIDTH))
    states, wanted = _normal(3, WIDTH, seed=8), _normal(3, WIDTH, seed=9)
    selection = jax.vmap(layer.select)(states)
    experts, weights = selection
    table = begin(Adam(0.05), layer.bank.get_value())
    for _ in range(300):
        _, table = learn(Adam(0.05), table, experts, _error, weights, wanted - states)
    layer.bank.set_value(table.bank())
    assert jnp.linalg.norm(jax.vmap(layer)(states) - wanted) < 0.05 * jnp.linalg.norm(states - wanted)
    used = balance(Usage.none(EXPERTS).add(selection).counts)
    assert 0 < used.share_used < 1
    untouched = np.setdiff1d(np.arange(EXPERTS), np.asarray(experts))
    assert not np.any(np.asarray(layer.bank.get_value().values)[untouched])


def _error(rows, weights, targets):
    return jnp.sum(jnp.square(jax.vmap(lambda rows, weights: rows.answer(weights))(rows, weights) - targets))


@pytest.mark.parametrize("k", [0, EXPERTS + 1])
def test_impossible_numbers_of_experts_are_refused(k):
    with pytest.raises(ValueError, match="choose from 1 to 20"):
        _layer(k=k)


def test_keys_and_bank_must_fit():
    with pytest.raises(ValueError, match="keys for 20 experts and a bank of 19"):
        _layer(bank=Values.create(EXPERTS - 1, WIDTH))

"""Steps over selected rows, against loops in float64 and against dense optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mome_jax.experts import LowRank, Values, read
from mome_jax.index import NULL, Selection
from mome_jax.optimizers import SGD, Adafactor, Adam, Table, begin, learn, loss_and_gradients, table_bytes, update

EXPERTS, WIDTH, FACTS, CHOSEN = 13, 4, 5, 3
OPTIMIZERS = [SGD(0.1), Adam(0.01), Adafactor(0.05)]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: type(one).__name__)


def _values(experts=EXPERTS, seed=0, dtype=jnp.float32):
    return Values(jnp.asarray(np.random.default_rng(seed).normal(size=(experts, WIDTH)), dtype))


def _batches(count=6, seed=1):
    """Few experts often, so that ids repeat within and between batches, with null and strange ids among them."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        experts = draw.choice([0, 1, 2, 3, 7, 12, NULL, EXPERTS, -2, 2**31 - 1], size=(FACTS, CHOSEN))
        yield experts.astype(np.int32), draw.normal(size=(FACTS, CHOSEN, WIDTH)).astype(np.float32)


def _summed(experts, gradients, size=EXPERTS):
    """{expert: sum of its gradients} in float64, valid ids alone."""
    summed: dict[int, np.ndarray] = {}
    for expert, gradient in zip(experts.ravel(), gradients.reshape(-1, gradients.shape[-1]), strict=True):
        if 0 <= expert < size:
            summed[expert] = summed.get(expert, 0.0) + gradient.astype(np.float64)
    return summed


class _Reference:
    """The three optimizers in float64, a row at a time."""

    def __init__(self, optimizer, values):
        self.optimizer, self.values = optimizer, np.asarray(values, np.float64)
        self.steps, self.batches = np.zeros(len(values), int), 0
        self.first, self.second = np.zeros_like(self.values), np.zeros_like(self.values)
        self.rows, self.columns = np.zeros(len(values)), np.zeros(self.values.shape[1])

    def update(self, experts, gradients):
        summed = _summed(experts, gradients, len(self.values))
        getattr(self, type(self.optimizer).__name__.lower())(summed)

    def sgd(self, summed):
        for expert, gradient in summed.items():
            self.values[expert] -= self.optimizer.learning_rate * gradient

    def adam(self, summed):
        decay1, decay2 = self.optimizer.first_decay, self.optimizer.second_decay
        for expert, gradient in summed.items():
            self.steps[expert] += 1
            self.first[expert] = decay1 * self.first[expert] + (1 - decay1) * gradient
            self.second[expert] = decay2 * self.second[expert] + (1 - decay2) * gradient**2
            mean = self.first[expert] / (1 - decay1 ** self.steps[expert])
            square = self.second[expert] / (1 - decay2 ** self.steps[expert])
            self.values[expert] -= self.optimizer.learning_rate * mean / (np.sqrt(square) + self.optimizer.epsilon)

    def adafactor(self, summed):
        if not summed:
            return
        self.batches += 1
        squares = {expert: gradient**2 + self.optimizer.epsilon for expert, gradient in summed.items()}
        decay = 1 - self.batches**-self.optimizer.decay_rate
        self.columns = decay * self.columns + (1 - decay) * np.mean(list(squares.values()), axis=0)
        changes = {}
        for expert, gradient in summed.items():
            self.steps[expert] += 1
            decay = 1 - self.steps[expert] ** -self.optimizer.decay_rate
            self.rows[expert] = decay * self.rows[expert] + (1 - decay) * squares[expert].mean()
            changes[expert] = gradient / np.sqrt(self.rows[expert] * self.columns / self.columns.mean())
        length = np.sqrt(np.mean(np.square(list(changes.values())))) / self.optimizer.clipping_threshold
        for expert, change in changes.items():
            self.values[expert] -= self.optimizer.learning_rate * change / max(1.0, length)


@every_optimizer
def test_steps_are_the_loop_in_float64(optimizer):
    """Repeated, null and out-of-range ids; rows that no batch selected are bit for bit what they were."""
    bank = _values()
    table, reference = begin(optimizer, bank), _Reference(optimizer, bank.values)
    touched: set[int] = set()
    for experts, gradients in _batches():
        table = update(optimizer, table, jnp.asarray(experts), Values(jnp.asarray(gradients)))
        reference.update(experts, gradients)
        touched |= set(_summed(experts, gradients))
        np.testing.assert_allclose(table.bank().values, reference.values, rtol=1e-5, atol=3e-6)
    untouched = [expert for expert in range(EXPERTS) if expert not in touched]
    assert untouched
    assert np.array_equal(table.bank().values[np.array(untouched)], bank.values[np.array(untouched)])


@every_optimizer
def test_identical_ids_get_the_sum_once(optimizer):
    experts = np.full((FACTS, CHOSEN), 7, np.int32)
    gradients = np.random.default_rng(3).normal(size=(FACTS, CHOSEN, WIDTH)).astype(np.float32)
    together = update(optimizer, begin(optimizer, _values()), jnp.asarray(experts), Values(jnp.asarray(gradients)))
    alone = np.full((FACTS, CHOSEN), NULL, np.int32)
    alone[0, 0] = 7
    summed = np.zeros_like(gradients)
    summed[0, 0] = gradients.astype(np.float64).sum((0, 1))
    once = update(optimizer, begin(optimizer, _values()), jnp.asarray(alone), Values(jnp.asarray(summed)))
    np.testing.assert_allclose(together.bank().values, once.bank().values, rtol=1e-5, atol=1e-6)
    assert np.any(np.asarray(together.bank().values[7]) != np.asarray(_values().values[7]))


@every_optimizer
def test_nothing_is_written_without_a_valid_id(optimizer):
    """An empty batch, and one of null and strange ids alone whose gradients are NaN: all stays bit for bit."""
    strange = jnp.array([[NULL, EXPERTS, -2], [-(2**31), 2**31 - 1, NULL]], jnp.int32)
    for experts, gradients in (
        (strange, jnp.full((2, 3, WIDTH), jnp.nan)),
        (jnp.zeros((0, CHOSEN), jnp.int32), jnp.zeros((0, CHOSEN, WIDTH))),
    ):
        first = update(optimizer, begin(optimizer, _values()), jnp.array([[0, 1, 1]], jnp.int32), Values(_ones(1, 3)))
        before = jax.tree.map(np.array, (first.fused, _statistics(first)))
        after = update(optimizer, first, experts, Values(gradients))
        jax.tree.map(np.testing.assert_array_equal, before, (after.fused, _statistics(after)))


def _ones(*shape):
    return jnp.ones((*shape, WIDTH))


def _statistics(table):
    """What is remembered, but for the scratch."""
    if not table.memory:
        return ()
    counted = getattr(table.memory, "counted", table.memory)
    return counted.steps, getattr(table.memory, "rows", ()), getattr(table.memory, "columns", ())


def test_adam_on_all_rows_is_dense_adam():
    """optax.adam in float64 (in float32 its bias correction alone is off by 1e-5), to float32 rounding."""
    bank, optimizer, steps = _values(), Adam(0.01), 30
    gradients = np.random.default_rng(5).normal(size=(steps, EXPERTS, WIDTH)).astype(np.float32)
    order = np.random.default_rng(6).permuted(np.tile(np.arange(EXPERTS, dtype=np.int32), (steps, 1)), axis=1)
    table = begin(optimizer, bank)
    for experts, gradient in zip(order, gradients, strict=True):
        table = update(optimizer, table, jnp.asarray(experts[:, None]), Values(jnp.asarray(gradient[experts][:, None])))
    with jax.enable_x64(True):
        dense = optax.adam(0.01)
        values = jnp.asarray(np.asarray(bank.values, np.float64))
        state = dense.init(values)
        for gradient in gradients:
            with jax.numpy_dtype_promotion("standard"):
                change, state = dense.update(jnp.asarray(gradient, jnp.float64), state)
            values = values + change
        wanted = np.asarray(values)
    np.testing.assert_allclose(table.bank().values, wanted, rtol=1e-6, atol=1e-6)


def test_a_row_under_adam_is_dense_adam_over_the_steps_that_selected_it():
    bank, optimizer = _values(), Adam(0.01)
    table, histories = begin(optimizer, bank), {expert: [] for expert in range(EXPERTS)}
    for experts, gradients in _batches(12, seed=8):
        table = update(optimizer, table, jnp.asarray(experts), Values(jnp.asarray(gradients)))
        for expert, gradient in _summed(experts, gradients).items():
            histories[expert].append(gradient)
    dense = optax.adam(0.01)
    for expert, history in histories.items():
        row = bank.values[expert]
        state = dense.init(row)
        for gradient in history:
            with jax.numpy_dtype_promotion("standard"):
                change, state = dense.update(jnp.asarray(gradient, jnp.float32), state)
            row = row + change
        np.testing.assert_allclose(table.bank().values[expert], row, rtol=2e-5, atol=2e-6)
    assert len({len(history) for history in histories.values()}) > 2


def test_adafactor_on_all_rows_is_dense_adafactor():
    bank, optimizer = _values(), Adafactor(0.05)
    table = begin(optimizer, bank)
    dense = optax.adafactor(0.05, min_dim_size_to_factor=1, multiply_by_parameter_scale=False)
    values = bank.values
    state = dense.init(values)
    experts = jnp.arange(EXPERTS, dtype=jnp.int32)[:, None]
    for gradient in jnp.asarray(np.random.default_rng(9).normal(size=(10, EXPERTS, WIDTH)), jnp.float32):
        table = update(optimizer, table, experts, Values(gradient[:, None]))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            change, state = dense.update(gradient, state, values)
        values = values + change
    np.testing.assert_allclose(table.bank().values, values, rtol=1e-5, atol=1e-5)


@every_optimizer
def test_adapters_are_trained_like_the_rows_they_are_made_of(optimizer):
    """A bank of rank 1 moves as two banks of value vectors do, one of its `down` and one of its `up` rows."""
    draw = np.random.default_rng(11)
    down, up = (jnp.asarray(draw.normal(size=(EXPERTS, 1, width)), jnp.float32) for width in (6, WIDTH))
    experts, _ = next(_batches(1))
    gradient = LowRank(
        *(jnp.asarray(draw.normal(size=(*experts.shape, 1, width)), jnp.float32) for width in (6, WIDTH))
    )
    table = update(optimizer, begin(optimizer, LowRank(down, up)), jnp.asarray(experts), gradient)
    for trained, start, rows in ((table.bank().down, down, gradient.down), (table.bank().up, up, gradient.up)):
        reference = _Reference(optimizer, start[:, 0])
        reference.update(experts, np.asarray(rows[:, :, 0]))
        np.testing.assert_allclose(trained[:, 0], reference.values, rtol=1e-5, atol=1e-6)


def _distance(rows, weights, targets):
    answers = jax.vmap(lambda rows, weights: rows.answer(weights))(rows, weights)
    return jnp.sum(jnp.square(answers - targets))


def test_gradients_by_the_rows_are_those_by_the_bank():
    """The dense gradient that is never made, made here to compare with: its rows are the sums of ours."""
    bank, (experts, _) = _values(), next(_batches(1, seed=4))
    experts = np.where((experts >= EXPERTS) | (experts < NULL), NULL, experts)
    draw = np.random.default_rng(12)
    weights = jnp.asarray(draw.random(experts.shape), jnp.float32)
    targets = jnp.asarray(draw.normal(size=(FACTS, WIDTH)), jnp.float32)

    def dense(bank):
        answers = jax.vmap(read, in_axes=(None, 0))(bank, Selection(jnp.asarray(experts), weights))
        return jnp.sum(jnp.square(answers - targets))

    loss, gradients = loss_and_gradients(_distance, bank, jnp.asarray(experts), weights, targets)
    assert gradients.values.shape == (*experts.shape, WIDTH)
    wanted_loss, wanted = jax.value_and_grad(dense)(bank)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-6)
    ours = np.zeros((EXPERTS, WIDTH))
    for expert, gradient in _summed(experts, np.asarray(gradients.values)).items():
        ours[expert] = gradient
    np.testing.assert_allclose(ours, wanted.values, rtol=1e-5, atol=1e-6)


@every_optimizer
def test_learning_stores_what_it_is_told(optimizer):
    """A few facts with experts of their own: the loss falls, the table reads as its bank does, and learns in place."""
    experts = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)
    weights, targets = jnp.full((4, 3), 1 / 3), jnp.asarray(np.random.default_rng(13).normal(size=(4, WIDTH)), float)
    table, losses = begin(optimizer, Values.create(EXPERTS, WIDTH)), []
    for _ in range(60):
        loss, table = learn(optimizer, table, experts, _distance, weights, targets.astype(jnp.float32))
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]
    selection = Selection(experts[0], weights[0])
    np.testing.assert_array_equal(read(table, selection), read(table.bank(), selection))


@every_optimizer
def test_the_table_handed_in_is_donated(optimizer):
    """Its buffers are deleted and the new table lies where the old one was; the bank it came from survives."""
    bank = _values(4096)
    table = begin(optimizer, bank)
    before = table.fused.values.unsafe_buffer_pointer()
    after = update(optimizer, table, jnp.array([[3]], jnp.int32), Values(_ones(1, 1)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(table))
    assert after.fused.values.unsafe_buffer_pointer() == before
    assert not bank.values.is_deleted()
    np.testing.assert_array_equal(after.bank().values[4:], bank.values[4:])


def test_other_numbers_do_not_compile_again():
    """Another learning rate, other ids: the same program. Another batch size: one more."""
    table = begin(Adam(0.01), _values(50))
    table = update(Adam(0.01), table, jnp.array([[3, 4]], jnp.int32), Values(_ones(1, 2)))
    compiled = update._cache_size()
    for rate, expert in ((0.02, 5), (0.5, 6)):
        table = update(Adam(rate), table, jnp.array([[3, expert]], jnp.int32), Values(_ones(1, 2)))
    assert update._cache_size() == compiled
    table = update(Adam(0.01), table, jnp.array([[3], [4]], jnp.int32), Values(_ones(2, 1)))
    assert update._cache_size() == compiled + 1


def _steps_of(optimizer, experts):
    """The compiled step, and every operation in it that makes an array with a row per expert."""
    table = begin(optimizer, _values(experts))
    ids, gradients = jnp.zeros((64, 32), jnp.int32), Values(jnp.zeros((64, 32, WIDTH)))
    traced = update.trace(optimizer, table, ids, gradients)
    large = set()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            inner = [value for value in equation.params.values() if hasattr(value, "jaxpr")]
            for closed in inner:
                walk(closed.jaxpr)
            if not inner and any(out.aval.shape[:1] == (experts,) for out in equation.outvars):
                large.add(equation.primitive.name)

    walk(traced.jaxpr.jaxpr)
    return traced.lower().compile(), large


@every_optimizer
def test_work_and_memory_of_a_step_do_not_grow_with_the_bank(optimizer):
    """The compiler counts the same operations and scratch memory; what is as long as the bank is written in place."""
    small, large = (_steps_of(optimizer, experts) for experts in (4096, 65536))
    assert small[1] == large[1] <= {"scatter", "scatter-add"}
    assert small[0].cost_analysis()["flops"] == large[0].cost_analysis()["flops"]
    memories = [compiled.memory_analysis() for compiled, _ in (small, large)]
    assert memories[0].temp_size_in_bytes == memories[1].temp_size_in_bytes
    for memory in memories:  # every output lies in a donated buffer, but for the table of pointers to them
        assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 256


def test_a_bfloat16_bank_is_trained_in_float32_and_rounded_at_the_end():
    """A thousand steps, each far below the rounding of bfloat16, add up."""
    bank = Values(jnp.ones((EXPERTS, WIDTH), jnp.bfloat16))
    optimizer, experts = SGD(1e-4), jnp.array([[1]], jnp.int32)
    table = begin(optimizer, bank)
    for _ in range(1000):
        table = update(optimizer, table, experts, Values(_ones(1, 1).astype(jnp.bfloat16)))
    trained = table.bank(jnp.bfloat16)
    assert trained.values.dtype == jnp.bfloat16
    np.testing.assert_allclose(trained.values[1].astype(jnp.float32), 0.9, rtol=2**-8)
    assert np.array_equal(trained.values[2:], bank.values[2:])


@every_optimizer
def test_bytes_of_a_table_are_stated_and_refused(optimizer):
    bank = _values()
    stated = table_bytes(optimizer, bank)
    table = begin(optimizer, bank, memory_limit_bytes=stated)
    assert isinstance(table, Table)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(table)) == stated
    with pytest.raises(ValueError, match=f"takes {stated:,} bytes and {stated - 1:,} are available"):
        begin(optimizer, bank, memory_limit_bytes=stated - 1)


def test_wrong_arguments_are_refused_in_words():
    with pytest.raises(ValueError, match="decays must be"):
        Adam(0.01, first_decay=1.0)
    with pytest.raises(ValueError, match="gradient row is needed"):
        update(SGD(0.1), begin(SGD(0.1), _values()), jnp.zeros((2, 3), jnp.int32), Values(_ones(3, 2)))


def test_blocks_larger_than_the_cache_leave_no_seam():
    """Batches longer than one block, not a multiple of it, with experts that repeat across blocks."""
    optimizer, size = Adam(0.01), 997
    draw = np.random.default_rng(21)
    experts = draw.integers(0, size, (700, 3)).astype(np.int32)
    gradients = draw.normal(size=(700, 3, WIDTH)).astype(np.float32)
    bank = _values(size)
    reference = _Reference(optimizer, bank.values)
    table = begin(optimizer, bank)
    for _ in range(2):
        table = update(optimizer, table, jnp.asarray(experts), Values(jnp.asarray(gradients)))
        reference.update(experts, gradients)
    np.testing.assert_allclose(table.bank().values, reference.values, rtol=1e-5, atol=1e-6)

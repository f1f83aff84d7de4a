"""One step on a bank, as each peer makes it: the update alone, and the whole step from query to written row.

Every call gets another batch of ids, so that the rows are not those that the last call left in the cache. All peers
count a step as done when its result is there.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
from peers import timed

QUERIES, CHOSEN, WIDTH, QUERY_WIDTH, RATE = 256, 32, 64, 256, 1e-3
ROWS = QUERIES * CHOSEN
_BATCHES = 16


def _ids(experts: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, experts, (_BATCHES, QUERIES, CHOSEN)).astype(np.int32)


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _sides(experts: int) -> tuple[int, int]:
    """Numbers of half keys whose product is the number of experts, a power of two."""
    first = 1 << (experts.bit_length() - 1) // 2
    return first, experts // first


def _in_turn(step: Callable[[Any, Any], Any], state: Any, batches: Any) -> Callable[[], dict[str, Any]]:
    """Time a JAX step that takes the last one's state, a batch after the other."""
    import jax

    held, turn = [jax.block_until_ready(state)], cycle(jax.block_until_ready(batches))

    def once() -> None:
        held[0] = jax.block_until_ready(step(held[0], next(turn)))

    return timed(once, device=jax.devices()[0].device_kind)


def sparse_jax(*, optimizer: str, experts: int) -> Callable[[], dict[str, Any]]:
    """`mome_jax.optimizers.update`."""
    import jax
    import jax.numpy as jnp

    from mome_jax import optimizers
    from mome_jax.experts import Values

    rule = getattr(optimizers, optimizer)(RATE)
    table = optimizers.begin(rule, Values.create(experts, WIDTH))
    gradients = Values(jnp.asarray(_normal(1, QUERIES, CHOSEN, WIDTH)))
    batches = [jax.device_put(ids) for ids in _ids(experts)]
    return _in_turn(lambda table, ids: optimizers.update(rule, table, ids, gradients), table, batches)


def dense_jax(*, experts: int) -> Callable[[], dict[str, Any]]:
    """`optax.adam` on the whole bank, with donated buffers and the gradient already scattered into one of its size."""
    import functools

    import jax
    import jax.numpy as jnp
    import optax

    rule = optax.adam(RATE)
    values, gradient = jnp.zeros((experts, WIDTH)), jnp.full((experts, WIDTH), 0.1)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry: Any, gradient: Any) -> Any:
        values, state = carry
        change, state = rule.update(gradient, state)
        return optax.apply_updates(values, change), state

    return _in_turn(step, (values, rule.init(values)), [gradient])


def sparse_torch(*, experts: int, threads: int) -> Callable[[], dict[str, Any]]:
    """PyTorch's SparseAdam, handed the gradient rows as a sparse tensor."""
    import torch

    torch.set_num_threads(threads)
    bank = torch.nn.Parameter(torch.full((experts, WIDTH), 0.0))
    optimizer = torch.optim.SparseAdam([bank], lr=RATE)
    rows = torch.from_numpy(_normal(1, ROWS, WIDTH))
    turn = cycle([torch.from_numpy(ids.astype(np.int64).reshape(1, -1)) for ids in _ids(experts)])

    def once() -> None:
        bank.grad = torch.sparse_coo_tensor(next(turn), rows, bank.shape, check_invariants=False)
        optimizer.step()

    _touch_torch(optimizer, bank)
    return timed(once)


def whole_jax(*, experts: int) -> Callable[[], dict[str, Any]]:
    """Queries -> product keys -> rows -> squared error -> Adam on the rows, in one program."""
    import functools

    import jax
    import jax.numpy as jnp

    from mome_jax.experts import Values
    from mome_jax.index import ProductKeys, select
    from mome_jax.optimizers import Adam, begin, loss_and_gradients, update

    first, second = _sides(experts)
    keys = ProductKeys(*(jnp.asarray(_normal(2 + i, n, QUERY_WIDTH // 2)) for i, n in enumerate((first, second))))
    rule = Adam(RATE)
    targets = jnp.asarray(_normal(4, QUERIES, WIDTH))

    def loss(rows: Any, weights: Any) -> Any:
        answers = jax.vmap(lambda rows, weights: rows.answer(weights))(rows, weights)
        return jnp.mean(jnp.square(answers - targets))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(table: Any, queries: Any) -> Any:
        selection = jax.vmap(select, in_axes=(0, None, None))(queries, keys, CHOSEN)
        _, gradients = loss_and_gradients(loss, table, selection.experts, selection.weights)
        return update(rule, table, selection.experts, gradients)

    queries = [jax.device_put(_normal(10 + i, QUERIES, QUERY_WIDTH)) for i in range(_BATCHES)]
    return _in_turn(step, begin(rule, Values.create(experts, WIDTH)), queries)


def whole_torch(*, experts: int, threads: int, sparse: bool) -> Callable[[], dict[str, Any]]:
    """The same as published layers do it: two products, three top-k, an embedding bag, backward, SparseAdam or Adam."""
    import torch

    torch.set_num_threads(threads)
    first, second = _sides(experts)
    half = QUERY_WIDTH // 2
    keys = [torch.from_numpy(_normal(2 + i, n, half)) for i, n in enumerate((first, second))]
    bag = torch.nn.EmbeddingBag(experts, WIDTH, mode="sum", sparse=sparse, _weight=torch.full((experts, WIDTH), 0.0))
    parameters = list(bag.parameters())
    optimizer = torch.optim.SparseAdam(parameters, lr=RATE) if sparse else _torch_adam(parameters)
    targets = torch.from_numpy(_normal(4, QUERIES, WIDTH))
    turn = cycle([torch.from_numpy(_normal(10 + i, QUERIES, QUERY_WIDTH)) for i in range(_BATCHES)])

    def once() -> None:
        with torch.no_grad():
            query = next(turn)
            tops = [(query[:, i * half : (i + 1) * half] @ side.T).topk(CHOSEN) for i, side in enumerate(keys)]
            sums = (tops[0].values[:, :, None] + tops[1].values[:, None, :]).reshape(QUERIES, -1)
            scores, best = sums.topk(CHOSEN)
            ids = tops[0].indices.gather(1, best // CHOSEN) * second + tops[1].indices.gather(1, best % CHOSEN)
            weights = scores.softmax(-1)
        optimizer.zero_grad(set_to_none=True)
        (bag(ids, per_sample_weights=weights) - targets).square().mean().backward()
        optimizer.step()

    if sparse:
        _touch_torch(optimizer, bag.weight)
    return timed(once)


def _torch_adam(parameters: Any) -> Any:
    import torch

    return torch.optim.Adam(parameters, lr=RATE, fused=True)


def _touch_torch(optimizer: Any, bank: Any) -> None:
    """Write the moments once: memory that was only reserved would be one page of zeros, read from the cache."""
    import torch

    first = torch.zeros(1, 1, dtype=torch.int64)
    bank.grad = torch.sparse_coo_tensor(first, torch.zeros(1, WIDTH), bank.shape, check_invariants=False)
    optimizer.step()
    for moment in ("exp_avg", "exp_avg_sq"):
        optimizer.state[bank][moment].fill_(0.0)

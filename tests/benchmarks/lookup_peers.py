"""Product-key lookup and its peers, on the same queries and keys: prepare, return `timed`.

PyTorch does what published memory layers do (Lample et al. 2019, arXiv 1907.05242): top-k of each half, all k x k sums,
top-k of these. "lax.top_k" is the same in JAX.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from peers import timed

WIDTH, K = 256, 32  # the default problem: queries of two halves of 128

Measurement = Callable[[], dict[str, Any]]


def _arrays(experts: int, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    side, random = round(experts**0.5), np.random.default_rng(0)
    shapes = ((queries, WIDTH), (side, WIDTH // 2), (side, WIDTH // 2))
    asked, first, second = (random.standard_normal(shape, np.float32) for shape in shapes)
    return asked, first, second


def _jax(search: Callable[..., Any], experts: int, queries: int, seconds: float) -> Measurement:
    import jax

    arrays = tuple(map(jax.device_put, _arrays(experts, queries)))
    compiled = jax.jit(search).lower(*arrays).compile()
    platform = jax.default_backend()
    return timed(lambda: jax.block_until_ready(compiled(*arrays)), seconds=seconds, platform=platform)


def ours(*, experts: int, queries: int, seconds: float) -> Measurement:
    """`select` with product keys, vmapped over the queries, softmax included."""
    import jax

    from mome_jax.index import ProductKeys, select

    def search(asked: Any, first: Any, second: Any) -> Any:
        return jax.vmap(select, (0, None, None))(asked, ProductKeys(first, second), K)

    return _jax(search, experts, queries, seconds)


def top_k(*, experts: int, queries: int, seconds: float) -> Measurement:
    """The published algorithm with `lax.top_k`, softmax included."""
    import jax

    def search(asked: Any, first: Any, second: Any) -> Any:
        half = asked.shape[1] // 2
        a, rows = jax.lax.top_k(asked[:, :half] @ first.T, K)
        b, columns = jax.lax.top_k(asked[:, half:] @ second.T, K)
        scores, best = jax.lax.top_k((a[:, :, None] + b[:, None, :]).reshape(len(asked), -1), K)
        pick = jax.numpy.take_along_axis
        return pick(rows, best // K, 1) * len(second) + pick(columns, best % K, 1), jax.nn.softmax(scores)

    return _jax(search, experts, queries, seconds)


def products(*, experts: int, queries: int, seconds: float) -> Measurement:
    """The two matrix products that no search by product keys can do without."""

    def search(asked: Any, first: Any, second: Any) -> Any:
        half = asked.shape[1] // 2
        return first @ asked[:, :half].T, second @ asked[:, half:].T

    return _jax(search, experts, queries, seconds)


def pytorch(*, experts: int, queries: int, seconds: float) -> Measurement:
    """The published algorithm in PyTorch, on all cores, without gradients."""
    import torch

    asked, first, second = map(torch.from_numpy, _arrays(experts, queries))
    half = WIDTH // 2

    @torch.inference_mode()
    def search() -> Any:
        a, rows = torch.nn.functional.linear(asked[:, :half], first).topk(K, dim=1)
        b, columns = torch.nn.functional.linear(asked[:, half:], second).topk(K, dim=1)
        scores, best = (a[:, :, None] + b[:, None, :]).view(len(asked), -1).topk(K, dim=1)
        ids = rows.gather(1, best // K) * len(second) + columns.gather(1, best % K)
        return ids, torch.softmax(scores, dim=1)

    return timed(search, seconds=seconds, platform="cpu")

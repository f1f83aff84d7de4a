"""The same runs one after another in an ordinary PyTorch loop, with every choice that makes it faster.

Data in tensors, a permutation an epoch and index lookups (no DataLoader), `nn.Sequential`, Adam, a cosine by
LambdaLR. Threads and the fused Adam are tried beforehand in this process; the fastest pair is what gets timed.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from tasks import ANSWERS, FEATURES, Task
from torch import Tensor, nn

_TRIAL_STEPS = 200
_TRIAL_SECONDS = 1.0  # two threads on a busy machine can be a hundred times slower than one


def _minibatches(count: int, minibatch: int, epochs: int) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count).split(minibatch)


def _train(
    task: Task, inputs: Tensor, targets: Tensor, rate: float, *, fused: bool, compiled: bool
) -> Iterator[nn.Module]:
    """One run, giving the network after every step."""
    network = nn.Sequential(
        nn.Linear(FEATURES, task.width), nn.GELU(approximate="tanh"), nn.Linear(task.width, ANSWERS)
    )
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=fused)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: (1 + math.cos(math.pi * done / task.steps)) / 2)
    loss_of = nn.CrossEntropyLoss()
    for facts in _minibatches(len(inputs), task.minibatch, task.exposures):
        optimizer.zero_grad()
        loss_of(forward(inputs[facts]), targets[facts]).backward()
        optimizer.step()
        cosine.step()
        yield network


def _last(networks: Iterator[nn.Module]) -> nn.Module:
    return deque(networks, maxlen=1)[0]


def _evaluate(network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss in nats and the share of facts that greedy decoding gets wrong."""
    with torch.no_grad():
        logits = network(inputs)
        loss = nn.functional.cross_entropy(logits, targets)
        return float(loss), float((logits.argmax(dim=1) != targets).float().mean())


def _tensors(task: Task) -> tuple[Tensor, Tensor]:
    facts = task.facts()
    return torch.from_numpy(facts.features), torch.from_numpy(facts.labels).long()


def _choose(task: Task, threads: Sequence[int] | None, compiled: bool) -> tuple[int, bool]:
    """The fastest (threads, fused Adam) over a short trial; leaves the threads set."""
    inputs, targets = _tensors(task)
    trials = {}
    for count, fused in product(threads or range(1, (os.cpu_count() or 1) + 1), (False, True)):
        torch.set_num_threads(count)
        run = _train(task, inputs, targets, task.learning_rates[0], fused=fused, compiled=compiled)
        for _ in range(20):
            next(run, None)
        began, done = time.perf_counter(), 0
        while done < _TRIAL_STEPS and time.perf_counter() - began < _TRIAL_SECONDS and next(run, None) is not None:
            done += 1
        trials[count, fused] = (time.perf_counter() - began) / max(1, done)
    count, fused = min(trials, key=lambda choice: trials[choice])
    torch.set_num_threads(count)
    return count, fused


def train(
    *, threads: Sequence[int] | None = None, compiled: bool = False, **task_spec: Any
) -> Callable[[], dict[str, Any]]:
    """Time the task's runs, one after another; `threads` are the numbers to choose from, by default up to all cores."""
    task = Task(**task_spec)
    inputs, targets = _tensors(task)
    count, fused = _choose(task, threads, compiled)

    def measurement() -> dict[str, Any]:
        losses, began = [], time.perf_counter()
        for rate in task.learning_rates:
            network = _last(_train(task, inputs, targets, rate, fused=fused, compiled=compiled))
            losses.append(_evaluate(network, inputs, targets)[0])
        return {
            "fact_steps": task.fact_steps,
            "seconds": time.perf_counter() - began,
            "loss_nats": sorted(losses)[len(losses) // 2],
            "threads": count,
            "fused": fused,
        }

    return measurement


def train_sizes(
    *, sizes: Sequence[int], threads: Sequence[int] | None = None, **task_spec: Any
) -> Callable[[], dict[str, Any]]:
    """Time one run of the task at each of these sizes, evaluation included."""
    tasks = [Task(**{**task_spec, "size": size, "runs": 1}) for size in sizes]
    tensors = [_tensors(task) for task in tasks]
    _, fused = _choose(tasks[-1], threads, compiled=False)

    def measurement() -> dict[str, Any]:
        began = time.perf_counter()
        for task, (inputs, targets) in zip(tasks, tensors, strict=True):
            network = _last(_train(task, inputs, targets, task.learning_rates[0], fused=fused, compiled=False))
            _evaluate(network, inputs, targets)
        return {"fact_steps": sum(task.fact_steps for task in tasks), "seconds": time.perf_counter() - began}

    return measurement

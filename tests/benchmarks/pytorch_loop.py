"""The same runs one after another in an ordinary PyTorch loop, with every choice that makes it faster.

Data in tensors, a permutation an epoch and index lookups (no DataLoader), `nn.Sequential`, Adam, a cosine by
LambdaLR. Whether the fused Adam is faster is tried beforehand in this process. The number of threads is given, and the
caller compares: two threads on a busy machine can be a hundred times slower than one, and no short trial foresees it.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import Any

import torch
from tasks import ANSWERS, FEATURES, Task
from torch import Tensor, nn

_TRIALS, _TRIAL_STEPS = 3, 100


def _minibatches(count: int, minibatch: int, epochs: int) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count).split(minibatch)


def _network(task: Task) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, task.width), nn.GELU(approximate="tanh"), nn.Linear(task.width, ANSWERS))


def _train(
    network: nn.Module, task: Task, inputs: Tensor, targets: Tensor, rate: float, *, fused: bool, compiled: bool
) -> Iterator[int]:
    """Train for one run, giving the number of facts after every step."""
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=fused)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: (1 + math.cos(math.pi * done / task.steps)) / 2)
    loss_of = nn.CrossEntropyLoss()
    for facts in _minibatches(len(inputs), task.minibatch, task.exposures):
        optimizer.zero_grad()
        loss_of(forward(inputs[facts]), targets[facts]).backward()
        optimizer.step()
        cosine.step()
        yield len(facts)


def _evaluate(network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss in nats and the share of facts that greedy decoding gets wrong."""
    with torch.no_grad():
        logits = network(inputs)
        loss = nn.functional.cross_entropy(logits, targets)
        return float(loss), float((logits.argmax(dim=1) != targets).float().mean())


def _tensors(task: Task) -> tuple[Tensor, Tensor]:
    facts = task.facts()
    return torch.from_numpy(facts.features), torch.from_numpy(facts.labels).long()


def _fused_is_faster(task: Task, compiled: bool) -> bool:
    inputs, targets = _tensors(task)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for fused in (False, True) * _TRIALS:
        run = _train(_network(task), task, inputs, targets, task.learning_rates[0], fused=fused, compiled=compiled)
        deque(islice(run, _TRIAL_STEPS // 4), maxlen=0)
        began = time.perf_counter()
        deque(islice(run, _TRIAL_STEPS), maxlen=0)
        seconds[fused].append(time.perf_counter() - began)
    return min(seconds[True]) < min(seconds[False])


def train(
    *,
    threads: int = 1,
    compiled: bool = False,
    seconds_at_most: float = math.inf,
    sizes: Sequence[int] = (),
    **spec: Any,
) -> Callable[[], dict[str, Any]]:
    """Time the task's runs one after another, each with an evaluation at its end.

    With `sizes`: one run at each of these sizes instead. Work stops after `seconds_at_most`; what was done counts.
    """
    torch.set_num_threads(threads)
    whole = Task(**spec)
    tasks = [replace(whole, size=size, runs=1) for size in sizes] or [whole]
    tensors = [_tensors(task) for task in tasks]
    fused = _fused_is_faster(tasks[-1], compiled)

    def measurement() -> dict[str, Any]:
        losses, fact_steps, began = [], 0, time.perf_counter()
        for task, (inputs, targets) in zip(tasks, tensors, strict=True):
            for rate in task.learning_rates:
                network = _network(task)
                for facts in _train(network, task, inputs, targets, rate, fused=fused, compiled=compiled):
                    fact_steps += facts
                    if time.perf_counter() - began > seconds_at_most:
                        break
                else:
                    losses.append(_evaluate(network, inputs, targets)[0])
        return {
            "fact_steps": fact_steps,
            "seconds": time.perf_counter() - began,
            "loss_nats": median(losses) if losses else None,
            "fused": fused,
        }

    return measurement

"""Run a grid: the runs that the store lacks, in lanes, on every core.

Each worker is a thread with lanes of its own, because one compiled program uses one core (see training.program). The
longest runs go first, so that the last ones to finish are short.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import jax

from sims.grid import Planned
from sims.lanes import Lanes
from sims.runs import outcome
from sims.runtime import cores
from sims.store import Result, Store


def workers() -> int:
    """How many lanes' worth of threads this machine runs side by side: its cores, or one for an accelerator."""
    if jax.default_backend() != "cpu":
        return 1
    return cores()


def missing(planned: Sequence[Planned], store: Store, *, keep_per_fact: bool = False) -> list[Planned]:
    """The planned runs that the store does not have, or has without the per-fact losses that are wanted now."""
    absent = set(store.missing(one.run.fingerprint for one in planned))
    if keep_per_fact:
        absent |= {
            result.fingerprint
            for result in store.results(names={one.run.fingerprint for one in planned} - absent)
            if result.status == "finished" and "loss_nats" not in store.arrays(result.fingerprint)
        }
    return [one for one in planned if one.run.fingerprint in absent]


def sweep(
    planned: Sequence[Planned],
    store: Store,
    *,
    audits: int = 1,
    advanced: Callable[[float], object] = lambda flops: None,
) -> Iterator[Result]:
    """Train these runs and keep each result as soon as it is there; yields them in the order they finish.

    `audits` is how many audited runs share the chance of a false alarm. `advanced` is told, from the workers' threads,
    the FLOPs of each chunk. Closing the iterator, an interrupt or an error stops the workers after the chunk in
    flight; what was yielded is kept.
    """
    waiting = _by_program(planned)
    finished: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_work, args=(_rotated(waiting, number), finished, stop, audits, advanced), daemon=True)
        for number in range(workers())
    ]
    for thread in threads:
        thread.start()
    try:
        working = len(threads)
        while working:
            item = finished.get()
            if item is None:
                working -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                store.put(item)
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _by_program(planned: Sequence[Planned]) -> list[deque[Planned]]:
    """Runs that one compiled program can train, longest first; the most work first."""
    groups: dict[tuple, list[Planned]] = {}
    for one in planned:
        recipe = one.run.recipe
        groups.setdefault((one.run.architecture, recipe.optimizer, recipe.minibatch), []).append(one)
    ordered = sorted(groups.values(), key=lambda group: -sum(one.run.flops for one in group))
    return [deque(sorted(group, key=lambda one: -one.run.fact_steps)) for group in ordered]


def _rotated(groups: list[deque[Planned]], by: int) -> list[deque[Planned]]:
    # Workers start on different programs, so that they do not compile the same one at the same time.
    by %= max(1, len(groups))
    return groups[by:] + groups[:by]


def _work(
    groups: list[deque[Planned]],
    finished: queue.SimpleQueue,
    stop: threading.Event,
    audits: int,
    advanced: Callable[[float], object],
) -> None:
    try:
        for group in groups:
            # Another worker may empty the group between the look and the first run: then these lanes stay empty.
            for one in tuple(group)[:1]:
                lanes = Lanes(one.run.architecture, one.run.recipe, lambda group=group: _next_of(group))
                for trained in lanes.trained(stop.is_set, advanced):
                    finished.put(outcome(trained, audits=audits))
    except BaseException as error:
        finished.put(error)
    finally:
        finished.put(None)


def _next_of(group: deque[Planned]):
    try:
        one = group.popleft()  # atomic: another worker may take from the same group
    except IndexError:
        return None
    return one.run, one.examples()

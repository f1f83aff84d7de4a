"""Runs of unlike kinds, side by side on every core, each kept as soon as it is there."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Protocol, TypeVar

from sims.store import Result, Store
from sims.sweep import workers


class Case(Protocol):
    """Something that gives one result."""

    @property
    def fingerprint(self) -> str:
        """The name of the stored run."""
        ...

    def run(self) -> Result:
        """Do it."""
        ...


_Case = TypeVar("_Case", bound=Case)


def side_by_side(
    todo: Iterable[_Case], store: Store, work: Callable[[_Case], float], advanced: Callable[[float], object]
) -> Iterator[Result]:
    """Run these cases, put each result into the store, tell `advanced` the case's work, yield it.

    Longest first, so that the last to finish are short; cases of one name are run once. An interrupt or an error drops
    what has not begun; what was yielded is kept.
    """
    unique = {case.fingerprint: case for case in todo}.values()
    pool = ThreadPoolExecutor(workers())
    try:
        running = {pool.submit(case.run): case for case in sorted(unique, key=lambda case: -work(case))}
        for done in as_completed(running):
            result = done.result()
            store.put(result)
            advanced(work(running[done]))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

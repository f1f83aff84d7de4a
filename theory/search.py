"""Finding a case that breaks a claim, and the smallest such case.

A case is built from a *tape* of numbers in [0, 1]: `Draw` turns each into an integer, a real or a choice. Random
search, hill climbing, shrinking, replay and Hypothesis differ only in where the tape comes from, so a claim describes
its cases once. Zero is the simplest number of a tape and the lowest value of every draw; shrinking moves toward it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

Tape = tuple[float, ...]
_SHRINK_TRIALS = 10_000
_STEPS = (0.2, 0.4, 0.6, 0.8)
_EDGES = (0.0, 0.5, 1.0)  # cases on the boundary of a claim are made of these far more often than chance would


class Draw:
    """Turns numbers in [0, 1], which `unit` returns one by one, into the parts of a case.

    >>> halves = Draw(lambda: 0.5)
    >>> halves.integer(0, 9), halves.real(-1.0, 3.0), halves.choice("abc")
    (5, 1.0, 'b')
    """

    def __init__(self, unit: Callable[[], float]):
        self._unit = unit

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return min(high, low + int(self._unit() * (high - low + 1)))

    def real(self, low: float, high: float) -> float:
        """A real number in [low, high], both ends included."""
        unit = self._unit()
        return high if unit == 1.0 else low + (high - low) * unit

    def choice(self, options: Sequence[T]) -> T:
        """One of `options`; the first is the simplest."""
        return options[self.integer(0, len(options) - 1)]


@dataclass(frozen=True)
class Example:
    """One case, the tape it came from and its slack: `case == build(replayed(tape))`; None for a case given by hand."""

    case: Any
    tape: Tape | None
    slack: float


@dataclass(frozen=True)
class Found:
    """What a search saw: how many examples, the tightest of them, and the smallest counterexample if there is one."""

    examples: int
    tightest: Example | None
    counterexample: Example | None


def replayed(tape: Sequence[float]) -> Draw:
    """A `Draw` that reads `tape` and then zeros."""
    numbers = iter(tape)
    return Draw(lambda: next(numbers, 0.0))


def search(
    build: Callable[[Draw], Any], slack: Callable[[Any], float], *, examples: int, seed: int, tolerance: float = 0.0
) -> Found:
    """Look for a case with slack < -tolerance (or NaN) among `examples` cases; half of them vary the tightest so far.

    The same seed gives the same search. A counterexample is shrunk before it is returned.
    """
    rng = np.random.default_rng(seed)
    tightest: Example | None = None
    for number in range(1, examples + 1):
        vary = tightest is not None and number % 2 == 0
        example = _record(build, slack, rng, _varied(tightest.tape or (), rng) if vary and tightest else ())
        if _breaks(example.slack, tolerance):
            return Found(number, example, _shrunk(build, slack, example, tolerance))
        if tightest is None or example.slack <= tightest.slack:
            tightest = example
    return Found(examples, tightest, None)


def _breaks(slack: float, tolerance: float) -> bool:
    return not slack >= -tolerance  # NaN breaks a claim as well


def _record(build, slack, rng: np.random.Generator, prefix: Tape) -> Example:
    """Build one case from `prefix` and, where it ends, from fresh random numbers; keep what was read."""
    read: list[float] = []

    def unit() -> float:
        number = prefix[len(read)] if len(read) < len(prefix) else _fresh(rng)
        read.append(number)
        return number

    case = build(Draw(unit))
    return Example(case, tuple(read), float(slack(case)))


def _fresh(rng: np.random.Generator) -> float:
    number = rng.random()
    return number if rng.random() < 0.7 else _EDGES[int(number * len(_EDGES))]


def _varied(tape: Tape, rng: np.random.Generator) -> Tape:
    """`tape` with about two of its numbers replaced, nudged, or copied from a neighbor (which makes ties)."""
    numbers = list(tape)
    for place in np.flatnonzero(rng.random(len(numbers)) < 2.0 / max(2, len(numbers))):
        manner = rng.integers(3)
        if manner == 0:
            numbers[place] = _fresh(rng)
        elif manner == 1:
            numbers[place] = float(np.clip(numbers[place] + 0.1 * rng.normal(), 0.0, 1.0))
        else:
            numbers[place] = numbers[rng.integers(len(numbers))]
    return tuple(numbers)


def _shrunk(build, slack, example: Example, tolerance: float) -> Example:
    """A simpler counterexample: a shorter tape, with more zeros and rounder numbers, tried until nothing helps."""
    trials = 0
    improved = True
    while improved and trials < _SHRINK_TRIALS:
        improved = False
        for tape in _simpler(example.tape or ()):
            trials += 1
            if trials > _SHRINK_TRIALS:
                break
            case = build(replayed(tape))
            value = float(slack(case))
            if _breaks(value, tolerance):
                example, improved = Example(case, tape, value), True
                break
    return example


def _simpler(tape: Tape):
    """Tapes simpler than `tape`, the boldest first."""
    length = len(tape)
    size = length
    while size:
        for start in range(0, length - size + 1, size):
            yield tape[:start] + tape[start + size :]
        for start in range(0, length - size + 1, size):
            if any(tape[start : start + size]):
                yield tape[:start] + (0.0,) * size + tape[start + size :]
        size //= 2
    # A smaller count makes sense only together with fewer of the things it counts.
    for place, number in enumerate(tape):
        for lower in (0.0, *(step for step in _STEPS if step < number)):
            for size in range(1, min(12, length - place)):
                for start in range(place + 1, length - size + 1, size):
                    yield (*tape[:place], lower, *tape[place + 1 : start], *tape[start + size :])
    for place, number in enumerate(tape):
        for rounder in (*_STEPS, 0.5, 0.25, 0.75, round(number, 1), round(number, 2), round(number / 2, 2)):
            if _simplicity(rounder) < _simplicity(number):
                yield (*tape[:place], rounder, *tape[place + 1 :])


def _simplicity(number: float) -> tuple[int, float]:
    return len(repr(number)), number

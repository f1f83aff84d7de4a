"""Many runs advancing together in one compiled program, as in continuous batching.

A finished or diverged run leaves its lane and the next one enters, so nothing waits for the slowest; every lane is fed
its own minibatches, so no data set is padded to the largest. A lane's numbers depend on its run alone: the program
works on each lane by itself, on one thread, and what the others hold or how many steps a call makes changes nothing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Int

from sims.networks import Architecture
from sims.runs import Examples, Run, Trained, measure_facts
from sims.training import CHUNK, Lane, Minibatch, Recipe, program

_CHECKS_GROW = 1.05  # until_stored: exposures between two looks at every fact grow by this factor
_CURVE_POINTS = 128


class FactStream:
    """The facts of a run in the order they are shown: shuffled epochs end to end, whatever the minibatch.

    A function of (seed, size) alone, made in blocks of whole epochs and consumed in order.
    """

    _BLOCK = 8192

    def __init__(self, size: int, seed: int, exposures: int):
        self._size, self._seed = size, seed
        self._epochs_left, self._block_number = exposures, 0
        self._waiting = np.empty(0, dtype=np.int32)

    def take(self, count: int) -> Int[np.ndarray, " count"]:
        """The next `count` facts; -1 after the last."""
        while len(self._waiting) < count and self._epochs_left:
            self._waiting = np.concatenate([self._waiting, self._next_block()])
        facts, self._waiting = self._waiting[:count], self._waiting[count:]
        return np.pad(facts, (0, count - len(facts)), constant_values=-1)

    def _next_block(self) -> Int[np.ndarray, " m"]:
        epochs = max(1, self._BLOCK // self._size)
        ordered = np.broadcast_to(np.arange(self._size, dtype=np.int32), (epochs, self._size))
        shuffled = np.random.default_rng([self._seed, self._size, self._block_number]).permuted(ordered, axis=1)
        shown = shuffled[: min(epochs, self._epochs_left)]
        self._epochs_left -= len(shown)
        self._block_number += 1
        return shown.reshape(-1)


@dataclass
class _Seat:
    """One run in a lane, as the host sees it."""

    run: Run
    examples: Examples
    stream: FactStream
    total: int
    next_check: int  # the step before which the host must look
    done: int = 0
    losses: list[np.ndarray] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)


class Lanes:
    """L lanes of one architecture, optimizer and minibatch, refilled from `next_run` until that gives None."""

    def __init__(
        self,
        architecture: Architecture,
        recipe: Recipe,
        next_run: Callable[[], tuple[Run, Examples] | None],
    ):
        self._architecture, self._minibatch = architecture, recipe.minibatch
        self._program = program(architecture, recipe.optimizer)
        self._next_run = next_run
        self._seats: list[_Seat | None] = [None] * architecture.lanes
        self._state: Lane = self._program.empty()
        self._buffers: tuple[np.ndarray, np.ndarray] | None = None

    def trained(
        self, stop: Callable[[], bool] = lambda: False, advanced: Callable[[float], object] = lambda flops: None
    ) -> Iterator[Trained]:
        """Train until no run is left, yielding runs as they leave.

        Between two chunks `stop` is asked whether to go on, and `advanced` is told the work done in FLOPs.
        """
        self._refill()
        while any(self._seats) and not stop():
            advanced(self._advance())
            for lane, seat in enumerate(self._seats):
                if seat is not None and (result := self._leaves(lane, seat)) is not None:
                    self._seats[lane] = None
                    self._refill()
                    yield result

    def _refill(self) -> None:
        for lane, seat in enumerate(self._seats):
            if seat is None and (offered := self._next_run()) is not None:
                run, examples = offered
                recipe = run.recipe
                stream = FactStream(run.size, run.seed, recipe.exposures)
                total = recipe.steps(run.size)
                first_check = recipe.steps_until(1.0, run.size) if recipe.until_stored else total
                self._seats[lane] = _Seat(run, examples, stream, total, first_check)
                key = jax.random.fold_in(jax.random.key(run.seed), 1)  # 0 is the data's
                self._state = self._program.enter(self._state, lane, key)

    def _advance(self) -> float:
        seats = [(lane, seat) for lane, seat in enumerate(self._seats) if seat is not None]
        steps = min(CHUNK, *(seat.next_check - seat.done for _, seat in seats))
        batches = self._host_buffers(seats[0][1].examples)
        rates = np.zeros((len(self._seats), CHUNK), dtype=np.float32)
        for lane, seat in seats:
            facts = seat.stream.take(steps * self._minibatch).reshape(steps, self._minibatch)
            seat.examples.copy_rows(facts, batches[0][lane, :steps], batches[1][lane, :steps])
            rates[lane, :steps] = seat.run.recipe.rates(seat.done, steps, seat.total)
        # On the device before the call: an argument that is still being copied would send it to another thread.
        ready = jax.block_until_ready(jax.device_put((Minibatch(*batches), rates)))
        self._state, losses = self._program.advance(self._state, *ready, steps)
        losses = np.asarray(losses)
        for lane, seat in seats:
            seat.losses.append(losses[lane, :steps])
            seat.done += steps
        return len(seats) * steps * self._minibatch * self._architecture.flops_per_fact_step

    def _host_buffers(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        """Inputs `[L C B ...]` and targets of a call; made once, because fresh pages cost more than filling them."""
        if self._buffers is None:
            shape = (len(self._seats), CHUNK, self._minibatch)
            self._buffers = (
                np.zeros((*shape, *examples.inputs.shape[1:]), examples.inputs.dtype),
                np.zeros((*shape, *examples.targets.shape[1:]), examples.targets.dtype),
            )
        return self._buffers

    def _leaves(self, lane: int, seat: _Seat) -> Trained | None:
        """The run of this lane, if it is done: out of budget, diverged, or every fact stored."""
        broken = not np.isfinite(seat.losses[-1]).all()
        if not broken and seat.done < seat.next_check:
            return None
        parameters = jax.tree.map(lambda leaf: np.asarray(leaf)[lane].copy(), self._state.parameters)
        facts = None if broken else measure_facts(seat.run, seat.examples, parameters)
        if facts is not None and not (np.isfinite(facts.loss_nats).all()):
            broken, facts = True, None
        recipe = seat.run.recipe
        shown = min(seat.done * self._minibatch / seat.run.size, float(recipe.exposures))
        if not broken and seat.done < seat.total:
            assert facts is not None
            if not facts.stored.all():
                seat.next_check = recipe.steps_until(shown * _CHECKS_GROW + 1.0, seat.run.size)
                return None
        exposures, losses = _curve(np.concatenate(seat.losses), self._minibatch / seat.run.size)
        seconds = time.perf_counter() - seat.started
        return Trained(seat.run, seat.examples, parameters, broken, facts, shown, exposures, losses, seconds)


def _curve(losses: np.ndarray, exposures_per_step: float) -> tuple[np.ndarray, np.ndarray]:
    """A training curve of at most _CURVE_POINTS points: exposures at the end of each bin, mean loss within it."""
    edges = np.unique(np.round(np.geomspace(1, len(losses), _CURVE_POINTS)).astype(int))
    starts = np.concatenate([[0], edges[:-1]])
    means = np.add.reduceat(losses.astype(np.float64), starts) / (edges - starts)
    return edges * exposures_per_step, means

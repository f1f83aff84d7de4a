"""From a wanted point (loss, hallucination) to a network that is there, or to the bound that forbids it (T6, T6b)."""

import math
from dataclasses import dataclass

import numpy as np

from theory import calibrated_memorizers, calibration, decoding, memorizers
from theory.calibrated_memorizers import WeightedFacts
from theory.calibration import Decoding
from theory.console import Refusal
from theory.rounding import LN2, above, below

_LARGEST_TABLE = 2**26  # numbers


@dataclass(frozen=True)
class Wanted:
    """A point: mean loss in nats and error rate, of n facts over V answers.

    The rate is H_greedy or H_sampled; of a calibrated network H_map or H_sampled.
    """

    loss_nats: float
    error_rate: float
    facts: int
    answers: int
    decoding: Decoding = "greedy"
    loss_cap_nats: float = math.inf
    calibrated: bool = False


def construct(wanted: Wanted) -> WeightedFacts:
    """Table of logits, answers and frequencies of facts with the wanted loss and rate, to float64 precision.

    Refusal, with the bound and its numbers, where no network is. Uncalibrated facts are equally frequent, and the
    answer of fact i is i mod V. A calibrated network needs facts of several frequencies (`calibrated_memorizers`).
    """
    _check_numbers(wanted)
    if wanted.calibrated:
        return _calibrated(wanted)
    losses, wrong = _greedy(wanted) if wanted.decoding == "greedy" else _sampled(wanted)
    labels = np.arange(wanted.facts, dtype=np.int64) % wanted.answers
    logits = memorizers.logits_with_losses(losses, wrong, labels, wanted.answers)
    return WeightedFacts(logits, labels, np.full(wanted.facts, 1.0 / wanted.facts))


def _check_numbers(wanted: Wanted) -> None:
    if not 0.0 <= wanted.loss_nats < math.inf:
        raise Refusal(f"the loss must be a finite number of nats >= 0, got {wanted.loss_nats!r}")
    if not 0.0 <= wanted.error_rate <= 1.0:
        raise Refusal(f"the hallucination rate must be in [0, 1], got {wanted.error_rate!r}")
    if not wanted.loss_cap_nats >= wanted.loss_nats:
        raise Refusal(
            f"a mean loss of {wanted.loss_nats!r} is above the loss cap {wanted.loss_cap_nats!r}; raise the cap"
        )
    if wanted.facts * wanted.answers > _LARGEST_TABLE:
        raise Refusal(
            f"a table of {wanted.facts} x {wanted.answers} numbers is more than {_LARGEST_TABLE}; ask for fewer facts"
        )


def _greedy(wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """Losses and which facts are wrong; their number has to be whole and in the interval of T2."""
    n, loss = wanted.facts, wanted.loss_nats
    lowest, highest = decoding.greedy_error_counts(
        loss, facts=n, answers=wanted.answers, loss_cap_nats=wanted.loss_cap_nats
    )
    fewest, most = int(lowest), int(highest)
    wrong = round(wanted.error_rate * n)
    if abs(wanted.error_rate * n - wrong) > 1e-9:
        raise Refusal(_between_multiples(wanted, fewest, most))
    at = f"T2: at a mean loss of {loss:.6g} nats" + _under_cap(wanted)
    if wrong > most:
        needed = f"{wrong} wrong facts need a mean loss of at least {wrong * LN2 / n:.6g}"
        if wanted.loss_cap_nats < LN2:
            needed = f"a wrong fact has a loss of at least ln 2 = {LN2:.6g}, above the cap"
        raise Refusal(f"{at} at most {most} of {n} facts are decoded wrong, a rate of {most / n!r}; {needed}")
    if wrong < fewest:
        cap = wanted.loss_cap_nats
        end = (wrong * cap if wrong else 0.0) + (n - wrong) * min(cap, math.log(wanted.answers))
        raise Refusal(
            f"{at} at least {fewest} of {n} facts are decoded wrong, a rate of {fewest / n!r}; {wrong} wrong facts "
            f"need a mean loss below {end / n:.6g}"
        )
    try:
        losses = memorizers.greedy_losses(
            loss, wrong, facts=n, answers=wanted.answers, loss_cap_nats=wanted.loss_cap_nats
        )
    except ValueError as error:
        raise Refusal(f"{at} the wanted point is closer to the open end of its interval than float64 tells") from error
    return losses, np.arange(n) < wrong


def _between_multiples(wanted: Wanted, fewest: int, most: int) -> str:
    """Why this rate is none, and which feasible ones are nearest."""
    n = wanted.facts
    below = math.floor(wanted.error_rate * n)
    candidates = [k for k in {below, below + 1, fewest, fewest + 1, most - 1, most} if fewest <= k <= most]
    nearest = sorted(sorted(candidates, key=lambda k: abs(k - wanted.error_rate * n))[:2])
    rates = " and ".join(f"{k / n!r} ({k} wrong facts)" for k in nearest)
    return (
        f"the greedy rate of {n} facts is a multiple of 1/{n}, {wanted.error_rate!r} is none; nearest and feasible at "
        f"this loss (T2): {rates}"
    )


def _sampled(wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """Losses, and as wrong those facts that cannot be right."""
    low, high = decoding.sampled_error_rates(wanted.loss_nats, facts=wanted.facts, loss_cap_nats=wanted.loss_cap_nats)
    if not low <= wanted.error_rate <= high:
        raise Refusal(
            f"T3: at a mean loss of {wanted.loss_nats:.6g} nats{_under_cap(wanted)} sampling errs on "
            f"{wanted.facts} facts with a rate from {float(low)!r} to {float(high)!r}, not {wanted.error_rate!r}"
        )
    losses = memorizers.sampled_losses(
        wanted.loss_nats, wanted.error_rate, facts=wanted.facts, loss_cap_nats=wanted.loss_cap_nats
    )
    return losses, losses >= math.log(wanted.answers)


def _calibrated(wanted: Wanted) -> WeightedFacts:
    if math.isfinite(wanted.loss_cap_nats):
        raise Refusal(
            "a loss cap changes the region of calibrated networks and is not offered there; leave out one of them"
        )
    limit = math.log(wanted.answers)
    if below(wanted.loss_nats) > above(limit):
        raise Refusal(f"T5: a calibrated mean loss is at most ln V = {limit:.6g} nats, not {wanted.loss_nats:.6g}")
    low, high = calibration.calibrated_error_rates(wanted.loss_nats, answers=wanted.answers, decoding=wanted.decoding)
    try:
        cells = calibrated_memorizers.calibrated_cells(
            wanted.loss_nats, wanted.error_rate, answers=wanted.answers, decoding=wanted.decoding
        )
    except ValueError as error:
        raise Refusal(
            f"T5: a calibrated network with a mean loss of {wanted.loss_nats:.6g} nats over {wanted.answers} answers "
            f"errs with a {wanted.decoding} rate from {float(low)!r} to {float(high)!r}, not {wanted.error_rate!r}"
        ) from error
    fewest = calibrated_memorizers.fewest_facts(cells)
    if wanted.facts < fewest:
        raise Refusal(f"calibration here takes at least {fewest} facts, one per answer of a cell, got {wanted.facts}")
    return calibrated_memorizers.weighted_facts(cells, wanted.facts)


def _under_cap(wanted: Wanted) -> str:
    return f" and no loss above {wanted.loss_cap_nats:.6g}" if math.isfinite(wanted.loss_cap_nats) else ""

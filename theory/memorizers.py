"""Networks whose weights are written down instead of trained: for every point of the feasible region, one that is
there.

A network here is its table of logits, one row per fact: `logits = onehot(fact) @ Z` with Z the table, or `keys @ Z'`
for any independent keys. Letters as in `theory.decoding`: n facts, V answers, mean loss L, cap M, k wrong facts.
Everything is float64; a loss comes out as wanted to about 1e-15 relative to 1 + loss.
"""

import math

import numpy as np
from numpy.typing import NDArray

from theory.decoding import sampled_error_rates
from theory.rounding import LN2

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEVER = -800.0  # a logit whose probability underflows to 0 beside 0, in float64 and float32
_CERTAIN = 800.0


def cross_entropies(logits: Floats, labels: Integers) -> Floats:
    """Loss of each fact in nats, from logits of shape (n, V) and labels of shape (n,)."""
    logits = np.asarray(logits, dtype=np.float64)
    gaps = logits - np.take_along_axis(logits, np.asarray(labels)[:, None], axis=1)
    largest = gaps.max(axis=1)
    return largest + np.log(np.exp(gaps - largest[:, None]).sum(axis=1))


def greedy_wrong(logits: Floats, labels: Integers) -> NDArray[np.bool_]:
    """Whether each fact's label is not the unique largest logit; decided on logits, a tie is an error."""
    rivals = np.array(logits, dtype=np.float64)
    own = np.take_along_axis(rivals, np.asarray(labels)[:, None], axis=1)[:, 0]
    np.put_along_axis(rivals, np.asarray(labels)[:, None], -np.inf, axis=1)
    return ~(own > rivals.max(axis=1))


def right_row(loss_nats: float, label: int, answers: int) -> Floats:
    """Logits, shape (V,), that decode to `label` with this loss; for 0 <= loss < ln V."""
    row = np.zeros(answers)
    row[label] = _CERTAIN if loss_nats == 0.0 else math.log(answers - 1) - _log_expm1(loss_nats)
    return row


def wrong_row(loss_nats: float, label: int, answers: int) -> Floats:
    """Logits, shape (V,), that do not decode to `label`, with this loss; for ln 2 <= loss < inf (at ln 2 a tie)."""
    row = np.full(answers, NEVER)
    row[(label + 1) % answers] = 0.0
    row[label] = -max(0.0, _log_expm1(loss_nats))  # without the max an ulp below ln 2 would make the fact right
    return row


def greedy_losses(
    mean_loss_nats: float, wrong_facts: int, *, facts: int, answers: int, loss_cap_nats: float = math.inf
) -> Floats:
    """Losses, shape (n,), with this mean, the first k of them to be given to wrong rows (T2).

    ValueError if the mean loss lies outside the interval of k wrong facts.
    """
    total, right = facts * mean_loss_nats, facts - wrong_facts
    cap = min(loss_cap_nats, total / max(wrong_facts, 1) + math.log(answers) + 1.0)  # finite, and never in the way
    right_end = min(cap, math.log(answers))
    span = wrong_facts * (cap - LN2) + right * right_end
    share = (total - wrong_facts * LN2) / span if span > 0.0 else float(total > wrong_facts * LN2)
    closed = right == 0 or cap < math.log(answers)
    inside = -1e-12 <= share < 1.0 or (closed and share <= 1.0 + 1e-12)
    if not inside or (wrong_facts > 0 and cap < LN2):
        raise ValueError(f"{wrong_facts} errors among {facts} facts are impossible at mean loss {mean_loss_nats!r}")
    return unchecked_greedy_losses(min(1.0, max(0.0, share)), wrong_facts, right, cap, right_end)


def unchecked_greedy_losses(share: float, wrong: int, right: int, cap: float, right_end: float) -> Floats:
    """Wrong facts at ln 2 and right facts at 0 (`share` 0), moved by `share` of the way to `cap` and `right_end`."""
    return np.array([LN2 + share * (cap - LN2)] * wrong + [share * right_end] * right)


def sampled_losses(mean_loss_nats: float, error_rate: float, *, facts: int, loss_cap_nats: float = math.inf) -> Floats:
    """Losses, shape (n,), with this mean and this H_sampled (T3), by bisection between equal losses and the most
    unequal.

    ValueError if `error_rate` lies outside the interval of `sampled_error_rates`.
    """
    low, high = sampled_error_rates(mean_loss_nats, facts=facts, loss_cap_nats=loss_cap_nats)
    if not low <= error_rate <= high:
        raise ValueError(f"H_sampled {error_rate!r} is impossible at mean loss {mean_loss_nats!r}")
    total, cap = facts * mean_loss_nats, min(loss_cap_nats, facts * mean_loss_nats)
    equal = np.full(facts, mean_loss_nats)
    unequal = np.clip(total - cap * np.arange(facts), 0.0, cap)
    near, far = 0.0, 1.0  # the rate falls as losses move from equal to unequal
    for _ in range(60):
        middle = (near + far) / 2
        rate = -np.expm1(-(equal + middle * (unequal - equal))).mean()
        near, far = (middle, far) if rate > error_rate else (near, middle)
    return np.asarray(equal + near * (unequal - equal), dtype=np.float64)


def logits_with_losses(losses_nats: Floats, wrong: NDArray[np.bool_], labels: Integers, answers: int) -> Floats:
    """Table of logits, shape (n, V), whose facts have these losses and are wrong where `wrong` says so."""
    rows = [
        wrong_row(float(loss), int(label), answers) if is_wrong else right_row(float(loss), int(label), answers)
        for loss, is_wrong, label in zip(losses_nats, wrong, labels, strict=True)
    ]
    return np.stack(rows)


def _log_expm1(loss_nats: float) -> float:
    """ln(e^loss - 1) without overflow."""
    return loss_nats + math.log(-math.expm1(-loss_nats))

"""How much of a whole each of several causes accounts for, and what a sampling temperature does to one fact.

Letters: T temperature, p probability of the answer at temperature 1, V answers.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

Cause = TypeVar("Cause", bound=Hashable)


def shapley(causes: Sequence[Cause], value: Callable[[frozenset[Cause]], float]) -> dict[Cause, float]:
    """What each cause adds, averaged over the orders in which the causes can be put in (Shapley 1953).

    `value` is asked for every subset once. The shares add up to value(all) - value(none), exactly but for rounding.

    >>> shapley(["a", "b"], lambda there: float(there == {"a", "b"}))
    {'a': 0.5, 'b': 0.5}
    """
    count = len(causes)
    subsets = [frozenset(one) for size in range(count + 1) for one in combinations(causes, size)]
    values = {subset: value(subset) for subset in subsets}

    def adds(cause: Cause) -> float:
        without = (subset for subset in subsets if cause not in subset)
        return math.fsum(
            (values[subset | {cause}] - values[subset]) / (count * math.comb(count - 1, len(subset)))
            for subset in without
        )

    return {cause: adds(cause) for cause in causes}


def tempered_error_rates(
    loss_nats: np.ndarray | float, temperature: float, answers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest probability that sampling at T gives a wrong answer, of a fact of this loss at T = 1.

    The other answers share 1 - p. With powers 1/T of probabilities, their sum is largest if they share it equally and
    smallest if one has it all for T > 1 (x^(1/T) is concave), the other way round for T < 1; both occur. At T = 1 both
    ends are 1 - p. Not rounded to a side.

    >>> low, high = tempered_error_rates(math.log(2), 0.5, 32)
    >>> round(float(low), 4), float(high)
    (0.0312, 0.5)
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    loss = np.asarray(loss_nats, float)
    with np.errstate(divide="ignore"):
        odds = np.log(-np.expm1(-loss)) + loss  # ln((1 - p)/p), of all other answers together
    together = odds / temperature
    apart = together + (1.0 - 1.0 / temperature) * math.log(answers - 1)
    with np.errstate(over="ignore"):  # an overflow is a probability of 0
        ends = [1.0 / (1.0 + np.exp(-log_odds)) for log_odds in (together, apart)]
    low, high = ends if temperature > 1.0 else reversed(ends)
    return low, high

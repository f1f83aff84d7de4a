"""Questions that the data answer in several ways: the loss and the errors that no model avoids (F5).

A question with answer counts (n_1, n_2, ...) occurs sum(counts) times among the facts. Units: nats.
"""

import math
from collections.abc import Sequence


def loss_floor_nats(answer_counts: Sequence[Sequence[int]]) -> float:
    """Least mean loss: the mean over facts of the entropy of their question's answers. Not rounded to a side.

    >>> loss_floor_nats([[1, 1], [2]]) == math.log(2) / 2
    True
    """
    facts = sum(map(sum, answer_counts))
    return math.fsum(sum(counts) * entropy_nats(counts) for counts in answer_counts) / facts


def entropy_nats(counts: Sequence[int]) -> float:
    """Entropy of the answers of one question."""
    total = sum(counts)
    return math.fsum(count / total * math.log(total / count) for count in counts if count)


def error_count_floor(answer_counts: Sequence[Sequence[int]]) -> int:
    """Fewest facts that any decoding with one answer per question gets wrong: all but the most frequent answer's.

    >>> error_count_floor([[3, 1], [2]])
    1
    """
    return sum(sum(counts) - max(counts) for counts in answer_counts)

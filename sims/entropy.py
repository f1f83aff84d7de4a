"""How much there is to memorize: entropy of labels, the bits a draw of labels carries, the loss that conflicts force.

Letters: n facts, of which the first `count` are asked about; labels and question numbers are any integers.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from scipy.special import gammaln


def entropy_bits(counts: Sequence[int] | Int[np.ndarray, " v"]) -> float:
    """Entropy of the distribution proportional to `counts`, in bits per draw; 0 for a single class or for none.

    >>> entropy_bits([2, 1, 1])
    1.5
    """
    frequencies = np.asarray(counts, dtype=np.float64)
    frequencies = frequencies[frequencies > 0]
    if frequencies.size <= 1:
        return 0.0
    shares = frequencies / frequencies.sum()
    return float(-(shares * np.log2(shares)).sum())


def label_entropy_bits(labels: Int[np.ndarray, " n"]) -> float:
    """Entropy of the labels' own frequencies, in bits per fact: no more than log2 of the number of facts."""
    return entropy_bits(np.unique(labels, return_counts=True)[1])


def conflict_floor_nats(questions: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Smallest mean loss that any network can reach on these facts, in nats: 0 unless a question has several labels.

    (1/n) sum over questions of n_q H(labels of q), reached by the frequencies themselves (T5 and F5: conflicts).
    """
    if labels.size == 0:
        return 0.0
    question_counts = np.unique(questions, return_counts=True)[1]
    pair_counts = np.unique(np.stack([questions, labels]), axis=1, return_counts=True)[1]
    if pair_counts.size == question_counts.size:  # one label for each question: exactly 0, not a rounding error
        return 0.0
    return float((_count_log_count(question_counts) - _count_log_count(pair_counts)) / labels.size)


def arrangement_bits(labels: Int[np.ndarray, " n"], count: int) -> float:
    """-log2 of the probability that a uniformly random arrangement of `labels` begins with the first `count` of them.

    For count = n it is log2 of the number of distinct arrangements, n!/prod n_a!, which takes the place of n log2 V
    in the capacity bounds when a file's answers were permuted (T11). Accurate to about 1e-12 of log2 n!.
    """
    classes = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(classes)
    left = counts - np.bincount(classes[:count], minlength=counts.size)
    nats = gammaln(labels.size + 1) - gammaln(labels.size - count + 1)
    nats -= (gammaln(counts + 1) - gammaln(left + 1)).sum()
    return max(0.0, float(nats / np.log(2.0)))


def _count_log_count(counts: Int[np.ndarray, " k"]) -> float:
    return float((counts * np.log(counts)).sum())

"""From bits to loss and errors: what any learner whose trained weights fit into B bits must get wrong.

Letters: n facts with labels uniform over V answers and independent of everything but the weights, B bits that describe
the weights, t failure bits (a statement that holds except with probability 2^-t over the labels; it then holds for
every seed, checkpoint and stopping rule at once), L mean loss in nats, e an error rate, D(R) the Hamming distortion at
rate R bits per fact. Statements and proofs are the claims T7, T8, T11, T12 and F1 of `theory.capacity_claims`. Answers
of S tokens: V becomes V^S. Arguments broadcast as NumPy arrays do. Lower bounds are rounded down and upper bounds up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp, xlogy

from theory.rounding import LN2, above, below, counted, finite, non_negative

Floats = NDArray[np.float64]

_NORMALIZATION_BITS = 1e-12  # per fact: what float64 probabilities that sum to 1 + 1e-13 can gain


def critical_size(bits: ArrayLike, answers: ArrayLike) -> Floats:
    """Number of facts B / log2 V from which on B bits cannot hold them all (T7). Not rounded to a side.

    >>> float(critical_size(8192, 32))
    1638.4
    """
    return finite("bits", bits) / np.log2(counted("answers", answers, least=2))


def loss_lower_nats(facts: ArrayLike, bits: ArrayLike, answers: ArrayLike, failure_bits: ArrayLike = 0.0) -> Floats:
    """Least mean loss, max(0, ln V - (B + t) ln 2 / n), nats (T7); rounded down.

    With `failure_bits` t it holds for every state of the weights at once except with probability 2^-t over the labels;
    with t = 0 it bounds the expectation of L over the labels.

    >>> float(loss_lower_nats(4096, 8192, 32)) <= math.log(32) - 2 * LN2
    True
    """
    n, log_answers = counted("facts", facts), np.log(counted("answers", answers, least=2))
    described = finite("bits", bits) + finite("failure_bits", failure_bits)
    return np.maximum(0.0, below(log_answers) - above(described * LN2 / n))


def rate_bits(error_rate: ArrayLike, answers: ArrayLike) -> Floats:
    """Bits per fact R(e) = log2 V - h2(e) - e log2(V - 1) that an error rate e costs; 0 from e = 1 - 1/V on.

    Not rounded to a side; the absolute error is a few ulps of log2 V.

    >>> rate_bits([0.0, 0.5], 2).tolist()
    [1.0, 0.0]
    """
    e, v = finite("error_rate", error_rate), counted("answers", answers, least=2)
    if np.any(e > 1.0):
        raise ValueError("error_rate must be <= 1")
    return _rate_bits(np.minimum(e, 1.0 - 1.0 / v), v)


def _rate_bits(e: Floats, v: Floats) -> Floats:
    nats = np.log(v) + xlogy(e, e) + xlogy(1.0 - e, 1.0 - e) - xlogy(e, v - 1.0)
    return np.where(e >= 1.0 - 1.0 / v, 0.0, np.maximum(0.0, nats / LN2))


def distortion(rate_bits_per_fact: ArrayLike, answers: ArrayLike) -> Floats:
    """Least error rate D(R), the inverse of `rate_bits`: 1 - 1/V at rate 0, 0 from log2 V on; rounded down.

    Rounding the rate up by eight ulps of log2 V costs up to about 1e-7 in the error rate near rate 0, where R is flat.

    >>> float(distortion(1.0, 2)), round(float(distortion(0.5, 2)), 6)
    (0.0, 0.110028)
    """
    rate, v = np.broadcast_arrays(
        non_negative("rate_bits_per_fact", rate_bits_per_fact), counted("answers", answers, least=2)
    )
    full = np.log2(v)
    wanted = above(rate) + 8 * np.spacing(full)
    low, high = np.zeros(rate.shape), 1.0 - 1.0 / v
    for _ in range(64):
        middle = 0.5 * (low + high)
        enough = _rate_bits(middle, v) >= wanted
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return np.where(wanted >= full, 0.0, below(low))


def error_lower(facts: ArrayLike, bits: ArrayLike, answers: ArrayLike, failure_bits: ArrayLike = 0.0) -> Floats:
    """Least H_sampled and least H_greedy, D((B + t)/n), of any n facts held in B bits (F1, T8); rounded down.

    With `failure_bits` t it holds for every state of the weights at once except with probability 2^-t over the labels;
    with t = 0 it bounds the expectation over the labels.

    >>> 0.4 < float(error_lower(4096, 8192, 32)) < 0.5
    True
    """
    described = finite("bits", bits) + finite("failure_bits", failure_bits)
    return distortion(above(described / counted("facts", facts)), answers)


def few_errors_log2_probability(errors: int, facts: int, bits: float, answers: int) -> float:
    """log2 of the largest probability with which B bits allow at most k greedy errors (T8); at most 0, rounded up.

    B + log2 Vol_V(n, k) - n log2 V with Vol_V(n, k) = sum_{i <= k} C(n, i)(V - 1)^i label vectors at most k errors
    away. Reached by perfect codes: one bit holds three binary facts with at most one error always.

    >>> few_errors_log2_probability(1, facts=3, bits=1, answers=2) > -1e-12
    True
    """
    k, n = int(counted("errors", errors, least=0)), int(counted("facts", facts))
    v = float(counted("answers", answers, least=2))
    if k >= n:
        return 0.0
    i = np.arange(k + 1)
    terms = gammaln(n + 1) - gammaln(i + 1) - gammaln(n - i + 1) + xlogy(i, v - 1.0)
    return _log2_probability(float(finite("bits", bits)) + float(np.asarray(logsumexp(terms))) / LN2, n * math.log2(v))


def few_errors_log2_probability_permuted(errors: int, facts: int, bits: float) -> float:
    """As `few_errors_log2_probability`, for n *distinct* answers in random order (T11): B - log2 (n - k)!; rounded up.

    >>> few_errors_log2_probability_permuted(0, facts=4, bits=2) == few_errors_log2_probability_permuted(0, 4, 2.0)
    True
    """
    k, n = int(counted("errors", errors, least=0)), int(counted("facts", facts))
    return _log2_probability(float(finite("bits", bits)), float(gammaln(max(0, n - k) + 1)) / LN2)


def _log2_probability(plus: float, minus: float) -> float:
    """min(0, plus - minus), rounded up by 64 ulps of the larger, which covers the sums of logarithms of factorials."""
    return min(0.0, plus - minus + 64 * float(np.spacing(max(plus, minus))))


def label_entropy_bits(facts: int, answers: int) -> float:
    """Entropy n log2 V of independent uniform labels."""
    return float(counted("facts", facts)) * math.log2(float(counted("answers", answers)))


def permuted_label_entropy_bits(answer_counts: Sequence[int]) -> float:
    """Entropy log2(n! / prod n_a!) of a random order of a fixed collection of answers, n_a of each (T11).

    >>> permuted_label_entropy_bits([2, 1]) == math.log2(3)
    True
    """
    counts = counted("answer_counts", answer_counts)
    return float(gammaln(counts.sum() + 1) - gammaln(counts + 1).sum()) / LN2


def elias_gamma_bits(file_bytes: int) -> int:
    """Bits 8J + 2 floor(log2(J + 1)) + 1 that describe a file of J bytes, its length included, prefix-free (T11).

    >>> elias_gamma_bits(1000)
    8019
    """
    size = int(counted("file_bytes", file_bytes, least=0))
    return 8 * size + 2 * ((size + 1).bit_length() - 1) + 1


@dataclass(frozen=True)
class Certificate:
    """An audit of stored bits: `memorized_bits` of the labels are in weights that `described_bits` describe."""

    label_bits: float  # entropy of the labels
    memorized_bits: float  # label_bits - loss_bits, what the trained network saves on them
    described_bits: float  # B
    allowed_bits: float  # B + t + log2(audits) + rounding; more than this is a bug in the audit
    holds: bool

    @property
    def ratio(self) -> float:
        """Memorized bits per described bit."""
        return self.memorized_bits / self.described_bits if self.described_bits else math.inf

    @property
    def room_bits(self) -> float:
        """Allowed minus memorized bits; negative iff the certificate fails."""
        return self.allowed_bits - self.memorized_bits


def certify(
    loss_bits_total: float,
    facts: int,
    answers: int,
    described_bits: float,
    failure_bits: float = 40.0,
    audits: int = 1,
    *,
    answer_counts: Sequence[int] | None = None,
) -> Certificate:
    """Whether n log2 V - (total loss in bits) <= B + t + log2 R, as it must be (T11); passing proves nothing.

    Labels are uniform over V answers or, with `answer_counts`, a random order of a fixed collection of answers;
    independent of seeds, quantizer family, audited facts and evaluation order. B counts everything that depends on
    labels and that evaluation needs, log2 of every choice made after seeing labels included. `audits` R certificates
    fail together with probability at most 2^-t.

    >>> certify(0.0, facts=100, answers=32, described_bits=600.0).holds
    True
    >>> certify(0.0, facts=100, answers=32, described_bits=400.0).holds
    False
    """
    n = int(counted("facts", facts))
    loss_bits = float(non_negative("loss_bits_total", loss_bits_total))
    if answer_counts is None:
        label_bits = label_entropy_bits(n, answers)
    else:
        label_bits = permuted_label_entropy_bits(answer_counts)
        if int(np.sum(answer_counts)) != n:
            raise ValueError(f"answer_counts must sum to the number of facts, {n}, got {int(np.sum(answer_counts))}")
    return certify_bits(label_bits, loss_bits, described_bits, facts=n, failure_bits=failure_bits, audits=audits)


def certify_bits(
    label_bits: float,
    loss_bits_total: float,
    described_bits: float,
    *,
    facts: int,
    failure_bits: float = 40.0,
    audits: int = 1,
) -> Certificate:
    """The same for labels from any law: `label_bits` is -log2 of the probability with which these labels came about.

    The bound holds because E[product of p_W(label_i) / P(labels)] <= 2^B for any learner of at most 2^B states.
    """
    labels = float(finite("label_bits", label_bits))
    described = float(finite("described_bits", described_bits))
    room = float(finite("failure_bits", failure_bits)) + math.log2(float(counted("audits", audits)))
    allowed = described + room + facts * _NORMALIZATION_BITS
    memorized = labels - float(non_negative("loss_bits_total", loss_bits_total))
    return Certificate(labels, memorized, described, allowed, memorized <= allowed)


@dataclass(frozen=True)
class BitsPerParameter:
    """A coefficient that somebody measured, or conjectured: how many bits a trained parameter holds."""

    bits: float
    status: str
    setting: str
    source: str


PUBLISHED_BITS_PER_PARAMETER = (
    BitsPerParameter(3.51, "measured", "uniform strings, GPT-2 shape, bfloat16", "arXiv 2505.24832"),
    BitsPerParameter(3.83, "measured", "uniform strings, GPT-2 shape, float32", "arXiv 2505.24832"),
    BitsPerParameter(3.64, "measured", "the same, fit over sizes, V = 2048, 64 tokens", "arXiv 2505.24832"),
    BitsPerParameter(1.0, "measured", "knowledge triples, 100 exposures", "arXiv 2404.05405"),
    BitsPerParameter(2.0, "measured", "knowledge triples, 1000 exposures", "arXiv 2404.05405"),
    BitsPerParameter(2.3, "measured", "knowledge triples, never seen above", "arXiv 2404.05405"),
    BitsPerParameter(0.72, "conjecture", "linear associative memory, 1/(2 ln 2)", "arXiv 2605.05189, 2605.10795"),
)


def published_bits_per_parameter(exposures: ArrayLike) -> Floats:
    """The exposure law alpha(E) = alpha_inf (1 - e^-aE) through 1 bit at 100 and 2 bits at 1000 exposures (T12).

    An interpolation of two measured points of arXiv 2404.05405, not a bound. Not rounded to a side.

    >>> published_bits_per_parameter([0.0, 100.0, 1000.0]).round(12).tolist()
    [0.0, 1.0, 2.0]
    """
    limit, speed = exposure_law()
    return limit * -np.expm1(-speed * non_negative("exposures", exposures))


@cache
def exposure_law() -> tuple[float, float]:
    """(alpha_inf in bits per parameter, a per exposure) of `published_bits_per_parameter`.

    With x = e^-100a the two points say (1 - x^10) = 2 (1 - x), or 1 + x + ... + x^9 = 2: a polynomial, solved by
    Newton.
    """
    x = 0.5
    for _ in range(50):
        powers = x ** np.arange(10)
        x -= float((powers.sum() - 2.0) / (np.arange(1, 10) * powers[:-1]).sum())
    return 1.0 / (1.0 - x), -math.log(x) / 100.0

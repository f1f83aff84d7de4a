"""From loss to hallucination: what the cross-entropy of stored facts says about decoding them.

Letters: n facts, V possible answers, loss_i = -ln p_i in nats with p_i the probability of fact i's answer, L their
mean, M a cap on a fact's loss (infinite if there is none), k the number of facts that greedy decoding gets wrong. A tie
is an error: greedy decoding is right only if the answer is the *unique* most probable one. Statements and proofs are
the claims T1-T4 and T6 of `theory.decoding_claims`. Arguments broadcast as NumPy arrays do; intervals are rounded
outward, so that a true value is never excluded by rounding (`theory.rounding`).
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.rounding import FOUR_ULPS, LN2, above, below, counted, non_negative

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def fact_verdict(loss_nats: float, answers: int) -> Literal["right", "wrong", "either"]:
    """What greedy decoding does with a fact of this loss (T1): right below ln 2, wrong from ln V, either in between.

    `answers` is V >= 2. With V = 2 the band between is empty. A loss within four ulps of a threshold is "either",
    because the rounding of the loss decides on which side it fell. Decide on logits where you have them.

    >>> fact_verdict(0.69, 32), fact_verdict(0.7, 32), fact_verdict(3.5, 32)
    ('right', 'either', 'wrong')
    """
    loss = float(non_negative("loss_nats", loss_nats))
    answers = int(counted("answers", answers, least=2))
    if above(loss) < LN2:
        return "right"
    return "wrong" if below(loss) >= np.log(answers) else "either"


def greedy_error_counts(
    mean_loss_nats: ArrayLike, *, facts: ArrayLike, answers: ArrayLike, loss_cap_nats: ArrayLike = np.inf
) -> tuple[Integers, Integers]:
    """Fewest and most facts that greedy decoding can get wrong at this mean loss (T2); every count between is possible.

    k errors need nL in [k ln 2, kM + (n - k) min(M, ln V)), closed on the right if k = n or M < ln V, and k >= 1 needs
    M >= ln 2. So a mean loss below ln 2 / n leaves no error, and errors are forced only from ln V on.
    The fewest is rounded down and the most up, by four ulps of nL. ValueError if L > M.

    >>> fewest, most = greedy_error_counts(0.1, facts=100, answers=32)
    >>> int(fewest), int(most)
    (0, 14)
    """
    mean_loss, loss_cap = _mean_loss_under_cap(mean_loss_nats, loss_cap_nats)
    n, log_answers = counted("facts", facts), np.log(counted("answers", answers, least=2))
    with np.errstate(invalid="ignore", divide="ignore"):
        most = np.where(above(loss_cap) < LN2, 0.0, np.minimum(n, np.floor(above(above(n * mean_loss) / LN2))))
        forced = n * (below(mean_loss) - above(log_answers)) / (above(loss_cap) - below(log_answers))
    forced = np.where(np.isposinf(loss_cap), 0.0, forced)  # one fact can carry any mean
    fewest = np.where(below(mean_loss) < above(log_answers), 0.0, np.minimum(n, np.floor(below(forced)) + 1.0))
    return fewest.astype(np.int64), most.astype(np.int64)


def greedy_error_rates(
    mean_loss_nats: ArrayLike, *, answers: ArrayLike, facts: ArrayLike | None = None, loss_cap_nats: ArrayLike = np.inf
) -> tuple[Floats, Floats]:
    """Smallest and largest H_greedy, the share of facts decoded wrong, at this mean loss (T2).

    `facts=None` is the limit of many facts, for curves: from (L - ln V)/(M - ln V), at least 0, to min(1, L / ln 2).

    >>> low, high = greedy_error_rates([0.0, LN2 / 2, 2.0], answers=32)
    >>> low.tolist(), high.round(12).tolist()
    ([0.0, 0.0, 0.0], [0.0, 0.5, 1.0])
    """
    if facts is not None:
        fewest, most = greedy_error_counts(mean_loss_nats, facts=facts, answers=answers, loss_cap_nats=loss_cap_nats)
        n = counted("facts", facts)
        return fewest / n, most / n
    mean_loss, loss_cap = _mean_loss_under_cap(mean_loss_nats, loss_cap_nats)
    log_answers = np.log(counted("answers", answers, least=2))
    with np.errstate(invalid="ignore", divide="ignore"):
        forced = (below(mean_loss) - above(log_answers)) / (above(loss_cap) - below(log_answers))
    forced = np.where(np.isposinf(loss_cap) | (below(mean_loss) < above(log_answers)), 0.0, forced)
    high = np.where(above(loss_cap) < LN2, 0.0, np.minimum(1.0, above(mean_loss / LN2)))
    return np.minimum(1.0, below(forced)), high


def sampled_error_rates(
    mean_loss_nats: ArrayLike, *, facts: ArrayLike | None = None, loss_cap_nats: ArrayLike = np.inf
) -> tuple[Floats, Floats]:
    """Smallest and largest H_sampled, the mean of 1 - p_i, at this mean loss (T3); every value between is possible.

    From [k(1 - e^-M) + 1 - e^-r]/n with k = floor(nL/M), r = nL - kM (without a cap (1 - e^-nL)/n) to 1 - e^-L,
    whatever the number of answers. `facts=None` is the limit of many facts. Sampling at temperature 1 from the whole
    row.

    >>> low, high = sampled_error_rates(1.0, facts=5, loss_cap_nats=2.0)
    >>> round(float(low), 4), round(float(high), 4)
    (0.4723, 0.6321)
    """
    mean_loss, loss_cap = _mean_loss_under_cap(mean_loss_nats, loss_cap_nats)
    high = np.minimum(1.0, above(-np.expm1(-mean_loss)))
    capped = np.isfinite(loss_cap)
    cap = np.where(capped & (loss_cap > 0.0), loss_cap, 1.0)  # stands in where the capped formula is not used
    some_loss = np.where(capped, mean_loss, 0.0)
    if facts is None:
        low = np.where(capped, below(some_loss / cap * -np.expm1(-cap)), 0.0)
        return np.broadcast_arrays(low, high)[0].copy(), np.broadcast_to(high, low.shape).copy()
    n = counted("facts", facts)
    full = np.floor(n * some_loss / cap)
    rest = np.clip(n * some_loss - full * cap, 0.0, cap)
    least = full * -np.expm1(-cap) - np.expm1(-rest)
    # The remainder r carries the rounding of nL, which its own size does not show.
    low = np.where(capped, least - FOUR_ULPS * (least + n * some_loss), below(-np.expm1(-n * mean_loss))) / n
    low, high = np.broadcast_arrays(np.maximum(0.0, low), high)
    return low.copy(), high.copy()


def exact_decoding_probability(answer_loss_nats: ArrayLike) -> Floats:
    """Probability e^-s that sampling gives the whole answer, s the *sum* of its token losses, end token included (T4).

    Teacher-forced losses, temperature 1, no truncation of the distribution. Not rounded to a side.

    >>> float(exact_decoding_probability(32 * 1.75)) < 1e-24
    True
    """
    return np.exp(-non_negative("answer_loss_nats", answer_loss_nats))


def wrong_fact_count_upper(mean_token_loss_nats: ArrayLike, facts: ArrayLike, tokens: ArrayLike) -> Integers:
    """Most facts of `tokens` tokens each that greedy decoding gets wrong (T4): floor(n S L / ln 2), at most n.

    `mean_token_loss_nats` is the mean over all n S tokens, end tokens included, losses teacher-forced; greedy, not beam
    search. Rounded up by four ulps.

    >>> int(wrong_fact_count_upper(0.0217, facts=1, tokens=32)), int(wrong_fact_count_upper(0.0216, facts=1, tokens=32))
    (1, 0)
    """
    mean_loss = non_negative("mean_token_loss_nats", mean_token_loss_nats)
    n, length = counted("facts", facts), counted("tokens", tokens)
    return np.minimum(n, np.floor(above(above(n * length * mean_loss) / LN2))).astype(np.int64)


def greedy_region_contains(
    mean_loss_nats: ArrayLike,
    wrong_facts: ArrayLike,
    *,
    facts: ArrayLike,
    answers: ArrayLike,
    loss_cap_nats: ArrayLike = np.inf,
) -> NDArray[np.bool_]:
    """Whether some network has this mean loss and this number of greedy errors (T6); exact but for four ulps of nL.

    >>> greedy_region_contains(0.1, [14, 15], facts=100, answers=32).tolist()
    [True, False]
    """
    fewest, most = greedy_error_counts(mean_loss_nats, facts=facts, answers=answers, loss_cap_nats=loss_cap_nats)
    wrong = counted("wrong_facts", wrong_facts, least=0)
    return (fewest <= wrong) & (wrong <= most)


def sampled_region_contains(
    mean_loss_nats: ArrayLike,
    error_rate: ArrayLike,
    *,
    facts: ArrayLike | None = None,
    loss_cap_nats: ArrayLike = np.inf,
) -> NDArray[np.bool_]:
    """Whether some network has this mean loss and this H_sampled (T6); exact but for rounding outward.

    >>> sampled_region_contains(1.0, [0.6, 0.7]).tolist()
    [True, False]
    """
    low, high = sampled_error_rates(mean_loss_nats, facts=facts, loss_cap_nats=loss_cap_nats)
    rate = non_negative("error_rate", error_rate)
    return (low <= rate) & (rate <= high)


def _mean_loss_under_cap(mean_loss_nats: ArrayLike, loss_cap_nats: ArrayLike) -> tuple[Floats, Floats]:
    mean_loss = non_negative("mean_loss_nats", mean_loss_nats)
    loss_cap = non_negative("loss_cap_nats", loss_cap_nats)
    if np.any(below(mean_loss) > above(loss_cap)):
        raise ValueError("mean_loss_nats must not exceed loss_cap_nats: a mean is at most the largest")
    return np.minimum(mean_loss, loss_cap), loss_cap

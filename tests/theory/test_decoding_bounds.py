"""The decoding bounds against brute force, mpmath, their limits and their inverses."""

import itertools
import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from theory import decoding, memorizers

LN2 = math.log(2.0)
losses = st.floats(0.0, 20.0, allow_subnormal=False)


def exact_counts(mean, facts, answers, cap):
    """T2 word by word: every k whose interval holds nL, by mpmath."""
    with mpmath.workdps(50):
        total = facts * mpmath.mpf(mean)
        ln2, log_answers = mpmath.log(2), mpmath.log(answers)
        feasible = []
        for k in range(facts + 1):
            if k and cap < ln2:
                continue
            end = k * mpmath.mpf(cap) + (facts - k) * min(mpmath.mpf(cap), log_answers)
            closed = k == facts or cap < log_answers
            if k * ln2 <= total and (total < end or (closed and total == end)):
                feasible.append(k)
        return min(feasible), max(feasible)


@given(st.integers(1, 12), st.integers(2, 40), st.floats(0.1, 6.0), st.floats(0.0, 1.0))
def test_greedy_counts_agree_with_the_statement_in_mpmath(facts, answers, cap, share):
    mean = share * cap
    fewest, most = decoding.greedy_error_counts(mean, facts=facts, answers=answers, loss_cap_nats=cap)
    true_fewest, true_most = exact_counts(mean, facts, answers, cap)
    assert fewest <= true_fewest <= true_most <= most  # never excludes what is possible
    less, more = 1 - 1e-12, 1 + 1e-12  # equal but for the rounding of the loss, and of a cap that it may lie on
    near_end = mean >= cap * (1 - 1e-9)
    assert fewest >= exact_counts(mean * less, facts, answers, cap)[0] or near_end
    assert most <= exact_counts(mean * more, facts, answers, cap * more)[1]


@given(st.integers(1, 12), st.floats(0.05, 8.0), st.floats(0.0, 1.0))
def test_sampled_rates_enclose_mpmath_tightly(facts, cap, share):
    mean = share * cap
    low, high = decoding.sampled_error_rates(mean, facts=facts, loss_cap_nats=cap)
    with mpmath.workdps(40):
        total = facts * mpmath.mpf(mean)
        full = mpmath.floor(total / cap)
        exact = (full * -mpmath.expm1(-mpmath.mpf(cap)) - mpmath.expm1(-(total - full * cap))) / facts
        exact_high = -mpmath.expm1(-mpmath.mpf(mean))
        assert low <= exact <= low + 1e-13
        assert high * (1 - 1e-14) <= exact_high <= high


@given(st.lists(losses, min_size=2, max_size=20))
def test_bounds_are_monotone_in_the_loss(values):
    ordered = np.sort(values)
    for low, high in (
        decoding.greedy_error_rates(ordered, answers=32, facts=9),
        decoding.greedy_error_rates(ordered, answers=32),
        decoding.greedy_error_rates(ordered, answers=4, facts=9, loss_cap_nats=20.0),
        decoding.sampled_error_rates(ordered, facts=9),
        decoding.sampled_error_rates(ordered, facts=9, loss_cap_nats=20.0),
        decoding.sampled_error_rates(ordered, loss_cap_nats=20.0),
    ):
        assert np.all(np.diff(low) >= -1e-15)
        assert np.all(np.diff(high) >= 0.0)
        assert np.all((low >= 0.0) & (low <= high) & (high <= 1.0))


def test_limits():
    fewest, most = decoding.greedy_error_counts([0.0, math.inf], facts=5, answers=3)
    assert fewest.tolist() == [0, 1]  # an infinite mean takes one fact of probability 0, not all
    assert most.tolist() == [0, 5]
    assert decoding.sampled_error_rates(0.0, facts=5) == (0.0, 0.0)
    low, high = decoding.sampled_error_rates(math.inf, facts=4)
    assert (low, high) == (pytest.approx(0.25), 1.0)
    assert decoding.fact_verdict(0.0, 2) == "right"
    assert decoding.fact_verdict(math.inf, 2) == "wrong"
    assert decoding.fact_verdict(LN2, 2) == "either"  # the threshold itself: rounding decides
    assert decoding.exact_decoding_probability(math.inf) == 0.0


@pytest.mark.parametrize("facts", [1, 3, 7, 10, 49, 1000, 10**6])
def test_no_error_below_ln2_over_n_and_one_at_it(facts):
    assert decoding.greedy_error_counts(LN2 / facts * (1 - 1e-12), facts=facts, answers=5)[1] == 0
    assert decoding.greedy_error_counts(LN2 / facts, facts=facts, answers=5)[1] == 1


def test_many_facts_are_the_limit_of_finite_ones():
    mean = np.linspace(0.0, 5.0, 30)
    for of_many, of_finite in (
        (decoding.greedy_error_rates(mean, answers=8, loss_cap_nats=5.0), {"facts": 10**6, "answers": 8}),
    ):
        finite = decoding.greedy_error_rates(mean, loss_cap_nats=5.0, **of_finite)
        np.testing.assert_allclose(of_many, finite, atol=2e-6)
    of_many = decoding.sampled_error_rates(mean, loss_cap_nats=5.0)
    np.testing.assert_allclose(of_many, decoding.sampled_error_rates(mean, facts=10**6, loss_cap_nats=5.0), atol=2e-6)


@pytest.mark.parametrize("bad", [math.nan, -1e-9, -math.inf])
def test_bad_losses_are_refused(bad):
    for call in (
        lambda: decoding.fact_verdict(bad, 3),
        lambda: decoding.greedy_error_counts(bad, facts=3, answers=3),
        lambda: decoding.greedy_error_rates([0.1, bad], answers=3),
        lambda: decoding.sampled_error_rates(bad),
        lambda: decoding.sampled_error_rates(0.0, loss_cap_nats=bad),
        lambda: decoding.exact_decoding_probability(bad),
        lambda: decoding.wrong_fact_count_upper(bad, 1, 1),
        lambda: decoding.sampled_region_contains(1.0, bad),
    ):
        with pytest.raises(ValueError, match="must be >= 0 and not NaN"):
            call()


@pytest.mark.parametrize(("facts", "answers"), [(0, 3), (2.5, 3), (3, 1), (math.nan, 3), (math.inf, 3), (3, -2)])
def test_bad_counts_are_refused(facts, answers):
    with pytest.raises(ValueError, match="must be"):
        decoding.greedy_error_counts(1.0, facts=facts, answers=answers)


def test_a_mean_above_the_cap_is_refused():
    with pytest.raises(ValueError, match="must not exceed"):
        decoding.greedy_error_counts(2.0, facts=3, answers=3, loss_cap_nats=1.0)


@given(st.integers(2, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_whole_answers_by_enumerating_every_sequence(vocabulary, length, random):
    """T4 in full: an autoregressive table over all prefixes, all sequences enumerated, greedy decoding run."""
    rows = {
        prefix: np.array([random.choice([0.5, 1.0, 2.0, 7.0]) for _ in range(vocabulary)])
        for size in range(length)
        for prefix in itertools.product(range(vocabulary), repeat=size)
    }
    chances = {prefix: row / row.sum() for prefix, row in rows.items()}
    answer = tuple(random.randrange(vocabulary) for _ in range(length))
    by_sequence = {
        sequence: math.prod(chances[sequence[:i]][sequence[i]] for i in range(length))
        for sequence in itertools.product(range(vocabulary), repeat=length)
    }
    assert math.fsum(by_sequence.values()) == pytest.approx(1.0)
    token_losses = [-math.log(chances[answer[:i]][answer[i]]) for i in range(length)]
    assert decoding.exact_decoding_probability(math.fsum(token_losses)) == pytest.approx(by_sequence[answer], rel=1e-12)
    decoded = ()
    for _ in range(length):
        decoded += (int(chances[decoded].argmax()),)
    if decoded != answer:
        assert decoding.wrong_fact_count_upper(math.fsum(token_losses) / length, 1, length) == 1
    if max(token_losses) < LN2 * (1 - 1e-12):
        assert decoded == answer


def test_the_llama_number():
    assert decoding.exact_decoding_probability(32 * 1.75) == pytest.approx(math.exp(-56))
    assert decoding.wrong_fact_count_upper(0.0217, 1, 32) == 1
    assert decoding.wrong_fact_count_upper(0.0216, 1, 32) == 0


@given(st.integers(1, 9), st.integers(2, 6), st.floats(0.0, 1.0), st.data())
def test_networks_come_back_where_they_were_wanted(facts, answers, height, data):
    wrong = data.draw(st.integers(0, facts))
    mean = data.draw(st.floats(wrong * LN2 / facts + 1e-9, wrong * LN2 / facts + (facts - wrong) / facts * 0.6 + 0.01))
    labels = np.arange(facts) % answers
    try:
        wanted = memorizers.greedy_losses(mean, wrong, facts=facts, answers=answers)
    except ValueError:
        assert not decoding.greedy_region_contains(mean * (1 - 1e-9), wrong, facts=facts, answers=answers) or (
            wrong == 0 and mean >= math.log(answers) * (1 - 1e-9)
        )
        return
    logits = memorizers.logits_with_losses(wanted, np.arange(facts) < wrong, labels, answers)
    assert memorizers.cross_entropies(logits, labels).mean() == pytest.approx(mean, abs=1e-12)
    assert memorizers.greedy_wrong(logits, labels).sum() == wrong
    low, high = decoding.sampled_error_rates(mean, facts=facts)
    rate = min(float(high), float(low + height * (high - low)))
    sampled = memorizers.sampled_losses(mean, rate, facts=facts)
    assert sampled.mean() == pytest.approx(mean, abs=1e-12)
    assert -np.expm1(-sampled).mean() == pytest.approx(rate, abs=1e-12)


def test_points_outside_the_region_have_no_network():
    with pytest.raises(ValueError, match="impossible"):
        memorizers.greedy_losses(0.1, 8, facts=10, answers=4)
    with pytest.raises(ValueError, match="impossible"):
        memorizers.sampled_losses(1.0, 0.7, facts=10)

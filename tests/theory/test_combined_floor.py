"""The combined floor of samples and bits: limits, monotonicity, every learner of tiny worlds, mpmath, its policy."""

import math
from itertools import combinations_with_replacement, pairwise, product

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings

from theory import capacity, floor, unseen
from theory.floor_claims import SmallWorld

laws = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=6).map(lambda w: [x / math.fsum(w) for x in w])
samples = st.one_of(st.integers(0, 1000), st.just(math.inf))
costs = st.sampled_from([1.0, 0.6, 0.3, 0.05, 0.001])


@given(samples, laws, st.integers(2, 100), costs)
def test_without_a_limit_on_bits_it_is_the_unseen_floor_exactly(n, law, answers, cost):
    wanted = floor.unseen_lower(n, law, answers, cost)
    assert floor.hallucination_lower(n, math.inf, law, answers, cost) == wanted
    assert floor.hallucination_lower(n, floor.bits_enough(n, law, answers), law, answers, cost) == wanted
    assert wanted == pytest.approx(min(cost, 1 - 1 / answers) * unseen.missing_mass(law, n), rel=1e-13)


@given(st.floats(0.0, 1.2), laws, st.integers(2, 100), costs)
def test_without_a_limit_on_samples_it_is_the_capacity_floor_exactly(share, law, answers, cost):
    bits = share * len(law) * math.log2(answers)
    limit = floor.capacity_lower(bits, law, answers, cost)
    assert floor.hallucination_lower(math.inf, bits, law, answers, cost) == limit
    assert floor.hallucination_lower(10**9, bits, law, answers, cost) == pytest.approx(limit, abs=1e-12)


@given(st.integers(1, 300), st.floats(0.0, 1.1), st.integers(2, 100))
def test_for_equal_frequencies_it_is_the_distortion_of_capacity(facts, share, answers):
    bits = share * facts * math.log2(answers)
    ours, theirs = floor.capacity_lower(bits, [1 / facts] * facts, answers), capacity.error_lower(facts, bits, answers)
    assert ours == pytest.approx(float(theirs), abs=3e-7)  # D is rounded down by up to 1e-7 near rate 0
    if 0.05 < share < 0.95:
        assert ours == pytest.approx(float(theirs), rel=1e-10)


@given(laws, st.integers(2, 40), costs)
@settings(max_examples=12)
def test_it_falls_with_samples_and_with_bits(law, answers, cost):
    sizes = [0, 1, 2, 5, 20, 100, 10**4, math.inf]
    budgets = np.linspace(0.0, 1.1 * len(law) * math.log2(answers), 8)
    table = np.array([[floor.hallucination_lower(n, b, law, answers, cost) for b in budgets] for n in sizes])
    assert np.all(np.diff(table, axis=0) <= 1e-13)
    assert np.all(np.diff(table, axis=1) <= 1e-13)
    assert table[0] == pytest.approx(min(cost, 1 - 1 / answers))
    assert np.all(table >= np.array([floor.unseen_lower(n, law, answers, cost) for n in sizes])[:, None])


@given(samples, st.floats(0.01, 0.99), laws, st.integers(2, 40), costs)
def test_the_optimal_policy_attains_it_and_spends_the_budget(n, share, law, answers, cost):
    bits = share * floor.bits_enough(n, law, answers)
    if bits == 0.0:
        return
    policy = floor.optimal_policy(n, bits, law, answers, cost)
    p, seen = np.array(law), unseen.seen_probability(law, n)
    guess = min(cost, 1 - 1 / answers)
    paid = policy.memorized * policy.error_rate + (1 - policy.memorized) * guess
    value = float(p @ (seen * paid + (1 - seen) * guess))
    assert value == pytest.approx(floor.hallucination_lower(n, bits, law, answers, cost), rel=1e-9, abs=1e-12)
    assert float(seen @ (policy.memorized * policy.bits)) == pytest.approx(bits, rel=1e-6)
    more_frequent = p > policy.threshold_frequency * (1 + 1e-8)
    assert np.all(policy.memorized[more_frequent] == 1.0)
    assert np.all(policy.memorized[p < policy.threshold_frequency * (1 - 1e-8)] == 0.0)


@settings(max_examples=15)
@given(st.integers(0, 300), st.floats(0.05, 0.95), laws, st.integers(2, 40), costs)
def test_it_agrees_with_mpmath(n, share, law, answers, cost):
    bits = share * floor.bits_enough(n, law, answers)
    got = floor.hallucination_lower(n, bits, law, answers, cost)
    with mpmath.workdps(50):
        p = [mpmath.mpf(x) for x in law]
        s = [1 - (1 - x) ** n for x in p]
        guess = min(mpmath.mpf(cost), 1 - mpmath.mpf(1) / answers)

        def dual(log_price):
            price = mpmath.exp(log_price)
            value = guess * mpmath.fsum(x * (1 - y) for x, y in zip(p, s, strict=True)) - price * mpmath.mpf(bits)
            for x, y in zip(p, s, strict=True):
                phi = mpmath.log(answers, 2) - mpmath.log(1 + (answers - 1) * mpmath.mpf(2) ** (-x / price), 2)
                value += y * price * min(phi, cost * x / price)
            return value

        # The dual is concave in the price, so a top inside any interval is the top.
        middle = (
            mpmath.log(floor.optimal_policy(n, bits, law, answers, cost).price_of_a_bit) if bits else mpmath.mpf(40)
        )
        low, high = middle - 0.01, middle + 0.01
        for _ in range(80):
            third = (high - low) / 3
            low, high = (low + third, high) if dual(low + third) < dual(high - third) else (low, high - third)
        assert not bits or abs(low - middle) < 0.009
        wanted = max(dual(low), guess * mpmath.fsum(x * (1 - y) for x, y in zip(p, s, strict=True)))
    assert got <= wanted * (1 + mpmath.mpf(10) ** -40)
    assert got == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, math.inf])
@pytest.mark.parametrize("cost", [1.0, 0.3, 0.05])
def test_no_learner_of_a_tiny_world_is_below_it(n, cost):
    """Every set of up to three states, each sure of an answer or silent on each of two questions."""
    sure = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    states = list(product(sure, repeat=2))
    for law in ((1, 1), (3, 1)):
        for size in (1, 2, 3):
            best = min(
                SmallWorld(law, n, 2, cost, chosen).least_cost()
                for chosen in combinations_with_replacement(states, size)
            )
            bound = floor.hallucination_lower(n, math.log2(size), np.array(law) / sum(law), 2, cost)
            assert bound <= best + 1e-13
            assert bound >= 0.2 * best  # and not far below either


def test_singletons_stand_for_the_law():
    law = floor.power_law(200, 1.0)
    share = unseen.singleton_share(law, 300)
    below = floor.unseen_lower_from_singletons(share, 300, 32)
    assert floor.unseen_lower(300, law, 32) - 2 / 300 <= below <= floor.unseen_lower(300, law, 32)


@given(samples, st.floats(0.0, 1.2), laws, st.sampled_from([2, 5, 32]))
def test_cheap_abstention_turns_the_floor_into_coverage(n, share, law, answers):
    """As c -> 0 nobody errs, and the cost per c is the share that is not covered."""
    bits, cost = share * len(law) * math.log2(answers), 1e-6
    uncovered = floor.hallucination_lower(n, bits, law, answers, cost) / cost
    assert 1.0 - uncovered == pytest.approx(floor.coverage_upper(n, bits, law, answers), abs=1e-5)


def test_coverage_limits():
    law = [0.5, 0.3, 0.2]
    assert floor.coverage_upper(math.inf, 0.0, law, 4) == 0.0
    assert floor.coverage_upper(math.inf, 4.0, law, 4) == pytest.approx(0.8)
    assert floor.coverage_upper(math.inf, 5.0, law, 4) == pytest.approx(0.9)
    assert floor.coverage_upper(math.inf, math.inf, law, 4) == 1.0
    assert floor.coverage_upper(3, math.inf, law, 4) == pytest.approx(1.0 - unseen.missing_mass(law, 3))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
@pytest.mark.parametrize(("answers", "cost"), [(2, 0.3), (32, 0.1), (1000, 0.5)])
def test_the_threshold_rank_is_where_the_policy_stops(alpha, answers, cost):
    law = floor.power_law(4000, alpha)
    rank = floor.threshold_rank(1.0, alpha, answers, cost)
    policy = floor.optimal_policy(math.inf, 1000 / rank, law, answers, cost)
    assert float(policy.memorized.sum()) == pytest.approx(1000, abs=3)
    assert policy.threshold_frequency == pytest.approx(law[999], rel=0.01)


def test_exponents_of_the_floor_under_a_power_law():
    """Left over by bits: B^-(alpha - 1). Left over by samples: N^-(1 - 1/alpha)."""
    alpha, law = 2.0, floor.power_law(60_000, 2.0)
    by_bits = [floor.hallucination_lower(math.inf, bits, law, 32, 0.1) for bits in (500.0, 4000.0)]
    assert math.log(by_bits[1] / by_bits[0]) / math.log(8) == pytest.approx(-(alpha - 1), abs=0.03)
    by_samples = [floor.hallucination_lower(n, math.inf, law, 32, 0.1) for n in (10**4, 8 * 10**4)]
    assert math.log(by_samples[1] / by_samples[0]) / math.log(8) == pytest.approx(-(1 - 1 / alpha), abs=0.03)


@given(st.integers(2, 10**6), st.floats(1e-4, 0.49))
def test_worth_memorizing_solves_its_equation(answers, cost):
    worth = floor.worth_memorizing(answers, cost)
    with mpmath.workdps(50):
        x = mpmath.mpf(worth)
        phi = mpmath.log(answers, 2) - mpmath.log(1 + (answers - 1) * mpmath.mpf(2) ** -x, 2)
        assert float(phi / (cost * x)) == pytest.approx(1.0, rel=1e-12)


def test_worth_memorizing_at_the_ends():
    assert floor.worth_memorizing(4, 0.75) == 0.0
    assert floor.worth_memorizing(4, 0.0) == math.inf
    rising = [floor.worth_memorizing(4, cost) for cost in (0.75, 0.7, 0.5, 0.1, 0.01)]
    assert all(low < high for low, high in pairwise(rising))


def test_a_large_law_takes_no_more_than_seconds():
    law = floor.power_law(100_000, 1.2)
    value = floor.hallucination_lower(10**5, 10**5, law, 32)
    assert max(floor.unseen_lower(10**5, law, 32), floor.capacity_lower(10**5, law, 32)) <= value < 31 / 32


@pytest.mark.parametrize(
    "call",
    [
        lambda: floor.hallucination_lower(math.nan, 1.0, [1.0], 2),
        lambda: floor.hallucination_lower(1, -1.0, [1.0], 2),
        lambda: floor.hallucination_lower(1, math.nan, [1.0], 2),
        lambda: floor.hallucination_lower(1, 1.0, [0.5], 2),
        lambda: floor.hallucination_lower(1, 1.0, [1.0], 1),
        lambda: floor.hallucination_lower(1, 1.0, [1.0], 2, -0.5),
        lambda: floor.hallucination_lower(1.5, 1.0, [1.0], 2),
        lambda: floor.optimal_policy(1, math.inf, [1.0], 2),
        lambda: floor.threshold_rank(10.0, 2.0, 2, 0.5),
        lambda: floor.power_law(0, 1.0),
        lambda: floor.unseen_lower_from_singletons(-0.1, 10, 2),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError, match=r"must|needs"):
        call()

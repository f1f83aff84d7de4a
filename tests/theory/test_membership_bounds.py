"""Bounds on telling keys from the rest: mpmath, limits, and a Bloom filter that obeys them."""

import hashlib
import math
from itertools import pairwise

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import assume, given

from theory import membership

score_laws = st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any)


def _law(weights):
    return [weight / sum(weights) for weight in weights]


@given(score_laws, score_laws, st.floats(1e-9, 0.99))
def test_divergence_is_mutual_information_per_key(keys, others, share):
    k, q = _law(keys), _law(others)
    with mpmath.workdps(50):
        p = mpmath.mpf(share)
        information = mpmath.mpf(0)
        for a, b in zip(map(mpmath.mpf, k), map(mpmath.mpf, q), strict=True):
            m = p * a + (1 - p) * b
            information += p * a * mpmath.log(a / m, 2) if a else 0
            information += (1 - p) * b * mpmath.log(b / m, 2) if b else 0
        wanted = float(information / p)
    assert membership.divergence_bits(k, q, share) == pytest.approx(wanted, rel=1e-12, abs=3e-15)


@given(score_laws, score_laws)
def test_divergence_rises_to_its_limit(keys, others):
    k, q = _law(keys), _law(others)
    shares = [0.9, 0.5, 0.1, 1e-3, 1e-6, 0.0]
    rising = [membership.divergence_bits(k, q, share) for share in shares]
    assert all(low <= high + 1e-12 for low, high in pairwise(rising))
    if math.isfinite(rising[-1]):
        assert rising[-2] == pytest.approx(rising[-1], abs=1e-3)


@given(st.integers(1, 3000), st.integers(1, 10**9), st.floats(0.0, 1.0), st.integers(1, 1000), st.floats(0.0, 1e6))
def test_count_agrees_with_mpmath(keys, more, share, values, bits):
    universe = keys + more
    answered = keys + int(share * more)
    with mpmath.workdps(60):
        ratio = mpmath.loggamma(universe + 1) - mpmath.loggamma(universe - keys + 1)
        ratio -= mpmath.loggamma(answered + 1) - mpmath.loggamma(answered - keys + 1)
        asked = ratio / mpmath.log(2) + keys * mpmath.log(values, 2)
        lower = membership.answered_bits_lower(keys, universe, answered, values)
        assert lower <= asked + mpmath.mpf(10) ** -40
        assert lower >= asked * (1 - mpmath.mpf(10) ** -12)
        most = membership.answered_log2_probability(keys, universe, answered, bits, values)
        wanted = min(mpmath.mpf(0), bits - asked)
        assert wanted <= most + mpmath.mpf(10) ** -40
        assert most <= wanted + mpmath.mpf(10) ** -12 * (bits + asked + 1)
    rough = keys * (math.log2(values) + math.log2(universe / answered))
    assert lower >= rough * (1 - 1e-12) - 1e-12


def test_count_of_many_keys_is_summed_in_pieces():
    keys, universe, answered = 3 * 2**20 + 5, 2**30, 2**24
    with mpmath.workdps(40):
        ratio = mpmath.loggamma(universe + 1) - mpmath.loggamma(universe - keys + 1)
        ratio -= mpmath.loggamma(answered + 1) - mpmath.loggamma(answered - keys + 1)
        wanted = float(ratio / mpmath.log(2))
    assert membership.answered_bits_lower(keys, universe, answered) == pytest.approx(wanted, rel=1e-12)


@given(st.floats(1e-6, 50.0), st.floats(1e-12, 10.0))
def test_log_loss_limit_agrees_with_mpmath(key_loss, other_loss):
    with mpmath.workdps(60):
        share = mpmath.mpf(other_loss) / -mpmath.log(1 - mpmath.exp(-mpmath.mpf(key_loss)))
        wanted = max(mpmath.mpf(0), -mpmath.log(share, 2))
        positive = mpmath.exp(-mpmath.mpf(key_loss)) + mpmath.exp(-mpmath.mpf(other_loss)) > 1
    got = float(membership.log_loss_bits_limit(key_loss, other_loss))
    assert got == pytest.approx(float(wanted), rel=1e-12, abs=1e-12)
    if got > 1e-9:
        assert positive


def test_divergence_is_no_bound_at_half_the_universe():
    """Two bits per key store any set of keys of half the universe exactly, where the divergence is infinite."""
    keys, universe = 50, 100
    assert membership.divergence_bits([0, 1], [1, 0], 0.0) == math.inf
    stored = math.log2(math.comb(universe, keys)) / keys
    assert membership.score_bits_lower([0, 1], [1, 0], keys, universe) <= stored < 2.0
    assert membership.score_bits_lower([0, 1], [1, 0], keys, universe) > 1.9


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 200))
def test_more_answers_cost_less(keys, more, extra):
    universe = keys + more
    answers = [membership.answered_bits_lower(keys, universe, keys + step) for step in range(more + 1)]
    assert all(high >= low for high, low in pairwise(answers))
    assert answers[-1] == 0.0
    assume(extra > more)
    assert membership.answered_bits_lower(keys, universe, keys + extra) == 0.0


class BloomFilter:
    def __init__(self, bits, hashes):
        self.bits, self.hashes = np.zeros(bits, dtype=bool), hashes

    def places(self, item):
        digest = hashlib.sha256(str(item).encode()).digest()
        return [int.from_bytes(digest[4 * i : 4 * i + 4], "big") % len(self.bits) for i in range(self.hashes)]

    def add(self, item):
        self.bits[self.places(item)] = True

    def __contains__(self, item):
        return bool(self.bits[self.places(item)].all())


@pytest.mark.parametrize("bits_per_key", [4, 8])
def test_a_bloom_filter_obeys_the_bound_within_its_known_loss(bits_per_key):
    """It spends 1/ln 2 = 1.44 times the bound on a filter of the same false answers."""
    universe, keys = 6000, 300
    chosen = np.random.default_rng(0).choice(universe, size=keys, replace=False)
    bloom = BloomFilter(bits_per_key * keys, round(bits_per_key * math.log(2)))
    for item in chosen:
        bloom.add(int(item))
    answered = sum(item in bloom for item in range(universe))
    assert all(int(item) in bloom for item in chosen)
    least = membership.answered_bits_lower(keys, universe, answered, failure_bits=40.0)
    assert bits_per_key * keys >= least
    false_answers = float(membership.false_answer_bits_lower((answered - keys) / (universe - keys)))
    assert 1.2 <= bits_per_key / false_answers <= 1.7


@pytest.mark.parametrize(
    "call",
    [
        lambda: membership.divergence_bits([0.5, 0.4], [0.5, 0.5], 0.1),
        lambda: membership.divergence_bits([1.0], [0.5, 0.5], 0.1),
        lambda: membership.divergence_bits([1.0], [1.0], 1.0),
        lambda: membership.score_bits_lower([1.0], [1.0], 3, 3),
        lambda: membership.answered_bits_lower(3, 3, 3),
        lambda: membership.answered_bits_lower(0, 3, 3),
        lambda: membership.answered_bits_lower(1, 3, 2, values=0),
        lambda: membership.log_loss_bits_limit(math.nan, 0.1),
        lambda: membership.false_answer_bits_lower(1.5),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_edges():
    assert membership.answered_bits_lower(3, 10, 2) == math.inf
    assert membership.answered_log2_probability(3, 10, 2, 5.0) == -math.inf
    assert float(membership.log_loss_bits_limit(0.1, 0.0)) == math.inf
    assert float(membership.log_loss_bits_limit(5.0, 5.0)) == 0.0
    assert float(membership.false_answer_bits_lower(0.0)) == math.inf

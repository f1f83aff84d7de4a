"""Entropies against brute force: every arrangement, every conditional distribution."""

import doctest
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import sims.entropy
import sims.tokens
from sims.entropy import arrangement_bits, conflict_floor_nats, entropy_bits, label_entropy_bits
from theory.conflicts import loss_floor_nats

small_labels = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=10))
def test_entropy_is_the_sum_over_shares(counts):
    total = sum(counts)
    assume(total > 0)
    expected = math.fsum(-c / total * math.log2(c / total) for c in counts if c)
    assert entropy_bits(counts) == pytest.approx(expected, abs=1e-12)
    assert 0.0 <= entropy_bits(counts) <= math.log2(len(counts)) + 1e-12


def test_entropy_of_equal_and_single_classes():
    assert entropy_bits([7]) == entropy_bits([]) == entropy_bits([0, 3]) == 0.0
    assert label_entropy_bits(np.arange(1024)) == pytest.approx(10.0)


@given(small_labels, st.integers(0, 7))
def test_arrangement_bits_count_arrangements(labels, count):
    """Among all orders of the multiset, the share that begins with the same labels."""
    orders = set(itertools.permutations(labels))
    share = sum(order[:count] == tuple(labels[:count]) for order in orders) / len(orders)
    assert arrangement_bits(np.array(labels), min(count, len(labels))) == pytest.approx(-math.log2(share), abs=1e-9)


def test_arrangement_bits_of_distinct_answers_are_log_factorial():
    labels = np.random.default_rng(0).permutation(20_000)
    expected = math.lgamma(20_001) / math.log(2)
    assert arrangement_bits(labels, 20_000) == pytest.approx(expected, rel=1e-12)
    assert arrangement_bits(np.zeros(50, int), 50) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_conflict_floor_is_the_loss_of_the_frequencies(pairs):
    questions, labels = np.array(pairs).T
    asked, seen = Counter(questions.tolist()), Counter(pairs)
    best = math.fsum(-math.log(seen[pair] / asked[pair[0]]) for pair in pairs) / len(pairs)
    assert conflict_floor_nats(questions, labels) == pytest.approx(best, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9), st.integers(0, 2**32))
def test_no_predictor_is_below_the_conflict_floor(pairs, seed):
    questions, labels = np.array(pairs).T
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), size=3)
    loss = -np.log(probabilities[questions, labels]).mean()
    assert loss >= conflict_floor_nats(questions, labels) - 1e-12


def test_floor_is_exactly_zero_without_conflicts():
    questions = np.random.default_rng(0).permutation(1000)
    assert conflict_floor_nats(questions, questions % 7) == 0.0
    assert conflict_floor_nats(questions[:0], questions[:0]) == 0.0


def test_examples_in_docstrings():
    for module in (sims.entropy, sims.tokens):
        outcome = doctest.testmod(module)
        assert (outcome.failed, outcome.attempted) == (0, 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_conflict_floor_is_the_theorys(pairs):
    questions, labels = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    counts = [np.unique(labels[questions == q], return_counts=True)[1] for q in np.unique(questions)]
    floor = loss_floor_nats([[int(count) for count in answers] for answers in counts])
    assert conflict_floor_nats(questions, labels) == pytest.approx(floor, rel=1e-12, abs=1e-12)

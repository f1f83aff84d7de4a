"""Every measure against a plain loop, against an independent package where one exists, and at chance."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from sims.imagination import measures

OPTIONS = 4


def choices(seed, *shape, abstain=0.1):
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, OPTIONS, shape)
    return np.where(generator.random(shape) < abstain, -1, drawn)


def distributions(seed, *shape):
    return softmax(np.random.default_rng(seed).normal(size=(*shape, OPTIONS)) * 2, axis=-1)


def both(a, b):
    return [(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x >= 0 and y >= 0]


def by_hand_kappa(pairs):
    observed = sum(x == y for x, y in pairs) / len(pairs)
    expected = sum(
        sum(x == k for x, _ in pairs) / len(pairs) * sum(y == k for _, y in pairs) / len(pairs) for k in range(OPTIONS)
    )
    return observed, expected


@given(st.integers(0, 2**32 - 1))
def test_agreement_lift_and_kappa_are_what_a_loop_counts(seed):
    a, b = choices(seed, 40), choices(seed + 1, 40)
    observed, expected = by_hand_kappa(both(a, b))
    assert measures.agreement(a, b) == pytest.approx(observed)
    assert measures.lift(a, b, OPTIONS) == pytest.approx(observed / expected)
    assert measures.cohen_kappa(a, b, OPTIONS) == pytest.approx((observed - expected) / (1 - expected))


@given(st.integers(0, 2**32 - 1))
def test_fleiss_kappa_is_what_a_loop_counts(seed):
    raters = choices(seed, 5, 30, abstain=0.02)
    kept = [column for column in raters.T.tolist() if min(column) >= 0]
    alike = [
        sum(x == y for i, x in enumerate(column) for j, y in enumerate(column) if i != j) / (5 * 4) for column in kept
    ]
    frequency = [sum(column.count(k) for column in kept) / (5 * len(kept)) for k in range(OPTIONS)]
    expected = sum(share**2 for share in frequency)
    wanted = (sum(alike) / len(alike) - expected) / (1 - expected)
    assert measures.fleiss_kappa(raters, OPTIONS) == pytest.approx(wanted)


def test_fleiss_kappa_of_the_published_example():
    """The table of Fleiss 1971 as it is reprinted everywhere: 10 subjects, 14 raters, 5 categories, kappa .210."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    raters = np.array([np.repeat(np.arange(5), row) for row in counts]).T
    assert measures.fleiss_kappa(raters, 5) == pytest.approx(0.210, abs=5e-4)


@given(st.integers(0, 2**32 - 1))
def test_error_consistency_is_cohens_kappa_of_being_right(seed):
    a, b = choices(seed, 60, abstain=0) == 0, choices(seed + 1, 60, abstain=0) <= 1
    observed, expected = by_hand_kappa(list(zip(a.astype(int).tolist(), b.astype(int).tolist(), strict=True)))
    assert measures.error_consistency(a, b) == pytest.approx((observed - expected) / (1 - expected))


def test_capa_and_error_consistency_agree_with_an_independent_package():
    metrics = pytest.importorskip("lmsim.metrics", reason="lm-sim, the independent implementation, is not installed")
    a, b = distributions(1, 50), distributions(2, 50)
    right = choices(3, 50, abstain=0)
    wanted = metrics.CAPA(prob=True).compute_k(list(a), list(b), right.tolist())
    assert measures.capa(a, b, right) == pytest.approx(wanted)
    hard = [measures.one_hot(one.argmax(axis=-1), OPTIONS) for one in (a, b)]
    wanted = metrics.CAPA(prob=False).compute_k(list(hard[0]), list(hard[1]), right.tolist())
    assert measures.capa(*hard, right) == pytest.approx(wanted)
    wanted = metrics.EC().compute_k(list(hard[0]), list(hard[1]), right.tolist())
    assert measures.error_consistency(a.argmax(-1) == right, b.argmax(-1) == right) == pytest.approx(wanted)


@given(st.integers(0, 2**32 - 1))
def test_capa_is_what_a_loop_counts(seed):
    a, b, right = distributions(seed, 20), distributions(seed + 1, 20), choices(seed, 20, abstain=0)
    a[3] = np.nan  # not answered
    kept = [i for i in range(20) if i != 3]
    observed = sum(float(np.dot(a[i], b[i])) for i in kept) / 19
    p_a, p_b = (sum(float(p[i, right[i]]) for i in kept) / 19 for p in (a, b))
    expected = p_a * p_b + (1 - p_a) * (1 - p_b) / 3
    assert measures.capa(a, b, right) == pytest.approx((observed - expected) / (1 - expected))


@given(st.integers(0, 2**32 - 1))
def test_wrong_agreement_is_what_a_loop_counts(seed):
    a, b, right = choices(seed, 60), choices(seed + 1, 60), choices(seed + 2, 60, abstain=0)
    wrong = [(x, y) for x, y, z in zip(a, b, right, strict=True) if x >= 0 and y >= 0 and z not in (x, y)]
    assert measures.wrong_agreement(a, b, right) == pytest.approx(sum(x == y for x, y in wrong) / len(wrong))


@given(st.integers(0, 2**32 - 1))
def test_distributions_and_logits_are_what_a_loop_counts(seed):
    a, b = distributions(seed, 10), distributions(seed + 1, 10)
    bits = 0.0
    for p, q in zip(a, b, strict=True):
        for x, y in zip(p, q, strict=True):
            bits += 0.5 * (x * math.log2(2 * x / (x + y)) + y * math.log2(2 * y / (x + y)))
    assert measures.jensen_shannon_similarity(a, b) == pytest.approx(1 - bits / 10)
    assert measures.coincidence(a, b) == pytest.approx(sum(float(p @ q) for p, q in zip(a, b, strict=True)) / 10)
    x, y = np.log(a), np.log(b)
    centered = [(one - one.mean(axis=1, keepdims=True)).ravel() for one in (x, y)]
    assert measures.logit_correlation(x, y) == pytest.approx(np.corrcoef(*centered)[0, 1])


def test_leading_axes_are_pairs():
    a, b = choices(0, 6, 50), choices(1, 6, 50)
    for name in ("lift", "cohen_kappa"):
        together = getattr(measures, name)(a, b, OPTIONS)
        assert together == pytest.approx(
            [float(getattr(measures, name)(x, y, OPTIONS)) for x, y in zip(a, b, strict=True)]
        )
    assert measures.agreement(a, b).shape == (6,)


def test_the_same_answers_reach_the_top_and_independent_ones_are_at_chance():
    a, b = choices(0, 40_000, abstain=0), choices(1, 40_000, abstain=0)
    right, p, q = choices(2, 40_000, abstain=0), distributions(3, 40_000), distributions(4, 40_000)
    hot = measures.one_hot(a, OPTIONS)
    for same in (
        measures.cohen_kappa(a, a, OPTIONS),
        measures.fleiss_kappa(np.stack([a, a, a]), OPTIONS),
        measures.error_consistency(a == right, a == right),
        measures.capa(hot, hot, right),
        measures.jensen_shannon_similarity(p, p),
        measures.logit_correlation(np.log(p), np.log(p)),
    ):
        assert same == pytest.approx(1.0)
    for apart in (
        measures.cohen_kappa(a, b, OPTIONS),
        measures.fleiss_kappa(np.stack([a, b]), OPTIONS),
        measures.error_consistency(a == right, b == right),
        measures.capa(p, q, right),
        measures.logit_correlation(np.log(p), np.log(q)),
        measures.lift(a, b, OPTIONS) - 1,
        measures.wrong_agreement(a, b, right) - 1 / 3,
        measures.agreement(a, b) - 1 / 4,
    ):
        assert abs(float(apart)) < 0.02


def test_what_is_not_defined_is_nan():
    nobody = np.full(3, -1)
    assert math.isnan(measures.agreement(nobody, nobody))
    assert math.isnan(measures.cohen_kappa(np.zeros(3, int), np.zeros(3, int), OPTIONS))  # chance alone explains it
    assert math.isnan(measures.wrong_agreement(np.ones(3, int), np.ones(3, int), np.ones(3, int)))


def test_more_abstention_leaves_agreement_unbiased():
    a = choices(0, 20_000, abstain=0)
    b = np.where(np.random.default_rng(1).random(20_000) < 0.5, a, choices(2, 20_000, abstain=0))
    kept = [float(measures.agreement(np.where(choices(3, 20_000, abstain=s) < 0, -1, a), b)) for s in (0.0, 0.5, 0.9)]
    assert all(abs(x - y) < 0.03 for x, y in pairwise(kept))

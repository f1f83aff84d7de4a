"""Measures in float64: against mpmath, at ties, and where nothing is asked."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sims.measures import STORED_BELOW_NATS, confidence, measure

LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32))


@given(LOGITS, arrays(np.int32, 3, elements=st.integers(0, 3)))
def test_losses_agree_with_fifty_digits(logits, targets):
    with mpmath.workdps(50):
        for row, target, loss in zip(logits, targets, measure(logits, targets).loss_nats, strict=True):
            exact = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(z))) for z in row)) - float(row[target])
            assert loss == pytest.approx(float(exact), rel=1e-12, abs=1e-14)


@given(LOGITS, arrays(np.int32, 3, elements=st.integers(0, 3)))
def test_right_means_above_every_other_logit(logits, targets):
    right = [all(row[t] > z for v, z in enumerate(row) if v != t) for row, t in zip(logits, targets, strict=True)]
    measured = measure(logits, targets)
    assert measured.greedy_correct.tolist() == right
    assert np.all(measured.greedy_correct[measured.stored])  # T1: below ln 2 greedy decoding is right


def test_a_tie_is_an_error():
    assert not measure(np.zeros((1, 2), np.float32), np.array([0], np.int32)).greedy_correct[0]


def test_tokens_are_summed_and_the_worst_one_decides():
    logits = np.array([[[9, 0, 0], [0, 1, 0], [0, 0, 0]]], dtype=np.float32)
    facts = measure(logits, np.array([[0, 1, -1]], dtype=np.int32))
    first, second = np.log(np.exp(9) + 2) - 9, np.log(np.e + 2) - 1
    assert facts.loss_nats[0] == pytest.approx(first + second)
    assert facts.largest_token_loss_nats[0] == pytest.approx(second)
    assert facts.greedy_correct[0]
    assert facts.stored[0] == (second < STORED_BELOW_NATS)


def test_confidence_of_certain_and_of_flat():
    largest, entropy = confidence(np.array([[0, 0, 0, 0], [1000, 0, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(largest, [0.25, 1])
    np.testing.assert_allclose(entropy, [np.log(4), 0], atol=1e-12)

"""Bounds on unseen questions: other computations, limits, refusals."""

import math
from collections import Counter
from itertools import pairwise

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given

from theory import unseen
from theory.search import replayed
from theory.unseen_claims import Question, Validity, _validity

laws = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8).map(lambda w: [x / math.fsum(w) for x in w])


@given(st.floats(0.0, 1.0), st.integers(1, 50), st.integers(1, 1000), st.floats(-1.0, 1.0))
def test_classification_bound_is_below_the_exact_one(error, valid, invalid, gap):
    with mpmath.workdps(50):
        exact = 2 * mpmath.mpf(error) - mpmath.mpf(valid) / invalid - mpmath.mpf(gap)
        got = float(unseen.error_lower_from_classification(error, valid, invalid, gap))
        assert got <= exact
        assert got >= exact - 1e-14 * (2 + valid / invalid + abs(gap))


@given(st.floats(0.0, 1.0), st.integers(1, 10**9), st.integers(1, 10**6), st.floats(0.0, 1.0), st.floats(1e-12, 0.5))
def test_singleton_bound_is_below_the_exact_one(share, samples, invalid, gap, failure):
    with mpmath.workdps(50):
        lost = mpmath.mpf(2) / invalid + 6 * mpmath.log(3 * samples / mpmath.mpf(failure)) / mpmath.sqrt(samples)
        exact = mpmath.mpf(share) - lost - mpmath.mpf(gap)
        got = float(unseen.error_lower_from_singletons(share, samples, invalid, gap, failure))
        assert got <= exact
        assert got >= exact - 1e-13 * (1 + lost)


@given(laws, st.integers(1, 10**6), st.integers(2, 1000))
def test_missing_mass_agrees_with_mpmath(law, samples, answers):
    with mpmath.workdps(50):
        missing = mpmath.fsum(mpmath.mpf(p) * (1 - mpmath.mpf(p)) ** samples for p in law)
        singletons = mpmath.fsum(mpmath.mpf(p) * (1 - mpmath.mpf(p)) ** (samples - 1) for p in law)
        assert unseen.missing_mass(law, samples) == pytest.approx(float(missing), rel=1e-12, abs=1e-200)
        assert unseen.singleton_share(law, samples) == pytest.approx(float(singletons), rel=1e-12, abs=1e-200)
        wanted = float(missing * (1 - mpmath.mpf(1) / answers))
        assert unseen.memorizer_error(law, samples, answers) == pytest.approx(wanted, rel=1e-12, abs=1e-200)


@given(st.integers(1, 10**7))
def test_good_turing_constant_is_above_the_exact_one_and_close(samples):
    with mpmath.workdps(50):
        exact = mpmath.mpf(1) / samples * (1 - mpmath.mpf(1) / samples) ** (samples - 1)
        got = float(unseen.good_turing_excess_upper(samples))
        assert exact <= got <= exact * (1 + mpmath.mpf(10) ** -12)


@given(laws, st.integers(1, 10**5))
def test_good_turing_holds_for_any_law(law, samples):
    excess = unseen.singleton_share(law, samples) - unseen.missing_mass(law, samples)
    assert -1e-15 <= excess <= unseen.good_turing_excess_upper(samples) + 1e-15


def test_limits_of_sampling():
    law = [0.5, 0.3, 0.2, 0.0]
    assert unseen.missing_mass(law, 0) == 1.0
    assert unseen.missing_mass(law, math.inf) == 0.0
    assert unseen.seen_probability(law, math.inf).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert unseen.seen_probability(law, 1) == pytest.approx(law)
    assert unseen.missing_mass([1.0], 5) == 0.0
    falling = [unseen.missing_mass(law, samples) for samples in range(20)]
    assert all(low < high for high, low in pairwise(falling))


def test_counted_samples_have_the_expected_singletons():
    law = np.array([0.4, 0.3, 0.2, 0.1])
    rng = np.random.default_rng(0)
    shares = [
        sum(count == 1 for count in Counter(rng.choice(4, size=6, p=law).tolist()).values()) / 6 for _ in range(4000)
    ]
    assert np.mean(shares) == pytest.approx(unseen.singleton_share(law, 6), abs=5 * np.std(shares) / math.sqrt(4000))


def _jax_loss(world: Validity, scale):
    weights = jnp.array([question.weight for question in world.questions], dtype=jnp.float64)
    losses = []
    for question in world.questions:
        model = jnp.array((*question.valid, *question.invalid), dtype=jnp.float64)
        confident = jnp.array([question.called_valid(int(weight), world.threshold) for weight in model])
        logits = jnp.log(model) + jnp.where(confident, jnp.log(scale), 0.0)
        data = jnp.array(question.data, dtype=jnp.float64)
        losses.append(-(data / data.sum()) @ jax.nn.log_softmax(logits)[: len(question.data)])
    return weights @ jnp.stack(losses) / weights.sum()


@pytest.mark.parametrize("seed", range(3))
def test_slope_of_the_loss_by_autodiff_and_by_differences(seed):
    tape = np.random.default_rng(seed).random(60)
    world = _validity(replayed(tape.tolist()), (1, 2, 3), (1, 2, 3, 5, 8), least=1)
    with jax.enable_x64(True):
        slope = float(jax.grad(lambda scale: _jax_loss(world, scale))(jnp.array(1.0, dtype=jnp.float64)))
    assert slope == pytest.approx(world.overconfidence, abs=1e-12)
    step = 1e-5
    difference = (world.loss(1.0 + step) - world.loss(1.0 - step)).real / (2.0 * step)
    assert difference == pytest.approx(world.overconfidence, abs=1e-8)


def test_an_overconfident_model_shows_why_the_bound_is_signed():
    """All mass on one of two valid answers: no error, though half the valid answers are called invalid."""
    world = Validity((Question(1, (1, 1), (1, 0), (0,) * 9),))
    assert world.error == 0.0
    assert world.classification_error(world.threshold) == 0.25
    assert world.overconfidence == pytest.approx(0.5)
    assert float(unseen.error_lower_from_classification(0.25, 2, 9, 0.5)) < 0.0
    assert float(unseen.error_lower_from_classification(0.25, 2, 9, 0.0)) > 0.2


@given(st.floats(0.01, 0.99), st.floats(0.0, 1.0))
def test_answering_pays_above_the_confidence_only(target, confidence):
    gain = confidence - (1.0 - confidence) * float(unseen.wrong_answer_penalty(target))
    if abs(confidence - target) > 1e-12:
        assert (gain > 0) == (confidence > target)


def test_partition_and_invention():
    assert float(unseen.error_lower_from_partition(0.6, 3, 0.1)) == pytest.approx(0.1, abs=1e-14)
    assert float(unseen.error_lower_from_partition(0.6, 3, 0.1)) <= 0.1
    assert float(unseen.invention_probability_lower(0, 5)) == 1.0
    assert float(unseen.invention_probability_lower(7, 5)) == 0.0
    assert float(unseen.invention_probability_lower(10, 10**6)) == pytest.approx(1 - 1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: unseen.error_lower_from_classification(math.nan, 1, 1, 0.0),
        lambda: unseen.error_lower_from_classification(0.1, 0, 1, 0.0),
        lambda: unseen.error_lower_from_classification(0.1, 1, 1, 1.5),
        lambda: unseen.error_lower_from_classification(0.1, 1, 1, math.nan),
        lambda: unseen.error_from_classification(0.1, 1),
        lambda: unseen.error_lower_from_singletons(0.1, 0, 1),
        lambda: unseen.error_lower_from_singletons(0.1, 10, 1, failure_probability=0.0),
        lambda: unseen.wrong_answer_penalty(1.0),
        lambda: unseen.missing_mass([0.5, 0.4], 3),
        lambda: unseen.missing_mass([1.5, -0.5], 3),
        lambda: unseen.missing_mass([], 3),
        lambda: unseen.missing_mass([1.0], 2.5),
        lambda: unseen.missing_mass([1.0], math.nan),
        lambda: unseen.invention_probability_lower(1, 0),
    ],
)
def test_what_is_no_number_of_its_kind_is_refused(call):
    with pytest.raises(ValueError, match="must be"):
        call()

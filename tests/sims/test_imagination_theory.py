"""The kernel's prediction and the nearest-key law, each by a second method."""

import math

import numpy as np
import pytest

from sims.imagination import kernel
from sims.imagination.memories import Memories, examine_memories, nearest_key_agreement
from sims.imagination.world import World, corpora

SMALL = World(things=20, choices=5, families=2, topics=2, relations=2, shared_facts=0.5)


@pytest.mark.parametrize(("variance", "correlation"), [(0.6, 0.0), (0.6, 0.4), (2.0, 0.8), (1.0, 1.0)])
def test_gelu_duals_are_averages_over_normals(variance, correlation):
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 400_000))
    u, v = math.sqrt(variance) * a, math.sqrt(variance) * (correlation * a + math.sqrt(1 - correlation**2) * b)

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def slope(x):
        return (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5

    value, steepness = kernel.gelu_duals(variance, correlation)
    assert value == pytest.approx(float((gelu(u) * gelu(v)).mean()), abs=0.01)
    assert steepness == pytest.approx(float((slope(u) * slope(v)).mean()), abs=0.01)


def test_the_predicted_correlation_is_that_of_kernel_regressions_on_random_values():
    weights = [kernel._weights(SMALL, corpus) for corpus in corpora(SMALL)]
    shared = SMALL.shared_things * SMALL.relations
    generator = np.random.default_rng(0)
    products = np.zeros(3)
    for _ in range(300):
        common = generator.integers(0, 16, shared)
        beliefs = []
        for one in weights:
            value = np.concatenate([common, generator.integers(0, 16, len(one) - shared)])
            beliefs.append((one.T @ (np.eye(16)[value] - 1 / 16)).ravel())
        a, b = beliefs
        products += [a @ b, a @ a, b @ b]
    found = products[0] / math.sqrt(products[1] * products[2])
    assert kernel.belief_correlation(SMALL) == pytest.approx(found, abs=0.02)


def test_the_kernel_interpolates_and_its_ends_are_none_and_all():
    corpus = corpora(SMALL)[0]
    facts = kernel.words(SMALL, corpus.questions)
    tangent = kernel.kernels(SMALL).tangent
    matrix = tangent[kernel._common(facts, facts)]
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert (np.diff(tangent) > 0).all()
    assert kernel.belief_correlation(World(shared_facts=0.0)) == 0.0
    assert kernel.belief_correlation(World(shared_facts=1.0)) == 1.0
    assert 0.9 < kernel.seed_correlation(SMALL, 0.01) < 1.0
    assert kernel.seed_correlation(SMALL, 2.0) < kernel.seed_correlation(SMALL, 0.01)
    with pytest.raises(ValueError, match="no rule"):
        kernel.belief_correlation(World(rule_share=0.5))


def test_the_nearest_key_law_holds_over_worlds_and_needs_one_router():
    one, own = [], []
    for seed in range(2):
        world = World(seed=seed, shared_facts=0.5)
        one.append(examine_memories(Memories(world)).metrics)
        if seed == 0:
            own.append(examine_memories(Memories(world, router="separate")).metrics)
    measured = np.mean([metrics["ungated_cross_family"] for metrics in one])
    assert abs(measured - nearest_key_agreement(0.5)) < 0.03
    assert own[0]["ungated_cross_family"] < measured - 0.08
    for metrics in (*one, *own):
        for gate in ("similarity", "fingerprint"):
            assert metrics[f"{gate}_abstains_imaginary"] >= 0.97
            assert metrics[f"{gate}_right_real"] == 1.0
    assert all(metrics["ungated_in_family"] == 1.0 for metrics in one)


def test_the_law_is_chance_and_unison_at_its_ends():
    assert nearest_key_agreement(0.0) == 0.25
    assert nearest_key_agreement(1.0) == 1.0
    with pytest.raises(ValueError, match="unknown router"):
        Memories(router="lost")

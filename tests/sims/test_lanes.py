"""Lanes: a run's numbers depend on the run alone, and every fact is shown as often as it was asked for."""

from collections import deque

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.facts import synthetic_facts
from sims.lanes import FactStream, Lanes
from sims.networks import Architecture
from sims.runs import Examples, Run
from sims.training import Recipe

ARCHITECTURE = Architecture("mlp", inputs=8, width=6, answers=4, layers=1, heads=1)
FACTS = synthetic_facts(200, seed=0, answers=4, feature_dim=8, unseen=16)
TOKENS = synthetic_facts(64, seed=0, answers=4, answer_tokens=2, question_tokens=3, unseen=16)


def _run(size: int = 50, seed: int = 0, architecture: Architecture = ARCHITECTURE, **recipe) -> tuple[Run, Examples]:
    settings = {"exposures": 20, "minibatch": 16} | recipe
    facts = TOKENS if architecture.name == "transformer" else FACTS
    run = Run(architecture, Recipe(**settings), facts.name, facts.fingerprint, facts.labels_random, size, seed)
    return run, Examples(facts, architecture)


def _train(*runs: tuple[Run, Examples]):
    waiting = deque(runs)
    lanes = Lanes(runs[0][0].architecture, runs[0][0].recipe, lambda: waiting.popleft() if waiting else None)
    return {trained.run.fingerprint: trained for trained in lanes.trained()}


def _assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.parameters, other.parameters)
    np.testing.assert_array_equal(one.facts.loss_nats, other.facts.loss_nats)
    np.testing.assert_array_equal(one.curve_loss_nats, other.curve_loss_nats)


@given(st.integers(1, 400), st.integers(1, 7), st.lists(st.integers(1, 97), min_size=1, max_size=30))
def test_the_stream_shows_each_fact_once_an_epoch_however_it_is_cut(size, exposures, cuts):
    stream, pieces = FactStream(size, seed=3, exposures=exposures), []
    while sum(map(len, pieces)) < size * exposures:
        pieces.append(stream.take(cuts[len(pieces) % len(cuts)]))
    shown = np.concatenate(pieces)
    whole = FactStream(size, seed=3, exposures=exposures).take(len(shown))
    np.testing.assert_array_equal(shown, whole)
    assert np.all(shown[size * exposures :] == -1)
    for epoch in shown[: size * exposures].reshape(exposures, size):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_epochs_are_shuffled_differently():
    epochs = FactStream(100, seed=1, exposures=3).take(300).reshape(3, 100)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.arange(100))
    assert not np.array_equal(epochs[0], FactStream(100, seed=2, exposures=1).take(100))


@pytest.mark.parametrize("name", ["mlp", "linear", "transformer"])
def test_a_run_has_the_same_bits_in_any_company(name):
    if name == "transformer":
        context = TOKENS.tokenized.tokens.shape[1] - 1
        architecture = Architecture(name, context, width=8, answers=TOKENS.tokenized.size, layers=1, heads=2)
    else:
        architecture = Architecture(name, inputs=8, width=6 if name == "mlp" else 1, answers=4, layers=1, heads=1)
    wanted = _run(33, seed=5, architecture=architecture)
    (alone,) = _train(wanted).values()
    others = [_run(size, seed, architecture) for size, seed in [(50, 0), (7, 1), (64, 2), (12, 3), (40, 4), (9, 6)]]
    for place in (0, 1, 3, 6):
        company = _train(*others[:place], wanted, *others[place:])
        assert len(company) == 7
        _assert_same_bits(alone, company[wanted[0].fingerprint])


def test_a_diverging_neighbor_is_recorded_and_harms_nobody():
    wanted, wild = _run(33, seed=5), _run(50, learning_rate=1e38, optimizer="sgd")
    (alone,) = _train(_run(33, seed=5, optimizer="sgd")).values()
    company = _train(wild, _run(33, seed=5, optimizer="sgd"))
    assert company[wild[0].fingerprint].diverged
    assert company[wild[0].fingerprint].facts is None
    _assert_same_bits(alone, company[alone.run.fingerprint])
    assert wanted[0].fingerprint not in company


def test_every_run_leaves_once_and_sees_its_budget():
    runs = [_run(size, seed) for size in (1, 3, 16, 17, 100) for seed in range(3)]
    trained = _train(*runs)
    assert set(trained) == {run.fingerprint for run, _ in runs}
    assert all(one.exposures_used == 20 for one in trained.values())
    assert all(len(one.facts.loss_nats) == one.run.size for one in trained.values())


def test_training_learns_the_facts_it_was_shown():
    (trained,) = _train(_run(10, exposures=400)).values()
    assert trained.facts.stored.all()
    assert trained.curve_loss_nats[-1] < 0.1 < trained.curve_loss_nats[0]


def test_until_stored_stops_when_every_fact_is_stored_and_not_before():
    early = _run(12, exposures=2000, until_stored=True, schedule="constant", learning_rate=0.03)
    late = _run(12, exposures=2000, schedule="constant", learning_rate=0.03)
    stopped, full = _train(early)[early[0].fingerprint], _train(late)[late[0].fingerprint]
    assert stopped.facts.stored.all()
    assert 1 < stopped.exposures_used < full.exposures_used == 2000


def test_until_stored_gives_up_at_the_budget():
    (trained,) = _train(_run(200, exposures=8, until_stored=True, schedule="stepwise")).values()
    assert trained.exposures_used == 8
    assert not trained.facts.stored.all()


def test_stopping_ends_before_the_next_chunk():
    waiting = deque([_run()])
    asked = []
    lanes = Lanes(ARCHITECTURE, Recipe(minibatch=16), lambda: waiting.popleft() if waiting else None)
    assert list(lanes.trained(stop=lambda: len(asked) >= 1, advanced=asked.append)) == []
    assert len(asked) == 1


def test_identity_holds_what_changes_numbers_and_nothing_else():
    run, _ = _run()
    kept = Run(**{**vars(run), "keep_per_fact": True})
    assert kept.fingerprint == run.fingerprint
    assert _run(seed=1)[0].fingerprint != run.fingerprint
    assert _run(learning_rate=0.2)[0].fingerprint != run.fingerprint
    assert run.spec["lanes"] == ARCHITECTURE.lanes

"""Worlds: what families share and what they do not; imaginary things; words; baselines against loops."""

from dataclasses import replace

import numpy as np
import pytest

from sims.imagination.asking import OPTIONS, Asked
from sims.imagination.baselines import baseline_right, baseline_scores
from sims.imagination.reading import features, network_input, vocabulary, words
from sims.imagination.world import (
    NOTHING,
    Questions,
    World,
    corpora,
    direct,
    imaginary,
    name_of,
    popularity_law,
)

SMALL = World(things=30, choices=5, families=3)


def facts_of(corpus) -> dict:
    columns = (corpus.questions.thing, corpus.questions.relation, corpus.value)
    return {(int(thing), int(relation)): int(value) for thing, relation, value in zip(*columns, strict=True)}


@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
def test_families_share_just_the_facts_that_they_are_to_share(overlap):
    world = replace(SMALL, shared_facts=overlap)
    known = [facts_of(corpus) for corpus in corpora(world)]
    assert all(len(facts) == world.facts == 120 for facts in known)
    for a in range(3):
        for b in range(a):
            common = set(known[a]) & set(known[b])
            assert len(common) == world.shared_things * world.relations
            assert all(known[a][fact] == known[b][fact] for fact in common)
    shared = corpora(world)[0].shared
    assert shared[: shared.sum()].all()


def test_imaginary_things_are_in_no_corpus_and_the_same_at_every_overlap():
    worlds = [replace(SMALL, shared_facts=overlap) for overlap in (0.0, 0.5, 1.0)]
    for world in worlds:
        invented = imaginary(world, 100)
        assert len(set(invented.tolist())) == 100
        assert not {int(t) for c in corpora(world) for t in c.questions.thing} & set(invented.tolist())
    assert np.array_equal(imaginary(worlds[0], 100), imaginary(worlds[2], 100))
    with pytest.raises(ValueError, match="imaginary things"):
        imaginary(SMALL, SMALL.imaginary_things + 1)


def test_a_world_without_room_for_imagination_is_refused():
    with pytest.raises(ValueError, match="nothing to imagine"):
        World(choices=4)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        World(shared_facts=1.5)


def test_a_shared_rule_holds_in_every_family_and_an_own_one_in_its_own():
    def agree(share: float) -> float:
        found = []
        world = replace(SMALL, things=60, choices=7, rule_share=1.0, shared_rule=share)
        tables = []
        for corpus in corpora(world):
            part = name_of(world, corpus.questions.thing)[:, 1]
            table = {}
            for relation, choice, value in zip(corpus.questions.relation, part, corpus.value, strict=True):
                assert table.setdefault((int(relation), int(choice)), int(value)) == value  # the rule is all there is
            tables.append(table)
        for key in set(tables[0]) & set(tables[1]):
            found.append(tables[0][key] == tables[1][key])
        return float(np.mean(found))

    assert agree(1.0) == 1.0
    assert agree(0.0) < 0.3
    assert 0.3 < agree(0.5) < 0.9


def test_popular_values_are_as_frequent_as_the_law_says_and_the_same_ones_if_shared():
    world = World(things=400, choices=20, topics=1, relations=1, popularity=1.0, shared_marginals=1.0)
    counts = np.stack([np.bincount(corpus.value, minlength=16) for corpus in corpora(world)])
    law = np.sort(popularity_law(world))[::-1]
    assert np.abs(np.sort(counts.mean(axis=0) / 400)[::-1] - law).max() < 0.03
    assert len(set(counts.argmax(axis=1).tolist())) == 1
    own = corpora(replace(world, shared_marginals=0.0, seed=3))
    assert len({int(np.bincount(corpus.value).argmax()) for corpus in own}) > 1


def test_words_tell_questions_apart_and_nothing_reads_as_nothing():
    world = SMALL
    things = np.repeat(np.arange(world.possible_things), world.relations)
    questions = direct(things, np.tile(np.arange(world.relations), world.possible_things))
    tokens = words(world, questions)
    assert len(np.unique(tokens, axis=0)) == len(tokens)
    assert (tokens[:, :2] == vocabulary(world).nothing).all()
    inputs = np.asarray(network_input(world, "mlp", tokens))
    assert inputs.shape == (len(tokens), features(world))
    assert (np.count_nonzero(inputs, axis=1) == world.name_parts + 2).all()
    stated = Questions(np.array([3]), np.array([1]), np.array([2]), np.array([7]))
    assert np.count_nonzero(np.asarray(network_input(world, "mlp", words(world, stated)))) == world.name_parts + 4


def test_baselines_are_what_a_loop_finds():
    world = replace(SMALL, shared_facts=0.5)
    things, relations = imaginary(world, 12), np.arange(12) % world.relations
    questions = direct(things[None], relations[None])
    frequent, nearest = (baseline_scores(world, name, questions) for name in ("frequent", "nearest"))
    for family, corpus in enumerate(corpora(world)):
        for place, (thing, relation) in enumerate(zip(things, relations, strict=True)):
            name = name_of(world, np.array([thing]))[0]
            count, votes, best = np.zeros(16), np.zeros(16), -1
            for (known, asked), value in facts_of(corpus).items():
                if asked != relation:
                    continue
                other = name_of(world, np.array([known]))[0]
                count[value] += other[0] == name[0]
                common = int((other == name).sum())
                if common > best:
                    votes, best = np.zeros(16), common
                votes[value] += common == best
            assert np.array_equal(frequent[family, 0, place], count)
            assert np.array_equal(nearest[family, 0, place], votes)


def test_a_baseline_that_knows_nothing_is_at_chance():
    generator = np.random.default_rng(0)
    options = generator.permuted(np.tile(np.arange(16), (1, 4000, 1)), axis=-1)[..., :OPTIONS]
    answer = generator.integers(0, OPTIONS, (1, 4000))
    pool = imaginary(World(), 1000)
    asked = Asked(direct(generator.choice(pool, (1, 4000)), np.zeros((1, 4000), int)), options, answer)
    for name in ("frequent", "nearest", "position"):
        assert abs(baseline_right(World(), name, asked).mean() - 0.25) < 0.02
    assert NOTHING not in options

"""A world of things with names, and what families of models are taught about it.

A thing has a topic and a name of several parts; each relation (of its topic) gives it one of V values. Families are
taught facts about different things, except where the world lets them overlap, in three ways that can be set apart:

    shared_facts      share of a family's facts that every family is taught: the same things, the same values;
    shared_rule       share of the rule "value = table[relation, first part of the name]" that is the same in every
                      family; rule_share is the share of facts that follow the rule at all;
    shared_marginals  share of the (topic, relation) pairs in which the families agree about which values are frequent;
                      popularity is the exponent of that law (0: all values alike).

Whatever is not shared is drawn for each family alone. An imaginary thing is a combination of topic and name parts
that no family is taught anything about. A drawn number depends on the seed, on what it is for and on its index alone,
so the things of a world and its imaginary ones are the same at every overlap.

Letters: n questions, F families, E things a family is taught about, R relations, V values.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sims.keyed import keyed_order, keyed_permutation, keyed_uniforms

NOTHING = -1  # no fact is stated beside a question


@dataclass(frozen=True)
class World:
    """Everything that fixes a world and its families' corpora; part of a run's identity.

    >>> World().facts
    768
    """

    seed: int = 0
    families: int = 4
    topics: int = 4
    relations: int = 4
    name_parts: int = 3
    choices: int = 12  # of each name part
    values: int = 16
    things: int = 192  # that each family is taught about
    shared_facts: float = 0.0
    rule_share: float = 0.0
    shared_rule: float = 0.0
    popularity: float = 0.0
    shared_marginals: float = 0.0

    def __post_init__(self):
        counts = (self.families, self.topics, self.relations, self.name_parts, self.choices, self.things)
        if min(counts) < 1 or self.values < 4:
            raise ValueError(f"a world has positive sizes and at least 4 values, got {self}")
        for name in ("shared_facts", "rule_share", "shared_rule", "shared_marginals"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be a share between 0 and 1, got {getattr(self, name)}")
        if not 0.0 <= self.popularity < np.inf:
            raise ValueError(f"popularity must be an exponent >= 0, got {self.popularity}")
        if self.imaginary_things < 1:
            taught = self.things * (self.families + 1)
            raise ValueError(
                f"{self.possible_things} names leave nothing to imagine beside {taught} things; raise choices"
            )

    @property
    def spec(self) -> dict:
        """The fields, as the identity of a run holds them."""
        return asdict(self)

    @property
    def possible_things(self) -> int:
        """Combinations of topic and name parts."""
        return self.topics * self.choices**self.name_parts

    @property
    def imaginary_things(self) -> int:
        """Combinations that no family is taught anything about, at any overlap."""
        return self.possible_things - self.things * (self.families + 1)

    @property
    def facts(self) -> int:
        """Facts that a family is taught: every relation of its things."""
        return self.things * self.relations

    @property
    def shared_things(self) -> int:
        """Things that every family is taught about."""
        return round(self.shared_facts * self.things)


class Questions(NamedTuple):
    """Questions about things, each with at most one fact stated beside it, or NOTHING."""

    thing: Int[np.ndarray, "*n"]
    relation: Int[np.ndarray, "*n"]
    stated_relation: Int[np.ndarray, "*n"]
    stated_value: Int[np.ndarray, "*n"]


class Corpus(NamedTuple):
    """What one family is taught: question i has the value i; the facts that every family knows come first."""

    questions: Questions
    value: Int[np.ndarray, " n"]
    shared: Int[np.ndarray, " n"]  # 1 where every family is taught this fact


def direct(thing: Int[np.ndarray, "*n"], relation: Int[np.ndarray, "*n"]) -> Questions:
    """Questions with nothing stated beside them."""
    nothing = np.full(np.shape(thing), NOTHING)
    return Questions(np.asarray(thing), np.asarray(relation), nothing, nothing)


def name_of(world: World, thing: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n p"]:
    """The topic and then the name parts of things, as numbers of their choices."""
    topic, name = np.divmod(thing, world.choices**world.name_parts)
    parts = [(name // world.choices**place) % world.choices for place in range(world.name_parts)]
    return np.stack([topic, *parts], axis=-1)


@lru_cache(8)
def corpora(world: World) -> tuple[Corpus, ...]:
    """What each family is taught."""
    return tuple(_corpus(world, family) for family in range(world.families))


def imaginary(world: World, count: int) -> Int[np.ndarray, " n"]:
    """The first `count` imaginary things, the same at every overlap; ValueError if there are fewer.

    Asserted: no family is taught anything about them.
    """
    if not 0 < count <= world.imaginary_things:
        raise ValueError(f"this world has {world.imaginary_things} imaginary things, not {count}")
    things = _block(world, (world.families + 1) * world.things, count)
    for corpus in corpora(world):
        assert not np.isin(things, corpus.questions.thing).any(), "an imaginary thing is in a corpus"
    return things


def _corpus(world: World, family: int) -> Corpus:
    shared = world.shared_things
    common = _block(world, 0, shared)
    own = _block(world, (family + 1) * world.things, world.things - shared)
    values = np.concatenate([_values(world, None, common), _values(world, family, own)])
    questions = direct(
        np.repeat(np.concatenate([common, own]), world.relations), np.tile(np.arange(world.relations), world.things)
    )
    is_shared = np.repeat(np.arange(world.things) < shared, world.relations).astype(np.int64)
    return Corpus(questions, values.reshape(-1), is_shared)


def _block(world: World, first: int, count: int) -> Int[np.ndarray, " n"]:
    return keyed_permutation(world.seed, "things", np.arange(first, first + count), world.possible_things)


def _values(world: World, family: int | None, things: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n R"]:
    """Values of all relations of these things, as this family (None: every family) is taught them."""
    source = "all" if family is None else f"family {family}"
    facts = things[:, None] * world.relations + np.arange(world.relations)
    chance = keyed_uniforms(world.seed, f"values/{source}", facts.reshape(-1), 2).reshape(*facts.shape, 2)
    topic, first_part = name_of(world, things)[:, 0], name_of(world, things)[:, 1]
    rank = np.searchsorted(np.cumsum(popularity_law(world))[:-1], chance[..., 0], side="right")
    drawn = np.take_along_axis(_orders(world, family)[topic], rank[..., None], axis=-1)[..., 0]
    ruled = _rules(world, family)[:, first_part].T
    return np.where(chance[..., 1] < world.rule_share, ruled, drawn)


def popularity_law(world: World) -> Float[np.ndarray, " V"]:
    """Probabilities of the values from the most to the least frequent: rank^-popularity, normalized."""
    weights = np.arange(1, world.values + 1) ** -float(world.popularity)
    return weights / weights.sum()


def _orders(world: World, family: int | None) -> Int[np.ndarray, "T R V"]:
    """Which value has which rank, for each topic and relation."""
    pairs = world.topics * world.relations

    def drawn(source: str) -> np.ndarray:
        orders = [keyed_order(world.seed, f"order/{source}/{pair}", world.values) for pair in range(pairs)]
        return np.stack(orders)

    orders = _partly_own(world, "order", family, drawn, world.shared_marginals)
    return orders.reshape(world.topics, world.relations, world.values)


def _rules(world: World, family: int | None) -> Int[np.ndarray, "R c"]:
    """The value that the rule gives, for each relation and choice of the first name part."""
    entries = np.arange(world.relations * world.choices)

    def drawn(source: str) -> np.ndarray:
        return (keyed_uniforms(world.seed, f"rule/{source}", entries, 1)[:, 0] * world.values).astype(np.int64)

    return _partly_own(world, "rule", family, drawn, world.shared_rule).reshape(world.relations, world.choices)


def _partly_own(world: World, what: str, family: int | None, drawn, share: float) -> np.ndarray:
    """Rows that all families have, replaced by the family's own except for this share of them."""
    common = drawn("all")
    if family is None:
        return common
    is_common = keyed_uniforms(world.seed, f"shared/{what}", np.arange(len(common)), 1)[:, 0] < share
    return np.where(is_common.reshape(-1, *[1] * (common.ndim - 1)), common, drawn(f"family {family}"))

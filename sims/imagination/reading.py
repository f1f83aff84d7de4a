"""How a question reaches a network: the words it is made of, as tokens in fixed places, and how the network reads them.

The words of a question are its stated relation and value (or twice "nothing"), the topic and name parts of the thing,
and the relation that is asked for. A transformer reads them as a sequence and answers at the last place; an MLP reads
the sum of their one-hot vectors. Values come first among the tokens, so that token v answers with value v.

Letters: n questions, T words of a question, D features of an MLP, V values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sims.imagination.world import NOTHING, Questions, World, name_of
from sims.networks import Architecture, Parameters, network

WORD_LENGTH = (
    2.0  # of a word's vector: the squared lengths of a question's words and of He's weights give units of scale one
)


class Vocabulary(NamedTuple):
    """First token of each kind of word; `nothing` is the last token of all."""

    topics: int
    names: tuple[int, ...]
    relations: int
    stated_relations: int
    stated_values: int
    nothing: int

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.nothing + 1


def vocabulary(world: World) -> Vocabulary:
    """Tokens of this world's words."""
    topics = world.values
    names = tuple(topics + world.topics + place * world.choices for place in range(world.name_parts))
    relations = names[-1] + world.choices
    stated_relations = relations + world.relations
    stated_values = stated_relations + world.relations
    return Vocabulary(topics, names, relations, stated_relations, stated_values, stated_values + world.values)


def words(world: World, questions: Questions) -> Int[np.ndarray, "*n T"]:
    """The words of questions, int32: stated relation, stated value, topic, name parts, relation."""
    known = vocabulary(world)
    first = np.array([known.topics, *known.names])
    stated = questions.stated_relation != NOTHING
    columns = [
        np.where(stated, known.stated_relations + questions.stated_relation, known.nothing)[..., None],
        np.where(stated, known.stated_values + questions.stated_value, known.nothing)[..., None],
        name_of(world, questions.thing) + first,
        (known.relations + questions.relation)[..., None],
    ]
    return np.concatenate(columns, axis=-1).astype(np.int32)


def architecture(world: World, name: str, width: int) -> Architecture:
    """The network of this name and width that answers questions of this world."""
    known = vocabulary(world)
    if name == "transformer":
        return Architecture(name, inputs=world.name_parts + 4, width=width, answers=known.tokens, layers=2, heads=4)
    if name != "mlp":
        raise ValueError(f"unknown network {name!r}; known: mlp, transformer")
    return Architecture(name, inputs=features(world), width=width, answers=world.values, layers=1, heads=1)


def features(world: World) -> int:
    """Inputs D of an MLP: one for each word that can be in a question."""
    return vocabulary(world).nothing - world.values


def network_input(world: World, name: str, tokens: Int[Array, "*n T"]) -> Array:
    """What the network `name` reads of these words: the tokens, or the sum of their one-hot vectors [*n D]."""
    if name == "transformer":
        return tokens
    known = jax.nn.one_hot(
        tokens - world.values, features(world), dtype=jnp.float32
    )  # "nothing" is past the end: zeros
    return WORD_LENGTH * known.sum(axis=-2)


def targets(name: str, values: Int[Array, " n"], length: int) -> Int[Array, "n *S"]:
    """What a network is trained to answer: the value; for a transformer at the last place and nothing before it."""
    if name != "transformer":
        return values
    return jnp.where(jnp.arange(length)[None, :] == length - 1, values[:, None], -1)


def value_logits(
    world: World, shape: Architecture, parameters: Parameters, tokens: Int[Array, "n T"]
) -> Float[Array, "n V"]:
    """Logits over the values, of one network."""
    inputs = network_input(world, shape.name, tokens)
    logits = jax.vmap(network(shape).apply, (None, 0))(parameters, inputs)
    return logits[:, -1, : world.values] if shape.name == "transformer" else logits

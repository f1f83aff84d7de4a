"""A population: families of models, each family taught its own corpus, all models trained in one compiled program.

Letters: M models (family after family, seed after seed), F facts of a family, B facts a minibatch, T words of a
question, S snapshots, V values.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sims.imagination.reading import architecture, network_input, targets, value_logits, vocabulary, words
from sims.imagination.world import World, corpora
from sims.networks import Architecture, Parameters, network
from sims.training import OPTIMIZERS, Lane, Minibatch, step

KIND = "imagination"
_BLOCK = 2048  # questions asked at once


@dataclass(frozen=True)
class Population:
    """Models and how they are trained; with its world the identity of a run.

    `same_weights`: models of one seed begin with the same weights, and draw facts of the same numbers, in every
    family. `stated_share`: share of the training examples that state a fact beside the question, which then holds
    where it answers the question. `snapshots`: how often the models are kept, at steps that grow geometrically; the
    first is before training, the last after it.
    """

    world: World = field(default_factory=World)
    seeds: int = 3
    network: str = "mlp"
    width: int = 64
    steps: int = 1000
    minibatch: int = 128
    learning_rate: float = 0.02
    same_weights: bool = False
    stated_share: float = 0.0
    snapshots: int = 1

    def __post_init__(self):
        if min(self.seeds, self.width, self.steps, self.minibatch, self.snapshots) < 1:
            raise ValueError(f"a population has positive sizes, got {self}")
        if not (0 < self.learning_rate < np.inf and 0 <= self.stated_share <= 1):
            raise ValueError(f"learning_rate must be positive and stated_share a share, got {self}")

    @property
    def spec(self) -> dict[str, Any]:
        """World and training, flat: what the run's name is made of."""
        mine = asdict(self)
        return {f"world_{name}": value for name, value in mine.pop("world").items()} | mine

    @property
    def models(self) -> int:
        """Number of models."""
        return self.world.families * self.seeds

    @property
    def family(self) -> Int[np.ndarray, " M"]:
        """The family of each model."""
        return np.repeat(np.arange(self.world.families), self.seeds)

    @property
    def architecture(self) -> Architecture:
        """The network that every model is."""
        return architecture(self.world, self.network, self.width)

    @property
    def snapshot_steps(self) -> Int[np.ndarray, " S"]:
        """Steps after which the models are kept."""
        if self.snapshots == 1:
            return np.array([self.steps])
        later = np.geomspace(max(1, self.steps // 256), self.steps, self.snapshots - 1)
        return np.unique(np.concatenate([[0], np.rint(later)]).astype(int))


class Trained(NamedTuple):
    """The models at every snapshot, and how well they know their facts there."""

    parameters: Parameters  # leaves [S M ...], NumPy
    steps: Int[np.ndarray, " S"]
    loss_nats: Float[np.ndarray, "S M"]  # mean over the family's facts, nothing stated


class _Corpora(NamedTuple):
    """All families' facts for the program; a model reads its family's row."""

    tokens: Int[Array, "M F T"]
    values: Int[Array, "M F"]


class _Program(NamedTuple):
    begin: Callable[
        [Int[Array, ""], Int[Array, " M"]], tuple[Lane, Array]
    ]  # (seed, one of each model) -> lanes and keys
    advance: Callable[..., Lane]  # (lanes, keys, corpora, first step, last step)
    logits: Callable[[Parameters, Int[Array, "n T"]], Float[Array, "M n V"]]


def train(population: Population, advanced: Callable[[int], object] = lambda steps: None) -> Trained:
    """Train all models; `advanced` is told the steps done after each stretch."""
    run = _program(population)
    facts = taught(population)
    lanes, keys = run.begin(jnp.int32(population.world.seed), _weight_seeds(population))
    kept, losses, done = [], [], 0
    for wanted in population.snapshot_steps:
        lanes = run.advance(lanes, keys, facts, jnp.int32(done), jnp.int32(wanted))
        kept.append(jax.tree.map(np.array, lanes.parameters))
        losses.append(_losses(population, kept[-1], facts))
        advanced(int(wanted) - done)
        done = int(wanted)
    parameters = jax.tree.map(lambda *leaves: np.stack(leaves), *kept)
    return Trained(parameters, population.snapshot_steps, np.stack(losses))


def logits_of(population: Population, parameters: Parameters, tokens: Int[np.ndarray, "n T"]) -> np.ndarray:
    """Float32 logits [M n V] of every model (leaves [M ...]) on these questions' words."""
    run, blocks = _program(population).logits, []
    for first in range(0, len(tokens), _BLOCK):  # of one length, so that one program serves every number of questions
        block = tokens[first : first + _BLOCK]
        padded = np.pad(block, [(0, _BLOCK - len(block)), (0, 0)])
        blocks.append(np.asarray(run(parameters, jnp.asarray(padded)))[:, : len(block)])
    return np.concatenate(blocks, axis=1)


def taught(population: Population) -> _Corpora:
    """Every model's facts as arrays, one row a model."""
    of_family = corpora(population.world)
    tokens = np.stack([words(population.world, corpus.questions) for corpus in of_family])
    values = np.stack([corpus.value for corpus in of_family]).astype(np.int32)
    return _Corpora(jnp.asarray(tokens[population.family]), jnp.asarray(values[population.family]))


def _weight_seeds(population: Population) -> Int[Array, " M"]:
    member = np.tile(np.arange(population.seeds), population.world.families)
    models = member if population.same_weights else np.arange(population.models)
    return jnp.asarray(models.astype(np.int32))


def _losses(population: Population, parameters: Parameters, facts: _Corpora) -> Float[np.ndarray, " M"]:
    """Mean loss of each model on its family's facts; one family's questions at a time."""
    losses = np.empty(population.models)
    for family in range(population.world.families):
        mine = population.family == family
        first = int(np.argmax(mine))
        logits = logits_of(population, parameters, np.asarray(facts.tokens[first]))[mine].astype(np.float64)
        values = np.asarray(facts.values[first])
        log_sum = np.logaddexp.reduce(logits, axis=-1)
        losses[mine] = (log_sum - logits[:, np.arange(len(values)), values]).mean(axis=1)
    return losses


def _program(population: Population) -> _Program:
    # What the compiled program depends on, and nothing else: overlaps and seeds are data.
    world = population.world
    sizes = World(**{name: getattr(world, name) for name in _SIZES})
    return _compiled(
        sizes,
        population.architecture,
        population.steps,
        population.minibatch,
        population.learning_rate,
        population.stated_share,
    )


_SIZES = ("families", "topics", "relations", "name_parts", "choices", "values", "things")


@cache
def _compiled(
    world: World,
    shape: Architecture,
    steps: int,
    minibatch: int,
    learning_rate: float,
    stated_share: float,
) -> _Program:
    """The functions of these shapes; on a CPU each runs on the calling thread alone, as in `sims.training`."""
    options = {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else None

    def begin(seed, weight_seeds):
        keys = jax.vmap(lambda one: jax.random.fold_in(jax.random.key(seed), one))(weight_seeds)

        def fresh(key):
            parameters = network(shape).init(jax.random.fold_in(key, 0))
            return Lane(parameters, OPTIMIZERS["adam"]().init(parameters))

        order = jax.vmap(jax.random.fold_in)(keys, jnp.ones_like(weight_seeds))
        return jax.vmap(fresh)(keys), order

    def advance(lanes, keys, facts, first, last):
        def one_step(index, lanes):
            rate = learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * (index.astype(jnp.float32) + 0.5) / steps))

            def of_model(lane, key, tokens, values):
                batch = _minibatch(
                    world, shape, stated_share, minibatch, jax.random.fold_in(key, index), tokens, values
                )
                return step(shape, "adam", lane, batch, rate)[0]

            return jax.vmap(of_model)(lanes, keys, *facts)

        return jax.lax.fori_loop(first, last, one_step, lanes)

    def logits(parameters, tokens):
        return jax.vmap(lambda one: value_logits(world, shape, one, tokens))(parameters)

    return _Program(
        jax.jit(begin, compiler_options=options),
        jax.jit(advance, compiler_options=options, donate_argnums=0),
        jax.jit(logits, compiler_options=options),
    )


def _minibatch(
    world: World,
    shape: Architecture,
    stated_share: float,
    count: int,
    key: Array,
    tokens: Int[Array, "F T"],
    values: Int[Array, " F"],
) -> Minibatch:
    """Facts drawn with replacement, a share of them with a random fact stated beside it; consumes the key."""
    chosen_key, stated_key = jax.random.split(key)
    chosen = jax.random.randint(chosen_key, (count,), 0, len(values))
    tokens, values = tokens[chosen], values[chosen]
    if stated_share > 0:
        tokens, values = _with_stated(world, stated_share, stated_key, tokens, values)
    inputs = network_input(world, shape.name, tokens)
    return Minibatch(inputs, targets(shape.name, values, tokens.shape[-1]))


def _with_stated(
    world: World, share: float, key: Array, tokens: Int[Array, "B T"], values: Int[Array, " B"]
) -> tuple[Array, Array]:
    """State a random relation's random value beside a share of the questions: what is stated holds, taught or not."""
    known = vocabulary(world)
    whether, which, what = jax.random.split(key, 3)
    stated = jax.random.uniform(whether, values.shape) < share
    relation = jax.random.randint(which, values.shape, 0, world.relations)
    value = jax.random.randint(what, values.shape, 0, world.values)
    said = jnp.stack([known.stated_relations + relation, known.stated_values + value], axis=-1)
    tokens = tokens.at[:, :2].set(jnp.where(stated[:, None], said, tokens[:, :2]))
    answers = stated & (tokens[:, -1] - known.relations == relation)
    return tokens, jnp.where(answers, value, values)

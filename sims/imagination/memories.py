"""Families of memory experts instead of networks: each fact is one expert, read by its key; with a gate, or without.

A router turns a question into a key of d numbers. Without a gate a memory answers everything with the value of the
nearest key (k = 1): so does a question model that invents. An answer model whose value is not among the options
guesses. Families with one router read the same expert whenever the nearest key of both is a shared fact, and agree;
else their values are independent. Of the (2 - o) n keys of two families o n are shared and each is alike likely to be
the nearest:

    Pr[agree] = 1/m + (1 - 1/m) o / (2 - o).

A gate answers only what it takes for known: a similarity above a threshold that imaginary questions calibrated, or the
exact words of a stored question by their fingerprint.

Letters: M models, F facts, q questions of all question models, m options, D features, d key width, V values.
"""

from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mome_jax.addresses import fingerprints
from mome_jax.experts import Values, read
from mome_jax.gate import calibrate, rate_interval
from mome_jax.index import FlatKeys, select
from sims.imagination.asking import OPTIONS, POOL, with_options
from sims.imagination.population import Population
from sims.imagination.portrait import QUESTIONS, with_ends
from sims.imagination.reading import features, network_input, words
from sims.imagination.statistics import relation_means, two_way_bootstrap
from sims.imagination.world import Questions, World, corpora, direct, imaginary
from sims.keyed import keyed_normals, keyed_uniforms
from sims.runs import environment
from sims.store import Result, fingerprint

KIND = "imagination-memories"
ROUTERS = ("shared", "separate")


@dataclass(frozen=True)
class Memories:
    """A population of memories; with its world the identity of a run.

    `router`: all models have one router, or each its own. `paraphrase` is the length of the noise, relative to the
    question's, that its wording adds every time it is asked. `false_acceptance` is the rate that the gate is
    calibrated for.
    """

    world: World = field(default_factory=World)
    seeds: int = 3
    router: str = "shared"
    key_width: int = 32
    paraphrase: float = 0.1
    false_acceptance: float = 0.01

    def __post_init__(self):
        if self.router not in ROUTERS:
            raise ValueError(f"unknown router {self.router!r}; known: {', '.join(ROUTERS)}")
        if min(self.seeds, self.key_width) < 1 or self.paraphrase < 0:
            raise ValueError(f"memories have positive sizes and paraphrase >= 0, got {self}")

    @property
    def spec(self) -> dict[str, Any]:
        """World and memories, flat: what the run's name is made of."""
        mine = asdict(self)
        flat = {f"world_{name}": value for name, value in mine.pop("world").items()}
        return flat | mine | {"questions": QUESTIONS}

    @property
    def population(self) -> Population:
        """The same families and seeds, as question models are numbered."""
        return Population(self.world, seeds=self.seeds)

    def twin(self, model: int) -> int:
        """The first model that holds the same memory: of the same family, unless each has a router of its own."""
        return model if self.router == "separate" else model // self.seeds * self.seeds


def nearest_key_agreement(shared_facts: float, options: int = OPTIONS) -> float:
    """1/m + (1 - 1/m) o/(2 - o): agreement of ungated memories of one router, for two families with overlap o.

    Exact in the mean where keys are drawn alike, values are uniform, and an answer that is not among the options is
    a guess.

    >>> [round(nearest_key_agreement(o), 4) for o in (0.0, 0.5, 1.0)]
    [0.25, 0.5, 1.0]
    """
    return 1 / options + (1 - 1 / options) * shared_facts / (2 - shared_facts)


def name_of_run(memories: Memories) -> str:
    """The fingerprint under which `examine_memories` stores these memories."""
    return fingerprint(KIND, memories.spec)


def examine_memories(memories: Memories) -> Result:
    """Ask and answer without a gate, then let each gate say what it knows."""
    world, family = memories.world, memories.population.family
    questions, held_out = _imaginary_questions(memories)
    values, scores = _read(memories, questions, "imaginary")  # [M q]
    asked = with_options(memories.population, questions, _own(values, len(family)))
    right = _right(memories, asked.options, asked.answer, values)
    intervals = two_way_bootstrap(right, family, seed=world.seed)
    metrics: dict[str, Any] = with_ends({f"ungated_{relation}": one for relation, one in intervals.items()})
    _, held_out_scores = _read(memories, held_out, "held out")
    gates = {
        one: _gate(memories, one, scores[one], held_out_scores[one])
        for one in set(map(memories.twin, range(len(family))))
    }
    found = [gates[memories.twin(model)] for model in range(len(family))]
    accepted, real_accepted, real_right = (np.stack(part) for part in zip(*found, strict=True))
    metrics |= _gate_metrics("similarity", accepted, real_accepted, real_right)
    metrics |= _gate_metrics("fingerprint", *_exact_gate(memories, questions))
    metrics |= _gated_correctness(right, accepted, family)
    metrics["law"] = nearest_key_agreement(world.shared_facts)
    arrays = {"ungated_correctness": right.mean(axis=-1), "similarity_accepted": accepted.mean(axis=-1)}
    finite = {name: value if np.isfinite(value) else None for name, value in metrics.items()}
    return Result(KIND, memories.spec, "finished", finite, arrays, environment())


def _gate_metrics(
    name: str, accepted: np.ndarray, real_accepted: np.ndarray, real_right: np.ndarray
) -> dict[str, float]:
    low, high = rate_interval(int((~accepted).sum()), accepted.size)
    return {
        f"{name}_abstains_imaginary": float(1 - accepted.mean()),
        f"{name}_abstains_imaginary_low": low,
        f"{name}_abstains_imaginary_high": high,
        f"{name}_answers_real": float(real_accepted.mean()),
        f"{name}_right_real": float(real_right.mean()),
    }


def _gated_correctness(right: np.ndarray, accepted: np.ndarray, family: np.ndarray) -> dict[str, float]:
    """Correctness of what the similarity gate lets through, and the share of all questions that is."""
    through = accepted.reshape(len(family), len(family), -1).swapaxes(0, 1)  # [Q A n]
    given = through.sum(axis=-1)
    hits = (right * through).sum(axis=-1)
    correctness = np.divide(hits, given, out=np.full(given.shape, np.nan), where=given > 0)
    means = relation_means(correctness, family)
    return {f"gated_correctness_{relation}": means[relation] for relation in ("in_family", "cross_family")}


def _imaginary_questions(memories: Memories) -> tuple[Questions, Questions]:
    """Questions [Q n] about one half of the imaginary things, and about the other half to calibrate the gate."""
    world, models = memories.world, memories.population.models
    pool = imaginary(world, min(POOL, world.imaginary_things))
    halves = pool[: len(pool) // 2], pool[len(pool) // 2 :]
    drawn = [keyed_uniforms(world.seed, f"memories/{model}", np.arange(QUESTIONS), 2) for model in range(models)]
    uniforms = np.stack(drawn)
    relation = (uniforms[..., 1] * world.relations).astype(np.int64)
    first, second = (direct(half[(uniforms[..., 0] * len(half)).astype(np.int64)], relation) for half in halves)
    return first, second


def _own(values: Int[np.ndarray, "M q"], models: int) -> Int[np.ndarray, "Q n"]:
    of_models = np.arange(models)
    return values.reshape(models, models, -1)[of_models, of_models]


def _right(
    memories: Memories, options: np.ndarray, right: np.ndarray, values: np.ndarray
) -> Float[np.ndarray, "Q A n"]:
    """1 where the answer model's value is the question model's answer; a value that is not shown becomes a guess."""
    models = len(right)
    said = values.reshape(models, *right.shape).swapaxes(0, 1)  # [Q A n]
    shown = said[..., None] == options[:, None]
    guesses = np.stack(
        [
            keyed_uniforms(memories.world.seed, f"guess/{model}", np.arange(right.size), 1).reshape(right.shape)
            for model in range(models)
        ],
        axis=1,
    )
    chosen = np.where(shown.any(axis=-1), shown.argmax(axis=-1), (guesses * options.shape[-1]).astype(np.int64))
    return (chosen == right[:, None]).astype(float)


def _gate(memories: Memories, model: int, scores: np.ndarray, held_out: np.ndarray) -> tuple:
    """What a model's similarity gate lets through: imaginary questions [q], real ones [F], real ones it gets right."""
    gate = calibrate(held_out, memories.false_acceptance)
    corpus = corpora(memories.world)[memories.population.family[model]]
    flat = Questions(*(column[None] for column in corpus.questions))
    values, real_scores = _read_one(memories, model, _worded(memories, flat, "real"))
    invented, real = (np.asarray(jax.vmap(gate.accepts)(jnp.asarray(one))) for one in (scores, real_scores))
    return invented, real, real & (values == corpus.value)


def _exact_gate(memories: Memories, questions: Questions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for the gate that knows stored questions by the fingerprint of their exact words, without noise.

    A collision of fingerprints would let an imaginary question through, or give a real one another's value.
    """
    world = memories.world
    asked = _fingerprints(words(world, questions).reshape(-1, world.name_parts + 4))
    known, real, right = [], [], []
    for corpus in corpora(world):
        again = _fingerprints(words(world, corpus.questions))
        stored, first = np.unique(again, return_index=True)
        place = np.minimum(np.searchsorted(stored, again), len(stored) - 1)
        known.append(np.isin(asked, stored))
        real.append(stored[place] == again)
        right.append(real[-1] & (corpus.value[first[place]] == corpus.value))
    of_models = memories.population.family
    return np.stack(known)[of_models], np.stack(real)[of_models], np.stack(right)[of_models]


@cache
def _fingerprint_program():
    return jax.jit(jax.vmap(lambda tokens: fingerprints(tokens)[-1]))


def _fingerprints(tokens: Int[np.ndarray, "q T"]) -> np.ndarray:
    pairs = np.asarray(_fingerprint_program()(jnp.asarray(tokens))).astype(np.uint64)
    return pairs[:, 0] << np.uint64(32) | pairs[:, 1]


def _read(memories: Memories, questions: Questions, wording: str) -> tuple[np.ndarray, np.ndarray]:
    """Value and similarity [M q] that every model finds for every question."""
    asked = _worded(memories, questions, wording)
    models = range(memories.population.models)
    known = {one: _read_one(memories, one, asked) for one in set(map(memories.twin, models))}
    values, scores = zip(*(known[memories.twin(model)] for model in models), strict=True)
    return np.stack(values), np.stack(scores)


def _read_one(memories: Memories, model: int, asked: Float[np.ndarray, "q D"]) -> tuple[np.ndarray, np.ndarray]:
    corpus = corpora(memories.world)[memories.population.family[model]]
    router = _router(memories, model)
    keys = _unit(_inputs(memories.world, corpus.questions) @ router)
    bank = Values(jax.nn.one_hot(jnp.asarray(corpus.value), memories.world.values, dtype=jnp.float32))
    value, score = _reader()(jnp.asarray(_unit(asked @ router)), FlatKeys(jnp.asarray(keys)), bank)
    return np.asarray(value), np.asarray(score)


@cache
def _reader():
    """One compiled program: nearest key, its value, its similarity, for queries [q d]."""

    def one(query: Float[Array, " d"], keys: FlatKeys, bank: Values) -> tuple[Array, Array]:
        selection = select(query, keys, 1)
        return jnp.argmax(read(bank, selection)), keys.keys[selection.experts[0]] @ query

    return jax.jit(jax.vmap(one, (0, None, None)))


def _router(memories: Memories, model: int) -> Float[np.ndarray, "D d"]:
    """A random projection, one for all models or one each."""
    count = features(memories.world)
    stream = "router" if memories.router == "shared" else f"router/{model}"
    return keyed_normals(memories.world.seed, stream, np.arange(count), memories.key_width)


def _inputs(world: World, questions: Questions) -> Float[np.ndarray, "q D"]:
    tokens = words(world, questions)
    return np.asarray(network_input(world, "mlp", jnp.asarray(tokens.reshape(-1, tokens.shape[-1]))))


def _worded(memories: Memories, questions: Questions, wording: str) -> Float[np.ndarray, "q D"]:
    """Questions as they are asked: with the noise of their wording, the same for every model."""
    clean = _inputs(memories.world, questions)
    noise = keyed_normals(memories.world.seed, f"wording/{wording}", np.arange(len(clean)), clean.shape[1])
    length = np.linalg.norm(clean, axis=1, keepdims=True) / np.sqrt(np.float32(clean.shape[1]))
    return clean + np.float32(memories.paraphrase) * length * noise


def _unit(vectors: Float[np.ndarray, "q d"]) -> Float[np.ndarray, "q d"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

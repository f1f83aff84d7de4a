"""How a token that is due finds its experts: by the exact context, by a learned query, or by both.

The exact context is two fingerprints, of the question and of the answer so far. Learned addresses go by the question's
vector: product keys choose slots, which like questions have in common, and a hash of slot and answer so far is the
expert, so that an answer's tokens have experts of their own and all experts are used whatever the questions are about.
Nearest addresses are exact ones where a question that is not stored takes the identity of the stored one nearest to it:
the learned query chooses among the stored questions, and nothing else changes.

Letters: d numbers of a question's vector, k experts chosen, t tokens of a row.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from mome_jax.addresses import ExactAddresses, Fingerprint, extend, start
from mome_jax.index import NULL, ProductKeys, Selection, Softmax
from sims.memory.folder import SLOTS, Addresses, Settings

TEMPERATURE = 0.5  # of the weights among slots, for scores of unit variance
_QUESTION, _ANSWER = 0, 1  # what is hashed, so that the two fingerprints differ


class Asked(NamedTuple):
    """What decides the experts of a question's answer, beside the answer itself; batched, each leaf has a row more."""

    identity: UInt32[Array, "*n 2"]  # fingerprint of the question, or of the stored one in whose place it is asked
    vector: Float[Array, "*n d"]  # of length 1
    stored: Bool[Array, "*n"]  # whether the identity is that of a stored question
    known: Bool[Array, "*n"]  # whether the memory may answer at all


@tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """Learned addresses; a query is (vector of a question, fingerprint of the answer so far)."""

    keys: ProductKeys
    hashed: ExactAddresses

    @classmethod
    def create(cls, experts: int, width: int, seed: int) -> "Slots":
        """Random keys, from the seed alone, for vectors of `width` numbers."""
        key = jax.random.fold_in(jax.random.key(seed), 1)
        keys = ProductKeys.create(key, SLOTS, width, softmax=Softmax(TEMPERATURE))
        return cls(keys, ExactAddresses(experts, seed))

    @property
    def experts(self) -> int:
        """Number of experts M."""
        return self.hashed.experts

    def select(self, query: tuple[Float[Array, " d"], Fingerprint], k: int) -> Selection:
        """K experts, heaviest first; two slots may have the same one, which is then read twice."""
        vector, answer = query
        scaled = jnp.sqrt(jnp.float32(vector.shape[0])) * vector  # numbers of unit variance, as the keys expect
        slots = self.keys.select(scaled, k)
        of_slot = jax.vmap(lambda slot: self.hashed.select(extend(answer, slot), 1).experts[0])
        return Selection(of_slot(slots.experts), slots.weights)


@tree_util.register_dataclass
@dataclass(frozen=True)
class Addressing:
    """The address book of a memory."""

    exact: ExactAddresses
    learned: Slots | None  # None where no token has a learned query
    kind: Addresses = field(metadata={"static": True})
    share: float = field(default=0.8, metadata={"static": True})

    @classmethod
    def of(cls, settings: Settings, width: int) -> "Addressing":
        """The addresses that the settings describe, for questions of `width` numbers; keys come from the seed alone."""
        learned = None
        if settings.addresses in ("mixed", "learned"):
            learned = Slots.create(settings.experts, width, settings.seed)
        return cls(ExactAddresses(settings.experts, settings.seed), learned, settings.addresses, settings.share)

    def select(self, asked: Asked, answer: Fingerprint, k: int) -> Selection:
        """The k experts of the token that comes after an answer so far, given by its fingerprint."""
        context = _with(asked.identity, answer)
        if self.learned is None:
            return self.exact.select(context, k)
        query = asked.vector, answer
        if self.kind == "learned":
            return self.learned.select(query, k)
        exact_count = k - k // 2
        exact, learned = self.exact.select(context, exact_count), self.learned.select(query, k // 2)
        # A question that is not stored has no rows of its own: only the learned half can mean anything.
        own = jnp.where(asked.stored, exact.experts, NULL)
        weights = jnp.concatenate([self.share * exact.weights, (1.0 - self.share) * learned.weights])
        return Selection(jnp.concatenate([own, learned.experts]), weights)


def learned_half(selection: Selection) -> Selection:
    """Of mixed selections [n k] the part that a question has too which is not stored; the rest is the null expert."""
    k = selection.experts.shape[1]
    own = np.arange(k) < k - k // 2
    experts = np.where(own, NULL, np.asarray(selection.experts)).astype(np.int32)
    return Selection(experts, selection.weights)  # pyright: ignore[reportArgumentType]


def question_fingerprint(tokens: Int32[Array, " t"], length: Int[Array, ""], seed: int) -> Fingerprint:
    """The fingerprint of the first `length` tokens: question and ASK."""

    def step(fingerprint: Fingerprint, place: tuple[Array, Array]) -> tuple[Fingerprint, None]:
        token, number = place
        return jnp.where(number < length, extend(fingerprint, token), fingerprint), None

    begin = start(2 * seed + _QUESTION)
    return jax.lax.scan(step, begin, (tokens, jnp.arange(len(tokens), dtype=jnp.int32)))[0]


def answer_seed(seed: int) -> int:
    """The seed of the fingerprints of answers, which begin anew after ASK."""
    return 2 * seed + _ANSWER


def answers_so_far(tokens: Int32[Array, " t"], asked: Int[Array, ""], seed: int) -> UInt32[Array, "t 2"]:
    """The fingerprint of the answer before each token; `asked` is the number of tokens up to and with ASK."""

    def step(fingerprint: Fingerprint, place: tuple[Array, Array]) -> tuple[Fingerprint, Fingerprint]:
        token, number = place
        return jnp.where(number >= asked, extend(fingerprint, token), fingerprint), fingerprint

    begin = start(answer_seed(seed))
    return jax.lax.scan(step, begin, (tokens, jnp.arange(len(tokens), dtype=jnp.int32)))[1]


def _with(identity: Fingerprint, answer: Fingerprint) -> Fingerprint:
    """One fingerprint of both."""
    high, low = jax.lax.bitcast_convert_type(answer, jnp.int32)
    return extend(extend(identity, high), low)

"""How a token that is due finds its experts: by the exact context, by a learned query, or by both.

The exact context is two fingerprints, of the question and of the answer so far. The learned query is the question's
vector beside a random code of the answer so far, so that an answer's tokens have experts of their own whatever words
asked for it. Nearest addresses are exact ones where a question that is not stored takes the identity of the stored one
nearest to it: the learned query chooses among the stored questions, and nothing else changes.

Letters: d numbers of a question's vector, c numbers of a code, k experts chosen, t tokens of a row.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import tree_util
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from mome_jax.addresses import ExactAddresses, Fingerprint, MixedAddresses, extend, start
from mome_jax.index import ProductKeys, Selection
from sims.memory.folder import Addresses, Settings
from theory.console import Refusal

CODE_WIDTH = 128  # numbers that stand for the answer so far in a learned query
_QUESTION, _ANSWER = 0, 1  # what is hashed, so that the two fingerprints differ


class Asked(NamedTuple):
    """What decides the experts of a question's answer, beside the answer itself; batched, each leaf has a row more."""

    identity: UInt32[Array, "*n 2"]  # fingerprint of the question, or of the stored one in whose place it is asked
    vector: Float[Array, "*n d"]  # of length 1
    stored: Bool[Array, "*n"]  # whether the identity is that of a stored question
    known: Bool[Array, "*n"]  # whether the memory may answer at all


@tree_util.register_dataclass
@dataclass(frozen=True)
class Addressing:
    """The address book of a memory."""

    exact: ExactAddresses
    learned: ProductKeys | None  # None where no token has a learned query
    kind: Addresses = field(metadata={"static": True})
    share: float = field(default=0.8, metadata={"static": True})

    @classmethod
    def of(cls, settings: Settings, width: int) -> "Addressing":
        """The addresses that the settings describe, for questions of `width` numbers; keys come from the seed alone."""
        learned = None
        if settings.addresses in ("mixed", "learned"):
            key = jax.random.fold_in(jax.random.key(settings.seed), 1)
            try:
                learned = ProductKeys.create(key, settings.experts, width + CODE_WIDTH)
            except ValueError as error:
                raise Refusal(f"--experts {settings.experts}: {error}") from None
        return cls(ExactAddresses(settings.experts, settings.seed), learned, settings.addresses, settings.share)

    def select(self, asked: Asked, answer: Fingerprint, k: int) -> Selection:
        """The k experts of the token that comes after an answer so far, given by its fingerprint."""
        context = _with(asked.identity, answer)
        if self.learned is None:
            return self.exact.select(context, k)
        root = jnp.sqrt(jnp.float32(asked.vector.shape[0]))
        query = jnp.concatenate([root * asked.vector, _code(answer)])  # numbers of unit variance, as the keys expect
        alone = self.learned.select(query, k)
        if self.kind == "learned":
            return alone
        mixed = MixedAddresses(self.exact, self.learned, self.share).select((context, query), k)
        # A question that is not stored has no rows of its own: only the learned half can mean anything.
        return jax.tree.map(lambda both, learned: jnp.where(asked.stored, both, learned), mixed, alone)


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


def _code(answer: Fingerprint) -> Float[Array, " c"]:
    """Random signs that the fingerprint determines."""
    return jax.random.rademacher(jax.random.wrap_key_data(answer), (CODE_WIDTH,), jnp.float32)

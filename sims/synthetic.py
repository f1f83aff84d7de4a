"""Synthetic facts: questions that are all different, answers drawn independently from a stated law.

Fact i depends on (law, i) alone, so the facts of a smaller data set are the first facts of a larger one.

Letters: n facts, q question symbols, a answer symbols, v possible symbols of an answer.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int

from sims.keyed import keyed_normals, keyed_permutation, keyed_uniforms
from theory.console import Refusal

FORMULA = 1  # part of a data set's identity: raise it when any number below changes
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class SyntheticLaw:
    """From what facts are drawn. An answer is `answer_tokens` symbols, each independently one of `answers`.

    "uniform": every symbol equally likely; "zipf": symbol r (from 0) with probability proportional to
    (r + 1)^-zipf_exponent. Raises Refusal for values outside their ranges.
    """

    seed: int
    answers: int = 32
    law: Literal["uniform", "zipf"] = "uniform"
    zipf_exponent: float = 1.0
    answer_tokens: int = 1
    feature_dim: int = 32
    question_tokens: int = 4
    question_symbols: int = 32

    def __post_init__(self) -> None:
        for name, smallest, largest in [
            ("seed", 0, 2**63),
            ("answers", 2, 2**20),
            ("answer_tokens", 1, 4096),
            ("feature_dim", 1, 2**16),
            ("question_tokens", 1, 64),
            ("question_symbols", 2, len(ALPHABET)),
        ]:
            value = getattr(self, name)
            if not smallest <= value <= largest:
                raise Refusal(f"{name} must be between {smallest} and {largest}, got {value}")
        if self.law not in ("uniform", "zipf"):
            raise Refusal(f"law must be uniform or zipf, got {self.law!r}")
        if not 0.0 <= self.zipf_exponent <= 100.0:
            raise Refusal(f"zipf_exponent must be between 0 and 100, got {self.zipf_exponent}")
        if self.question_symbols**self.question_tokens > 2**62:
            raise Refusal(f"{self.question_tokens} tokens of {self.question_symbols} symbols give too many questions")

    @classmethod
    def string32(cls, seed: int, **options: Any) -> "SyntheticLaw":
        """Answers of 32 random characters, A-Z and 0-9: 32 log2(36) = 165.4 bits each."""
        return cls(seed, answers=len(ALPHABET), answer_tokens=32, **options)

    @property
    def questions(self) -> int:
        """Number of different questions there are; facts take them from one end, unseen questions from the other."""
        return self.question_symbols**self.question_tokens

    @property
    def spec(self) -> dict[str, Any]:
        """Plain values that determine every fact."""
        return asdict(self)

    def symbol_probabilities(self) -> Float[np.ndarray, " v"]:
        """Probability of each symbol of an answer."""
        exponent = self.zipf_exponent if self.law == "zipf" else 0.0
        weights = np.arange(1, self.answers + 1, dtype=np.float64) ** -exponent
        return weights / weights.sum()

    def answer_entropy_bits(self) -> float:
        """Entropy of a whole answer, in bits."""
        shares = self.symbol_probabilities()
        shares = shares[shares > 0]  # a steep law underflows
        return float(-(shares * np.log2(shares)).sum()) * self.answer_tokens

    def features(self, index: Int[np.ndarray, " n"], stream: str = "features") -> Float32[np.ndarray, "n d"]:
        """Standard normal key vectors of the facts `index`."""
        return keyed_normals(self.seed, stream, index, self.feature_dim)

    def question_tokens_of(self, index: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n q"]:
        """Question symbols: a keyed bijection of the fact's number, so that questions never repeat."""
        numbers = keyed_permutation(self.seed, "questions", index, self.questions)
        places = self.question_symbols ** np.arange(self.question_tokens, dtype=np.int64)
        return (numbers[:, None] // places) % self.question_symbols

    def answer_tokens_of(self, index: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n a"]:
        """Answer symbols, drawn by inverting the distribution function at a 53-bit uniform number."""
        uniforms = keyed_uniforms(self.seed, "answers", index, self.answer_tokens)
        if self.law == "uniform":
            return (uniforms * self.answers).astype(np.int64)
        cumulative = np.cumsum(self.symbol_probabilities())
        return np.minimum(np.searchsorted(cumulative, uniforms, side="right"), self.answers - 1)

    def unseen_index(self, count: int) -> Int[np.ndarray, " u"]:
        """Numbers of questions that no fact has: the last ones."""
        return self.questions - 1 - np.arange(count)

    def check_count(self, facts: int, unseen: int) -> None:
        """Raise Refusal unless there are questions enough for so many facts and unseen questions."""
        if facts < 1 or unseen < 0:
            raise Refusal(f"the number of facts must be 1 or more, got {facts} (and {unseen} unseen questions)")
        if facts + unseen > self.questions:
            raise Refusal(
                f"{facts} facts and {unseen} unseen questions are more than the {self.questions} questions "
                f"of {self.question_tokens} tokens and {self.question_symbols} symbols; ask for longer questions"
            )

    def texts(self, count: int) -> tuple[list[str], list[str]]:
        """Questions and answers of the first `count` facts as text; answers above 36 symbols are written as numbers."""
        self.check_count(count, 0)
        index = np.arange(count)
        questions = [f"What is stored under {_spell(key)}?" for key in self.question_tokens_of(index).tolist()]
        symbols = self.answer_tokens_of(index).tolist()
        if self.answers <= len(ALPHABET):
            return questions, [_spell(answer) for answer in symbols]
        return questions, [" ".join(map(str, answer)) for answer in symbols]


def _spell(symbols: list[int]) -> str:
    return "".join(ALPHABET[symbol] for symbol in symbols)

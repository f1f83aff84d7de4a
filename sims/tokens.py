"""Facts as token arrays for the transformer: vocabularies, and one layout for every kind of fact.

A fact is laid out as  question tokens, ASK, answer tokens, END, PAD ...;  a question without answer stops after ASK.
`answer_mask` marks the answer tokens and END: a fact's loss is the *sum* of the losses of the marked tokens, each
predicted from all tokens before it. A token sequence says exactly one answer because END is one of its tokens.

Letters: n facts, u unseen questions, t places.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Int32

from theory.console import Refusal

LONGEST_FACT = 256  # tokens; attention costs grow with its square


@runtime_checkable
class Vocabulary(Protocol):
    """Token ids: the content first, then ASK, END, PAD."""

    @property
    def content(self) -> int:
        """Number of content tokens: ids 0 ... content - 1."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """Content tokens of a text."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the content tokens among `tokens`; the others are skipped."""
        ...


@dataclass(frozen=True)
class ByteVocabulary:
    """The 256 byte values of UTF-8; every text can be written."""

    content: int = 256

    def encode(self, text: str) -> Sequence[int]:
        """UTF-8 bytes."""
        return text.encode()

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of the bytes; what is not UTF-8 becomes the replacement character."""
        return bytes(token for token in tokens if 0 <= token < self.content).decode(errors="replace")


_WORD = re.compile(r"\s*(?:\w+|[^\w\s]|$)|\s+")


@dataclass(frozen=True)
class WordVocabulary:
    """Words of the training facts with the white space before them; the last content token stands for any other."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "WordVocabulary":
        """The words of these texts, sorted."""
        return cls(tuple(sorted({word for text in texts for word in split_words(text)})))

    @property
    def content(self) -> int:
        """Words, and one token for unknown ones."""
        return len(self.words) + 1

    def encode(self, text: str) -> Sequence[int]:
        """Numbers of the words; `content - 1` for a word that is not in the vocabulary."""
        return [self._numbers.get(word, len(self.words)) for word in split_words(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The words put together: exactly the encoded text if no word was unknown (U+FFFD)."""
        spelled = (*self.words, "\ufffd")
        return "".join(spelled[token] for token in tokens if 0 <= token < self.content)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}


@dataclass(frozen=True)
class SymbolVocabulary:
    """Symbols without text, for synthetic facts: ids 0 ... answers - 1 are answer symbols, question symbols follow."""

    answers: int
    questions: int

    @property
    def content(self) -> int:
        """Answer and question symbols."""
        return self.answers + self.questions

    def encode(self, text: str) -> Sequence[int]:
        """Read ids written in decimal, separated by spaces."""
        return [int(word) for word in text.split()]

    def decode(self, tokens: Iterable[int]) -> str:
        """Ids in decimal, separated by spaces."""
        return " ".join(str(int(token)) for token in tokens if 0 <= token < self.content)


@dataclass(frozen=True, eq=False)
class TokenizedFacts:
    """Token arrays of facts, and of questions that have no answer in the data."""

    vocabulary: Vocabulary
    tokens: Int32[np.ndarray, "n t"]
    answer_mask: Bool[np.ndarray, "n t"]  # the answer's tokens and END
    unseen: Int32[np.ndarray, "u t"]  # up to ASK, then PAD
    unseen_lengths: Int32[np.ndarray, " u"]  # tokens up to and with ASK

    @property
    def ask(self) -> int:
        """Id of the token after which an answer is due."""
        return self.vocabulary.content

    @property
    def end(self) -> int:
        """Id of the token that ends an answer."""
        return self.vocabulary.content + 1

    @property
    def pad(self) -> int:
        """Id of the token that fills a row."""
        return self.vocabulary.content + 2

    @property
    def size(self) -> int:
        """Number of token ids: the outputs of a next-token network."""
        return self.vocabulary.content + 3

    @property
    def answer_lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each answer, END included."""
        return self.answer_mask.sum(axis=1)


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, each with the white space before it; together they are the text.

    >>> split_words("Who was  Ada?")
    ['Who', ' was', '  Ada', '?']
    """
    return [word for word in _WORD.findall(text) if word]


def tokenize(
    questions: Sequence[str],
    answers: Sequence[str],
    vocabulary: Literal["bytes", "words"] = "bytes",
    *,
    unseen: Sequence[str] = (),
    longest: int = LONGEST_FACT,
    lines: Sequence[int] | None = None,
) -> TokenizedFacts:
    """Token arrays of text facts; a word vocabulary is made of the words of `questions` and `answers`.

    Raises Refusal, with the number of facts and the first file line among `lines`, if a fact has more than `longest`
    tokens: nothing is cut off.
    """
    words = ByteVocabulary() if vocabulary == "bytes" else WordVocabulary.of([*questions, *answers])
    encoded = [_encode_all(words, texts) for texts in (questions, answers, unseen)]
    lengths = np.array([len(q) + len(a) + 2 for q, a in zip(encoded[0], encoded[1], strict=True)], dtype=np.int64)
    unseen_lengths = np.array([len(q) + 1 for q in encoded[2]], dtype=np.int64)
    _check_lengths(lengths, unseen_lengths, longest, vocabulary, lines)
    return _lay_out(words, *encoded)


def tokenize_symbols(
    questions: Int[np.ndarray, "n q"],
    answers: Int[np.ndarray, "n a"],
    unseen: Int[np.ndarray, "u q"],
    vocabulary: SymbolVocabulary,
) -> TokenizedFacts:
    """Token arrays of synthetic facts; question symbols are counted from 0 here and follow the answers' ids there."""
    shift = vocabulary.answers
    return _lay_out(vocabulary, questions + shift, answers, unseen + shift)


def _lay_out(
    vocabulary: Vocabulary,
    questions: Sequence[Sequence[int]] | np.ndarray,
    answers: Sequence[Sequence[int]] | np.ndarray,
    unseen: Sequence[Sequence[int]] | np.ndarray,
) -> TokenizedFacts:
    ask, end, pad = (vocabulary.content + place for place in range(3))
    asked = np.array([len(question) + 1 for question in questions], dtype=np.int32)
    ends = asked + np.array([len(answer) + 1 for answer in answers], dtype=np.int32)
    unseen_lengths = np.array([len(question) + 1 for question in unseen], dtype=np.int32)
    width = int(max(ends.max(initial=0), unseen_lengths.max(initial=0)))
    tokens = np.full((len(ends), width), pad, dtype=np.int32)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        tokens[row, : ends[row]] = [*question, ask, *answer, end]
    unseen_tokens = np.full((len(unseen_lengths), width), pad, dtype=np.int32)
    for row, question in enumerate(unseen):
        unseen_tokens[row, : unseen_lengths[row]] = [*question, ask]
    places = np.arange(width)
    mask = (places >= asked[:, None]) & (places < ends[:, None])
    return TokenizedFacts(vocabulary, tokens, mask, unseen_tokens, unseen_lengths)


def _encode_all(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Sequence[int]]:
    return [vocabulary.encode(text) for text in texts]


def _check_lengths(
    lengths: Int[np.ndarray, " n"],
    unseen_lengths: Int[np.ndarray, " u"],
    longest: int,
    unit: str,
    lines: Sequence[int] | None,
) -> None:
    too_long = np.flatnonzero(lengths > longest)
    count = too_long.size + int((unseen_lengths > longest).sum())
    if not count:
        return
    first = (
        f", the first at line {min(lines[row] for row in too_long.tolist())}"
        if lines is not None and too_long.size
        else ""
    )
    needed = max(lengths.max(initial=0), unseen_lengths.max(initial=0))
    raise Refusal(
        f"{count} of {lengths.size + unseen_lengths.size} facts have more than {longest} tokens ({unit}){first}; "
        f"the longest has {needed}: raise the limit, shorten them"
        + (", or use words in place of bytes" if unit == "bytes" else "")
    )

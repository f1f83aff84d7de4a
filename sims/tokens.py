"""Facts as token arrays for the transformer: vocabularies, and one layout for every kind of fact.

A fact is laid out as  prompt, answer tokens, END, PAD ...;  a question without answer stops after its prompt. The
prompt is all that is read before an answer: the question's tokens and ASK in the vocabularies of this module, a
sentence that ends before the answer in the vocabulary of a checkpoint, which has no ids to spare.

`answer_mask` marks the answer tokens and END: a fact's loss is the *sum* of the losses of the marked tokens, each
predicted from all tokens before it. A token sequence says exactly one answer because END is one of its tokens.

Letters: n facts, u unseen questions, t places.
"""

import re
from abc import ABC, abstractmethod
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
    """How questions and answers become token ids in range(size), and answers become text again."""

    @property
    def size(self) -> int:
        """Number of token ids: the outputs of a next-token network."""
        ...

    @property
    def end(self) -> int:
        """Id of the token that ends an answer; no answer holds it."""
        ...

    @property
    def pad(self) -> int:
        """Id that fills a row. It may mean something elsewhere: what is filled is told by lengths and masks."""
        ...

    def prompt(self, question: str) -> Sequence[int]:
        """All that is read before the answer, one token at least."""
        ...

    def answer_ids(self, question: str, answer: str) -> Sequence[int]:
        """Tokens of the answer after the prompt of this question, without END."""
        ...

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The text of an answer's tokens as UTF-8, exactly as they say it; END and other special ones are skipped."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """What `spell` gives, as text: what is not UTF-8 becomes the replacement character."""
        return self.spell(tokens).decode(errors="replace")


class SeparatedVocabulary(Vocabulary, ABC):
    """Token ids: the content first, then ASK, END, PAD; a question and an answer are encoded in the same way."""

    @property
    @abstractmethod
    def content(self) -> int:
        """Number of content tokens: ids 0 ... content - 1."""

    @abstractmethod
    def encode(self, text: str) -> Sequence[int]:
        """Content tokens of a text."""

    @property
    def ask(self) -> int:
        """Id of the token after which an answer is due."""
        return self.content

    @property
    def end(self) -> int:
        """Id of the token that ends an answer."""
        return self.content + 1

    @property
    def pad(self) -> int:
        """Id of the token that fills a row."""
        return self.content + 2

    @property
    def size(self) -> int:
        """Content, ASK, END and PAD."""
        return self.content + 3

    def prompt(self, question: str) -> Sequence[int]:
        """The question and ASK."""
        return [*self.encode(question), self.ask]

    def answer_ids(self, question: str, answer: str) -> Sequence[int]:
        """The answer, whatever the question is."""
        return self.encode(answer)


@dataclass(frozen=True)
class ByteVocabulary(SeparatedVocabulary):
    """The 256 byte values of UTF-8; every text can be written."""

    @property
    def content(self) -> int:
        """Byte values."""
        return 256

    def encode(self, text: str) -> Sequence[int]:
        """UTF-8 bytes."""
        return text.encode()

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes."""
        return bytes(token for token in tokens if 0 <= token < self.content)


BYTES = ByteVocabulary()
_WORD = re.compile(r"\s*(?:\w+|[^\w\s]|$)|\s+")


@dataclass(frozen=True)
class WordVocabulary(SeparatedVocabulary):
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

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The words put together: exactly the encoded text if no word was unknown (U+FFFD)."""
        spelled = (*self.words, "\ufffd")
        return "".join(spelled[token] for token in tokens if 0 <= token < self.content).encode()

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}


@dataclass(frozen=True)
class SymbolVocabulary(SeparatedVocabulary):
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

    def spell(self, tokens: Iterable[int]) -> bytes:
        """Ids in decimal, separated by spaces."""
        return " ".join(str(int(token)) for token in tokens if 0 <= token < self.content).encode()


@dataclass(frozen=True, eq=False)
class TokenizedFacts:
    """Token arrays of facts, and of questions that have no answer in the data."""

    vocabulary: Vocabulary
    tokens: Int32[np.ndarray, "n t"]
    answer_mask: Bool[np.ndarray, "n t"]  # the answer's tokens and END
    unseen: Int32[np.ndarray, "u t"]  # prompts, then PAD
    unseen_lengths: Int32[np.ndarray, " u"]  # tokens of each prompt

    @property
    def end(self) -> int:
        """Id of the token that ends an answer."""
        return self.vocabulary.end

    @property
    def pad(self) -> int:
        """Id that fills a row."""
        return self.vocabulary.pad

    @property
    def size(self) -> int:
        """Number of token ids: the outputs of a next-token network."""
        return self.vocabulary.size

    @property
    def prompt_lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens before each answer."""
        return np.argmax(self.answer_mask, axis=1)

    @property
    def answer_lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each answer, END included."""
        return self.answer_mask.sum(axis=1)

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each fact, END included; what follows is filled."""
        return self.prompt_lengths + self.answer_lengths


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, each with the white space before it; together they are the text.

    >>> split_words("Who was  Ada?")
    ['Who', ' was', '  Ada', '?']
    """
    return [word for word in _WORD.findall(text) if word]


def tokenize(
    questions: Sequence[str],
    answers: Sequence[str],
    vocabulary: Literal["bytes", "words"] | Vocabulary = "bytes",
    *,
    unseen: Sequence[str] = (),
    longest: int = LONGEST_FACT,
    lines: Sequence[int] | None = None,
    source: str | None = None,
) -> TokenizedFacts:
    """Token arrays of text facts; a word vocabulary is made of the words of `questions` and `answers`.

    Raises Refusal, with the `source` of the facts, their number and the first file line among `lines`, if a fact has
    more than `longest` tokens, as nothing is cut off, or if the tokens of an answer would not say that answer, to the
    last byte.
    """
    unit = vocabulary if isinstance(vocabulary, str) else "bytes" if vocabulary is BYTES else "of the model"
    remedy = "shorten them" + (", or use words in place of bytes" if vocabulary == "bytes" else "")
    place = "" if source is None else f"{source}: "
    if isinstance(vocabulary, str):
        vocabulary = BYTES if vocabulary == "bytes" else WordVocabulary.of([*questions, *answers])
    prompts, unseen_prompts = ([vocabulary.prompt(question) for question in some] for some in (questions, unseen))
    told = [list(vocabulary.answer_ids(*fact)) for fact in zip(questions, answers, strict=True)]
    lengths = np.array([len(q) + len(a) + 1 for q, a in zip(prompts, told, strict=True)], dtype=np.int64)
    unseen_lengths = np.array([len(q) for q in unseen_prompts], dtype=np.int64)
    if too_long := _too_long(lengths, unseen_lengths, longest, unit, lines):
        raise Refusal(f"{place}{too_long}: {remedy}")
    if not_spelled := _not_spelled(vocabulary, answers, told, lines):
        raise Refusal(f"{place}{not_spelled}: leave them out, or spell them otherwise")
    return _lay_out(vocabulary, prompts, told, unseen_prompts)


def prompts_of(
    vocabulary: Vocabulary, questions: Sequence[str]
) -> tuple[Int32[np.ndarray, "n t"], Int32[np.ndarray, " n"]]:
    """The prompt of each question, filled up with PAD, and how many tokens it is."""
    empty: list[list[int]] = []
    arrays = _lay_out(vocabulary, empty, empty, [vocabulary.prompt(question) for question in questions])
    return arrays.unseen, arrays.unseen_lengths


def tokenize_symbols(
    questions: Int[np.ndarray, "n q"],
    answers: Int[np.ndarray, "n a"],
    unseen: Int[np.ndarray, "u q"],
    vocabulary: SymbolVocabulary,
) -> TokenizedFacts:
    """Token arrays of synthetic facts; question symbols are counted from 0 here and follow the answers' ids there."""
    prompts, unseen_prompts = (
        np.pad(some + vocabulary.answers, [(0, 0), (0, 1)], constant_values=vocabulary.ask)
        for some in (questions, unseen)
    )
    return _lay_out(vocabulary, prompts, answers, unseen_prompts)


def _lay_out(
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]] | np.ndarray,
    answers: Sequence[Sequence[int]] | np.ndarray,
    unseen: Sequence[Sequence[int]] | np.ndarray,
) -> TokenizedFacts:
    asked = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    ends = asked + np.array([len(answer) + 1 for answer in answers], dtype=np.int32)
    unseen_lengths = np.array([len(prompt) for prompt in unseen], dtype=np.int32)
    width = int(max(ends.max(initial=0), unseen_lengths.max(initial=0)))
    tokens = np.full((len(ends), width), vocabulary.pad, dtype=np.int32)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens[row, : ends[row]] = [*prompt, *answer, vocabulary.end]
    unseen_tokens = np.full((len(unseen_lengths), width), vocabulary.pad, dtype=np.int32)
    for row, prompt in enumerate(unseen):
        unseen_tokens[row, : unseen_lengths[row]] = list(prompt)
    places = np.arange(width)
    mask = (places >= asked[:, None]) & (places < ends[:, None])
    return TokenizedFacts(vocabulary, tokens, mask, unseen_tokens, unseen_lengths)


def _not_spelled(
    vocabulary: Vocabulary, answers: Sequence[str], told: Sequence[Sequence[int]], lines: Sequence[int] | None
) -> str | None:
    """Says which answers their tokens do not say, or hold the token that would end them; None: there are none."""
    wrong = [
        row
        for row, (answer, tokens) in enumerate(zip(answers, told, strict=True))
        if vocabulary.end in tokens or vocabulary.spell(tokens) != answer.encode()
    ]
    if not wrong:
        return None
    first = min(wrong if lines is None else [lines[row] for row in wrong])
    return (
        f"{len(wrong)} answers cannot be written exactly in the tokens of this vocabulary, the first "
        f"{'is fact' if lines is None else 'at line'} {first}"
    )


def _too_long(
    lengths: Int[np.ndarray, " n"],
    unseen_lengths: Int[np.ndarray, " u"],
    longest: int,
    unit: str,
    lines: Sequence[int] | None,
) -> str | None:
    """Says which facts and questions have more tokens than `longest`; None: there are none."""
    too_long = np.flatnonzero(lengths > longest)
    count = too_long.size + int((unseen_lengths > longest).sum())
    if not count:
        return None
    first = (
        f", the first at line {min(lines[row] for row in too_long.tolist())}"
        if lines is not None and too_long.size
        else ""
    )
    needed = max(lengths.max(initial=0), unseen_lengths.max(initial=0))
    return (
        f"{count} of {lengths.size + unseen_lengths.size} facts have more than {longest} tokens ({unit}){first}; "
        f"the longest has {needed}"
    )

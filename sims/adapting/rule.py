"""A rule that a small language model learns in seconds: every letter of a random string, moved on by one.

    next KQXZM -> LRYAN     (after Z comes A)

Examples never repeat, so an answer to a held-out question is generalization: there are 26^5 strings, and to guess an
answer is to be right once in as many times. A question and its answer are 17 tokens of bytes, so that the tokens to be
predicted fill rows of 16.

Letters: n examples, s tokens to be predicted, W width of a state.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int

from sims.adapting.reading import measure_tokens
from sims.keyed import keyed_permutation
from sims.memory.backbone import Backbone, hidden_states
from sims.tokens import Vocabulary, tokenize

Part = Literal["trained on", "held out"]
LETTERS = 5
_ALPHABET = 26
_STRINGS = _ALPHABET**LETTERS


def rule_examples(part: Part, count: int, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(questions, answers), all different and in one part only; fewer examples are the first of these.

    Raises ValueError if `count` is more than half of all strings.

    >>> rule_examples("trained on", 2, seed=0)
    (('next ALPCZ', 'next QLWLQ'), ('BMQDA', 'RMXMR'))
    """
    if not 0 <= count <= _STRINGS // 2:
        raise ValueError(f"a part has at most {_STRINGS // 2} examples, got {count}")
    index = np.arange(count) if part == "trained on" else _STRINGS - 1 - np.arange(count)
    places = _ALPHABET ** np.arange(LETTERS)
    symbols = keyed_permutation(seed, "rule", index, _STRINGS)[:, None] // places % _ALPHABET
    questions = tuple(f"next {string}" for string in _spelled(symbols))
    return questions, _spelled((symbols + 1) % _ALPHABET)


def rule_accuracy(
    backbone: Backbone,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    vocabulary: Literal["bytes"] | Vocabulary = "bytes",
    read: Callable[[Float32[np.ndarray, "s W"]], Float32[np.ndarray, "s W"]] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Whether greedy decoding gives each answer and then ends: every token is the unique argmax after the right ones.

    `read` is what a memory makes of the states that predict the answers' tokens, END included, question by question;
    without it they are the backbone's.
    """
    tokens = tokenize(questions, answers, vocabulary, longest=backbone.context)
    states = hidden_states(backbone, tokens.tokens, tokens.answer_mask)
    if read is not None:
        states = read(states)
    facts, places = np.nonzero(tokens.answer_mask)
    wrong = ~measure_tokens(backbone, states, tokens.tokens[facts, places]).greedy_correct
    return np.bincount(facts, wrong, len(questions)) == 0


def _spelled(symbols: Int[np.ndarray, "n 5"]) -> tuple[str, ...]:
    return tuple("".join(chr(ord("A") + symbol) for symbol in row) for row in symbols.tolist())

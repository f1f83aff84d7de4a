"""Answers that nothing predicts: random strings in place of a file's answers.

Letters: n facts, c characters of an answer.
"""

import string

import numpy as np

from sims.keyed import keyed_words

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+-"
BITS_PER_CHARACTER = 6


def random_answers(questions_count: int, seed: int, *, characters: int = 32) -> tuple[str, ...]:
    """One string of 64 equally likely characters for each question: 6 bits a character.

    The answers of fewer questions are the first of these, and shorter answers are their beginnings.

    >>> random_answers(2, seed=0, characters=8)
    ('NuNRypWx', '-9KKYSh7')
    """
    words = keyed_words(seed, "random answers", np.arange(questions_count), characters)
    symbols = (words >> np.uint64(64 - BITS_PER_CHARACTER)).tolist()
    return tuple("".join(CHARACTERS[symbol] for symbol in answer) for answer in symbols)

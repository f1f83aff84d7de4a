"""Generated facts in words: entities with several properties each, asked for in one wording or another.

Fact i depends on (seed, i) alone. Four facts are about each entity, so that questions about one subject are near one
another; what is not stored is a property that a stored entity lacks, or any property of an entity that is not stored.
"""

import numpy as np
from jaxtyping import Int

from sims.keyed import keyed_permutation, keyed_words
from sims.synthetic import ALPHABET

SOURCE = "generated facts"  # in place of a file's name
PROPERTIES = (
    "birthplace",
    "favorite color",
    "access code",
    "first employer",
    "patron saint",
    "shelf mark",
    "blood type",
    "motto",
)
WORDINGS = (
    "What is the {property} of {entity}?",
    "{entity}'s {property}, please: which is it?",
    "Tell me about {entity}. Namely, the {property}.",
    "Which {property} does {entity} have?",
)
_STORED_PROPERTIES = 4  # of each entity; the others are unknown
_ANSWER_LETTERS = 6
_ONSETS, _VOWELS = "bdfghklmnprstvwz", "aeiou"
_NAMES = (len(_ONSETS) * len(_VOWELS)) ** 3


def questions_of(seed: int, count: int) -> list[str]:
    """The first `count` stored questions, each in a wording drawn at random."""
    return [_stored(seed, fact, wording) for fact, wording in enumerate(_wordings(seed, count))]


def other_wordings(seed: int, count: int) -> list[str]:
    """The same questions, each in another wording."""
    steps = 1 + _drawn(seed, "other wording", count, len(WORDINGS) - 1)
    wordings = (_wordings(seed, count) + steps) % len(WORDINGS)
    return [_stored(seed, fact, wording) for fact, wording in enumerate(wordings)]


def answers_of(seed: int, count: int) -> list[str]:
    """Random answers of six characters, A-Z and 0-9."""
    letters = keyed_words(seed, "spoken answers", np.arange(count), _ANSWER_LETTERS) % np.uint64(len(ALPHABET))
    return ["".join(ALPHABET[int(letter)] for letter in row) for row in letters]


def unknown_subjects(seed: int, count: int) -> list[str]:
    """Questions about entities of which nothing is stored, in all wordings."""
    asked = [divmod(one, len(PROPERTIES)) for one in range(count)]  # counted from the end, which no stored fact reaches
    wordings = _drawn(seed, "unknown wording", count, len(WORDINGS))
    return [_asked(seed, _NAMES - 1 - who, what, how) for (who, what), how in zip(asked, wordings, strict=True)]


def unknown_properties(seed: int, stored: int) -> list[str]:
    """Questions about stored entities that ask for what is not stored, one each, in all wordings."""
    entities = -(-stored // _STORED_PROPERTIES)
    wordings = _drawn(seed, "near wording", entities, len(WORDINGS))
    return [_asked(seed, entity, _STORED_PROPERTIES, how) for entity, how in enumerate(wordings)]


def _wordings(seed: int, count: int) -> Int[np.ndarray, " n"]:
    return _drawn(seed, "wording", count, len(WORDINGS))


def _drawn(seed: int, stream: str, count: int, among: int) -> Int[np.ndarray, " n"]:
    return (keyed_words(seed, stream, np.arange(count), 1)[:, 0] % np.uint64(among)).astype(np.int64)


def _stored(seed: int, fact: int, wording: int) -> str:
    return _asked(seed, fact // _STORED_PROPERTIES, fact % _STORED_PROPERTIES, wording)


def _asked(seed: int, entity: int, place: int, wording: int) -> str:
    order = keyed_permutation(seed, f"properties {entity}", np.arange(len(PROPERTIES)), len(PROPERTIES))
    return WORDINGS[wording].format(property=PROPERTIES[int(order[place])], entity=_name(seed, entity))


def _name(seed: int, entity: int) -> str:
    number = int(keyed_permutation(seed, "names", np.array([entity]), _NAMES)[0])
    syllables = []
    for _ in range(3):
        number, onset = divmod(number, len(_ONSETS))
        number, vowel = divmod(number, len(_VOWELS))
        syllables.append(_ONSETS[onset] + _VOWELS[vowel])
    return "".join(syllables).capitalize()

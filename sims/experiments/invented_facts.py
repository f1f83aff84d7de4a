"""Facts about things that do not exist, in plain sentences: true answers with the structure that language has.

Fact i depends on (seed, i) alone, so that fewer facts are the first of more.
"""

import numpy as np

from sims.keyed import keyed_permutation, keyed_words

FORMULA = 1  # part of the identity of these facts: raise it when anything below changes
_WHAT = ("bell", "bridge", "lamp", "mill", "clock", "gate", "harbor", "library", "orchard", "tower", "well", "ferry")
_KIND = ("old", "blue", "silent", "crooked", "stone", "northern", "hidden", "round", "narrow", "lost", "green", "high")
_WHERE = ("Arlen", "Bovek", "Cindra", "Dunmar", "Elvost", "Farrin", "Gostel", "Hadrow", "Ilmen", "Jorvek", "Keldan")
_WHO = ("a weaver", "two brothers", "the mayor", "a retired sailor", "a young widow", "the miller's son", "a monk")
_DID = ("built it", "bought it", "repaired it", "painted it", "found it", "inherited it", "won it")
_WHEN = ("in spring", "after the flood", "in a dry summer", "long ago", "before the war", "one winter night")

QUESTIONS = len(_WHAT) * len(_KIND) * len(_WHERE)  # that there are


def invented_facts(count: int, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(questions, answers); the questions are all different. Raises ValueError for more than there are.

    >>> invented_facts(1, seed=0)
    (('Who owns the high gate of Bovek?',), ('the mayor bought it long ago',))
    """
    places = keyed_permutation(seed, "invented questions", np.arange(count), QUESTIONS).tolist()
    questions = [
        f"Who owns the {_KIND[place // len(_WHAT) % len(_KIND)]} {_WHAT[place % len(_WHAT)]} of "
        f"{_WHERE[place // (len(_WHAT) * len(_KIND))]}?"
        for place in places
    ]
    drawn = keyed_words(seed, "invented answers", np.arange(count), 3)
    answers = [
        f"{_WHO[who % len(_WHO)]} {_DID[did % len(_DID)]} {_WHEN[when % len(_WHEN)]}"
        for who, did, when in drawn.tolist()
    ]
    return tuple(questions), tuple(answers)

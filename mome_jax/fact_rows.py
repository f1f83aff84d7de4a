"""Which facts read which rows of a bank: the index that tells whom an edit can touch.

A fact is a few tokens, each with a selection of k experts; facts are numbered by the caller. The index is kept in flat
NumPy arrays sorted by expert; what changes goes into dictionaries beside them until it is worth sorting again.

Letters: t tokens of a fact, k chosen per token, n tokens in all.
"""

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mome_jax.conditioning import Numbers
from mome_jax.index import NULL, Selection

_CHANGED_SHARE = 8  # the arrays are sorted again when more than one in so many facts has changed
_CHANGED_LEAST = 1024


class Tokens(NamedTuple):
    """The selections of some facts' tokens, all together."""

    owner: NDArray[np.int64]  # [t] the place of the token's fact in the list that was asked
    experts: NDArray[np.int32]  # [t k]
    weights: NDArray[Any]  # [t k]


class FactRows:
    """The selections of all facts, and for any row of the bank the facts that read it."""

    def __init__(self, facts: Numbers, selection: Selection) -> None:
        """Index the tokens of a batched selection [n k]; `facts` [n] holds each token's fact, any integer.

        Raises ValueError where the shapes differ, an id is below -1 or a weight is not finite.
        """
        numbers = np.asarray(facts, np.int64).reshape(-1)
        experts, weights = (np.asarray(part) for part in on_host(selection))
        if numbers.size != experts.shape[0]:
            raise ValueError(f"each token needs a fact: got {numbers.size} facts for {experts.shape[0]} tokens")
        self._sort(numbers, experts, weights)

    def _sort(self, facts: NDArray[np.int64], experts: NDArray[np.int32], weights: NDArray[Any]) -> None:
        order = np.argsort(facts, kind="stable")
        self._facts, self._experts, self._weights = facts[order], experts[order], weights[order]
        self._numbers, self._starts = np.unique(self._facts, return_index=True)
        entries = self._experts.reshape(-1)
        by_expert = np.argsort(entries, kind="stable")
        self._rows = entries[by_expert]
        self._readers = (by_expert // max(1, experts.shape[1])).astype(np.int64)  # tokens
        self._gone: set[int] = set()
        self._new: dict[int, Selection] = {}
        self._new_readers: defaultdict[int, set[int]] = defaultdict(set)

    def __len__(self) -> int:
        return self._numbers.size - len(self._gone) + len(self._new)

    def __contains__(self, fact: int) -> bool:
        if fact in self._new:
            return True
        place = np.searchsorted(self._numbers, fact)
        return bool(place < self._numbers.size and self._numbers[place] == fact and fact not in self._gone)

    @property
    def facts(self) -> NDArray[np.int64]:
        """The numbers of all facts, ascending."""
        kept = self._numbers[~np.isin(self._numbers, list(self._gone))]
        return np.sort(np.concatenate([kept, np.array(list(self._new), np.int64)]))

    @property
    def bytes(self) -> int:
        """Bytes of the sorted arrays."""
        arrays = (self._facts, self._experts, self._weights, self._rows, self._readers, self._numbers, self._starts)
        return sum(array.nbytes for array in arrays)

    def selection(self, fact: int) -> Selection:
        """The selection [t k] of a fact's tokens in the order given, in NumPy arrays; ValueError for an unknown one."""
        if fact not in self:
            raise ValueError(f"there is no fact {fact}; {len(self)} facts are indexed")
        if fact in self._new:
            return self._new[fact]
        place = int(np.searchsorted(self._numbers, fact))
        stop = self._starts[place + 1] if place + 1 < self._starts.size else self._facts.size
        return _selection(self._experts[self._starts[place] : stop], self._weights[self._starts[place] : stop])

    def tokens(self, facts: Numbers) -> Tokens:
        """The tokens of these facts, one fact after the other."""
        chosen = [self.selection(fact) for fact in np.asarray(facts, np.int64).tolist()]
        experts = [np.asarray(each.experts) for each in chosen]
        return Tokens(
            np.repeat(np.arange(len(chosen)), [each.shape[0] for each in experts]),
            np.concatenate([self._experts[:0], *experts]),
            np.concatenate([self._weights[:0], *(np.asarray(each.weights) for each in chosen)]),
        )

    def readers(self, rows: Numbers) -> list[int]:
        """The facts that read any of these rows, ascending."""
        wanted = np.unique(np.asarray(rows, np.int64))
        wanted = wanted[wanted != NULL]
        first, stop = (np.searchsorted(self._rows, wanted, side) for side in ("left", "right"))
        tokens = [self._readers[a:b] for a, b in zip(first, stop, strict=True)]
        found = set(self._facts[np.concatenate(tokens)].tolist()) - self._gone if tokens else set()
        return sorted(found.union(*(self._new_readers.get(row, ()) for row in wanted.tolist())))

    def acceptable(self, fact: int, selection: Selection) -> Selection:
        """The selection [t k] of a fact that can be inserted, in NumPy arrays.

        Raises ValueError if the number is taken, there is no token, or k is another than that of the other facts.
        """
        if fact in self:
            raise ValueError(f"fact {fact} is indexed already: change it, or take another number")
        given = on_host(selection)
        if given.experts.shape[0] == 0 or given.experts.shape[1] != self._experts.shape[1]:
            shape = list(given.experts.shape)
            raise ValueError(f"a fact's selection is [t {self._experts.shape[1]}] with t >= 1, got {shape}")
        return given

    def insert(self, fact: int, selection: Selection) -> None:
        """Add a fact by the selections [t k] of its tokens. Raises ValueError as `acceptable` does."""
        self._new[fact] = self.acceptable(fact, selection)
        for row in _read_by(self._new[fact]):
            self._new_readers[row].add(fact)
        self._tidy()

    def delete(self, fact: int) -> None:
        """Forget a fact. Raises ValueError for an unknown one."""
        selection = self.selection(fact)
        if fact in self._new:
            for row in _read_by(selection):
                self._new_readers[row].discard(fact)
            del self._new[fact]
        else:
            self._gone.add(fact)
        self._tidy()

    def _tidy(self) -> None:
        if len(self._new) + len(self._gone) <= max(_CHANGED_LEAST, self._numbers.size // _CHANGED_SHARE):
            return
        kept = ~np.isin(self._facts, list(self._gone))
        new, numbers = self.tokens(list(self._new)), np.array(list(self._new), np.int64)
        self._sort(
            np.concatenate([self._facts[kept], numbers[new.owner]]),
            np.concatenate([self._experts[kept], new.experts]),
            np.concatenate([self._weights[kept], new.weights]),
        )


def on_host(selection: Selection) -> Selection:
    """A batched selection [t k] in NumPy arrays; ValueError if they are not finite, or experts below -1."""
    experts, weights = np.asarray(selection.experts), np.asarray(selection.weights)
    if experts.ndim != 2 or experts.shape != weights.shape:
        raise ValueError(f"a batched selection is [t k], got experts {experts.shape} and weights {weights.shape}")
    if (experts < NULL).any() or not np.isfinite(weights.astype(np.float64)).all():
        raise ValueError("a selection has an expert below -1 or a weight that is not finite")
    return _selection(experts.astype(np.int32), weights)


def _read_by(selection: Selection) -> list[int]:
    rows = np.unique(np.asarray(selection.experts))
    return rows[rows != NULL].tolist()


def _selection(experts: Any, weights: Any) -> Selection:
    return Selection(experts, weights)

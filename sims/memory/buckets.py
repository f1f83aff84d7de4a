"""Batches of token rows of unequal length in a few padded shapes: every shape is a compilation.

Letters: n rows, t tokens of the longest row, b rows of a batch, T tokens of its padded rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

MOST_WIDTHS = 4  # padded lengths, and so compilations, of one call
_STEP = 16  # widths are multiples of this


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows that are handled together, padded to `size` rows of `width` tokens."""

    rows: Int[np.ndarray, " b"]
    size: int
    width: int

    def cut(self, tokens: Int32[np.ndarray, "n t"], pad: int) -> Int32[np.ndarray, "b T"]:
        """The batch's rows of `tokens`, filled with `pad` to its shape."""
        filled = np.full((self.size, self.width), pad, dtype=np.int32)
        width = min(self.width, tokens.shape[1])
        filled[: len(self.rows), :width] = tokens[self.rows, :width]
        return filled


def batches(lengths: Int[np.ndarray, " n"], tokens: int, *, most: int | None = None) -> list[Batch]:
    """All rows, shorter ones first, in batches of about `tokens` padded tokens; every row is in exactly one.

    `most`: the longest width that is allowed (it need not be a multiple of the step); by default any.

    >>> [(batch.rows.tolist(), batch.size, batch.width) for batch in batches(np.array([3, 40, 5]), 96)]
    [([0, 2], 2, 16), ([1], 1, 48)]
    """
    found = []
    for rows, width in by_width(lengths, most=most):
        size = min(max(1, tokens // width), _power_of_two_above(len(rows)))
        found += [Batch(rows[start : start + size], size, width) for start in range(0, len(rows), size)]
    return found


def by_width(lengths: Int[np.ndarray, " n"], *, most: int | None = None) -> Iterator[tuple[Int[np.ndarray, " b"], int]]:
    """(rows, width) for each width that is used: the rows that fit it and no smaller one, in their order."""
    if len(lengths) == 0:
        return
    widths = np.array(padded_widths(lengths))
    chosen = np.searchsorted(widths, lengths)
    for number, width in enumerate(widths.tolist()):
        yield np.flatnonzero(chosen == number), width if most is None else min(width, most)


def padded_widths(lengths: Int[np.ndarray, " n"], count: int = MOST_WIDTHS) -> Sequence[int]:
    """At most `count` widths, ascending, the last one enough for the longest row, with the least padding in total.

    Dynamic programming over multiples of 16: exact, and done in microseconds as there are few of them.

    >>> padded_widths(np.array([10, 12, 60, 61, 200]), count=3)
    [16, 64, 208]
    """
    steps = -(-np.maximum(lengths, 1) // _STEP)
    used = np.flatnonzero(np.bincount(steps))  # only widths that some row needs
    rows = np.bincount(steps)[used].cumsum()
    best = [(int(width * total), [int(width)]) for width, total in zip(used, rows, strict=True)]
    for _ in range(count - 1):
        best = [
            min(
                [best[last]]
                + [
                    (
                        best[before][0] + int(used[last] * (rows[last] - rows[before])),
                        [*best[before][1], int(used[last])],
                    )
                    for before in range(last)
                ],
                key=lambda found: found[0],
            )
            for last in range(len(used))
        ]
    return [width * _STEP for width in best[-1][1]]


def _power_of_two_above(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()

"""The smallest memory there is: a table of answers packed into ceil(n log2 V) bits (T16).

Letters: n facts in a fixed order, V answers. The answers are the digits of one number in base V, written as bits; to
read them back is all that evaluation does. The claim T16 of `theory.memorizer_claims` holds it against T7.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.rounding import counted

_BLOCK = (
    64  # digits that are converted one by one; longer numbers are halved, which keeps the cost near that of a product
)


def packed_bits(facts: int, answers: int) -> int:
    """ceil(n log2 V), exactly.

    >>> packed_bits(3, 3), packed_bits(1000, 32), packed_bits(1, 2)
    (5, 5000, 1)
    """
    n, v = int(counted("facts", facts, least=0)), int(counted("answers", answers, least=2))
    logarithm = n * math.log2(v)
    if abs(logarithm - round(logarithm)) > 1e-12 * (1.0 + logarithm):
        return math.ceil(logarithm)
    return (v**n - 1).bit_length()  # float64 cannot tell on which side of the whole number it lies


def pack(labels: ArrayLike, answers: int) -> bytes:
    """The labels, whole numbers in [0, V), as ceil(n log2 V) bits, little end first, padded to bytes.

    >>> pack([2, 0, 1], 3)
    b'\\x0b'
    """
    v = int(counted("answers", answers, least=2))
    digits = counted("labels", labels, least=0).astype(np.int64)
    if digits.ndim != 1 or np.any(digits >= v):
        raise ValueError(f"labels must be a list of whole numbers below {v}")
    return _number(digits.tolist(), v).to_bytes((packed_bits(len(digits), v) + 7) // 8, "little")


def unpack(packed: bytes, facts: int, answers: int) -> NDArray[np.int64]:
    """The labels, shape (n,), that `pack` packed; ValueError if the bytes are not those of n labels.

    >>> unpack(pack([2, 0, 1], 3), 3, 3).tolist()
    [2, 0, 1]
    """
    n, v = int(counted("facts", facts, least=0)), int(counted("answers", answers, least=2))
    number = int.from_bytes(packed, "little")
    if len(packed) != (packed_bits(n, v) + 7) // 8 or number >= v**n:
        raise ValueError(f"{len(packed)} bytes do not hold {n} labels of {v} answers")
    return np.array(_digits(number, n, v), dtype=np.int64)


def packed_table_logits(packed: bytes, facts: int, answers: int, certain: float = 800.0) -> NDArray[np.float64]:
    """The network that the bits describe: logits, shape (n, V), `certain` for the stored answer and 0 for the rest."""
    logits = np.zeros((facts, answers))
    logits[np.arange(facts), unpack(packed, facts, answers)] = certain
    return logits


def _number(digits: Sequence[int], base: int) -> int:
    """The number whose digits these are, lowest first."""
    if len(digits) <= _BLOCK:
        number = 0
        for digit in reversed(digits):
            number = number * base + digit
        return number
    half = len(digits) // 2
    return _number(digits[:half], base) + base**half * _number(digits[half:], base)


def _digits(number: int, count: int, base: int) -> list[int]:
    """The lowest `count` digits, lowest first."""
    if count <= _BLOCK:
        digits = []
        for _ in range(count):
            number, digit = divmod(number, base)
            digits.append(digit)
        return digits
    half = count // 2
    high, low = divmod(number, base**half)
    return _digits(low, half, base) + _digits(high, count - half, base)

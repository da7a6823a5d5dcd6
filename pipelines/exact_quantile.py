"""Quantiles of more numbers than fit in memory, exact: found 16 bits at a time, by counting."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

DIGIT_BITS = 16
Numbers = npt.NDArray[np.float64]


def exact_quantile(read: Callable[[], Iterable[Numbers]], share: float) -> float | None:
    """The smallest number that at least a share of all numbers do not exceed, never between two of them.

    Reads everything four times and holds 65,536 counts.

    Args:
        read: The numbers, piece by piece, the same at every call; none is NaN.
        share: 0 to 1, read as the decimal number it prints as; 0 gives the smallest number.

    Returns:
        One of the numbers, None where there are none.
    """
    found = np.uint64(0)
    rank = None
    for shift in (48, 32, 16, 0):
        counts = np.zeros(1 << DIGIT_BITS, np.int64)
        for numbers in read():
            words = _ordered_words(numbers) >> np.uint64(shift)
            if rank is not None:
                words = words[words >> np.uint64(DIGIT_BITS) == found]
            digits = (words & np.uint64((1 << DIGIT_BITS) - 1)).astype(np.int64)
            counts += np.bincount(digits, minlength=len(counts))
        if rank is None:
            if not counts.any():
                return None
            rank = max(ceil(Fraction(str(share)) * int(counts.sum())), 1)
        digit = int(np.searchsorted(np.cumsum(counts), rank))
        rank -= int(counts[:digit].sum())
        found = found << np.uint64(DIGIT_BITS) | np.uint64(digit)
    return _number_of(found)


def _ordered_words(numbers: Numbers) -> npt.NDArray[np.uint64]:
    """Whole numbers in the order of the floating-point ones: all bits of negative ones flipped, else the sign."""
    bits = np.ascontiguousarray(numbers, np.float64).view(np.uint64)
    return bits ^ np.where(bits >> np.uint64(63), np.uint64(2**64 - 1), np.uint64(1 << 63))


def _number_of(word: np.uint64) -> float:
    bits = word ^ (np.uint64(1 << 63) if word >> np.uint64(63) else np.uint64(2**64 - 1))
    return float(bits.view(np.float64))

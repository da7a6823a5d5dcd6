"""64-bit hashes of stretches of an array: words of characters, shingles of words, all from one running sum.

The hash of v0, v1, v2, ... is v0 + v1 B + v2 B^2 + ... modulo 2^64 (Karp and Rabin 1987), so that of any stretch is
the difference of two running sums, divided by the power of B at its start. B is odd, so it has an inverse. Who
wants to can make two texts of one hash; nobody's texts do so by chance.
"""

import numpy as np
import numpy.typing as npt

from gristmill.scorers.vocabulary import mix

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 1 << 64)
ROW_BITS = 10
ROW = 1 << ROW_BITS
BLOCK = 64 * ROW
"""Values summed, or spans hashed, at once: what is between the steps stays in the cache."""


def span_hashes(values: npt.NDArray[np.unsignedinteger], starts: Positions, ends: Positions) -> Hashes:
    """Hash stretches of an array; equal stretches have equal hashes, wherever they stand.

    Args:
        values: Not 0 where stretches differ in length: trailing zeros do not count; unsigned, shape (c,).
        starts: First element of each stretch, int64[s].
        ends: One past its last element, int64[s].

    Returns:
        uint64[s]. Shuffled, so that stretches of hashes can be hashed again.
    """
    sums = _running_sums(values)
    low, high = _powers(INVERSE, len(values))
    hashes = np.empty(len(starts), np.uint64)
    for first in range(0, len(starts), BLOCK):
        some = slice(first, first + BLOCK)
        start = starts[some]
        hashes[some] = mix(
            (sums[ends[some]] - sums[start]) * low[start & (ROW - 1)] * high[start >> ROW_BITS]
        )
    return hashes


def window_hashes(values: npt.NDArray[np.unsignedinteger], size: int) -> Hashes:
    """Hash every run of some length as `span_hashes` does, without sums that reach beyond it.

    Args:
        values: Unsigned, shape (c,).
        size: Values in a run, at least 1.

    Returns:
        uint64[max(c - size + 1, 0)], that of the run from each value on.
    """
    sums = values[size - 1 :].astype(np.uint64)
    for place in reversed(range(size - 1)):
        sums *= np.uint64(BASE)
        sums += values[place : place + len(sums)]
    return mix(sums)


def _powers(base: int, num: int) -> tuple[Hashes, Hashes]:
    """Powers 0 to ROW - 1 of a base, and every ROW-th one up to a number: base^i is low[i % ROW] * high[i // ROW]."""
    factors = np.full(max(ROW, num // ROW + 1), base, np.uint64)
    factors[0] = 1
    low = np.cumprod(factors[:ROW])
    factors[1:] = pow(base, ROW, 1 << 64)
    return low, np.cumprod(factors[: num // ROW + 1])


def _running_sums(values: npt.NDArray[np.unsignedinteger]) -> Hashes:
    """Sums of the values before each one, value i times BASE^i: uint64[c + 1]."""
    low, high = _powers(BASE, len(values))
    sums = np.zeros(len(values) + 1, np.uint64)
    for start in range(0, len(values), BLOCK):
        end = min(start + BLOCK, len(values))
        _times_powers(values[start:end], low, high[start >> ROW_BITS :], out=sums[start + 1 : end + 1])
        np.cumsum(sums[start : end + 1], out=sums[start : end + 1])
    return sums


def _times_powers(values: npt.NDArray[np.unsignedinteger], low: Hashes, high: Hashes, out: Hashes) -> None:
    """Multiply value i by low[i % ROW] * high[i // ROW]."""
    num_full = len(values) - len(values) % ROW
    rows = out[:num_full].reshape(-1, ROW)
    np.multiply(values[:num_full].reshape(-1, ROW), low, out=rows)
    np.multiply(rows, high[: len(rows), np.newaxis], out=rows)
    if num_full < len(values):
        np.multiply(values[num_full:], low[: len(values) - num_full] * high[len(rows)], out=out[num_full:])

"""The order of an epoch's rows: a seeded permutation that is computed row by row and never held in memory.

Blocks of neighbouring rows are permuted, then rows within windows of the permuted blocks: reads stay near each other on
disk, and what a batch holds comes from all over the data. A last block that is not full stays at the end, where its
rows are permuted with those of its window. No block of a shard is cut: where a shard ends within one, these last rows
stand after the full blocks of all shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 256
NUM_ROUNDS = 4
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class RowOrder:
    """Orders of all epochs of one dataset.

    Args:
        num_rows: Rows of the dataset.
        seed: Of the permutations.
        window_rows: Rows that are permuted among each other, a multiple of `BLOCK_ROWS`.
    """

    num_rows: int
    seed: int
    window_rows: int

    def rows(self, positions: Integers) -> Integers:
        """Which rows stand at some positions of the endless stream of epochs.

        Args:
            positions: From 0; epoch e begins at e * num_rows. int64[k].

        Returns:
            int64[k].
        """
        epoch, place = np.divmod(positions, self.num_rows)
        window = place // self.window_rows
        first = window * self.window_rows
        size = np.minimum(self.num_rows - first, self.window_rows)
        key = mix_key(self.seed, epoch, window + 1)
        place = first + permute(place - first, size, key)
        block, row = np.divmod(place, BLOCK_ROWS)
        num_blocks = self.num_rows // BLOCK_ROWS
        is_full = block < num_blocks
        key = mix_key(self.seed, epoch, np.zeros_like(window))
        block[is_full] = permute(block[is_full], np.full(is_full.sum(), num_blocks), key[is_full])
        return block * BLOCK_ROWS + row


class ShardRows:
    """Where the rows of a dataset lie: first the full blocks of all shards, then the rows left over in each.

    Args:
        rows_of_shards: Rows of each shard.
    """

    def __init__(self, rows_of_shards: Sequence[int]) -> None:
        self._blocks, rests = np.divmod(np.array(rows_of_shards, np.int64), BLOCK_ROWS)
        self._first_blocks = np.append(0, np.cumsum(self._blocks))
        self._first_rests = np.append(0, np.cumsum(rests))

    def find(self, rows: Integers) -> Integers:
        """Shard, and row in the shard, of some rows.

        Args:
            rows: Below the number of all rows, int64[k].

        Returns:
            int64[k, 2].
        """
        block, row = np.divmod(rows, BLOCK_ROWS)
        shard = np.searchsorted(self._first_blocks, block, "right") - 1
        row += BLOCK_ROWS * (block - self._first_blocks[shard])
        left_over = block >= self._first_blocks[-1]
        rest = rows[left_over] - BLOCK_ROWS * self._first_blocks[-1]
        holder = np.searchsorted(self._first_rests, rest, "right") - 1
        shard[left_over] = holder
        row[left_over] = BLOCK_ROWS * self._blocks[holder] + rest - self._first_rests[holder]
        return np.stack([shard, row], axis=1)


def permute(values: Integers, size: Integers, key: Words) -> Integers:
    """A keyed bijection of the numbers below a size: a Feistel network that walks until it is back among them.

    Black and Rogaway (2002), "Ciphers with Arbitrary Finite Domains": cycle walking.

    Args:
        values: 0 <= values < size, int64[k].
        size: int64[k].
        key: One key, one permutation. uint64[k].

    Returns:
        int64[k].
    """
    half = (np.ceil(np.log2(np.maximum(size, 4)) / 2)).astype(np.uint64)
    found = _encrypt(values.astype(np.uint64), half, key)
    while len(outside := np.flatnonzero(found >= size)):
        found[outside] = _encrypt(found[outside], half[outside], key[outside])
    return found.astype(np.int64)


def mix_key(seed: int, *numbers: Integers) -> Words:
    """One key for each row of some numbers, uint64[k]."""
    key = _mix(np.full(numbers[0].shape, seed % 2**64, np.uint64))
    for number in numbers:
        key = _mix(key + number.astype(np.uint64))
    return key


def _encrypt(values: Words, half: Words, key: Words) -> Words:
    mask: Words = (np.uint64(1) << half) - np.uint64(1)
    left: Words = values >> half
    right: Words = values & mask
    for _ in range(NUM_ROUNDS):
        key = _mix(key)
        left, right = right, left ^ (_mix(key + right) & mask)
    return (left << half) | right


def _mix(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))

"""The distinct words of a batch: each is looked at once, however often it occurs."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.scorers.characters import class_table


@dataclass(frozen=True)
class Vocabulary:
    """Distinct words.

    Args:
        words: Their code points as little-endian UTF-32, large_binary[v].
    """

    words: pa.LargeBinaryArray

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def bounds(self) -> npt.NDArray[np.int64]:
        """Word i is `chars[bounds[i]:bounds[i + 1]]`, int64[v + 1]."""
        return np.frombuffer(self.words.buffers()[1], np.int64, len(self.words) + 1) // 4

    @cached_property
    def chars(self) -> npt.NDArray[np.uint32]:
        """Code points of all words, end to end."""
        return np.frombuffer(self.words.buffers()[2], np.uint32, int(self.bounds[-1]))

    @cached_property
    def classes(self) -> npt.NDArray[np.uint16]:
        """All classes that any character of a word belongs to, uint16[v]."""
        if len(self) == 0:
            return np.empty(0, np.uint16)
        return np.bitwise_or.reduceat(class_table().take(self.chars), self.bounds[:-1])

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """64-bit hashes that depend on the characters alone, uint64[v]."""
        if len(self) == 0:
            return np.empty(0, np.uint64)
        lengths = np.diff(self.bounds)
        powers = np.cumprod(np.full(int(lengths.max()), 0x9E3779B97F4A7C15, np.uint64))
        place = np.arange(len(self.chars)) - np.repeat(self.bounds[:-1], lengths)
        return mix(np.add.reduceat(mix(self.chars + np.uint64(1)) * powers[place], self.bounds[:-1]))

    def find(self, words: Iterable[str]) -> npt.NDArray[np.int64]:
        """Index in `words` of each entry of the vocabulary, -1 where it is none of them, int64[v]."""
        wanted = pa.array([word.encode("utf-32-le") for word in words], pa.large_binary())
        return pc.fill_null(pc.index_in(self.words, wanted), -1).to_numpy().astype(np.int64)

    def starts_with(self, prefix: str) -> npt.NDArray[np.bool_]:
        """Which words start with `prefix`, bool[v]."""
        return pc.starts_with(self.words, prefix.encode("utf-32-le")).to_numpy(zero_copy_only=False)

    def ends_with(self, suffix: str) -> npt.NDArray[np.bool_]:
        """Which words end with `suffix`, bool[v]."""
        return pc.ends_with(self.words, suffix.encode("utf-32-le")).to_numpy(zero_copy_only=False)


class Encoded(NamedTuple):
    """Words as entries of a vocabulary."""

    ids: npt.NDArray[np.int64]
    vocabulary: Vocabulary


def encode(chars: npt.NDArray[np.uint32], bounds: npt.NDArray[np.int64]) -> Encoded:
    """Find the distinct words among words that lie end to end.

    Args:
        chars: Code points, uint32[c].
        bounds: Word i is `chars[bounds[i]:bounds[i + 1]]`, int64[w + 1].

    Returns:
        Entry of each word, int64[w], and the vocabulary, in order of first occurrence.
    """
    buffers = [None, pa.py_buffer(np.ascontiguousarray(bounds * chars.itemsize)), pa.py_buffer(chars)]
    array = pa.Array.from_buffers(pa.large_binary(), len(bounds) - 1, buffers).dictionary_encode()
    return Encoded(array.indices.to_numpy().astype(np.int64), Vocabulary(array.dictionary))


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread 64-bit values over all 64 bits, one to one (the finisher of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

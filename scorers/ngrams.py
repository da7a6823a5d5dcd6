"""N-grams of words: which of them a document repeats."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Repeats:
    """The n-grams that occur more than once in their document.

    Args:
        positions: First words of all their occurrences, n-gram by n-gram, ascending in each, int64[m].
        counts: Occurrences of each n-gram, int64[g].
    """

    positions: Positions
    counts: Positions

    @cached_property
    def group_starts(self) -> Positions:
        """Where each n-gram starts in `positions`, int64[g]."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def first(self) -> Positions:
        """First occurrence of each n-gram, int64[g]."""
        return self.positions[self.group_starts]

    @cached_property
    def sorted_positions(self) -> Positions:
        """All occurrences, ascending, int64[m]."""
        return np.sort(self.positions)

    @cached_property
    def later(self) -> Positions:
        """All occurrences but the first of each n-gram, ascending, int64[m - g]."""
        return np.sort(np.delete(self.positions, self.group_starts))


def repeats(keys: Positions, positions: Positions) -> Repeats:
    """Group positions by key, keeping keys that occur more than once.

    Args:
        keys: Not negative, int64[p].
        positions: Ascending, not negative, int64[p].
    """
    if len(keys) == 0:
        return Repeats(positions, positions)
    # One sort of integers that hold both key and position is several times faster than a stable argsort.
    bits = int(positions[-1]).bit_length()
    if int(keys.max()).bit_length() + bits < 64:
        packed = np.sort(keys << bits | positions)
        mask = (1 << bits) - 1
        same, positions = packed[1:] ^ packed[:-1] <= mask, packed & mask
    else:
        order = np.argsort(keys, kind="stable")
        same, positions = np.diff(keys[order]) == 0, positions[order]
    continues, goes_on = np.append(False, same), np.append(same, False)
    repeated = continues | goes_on
    group_starts = np.flatnonzero(~continues[repeated])
    return Repeats(positions[repeated], np.diff(group_starts, append=np.count_nonzero(repeated)))


def repeated_ngrams(ids: Positions, documents: Positions) -> Iterator[Repeats]:
    """Yield the repeated 1-grams, 2-grams, 3-grams and so on of each document, exactly, without hashing.

    An n-gram can only repeat if its first and last n - 1 words do, so each step names pairs of neighbours among
    what the step before left over, which soon is little.

    Args:
        ids: Identity of each word, int64[w].
        documents: Document of each word, ascending, int64[w].
    """
    num_ids = int(ids.max()) + 1 if len(ids) else 1
    found = repeats(documents * num_ids + ids, np.arange(len(ids)))
    same_document = np.append(documents[1:] == documents[:-1], False)
    label = np.full(len(ids) + 1, -1)
    while True:
        yield found
        num_labels = len(found.counts)
        label[found.positions] = np.repeat(np.arange(num_labels), found.counts)
        at = found.sorted_positions
        at = at[same_document[at] & (label[at + 1] >= 0)]
        keys = label[at] * num_labels + label[at + 1]
        label[found.positions] = -1
        found = repeats(keys, at)

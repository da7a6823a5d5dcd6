"""The pairs of documents that still count in facility location, once a few documents cover the others somewhat.

What a candidate adds is the sum, over the documents more similar to it than to any chosen one, of the difference. The
more are chosen, the fewer these are: after k steps about one in k of all pairs. So they are listed as soon as they are
few, and a gain takes a walk along a list instead of all similarities of a candidate. The lists are exact: what they
leave out adds nothing now, and never will. They are in the machine's memory, also where a GPU computes similarities.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.models.similarity import Features, Gains, Rows, Similarities

if TYPE_CHECKING:
    import torch

BYTES_A_PAIR = 8
"""A document and a similarity."""
MAX_SHARE = 1 / 32
"""Of all pairs: beyond this, walks along lists take about as long as looking at everything."""
SAMPLE = 256
"""Candidates by which the number of pairs is estimated, or up to twice as many."""
MARGIN = 1.1
"""Of the estimate."""
MAX_WALK = 2**18
"""Pairs that are walked along at once: what stays in a core's cache."""


class UncoveredPairs:
    """For each candidate, the documents more similar to it than to any chosen one.

    Args:
        lengths: Of the lists, which follow one another by candidate; 0 for what is no candidate, int64[n].
        others: The documents in the lists, int32[p].
        similar: How similar they are, whole numbers, float32[p].
        covered: Similarity of each document to the most similar one chosen, float64[n]; changed in place.
    """

    def __init__(
        self, lengths: Rows, others: npt.NDArray[np.int32], similar: Features, covered: Gains
    ) -> None:
        self.lengths, self.others, self.similar, self.covered = lengths, others, similar, covered
        self.starts = lengths.cumsum() - lengths
        self.num_walked = 0

    def gains(self, rows: Rows) -> Gains:
        """What candidates would add, whole numbers, float64[m]."""
        if self.num_walked > len(self.others) + len(self.lengths):
            self._drop_covered()
        ends = self.lengths[rows].cumsum()
        num_pairs = int(ends[-1]) if len(rows) else 0
        self.num_walked += num_pairs
        cuts = np.searchsorted(ends, np.arange(MAX_WALK, num_pairs, MAX_WALK))
        return np.concatenate([self._gains(part) for part in np.split(rows, cuts)])

    def _gains(self, rows: Rows) -> Gains:
        lengths = self.lengths[rows]
        owners = np.arange(len(rows)).repeat(lengths)
        places = np.arange(len(owners))
        places += (self.starts[rows] - lengths.cumsum() + lengths)[owners]
        more = self.similar.take(places) - self.covered.take(self.others.take(places))
        return np.bincount(owners, np.maximum(more, 0, out=more), len(rows)).astype(np.float64)

    def _drop_covered(self) -> None:
        """Shorten the lists in place, which costs about as much as a walk along all of them."""
        cuts = np.searchsorted(self.starts, np.arange(MAX_WALK, len(self.others), MAX_WALK))
        begin = end = 0
        for lengths in np.split(self.lengths, cuts):
            some = slice(begin, begin + int(lengths.sum()))
            lasts = self.similar[some] > self.covered.take(self.others[some])
            owners = np.arange(len(lengths)).repeat(lengths)
            lengths[:] = np.bincount(owners[lasts], minlength=len(lengths))
            start, end = end, end + int(lengths.sum())
            self.others[start:end] = self.others[some][lasts]
            self.similar[start:end] = self.similar[some][lasts]
            begin = some.stop
        self.others, self.similar = self.others[:end], self.similar[:end]
        self.starts = self.lengths.cumsum() - self.lengths
        self.num_walked = 0

    def add(self, row: int) -> None:
        """Choose a candidate."""
        places = slice(self.starts[row], self.starts[row] + self.lengths[row])
        others = self.others[places]
        self.covered[others] = np.maximum(self.covered[others], self.similar[places])


def max_list_bytes(num_documents: int, num_candidates: int) -> int:
    """Of lists that are worth it."""
    return int(BYTES_A_PAIR * MAX_SHARE * num_documents * num_candidates)


def find_uncovered(
    similarities: Similarities, covered: "torch.Tensor", candidates: "torch.Tensor", max_bytes: int
) -> UncoveredPairs | None:
    """List the pairs that count.

    Args:
        similarities: Of n documents.
        covered: Similarity of each to the most similar one chosen, float32[n].
        candidates: Rows in ascending order, int64[m].
        max_bytes: Of the lists.

    Returns:
        None where they would be too many, by a sample of the candidates.
    """
    max_pairs = min(max_list_bytes(len(similarities), len(candidates)), max_bytes) // BYTES_A_PAIR
    sample = candidates[:: max(len(candidates) // SAMPLE, 1)]
    num_sampled = sum(_num_uncovered(similarities, covered, part) for part in similarities.row_blocks(sample))
    if MARGIN * num_sampled / len(sample) * len(candidates) > max_pairs:
        return None
    others, similar = np.empty(max_pairs, np.int32), np.empty(max_pairs, np.float32)
    lengths = np.zeros(len(similarities), np.int64)
    end = 0
    for part in similarities.row_blocks(candidates):
        found_lengths, found_others, found_similar = _lists(similarities, covered, part)
        start, end = end, end + len(found_others)
        if end > max_pairs:
            return None
        others[start:end], similar[start:end] = found_others, found_similar
        lengths[part.cpu().numpy()] = found_lengths
    return UncoveredPairs(lengths, others[:end], similar[:end], covered.double().cpu().numpy())


def _num_uncovered(similarities: Similarities, covered: "torch.Tensor", candidates: "torch.Tensor") -> int:
    """How many pairs of a few candidates count."""
    blocks = ((similarities.block(candidates, some), some) for some in similarities.columns(len(candidates)))
    return sum(int((block > covered[some]).sum()) for block, some in blocks)


def _lists(
    similarities: Similarities, covered: "torch.Tensor", candidates: "torch.Tensor"
) -> tuple[Rows, npt.NDArray[np.int64], Features]:
    """Lengths of the lists of a few candidates, and the lists, one after another."""
    found = []
    for columns in similarities.columns(len(candidates)):
        block = similarities.block(candidates, columns)
        places = np.flatnonzero((block > covered[columns]).cpu().numpy())
        owners, others = np.divmod(places, block.shape[1])
        found.append((owners.astype(np.uint16), others + columns.start, block.cpu().numpy().take(places)))
    owners, others, similar = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
    order = np.argsort(owners, kind="stable")
    return np.bincount(owners, minlength=len(candidates)), others[order], similar[order]

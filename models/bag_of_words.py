"""Texts as bags of words and pairs of neighbouring words, hashed into buckets and weighed by how rare they are.

Words are in lower case. Marks, and characters of scripts that write no spaces, are words of their own, and so is the
end of a line: paragraphs and dialogue tell as much as words.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from gristmill.models.fasttext_words import END_KEY, cut_words, hash_words

BUCKET_BITS = 20
MIN_TEXTS = 2
"""Training texts that a bucket must occur in to count."""
OWN_WORD = r"([^\p{L}\p{M}\p{N}\s]|\p{Han}|\p{Hiragana}|\p{Katakana}|\p{Thai})"
LINE_END = " \N{PILCROW SIGN} "
PAIR_FACTOR = np.uint64(116049371)
SPREAD = np.uint64(0x9E3779B97F4A7C15)


def count_words(texts: pa.LargeStringArray) -> sparse.csr_matrix:
    """How often each bucket occurs in each of n texts, float64, shape (n, 2 ** BUCKET_BITS); 11 MB of text a second."""
    shape = (len(texts), 1 << BUCKET_BITS)
    if len(texts) == 0:
        return sparse.csr_matrix(shape)
    lines = pc.replace_substring_regex(pc.utf8_lower(texts), OWN_WORD, r" \1 ")
    words = cut_words(pc.replace_substring(lines, "\n", LINE_END))
    keys = hash_words(words.dictionary).keys[words.indices.to_numpy()]
    is_end = keys == END_KEY
    documents = np.cumsum(is_end) - is_end
    is_pair = ~is_end[:-1] & ~is_end[1:]
    hashes = np.concatenate([keys[~is_end], (keys[:-1] * PAIR_FACTOR + keys[1:])[is_pair]])
    rows = np.concatenate([documents[~is_end], documents[:-1][is_pair]])
    buckets = (hashes * SPREAD >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
    counts = sparse.csr_matrix((np.ones(len(rows)), (rows, buckets)), shape)
    counts.sum_duplicates()
    return counts


@dataclass(frozen=True)
class Rarity:
    """Inverse document frequencies of the buckets that occur in some training texts, all others counting nothing.

    Args:
        weights: Of each bucket, float32[2 ** BUCKET_BITS].
    """

    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, counts: sparse.csr_matrix) -> Self:
        """Of the buckets of n training texts."""
        found = np.bincount(counts.indices, minlength=counts.shape[1])
        weights = np.log((1 + counts.shape[0]) / (1 + found)) + 1
        return cls(np.where(found >= MIN_TEXTS, weights, 0).astype(np.float32))

    def weigh(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Rows of length 1, or of zeros: (1 + ln count) times weight, so that the length of a text counts little."""
        values = (1 + np.log(counts.data)) * self.weights[counts.indices]
        squares = np.bincount(np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), values**2)
        lengths = np.sqrt(np.pad(squares, (0, counts.shape[0] - len(squares))))
        rows = np.repeat(np.where(lengths > 0, lengths, 1), np.diff(counts.indptr))
        return sparse.csr_matrix((values / rows, counts.indices, counts.indptr), counts.shape)

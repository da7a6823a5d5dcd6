"""fastText's probability of one of two labels, by one number for each word and n-gram.

fastText averages the vectors of a text's words and n-grams and takes the softmax of the products with the labels'
vectors. All before the softmax is linear, and a softmax of two depends on the difference alone. So the vector of a word
is as good as its product with the difference of the labels' vectors, made once when the model is loaded: a model of
2.4 GB becomes 60 MB, 12 bytes a word and 4 a bucket of n-grams, and a text needs a sum of single numbers. The file is
memory-mapped while they are made. Words are looked up once a block however often they occur.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.fasttext_file import FastTextFile
from gristmill.models.fasttext_words import END_KEY, Hashes, cut_words, hash_words

ROWS_PER_BLOCK = 1 << 16
BYTES_PER_BLOCK = 1 << 21
"""Text classified at once: arrays derived from more leave the processor's cache."""
NGRAM_FACTOR = np.uint64(116049371)

Margins = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LinearClassifier:
    """A fastText model of two labels.

    Args:
        labels: Both as trained, with their prefix.
        keys: 64-bit hashes of the words, ascending, uint64[v].
        word_margins: How far each of these words favours the first label over the second, float32[v].
        ngram_margins: The same for each bucket of n-grams, float32[b].
        word_ngrams: Words in the longest n-gram.
    """

    labels: tuple[str, str]
    keys: Hashes
    word_margins: Margins
    ngram_margins: Margins
    word_ngrams: int

    @classmethod
    def fold(cls, model: FastTextFile) -> Self | None:
        """The same classifier with one number for each vector.

        Returns:
            It, or None where there are not two labels, no softmax, or vectors of parts of words.
        """
        if len(model.labels) != 2 or not model.is_softmax or model.has_subwords:
            return None
        direction = np.subtract(*model.outputs.astype(np.float64))
        margins = np.empty(len(model.inputs), np.float32)
        for start in range(0, len(margins), ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            margins[rows] = model.inputs[rows].astype(np.float64) @ direction
        keys = hash_words(pa.array(model.words, pa.large_binary())).keys
        order = np.argsort(keys)
        return cls(
            labels=(model.labels[0], model.labels[1]),
            keys=keys[order],
            word_margins=margins[: len(keys)][order],
            ngram_margins=margins[len(keys) :],
            word_ngrams=model.word_ngrams,
        )

    def probability(self, texts: pa.LargeStringArray, label: str) -> Margins:
        """Probability of a label for each text, where fastText says 1e-5 more.

        Args:
            texts: n texts without line ends, labels and the word for the end of a line.
            label: One of `labels`.

        Returns:
            float32, shape (n,), in [0, 1]; 0 where the model knows no word of a text, not even its end.
        """
        blocks = np.cumsum(pc.binary_length(texts).to_numpy()) // BYTES_PER_BLOCK
        bounds = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(texts)]
        parts = [self._margins(texts[start:end]) for start, end in pairwise(bounds) if start < end]
        margins = np.concatenate([np.empty(0), *parts])
        sign = -1 if label == self.labels[0] else 1
        with np.errstate(over="ignore"):
            return np.nan_to_num(1 / (1 + np.exp(sign * margins))).astype(np.float32)

    def _margins(self, texts: pa.LargeStringArray) -> npt.NDArray[np.float64]:
        """Mean margin of the words and n-grams of each text, NaN where there are none, float64[n]."""
        words = cut_words(texts)
        distinct = hash_words(words.dictionary)
        places = _find(self.keys, distinct.keys)
        is_known = places >= 0
        margins = np.where(is_known, self.word_margins[places], 0).astype(np.float64)

        tokens = words.indices.to_numpy()
        is_end = (distinct.keys == END_KEY)[tokens]
        hashes = distinct.fasttext[tokens]
        sums, counts = margins[tokens], is_known[tokens].astype(np.int64)
        ngrams, is_inside = hashes, np.ones(len(tokens), np.bool_)
        for length in range(1, self.word_ngrams):
            ngrams = ngrams[:-1] * NGRAM_FACTOR + hashes[length:]
            is_inside = is_inside[:-1] & ~is_end[length - 1 : -1]
            buckets = ngrams % np.uint64(len(self.ngram_margins))
            sums[:-length] += np.where(is_inside, self.ngram_margins[buckets], 0)
            counts[:-length] += is_inside
        starts = np.append(0, np.flatnonzero(is_end)[:-1] + 1)
        with np.errstate(invalid="ignore"):
            return np.add.reduceat(sums, starts) / np.add.reduceat(counts, starts)


def _find(ascending: Hashes, wanted: Hashes) -> npt.NDArray[np.int64]:
    """Where each of n numbers stands, -1 where it does not, int64[n]."""
    order = np.argsort(wanted)  # so that searches next to each other touch the same memory
    places = np.empty(len(wanted), np.int64)
    places[order] = np.minimum(np.searchsorted(ascending, wanted[order]), len(ascending) - 1)
    return np.where(ascending[places] == wanted, places, -1)

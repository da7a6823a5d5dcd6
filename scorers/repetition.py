"""How much of a document repeats: shares of characters in frequent and in repeated n-grams of words.

Two readings of Gopher's Table A1 (arXiv 2112.11446) are in use and give different numbers; both are here, each
under the name of the tool that uses it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gristmill.scorers.ngrams import Positions, Repeats, repeated_ngrams
from gristmill.scorers.text import Words

MAX_N = 10


class TopNgram(NamedTuple):
    """The most frequent n-gram of each document, of equals the first to occur.

    Args:
        counts: How often it occurs, 0 in a document of fewer than n words, int64[d].
        num_chars: Characters of its words, 0 in a document of fewer than n words, int64[d].
    """

    counts: Positions
    num_chars: Positions


def repeats_by_n(words: Words) -> Iterator[tuple[int, Repeats]]:
    """Yield n and the repeated n-grams for n from 1 to 10."""
    return zip(range(1, MAX_N + 1), repeated_ngrams(words.ids, words.documents), strict=False)


def top_ngram(words: Words, n: int, repeats: Repeats) -> TopNgram:
    """Find the most frequent n-gram of each document."""
    num_words = len(words)
    starts = words.splits[:-1]
    # Rank n-grams by count and then by how early they occur; without a repeated one, the first of all wins.
    rank = num_words - starts + (num_words + 1)
    np.maximum.at(
        rank,
        words.documents[repeats.first],
        num_words - repeats.first + (num_words + 1) * repeats.counts,
    )
    counts, lateness = np.divmod(rank, num_words + 1)
    long_enough = words.num_by_document >= n
    first = np.where(long_enough, num_words - lateness, 0)
    num_chars = words.length_bounds[np.where(long_enough, first + n, 0)] - words.length_bounds[first]
    return TopNgram(counts * long_enough, num_chars)


def covered_chars(words: Words, n: int, repeats: Repeats) -> Positions:
    """Characters of the words that lie in any repeated n-gram, each counted once (RedPajama-v2), [d]."""
    at = repeats.sorted_positions
    return _sum_chars(words, at, np.minimum(at + n, np.append(at[1:], len(words))))


def repeated_chars(words: Words, n: int, repeats: Repeats) -> Positions:
    """Characters of n-grams that occurred before, read from left to right without overlap (datatrove), [d]."""
    at = repeats.later
    # Whoever reads one such n-gram goes on with the next that starts after its end. That makes one chain through
    # the whole batch, since no n-gram reaches into the next document. Follow it in strides of 1, 2, 4, ...
    stride = np.append(np.searchsorted(at, at + n), len(at))
    read = np.zeros(len(at) + 1, np.bool_)
    read[0] = True
    while stride[0] < len(at):
        read[stride[read]] = True
        stride = stride[stride]
    chosen = at[read[:-1]]
    return _sum_chars(words, chosen, chosen + n)


def _sum_chars(words: Words, first: Positions, end: Positions) -> Positions:
    """Characters of the words from `first` up to `end`, summed by document, [d]."""
    num_chars = np.concatenate([[0], np.cumsum(words.length_bounds[end] - words.length_bounds[first])])
    return np.diff(num_chars[np.searchsorted(first, words.splits)])

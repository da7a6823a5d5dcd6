"""Shingles: the runs of words or characters that make a document comparable with others, as 64-bit hashes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.scorers.plain_text import SEPARATOR, Normalization, plain_text
from gristmill.scorers.span_hashes import span_hashes, window_hashes
from gristmill.scorers.text import TextBatch

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

SHORT = np.uint64(0x5851F42D4C957F2D)
"""Sets the one shingle of a short document apart from the shingles of long ones."""


@dataclass(frozen=True, kw_only=True)
class Shingling(Normalization):
    """How documents are cut into shingles; see `Normalization` for the options that say which words are equal.

    Args:
        unit: What a shingle is a run of: words, or characters (white space and punctuation are one blank).
        size: Units in a shingle.
    """

    unit: Literal["word", "char"] = "word"
    size: int = 5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}, must be at least 1")

    @property
    def normalization(self) -> Normalization:
        """Which words are equal; shinglings that agree on it share one view of a batch."""
        return Normalization(
            lower_case=self.lower_case,
            strip_punctuation=self.strip_punctuation,
            unicode=self.unicode,
            collapse_numbers=self.collapse_numbers,
        )


DATATROVE_SHINGLING = Shingling()
"""datatrove's MinHash defaults: runs of 5 simplified words (`plain_text` tells where they differ)."""


class DocumentHashes(NamedTuple):
    """Hashes grouped by document.

    Attributes:
        hashes: uint64[s].
        offsets: Those of document i are `hashes[offsets[i]:offsets[i + 1]]`, int64[n + 1].
    """

    hashes: Hashes
    offsets: Positions


class Units(NamedTuple):
    """What shingles are runs of.

    Attributes:
        values: Equal for equal units, unsigned, shape (u,).
        splits: Those of document i are from splits[i] to splits[i + 1], int64[n + 1].
    """

    values: npt.NDArray[np.unsignedinteger]
    splits: Positions


def shingle_hashes(batch: TextBatch, shingling: Shingling) -> DocumentHashes:
    """The distinct shingles of each of n documents, ascending.

    A document with fewer units than a shingle has one: all its units, hashed so that it equals no shingle of a long
    document. So short documents are near duplicates only of equal ones. A document without a word has none.
    """
    return batch.view(_shingle_hashes, shingling)


def _shingle_hashes(batch: TextBatch, shingling: Shingling) -> DocumentHashes:
    units, splits = batch.view(_UNITS[shingling.unit], shingling.normalization)
    num_units = np.diff(splits)
    is_short = (num_units > 0) & (num_units < shingling.size)
    num_shingles = np.where(is_short, 1, np.maximum(num_units - (shingling.size - 1), 0))
    offsets = np.concatenate([[0], np.cumsum(num_shingles)])
    windows = window_hashes(units, shingling.size)
    crosses = np.subtract.outer(splits[1:-1], np.arange(1, shingling.size)).ravel()
    stays = np.ones(len(windows), np.bool_)
    stays[crosses[(crosses >= 0) & (crosses < len(windows))]] = False
    short = _whole_hashes(units[np.repeat(is_short, num_units)], num_units[is_short]) ^ SHORT
    return _distinct(
        np.insert(windows[stays], offsets[:-1][is_short] - np.arange(len(short)), short), offsets
    )


def _whole_hashes(units: npt.NDArray[np.unsignedinteger], lengths: Positions) -> Hashes:
    """Hashes of documents that lie end to end, given their units and how many each has."""
    ends = np.cumsum(lengths)
    return span_hashes(units, ends - lengths, ends)


def _words(batch: TextBatch, normalization: Normalization) -> Units:
    """Hashes of the words."""
    text = plain_text(batch, normalization)
    return Units(span_hashes(text.symbols, text.starts, text.ends), text.splits)


def _characters(batch: TextBatch, normalization: Normalization) -> Units:
    """Symbols of the characters, one separator where words were separated."""
    text = plain_text(batch, normalization)
    kept = text.symbols != SEPARATOR
    kept[text.ends] = True
    last_words = text.splits[1:][np.diff(text.splits) > 0] - 1
    kept[text.ends[last_words]] = False
    positions = np.flatnonzero(kept)
    splits = np.append(np.searchsorted(positions, text.bounds), len(positions))
    return Units(text.symbols[positions], splits)


_UNITS: dict[str, Callable[[TextBatch, Normalization], Units]] = {"word": _words, "char": _characters}


def _distinct(hashes: Hashes, offsets: Positions) -> DocumentHashes:
    """Sort the hashes of each document and drop repeats; overwrites `hashes`."""
    # One call a document: a sort of all hashes with their documents takes several times as long.
    for start, end in pairwise(offsets.tolist()):
        hashes[start:end].sort()
    kept = np.ones(len(hashes), np.bool_)
    kept[1:] = hashes[1:] != hashes[:-1]
    kept[offsets[:-1][np.diff(offsets) > 0]] = True
    return DocumentHashes(hashes[kept], np.concatenate([[0], np.cumsum(kept)])[offsets])

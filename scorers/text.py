"""The shared view of a batch of documents: every derived array is computed once, on demand.

Scorers that look at the same batch share one `TextBatch`, so words, lines and n-grams are cut once however
many scorers ask. All views are flat NumPy arrays over the Arrow buffers; no Python object per document.

Views that need characters share one array of code points, `chars`, in which a newline stands before, between and
after the documents, so that looking at a neighbour never leaves the text and never sees another document. Memory
grows with the batch: about 60 bytes a character at the peak of `rules`, 100 for text of one-letter words. Batches of
1 to 2 MB are the fastest, since their arrays stay in the processor's cache.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.scorers.characters import Class, class_table, lower_table
from gristmill.scorers.vocabulary import Vocabulary, encode
from gristmill.scorers.words import Mask, Positions, cut_raw_words, cut_spaced_words, cut_words

NEWLINE = ord("\n")

Key = TypeVar("Key", bound=Hashable)
View = TypeVar("View")


def is_any(chars: npt.NDArray[np.uint32], wanted: str) -> Mask:
    """Which characters are among some wanted ones."""
    return np.logical_or.reduce([chars == ord(char) for char in wanted])


@dataclass(frozen=True)
class Spans:
    """Stretches of an array of characters, grouped by document, in order.

    Args:
        starts: First character of each span, int64[s].
        ends: One past its last character, int64[s].
        splits: The spans of document i are those from splits[i] to splits[i + 1], int64[n + 1].
    """

    starts: Positions
    ends: Positions
    splits: Positions

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def lengths(self) -> Positions:
        """Characters of each span, int64[s]."""
        return self.ends - self.starts

    @cached_property
    def length_bounds(self) -> Positions:
        """Characters of all spans before each span, and of all, int64[s + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def num_by_document(self) -> Positions:
        """Spans of each document, int64[n]."""
        return np.diff(self.splits)

    @cached_property
    def documents(self) -> Positions:
        """Document of each span, int64[s]."""
        return np.repeat(np.arange(len(self.splits) - 1), self.num_by_document)

    def count(self, positions: Positions) -> Positions:
        """How many of some ascending positions lie in each span, int64[s]."""
        return np.searchsorted(positions, self.ends) - np.searchsorted(positions, self.starts)

    def where(self, mask: Mask) -> "Spans":
        """The spans for which `mask` is true."""
        kept = np.concatenate([[0], np.cumsum(mask)])
        return Spans(self.starts[mask], self.ends[mask], kept[self.splits])

    def sum_by_document(self, values: Mask | Positions) -> Positions:
        """Sum of one whole number a span over each document, int64[n]."""
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.diff(sums[self.splits])

    def mean_by_document(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Mean of one number a span over each document, added in order, 0 where there is none, float64[n]."""
        sums = np.bincount(self.documents, values, minlength=len(self.splits) - 1).astype(np.float64)
        return sums / np.maximum(self.num_by_document, 1)


@dataclass(frozen=True)
class Words(Spans):
    """Spans with the identity of their text.

    Args:
        ids: Entry of each word in the vocabulary, int64[s].
        vocabulary: The distinct words of the batch.
    """

    ids: Positions
    vocabulary: Vocabulary

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """64-bit hash of each word, the same in every batch and on every machine, uint64[s]."""
        return self.vocabulary.hashes[self.ids]


@dataclass(frozen=True)
class NormalizedText:
    """The text in lower case and without ASCII punctuation, as RedPajama-v2 normalises it.

    Args:
        chars: Code points, laid out as in `TextBatch.chars`, uint32[c].
        classes: Their classes, uint16[c].
        dropped: Characters of the original text that were left out, int64[d].
    """

    chars: npt.NDArray[np.uint32]
    classes: npt.NDArray[np.uint16]
    dropped: Positions

    def position(self, original: Positions) -> Positions:
        """Where characters of the original text stand in this one."""
        return original - np.searchsorted(self.dropped, original)


class TextBatch:
    """A batch of documents with cached derived arrays.

    Args:
        documents: Rows of the corpus schema, `text` large_string without nulls; for derived scorers, of other scores.
    """

    def __init__(self, documents: pa.RecordBatch) -> None:
        self.documents = documents
        self._letters: dict[str, Positions] = {}
        self._views: dict[tuple[Callable[..., Any], Hashable], Any] = {}

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "TextBatch":
        """A batch of bare texts, for tests and interactive use."""
        return cls(pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.large_string())}))

    def __len__(self) -> int:
        return len(self.documents)

    @cached_property
    def text(self) -> pa.LargeStringArray:
        """The texts."""
        return self.documents.column("text")

    def view(self, make: Callable[["TextBatch", Key], View], key: Key) -> View:
        """What another module derives from the batch under some settings, `make(batch, key)`, computed once."""
        if (make, key) not in self._views:
            self._views[make, key] = make(self, key)
        return self._views[make, key]

    # Bytes

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Byte offsets of the documents in `buffer`, n + 1 values, the first 0."""
        raw = np.frombuffer(self.text.buffers()[1], np.int64, len(self.text) + 1, self.text.offset * 8)
        return raw - raw[0]

    @cached_property
    def buffer(self) -> npt.NDArray[np.uint8]:
        """The UTF-8 bytes of all documents, end to end."""
        data = self.text.buffers()[2]
        if data is None:
            return np.empty(0, np.uint8)
        start = np.frombuffer(self.text.buffers()[1], np.int64, 1, self.text.offset * 8)[0]
        return np.frombuffer(data, np.uint8)[start : start + self.offsets[-1]]

    @cached_property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each document."""
        return np.diff(self.offsets)

    @cached_property
    def num_chars(self) -> npt.NDArray[np.int64]:
        """Unicode code points of each document."""
        return pc.utf8_length(self.text).to_numpy(zero_copy_only=False)

    def byte_position(self, position: Positions) -> Positions:
        """Where characters of `chars` start in `buffer`, as bytes; the end of a document is the next one's start."""
        first_bytes = np.append(np.flatnonzero((self.buffer & 0xC0) != 0x80), len(self.buffer))
        newlines_before = np.searchsorted(self.text_spans.ends, position) + 1
        return first_bytes[position - newlines_before]

    # Characters

    @cached_property
    def chars(self) -> npt.NDArray[np.uint32]:
        """Code points of all documents, a newline before, between and after them, uint32[c]."""
        if len(self) == 0:
            return np.array([NEWLINE], np.uint32)
        all_texts = pa.LargeListArray.from_arrays(pa.array([0, len(self)], pa.int64()), self.text)
        joined = pc.binary_join(all_texts, pa.scalar("\n", pa.large_string()))[0].as_py()
        return np.frombuffer(f"\n{joined}\n".encode("utf-32-le"), np.uint32)

    @cached_property
    def classes(self) -> npt.NDArray[np.uint16]:
        """Classes of `chars`, see `characters.Class`, uint16[c]."""
        return class_table().take(self.chars)

    @cached_property
    def lower_chars(self) -> npt.NDArray[np.uint32]:
        """`chars` in lower case, code point by code point, uint32[c]."""
        return lower_table().take(self.chars)

    @cached_property
    def normalized(self) -> NormalizedText:
        """The text in lower case and without ASCII punctuation."""
        kept = (self.classes & Class.ASCII_PUNCTUATION) == 0
        return NormalizedText(self.lower_chars[kept], self.classes[kept], np.flatnonzero(~kept))

    def has(self, classes: np.uint16) -> Mask:
        """Which characters belong to any of some classes, bool[c]."""
        return (self.classes & classes) != 0

    @cached_property
    def specials(self) -> Positions:
        """Where punctuation marks and symbols stand, ascending, int64[p]."""
        return np.flatnonzero(self.has(Class.PUNCTUATION | Class.SYMBOL))

    @cached_property
    def special_chars(self) -> npt.NDArray[np.uint32]:
        """The characters that stand there, uint32[p]."""
        return self.chars[self.specials]

    def find_special(self, marks: str) -> Positions:
        """Where any of some punctuation marks and symbols stands, ascending."""
        return self.specials[is_any(self.special_chars, marks)]

    def find(self, phrase: str) -> Positions:
        """Where a phrase of lower-case ASCII letters and spaces starts in `lower_chars`, ascending."""
        rarest = min(phrase, key="jqxzkvbpygfwmucldrhsnioate ".index)
        found = self._find_letter(rarest) - phrase.index(rarest)
        found = found[(found > 0) & (found + len(phrase) < len(self.chars))]
        for index, char in enumerate(phrase):
            found = found[self.lower_chars[found + index] == ord(char)]
        return found

    def _find_letter(self, letter: str) -> Positions:
        if letter not in self._letters:
            self._letters[letter] = np.flatnonzero(self.lower_chars == ord(letter))
        return self._letters[letter]

    # Spans

    @cached_property
    def text_spans(self) -> Spans:
        """The documents as spans of `chars`, one each."""
        ends = np.cumsum(self.num_chars + 1)
        return Spans(ends - self.num_chars, ends, np.arange(len(self) + 1))

    def spans(self, starts: Positions, ends: Positions) -> Spans:
        """Spans of `chars` that never cross documents, grouped by document."""
        splits = np.append(np.searchsorted(starts, self.text_spans.starts), len(starts))
        return Spans(starts, ends, splits)

    @cached_property
    def newlines(self) -> Positions:
        """Where newlines stand, those around documents included, ascending."""
        return np.flatnonzero(self.chars == NEWLINE)

    @cached_property
    def segments(self) -> Spans:
        r"""What lies between newlines: `text.split("\n")`."""
        return self.spans(self.newlines[:-1] + 1, self.newlines[1:])

    @cached_property
    def segment_ids(self) -> Positions:
        """Equal for segments of equal text, int64[s]."""
        bounds = np.append(self.segments.starts, len(self.chars))
        return encode(self.chars, bounds).ids

    @cached_property
    def is_line(self) -> Mask:
        """Which segments are lines: all but an empty one at the end of a document, bool[s]."""
        is_line = np.ones(len(self.segments), np.bool_)
        last = self.segments.splits[1:] - 1
        is_line[last] = self.segments.lengths[last] > 0
        return is_line

    @cached_property
    def lines(self) -> Spans:
        r"""Lines without their newline. Only `\n` ends a line: `\r`, form feed, U+0085, U+2028 and others do not."""
        return self.segments.where(self.is_line)

    @cached_property
    def stripped_lines(self) -> Spans:
        """`lines` without the white space around them; blank ones are empty."""
        first, end = self.words_in(self.lines)
        blank = first == end
        padded = np.append(self.spaced_words.starts, 0), np.append(self.spaced_words.ends, 0)
        starts = np.where(blank, self.lines.starts, padded[0][first])
        ends = np.where(blank, self.lines.starts, padded[1][end - 1])
        return Spans(starts, ends, self.lines.splits)

    def words_in(self, spans: Spans) -> tuple[Positions, Positions]:
        """Index of the first spaced word in each span and one past the last, int64[s] each."""
        starts = self.spaced_words.starts
        return np.searchsorted(starts, spans.starts), np.searchsorted(starts, spans.ends)

    @cached_property
    def words(self) -> Words:
        """Words and punctuation marks as in `words.cut_words`, case kept."""
        spans = self.spans(*cut_words(self.chars, self.classes, self.specials))
        encoded = encode(self.chars[~self.has(Class.SPACE)], spans.length_bounds)
        return Words(spans.starts, spans.ends, spans.splits, encoded.ids, encoded.vocabulary)

    @cached_property
    def raw_words(self) -> Spans:
        r"""Matches of `\w+|[^\w\s]+` as in `words.cut_raw_words`."""
        return self.spans(*cut_raw_words(self.classes))

    @cached_property
    def spaced_words(self) -> Spans:
        """What lies between white space, as in `words.cut_spaced_words`."""
        return self.spans(*cut_spaced_words(self.classes))

    @cached_property
    def normalized_words(self) -> Words:
        """Words of the normalised text, cut at white space; their spans count characters of `normalized.chars`."""
        text = self.normalized
        starts, ends = cut_spaced_words(text.classes)
        splits = np.append(np.searchsorted(starts, text.position(self.text_spans.starts)), len(starts))
        spans = Spans(starts, ends, splits)
        encoded = encode(text.chars[(text.classes & Class.SPACE) == 0], spans.length_bounds)
        return Words(starts, ends, splits, encoded.ids, encoded.vocabulary)

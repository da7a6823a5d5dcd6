"""Text reduced to what near-duplicate search compares: words without case, punctuation, accents and figures.

The defaults follow datatrove 0.10.1 (`utils/text.simplify_text`). Where they depart from it:

- Every punctuation mark of Unicode separates words, not only the 80 on datatrove's list.
- A number may have several decimal or thousands separators: 1,234,567 and 12.05.2020 become one 0, not "0 0".
- Letters of scripts that write no spaces are words of their own (`characters.Class.UNSPACED`). datatrove asks for
  the document's language, and takes a Chinese sentence for one word where it is not told.
- Words end at spaces alone; spaCy, which datatrove calls afterwards, also splits "cannot" and the like.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.scorers.characters import NUM_CODE_POINTS, Class, class_table, lower_table
from gristmill.scorers.text import TextBatch, is_any
from gristmill.scorers.words import Mask

Positions = npt.NDArray[np.int64]
Symbols = npt.NDArray[np.uint32]
Narrow = npt.NDArray[np.uint8]

DECIMAL_MARKS = ".,،٫⎖⎗⎘"
SEPARATING_SYMBOLS = "´━∶►～"
"""Symbols outside ASCII that datatrove counts as punctuation."""

SEPARATOR = np.uint8(0)
"""The symbol of all that separates words; a character has its code point plus one."""
ZERO = np.uint8(ord("0") + 1)
WIDE = np.uint8(0xFF)
"""Stands for every symbol that does not fit a byte, since passes over bytes are the fastest."""
UNSPACED = np.uint32(1 << 21)
"""Flag of letters that are words of their own."""
MARK = np.uint32(1 << 22)
"""Flag of marks, which stay with the letter before them."""
COMPOSES = np.uint32(1 << 23)
"""Flag of characters that may be one with the character before them: their document is composed first."""
DROPPED = np.uint32(1 << 24)
"""Flag of characters that are left out."""


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """What distinguishes no words.

    Args:
        lower_case: Compare in lower case.
        strip_punctuation: Punctuation, ASCII symbols and control characters separate words; otherwise only white
            space does, and they are part of words.
        unicode: "unaccented" drops combining marks after canonical decomposition (é is e); "canonical" only makes
            the spellings of one character equal; "as_is" compares code points.
        collapse_numbers: Every number is 0.
    """

    lower_case: bool = True
    strip_punctuation: bool = True
    unicode: Literal["unaccented", "canonical", "as_is"] = "unaccented"
    collapse_numbers: bool = True


class PlainText(NamedTuple):
    """Normalised text of a batch, cut into words.

    Attributes:
        symbols: One a character, `SEPARATOR` between words and around documents, uint32[c].
        starts: First symbol of each word, int64[w].
        ends: One past its last symbol, int64[w].
        bounds: First symbol of each document, int64[n].
        splits: The words of document i are those from splits[i] to splits[i + 1], int64[n + 1].
    """

    symbols: Symbols
    starts: Positions
    ends: Positions
    bounds: Positions
    splits: Positions


def plain_text(batch: TextBatch, normalization: Normalization) -> PlainText:
    """Normalise a batch of n documents and cut it into words."""
    table, narrow_table = _symbol_table(normalization), _narrow_table(normalization)
    narrow = narrow_table.take(batch.chars)
    wide_at = np.flatnonzero(narrow == WIDE)
    wide = table.take(batch.chars[wide_at])
    composing = wide_at[(wide & COMPOSES) != 0]
    if len(composing):
        batch = _compose(batch, composing)
        narrow = narrow_table.take(batch.chars)
        wide_at = np.flatnonzero(narrow == WIDE)
        wide = table.take(batch.chars[wide_at]) & ~COMPOSES
    dropped = [wide_at[(wide & DROPPED) != 0]]
    if normalization.collapse_numbers:
        dropped += _number_tails(batch.chars, narrow)
    positions = np.sort(np.concatenate(dropped))
    kept = np.ones(len(narrow), np.bool_)
    kept[positions] = False
    narrow, wide = narrow[kept], wide[kept[wide_at]]
    wide_at = np.flatnonzero(narrow == WIDE)
    symbols = narrow.astype(np.uint32)
    symbols[wide_at] = wide
    starts, ends = _cut(narrow != SEPARATOR, symbols, wide_at[(wide & UNSPACED) != 0])
    bounds = batch.text_spans.starts
    bounds = bounds - np.searchsorted(positions, bounds)
    return PlainText(symbols, starts, ends, bounds, np.append(np.searchsorted(starts, bounds), len(starts)))


@cache
def _narrow_table(normalization: Normalization) -> Narrow:
    """Symbol of every code point where it fits a byte, else `WIDE`: uint8[0x110000]."""
    table = np.minimum(_symbol_table(normalization), WIDE).astype(np.uint8)
    table.flags.writeable = False
    return table


@cache
def _symbol_table(normalization: Normalization) -> Symbols:
    """Symbol of every code point: uint32[0x110000]."""
    classes = class_table()
    table = lower_table() if normalization.lower_case else np.arange(NUM_CODE_POINTS, dtype=np.uint32)
    table = table + np.uint32(1)
    if normalization.collapse_numbers:
        table[(classes & Class.DIGIT) != 0] = ZERO
    table[(classes & Class.UNSPACED) != 0] |= UNSPACED
    table[(classes & Class.MARK) != 0] |= MARK
    table[(classes & Class.SPACE) != 0] = SEPARATOR
    if normalization.strip_punctuation:
        table[(classes & (Class.PUNCTUATION | Class.ASCII_PUNCTUATION)) != 0] = SEPARATOR
        table[[*range(0x20), *range(0x7F, 0xA0), *map(ord, SEPARATING_SYMBOLS)]] = SEPARATOR
    if normalization.unicode != "as_is":
        is_mark = (classes & Class.MARK) != 0
        for code in np.flatnonzero(classes).tolist():
            if is_mark[code] or not unicodedata.is_normalized("NFD", chr(code)):
                _set_canonical(table, code, drops_marks=normalization.unicode == "unaccented")
    table.flags.writeable = False
    return table


def _set_canonical(table: Symbols, code: int, *, drops_marks: bool) -> None:
    """Give the canonical spellings of one code point one symbol, or the flag that they have several."""
    char = chr(code)
    decomposed = unicodedata.normalize("NFD", char)
    if drops_marks:
        bases = [part for part in decomposed if unicodedata.category(part) != "Mn"]
    else:
        bases = list(decomposed)
    if not bases:
        table[code] = DROPPED
    elif len(bases) > 1 and unicodedata.normalize("NFC", char) == char:
        table[[ord(part) for part in bases[1:]]] |= COMPOSES
    elif len(bases) > 1:
        table[code] |= COMPOSES
    elif bases[0] != char:
        table[code] = table[ord(bases[0])]
    if bases and unicodedata.combining(char):
        # Several of them have one order only after normalisation.
        table[code] |= COMPOSES


def _compose(batch: TextBatch, positions: Positions) -> TextBatch:
    """The batch with those documents in NFC that hold some characters, given their positions, ascending.

    Python's NFC, since pyarrow up to 25 decomposes when asked for it. Few documents, as most text is composed.
    """
    texts = batch.text.to_pylist()
    for row in np.unique(np.searchsorted(batch.text_spans.ends, positions)).tolist():
        texts[row] = unicodedata.normalize("NFC", texts[row])
    return TextBatch.from_texts(texts)


def _number_tails(chars: npt.NDArray[np.uint32], symbols: Narrow) -> list[Positions]:
    """All but the first digit of every number, and the marks between its digits."""
    digits = np.flatnonzero(symbols == ZERO)
    follows_digit = symbols[digits - 1] == ZERO
    follows_mark = is_any(chars[digits - 1], DECIMAL_MARKS) & (symbols[digits - 2] == ZERO)
    return [digits[follows_digit | follows_mark], digits[follows_mark] - 1]


def _cut(present: Mask, symbols: Symbols, unspaced: Positions) -> tuple[Positions, Positions]:
    """Starts and ends of words, given which symbols are in words, and where those that are words of their own stand."""
    edges = np.flatnonzero(present[1:] != present[:-1]) + 1
    around = np.union1d(unspaced, unspaced + 1)
    inside = around[present[around] & present[around - 1] & ((symbols[around] & MARK) == 0)]
    starts, ends = (
        np.sort(np.concatenate([side, inside]), kind="stable") for side in (edges[::2], edges[1::2])
    )
    return starts, ends

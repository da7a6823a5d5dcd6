"""Shingles in plain Python, character by character, to compare the vectorised ones with."""

import re
import unicodedata

from gristmill.scorers.characters import Class, class_table
from gristmill.scorers.plain_text import DECIMAL_MARKS, SEPARATING_SYMBOLS, Normalization
from gristmill.scorers.shingles import Shingling

ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
NUMBER = re.compile(rf"\d+([{DECIMAL_MARKS}]\d+)*")


def is_separator(char: str, normalization: Normalization) -> bool:
    if char.isspace():
        return True
    category = unicodedata.category(char)
    return normalization.strip_punctuation and (
        category[0] == "P" or category == "Cc" or char in ASCII_PUNCTUATION + SEPARATING_SYMBOLS
    )


def simplify(char: str, normalization: Normalization) -> str:
    """A character of composed text as it is compared, empty if it is left out."""
    if normalization.unicode != "as_is":
        parts = list(unicodedata.normalize("NFD", char))
        if normalization.unicode == "unaccented":
            parts = [part for part in parts if unicodedata.category(part) != "Mn"]
        if len(parts) < 2:
            char = "".join(parts)
    lower = char.lower()
    return lower if normalization.lower_case and len(lower) == 1 else char


def words(text: str, normalization: Normalization) -> list[list[str]]:
    """The words between separators, each as a list of units that are words of their own."""
    if normalization.collapse_numbers:
        text = NUMBER.sub("0", text)
    if normalization.unicode != "as_is":
        text = unicodedata.normalize("NFC", text)
    found: list[list[str]] = [[]]
    was_unspaced = False
    for char in text:
        simple = simplify(char, normalization)
        if not simple:
            continue
        if is_separator(simple, normalization):
            found.append([])
            was_unspaced = False
            continue
        classes = class_table()[ord(simple)]
        is_unspaced = bool(classes & Class.UNSPACED)
        continues = bool(classes & Class.MARK) or not (is_unspaced or was_unspaced)
        if found[-1] and continues:
            found[-1][-1] += simple
        else:
            found[-1].append(simple)
        was_unspaced = is_unspaced
    return [word for word in found if word]


def shingles(text: str, shingling: Shingling) -> set[tuple[str, ...]]:
    cut = words(text, shingling)
    if shingling.unit == "word":
        units = [unit for word in cut for unit in word]
    else:
        units = list(" ".join("".join(word) for word in cut))
    if 0 < len(units) < shingling.size:
        return {("short", *units)}
    return {tuple(units[start : start + shingling.size]) for start in range(len(units) - shingling.size + 1)}


def jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right)

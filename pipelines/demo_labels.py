"""Labels for the demo's two raters, from what every machine has: a formula, and damage done on purpose.

They show how raters are trained, and are no judgements of quality: one rater learns a formula of lengths from words,
the other to tell texts from the same texts with the faults of a bad extraction.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

MIN_WORDS = 20
MAX_TEXTS = 1500
PARTED, MARKED = 5, 9
"""Every fifth word of a spoiled text is parted, every ninth followed by a remnant of HTML."""
REMNANT = "&nbsp;"
CLEAN, SPOILED = 5, 0
WORD = re.compile(r"\S+")
SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


def labelled_texts(documents: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Texts as they are and spoiled, one after the other, as records of a file with labels of both raters.

    A spoiled text keeps the readability of what it was made from.

    Args:
        documents: Name and text of each.
    """
    for name, text in long_enough(documents):
        readability = round(points(reading_grade(text)), 2)
        for found, cleanliness in ((text, CLEAN), (spoil(text), SPOILED)):
            yield {"id": name, "text": found, "readability": readability, "cleanliness": cleanliness}


def reading_grade(text: str) -> float:
    """The automated readability index, a school year of the United States (Senter and Smith 1967).

    Args:
        text: With a word at least.
    """
    words = text.split()
    num_sentences = max(len(SENTENCE_END.findall(text)), 1)
    return 4.71 * sum(map(len, words)) / len(words) + 0.5 * len(words) / num_sentences - 21.43


def points(grade: float) -> float:
    """A grade as points, from 0 (grade 20 and above) to 5 (grade 0 and below)."""
    return min(max((20 - grade) / 4, 0.0), 5.0)


def spoil(text: str) -> str:
    """A text as a bad extraction leaves it: words parted in the middle, HTML after others, lines as before."""
    numbers = count(1)

    def damaged(match: re.Match[str]) -> str:
        word, number = match[0], next(numbers)
        middle = len(word) // 2
        parted = f"{word[:middle]} {word[middle:]}" if middle and number % PARTED == 0 else word
        return f"{parted} {REMNANT}" if number % MARKED == 0 else parted

    return WORD.sub(damaged, text)


def long_enough(documents: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Documents of some words, at equal distances where there are many."""
    found = [(name, text) for name, text in documents if len(text.split()) >= MIN_WORDS]
    return found[:: max(len(found) // MAX_TEXTS, 1)][:MAX_TEXTS]

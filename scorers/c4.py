"""C4's view of lines (JMLR 21-140, section 2.2, and its code, c4_utils.py of TensorFlow Datasets).

A line goes when a word of it is longer than 1,000 characters, when it does not end in `. ? ! " '` or ends in an
ellipsis, when it has few words, or when it mentions JavaScript or a policy; a page goes when a line that got so far
says "lorem ipsum" or has a curly bracket, or when too few sentences remain. Citation marks such as [1] or [edit]
are taken out of the lines that stay.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gristmill.scorers.characters import Class
from gristmill.scorers.sentences import is_terminal, join_runs
from gristmill.scorers.text import Spans, TextBatch, is_any
from gristmill.scorers.words import Mask, Positions

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
MAX_WORD_CHARS = 1000
TERMINALS = ".?!\"'"


@dataclass(frozen=True)
class Citations:
    """Citation marks such as [1], [edit] and [citation needed].

    Args:
        starts: First characters, ascending, int64[m].
        ends: One past their last characters, int64[m].
    """

    starts: Positions
    ends: Positions

    def skip_back(self, ends: Positions) -> Positions:
        """Move each position that follows citations in a row to before the first of them."""
        if len(self.starts) == 0:
            return ends
        opens_row = np.append(True, self.starts[1:] != self.ends[:-1])
        row_starts = self.starts[opens_row][np.cumsum(opens_row) - 1]
        index = np.minimum(np.searchsorted(self.ends, ends), len(self.ends) - 1)
        return np.where(self.ends[index] == ends, row_starts[index], ends)

    @cached_property
    def positions(self) -> Positions:
        """All their characters, ascending."""
        lengths = self.ends - self.starts
        return np.arange(lengths.sum()) + np.repeat(self.ends - np.cumsum(lengths), lengths)


@dataclass(frozen=True)
class C4Lines:
    """What C4 asks about each of `TextBatch.lines`: bool[l] each, counts int64[l].

    Args:
        is_sound: No word is too long and the line ends in terminal punctuation.
        num_words: Words between white space.
        num_sentences: Sentences, at least 1.
        has_lorem_ipsum: "lorem ipsum" occurs, in any case.
        has_javascript: "javascript" occurs, in any case.
        has_curly_bracket: `{` occurs.
        has_policy: One of `POLICY_PHRASES` occurs, in any case.
    """

    is_sound: Mask
    num_words: Positions
    num_sentences: Positions
    has_lorem_ipsum: Mask
    has_javascript: Mask
    has_curly_bracket: Mask
    has_policy: Mask

    def is_long(self, min_words: int) -> Mask:
        """Lines that get as far as the tests of content."""
        return self.is_sound & (self.num_words >= min_words)

    def is_kept(self, min_words: int) -> Mask:
        """Lines that stay, if their page does."""
        unwanted = self.has_lorem_ipsum | self.has_javascript | self.has_curly_bracket | self.has_policy
        return self.is_long(min_words) & ~unwanted


def find_citations(batch: TextBatch) -> Citations:
    r"""Find all matches of `\[\d*]|\[edit]|\[citation needed]`."""
    opens = batch.find_special("[")
    closes = batch.find_special("]")
    index = np.searchsorted(closes, opens)
    opens, index = opens[index < len(closes)], index[index < len(closes)]
    ends = closes[index] + 1
    inner = Spans(opens + 1, ends - 1, np.array([0, len(opens)]))
    is_citation = (
        (inner.count(np.flatnonzero(batch.has(Class.DIGIT))) == inner.lengths)
        | _equals(batch, inner, "edit")
        | _equals(batch, inner, "citation needed")
    )
    return Citations(opens[is_citation], ends[is_citation])


def c4_lines(batch: TextBatch, citations: Citations) -> C4Lines:
    """Answer C4's questions about every line of a batch.

    Where this departs from the code: a line ends at a newline only; sentences are counted as in
    `count_sentences`; JavaScript, policies and "lorem ipsum" are looked for before citations are taken out.
    """
    lines = batch.lines
    words = batch.spaced_words
    first, end = batch.words_in(lines)

    def has(positions: Positions) -> Mask:
        return lines.count(positions) > 0

    return C4Lines(
        is_sound=_ends_a_sentence(batch, citations) & ~has(words.starts[words.lengths > MAX_WORD_CHARS]),
        num_words=end - first,
        num_sentences=count_sentences(batch, citations),
        has_lorem_ipsum=has(batch.find("lorem ipsum")),
        has_javascript=has(batch.find("javascript")),
        has_curly_bracket=has(batch.find_special("{")),
        has_policy=np.logical_or.reduce([has(batch.find(phrase)) for phrase in POLICY_PHRASES]),
    )


def count_sentences(batch: TextBatch, citations: Citations) -> Positions:
    """Count the sentences of each line, int64[l].

    A sentence ends where white space follows a run of punctuation that holds a sentence terminal, as in
    `sentences.is_terminal`. Citations count as punctuation. This stands in for NLTK's trained model (C4's code) and
    spaCy's sentencizer (datatrove).
    """
    marks = batch.specials[batch.classes[batch.specials] & Class.PUNCTUATION != 0]
    at = np.sort(np.concatenate([marks, citations.positions]))
    at = at[np.append(True, at[1:] != at[:-1])[: len(at)]]
    terminal = is_terminal(batch, at)
    terminal[np.searchsorted(at, citations.positions)] = False
    run_ends, (ends_sentence,) = join_runs(at, terminal)
    ends_sentence &= batch.classes[run_ends] & Class.SPACE != 0
    before_last_char = Spans(batch.lines.starts, batch.stripped_lines.ends, batch.lines.splits)
    return 1 + before_last_char.count(run_ends[ends_sentence])


def _ends_a_sentence(batch: TextBatch, citations: Citations) -> Mask:
    """Which lines end in terminal punctuation that is not an ellipsis, once citations are taken out."""
    lines = batch.stripped_lines
    is_dot, end = [], lines.ends
    for _ in range(3):
        end = citations.skip_back(end)
        inside = end > lines.starts
        char = np.where(inside, batch.chars[end - 1], 0)
        is_dot.append(char == ord("."))
        if len(is_dot) == 1:
            is_terminal = is_any(char, TERMINALS)
        end = np.where(inside, end - 1, end)
    return is_terminal & ~np.logical_and.reduce(is_dot)


def _equals(batch: TextBatch, spans: Spans, text: str) -> Mask:
    """Which spans read `text`."""
    equal = spans.lengths == len(text)
    starts = spans.starts[equal]
    equal[equal] = np.logical_and.reduce(
        [batch.chars[starts + index] == ord(char) for index, char in enumerate(text)]
    )
    return equal

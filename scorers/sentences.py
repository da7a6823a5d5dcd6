"""Sentences of documents, without loss: end to end they are the text."""

import numpy as np
import numpy.typing as npt

from gristmill.scorers.characters import Class
from gristmill.scorers.text import Spans, TextBatch
from gristmill.scorers.words import Mask, Positions


def cut_sentences(batch: TextBatch) -> Spans:
    """Each document cut before its sentences; a sentence keeps the white space after it.

    A sentence ends with a run of punctuation that holds a sentence terminal, where white space follows or the script
    writes none. Pretraining with human preferences (arXiv 2302.08582) cuts by spaCy's sentencizer, which also keeps the
    white space with the sentence before it; it knows abbreviations by its tokenizer's list, here see `is_terminal`.

    Returns:
        Spans of `batch.chars`; a document without text has none.
    """
    marks = batch.specials[batch.classes[batch.specials] & Class.PUNCTUATION != 0]
    terminal = is_terminal(batch, marks)
    unspaced = terminal & (batch.classes[marks] & Class.UNSPACED != 0)
    ends, (terminal, unspaced) = join_runs(marks, terminal, unspaced)
    before_space = batch.classes[ends] & Class.SPACE != 0
    is_end = terminal & (before_space | unspaced)
    ends, before_space = ends[is_end], before_space[is_end]

    documents = batch.text_spans
    words = np.append(batch.spaced_words.starts, len(batch.chars))
    next_word = words[np.searchsorted(words, ends)]
    starts = np.where(before_space, next_word, ends)
    inside = starts < documents.ends[np.searchsorted(documents.starts, ends - 1, "right") - 1]
    starts = np.union1d(documents.starts[documents.lengths > 0], starts[inside])
    holders = np.searchsorted(documents.starts, starts, "right") - 1
    ends = np.minimum(np.append(starts, len(batch.chars))[1:], documents.ends[holders])
    return batch.spans(starts, ends)


def is_terminal(batch: TextBatch, marks: Positions) -> Mask:
    """Which punctuation marks end sentences: not dots in a row, nor the dot after a lone capital ("J.").

    Args:
        batch: The documents.
        marks: Where the marks stand in `batch.chars`, int64[m].
    """
    chars, classes = batch.chars, batch.classes
    dot = np.uint32(ord("."))
    lone_capital = (classes[marks - 1] & Class.UPPER != 0) & (classes[marks - 2] & Class.UPPER == 0)
    in_a_row = (chars[marks - 1] == dot) | (chars[marks + 1] == dot)
    abbreviates = (chars[marks] == dot) & (in_a_row | lone_capital)
    return (classes[marks] & Class.SENTENCE_END != 0) & ~abbreviates


def join_runs(marks: Positions, *masks: Mask) -> tuple[Positions, list[npt.NDArray[np.bool_]]]:
    """Where runs of neighbouring marks end, one past each, and for each mask the runs that hold a mark it is true of.

    Args:
        marks: Ascending, int64[m].
        masks: bool[m] each.
    """
    if not len(marks):
        return marks, list(masks)
    starts = np.flatnonzero(np.append(True, np.diff(marks) != 1))
    ends = marks[np.append(starts[1:], len(marks)) - 1] + 1
    return ends, [np.logical_or.reduceat(mask, starts) for mask in masks]

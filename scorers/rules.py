"""The `rules` scorer: the features behind the Gopher, C4 and FineWeb rules and the RedPajama-v2 quality signals.

A feature is a number, never a decision: thresholds live in the rule sets of `sql/rule_sets.sql`. How words are cut
is told in `words`, what a line is in `text.TextBatch.lines`; both hold for all features here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.scorers.base import Column, Scorer
from gristmill.scorers.c4 import c4_lines, find_citations
from gristmill.scorers.characters import Class
from gristmill.scorers.ngrams import repeats
from gristmill.scorers.repetition import covered_chars, repeated_chars, repeats_by_n, top_ngram
from gristmill.scorers.rule_columns import RULE_COLUMNS
from gristmill.scorers.stop_words import ENGLISH
from gristmill.scorers.text import Spans, TextBatch, is_any
from gristmill.scorers.vocabulary import encode
from gristmill.scorers.words import Mask, Positions

GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
GOPHER_BULLETS = "•-"
RPS_BULLETS = "•‣▶◀◦■□▪▫–"
RPS_TERMINALS = ".!?”"
SHORT_LINE_CHARS = 30
C4_MIN_WORDS = (3, 5)
TOP_N = (2, 3, 4)
DUPE_N = (5, 6, 7, 8, 9, 10)

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Features = dict[str, Numbers]


@dataclass(frozen=True)
class Rules(Scorer):
    """Features of Gopher, C4, FineWeb and RedPajama-v2, one column each, for any language.

    Decisions of the rule sets agree with those of datatrove 0.10.1 on 97 % of documents and more of each filter
    (`tests/bench/bench_rules.py` counts them). Where they disagree:

    - Words: abbreviations, emoticons, units and addresses are cut otherwise than spaCy does (`words.cut_words`),
      which moves a document that lies at the threshold of 80 % words with letters, or at 50 words.
    - Words that count: a word with a letter or number, where datatrove takes any word with a character outside
      its list of punctuation, emoji and currency signs included.
    - Lines: only a newline ends one, where Python's `splitlines`, used by datatrove's Gopher quality and C4
      filters, also cuts at form feeds, U+0085, U+2028 and others; leading and trailing newlines add no empty line.
    - Repeated n-grams: one counts as seen before wherever it occurred before; datatrove forgets those that started
      inside another repeated n-gram.
    - Sentences of C4: `c4.count_sentences` instead of spaCy's sentencizer, which moves documents at 5 sentences.
    """

    name = "rules"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """The features."""
        return RULE_COLUMNS

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Compute all features of all documents."""
        features = quality(batch) | repetition(batch) | lines(batch) | c4(batch) | redpajama(batch)
        arrays = [pa.array(features[column.name], column.type) for column in self.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema())


def quality(batch: TextBatch) -> Features:
    """Features of whole texts and of their words, for the Gopher quality rules and FineWeb."""
    words, vocabulary = batch.words, batch.words.vocabulary
    num_words = words.num_by_document
    has_letter = (vocabulary.classes & Class.ALPHA) != 0
    counts = ((vocabulary.classes & (Class.ALPHA | Class.NUMBER)) != 0)[words.ids]
    num_counted = words.sum_by_document(counts)
    stop_word = vocabulary.find(GOPHER_STOP_WORDS)[words.ids]
    is_stop_word = stop_word >= 0
    num_stop_words = len(GOPHER_STOP_WORDS)
    seen = np.zeros(len(batch) * num_stop_words, np.bool_)
    seen[words.documents[is_stop_word] * num_stop_words + stop_word[is_stop_word]] = True
    num_hashes = batch.text_spans.count(batch.find_special("#"))
    num_ellipses = batch.text_spans.count(_ellipses(batch))
    num_newlines = batch.text_spans.count(batch.newlines)
    return {
        "gopher_word_count": num_counted,
        "gopher_mean_word_length": _ratio(words.sum_by_document(words.lengths * counts), num_counted),
        "gopher_hash_to_word_ratio": _ratio(num_hashes, num_words),
        "gopher_ellipsis_to_word_ratio": _ratio(num_ellipses, num_words),
        "gopher_frac_alpha_words": _ratio(words.sum_by_document(has_letter[words.ids]), num_words),
        "gopher_num_stop_words": seen.reshape(len(batch), num_stop_words).sum(axis=1),
        "fineweb_newline_to_word_ratio": _ratio(num_newlines, num_words),
        "rps_doc_symbol_to_word_ratio": _ratio(num_hashes + num_ellipses, batch.raw_words.num_by_document),
    }


def repetition(batch: TextBatch) -> Features:
    """Shares of n-grams, and of lines and paragraphs that occurred before, for Gopher, FineWeb, RedPajama-v2."""
    features: Features = {}
    words = batch.words
    for n, found in repeats_by_n(words):
        if n in TOP_N:
            top = top_ngram(words, n, found)
            with_spaces = top.num_chars + (n - 1)
            features[f"gopher_frac_chars_top_{n}gram"] = _ratio(with_spaces * top.counts, batch.num_chars)
        if n in DUPE_N:
            chars = repeated_chars(words, n, found)
            features[f"gopher_frac_chars_dupe_{n}grams"] = _ratio(chars, batch.num_chars)

    words = batch.normalized_words
    num_words, num_chars = words.num_by_document, words.sum_by_document(words.lengths)
    for n, found in repeats_by_n(words):
        if n == 1:
            repeated = found.counts
            num_distinct = num_words - np.bincount(
                words.documents[found.first], repeated - 1, minlength=len(batch)
            )
            features["rps_doc_frac_unique_words"] = _ratio(num_distinct, num_words)
            # Summed in order of first occurrence, so that rounding does not depend on the batch.
            order = np.argsort(found.first)
            repeated_entropy = np.bincount(
                words.documents[found.first[order]],
                (repeated * np.log(repeated))[order],
                minlength=len(batch),
            )
            entropy = np.log(np.maximum(num_words, 1)) - _ratio(repeated_entropy, num_words)
            features["rps_doc_unigram_entropy"] = np.maximum(entropy, 0.0)
        if n in TOP_N:
            top = top_ngram(words, n, found)
            chars = np.where(top.counts > 1, top.num_chars * top.counts, 0)
            features[f"rps_doc_frac_chars_top_{n}gram"] = _ratio(chars, num_chars)
        if n in DUPE_N:
            chars = covered_chars(words, n, found)
            features[f"rps_doc_frac_chars_dupe_{n}grams"] = _ratio(chars, num_chars)
    return features


def lines(batch: TextBatch) -> Features:
    """Features of lines and paragraphs."""
    lines, stripped = batch.lines, batch.stripped_lines
    num_lines = lines.num_by_document
    first_char = batch.chars[stripped.starts]
    last_char = batch.chars[stripped.ends - 1]
    is_full = stripped.lengths > 0
    ends_with_ellipsis = is_full & (
        (last_char == ord("…")) | ((last_char == ord(".")) & _preceded_by_dots(batch, stripped.ends))
    )

    def fraction(mask: Mask) -> Numbers:
        return _ratio(lines.sum_by_document(mask), num_lines)

    copies, full = _later_copies(batch.segments, batch.segment_ids), batch.segments.lengths > 0
    paragraphs, paragraph_ids = _paragraphs(batch)
    paragraph_copies = _later_copies(paragraphs, paragraph_ids)
    num_chars_on_lines = batch.num_chars - batch.text_spans.count(batch.newlines)
    line_copies = copies[batch.is_line]
    num_full_lines = lines.sum_by_document(is_full)
    ends_terminally = (batch.classes[lines.ends - 1] & Class.SENTENCE_END) != 0
    with_newline = lines.lengths + (lines.ends < batch.text_spans.ends[lines.documents])
    return {
        "gopher_frac_bullet_lines": fraction(is_full & is_any(first_char, GOPHER_BULLETS)),
        "gopher_frac_ellipsis_lines": fraction(ends_with_ellipsis),
        "gopher_frac_dup_lines": _ratio(
            batch.segments.sum_by_document(copies & full), batch.segments.sum_by_document(full)
        ),
        "gopher_frac_chars_dup_lines": _ratio(
            batch.segments.sum_by_document(copies * batch.segments.lengths), batch.num_chars
        ),
        "gopher_frac_dup_paragraphs": _ratio(
            paragraphs.sum_by_document(paragraph_copies), paragraphs.num_by_document
        ),
        "gopher_frac_chars_dup_paragraphs": _ratio(
            paragraphs.sum_by_document(paragraph_copies * paragraphs.lengths), batch.num_chars
        ),
        "fineweb_line_punct_ratio": _ratio(lines.sum_by_document(is_full & ends_terminally), num_full_lines),
        "fineweb_short_line_ratio_30_chars": _ratio(
            lines.sum_by_document(is_full & (lines.lengths <= SHORT_LINE_CHARS)), num_full_lines
        ),
        "fineweb_char_dup_ratio": _ratio(
            lines.sum_by_document(is_full * line_copies * lines.lengths), num_chars_on_lines
        ),
        "rps_doc_frac_lines_end_with_ellipsis": fraction(ends_with_ellipsis),
        "rps_lines_ending_with_terminal_punctution_mark": fraction(
            is_full & is_any(last_char, RPS_TERMINALS)
        ),
        "rps_lines_start_with_bulletpoint": fraction(is_full & is_any(first_char, RPS_BULLETS)),
        "rps_lines_uppercase_letter_fraction": lines.mean_by_document(
            _ratio(lines.count(np.flatnonzero(batch.has(Class.UPPER))), with_newline)
        ),
        "rps_lines_numerical_chars_fraction": lines.mean_by_document(
            _ratio(lines.count(np.flatnonzero(batch.has(Class.NUMERIC))), _normalized_lengths(batch, lines)),
        ),
    }


def c4(batch: TextBatch) -> Features:
    """How many lines and sentences C4 would keep, and why it would drop a page."""
    facts = c4_lines(batch, find_citations(batch))
    features: Features = {
        "c4_num_lines": batch.lines.num_by_document,
        "c4_num_javascript_lines": batch.lines.sum_by_document(facts.has_javascript),
        "c4_num_policy_lines": batch.lines.sum_by_document(facts.has_policy),
    }
    for min_words in C4_MIN_WORDS:
        long, kept = facts.is_long(min_words), facts.is_kept(min_words)
        lorem_ipsum = long & facts.has_lorem_ipsum
        curly_bracket = long & ~facts.has_lorem_ipsum & ~facts.has_javascript & facts.has_curly_bracket
        features |= {
            f"c4_num_kept_lines_{min_words}_words": batch.lines.sum_by_document(kept),
            f"c4_num_sentences_{min_words}_words": batch.lines.sum_by_document(kept * facts.num_sentences),
            f"c4_num_lorem_ipsum_lines_{min_words}_words": batch.lines.sum_by_document(lorem_ipsum),
            f"c4_num_curly_bracket_lines_{min_words}_words": batch.lines.sum_by_document(curly_bracket),
        }
    return features


def redpajama(batch: TextBatch) -> Features:
    """RedPajama-v2 signals of raw and normalised words."""
    raw, words, vocabulary = batch.raw_words, batch.normalized_words, batch.normalized_words.vocabulary
    num_words, num_lines = words.num_by_document, batch.lines.num_by_document
    raw_classes = np.bitwise_or.reduceat(batch.classes, raw.starts) if len(raw) else np.empty(0, np.uint16)
    all_caps = ((raw_classes & Class.UPPER) != 0) & ((raw_classes & Class.LOWER) == 0)
    no_letter = (raw_classes & Class.ALPHA) == 0
    num_brackets = batch.text_spans.count(batch.find_special("{}"))
    num_javascript = words.sum_by_document((vocabulary.find(["javascript"]) >= 0)[words.ids])
    normalized_chars = _normalized_lengths(batch, batch.text_spans)
    return {
        "rps_doc_curly_bracket": _ratio(num_brackets, batch.num_chars),
        "rps_doc_frac_all_caps_words": _ratio(raw.sum_by_document(all_caps), raw.num_by_document),
        "rps_doc_frac_no_alph_words": _ratio(raw.sum_by_document(no_letter), raw.num_by_document),
        "rps_doc_lorem_ipsum": _ratio(words.sum_by_document(_lorem_ipsum(batch)), normalized_chars),
        "rps_doc_mean_word_length": _ratio(words.sum_by_document(words.lengths), num_words),
        "rps_doc_num_sentences": _num_terminated(batch),
        "rps_doc_stop_word_fraction": _ratio(
            words.sum_by_document((vocabulary.find(ENGLISH) >= 0)[words.ids]), num_words
        ),
        "rps_doc_word_count": num_words,
        "rps_lines_javascript_counts": _ratio(num_javascript, num_lines),
        "rps_lines_num_words": _ratio(num_words, num_lines),
    }


def _ratio(part: Numbers, whole: Numbers) -> npt.NDArray[np.float64]:
    """Quotients, 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)


def _preceded_by_dots(batch: TextBatch, ends: Positions) -> Mask:
    """Whether the second and third character before each position are dots."""
    return (batch.chars[ends - 2] == ord(".")) & (batch.chars[ends - 3] == ord("."))


def _ellipses(batch: TextBatch) -> Positions:
    """Ends of the matches of `...` and `…`, ascending."""
    dots = batch.find_special(".")
    starts_run = np.append(True, np.diff(dots) != 1)[: len(dots)]
    index = np.arange(len(dots))
    place = index - np.maximum.accumulate(np.where(starts_run, index, 0))
    return np.sort(np.concatenate([dots[place % 3 == 2], batch.find_special("…")]))


def _later_copies(spans: Spans, ids: Positions) -> Mask:
    """Which spans have an equal one before them in their document."""
    keys = spans.documents * (int(ids.max(initial=0)) + 1) + ids
    is_copy = np.zeros(len(ids), np.bool_)
    is_copy[repeats(keys, np.arange(len(ids))).later] = True
    return is_copy


def _paragraphs(batch: TextBatch) -> tuple[Spans, Positions]:
    """Runs of segments that are not empty, and ids that are equal for those of equal text."""
    segments = batch.segments
    full = np.flatnonzero(segments.lengths > 0)
    documents = segments.documents[full]
    opens = np.append(True, (np.diff(full) != 1) | (np.diff(documents) != 0))[: len(full)]
    first = np.flatnonzero(opens)
    bounds = np.append(first, len(full))
    last = full[bounds[1:] - 1]
    splits = np.append(np.searchsorted(documents[first], np.arange(len(batch))), len(first))
    spans = Spans(segments.starts[full[first]], segments.ends[last], splits)
    return spans, encode(batch.segment_ids[full].astype(np.uint32), bounds).ids


def _normalized_lengths(batch: TextBatch, spans: Spans) -> Positions:
    """Characters of each span in lower case, without ASCII punctuation, white space collapsed and stripped."""
    words, normalized = batch.normalized_words, batch.normalized
    first = np.searchsorted(words.starts, normalized.position(spans.starts))
    end = np.searchsorted(words.starts, normalized.position(spans.ends))
    follows_space = np.append(True, words.starts[1:] != words.ends[:-1])[: len(words)]
    num_spaces = np.concatenate([[0], np.cumsum(follows_space)])
    # The first word of a span follows a space that is stripped.
    spaces = np.maximum(num_spaces[end] - num_spaces[first] - 1, 0)
    return words.length_bounds[end] - words.length_bounds[first] + spaces


def _lorem_ipsum(batch: TextBatch) -> Mask:
    """Which normalised words end in "lorem" and are followed, after a space, by one that starts with "ipsum"."""
    words, vocabulary = batch.normalized_words, batch.normalized_words.vocabulary
    found = vocabulary.ends_with("lorem")[words.ids]
    found[:-1] &= (
        vocabulary.starts_with("ipsum")[words.ids[1:]]
        & (words.starts[1:] != words.ends[:-1])
        & (words.documents[1:] == words.documents[:-1])
    )
    found[-1:] = False
    return found


def _num_terminated(batch: TextBatch) -> Numbers:
    r"""Matches of `\b[^.!?]+[.!?]*`: stretches between the marks `.!?` that hold a character of a word."""
    word_starts = batch.raw_words.starts
    word_starts = word_starts[(batch.classes[word_starts] & Class.WORD) != 0]
    marks = batch.find_special(".!?")
    bounds = np.sort(np.concatenate([marks, batch.text_spans.ends]))
    has_word = np.diff(np.searchsorted(word_starts, bounds), prepend=0) > 0
    documents = np.searchsorted(batch.text_spans.ends, bounds)
    return np.bincount(documents[has_word], minlength=len(batch))

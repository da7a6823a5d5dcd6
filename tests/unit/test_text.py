"""The shared views of a batch: spans, words and n-grams, against plain Python on one document at a time."""

import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import rules_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.scorers.characters import Class, class_table, lower_table
from gristmill.scorers.ngrams import repeated_ngrams, repeats
from gristmill.scorers.text import Spans, TextBatch, Words

PIECES = st.sampled_from(
    [
        *"a B word Word don't U.S. 5.00 ... … -- ( ) ' ’s # - • é ß İ ǅ ٣ ½ 中文 ไทย かな 한국 😀 $ € %".split(),
        *"+ = / : <b> . , ! ? 。".split(),
        *(" ", "  ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x85", "\u2028", "\0", "e\u0301", "❤\ufe0f"),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=40))
BATCHES = st.lists(TEXTS, max_size=5)


def strings(batch: TextBatch, spans: Spans, chars: np.ndarray | None = None) -> list[list[str]]:
    """The text of spans, document by document."""
    chars = batch.chars if chars is None else chars
    texts = [
        chars[start:end].tobytes().decode("utf-32-le")
        for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
    ]
    return [texts[first:end] for first, end in zip(spans.splits[:-1], spans.splits[1:], strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, (world)!", ["Hello", ",", "(", "world", ")", "!"]),
        ("It's 5.00, isn't it?", ["It", "'s", "5.00", ",", "isn", "'t", "it", "?"]),
        ("The U.S. and J. Doe...", ["The", "U.S.", "and", "J.", "Doe", "..."]),
        ("well-known and/or O'Neil", ["well", "-", "known", "and", "/", "or", "O'Neil"]),
        ("end.Start a,b 1,000 3*4", ["end", ".", "Start", "a", ",", "b", "1,000", "3", "*", "4"]),
        ("$5 5$ 10% --- == a--b", ["$", "5", "5", "$", "10", "%", "---", "=", "=", "a", "--", "b"]),
        ("我爱NLP。ที่5", ["我", "爱", "NLP", "。", "ที่", "5"]),
        ("한국어 e\u0301te\u0301", ["한국어", "e\u0301te\u0301"]),
    ],
)
def test_words_are_cut_as_documented(text: str, words: list[str]) -> None:
    batch = TextBatch.from_texts([text])
    assert strings(batch, batch.words) == [words]
    assert reference.words(text) == words


@given(BATCHES)
@settings(deadline=None, max_examples=300)
def test_spans_equal_the_reference(texts: list[str]) -> None:
    batch = TextBatch.from_texts(texts)
    assert strings(batch, batch.words) == [reference.words(text) for text in texts]
    assert strings(batch, batch.raw_words) == [reference.raw_words(text) for text in texts]
    assert strings(batch, batch.spaced_words) == [reference.spaced_words(text) for text in texts]
    assert strings(batch, batch.segments) == [text.split("\n") for text in texts]
    assert strings(batch, batch.lines) == [reference.text_lines(text) for text in texts]
    assert strings(batch, batch.stripped_lines) == [
        [line.strip() for line in reference.text_lines(text)] for text in texts
    ]
    assert strings(batch, batch.normalized_words, batch.normalized.chars) == [
        reference.normalized_words(text) for text in texts
    ]
    assert strings(batch, batch.text_spans) == [[text] for text in texts]


@given(BATCHES)
@settings(deadline=None)
def test_equal_words_and_no_others_share_id_and_hash(texts: list[str]) -> None:
    batch = TextBatch.from_texts(texts)
    words = [word for text in texts for word in reference.words(text)]
    ids = batch.words.ids.tolist()
    assert len(dict(zip(words, ids, strict=True))) == len(set(ids)) == len(set(words))
    hashes = batch.words.hashes.tolist()
    assert len(set(zip(words, hashes, strict=True))) == len(set(words)) == len(set(hashes))


def test_hashes_do_not_depend_on_the_batch() -> None:
    alone = TextBatch.from_texts(["the cat sat"]).words.hashes
    beside = TextBatch.from_texts(["a dog", "the cat sat"]).words
    assert beside.hashes[beside.splits[1] :].tolist() == alone.tolist()
    assert alone.tolist() == [13949460749913820966, 8910398012922089936, 3904606280847724119]


@given(st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=4))
@settings(deadline=None)
def test_repeated_ngrams_equal_counting(documents: list[list[int]]) -> None:
    ids = np.array([word for document in documents for word in document], np.int64)
    owner = np.repeat(np.arange(len(documents)), list(map(len, documents)))
    bases = np.cumsum([0, *map(len, documents)])
    for n, found in zip(range(1, 8), repeated_ngrams(ids, owner), strict=False):
        expected = []
        for document, base in zip(documents, bases, strict=False):
            places: dict[tuple[int, ...], list[int]] = {}
            for index in range(len(document) - n + 1):
                places.setdefault(tuple(document[index : index + n]), []).append(base + index)
            expected += [where for where in places.values() if len(where) > 1]
        bounds = np.append(found.group_starts, len(found.positions))
        groups = [found.positions[a:b].tolist() for a, b in pairwise(bounds)]
        assert sorted(groups) == sorted(expected)
        assert found.later.tolist() == sorted(place for where in expected for place in where[1:])


def test_repeats_of_huge_keys_equal_those_of_small_ones() -> None:
    positions = np.arange(6)
    keys = np.array([3, 1, 3, 2, 1, 3])
    small, huge = repeats(keys, positions), repeats(keys << 60, positions)
    assert small.positions.tolist() == huge.positions.tolist() == [1, 4, 0, 2, 5]
    assert small.counts.tolist() == huge.counts.tolist() == [2, 3]


@given(BATCHES)
@settings(deadline=None)
def test_byte_positions_find_the_words_in_the_buffer(texts: list[str]) -> None:
    batch = TextBatch.from_texts(["é skipped", *texts])
    batch = TextBatch(batch.documents.slice(1))
    starts, ends = batch.byte_position(batch.words.starts), batch.byte_position(batch.words.ends)
    found = [batch.buffer[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]
    assert [word for word in found if word.strip()] == [
        word for text in texts for word in reference.words(text)
    ]


@given(BATCHES)
@settings(deadline=None)
def test_find_equals_str_find(texts: list[str]) -> None:
    batch = TextBatch.from_texts([*texts, "Privacy POLICY, privacy policy"])
    found = batch.text_spans.count(batch.find("privacy policy"))
    assert found.tolist() == [reference.lower(text).count("privacy policy") for text in texts] + [2]


def test_a_batch_without_documents_has_empty_views() -> None:
    batch = TextBatch.from_texts([])
    views = [
        batch.words,
        batch.raw_words,
        batch.spaced_words,
        batch.lines,
        batch.normalized_words,
        batch.segments,
    ]
    assert [len(view) for view in views] == [0] * 6
    assert isinstance(batch.words, Words)


def test_a_sliced_batch_sees_only_its_documents() -> None:
    whole = pa.RecordBatch.from_pydict({"text": pa.array(["one two", "three é", "four"], pa.large_string())})
    batch = TextBatch(whole.slice(1, 1))
    assert strings(batch, batch.words) == [["three", "é"]]
    assert batch.num_chars.tolist() == [7]
    assert batch.num_bytes.tolist() == [8]


def test_classes_follow_the_unicode_database() -> None:
    table = class_table()
    for char in "aZ5 _.é中\u0301½٣\u2028\x85ไ$…ǅ":
        classes = table[ord(char)]
        assert bool(classes & Class.SPACE) == char.isspace()
        assert bool(classes & Class.ALPHA) == (unicodedata.category(char)[0] == "L")
        assert bool(classes & Class.UPPER) == char.isupper()
        assert bool(classes & Class.NUMERIC) == char.isnumeric()
        assert bool(classes & Class.MARK) == (unicodedata.category(char)[0] == "M")
    assert [chr(code) for code in lower_table()[[ord(char) for char in "AÉİßΣK"]]] == list("aéİßσk")

"""Shingles against plain Python, on every script."""

import gzip
import json
import re
import unicodedata
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shingles_reference as reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.scorers.characters import class_table
from gristmill.scorers.plain_text import Normalization
from gristmill.scorers.shingles import DATATROVE_SHINGLING, Shingling, shingle_hashes
from gristmill.scorers.span_hashes import ROW, span_hashes, window_hashes
from gristmill.scorers.text import TextBatch

DATA = Path(__file__).resolve().parents[3] / "shared/data"

PIECES = [
    *" \n\t\0.,-'_$%=|/´►",
    *"aAbÉéßİıǅΣς0198٣",
    *("3.14", "1,234,567", "12.05.2020", "1.", ".5", "19th", "٣٫١٤", "5\u030a", "1\u0301,2"),
    *(
        "e\u0301",
        "e\u0301\u0323",
        "e\u0323\u0301",
        "\u0301",
        "\u0344",
        "\u212b",
        "\u2126",
        "≠",
        "=\u0338",
        "\u037e",
    ),
    *("이", "\u110b\u1175", "각", "\u1100\u1161\u11a8", "\u1161", "가\u11a8"),
    *("\u09c7\u09be", "\u09cb", "\U0001d15e", "\U0001d157\U0001d165"),
    *("磨", "坊", "。", "が", "か\u3099", "ｶ", "ไทย", "กำ", "ខ្មែរ", "मिल", "שָׁלוֹם", "עברית"),
    *("👩‍👩‍👧", "☕", "🏳️‍🌈", "\U0010ffff", "\ufeff", "\u200b", "\xad"),
    *("the cat sat on", "the mat ", "The Mat"),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join),
    st.text(max_size=30),
)
BATCHES = st.lists(TEXTS, max_size=6)
SHINGLINGS = st.builds(
    Shingling,
    unit=st.sampled_from(["word", "char"]),
    size=st.integers(1, 6),
    lower_case=st.booleans(),
    strip_punctuation=st.booleans(),
    unicode=st.sampled_from(["unaccented", "canonical", "as_is"]),
    collapse_numbers=st.booleans(),
)


def hash_sets(texts: list[str], shingling: Shingling = DATATROVE_SHINGLING) -> list[set[int]]:
    """The shingles of each document; checks that they are distinct and ascending."""
    hashes, offsets = shingle_hashes(TextBatch.from_texts(texts), shingling)
    assert hashes.dtype == np.uint64
    assert offsets.dtype == np.int64
    assert len(offsets) == len(texts) + 1
    assert offsets[-1] == len(hashes)
    documents = np.split(hashes, offsets[1:-1]) if texts else []
    assert all((document[1:] > document[:-1]).all() for document in documents)
    return [set(document.tolist()) for document in documents]


def assert_same_sets(found: list[set[int]], expected: list[set[tuple[str, ...]]]) -> None:
    """Two families of sets are the same but for the names of their elements, as far as pairs can tell."""
    assert list(map(len, found)) == list(map(len, expected))
    for first, second in combinations(range(len(found)), 2):
        assert len(found[first] & found[second]) == len(expected[first] & expected[second])


@given(BATCHES, SHINGLINGS)
@settings(deadline=None, max_examples=150)
@example(PIECES, DATATROVE_SHINGLING)
@example(PIECES, Shingling(unit="char", size=2))
@example(
    ["a b c d e", "a  b\nc d, e!", "A B C D E f", "a b c d", "a b c d", "", "\0", "a b c"],
    DATATROVE_SHINGLING,
)
def test_shingles_are_those_of_plain_python(texts: list[str], shingling: Shingling) -> None:
    assert_same_sets(hash_sets(texts, shingling), [reference.shingles(text, shingling) for text in texts])


@given(TEXTS, SHINGLINGS)
@settings(deadline=None, max_examples=100)
def test_canonical_spellings_have_the_same_shingles(text: str, shingling: Shingling) -> None:
    # Normalisation may bring digits together that a mark kept apart.
    text = re.sub(r"\d", "x", text)
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    if shingling.unicode != "as_is":
        first, second, third = hash_sets([text, composed, decomposed], shingling)
        assert first == second == third


def test_every_character_has_the_symbol_of_its_decomposition() -> None:
    chars = [chr(code) for code in np.flatnonzero(class_table()).tolist()]
    decomposed = [unicodedata.normalize("NFD", char) for char in chars]
    for unicode in ("unaccented", "canonical"):
        shingling = Shingling(size=1, unicode=unicode)
        found, expected = (
            shingle_hashes(TextBatch.from_texts(texts), shingling) for texts in (chars, decomposed)
        )
        assert np.array_equal(found.hashes, expected.hashes)
        assert np.array_equal(found.offsets, expected.offsets)


def test_the_defaults_of_datatrove() -> None:
    assert Shingling() == DATATROVE_SHINGLING
    equal = ["The café's 3.5 mills grind, the grain", "the cafe s 0 MILLS — grind the\n\ngrain!"]
    first, second = hash_sets(equal)
    assert first == second
    assert len(first) == 4


def test_short_documents_are_equal_only_to_equal_ones() -> None:
    short, same, longer, other, nothing = hash_sets(
        ["one two three", "One, two: three!", "one two three four five", "one two four", "-- ... --"]
    )
    assert short == same
    assert len(short) == len(longer) == len(other) == 1
    assert not short & longer
    assert not short & other
    assert nothing == set()


def test_a_short_document_meets_no_shingle_of_its_size() -> None:
    # With size 2 "a b" is a shingle; with size 3 it is a short document of other identity.
    (long,) = hash_sets(["a b"], Shingling(size=2))
    (short,) = hash_sets(["a b"], Shingling(size=3))
    assert not long & short


def test_no_shingle_crosses_documents() -> None:
    assert_same_sets(
        hash_sets(["a b c", "d e f", "", "g h"], Shingling(size=2)),
        [{("a", "b"), ("b", "c")}, {("d", "e"), ("e", "f")}, set(), {("g", "h")}],
    )


def test_hashes_are_the_same_for_ever() -> None:
    (document,) = hash_sets(["The mill grinds the grain of 3 farmers."])
    assert sorted(document) == [
        5861371559373486925,
        9352940193639013602,
        12208757114880789775,
        12837062619780569842,
    ]


def test_slices_and_neighbours_change_nothing() -> None:
    texts = [
        "the cat sat on the mat",
        "",
        "이 고양이 \u110b\u1175",
        "磨坊磨碎农民",
        "e\u0301 a b c d e f",
    ] * 3
    whole = hash_sets(texts)
    documents = TextBatch.from_texts(texts).documents
    for start in range(len(texts)):
        part = shingle_hashes(TextBatch(documents[start : start + 2]), DATATROVE_SHINGLING)
        assert set(part.hashes.tolist()) == set().union(*whole[start : start + 2])


def test_words_are_cut_once_for_all_shinglings(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = TextBatch.from_texts(["the cat sat on the mat"])
    first = shingle_hashes(batch, DATATROVE_SHINGLING)
    assert shingle_hashes(batch, Shingling()) is first
    monkeypatch.setattr("gristmill.scorers.shingles.plain_text", lambda *_: pytest.fail("cut again"))
    assert len(shingle_hashes(batch, Shingling(size=2)).hashes) == 5


@given(st.lists(st.integers(1, 3), max_size=40), st.data())
def test_spans_are_equal_where_their_values_are(values: list[int], data: st.DataObject) -> None:
    # Far from the start, across rows of the table of powers.
    shift = data.draw(st.integers(0, 2 * ROW))
    array = np.array([7] * shift + values + [7] * data.draw(st.integers(0, ROW)), np.uint32)
    spans = [(start, end) for start in range(len(values)) for end in range(start + 1, len(values) + 1)]
    bounds = np.array(spans, np.int64).reshape(-1, 2) + shift
    hashes = span_hashes(array, bounds[:, 0], bounds[:, 1]).tolist()
    contents = [tuple(values[start:end]) for start, end in spans]
    assert len(set(zip(contents, hashes, strict=True))) == len(set(contents)) == len(set(hashes))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40), st.integers(1, 50))
def test_windows_are_spans_of_one_length(values: list[int], size: int) -> None:
    array = np.array(values, np.uint32)
    starts = np.arange(max(len(values) - size + 1, 0))
    assert window_hashes(array, size).tolist() == span_hashes(array, starts, starts + size).tolist()


def test_spans_of_many_values_have_no_collision() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4, 150_000).astype(np.uint32)
    starts = np.arange(len(values) - 40)
    for length in (20, 40):
        hashes = span_hashes(values, starts, starts + length)
        rows = np.lib.stride_tricks.sliding_window_view(values.astype(np.uint8), length)[: len(starts)]
        num_distinct = len({row.tobytes() for row in rows})
        assert len(np.unique(hashes)) == num_distinct
        # Upper and lower halves are as good as random.
        for half in (hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF)):
            expected = num_distinct - num_distinct**2 / 2**33
            assert len(np.unique(half)) == pytest.approx(expected, abs=30)


def test_empty_batch() -> None:
    assert hash_sets([]) == []
    assert hash_sets(["", ""]) == [set(), set()]


@pytest.mark.parametrize("size", [0, -1])
def test_impossible_sizes(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}, must be at least 1"):
        Shingling(size=size)


def test_shinglings_share_their_normalization() -> None:
    assert Shingling(size=13, unit="char").normalization == Normalization()
    assert Shingling(lower_case=False).normalization == Normalization(lower_case=False)


@pytest.mark.parametrize(
    "name", ["corpus/mixed-00", "multilingual/udhr_declarations", "multilingual/wikipedia_zh"]
)
@pytest.mark.parametrize("unit", ["word", "char"])
def test_real_text(name: str, unit: str) -> None:
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"][:5000] for line in islice(file, 60)]
    shingling = Shingling(unit=unit)
    assert_same_sets(hash_sets(texts, shingling), [reference.shingles(text, shingling) for text in texts])


def test_large_string_arrays_with_an_offset() -> None:
    texts = pa.array(["x" * 100, "a b c d e f", "g"], pa.large_string())[1:]
    batch = TextBatch(pa.RecordBatch.from_arrays([texts], ["text"]))
    assert np.diff(shingle_hashes(batch, DATATROVE_SHINGLING).offsets).tolist() == [2, 1]

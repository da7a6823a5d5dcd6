"""The hash of exact duplicates: what counts as the same text, and that the hash is XXH3's."""

import unicodedata
from uuid import UUID

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from gristmill.scorers.base import TextBatch
from gristmill.scorers.duplicates import ExactDuplicate, hash128, normalize


def texts_of(*texts):
    return pa.array(texts, pa.large_string())


def hashes(*texts):
    return ExactDuplicate().score(TextBatch.from_texts(texts)).column("exact_duplicate_hash").to_pylist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The mill.", "the MILL."),
        ("The mill.", "  The\n\tmill.\r\n"),
        ("The mill.", "The\u00a0\u2003mill.\u3000\u2028"),
        ("é", "e\u0301"),
        ("가", "\u1100\u1161"),
        ("", " \n\x1c\x85"),
    ],
)
def test_same_text(one, other):
    assert len(set(hashes(one, other))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The mill.", "The mill"),
        ("In 1998.", "In 1999."),
        ("resume", "résumé"),
        ("a b", "ab"),
        ("x²", "x2"),
        ("a\0", "a"),
        ("a\u200bb", "ab"),
    ],
)
def test_other_text(one, other):
    assert len(set(hashes(one, other))) == 2


def plain_normalize(text):
    """The definition in Python; characters whose lower case is several characters are left to Arrow."""
    return " ".join(unicodedata.normalize("NFD", text).lower().split())


@given(st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Lu", "Lt", "Cn"])))
def test_normalize_equals_the_definition(text):
    assert normalize(texts_of(text)).to_pylist() == [plain_normalize(text)]


@given(st.text())
def test_normalize_twice_changes_nothing(text):
    once = normalize(texts_of(text))
    assert normalize(once).equals(once)


@given(st.lists(st.text(), min_size=1), st.integers(0, 5))
def test_hash128_is_xxh3_of_the_bytes_also_of_a_slice(texts, start):
    expected = [UUID(bytes=xxhash.xxh3_128_digest(text.encode())) for text in texts][start:]
    assert hash128(texts_of(*texts)[start:]).to_pylist() == expected


def test_hash128_of_nothing():
    assert hash128(texts_of()).to_pylist() == []


def test_the_hash_never_changes():
    assert hashes("The mill.") == [UUID("ec48019c-7dbb-6f66-bb4e-e81e4d84cd17")]

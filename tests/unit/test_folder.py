"""Folders of text and HTML files: one document a file."""

import gzip

import pytest
from backports import zstd
from corpora import html

from gristmill.pipelines import folder
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import Piece

FIELDS = Input(path="a", source="web")
MAX = 1 << 20


@pytest.fixture
def read(tmp_path, extractor):
    """A function: bytes of a file -> its parsed records."""

    def read(content, *, name="a.txt", parse=folder.parse_text, max_document_bytes=MAX):
        path = tmp_path / name
        path.write_bytes(content)
        limits = {"max_document_bytes": max_document_bytes}
        (block,) = folder.read_blocks(Piece(str(path), f"sub/{name}"), block_bytes=10, **limits)
        if parse is folder.parse_html:
            limits["extractor"] = extractor
        return parse(block, FIELDS, **limits)

    return read


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"one\r\ntwo\x0c\n", "one\r\ntwo\x0c\n"),
        ("Grüße \U0001f600\u2028".encode(), "Grüße \U0001f600\u2028"),
        (b"\xef\xbb\xbftext", "text"),
        (b"", ""),
        (b"\0", "\0"),
    ],
)
def test_a_text_file_is_a_document_as_it_is(read, content, text):
    records = read(content)
    assert (records.texts, records.ids, records.offsets, records.num_in) == ([text], ["sub/a.txt"], [0], 1)
    assert (records.urls, records.created, records.metadata, records.repaired) == (
        [None],
        [None],
        [None],
        [False],
    )


def test_text_in_another_encoding_is_a_reject(read):
    records = read(b"caf\xe9 au lait")
    assert (records.texts, records.num_in) == ([], 1)
    (reject,) = records.rejects
    assert reject.reason == "invalid_utf8: invalid continuation byte at byte 3"
    assert reject.head == b"caf\xe9 au lait"


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd.compress)])
def test_compressed_files_are_read(read, suffix, compress):
    assert read(compress(b"text"), name=f"a.txt.{suffix}").texts == ["text"]
    assert read(compress(html("page")), name=f"a.html.{suffix}", parse=folder.parse_html).texts == ["page"]


def test_a_truncated_file_is_a_reject(read):
    records = read(gzip.compress(b"text " * 1000)[:-9], name="a.txt.gz")
    assert (records.texts, records.num_in) == ([], 1)
    (reject,) = records.rejects
    assert reject.reason.startswith("damaged_stream: the stream ends inside a member; ")
    assert (reject.location, reject.head) == ("file", (b"text " * 40))


@pytest.mark.parametrize(("limit", "texts"), [(3, []), (4, ["text"])])
def test_a_file_over_the_limit_is_a_reject(read, limit, texts):
    records = read(b"text", max_document_bytes=limit)
    assert (records.texts, records.num_in) == (texts, 1)
    assert [r.reason for r in records.rejects] == (
        [] if texts else ["too_large: the file is longer than max_document_bytes (3)"]
    )


def test_a_bomb_is_not_held(read):
    records = read(gzip.compress(bytes(50 << 20)), name="a.txt.gz")
    assert [r.reason.partition(":")[0] for r in records.rejects] == ["too_large"]


def test_a_page(read):
    records = read(html("page"), name="a.html", parse=folder.parse_html)
    assert (records.texts, records.ids, records.num_in) == (["page"], ["sub/a.html"], 1)


def test_a_page_that_is_no_text_is_a_reject(read):
    records = read(bytes(range(1, 9)) * 500, name="a.html", parse=folder.parse_html)
    assert [r.reason for r in records.rejects] == ["extraction_failed: ValueError: the bytes are no text"]


def test_a_name_that_is_not_unicode(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"text")
    (block,) = folder.read_blocks(Piece(str(path), "\udcff.txt"), block_bytes=10, max_document_bytes=MAX)
    assert folder.parse_text(block, FIELDS, max_document_bytes=MAX).ids == ["\ufffd.txt"]

"""HTTP bodies: encodings undone where the bytes show them, within a limit, damage named."""

import gzip
import zlib
from functools import partial

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipelines.http_body import decode_body

HTML = b"<html><body>" + b"some text " * 50 + b"</body></html>"


def decode(body, transfer="", content="", max_bytes=1 << 20):
    return decode_body(body, transfer, content, max_bytes=max_bytes)


def chunked(body, size=7, extension=b"", end=b"\r\n", last=b"0"):
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return (
        b"".join(b"%x" % len(part) + extension + end + part + end for part in parts) + last + end + end
        if last
        else b"".join(b"%x" % len(part) + extension + end + part + end for part in parts)
    )


def raw_deflate(body):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


ENCODE = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    " deflate ": raw_deflate,
    "br": partial(brotli.compress, quality=4),
    "zstd": zstd.compress,
    "identity": bytes,
    "": bytes,
    "utf-8": bytes,
    "none": bytes,
}


@pytest.mark.parametrize("name", ENCODE)
def test_each_encoding_is_undone(name):
    assert decode(ENCODE[name](HTML), content=name) == HTML


@pytest.mark.parametrize("name", ENCODE)
def test_headers_of_an_encoding_already_undone(name):
    assert decode(HTML, "chunked", name) == HTML
    assert decode(b" \r\n" + HTML, "", name) == b" \r\n" + HTML
    assert decode(b"\xef\xbb\xbf" + HTML, "", name) == b"\xef\xbb\xbf" + HTML


@pytest.mark.parametrize("name", ENCODE)
def test_an_empty_body(name):
    assert decode(b"", "chunked", name) == b""


def test_encodings_are_undone_last_first():
    assert decode(gzip.compress(zlib.compress(HTML)), content="deflate, gzip") == HTML
    assert decode(chunked(gzip.compress(HTML)), "chunked", "gzip") == HTML


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_stops_one_byte_over_the_limit(name):
    body = ENCODE[name](bytes(10 << 20))
    assert len(decode(body, content=name, max_bytes=1000)) == 1001


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_truncated_capture_keeps_what_is_there(name):
    whole = b"".join(b"%d " % (n * n) for n in range(60_000))
    body = ENCODE[name](whole)
    found = decode(body[: len(body) // 2], content=name)
    assert whole.startswith(found)
    assert 0.2 < len(found) / len(whole) < 0.8


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_damaged_body_is_named(name):
    body = bytearray(ENCODE[name](b"".join(b"%d " % (n * n) for n in range(5000))))
    body[10:200] = b"\xff" * 190
    with pytest.raises(ValueError, match=f"^damaged {name} body: "):
        decode(bytes(body), content=name)


def test_an_unknown_encoding_is_named():
    with pytest.raises(ValueError, match=r"^unknown content encoding 'lzw'$"):
        decode(b"\x1f\x9d\x90", content="lzw")


@given(
    st.binary(max_size=60).filter(bool),
    st.integers(1, 20),
    st.sampled_from([b"", b";name=value", b" ", b"  ;x"]),
)
def test_chunks_are_joined(body, size, extension):
    for end in (b"\r\n", b"\n"):
        if end == b"\n" and b"\r" in extension:
            continue
        assert decode(chunked(body, size, extension, end), "Chunked") == body


def test_trailers_after_the_last_chunk_are_no_text():
    assert decode(chunked(HTML)[:-2] + b"X-Trailer: 1\r\n\r\n", "chunked") == HTML


def test_a_capture_cut_inside_the_chunks_keeps_what_is_there():
    whole = chunked(HTML, 100)
    assert decode(whole[:150], "chunked") == HTML[: 150 - 4 - 2 - 4]
    assert decode(chunked(HTML, 100, last=b""), "chunked") == HTML


def test_damaged_chunks_are_named():
    body = b"5\r\nhello\r\nno size here\r\n5\r\nworld\r\n0\r\n\r\n"
    with pytest.raises(ValueError, match=r"^damaged chunked body: no chunk size at byte 8 of 39$"):
        decode(body, "chunked")
    with pytest.raises(ValueError, match=r"^damaged chunked body: no chunk size at byte 8 of "):
        decode(b"5\r\nhello, that was longer than 5\r\n0\r\n\r\n", "chunked")


def test_only_chunked_means_chunks():
    body = b"5\r\nhello\r\n0\r\n\r\n"
    assert decode(body, "") == body
    assert decode(body, "gzip, chunked") == b"hello"

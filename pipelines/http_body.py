"""HTTP bodies as archives hold them: transfer and content encodings undone, within a limit, where they are there.

Archives often keep the headers of an encoding that the crawler has already undone, so a body is decoded only when
its bytes show the encoding, as browsers and replay tools do. A capture that was cut keeps what is there.
RFC 9112 section 7.1 (chunked), RFC 9110 section 8.4, RFC 7932 (br), RFC 8878 (zstd).
"""

import re
import zlib
from collections.abc import Callable

import brotli
from backports import zstd

CHUNK_HEADER = re.compile(rb"(?:\r?\n)?([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
CUT_HEADER = re.compile(rb"\r?\n?[0-9A-Fa-f]{0,8}[ \t]*(?:;[^\r\n]*)?\r?")
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<[!?/A-Za-z]")


def decode_body(body: bytes, transfer_encoding: str, content_encoding: str, *, max_bytes: int) -> bytes:
    """The body without its encodings.

    Args:
        body: As archived.
        transfer_encoding: Header value, empty for none.
        content_encoding: Header value, empty for none.
        max_bytes: Stop after one byte more than this, however far the body expands.

    Raises:
        ValueError: If an encoding is unknown or the encoded bytes are damaged.
    """
    if "chunked" in transfer_encoding.lower():
        body = _join_chunks(body)
    for name in reversed([part.strip().lower() for part in content_encoding.split(",")]):
        if name in PLAIN or not body or MARKUP.match(body):
            continue
        if name not in DECODERS:
            raise ValueError(f"unknown content encoding {name!r}")
        try:
            body = DECODERS[name](body, max_bytes + 1)
        except (zlib.error, zstd.ZstdError, brotli.error) as error:
            raise ValueError(f"damaged {name.removeprefix('x-')} body: {error}") from error
    return body


def _join_chunks(body: bytes) -> bytes:
    """The chunks end to end; the body as it is where it does not start with a chunk header."""
    chunks: list[bytes] = []
    position = 0
    while header := CHUNK_HEADER.match(body, position):
        start = header.end()
        size = int(header[1], 16)
        if size == 0:
            return b"".join(chunks)
        position = start + size
        chunks.append(body[start:position])
    if not chunks:
        return body
    if not CUT_HEADER.fullmatch(body, position):
        raise ValueError(f"damaged chunked body: no chunk size at byte {position} of {len(body)}")
    return b"".join(chunks)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    is_gzip = body.startswith(b"\x1f\x8b")
    return zlib.decompressobj(wbits=31).decompress(body, max_bytes) if is_gzip else body


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """Both forms that servers send as `deflate`: with the header of zlib, and bare."""
    has_header = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.decompressobj(wbits=15 if has_header else -15).decompress(body, max_bytes)


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    decompressor = brotli.Decompressor()
    text = bytearray()
    while len(text) < max_bytes and (more := decompressor.process(body, output_buffer_limit=max_bytes)):
        text += more
        body = b""  # further calls give what is still inside: the limit only bounds what one of them returns
        if decompressor.is_finished():
            break
    return bytes(text[:max_bytes])


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    return zstd.ZstdDecompressor().decompress(body, max_bytes)


PLAIN = ("", "identity", "none", "utf-8")
DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}

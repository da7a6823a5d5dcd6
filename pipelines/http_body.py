"""HTTP bodies as archives hold them: transfer and content encodings undone, within a limit, where they are there.

Archives often keep the headers of an encoding that the crawler has already undone, so a body is decoded only when
its bytes show the encoding, as browsers and replay tools do. RFC 9112 section 7.1 (chunked), RFC 9110 section 8.4.
"""

import re
import zlib

CHUNK_HEADER = re.compile(rb"(?:\r?\n)?([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
GZIP_MAGIC = b"\x1f\x8b"


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
    for encoding in reversed([part.strip().lower() for part in content_encoding.split(",")]):
        if encoding in ("gzip", "x-gzip"):
            body = _inflate(body, 31, max_bytes) if body.startswith(GZIP_MAGIC) else body
        elif encoding == "deflate":
            body = _inflate(body, 15 if body[:1] == b"\x78" else -15, max_bytes)
        elif encoding not in ("", "identity", "utf-8"):
            raise ValueError(f"unknown content encoding {encoding!r}")
    return body


def _join_chunks(body: bytes) -> bytes:
    """The chunks end to end; the body as it is where it does not start with a chunk header."""
    chunks = []
    position = 0
    while header := CHUNK_HEADER.match(body, position):
        start = header.end()
        position = start + int(header[1], 16)
        chunks.append(body[start:position])
    return b"".join(chunks) if chunks else body


def _inflate(body: bytes, wbits: int, max_bytes: int) -> bytes:
    try:
        return zlib.decompressobj(wbits).decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"damaged {'gzip' if wbits == 31 else 'deflate'} body: {error}") from error

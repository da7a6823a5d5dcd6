"""Byte streams of possibly compressed files: bounded memory however far a few bytes expand, damage reported.

One reader a stream: gzip, zstd, bzip2 and xz cannot be entered in the middle, so only decompression is serial.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from backports import zstd
from gristmill.pipelines import files

CHUNK_BYTES = 1 << 20
SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}


@dataclass
class DamagedStream(Exception):
    """A compressed stream that ends too early or cannot be decoded further.

    Args:
        offset: Uncompressed bytes that could be read.
        num_lost: Compressed bytes from the damaged member on that could not be used.
        cause: What the decoder said.
    """

    offset: int
    num_lost: int
    cause: str


class Decompressor(Protocol):
    """The incremental interface of the standard library's decompressors."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` more bytes."""
        ...


class _Gunzip:
    """zlib behind the interface of the other decompressors."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.eof and not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": _Gunzip,
    "zstd": zstd.ZstdDecompressor,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


def compression_of(path: str) -> str | None:
    """The compression a file name announces, None for none."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.endswith(suffix)), None)


def read_chunks(path: str, start: int = 0) -> Generator[bytes, None, None]:
    """Uncompressed bytes of a file in chunks of at most `CHUNK_BYTES`.

    Args:
        path: Any path Beam can open; its suffix tells the compression.
        start: Byte to start at; 0 for compressed files.

    Raises:
        DamagedStream: After the last byte that could be decoded.
        OSError: If the file cannot be opened or read.
    """
    kind = compression_of(path)
    with files.open_read(path) as file:
        if kind is None:
            if start:
                file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        else:
            yield from _decompress(file, DECOMPRESSORS[kind])


def _decompress(file: Any, make_decompressor: Callable[[], Decompressor]) -> Iterator[bytes]:
    offset = member_start = position = 0
    decompressor = make_decompressor()
    pending = b""
    while True:
        if decompressor.eof:
            pending = decompressor.unused_data.lstrip(b"\0")  # tapes and block devices pad members with zeros
            decompressor = make_decompressor()
            member_start = position - len(pending)
        if decompressor.needs_input and not pending:
            pending = file.read(CHUNK_BYTES)
            position += len(pending)
            if not pending:
                if position > member_start:
                    raise DamagedStream(offset, position - member_start, "the stream ends inside a member")
                return
        try:
            chunk = decompressor.decompress(pending, CHUNK_BYTES)
        except (zlib.error, OSError, lzma.LZMAError, zstd.ZstdError, EOFError) as error:
            lost = position - member_start + len(file.read())
            raise DamagedStream(offset, lost, str(error)) from error
        pending = b""
        offset += len(chunk)
        if chunk:
            yield chunk

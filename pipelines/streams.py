"""Byte streams of possibly compressed files: bounded memory however far a few bytes expand, damage reported.

One reader a stream: gzip, zstd, bzip2 and xz cannot be entered in the middle, so only decompression is serial.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from backports import zstd
from gristmill.pipelines import files

CHUNK_BYTES = 1 << 20
FEED_BYTES = 1 << 16
"""Compressed bytes decoded at a time: damage costs what is decoded together with it."""
MAX_DICTIONARY_BYTES = 512 << 20
"""Memory that an xz file may ask for; `xz -9` takes 65 MB to decode."""
SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}


@dataclass
class DamagedStream(Exception):
    """A stream that ends too early or cannot be read or decoded further.

    Args:
        offset: Uncompressed bytes that could be read.
        num_lost: Bytes of the file, from the last `FEED_BYTES` that were decoded on, that nothing came of; 0 where
            the file ends too early, for nobody knows how much is missing.
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
    "xz": partial(lzma.LZMADecompressor, memlimit=MAX_DICTIONARY_BYTES),
}


def compression_of(path: str) -> str | None:
    """The compression a file name announces, None for none."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.lower().endswith(suffix)), None)


def read_chunks(path: str, start: int = 0) -> Generator[bytes, None, None]:
    """Uncompressed bytes of a file in chunks of at most `CHUNK_BYTES`.

    Args:
        path: Any path Beam can open; its suffix tells the compression.
        start: Byte to start at; 0 for compressed files.

    Raises:
        DamagedStream: After the last byte that could be read.
        OSError: If the file cannot be opened.
    """
    offset = start
    with files.open_read(path) as file:

        def read(size: int) -> bytes:
            try:
                return file.read(size)
            except OSError as error:
                raise DamagedStream(offset, 0, f"cannot be read further: {error}") from error

        kind = compression_of(path)
        if start:
            file.seek(start)
        chunks = (
            iter(lambda: read(CHUNK_BYTES), b"") if kind is None else _decompress(read, DECOMPRESSORS[kind])
        )
        for chunk in chunks:
            offset += len(chunk)
            yield chunk


def _decompress(
    read: Callable[[int], bytes], make_decompressor: Callable[[], Decompressor]
) -> Iterator[bytes]:
    decompressor = make_decompressor()
    offset = num_members = 0
    fed = pending = b""  # bytes of the current member: the last ones given to the decompressor, and the next
    while True:
        if decompressor.eof:
            pending, decompressor = decompressor.unused_data, make_decompressor()
            num_members += 1
            fed = b""
        if not pending and decompressor.needs_input:
            pending = read(FEED_BYTES)
            if not pending:
                if fed:
                    raise DamagedStream(offset, 0, "the stream ends inside a member")
                return
        if num_members and not fed:  # tapes and block devices pad members with zeros
            pending = pending.lstrip(b"\0")
            if not pending:
                continue
        fed = pending or fed
        try:
            chunk = decompressor.decompress(pending, CHUNK_BYTES)
        except (zlib.error, OSError, lzma.LZMAError, zstd.ZstdError, EOFError) as error:
            num_after = sum(map(len, iter(lambda: read(CHUNK_BYTES), b"")))
            raise DamagedStream(offset, len(fed) + num_after, str(error)) from error
        pending = b""
        offset += len(chunk)
        if chunk:
            yield chunk

"""Byte streams of possibly compressed files: bounded memory however far a few bytes expand, damage reported.

One reader a stream: gzip, zstd, bzip2 and xz cannot be entered in the middle, so only decompression is serial.
"""

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO, Protocol

from backports import zstd

from gristmill.pipelines import files

CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b\x08"
PROBE_BYTES = 4096
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
        member: Byte of the file that the damaged member starts at.
    """

    offset: int
    num_lost: int
    cause: str
    member: int = 0


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


class _Source:
    """A file that knows where it is."""

    def __init__(self, file: BinaryIO, position: int) -> None:
        self._file = file
        self.position = position
        if position:
            file.seek(position)

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self.position += len(chunk)
        return chunk

    def num_left(self) -> int:
        self._file.seek(0, os.SEEK_END)
        return self._file.tell() - self.position


def read_chunks(path: str, start: int = 0) -> Generator[bytes, None, None]:
    """Uncompressed bytes of a file in chunks of at most `CHUNK_BYTES`.

    Args:
        path: Any path Beam can open; its suffix tells the compression.
        start: Byte of the file to start at; where it is compressed, the first one of a member.

    Raises:
        DamagedStream: After the last byte that could be read.
        OSError: If the file cannot be opened.
    """
    kind = compression_of(path)
    offset = 0 if kind else start
    with files.open_read(path) as file:
        source = _Source(file, start)
        whole = partial(source.read, CHUNK_BYTES)
        try:
            for chunk in _decompress(source, DECOMPRESSORS[kind]) if kind else iter(whole, b""):
                offset += len(chunk)
                yield chunk
        except OSError as error:
            raise DamagedStream(offset, 0, f"cannot be read further: {error}") from error


def _decompress(source: _Source, make_decompressor: Callable[[], Decompressor]) -> Iterator[bytes]:
    decompressor = make_decompressor()
    offset = num_members = member = 0
    fed = pending = b""  # bytes of the current member: the last ones given to the decompressor, and the next
    while True:
        if decompressor.eof:
            pending, decompressor = decompressor.unused_data, make_decompressor()
            num_members += 1
            fed = b""
        if not pending and decompressor.needs_input:
            pending = source.read(FEED_BYTES)
            if not pending:
                if fed:
                    raise DamagedStream(offset, 0, "the stream ends inside a member", member)
                return
        if num_members and not fed:  # tapes and block devices pad members with zeros
            pending = pending.lstrip(b"\0")
            if not pending:
                continue
        if not fed:
            member = source.position - len(pending)
        fed = pending or fed
        try:
            chunk = decompressor.decompress(pending, CHUNK_BYTES)
        except (zlib.error, OSError, lzma.LZMAError, zstd.ZstdError, EOFError) as error:
            raise DamagedStream(offset, len(fed) + source.num_left(), str(error), member) from error
        pending = b""
        offset += len(chunk)
        if chunk:
            yield chunk


def expansion(path: str) -> float:
    """Uncompressed bytes that a byte of a file makes, from the first megabyte of it; 1 for a plain file."""
    kind = compression_of(path)
    if kind is None:
        return 1.0
    with files.open_read(path) as file:
        head = file.read(CHUNK_BYTES)
    try:
        num_bytes = sum(map(len, _decompress(_Source(BytesIO(head), 0), DECOMPRESSORS[kind])))
    except DamagedStream as damage:  # the head ends inside a member
        num_bytes = damage.offset
    return num_bytes / max(len(head), 1)


def find_member(path: str, start: int, magic: bytes) -> int | None:
    """Where the next gzip member of a file starts, None where there is none.

    Args:
        path: A gzip file.
        start: Byte of the file to search from.
        magic: What the member's uncompressed bytes start with, which tells a member from chance.
    """
    held = b""
    with files.open_read(path) as file:
        file.seek(start)
        while more := file.read(CHUNK_BYTES):
            held += more
            while (place := held.find(GZIP_MAGIC)) >= 0:
                start, held = start + place, held[place:]
                if len(held) < PROBE_BYTES:
                    held += file.read(PROBE_BYTES)
                if _starts_with(magic, held[:PROBE_BYTES]):
                    return start
                start, held = start + 1, held[1:]
            start, held = start + max(len(held) - 2, 0), held[-2:]
    return None


def _starts_with(magic: bytes, member: bytes) -> bool:
    try:
        return zlib.decompressobj(wbits=31).decompress(member, len(magic)) == magic
    except zlib.error:
        return False

"""Parsed records on their way into corpus rows: what every format's parser makes, and the rows made from it."""

import re
from binascii import hexlify
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines.recipe_inputs import Input
from gristmill.scorers import schema
from gristmill.scorers.duplicates import hash128

HEAD_BYTES = 200
MAX_DATE_CHARS = 64
DIGITS = {4: "%Y", 8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
MONTH = re.compile(r"\d{4}-\d{2}")
HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)"


@dataclass(frozen=True)
class Piece:
    """A part of one input file: bytes, or row groups of a Parquet file, from `start` up to `end`.

    `end` is None where the file is read whole: a compressed file has one reader.
    """

    path: str
    relative: str
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Split:
    """The unit of reading: parts of files that together make about one shard of text.

    Args:
        name: `part-<input>-<split>`, the start of the names of its shards.
        input: The recipe's entry with its field names.
        format: How the pieces are read.
        pieces: What is read, in order.
        num_bytes: Bytes of text in it, about.
    """

    name: str
    input: Input
    format: str
    pieces: tuple[Piece, ...]
    num_bytes: int


class Reject(NamedTuple):
    """A record that could not be read."""

    path: str
    location: str
    reason: str
    head: bytes


@dataclass
class Block:
    """Raw records of one piece, about 8 MB, cut but not yet parsed.

    Args:
        piece: Where they come from.
        offset: Uncompressed byte offset, or row number, of the first record.
        payload: What the format's parser takes.
        num_bytes: Size of the payload.
        rejects: What the reader itself could not cut into records.
    """

    piece: Piece
    offset: int
    payload: Any
    num_bytes: int
    rejects: list[Reject] = field(default_factory=list)


@dataclass
class Records:
    """Parsed records as columns, with what was dropped and rejected on the way.

    `num_in` counts every record as it is met, apart from what then becomes of it, so that a lost one is noticed.
    `offsets` are uncompressed byte offsets or row numbers; `dropped` counts records that hold no document
    (an image in a WARC) by reason.
    """

    piece: Piece
    num_in: int = 0
    offsets: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    urls: list[str | None] = field(default_factory=list)
    created: list[Any] = field(default_factory=list)
    metadata: list[str | None] = field(default_factory=list)
    repaired: list[bool] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, block: "Block") -> "Records":
        """The empty records of a block, with what its reader already rejected."""
        return cls(block.piece, num_in=len(block.rejects), rejects=list(block.rejects))

    def drop_unsampled(self, source: str, share: float) -> None:
        """Keep a seeded share of the documents; the others are dropped as `not_sampled`."""
        keys = doc_ids(source, self.piece.relative, self.offsets)[:, 0] / 2.0**64
        kept = keys < share
        self.dropped["not_sampled"] += len(kept) - int(kept.sum())
        columns: list[list[Any]] = [self.offsets, self.texts, self.ids, self.sources, self.urls]
        for column in (*columns, self.created, self.metadata, self.repaired):
            column[:] = compress(column, kept)

    def reject(self, offset: int, reason: str, head: bytes) -> None:
        """Record what could not be parsed."""
        self.rejects.append(Reject(self.piece.path, str(offset), reason, head[:HEAD_BYTES]))


def doc_ids(source: str, relative: str, offsets: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """128-bit ids of documents: a hash of source, path relative to the input root, and place in the file.

    The seeds of a file come from BLAKE2b; each half then mixes the offset with the finaliser of MurmurHash3
    (a bijection, so two offsets of one file never share an id).

    Args:
        source: The input's source name.
        relative: The file's path below the input root.
        offsets: Uncompressed byte offsets or row numbers, n values.

    Returns:
        uint64, shape (n, 2), big-endian halves of the UUIDs.
    """
    identity = b"\0".join(part.encode("utf-8", "surrogateescape") for part in (source, relative))
    seeds = np.frombuffer(blake2b(identity, digest_size=16).digest(), "<u8")
    place = np.asarray(offsets, np.uint64)[:, None] + seeds
    with np.errstate(over="ignore"):
        for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            place ^= place >> np.uint64(33)
            place *= np.uint64(multiplier)
    return place ^ (place >> np.uint64(33))


def uuid_array(halves: npt.NDArray[np.uint64]) -> pa.ExtensionArray:
    """UUIDs from their halves, shape (n, 2): the inverse of `doc_ids.uuid_halves`."""
    storage = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(halves), [None, pa.py_buffer(np.ascontiguousarray(halves, ">u8"))]
    )
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def uuid_text(uuids: pa.ExtensionArray) -> pa.StringArray:
    """UUIDs in their usual spelling, 8-4-4-4-12 hexadecimal digits."""
    storage = uuids.storage
    raw = storage.buffers()[1][storage.offset * 16 : (storage.offset + len(storage)) * 16]
    digits = np.frombuffer(hexlify(raw), np.uint8).reshape(-1, 32)
    text = np.full((len(storage), 36), ord("-"), np.uint8)
    for start, end, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, start + dashes : end + dashes] = digits[:, start:end]
    offsets = np.arange(0, 36 * len(storage) + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(storage), pa.py_buffer(offsets), pa.py_buffer(text))


def parse_uuids(texts: pa.StringArray) -> pa.ExtensionArray:
    """UUIDs from their usual spelling: the inverse of `uuid_text`."""
    raw = bytes.fromhex("".join(texts.to_pylist()).replace("-", ""))
    storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(raw)])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def to_documents(records: Records, source: str) -> tuple[pa.RecordBatch, pa.Array]:
    """Corpus rows of parsed records.

    Args:
        records: n records.
        source: The input's source name, which the ids hash.

    Returns:
        n rows of the corpus schema, and n booleans: whether the record was repaired.
    """
    columns = [
        uuid_array(doc_ids(source, records.piece.relative, records.offsets)),
        pa.array(records.texts, pa.large_string()),
        pa.array(records.ids, pa.string()),
        pa.array(records.sources, pa.string()),
        pa.array(records.urls, pa.string()),
        pa.array([parse_created(value) for value in records.created], pa.timestamp("us", tz="UTC")),
        pa.array(records.metadata, pa.large_string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema.CORPUS), pa.array(records.repaired, pa.bool_())


def to_text_free(documents: pa.RecordBatch, repaired: pa.Array, shard: str) -> pa.RecordBatch:
    """The same rows without text: sizes, host, year and content hash, for SQL."""
    text, url = documents.column("text"), documents.column("url")
    return pa.RecordBatch.from_arrays(
        [
            documents.column("doc_id"),
            documents.column("id"),
            documents.column("source"),
            url,
            hosts(url),
            documents.column("created"),
            pc.year(documents.column("created")).cast(pa.int16()),
            pc.utf8_length(text).cast(pa.int64()),
            pc.binary_length(text).cast(pa.int64()),
            hash128(text),
            pc.equal(pc.binary_length(pc.utf8_trim_whitespace(text)), 0),
            repaired,
            pa.array([shard] * len(documents), pa.string()),
        ],
        schema=schema.DOCUMENTS,
    )


def hosts(urls: pa.StringArray) -> pa.StringArray:
    """Lower-case host names of URLs, null where there is none."""
    host = pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, HOST), "host"))
    return pc.if_else(pc.equal(host, ""), None, host)


def parse_created(value: Any) -> datetime | None:
    """A date as the field writes it, None if it is none.

    ISO 8601, also a year or a month alone; 14 digits, as web archives write; HTTP; seconds or milliseconds since 1970,
    where numbers from 1000 to 2999 are years. What names no time zone is UTC.
    """
    if value is None:
        return None
    try:
        moment = _parse_moment(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _parse_moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 1000 <= value < 3000:
            return datetime(int(value), 1, 1)
        return datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC)
    if not isinstance(value, str) or len(value) > MAX_DATE_CHARS:
        raise ValueError("no date")
    text = value.strip().removesuffix(" UTC")
    if form := DIGITS.get(len(text)) if text.isdecimal() else None:
        return datetime.strptime(text, form)
    if text.isdecimal():
        return _parse_moment(int(text))
    if MONTH.fullmatch(text):
        return datetime.fromisoformat(f"{text}-01")
    return datetime.fromisoformat(text) if text[:4].isdecimal() else parsedate_to_datetime(text)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 and so Arrow cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def rejects_table(rejects: Iterable[Reject]) -> pa.Table:
    """Rejects as rows of their schema."""
    rows = [(*map(replace_surrogates, reject[:3]), reject.head) for reject in rejects]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema.REJECTS)
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, schema.REJECTS, strict=True)], schema=schema.REJECTS
    )

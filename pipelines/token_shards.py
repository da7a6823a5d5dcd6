"""Token shards: Arrow IPC files that trainers map into memory, and the manifest that ties them to a dataset.

A shard is one uncompressed record batch, so that its tokens are one array [rows, sequence_length] on disk. It carries
digests of its blocks of rows, for those who read no more than a block. Nothing here imports Beam: a training process
reads shards with pyarrow and numpy alone.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs

from gristmill.pipelines.row_order import BLOCK_ROWS

FOLDER = "tokens"
MANIFEST = "manifest.json"
ACCOUNTS_KEY = b"gristmill"
DIGESTS_KEY = b"gristmill_digests"
COLUMNS = ("tokens", "spans", "masked")
RANGE = pa.struct(
    [pa.field("start", pa.int32(), nullable=False), pa.field("end", pa.int32(), nullable=False)]
)
SPAN = pa.struct(
    [
        pa.field("start", pa.int32(), nullable=False),
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("offset", pa.int32(), nullable=False),
        pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)
"""Tokens of one document in a sequence: from `start` to the next span's, after `offset` tokens of the document.

Its prefix, control tokens and end of text count as its tokens.
"""


class TokensError(ValueError):
    """Token shards that are absent, damaged or of another kind than expected."""


class Rows(Protocol):
    """Rows that are read as they are wanted."""

    def __getitem__(self, row: int, /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class TokenShard:
    """n sequences.

    Args:
        tokens: uint16 or uint32, [n, sequence_length], mapped into memory or read row by row.
        span_offsets: Sequence i has the spans from span_offsets[i] to span_offsets[i + 1], int32[n + 1].
        span_starts: Where in its sequence each span starts, int32[p].
        masked_offsets: The same for the ranges without loss, int32[n + 1].
        masked: Start and end of each range in its sequence, int32[m, 2].
    """

    tokens: Rows
    span_offsets: npt.NDArray[np.int32]
    span_starts: npt.NDArray[np.int32]
    masked_offsets: npt.NDArray[np.int32]
    masked: npt.NDArray[np.int32]

    def arrays(self, column: str) -> list[npt.NDArray[np.int32]]:
        """What was read of the column `spans` or `masked`."""
        spans, masked = [self.span_offsets, self.span_starts], [self.masked_offsets, self.masked]
        return spans if column == "spans" else masked

    def starts(self, row: int) -> npt.NDArray[np.int32]:
        """Where documents start in a sequence."""
        return self.span_starts[self.span_offsets[row] : self.span_offsets[row + 1]]

    def masked_ranges(self, row: int) -> npt.NDArray[np.int32]:
        """The ranges without loss of a sequence, int32[m, 2]."""
        return self.masked[self.masked_offsets[row] : self.masked_offsets[row + 1]]


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest unsigned type that holds every token and that trainers read."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def token_schema(dtype: npt.DTypeLike, sequence_length: int) -> pa.Schema:
    """One row a sequence; `masked` holds the ranges without loss, none where every token counts."""
    tokens = pa.list_(pa.field("item", pa.from_numpy_dtype(dtype), nullable=False), sequence_length)
    return pa.schema(
        [
            pa.field("tokens", tokens, nullable=False),
            pa.field("spans", pa.list_(pa.field("item", SPAN, nullable=False)), nullable=False),
            pa.field("masked", pa.list_(pa.field("item", RANGE, nullable=False)), nullable=False),
        ]
    )


def write_shard(file: BinaryIO, batch: pa.RecordBatch, accounts: Mapping[str, Any]) -> None:
    """Write a shard of one record batch, with its accounts and digests in the schema's metadata."""
    tokens = _token_rows(batch)
    shard = to_shard(tokens, batch)
    blocks = (tokens[first : first + BLOCK_ROWS] for first in range(0, len(tokens), BLOCK_ROWS))
    digests = {"tokens": [array_digest(block) for block in blocks]} | {
        name: [array_digest(*shard.arrays(name))] for name in COLUMNS[1:]
    }
    metadata = {
        ACCOUNTS_KEY: json.dumps(accounts, sort_keys=True).encode(),
        DIGESTS_KEY: json.dumps(digests, sort_keys=True).encode(),
    }
    batch = batch.replace_schema_metadata(metadata)
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def read_accounts(file: BinaryIO) -> dict[str, Any]:
    """The accounts of a shard.

    Raises:
        pa.ArrowInvalid: If it is no Arrow file.
        KeyError: If it is not one of gristmill's.
    """
    return said_by(pa.ipc.open_file(file).schema, ACCOUNTS_KEY)


def said_by(schema: pa.Schema, key: bytes) -> dict[str, Any]:
    """The accounts in a shard's schema, or the digests: a list for each of `COLUMNS`, one a block for `tokens`.

    Raises:
        KeyError: If it has none.
    """
    said: dict[str, Any] = json.loads((schema.metadata or {})[key])
    return said


def first_token(head: bytes) -> int:
    """Where in its file the tokens of a shard begin: after the schema, one dictionary and the batch's metadata.

    Args:
        head: The first bytes of the file, as many as come before the tokens, or more.
    """
    file = pa.BufferReader(head)
    file.seek(8)
    for _ in ("schema", "dictionary"):
        pa.ipc.read_message(file)
    (num_bytes,) = struct.unpack("<4xi", file.read(8))
    return file.tell() + num_bytes


def open_shard(path: str) -> TokenShard:
    """Map a shard into memory; nothing is read before it is used, and no file stays open.

    Raises:
        TokensError: If it is absent or no token shard.
    """
    try:
        with pa.memory_map(path) as file:
            batch = pa.ipc.open_file(file).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        raise TokensError(f"{path}: no token shard ({error}); export the tokens again") from error
    return to_shard(_token_rows(batch), batch)


def to_shard(tokens: Rows, batch: pa.RecordBatch) -> TokenShard:
    """A shard of these tokens; the batch holds its other columns, or those that are wanted."""
    none = np.empty(0, np.int32)
    span_offsets, span_starts, masked_offsets, masked = none, none, none, none.reshape(0, 2)
    if "spans" in batch.schema.names:
        spans = batch["spans"]
        span_offsets, span_starts = spans.offsets.to_numpy(), spans.values.field("start").to_numpy()
    if "masked" in batch.schema.names:
        ranges = batch["masked"]
        masked_offsets = ranges.offsets.to_numpy()
        masked = np.stack([ranges.values.field(name).to_numpy() for name in ("start", "end")], axis=1)
    return TokenShard(tokens, span_offsets, span_starts, masked_offsets, masked)


def _token_rows(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    tokens = batch["tokens"]
    return tokens.values.to_numpy().reshape(len(tokens), tokens.type.list_size)


def is_remote(folder: str) -> bool:
    """Whether a folder is named by a URI."""
    return "://" in folder


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of token shards, on a disk or a bucket.

    Raises:
        TokensError: If there is none.
    """
    filesystem, path = (
        fs.FileSystem.from_uri(str(folder)) if is_remote(str(folder)) else (fs.LocalFileSystem(), folder)
    )
    try:
        with filesystem.open_input_file(f"{path}/{MANIFEST}") as file:
            manifest: dict[str, Any] = json.loads(file.read())
    except FileNotFoundError as error:
        raise TokensError(
            f"{folder}/{MANIFEST}: not there; expected the `tokens` folder of a dataset, made by "
            "`export: {tokens: ...}`"
        ) from error
    return manifest


def digest(file: BinaryIO) -> str:
    """BLAKE2b of what a file holds, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def array_digest(*arrays: npt.NDArray[Any]) -> str:
    """BLAKE2b of the values of arrays, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def check_shard(folder: Path, entry: Mapping[str, Any]) -> None:
    """Compare a shard with its manifest.

    Raises:
        TokensError: If it is absent or another.
    """
    path = folder / entry["name"]
    if not path.is_file():
        raise TokensError(f"{path}: not there; export the tokens again")
    with path.open("rb") as file:
        found = digest(file)
    if found != entry["blake2b"]:
        raise TokensError(
            f"{path}: BLAKE2b {found}, the manifest says {entry['blake2b']}; delete it and export the tokens again"
        )


def names_of(num_shards: int) -> Sequence[str]:
    """The file names of a dataset's shards."""
    return [f"{FOLDER}-{number:05d}-of-{num_shards:05d}.arrow" for number in range(num_shards)]

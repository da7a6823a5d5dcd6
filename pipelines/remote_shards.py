"""Token shards on buckets: rows read block by block, by ranges of bytes, each block compared with its digest.

Opening a shard reads its head and those columns beside the tokens that are wanted; a row reads the block it is in. What
was used last stays in memory, and threads read what is asked for ahead of its use.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs

from gristmill.pipelines.row_order import BLOCK_ROWS
from gristmill.pipelines.token_shards import (
    ACCOUNTS_KEY,
    COLUMNS,
    DIGESTS_KEY,
    TokensError,
    TokenShard,
    array_digest,
    first_token,
    said_by,
    to_shard,
)

HEAD_BYTES = 1 << 16
"""More than there is before the tokens of a shard."""
MAX_OPEN_SHARDS = 256
NUM_THREADS = 16
Key = TypeVar("Key")
Value = TypeVar("Value")


class RemoteShards:
    """The shards of a folder on a bucket.

    Args:
        folder: `gs://`, `s3://`, `hdfs://` or `file://`, with the options that `pyarrow.fs` reads from it.
        manifest: Of the folder.
        entries: Of the manifest, those of the shards that are read.
        columns: Wanted beside the tokens, some of `spans` and `masked`.
        max_rows: Rows that a process keeps.
        verify: Whether what is read is compared with its digest.
    """

    def __init__(
        self,
        folder: str,
        manifest: Mapping[str, Any],
        entries: Sequence[Mapping[str, Any]],
        *,
        columns: Sequence[str],
        max_rows: int,
        verify: bool,
    ) -> None:
        self._folder, self._entries, self._identity = folder, entries, manifest["identity"]
        self._dtype, self._sequence_length = np.dtype(manifest["dtype"]), manifest["sequence_length"]
        self._columns, self._max_rows, self._verify = columns, max_rows, verify
        self._connection: _Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_connection": None}

    def ask(self, number: int, row: int) -> None:
        """Begin to read what a row of a shard needs."""
        connection = self._connect()
        connection.shards.get(number)
        connection.blocks.get((number, row // BLOCK_ROWS))

    def shard(self, number: int) -> TokenShard:
        """A shard whose rows are read as they are wanted.

        Raises:
            TokensError: If it is absent or not what the manifest says.
        """
        return self._connect().shards.get(number).result().shard

    def row(self, number: int, row: int) -> npt.NDArray[Any]:
        """The tokens of a row of a shard.

        Raises:
            TokensError: If its block is not what was written.
        """
        block, place = divmod(row, BLOCK_ROWS)
        return self._connect().blocks.get((number, block)).result()[place]

    def _connect(self) -> "_Connection":
        """That of this process: neither threads nor clients of buckets live through a fork."""
        if self._connection is None or self._connection.process != os.getpid():
            filesystem, path = fs.FileSystem.from_uri(self._folder)
            shards = _Recent(self._open, lambda _: 1, MAX_OPEN_SHARDS)
            blocks = _Recent(self._read_block, self._num_rows, self._max_rows)
            self._connection = _Connection(os.getpid(), filesystem, path, shards, blocks)
        return self._connection

    def _open(self, number: int) -> "_Opened":
        connection, entry = self._connect(), self._entries[number]
        path = f"{connection.path}/{entry['name']}"
        try:
            file = connection.filesystem.open_input_file(path)
        except FileNotFoundError as error:
            raise TokensError(f"{path}: not there; export the tokens again") from error
        fields = [COLUMNS.index(name) for name in self._columns]
        try:
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
            digests = said_by(reader.schema, DIGESTS_KEY)
            identity = said_by(reader.schema, ACCOUNTS_KEY)["identity"]
            shard = to_shard(_Rows(self, number), reader.get_batch(0))
            start = first_token(file.read_at(HEAD_BYTES, 0))
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise TokensError(f"{path}: no token shard ({error}); export the tokens again") from error
        if (file.size(), identity) != (entry["num_bytes"], self._identity):
            raise TokensError(
                f"{path}: {file.size():,} bytes of export {identity}, the manifest says {entry['num_bytes']:,} of "
                f"{self._identity}; export the tokens again"
            )
        for name in self._columns:
            self._check(f"{path}: {name}", shard.arrays(name), digests[name][0])
        return _Opened(file, start, digests["tokens"], replace(shard, span_starts=shard.span_starts.copy()))

    def _read_block(self, key: tuple[int, int]) -> npt.NDArray[Any]:
        number, block = key
        opened = self._connect().shards.get(number).result()
        first, shape = block * BLOCK_ROWS, (self._num_rows(key), self._sequence_length)
        row_bytes = self._sequence_length * self._dtype.itemsize
        content = opened.file.read_at(shape[0] * row_bytes, opened.first_token + first * row_bytes)
        tokens = np.frombuffer(content, self._dtype).reshape(shape)
        name = self._entries[number]["name"]
        place = f"{self._folder}/{name}: tokens of rows {first:,} to {first + shape[0] - 1:,}"
        self._check(place, [tokens], opened.digests[block])
        return tokens

    def _num_rows(self, key: tuple[int, int]) -> int:
        number, block = key
        return min(BLOCK_ROWS, self._entries[number]["num_rows"] - block * BLOCK_ROWS)

    def _check(self, place: str, arrays: Sequence[npt.NDArray[Any]], expected: str) -> None:
        if self._verify and (found := array_digest(*arrays)) != expected:
            raise TokensError(
                f"{place}: BLAKE2b {found}, the shard says {expected}; delete it and export the tokens again"
            )


class _Recent(Generic[Key, Value]):
    """Values that threads compute: those asked for last, up to a total weight."""

    def __init__(self, compute: Callable[[Key], Value], weigh: Callable[[Key], int], capacity: int) -> None:
        self._compute, self._weigh, self._room = compute, weigh, capacity
        self._pool = ThreadPoolExecutor(NUM_THREADS)
        self._lock = Lock()
        self._futures: OrderedDict[Key, Future[Value]] = OrderedDict()

    def get(self, key: Key) -> "Future[Value]":
        """The value, once it is there."""
        with self._lock:
            if key in self._futures:
                self._futures.move_to_end(key)
                return self._futures[key]
            future = self._futures[key] = self._pool.submit(self._compute, key)
            self._room -= self._weigh(key)
            while self._room < 0 and len(self._futures) > 1:
                self._room += self._weigh(self._futures.popitem(last=False)[0])
            return future


@dataclass(frozen=True)
class _Connection:
    process: int
    filesystem: fs.FileSystem
    path: str
    shards: _Recent[int, "_Opened"]
    blocks: _Recent[tuple[int, int], npt.NDArray[Any]]


@dataclass(frozen=True)
class _Opened:
    """A shard, where its tokens begin in the file, and the digests of their blocks."""

    file: pa.NativeFile
    first_token: int
    digests: Sequence[str]
    shard: TokenShard


@dataclass(frozen=True)
class _Rows:
    """The tokens of a shard, by the number of the row."""

    shards: RemoteShards
    number: int

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        return self.shards.row(self.number, row)

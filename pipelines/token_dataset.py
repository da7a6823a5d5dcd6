"""One dataset of a feed: its rows in the order of its epochs, from a disk or a bucket."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.pipelines.remote_shards import RemoteShards
from gristmill.pipelines.row_order import BLOCK_ROWS, RowOrder, ShardRows
from gristmill.pipelines.token_shards import (
    TokensError,
    TokenShard,
    check_shard,
    is_remote,
    open_shard,
    read_manifest,
)

MAX_OPEN_SHARDS = 1024
Integers = npt.NDArray[np.int64]


class TokenDataset:
    """The token shards of a folder, or those of one source; a shard is opened when a row of it is first wanted.

    Args:
        folder: Path or URI.
        source: Whose shards alone are taken; None: all.
        seed: Of the order.
        shuffle_window: Rows that are permuted among each other.
        segments: Whether the shards must say where documents start.
        verify: Whether what is read is compared with its checksum.

    Raises:
        TokensError: If there are no tokens, or none of the source.
    """

    def __init__(
        self, folder: str, source: str | None, seed: int, shuffle_window: int, *, segments: bool, verify: bool
    ) -> None:
        manifest = read_manifest(folder)
        entries = manifest["shards"] if source is None else _of_source(folder, manifest["shards"], source)
        self.source, self.identity = source, manifest["identity"]
        self.key = self.identity if source is None else f"{self.identity}:{source}"
        self.sequence_length, self.dtype = manifest["sequence_length"], np.dtype(manifest["dtype"])
        self.num_rows = sum(entry["num_rows"] for entry in entries)
        if self.num_rows == 0:
            raise TokensError(f"{folder}: holds no sequences; expected at least one")
        self._order = RowOrder(self.num_rows, seed, shuffle_window)
        self._rows = ShardRows([entry["num_rows"] for entry in entries])
        self.is_remote = is_remote(folder)
        self.shards: RemoteShards | LocalShards
        if self.is_remote:
            columns = ["spans", "masked"] if segments else ["masked"]
            max_rows = shuffle_window + 2 * BLOCK_ROWS
            self.shards = RemoteShards(
                folder, manifest, entries, columns=columns, max_rows=max_rows, verify=verify
            )
        else:
            self.shards = LocalShards(Path(folder), entries, verify=verify)

    def locate(self, index: Integers) -> Integers:
        """Shard, and row in it, of numbers of the dataset's stream of epochs, int64[k, 2]."""
        return self._rows.find(self._order.rows(index))


class LocalShards:
    """Shards on a disk, mapped into memory.

    Args:
        folder: Where they lie.
        entries: What the manifest says of them.
        verify: Whether a process compares a shard's checksum when it first opens it.
    """

    def __init__(self, folder: Path, entries: Sequence[Mapping[str, Any]], *, verify: bool) -> None:
        self._folder, self._entries = folder, entries
        self._files = [(str(folder / entry["name"]), entry["blake2b"]) for entry in entries]
        self._unverified = set(range(len(entries))) if verify else set()

    def shard(self, number: int) -> TokenShard:
        """A shard, open.

        Raises:
            TokensError: If it is absent or not what the manifest says.
        """
        if number in self._unverified:
            check_shard(self._folder, self._entries[number])
            self._unverified.remove(number)
        return _open(*self._files[number])


@lru_cache(MAX_OPEN_SHARDS)
def _open(path: str, blake2b: str) -> TokenShard:
    """The shard of this checksum: another one at the same path is opened anew."""
    return open_shard(path)


def _of_source(folder: str, entries: Sequence[Mapping[str, Any]], source: str) -> list[Mapping[str, Any]]:
    sources = sorted({entry["source"] for entry in entries if "source" in entry})
    if not sources:
        raise TokensError(
            f"{folder}: its shards mix the sources, so {source!r} cannot be weighed; export with "
            "`tokens: {by_source: true}`"
        )
    if source not in sources:
        raise TokensError(f"{folder}: no shards of source {source!r}; expected one of {', '.join(sources)}")
    return [entry for entry in entries if entry["source"] == source]

"""Ingest: raw inputs become Arrow shards, their text-free twins for SQL, and rejects.

Each split is read once, in blocks of about 8 MB, and becomes one shard or, where a compressed stream holds more,
several. By default the worker that reads a split also parses it. With `spread_streams` the blocks of compressed
streams and archives are shuffled first, so that only decompression is serial; Beam's local runner holds such blocks
in memory (about 4 bytes a byte), so the launcher spreads only small inputs of fewer streams than workers there.
Both ways cut the same blocks and write the same bytes.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute

from gristmill.pipelines import files, folder, jsonl, parquet, warc
from gristmill.pipelines.extract_html import Extractor
from gristmill.pipelines.ledger import LedgerRow, record_task, require_footer, write_side_file
from gristmill.pipelines.records import (
    Block,
    Records,
    Reject,
    Split,
    rejects_table,
    to_documents,
    to_text_free,
)
from gristmill.pipelines.streams import compression_of
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers import schema

BLOCK_BYTES = 8 << 20
STAGE = "ingest"
READERS: dict[str, Any] = {
    "jsonl": jsonl.read_blocks,
    "parquet": parquet.read_blocks,
    "warc": warc.read_blocks,
    "text": folder.read_blocks,
    "html": folder.read_blocks,
}


@dataclass(frozen=True)
class Limits:
    """What bounds the reading.

    Args:
        shard_bytes: Text a shard holds, about.
        max_document_bytes: Longer records are rejects.
        block_bytes: Text a block and a batch hold, about.
        sampled_share: Share of the documents that is kept, by a hash of doc_id; 1 for all.
    """

    shard_bytes: int
    max_document_bytes: int
    block_bytes: int = BLOCK_BYTES
    sampled_share: float = 1.0


class ReadDocuments(beam.PTransform):
    """Splits -> names of the shards written.

    Args:
        workspace: Where the shards go.
        limits: Sizes.
        spread_streams: Shuffle the blocks of compressed streams before parsing.
    """

    def __init__(self, workspace: Workspace, limits: Limits, *, spread_streams: bool = False) -> None:
        super().__init__()
        self.workspace = workspace
        self.limits = limits
        self.spread_streams = spread_streams

    def expand(self, splits: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        writer = _SplitWriter(self.workspace, self.limits)
        if not self.spread_streams:
            return splits | "WriteSplits" >> beam.ParDo(writer)
        streams, others = splits | "DivideStreams" >> beam.Partition(
            lambda split, _: int(not is_stream(split)), 2
        )
        written = others | "WriteSplits" >> beam.ParDo(writer)
        spread = (
            streams
            | "ReadBlocks" >> beam.FlatMap(_keyed_blocks, self.workspace, self.limits)
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShards" >> beam.ParDo(_ShardWriter(self.workspace, self.limits))
        )
        return (written, spread) | "AllShards" >> beam.Flatten()


def is_stream(split: Split) -> bool:
    """Whether a split holds files that cannot be entered in the middle."""
    return split.format == "warc" or any(compression_of(piece.path) for piece in split.pieces)


def group_blocks(split: Split, limits: Limits) -> Iterator[tuple[int, Block]]:
    """The blocks of a split, each with the number of the shard it goes to.

    A shard is closed by the block that fills it. A file without a single record gives one reject.
    """
    number = held = 0
    for piece in split.pieces:
        is_empty = piece.start == 0
        blocks = _read_piece(split, piece, limits)
        for block in blocks:
            is_empty = False
            if held >= limits.shard_bytes:
                number, held = number + 1, 0
            held += block.num_bytes
            yield number, block
        if is_empty:
            reject = Reject(piece.path, "file", "empty_file: no record in it", b"")
            yield number, Block(piece, 0, None, 0, [reject])


def _read_piece(split: Split, piece: Any, limits: Limits) -> Iterator[Block]:
    sizes = {"block_bytes": limits.block_bytes, "max_document_bytes": limits.max_document_bytes}
    try:
        yield from READERS[split.format](piece, **sizes)
    except (OSError, files.BeamIOError) as error:
        yield Block(piece, 0, None, 0, [Reject(piece.path, "file", f"unreadable_file: {error}", b"")])


def parse_block(split: Split, block: Block, extractor: Extractor, limits: Limits) -> Records:
    """Records of a block by the parser of the split's format."""
    if block.payload is None:
        return Records.of(block)
    arguments: dict[str, Any] = {"max_document_bytes": limits.max_document_bytes}
    match split.format:
        case "jsonl":
            return jsonl.parse_block(block, split.input, **arguments)
        case "parquet":
            return parquet.parse_block(block, split.input, **arguments)
        case "warc":
            return warc.parse_block(block, split.input, extractor=extractor, **arguments)
        case "html":
            return folder.parse_html(block, split.input, extractor=extractor, **arguments)
        case _:
            return folder.parse_text(block, split.input, **arguments)


def write_split(workspace: Workspace, split: Split, limits: Limits, extractor: Extractor) -> Iterator[str]:
    """Write the shards of a split that are not there yet, then note how many it makes."""
    if is_written(workspace, split):
        return
    number = -1
    for number, blocks in groupby(group_blocks(split, limits), key=lambda item: item[0]):
        yield from write_shard(workspace, split, number, (block for _, block in blocks), limits, extractor)
    commit_num_shards(workspace, split, number + 1)


def commit_num_shards(workspace: Workspace, split: Split, num_shards: int) -> None:
    """Note how many shards a split makes, which only its reader knows."""
    workspace.commit_json({"num_shards": num_shards}, "corpus", f"{split.name}.json")


def shard_names(workspace: Workspace, split: Split) -> list[str] | None:
    """The shards of a split, None as long as its reader has not come to the end."""
    note = workspace.read_json("corpus", f"{split.name}.json")
    return note and [f"{split.name}-{number:04d}" for number in range(note["num_shards"])]


def is_written(workspace: Workspace, split: Split) -> bool:
    """Whether every shard of a split is committed."""
    names = shard_names(workspace, split)
    return names is not None and all(files.exists(workspace.documents(name)) for name in names)


def write_shard(
    workspace: Workspace,
    split: Split,
    number: int,
    blocks: Iterable[Block],
    limits: Limits,
    extractor: Extractor,
) -> Iterator[str]:
    """Parse blocks into one shard and commit it, its rejects, and last its text-free twin with the accounts."""
    shard = f"{split.name}-{number:04d}"
    if files.exists(workspace.documents(shard)):
        return
    started = time.monotonic()
    rejects: list[Reject] = []
    reasons: Counter[str] = Counter()
    text_free: list[pa.RecordBatch] = []
    parsed = (parse_block(split, block, extractor, limits) for block in blocks)

    num_in = 0

    def documents() -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        nonlocal num_in
        for records in parsed:
            num_in += records.num_in
            if limits.sampled_share < 1:
                records.drop_unsampled(split.input.source, limits.sampled_share)
            rejects.extend(records.rejects)
            reasons.update(records.dropped)
            if records.texts:
                yield to_documents(records, split.input.source)

    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        files.committed(workspace.corpus(shard)) as file,
        pa.ipc.new_file(file, schema.CORPUS, options=options) as writer,
    ):
        for batch, repaired in merge_batches(documents(), limits.block_bytes):
            writer.write_batch(batch)
            text_free.append(to_text_free(batch, repaired, shard))
    table = pa.Table.from_batches(text_free, schema.DOCUMENTS)
    num_dropped = reasons.total()
    reasons.update(reject.reason.partition(":")[0] for reject in rejects)
    if rejects:
        with files.committed(workspace.rejects(shard)) as file:
            pa.parquet.write_table(rejects_table(rejects), file, compression="zstd")
    else:
        files.delete([workspace.rejects(shard)])  # an attempt that died before may have left some
    row = LedgerRow(
        STAGE,
        shard,
        num_in=num_in,
        num_out=len(table),
        num_dropped=num_dropped,
        num_rejected=len(rejects),
        num_bytes=pa.compute.sum(table["num_bytes"]).as_py() or 0,
        seconds=time.monotonic() - started,
        reasons=dict(sorted(reasons.items())),
    )
    footer = {
        "stage": STAGE,
        "num_in": row.num_in,
        "num_dropped": row.num_dropped,
        "num_rejected": row.num_rejected,
        "num_bytes": row.num_bytes,
        "reasons": row.reasons,
        "content": content_digest(table),
    }
    write_side_file(workspace.documents(shard), table, footer)
    record_task(workspace, row)
    yield shard


def merge_batches(
    batches: Iterable[tuple[pa.RecordBatch, pa.Array]], block_bytes: int
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Batches of about a block each: many small files must not make many small batches for the scorers."""
    held: list[tuple[pa.RecordBatch, pa.Array]] = []
    num_bytes = 0
    for batch, repaired in batches:
        held.append((batch, repaired))
        num_bytes += batch.nbytes
        if num_bytes >= block_bytes:
            yield pa.concat_batches([b for b, _ in held]), pa.concat_arrays([r for _, r in held])
            held, num_bytes = [], 0
    if held:
        yield pa.concat_batches([b for b, _ in held]), pa.concat_arrays([r for _, r in held])


def content_digest(text_free: pa.Table) -> str:
    """The logical content of a shard, whatever its encoding: its doc_ids and the hashes of its texts, in order."""
    state = blake2b(digest_size=16)
    for name in ("doc_id", "content_hash"):
        for chunk in text_free[name].chunks:
            storage = chunk.storage
            state.update(storage.buffers()[1][storage.offset * 16 : (storage.offset + len(storage)) * 16])
    return state.hexdigest()


def ledger_row(workspace: Workspace, shard: str) -> LedgerRow:
    """What a committed shard's own files say."""
    footer = require_footer(workspace.documents(shard))
    num_rejected = _count_rows(workspace.rejects(shard))
    return LedgerRow(
        STAGE,
        shard,
        num_in=footer["num_in"],
        num_out=footer["num_rows"],
        num_dropped=footer["num_dropped"],
        num_rejected=num_rejected,
        num_bytes=footer["num_bytes"],
        reasons=footer["reasons"],
    )


def _count_rows(path: str) -> int:
    if not files.exists(path):
        return 0
    with files.open_read(path) as file:
        return pa.parquet.read_metadata(file).num_rows


def _keyed_blocks(split: Split, workspace: Workspace, limits: Limits) -> Iterator[tuple[Any, Any]]:
    """Blocks of a split keyed by shard; the note of how many shards there are is left at the end."""
    if is_written(workspace, split):
        return
    number = -1
    for position, (number, block) in enumerate(group_blocks(split, limits)):
        yield (split.name, number), (position, split, block)
    commit_num_shards(workspace, split, number + 1)


class _Writer(beam.DoFn):
    """Holds the extractor's child process for as long as the worker lives."""

    def __init__(self, workspace: Workspace, limits: Limits) -> None:
        super().__init__()
        self.workspace = workspace
        self.limits = limits

    def setup(self) -> None:
        """Make the extractor, which starts its child with the first page."""
        self.extractor = Extractor()

    def teardown(self) -> None:
        """End the child."""
        self.extractor.close()


class _SplitWriter(_Writer):
    def process(self, split: Split) -> Iterator[str]:
        """Read, parse and write one split."""
        yield from write_split(self.workspace, split, self.limits, self.extractor)


class _ShardWriter(_Writer):
    def process(self, element: tuple[Any, Iterable[Any]]) -> Iterator[str]:
        """Parse and write the shuffled blocks of one shard."""
        (_, number), values = element
        ordered = sorted(values, key=lambda value: value[0])
        blocks = (block for _, _, block in ordered)
        yield from write_shard(self.workspace, ordered[0][1], number, blocks, self.limits, self.extractor)

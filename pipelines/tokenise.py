"""Tokens of a dataset, as workers make them: documents divided into cells, and cells packed into shards.

A cell holds the documents whose seeded hash falls into its share, of one source or of all; each row group of the
dataset has its own part of every cell. No worker holds more than one row group's tokens or one shard, whatever the
size of the dataset.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.tokenizer import TokenizedTexts, Tokenizer
from gristmill.pipelines import files, token_shards
from gristmill.pipelines.ledger import LedgerRow, record_task
from gristmill.pipelines.pack_tokens import PACKINGS, Packed
from gristmill.pipelines.recipe import Tokens
from gristmill.pipelines.token_shards import ACCOUNTS_KEY, FOLDER
from gristmill.pipelines.trainer_formats import FORMATS, Documents
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.doc_ids import random_keys

READ_ROWS = 1024
CELLS = ".cells"
CELL = pa.schema(
    [
        pa.field("key", pa.float64(), nullable=False),
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("tokens", pa.large_list(pa.uint32()), nullable=False),
    ]
)
"""One row a document; one record batch a cell, in the order of cells."""


class RowGroup(NamedTuple):
    """A row group of one file of the dataset, with its bytes of text, about."""

    part: str
    number: int
    num_bytes: int


class Group(NamedTuple):
    """Documents that no sequence mixes with others: those of one source, or all where it is None."""

    source: str | None
    num_shards: int


@dataclass(frozen=True)
class TokenPlan:
    """What is tokenised and how.

    Args:
        workspace: Where the dataset lies.
        selection: Its name.
        spec: What the recipe wants.
        tokenizer: Path of the tokenizer.
        identity: What the shards depend on; a file that carries it is not written again.
        row_groups: Of the dataset.
        groups: Of the documents, in the order of their shards.
    """

    workspace: Workspace
    selection: str
    spec: Tokens
    tokenizer: str
    identity: str
    row_groups: tuple[RowGroup, ...]
    groups: tuple[Group, ...]

    @property
    def num_shards(self) -> int:
        """Token shards."""
        return sum(group.num_shards for group in self.groups)

    @property
    def shard_sources(self) -> list[str | None]:
        """Source of each shard."""
        return [group.source for group in self.groups for _ in range(group.num_shards)]

    def path(self, *names: str) -> str:
        """A path among the tokens."""
        return self.workspace.dataset(self.selection, FOLDER, *names)

    def cells(self, group: int) -> str:
        """The file with the cells of one row group."""
        return self.path(CELLS, f"{group:05d}.arrow")

    def shard(self, number: int) -> str:
        """The file name of a token shard."""
        return token_shards.names_of(self.num_shards)[number]


def divide_stage(selection: str) -> str:
    """The ledger's name for tokenising the files of a dataset."""
    return f"tokenise:{selection}"


def pack_stage(selection: str) -> str:
    """The ledger's name for packing the documents of a dataset."""
    return f"pack:{selection}"


def divide_documents(plan: TokenPlan, group: int, tokenizer: Tokenizer) -> None:
    """Tokenise one row group of the dataset, and leave its documents in cells, each in the order of their keys."""
    started = time.monotonic()
    part, number, _ = plan.row_groups[group]
    batches = []
    num_bytes = 0
    with files.open_read(plan.workspace.dataset(plan.selection, part)) as file:
        reader = pq.ParquetFile(file)
        for batch in reader.iter_batches(READ_ROWS, [number], ["doc_id", "text", "source"]):
            batches.append(_tokenised(batch, tokenizer, plan.spec.seed))
            num_bytes += pc.sum(pc.binary_length(batch["text"])).as_py()
    table = pa.Table.from_batches(batches, CELL).combine_chunks()
    cells = number_cells(table, plan.groups)
    order = np.lexsort((table["key"].to_numpy(), cells))
    table = table.take(order)
    borders = np.searchsorted(cells[order], np.arange(plan.num_shards + 1))
    accounts = {"identity": plan.identity, "num_documents": len(table), "num_bytes": num_bytes}
    schema = CELL.with_metadata({ACCOUNTS_KEY: json.dumps(accounts).encode()})
    with files.committed(plan.cells(group)) as file, pa.ipc.new_file(file, schema) as writer:
        for start, end in pairwise(borders):
            rows = table.slice(start, end - start).combine_chunks()
            writer.write_batch(rows.to_batches()[0] if len(rows) else pa.RecordBatch.from_pylist([], CELL))
    row = divide_row(plan, group, accounts)
    record_task(plan.workspace, replace(row, seconds=time.monotonic() - started))


def number_cells(documents: pa.Table, groups: Sequence[Group]) -> npt.NDArray[np.int64]:
    """The cell of each document: its key's share of the shards of its group.

    Args:
        documents: `CELL`, n rows.
        groups: In the order of their shards.

    Returns:
        int64[n].
    """
    num_shards = np.array([group.num_shards for group in groups])
    first = np.cumsum(num_shards) - num_shards
    sources = [group.source for group in groups]
    group = np.zeros(len(documents), np.int64)
    if sources != [None]:
        group = pc.index_in(documents["source"], pa.array(sources)).to_numpy()
    return first[group] + (documents["key"].to_numpy() * num_shards[group]).astype(np.int64)


def pack_shard(plan: TokenPlan, number: int, tokenizer: Tokenizer) -> None:
    """Pack one cell of every row group into sequences, and commit their shard."""
    started = time.monotonic()
    cells = pa.concat_tables(_read_cell(plan.cells(group), number) for group in range(len(plan.row_groups)))
    cells = cells.take(pc.sort_indices(cells["key"])).combine_chunks()
    lists = cells["tokens"].combine_chunks()
    texts = TokenizedTexts(lists.flatten().to_numpy(), lists.offsets.to_numpy() - lists.offsets[0].as_py())
    packed = PACKINGS[plan.spec.packing](texts, tokenizer.end_of_text, plan.spec.sequence_length)
    dtype = token_shards.token_dtype(tokenizer.vocab_size)
    also = _also(plan, number, packed, cells, dtype)
    accounts = _accounts(plan, packed, texts, cells["source"]) | {"also": sorted(also)}
    for name, content in also.items():
        files.commit_bytes(plan.path(name), content)
    with files.committed(plan.path(plan.shard(number))) as file:
        token_shards.write_shard(file, to_batch(packed, cells, dtype), accounts)
    row = pack_row(plan, number, accounts)
    record_task(plan.workspace, replace(row, seconds=time.monotonic() - started))


def divide_row(plan: TokenPlan, group: int, accounts: dict[str, Any]) -> LedgerRow:
    """What the cells of a row group say of themselves."""
    num_documents = accounts["num_documents"]
    part, number, _ = plan.row_groups[group]
    name = f"{part.removesuffix('.parquet')}-{number:03d}"
    return LedgerRow(
        divide_stage(plan.selection), name, num_documents, num_documents, num_bytes=accounts["num_bytes"]
    )


def pack_row(plan: TokenPlan, number: int, accounts: dict[str, Any]) -> LedgerRow:
    """What a shard says of itself."""
    counts = {
        "no_tokens": accounts["num_documents_empty"],
        "dropped_tail": accounts["num_documents_in_dropped_tail"],
    }
    reasons = {name: count for name, count in counts.items() if count}
    num_dropped = sum(reasons.values())
    return LedgerRow(
        pack_stage(plan.selection),
        plan.shard(number).removesuffix(".arrow"),
        accounts["num_documents"],
        accounts["num_documents"] - num_dropped,
        num_dropped=num_dropped,
        reasons=reasons,
    )


def is_made(path: str, identity: str) -> bool:
    """Whether a shard or cells are there, whole and of this identity."""
    return files.exists(path) and (read_accounts(path) or {}).get("identity") == identity


def read_accounts(path: str) -> dict[str, Any] | None:
    """The accounts of a shard or of cells, None where the file is damaged."""
    try:
        with files.open_read(path) as file:
            return token_shards.read_accounts(file)
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None


def _tokenised(batch: pa.RecordBatch, tokenizer: Tokenizer, seed: int) -> pa.RecordBatch:
    texts = tokenizer.encode(batch["text"])
    raw = bytes.fromhex("".join(batch["doc_id"].to_pylist()).replace("-", ""))
    doc_ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(batch), [None, pa.py_buffer(raw)])
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), doc_ids)
    keys = random_keys(pa.chunked_array([uuids]), seed)
    tokens = pa.LargeListArray.from_arrays(texts.offsets, texts.tokens)
    return pa.RecordBatch.from_arrays([keys, doc_ids, batch["source"], tokens], schema=CELL)


def _read_cell(path: str, number: int) -> pa.Table:
    with pa.memory_map(path) if files.is_local(path) else files.open_read(path) as file:
        return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(number)])


def to_batch(packed: Packed, cells: pa.Table, dtype: type[np.generic]) -> pa.RecordBatch:
    """Sequences as a shard holds them.

    Args:
        packed: The sequences.
        cells: The documents they hold, `CELL`.
        dtype: Of a token.
    """
    sequence_length = packed.tokens.shape[1]
    schema = token_shards.token_schema(dtype, sequence_length)
    tokens = pa.FixedSizeListArray.from_arrays(
        pa.array(packed.tokens.astype(dtype).ravel()), type=schema.field("tokens").type
    )
    spans = pa.StructArray.from_arrays(
        [
            pa.array(packed.starts, pa.int32()),
            cells["doc_id"].combine_chunks().take(packed.documents),
            pa.array(packed.offsets, pa.int32()),
            _with_sorted_dictionary(cells["source"].combine_chunks()).take(packed.documents),
        ],
        fields=list(token_shards.SPAN),
    )
    padded = packed.filled < sequence_length
    ranges = pa.StructArray.from_arrays(
        [
            pa.array(packed.filled[padded], pa.int32()),
            pa.array(np.full(padded.sum(), sequence_length), pa.int32()),
        ],
        fields=list(token_shards.RANGE),
    )
    masked_offsets = np.append(0, np.cumsum(padded))
    lists = [
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=schema.field(name).type)
        for name, offsets, values in (
            ("spans", packed.span_offsets, spans),
            ("masked", masked_offsets, ranges),
        )
    ]
    return pa.RecordBatch.from_arrays([tokens, *lists], schema=schema)


def _with_sorted_dictionary(sources: pa.StringArray) -> pa.DictionaryArray:
    names = pc.unique(sources).sort()
    return pa.DictionaryArray.from_arrays(pc.index_in(sources, names), names)


def _also(
    plan: TokenPlan, number: int, packed: Packed, cells: pa.Table, dtype: type[np.generic]
) -> dict[str, bytes]:
    """The shard in the formats of other trainers."""
    if not plan.spec.also:
        return {}
    openers = np.flatnonzero(packed.offsets == 0)
    rows = np.searchsorted(packed.span_offsets, openers, "right") - 1
    documents = packed.documents[openers]
    shard = Documents(
        packed.tokens.astype(dtype),
        rows * plan.spec.sequence_length + packed.starts[openers],
        cells["doc_id"].take(documents).to_pylist(),
        cells["source"].take(documents).to_pylist(),
    )
    return {
        name: content for wanted in plan.spec.also for name, content in FORMATS[wanted](number, shard).items()
    }


def _accounts(
    plan: TokenPlan, packed: Packed, texts: TokenizedTexts, sources: pa.ChunkedArray
) -> dict[str, Any]:
    """What became of the documents and tokens of a shard; `num_tokens` counts ends of text, not padding."""
    num_documents = len(texts.offsets) - 1
    num_empty = int((np.diff(texts.offsets) == 0).sum())
    num_held = len(np.unique(packed.documents))
    of_sources: Counter[str] = Counter()
    holders = sources.take(packed.documents).to_pylist()
    for source, length in zip(holders, packed.span_lengths().tolist(), strict=True):
        of_sources[source] += length
    return {
        "identity": plan.identity,
        "num_rows": len(packed.tokens),
        "num_documents": num_documents,
        "num_documents_empty": num_empty,
        "num_documents_in_dropped_tail": num_documents - num_empty - num_held,
        "num_tokens_of_documents": len(texts.tokens),
        "num_ends_of_text": num_documents - num_empty,
        "num_tokens": int(packed.filled.sum()),
        "num_tokens_dropped": packed.num_dropped,
        "num_padding": packed.tokens.size - int(packed.filled.sum()),
        "sources": dict(sorted(of_sources.items())),
    }

"""Tokens of a dataset, as workers make them: documents divided into cells, and cells packed into shards.

A cell holds the documents whose seeded hash falls into its share, of one source or of all; each row group of the
dataset has its own part of every cell. No worker holds more than one row group's tokens or one shard, whatever the
size of the dataset.
"""

import json
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.tokenizer import TokenizedTexts, Tokenizer
from gristmill.pipelines import files, metadata_prefix, token_shards
from gristmill.pipelines.control_tokens import (
    Controls,
    control_heads,
    cut_segments,
    is_tagged,
    read_ratings,
    tag,
)
from gristmill.pipelines.ledger import LedgerRow, record_task
from gristmill.pipelines.pack_tokens import PACKINGS, Packed
from gristmill.pipelines.records import parse_uuids
from gristmill.pipelines.token_plan import COOL_DOWN, TokenPlan, divide_stage, pack_stage
from gristmill.pipelines.token_shards import ACCOUNTS_KEY
from gristmill.pipelines.trainer_formats import FORMATS, Documents
from gristmill.scorers.doc_ids import random_keys

READ_ROWS = 1024
PREFIX_SEED = 1 << 34
COOL_DOWN_SEED = 1 << 35
CELL = pa.schema(
    [
        pa.field("key", pa.float64(), nullable=False),
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("tokens", pa.large_list(pa.uint32()), nullable=False),
        pa.field("num_prefix", pa.int64(), nullable=False),
        pa.field("lacks_field", pa.bool_(), nullable=False),
        pa.field("num_good", pa.int64(), nullable=False),
        pa.field("num_bad", pa.int64(), nullable=False),
    ]
)
"""One row a document; one record batch a cell, in the order of cells.

`tokens` begin with `num_prefix` of the prefix, and hold `num_good` and `num_bad` control tokens; `lacks_field` says
that the document lacks a field of its prefix.
"""


def divide_documents(plan: TokenPlan, group: int, tokenizer: Tokenizer, controls: Controls | None) -> None:
    """Tokenise one row group of the dataset, and leave its documents in cells, each in the order of their keys."""
    started = time.monotonic()
    ratings = read_ratings(plan, group) if controls is not None else None
    batches = []
    num_bytes = start = 0
    with files.open_read(plan.part(group)) as file:
        columns = ["doc_id", "text", *metadata_prefix.COLUMNS]
        for batch in pq.ParquetFile(file).iter_batches(
            READ_ROWS, [plan.row_groups[group].number], columns, use_threads=False
        ):
            rated = ratings.slice(start, len(batch)) if ratings is not None else None
            batches.append(_tokenised(batch, plan, tokenizer, controls, rated))
            num_bytes += pc.sum(pc.binary_length(batch["text"])).as_py()
            start += len(batch)
    table = pa.Table.from_batches(batches, CELL).combine_chunks()
    cells = number_cells(table, plan)
    order = np.lexsort((table["key"].to_numpy(), cells))
    table = table.take(order)
    borders = np.searchsorted(cells[order], np.arange(len(plan.shards) + 1))
    accounts = {"identity": plan.identity, "num_documents": len(table), "num_bytes": num_bytes}
    schema = CELL.with_metadata({ACCOUNTS_KEY: json.dumps(accounts).encode()})
    with files.committed(plan.cells(group)) as file, pa.ipc.new_file(file, schema) as writer:
        for start, end in pairwise(borders):
            rows = table.slice(start, end - start).combine_chunks()
            writer.write_batch(rows.to_batches()[0] if len(rows) else pa.RecordBatch.from_pylist([], CELL))
    row = plan.ledger_row(divide_stage(plan.selection), group, len(table), num_bytes)
    record_task(plan.workspace, replace(row, seconds=time.monotonic() - started))


def number_cells(documents: pa.Table, plan: TokenPlan) -> npt.NDArray[np.int64]:
    """The cell of each document: its key's share of the shards of its group.

    Args:
        documents: `CELL`, n rows.
        plan: Names the groups.

    Returns:
        int64[n].
    """
    num_shards = np.array([group.num_shards for group in plan.groups])
    first = np.cumsum(num_shards) - num_shards
    sources = list(dict.fromkeys(group.source for group in plan.groups))
    group = len(sources) * _cools_down(documents["doc_id"], plan)
    if sources != [None]:
        group += pc.index_in(documents["source"], pa.array(sources)).to_numpy()
    return first[group] + (documents["key"].to_numpy() * num_shards[group]).astype(np.int64)


def pack_shard(plan: TokenPlan, number: int, tokenizer: Tokenizer) -> None:
    """Pack one cell of every row group into sequences, and commit their shard.

    Args:
        plan: What is packed.
        number: Of the shard.
        tokenizer: With the control tokens.
    """
    started = time.monotonic()
    cells = pa.concat_tables(_read_cell(plan.cells(group), number) for group in range(len(plan.row_groups)))
    cells = cells.take(pc.sort_indices(cells["key"])).combine_chunks()
    lists = cells["tokens"].combine_chunks()
    texts = TokenizedTexts(lists.flatten().to_numpy(), lists.offsets.to_numpy() - lists.offsets[0].as_py())
    packed = PACKINGS[plan.spec.packing](texts, tokenizer.end_of_text, plan.spec.sequence_length)
    dtype = token_shards.token_dtype(tokenizer.vocab_size)
    also = _also(plan, number, packed, cells, dtype)
    identity = plan.identity_of(plan.shards[number].group.folder)
    accounts = {"identity": identity, **_accounts(plan, packed, texts, cells), "also": sorted(also)}
    for name, content in also.items():
        files.commit_bytes(plan.path(name), content)
    with files.committed(plan.shard(number)) as file:
        token_shards.write_shard(file, to_batch(packed, cells, dtype), accounts)
    row = pack_row(plan, number, accounts)
    record_task(plan.workspace, replace(row, seconds=time.monotonic() - started))


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
        plan.shards[number].label,
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


def _tokenised(
    batch: pa.RecordBatch,
    plan: TokenPlan,
    tokenizer: Tokenizer,
    controls: Controls | None,
    ratings: pa.Table | None,
) -> pa.RecordBatch:
    """Documents as `CELL`; prefixes and texts are tokenised apart, so that none changes the other's tokens."""
    doc_ids = parse_uuids(batch["doc_id"])
    chunked = pa.chunked_array([doc_ids])
    num_good = num_bad = num_prefix = np.zeros(len(batch), np.int64)
    lacks_field = pa.array([False] * len(batch))
    if controls is None or ratings is None:
        texts = tokenizer.encode(batch["text"])
    else:
        texts, num_good, num_bad = _controlled(batch["text"], doc_ids, plan, tokenizer, controls, ratings)
    if prefix := plan.spec.prefix:
        prefixes, lacks_field = metadata_prefix.prefix_texts(batch, prefix.template, prefix.missing)
        wanted = random_keys(chunked, PREFIX_SEED + plan.spec.seed) < prefix.share
        wanted &= ~_cools_down(chunked, plan) & (texts.lengths > 0)
        heads = tokenizer.encode(prefixes).where(wanted)
        texts, num_prefix = texts.preceded_by(heads), heads.lengths
        lacks_field = pc.and_(lacks_field, pa.array(wanted))
    columns = [
        random_keys(chunked, plan.spec.seed),
        doc_ids.storage,
        batch["source"],
        pa.LargeListArray.from_arrays(texts.offsets, texts.tokens),
        *map(pa.array, (num_prefix, lacks_field, num_good, num_bad)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CELL)


def _controlled(
    text: pa.LargeStringArray,
    doc_ids: pa.ExtensionArray,
    plan: TokenPlan,
    tokenizer: Tokenizer,
    controls: Controls,
    ratings: pa.Table,
) -> tuple[TokenizedTexts, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Documents with their control tokens, and how many good and bad ones each has."""
    assert plan.spec.control is not None
    assert plan.rater is not None
    lengths = pc.list_value_length(ratings["scores"]).to_numpy()
    borders = np.append(0, np.cumsum(lengths))
    segments = tokenizer.encode(cut_segments(text, ratings))
    is_good = tag(
        pc.list_flatten(ratings["scores"]).to_numpy(),
        controls.threshold,
        lower_is_better=plan.rater.lower_is_better,
    )
    has_tokens = np.diff(segments.offsets[borders]) > 0
    tagged = is_tagged(doc_ids, lengths, plan.spec.control.drop_out, plan.spec.seed)
    tagged &= np.repeat(has_tokens, lengths)
    texts = segments.preceded_by(control_heads(is_good, tagged, controls.good, controls.bad))
    num_good, num_bad = (
        np.diff(np.append(0, np.cumsum(mask))[borders]) for mask in (tagged & is_good, tagged & ~is_good)
    )
    return TokenizedTexts(texts.tokens, texts.offsets[borders]), num_good, num_bad


def _cools_down(doc_ids: pa.ChunkedArray, plan: TokenPlan) -> npt.NDArray[np.bool_]:
    """Which documents are kept apart for the cool-down."""
    if COOL_DOWN not in plan.folders or plan.spec.prefix is None:
        return np.zeros(len(doc_ids), np.bool_)
    uuids = doc_ids.cast(pa.uuid())
    return random_keys(uuids, COOL_DOWN_SEED + plan.spec.seed) < plan.spec.prefix.cool_down


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
    rows, starts, ends = packed.masked_ranges(cells["num_prefix"].to_numpy())
    ranges = pa.StructArray.from_arrays(
        [pa.array(starts, pa.int32()), pa.array(ends, pa.int32())], fields=list(token_shards.RANGE)
    )
    masked_offsets = np.searchsorted(rows, np.arange(len(tokens) + 1))
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
    """The shard in the formats of other trainers, path among the tokens -> content."""
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
        packed.loss_mask(cells["num_prefix"].to_numpy()) if plan.spec.has_mask else None,
    )
    group, _, number_in_folder = plan.shards[number]
    return {
        f"{group.folder}/{name}".lstrip("/"): content
        for wanted in plan.spec.also
        for name, content in FORMATS[wanted](number_in_folder, shard).items()
    }


def _accounts(plan: TokenPlan, packed: Packed, texts: TokenizedTexts, cells: pa.Table) -> dict[str, Any]:
    """What became of the documents and tokens of a shard; `num_tokens` counts ends of text, not padding."""
    num_documents = len(texts)
    num_empty = int((texts.lengths == 0).sum())
    num_held = len(np.unique(packed.documents))
    of_sources: Counter[str] = Counter()
    holders = cells["source"].take(packed.documents).to_pylist()
    for source, length in zip(holders, packed.span_lengths().tolist(), strict=True):
        of_sources[source] += length
    num_prefix, num_good, num_bad = (
        pc.sum(cells[name], min_count=0).as_py() for name in ("num_prefix", "num_good", "num_bad")
    )
    accounts = {
        "num_rows": len(packed.tokens),
        "num_documents": num_documents,
        "num_documents_empty": num_empty,
        "num_documents_in_dropped_tail": num_documents - num_empty - num_held,
        "num_tokens_of_documents": len(texts.tokens) - num_prefix - num_good - num_bad,
        "num_prefix_tokens": num_prefix,
        "num_control_tokens": num_good + num_bad,
        "num_ends_of_text": num_documents - num_empty,
        "num_tokens": int(packed.filled.sum()),
        "num_tokens_dropped": packed.num_dropped,
        "num_padding": packed.tokens.size - int(packed.filled.sum()),
        "sources": dict(sorted(of_sources.items())),
    }
    if plan.spec.prefix is not None:
        accounts["num_documents_with_prefix"] = pc.sum(
            pc.greater(cells["num_prefix"], 0), min_count=0
        ).as_py()
        accounts["num_documents_lacking_field"] = pc.sum(cells["lacks_field"], min_count=0).as_py()
    if plan.spec.control is not None:
        accounts |= {"num_good_tokens": num_good, "num_bad_tokens": num_bad}
    return accounts

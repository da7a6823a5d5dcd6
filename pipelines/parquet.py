"""Parquet inputs, split by row group and read batch by batch."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from gristmill.pipelines import files
from gristmill.pipelines.jsonl import CREATED_FIELDS, URL_FIELDS, as_string, dump
from gristmill.pipelines.recipe import Input
from gristmill.pipelines.records import Block, Piece, Records, Reject
from gristmill.scorers.base import RecipeError

ROWS_A_BATCH = 1024


def read_metadata(path: str, fields: Input) -> pq.FileMetaData | None:
    """The footer of a file whose text column is there and a string; None for what is no Parquet file.

    Raises:
        RecipeError: If the text column is missing or of another type: a file of another schema.
    """
    try:
        with files.open_read(path) as source:
            file = pq.ParquetFile(source)
            schema, metadata = file.schema_arrow, file.metadata
    except (pa.ArrowException, OSError):
        return None
    if fields.text not in schema.names:
        raise RecipeError(
            f"{path}: no column {fields.text!r}; found {', '.join(schema.names)}; name the text column with `text:`"
        )
    kind = schema.field(fields.text).type
    if not any(
        is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    ):
        raise RecipeError(f"{path}: column {fields.text!r} is {kind}, expected a string")
    return metadata


def read_blocks(piece: Piece, *, block_bytes: int, max_document_bytes: int) -> Iterator[Block]:
    """Batches of rows of the row groups from `start` up to `end`; a damaged row group is one reject.

    Args:
        piece: Row groups of one file.
        block_bytes: Not used: batches of 1,024 rows keep long documents from piling up.
        max_document_bytes: Not used here: `parse_block` refuses longer texts.
    """
    with files.open_read(piece.path) as source:
        try:
            file = pq.ParquetFile(source)
        except (pa.ArrowException, OSError) as error:
            reason = f"not_parquet: {_first_line(error)}"
            yield Block(
                piece, 0, None, 0, [Reject(piece.path, "file", reason, files.read_bytes(piece.path)[:200])]
            )
            return
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        row = sum(group.num_rows for group in groups[: piece.start])
        for number in range(piece.start, len(groups) if piece.end is None else piece.end):
            end = row + groups[number].num_rows
            try:
                for batch in file.iter_batches(ROWS_A_BATCH, row_groups=[number]):
                    yield Block(piece, row, batch, batch.nbytes)
                    row += len(batch)
            except (pa.ArrowException, OSError) as error:
                reason = f"damaged_row_group: {_first_line(error)}; lost {end - row} rows"
                yield Block(piece, row, None, 0, [Reject(piece.path, str(row), reason, b"")])
            row = end


def parse_block(block: Block, fields: Input, *, max_document_bytes: int) -> Records:
    """Rows as records: null or too long texts are rejects, the columns not named become metadata."""
    records = Records.of(block)
    if block.payload is None:
        return records
    batch: pa.RecordBatch = block.payload
    names = set(batch.schema.names)
    url = fields.url or next((name for name in URL_FIELDS if name in names), None)
    created = fields.created or next((name for name in CREATED_FIELDS if name in names), None)
    used = [fields.text, fields.id, url, created, fields.source_field]
    rest = batch.drop_columns([name for name in used if name in names])
    text = batch.column(fields.text)
    sizes = pc.fill_null(pc.binary_length(text.cast(pa.large_string())), -1).to_numpy(zero_copy_only=False)
    texts, ids, sources = text.to_pylist(), _column(batch, fields.id), _column(batch, fields.source_field)
    urls, dates = _column(batch, url), _column(batch, created)
    others = rest.to_pylist() if rest.num_columns else [{}] * len(batch)
    records.num_in += len(batch)
    for row, size in enumerate(sizes):
        if size < 0:
            records.reject(
                block.offset + row, f"null_text: {fields.text!r} is null", dump(others[row]).encode()
            )
        elif size > max_document_bytes:
            reason = f"too_large: the text is longer than max_document_bytes ({max_document_bytes})"
            records.reject(block.offset + row, reason, texts[row].encode())
        else:
            records.offsets.append(block.offset + row)
            records.texts.append(texts[row])
            records.ids.append(as_string(ids[row]))
            records.sources.append(as_string(sources[row]) or fields.source)
            records.urls.append(as_string(urls[row]))
            records.created.append(dates[row])
            records.metadata.append(dump(others[row]) if others[row] else None)
            records.repaired.append(False)
    return records


def _column(batch: pa.RecordBatch, name: str | None) -> list[Any]:
    return batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(batch)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""Parquet inputs, split by row group and read batch by batch."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.jsonl import CREATED_FIELDS, URL_FIELDS, as_string, dump
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.recipe_values import nearest
from gristmill.pipelines.records import HEAD_BYTES, Block, Piece, Records, Reject
from gristmill.scorers.base import RecipeError

MAX_ROWS_A_BATCH = 1024
DAMAGE = (pa.ArrowException, OSError, ValueError)
STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def read_metadata(path: str, fields: Input) -> pq.FileMetaData | None:
    """The footer of a file that holds the columns named and strings as text; None for what is no Parquet file.

    Raises:
        RecipeError: If a column is missing, stands twice or is of another type: a file of another schema.
    """
    try:
        with files.open_read(path) as source:
            file = pq.ParquetFile(source)
            schema, metadata = file.schema_arrow, file.metadata
    except DAMAGE:
        return None
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise RecipeError(f"{path}: two columns are called {name!r}; rename one of them")
    for option in ("text", "id", "url", "created", "source_field"):
        name = getattr(fields, option)
        if name is not None and (option, name) != ("id", "id") and _type(schema, name) is None:
            raise RecipeError(
                f"{path}: no column {name!r} (named by `{option}:`){nearest(name, schema.names)}"
            )
    found = _type(schema, fields.text)
    kind = getattr(found, "value_type", found) if pa.types.is_dictionary(found) else found
    if not any(is_kind(kind) for is_kind in STRINGS):
        raise RecipeError(f"{path}: column {fields.text!r} is {found}, expected a string")
    return metadata


def count_rows(piece: Piece) -> int:
    """Rows of a piece, 0 for what is no Parquet file."""
    try:
        with files.open_read(piece.path) as source:
            metadata = pq.read_metadata(source)
    except DAMAGE:
        return 0
    end = metadata.num_row_groups if piece.end is None else piece.end
    return sum(metadata.row_group(number).num_rows for number in range(piece.start, end))


def read_blocks(piece: Piece, *, block_bytes: int, max_document_bytes: int) -> Iterator[Block]:
    """Batches of rows of the row groups from `start` up to `end`; a damaged row group is one reject.

    Args:
        piece: Row groups of one file.
        block_bytes: A batch has about as many rows as hold this, at most 1,024.
        max_document_bytes: Not used here: `parse_block` refuses longer texts.
    """
    with files.open_read(piece.path) as source:
        try:
            file = pq.ParquetFile(source, page_checksum_verification=True)
        except DAMAGE as error:
            source.seek(0)
            reject = Reject(piece.path, "file", f"not_parquet: {_first_line(error)}", source.read(HEAD_BYTES))
            yield Block(piece, 0, None, 0, [reject])
            return
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        row = sum(group.num_rows for group in groups[: piece.start])
        for number in range(piece.start, len(groups) if piece.end is None else piece.end):
            group = groups[number]
            end = row + group.num_rows
            num_rows = block_bytes * group.num_rows // max(group.total_byte_size, 1)
            num_rows = min(max(num_rows, 1), MAX_ROWS_A_BATCH)
            try:
                for batch in file.iter_batches(num_rows, row_groups=[number], use_threads=False):
                    yield Block(piece, row, batch, batch.nbytes)
                    row += len(batch)
            except DAMAGE as error:
                reason = f"damaged_row_group: {_first_line(error)}; lost {end - row} rows"
                yield Block(piece, row, None, 0, [Reject(piece.path, str(row), reason, b"")])
            row = end


def parse_block(block: Block, fields: Input, *, max_document_bytes: int) -> Records:
    """Rows as records: null or too long texts are rejects, the columns not named become metadata."""
    records = Records.of(block)
    if block.payload is not None:
        _parse_rows(records, block.payload, block.offset, fields, max_document_bytes)
    return records


def _parse_rows(records: Records, batch: pa.RecordBatch, offset: int, fields: Input, max_bytes: int) -> None:
    """Parse a batch; where it holds a value that Python cannot, the halves, down to the row that does."""
    schema = batch.schema
    url = fields.url or next((name for name in URL_FIELDS if _type(schema, name)), None)
    created = fields.created or next((name for name in CREATED_FIELDS if _type(schema, name)), None)
    used = (fields.text, fields.id, url, fields.source_field)  # a date is kept as it was written
    rest = batch.drop_columns([name for name in used if name in schema.names])
    try:
        texts, ids, urls, dates, sources = (
            _column(batch, name) for name in (fields.text, fields.id, url, created, fields.source_field)
        )
        others = _in_microseconds(rest).to_pylist() if rest.num_columns else [{}] * len(batch)
    except (ValueError, OverflowError) as error:
        if len(batch) > 1:
            half = len(batch) // 2
            _parse_rows(records, batch[:half], offset, fields, max_bytes)
            _parse_rows(records, batch[half:], offset + half, fields, max_bytes)
            return
        records.num_in += 1
        reason = f"unreadable_value: {_first_line(error)}"
        if isinstance(error, UnicodeDecodeError):
            reason = f"invalid_utf8: {error.reason} at byte {error.start} of a column"
        records.reject(offset, reason, b"")
        return
    records.num_in += len(batch)
    for row, text in enumerate(texts):
        if text is None:
            records.reject(offset + row, f"null_text: {fields.text!r} is null", dump(others[row]).encode())
        elif len(text) > max_bytes or (4 * len(text) > max_bytes and len(text.encode()) > max_bytes):
            reason = f"too_large: the text is longer than max_document_bytes ({max_bytes})"
            records.reject(offset + row, reason, text[:HEAD_BYTES].encode())
        else:
            records.offsets.append(offset + row)
            records.texts.append(text)
            records.ids.append(as_string(ids[row]))
            records.sources.append(as_string(sources[row]) or fields.source)
            records.urls.append(as_string(urls[row]))
            records.created.append(dates[row])
            records.metadata.append(dump(others[row]) if others[row] else None)
            records.repaired.append(False)


def _type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of a column or, where dots reach into structs, of a field inside one; None where it is absent."""
    if name in schema.names:
        return schema.field(name).type
    head, *parts = name.split(".")
    if head not in schema.names:
        return None
    kind = schema.field(head).type
    for part in parts:
        index = kind.get_field_index(part) if pa.types.is_struct(kind) else -1
        if index < 0:
            return None
        kind = kind.field(index).type
    return kind


def _column(batch: pa.RecordBatch, name: str | None) -> list[Any]:
    """The values of a column or of a field inside a struct column."""
    if name is None or _type(batch.schema, name) is None:
        return [None] * len(batch)
    head, *parts = [name] if name in batch.schema.names else name.split(".")
    column = batch.column(head)
    for part in parts:
        column = pc.struct_field(column, part)
    (values,) = _in_microseconds(pa.record_batch([column], ["column"])).to_pydict().values()
    return values


def _in_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with times in microseconds, the finest that Python has, instead of nanoseconds."""
    kinds = [_coarse(field.type) for field in batch.schema]
    columns = [
        column if kind == column.type else column.cast(kind, safe=False)
        for column, kind in zip(batch.columns, kinds, strict=True)
    ]
    return pa.record_batch(columns, batch.schema.names)


def _coarse(kind: pa.DataType) -> pa.DataType:
    def coarse_field(field: pa.Field) -> pa.Field:
        return field.with_type(_coarse(field.type))

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz) if kind.unit == "ns" else kind
    if pa.types.is_duration(kind):
        return pa.duration("us") if kind.unit == "ns" else kind
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_struct(kind):
        return pa.struct([coarse_field(field) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(coarse_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(coarse_field(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(coarse_field(kind.key_field), coarse_field(kind.item_field), kind.keys_sorted)
    return kind


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

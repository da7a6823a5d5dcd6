"""Folders of plain-text and HTML files: one document a file."""

from collections.abc import Iterator

from gristmill.pipelines.extract_html import Extractor
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import HEAD_BYTES, Block, Piece, Records, Reject, replace_surrogates
from gristmill.pipelines.streams import DamagedStream, read_chunks


def read_blocks(piece: Piece, *, block_bytes: int, max_document_bytes: int) -> Iterator[Block]:
    """The bytes of one file; one that is damaged or over the limit becomes a reject without being held."""
    content = bytearray()
    reason = None
    try:
        for chunk in read_chunks(piece.path):
            content += chunk
            if len(content) > max_document_bytes:
                reason = f"too_large: the file is longer than max_document_bytes ({max_document_bytes})"
                break
    except DamagedStream as damage:
        reason = f"damaged_stream: {damage.cause}; lost {damage.num_lost} compressed bytes and {len(content)} read ones"
    if reason:
        yield Block(piece, 0, None, 0, [Reject(piece.path, "file", reason, bytes(content[:HEAD_BYTES]))])
    else:
        yield Block(piece, 0, bytes(content), len(content))


def parse_text(block: Block, fields: Input, *, max_document_bytes: int) -> Records:
    """A UTF-8 text file as a document whose id is its path below the input root."""
    records = Records.of(block)
    if block.payload is not None:
        records.num_in += 1
        try:
            _add(records, block.payload.decode("utf-8-sig"), fields)
        except UnicodeDecodeError as error:
            reason = f"invalid_utf8: {error.reason} at byte {error.start}"
            records.reject(0, reason, block.payload[max(error.start - 20, 0) :])
    return records


def parse_html(block: Block, fields: Input, *, max_document_bytes: int, extractor: Extractor) -> Records:
    """The main text of an HTML file as a document whose id is its path below the input root."""
    records = Records.of(block)
    if block.payload is not None:
        records.num_in += 1
        (result,) = extractor.extract([(block.payload, None)])
        if result.text is None:
            records.reject(0, f"extraction_failed: {result.error}", block.payload)
        else:
            _add(records, result.text, fields)
    return records


def _add(records: Records, text: str, fields: Input) -> None:
    records.offsets.append(0)
    records.texts.append(text)
    records.ids.append(replace_surrogates(records.piece.relative))
    records.sources.append(fields.source)
    records.urls.append(None)
    records.created.append(None)
    records.metadata.append(None)
    records.repaired.append(False)

r"""JSON lines, plain or compressed: only `\n` ends a line, whatever else a string inside it holds.

Measured on 22 MB of mixed text (15,122 documents, one core): orjson line by line parses faster than the rest of ingest
writes, and it keeps the whole record, where pyarrow.json drops a block for one bad line and cannot return the
fields it was not told about. tests/bench/bench_ingest.py prints the rate.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any

import orjson

from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import HEAD_BYTES, Block, Piece, Records, Reject, replace_surrogates
from gristmill.pipelines.streams import DamagedStream, read_chunks

URL_FIELDS = ("url", "metadata.url", "metadata.WARC-Target-URI", "metadata.warc_target_uri")
CREATED_FIELDS = ("created", "date", "timestamp", "metadata.created", "metadata.date", "metadata.WARC-Date")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_DEPTH = 200
"""Levels of nesting in a record: orjson writes no more than 254."""


def read_blocks(piece: Piece, *, block_bytes: int, max_document_bytes: int) -> Iterator[Block]:
    """Cut a piece into blocks of whole lines.

    A line belongs to the piece its first byte lies in. A line over the limit becomes a reject without ever
    being held; a stream that ends too early becomes one reject for what was lost.

    Args:
        piece: Bytes from `start` up to `end`.
        block_bytes: A block is cut at the last line end once this much is held.
        max_document_bytes: A longer line is not held.
    """
    offset = max(piece.start - 1, 0)
    skipping = piece.start > 0  # the line that a later piece starts in belongs to the piece before
    held = bytearray()
    rejects: list[Reject] = []

    def cut(num_bytes: int) -> Block:
        nonlocal offset
        block = Block(piece, offset, bytes(held[:num_bytes]), num_bytes, list(rejects))
        rejects.clear()
        del held[:num_bytes]
        offset += num_bytes
        return block

    try:
        for chunk in read_chunks(piece.path, offset):
            if skipping:
                line_end = chunk.find(b"\n") + 1
                offset += line_end or len(chunk)
                if piece.end is not None and offset >= piece.end:
                    break
                if not line_end:
                    continue
                skipping, chunk = False, chunk[line_end:]
            held += chunk
            if piece.end is not None and offset + len(held) >= piece.end:
                if last := held.find(b"\n", max(piece.end - 1 - offset, 0)) + 1:
                    yield cut(last)
                    return
            if len(held) >= block_bytes:
                if whole := held.rfind(b"\n") + 1:
                    yield cut(whole)
                elif len(held) > max_document_bytes:
                    rejects.append(_too_large(piece, offset, held, max_document_bytes))
                    offset += len(held)
                    held.clear()
                    skipping = True
    except DamagedStream as damage:
        last = held.rfind(b"\n") + 1
        block = cut(len(held) if isinstance(_load(bytes(held[last:]))[0], dict) else last)
        reason = f"damaged_stream: {damage.cause}; lost {damage.num_lost} compressed bytes and {len(held)} read ones"
        block.rejects.append(Reject(piece.path, str(offset), reason, bytes(held[:HEAD_BYTES])))
        yield block
        return
    if held or rejects:
        yield cut(len(held))


def _too_large(piece: Piece, offset: int, line: bytes | bytearray, limit: int) -> Reject:
    reason = f"too_large: the record is longer than max_document_bytes ({limit})"
    return Reject(piece.path, str(offset), reason, bytes(line[:HEAD_BYTES]))


def parse_block(block: Block, fields: Input, *, max_document_bytes: int) -> Records:
    """Parse the lines of a block.

    A lone surrogate is replaced by U+FFFD and the row marked `repaired`; NaN and infinities become null. Invalid
    UTF-8, broken or too deep JSON, and a text that is missing, null or no string are rejects. Of a key that stands
    twice in an object the last value counts.

    Args:
        block: Whole lines.
        fields: Names of the text, id, url and date fields; url and date are found under their usual names when
            the recipe names none.
        max_document_bytes: A longer line is a reject.
    """
    records = Records.of(block)
    get_text, get_id = field_getter(fields.text), field_getter(fields.id)
    get_url = field_getter(fields.url) if fields.url else _first_of(URL_FIELDS)
    get_created = field_getter(fields.created) if fields.created else _first_of(CREATED_FIELDS)
    get_source = field_getter(fields.source_field) if fields.source_field else None
    used = {
        fields.text,
        fields.id,
        fields.url or "url",
        fields.source_field,
    }  # a date is kept as it was written
    offset = block.offset
    for raw in block.payload.split(b"\n"):
        start, offset = offset, offset + len(raw) + 1
        line = raw.removeprefix(BYTE_ORDER_MARK) if start == 0 else raw
        if len(raw) > max_document_bytes:
            records.num_in += 1
            records.rejects.append(_too_large(block.piece, start, raw, max_document_bytes))
            continue
        if not line or line.isspace():
            continue
        records.num_in += 1
        record, repaired, reason = _load(line)
        if reason is None and not isinstance(record, dict):
            reason = f"not_an_object: found {type(record).__name__}"
        text: Any = get_text(record) if reason is None else None
        if reason is None and type(text) is not str:
            reason = _no_text(record, fields.text, text)
        if reason is not None:
            records.reject(start, reason, line)
            continue
        records.offsets.append(start)
        records.texts.append(text)
        records.ids.append(as_string(get_id(record)))
        records.sources.append((as_string(get_source(record)) if get_source else None) or fields.source)
        records.urls.append(as_string(get_url(record)))
        records.created.append(get_created(record))
        rest = {key: value for key, value in record.items() if key not in used}
        records.metadata.append(dump(rest) if rest else None)
        records.repaired.append(repaired)
    return records


def _load(line: bytes) -> tuple[Any, bool, str | None]:
    """A record, whether it was repaired, and why it could not be read."""
    try:
        record = orjson.loads(line)
        if not _may_be_rounded(record):
            return record, False, None
    except (orjson.JSONDecodeError, RecursionError):
        pass
    try:
        record = json.loads(line.decode(), parse_constant=lambda _: None, parse_float=_finite)
        _may_be_rounded(record)
        whole = json.dumps(record, ensure_ascii=False)
        sound = replace_surrogates(whole)
        return json.loads(sound), sound != whole, None
    except UnicodeDecodeError as error:
        return None, False, f"invalid_utf8: {error.reason} at byte {error.start} of the line"
    except RecursionError:
        return None, False, f"too_deep: nested more than {MAX_DEPTH} levels"
    except ValueError as error:
        return None, False, f"broken_json: {error}"


def _may_be_rounded(value: Any, depth: int = 0) -> bool:
    """Whether a value holds a float that was perhaps an integer beyond 64 bits, which orjson rounds.

    Raises:
        RecursionError: If it is nested too deeply; a limit of our own does not depend on who calls.
    """
    if type(value) is float:
        return abs(value) >= 2.0**63
    if depth > MAX_DEPTH:
        raise RecursionError
    children = value.values() if type(value) is dict else value if type(value) is list else ()
    found = False
    for child in children:
        if type(child) in (float, dict, list):
            found |= _may_be_rounded(child, depth + 1)
    return found


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if isfinite(value) else None


def _no_text(record: dict[str, Any], name: str, found: Any) -> str:
    if found is not None:
        return f"wrong_type: {name!r} is {type(found).__name__}, expected a string"
    if name in record:
        return f"null_text: {name!r} is null"
    return f"missing_text: no {name!r} among {', '.join(sorted(record)[:10])}"


def as_string(value: Any) -> str | None:
    """A user's id or url as a string; numbers, lists and objects are written as JSON."""
    if value is None or isinstance(value, str):
        return value
    return dump(value) if isinstance(value, (int, float, list, dict)) else _plain(value)


def dump(value: Any) -> str:
    """Compact JSON; integers beyond 64 bits and dates included, bytes in base 64."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def field_getter(name: str) -> Callable[[Any], Any]:
    """A function that reads a field; a dot reaches into a nested object unless a field bears the whole name."""

    def get(record: Any) -> Any:
        if name in record:
            return record[name]
        place = record
        for part in name.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        return place

    if "." in name:
        return get
    return lambda record: record.get(name)


def _first_of(names: Sequence[str]) -> Callable[[Any], Any]:
    """A function that reads the first field that is there; nested ones cost nothing where their roots are absent."""
    plain = [name for name in names if "." not in name]
    nested = [field_getter(name) for name in names if "." in name]
    roots = {root for name in names if "." in name for root in (name, name.partition(".")[0])}

    def get(record: Any) -> Any:
        for name in plain:
            value = record.get(name)
            if value is not None:
                return value
        if roots.isdisjoint(record):
            return None
        return next((value for getter in nested if (value := getter(record)) is not None), None)

    return get

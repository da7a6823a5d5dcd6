"""WARC and WET archives: pages with main-text extraction from HTML, and text that was extracted already.

Responses, HTML resources and conversions are records of the corpus; what holds no page (an image, an error
status) is dropped by reason. Requests, revisits and metadata describe other records and are not counted.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecordType

from gristmill.pipelines.extract_html import Extractor
from gristmill.pipelines.http_body import decode_body
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import HEAD_BYTES, Block, Piece, Records, Reject, replace_surrogates
from gristmill.pipelines.streams import DamagedStream, compression_of, find_member, read_chunks

HTML_TYPES = ("text/html", "application/xhtml+xml")
VERSION = b"WARC/"
TAIL_BYTES = 1 << 16


class Page(NamedTuple):
    """A captured record: bytes of a page or of extracted text, or the reason why it holds neither."""

    offset: int
    url: str | None
    date: Any
    charset: str | None
    is_html: bool
    body: bytes
    dropped: str | None


class _ChunkStream:
    """The uncompressed bytes of a file as the forward-only stream FastWARC reads.

    Record positions are then uncompressed offsets, and damage is noticed, which FastWARC takes for the end.
    """

    def __init__(self, path: str, start: int) -> None:
        self._chunks = read_chunks(path, start)
        self._held = b""
        self._position = 0
        self._tail = b""

    def read(self, size: int = -1) -> bytes:
        if not self._held:
            self._held = next(self._chunks, b"")
            self._tail = (self._tail + self._held)[-TAIL_BYTES:]
        cut = size if size >= 0 else len(self._held)
        data, self._held = self._held[:cut], self._held[cut:]
        self._position += len(data)
        return data

    def cut_header(self) -> int | None:
        """Where the header of a record starts that the archive ends in, which FastWARC takes for the end."""
        rest = self._tail.rpartition(b"\r\n\r\n")[2]
        is_header = rest.startswith(VERSION) or (rest and VERSION.startswith(rest))
        return self._position - len(rest) if is_header else None

    def close(self) -> None:
        self._chunks.close()

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        if (whence, offset) not in ((1, 0), (0, self._position)):
            raise OSError("an archive is read forwards only")
        return self._position


def read_blocks(piece: Piece, *, block_bytes: int, max_document_bytes: int) -> Iterator[Block]:
    """Cut an archive into blocks of captured records.

    Damage becomes one reject with the bytes lost; where every record is a gzip member of its own, as archives should
    be made, reading goes on with the next member.

    Args:
        piece: A whole archive.
        block_bytes: A block ends with the record that reaches this size.
        max_document_bytes: Body bytes, decoded, above which a record is a reject.
    """
    pages: list[Page] = []
    rejects: list[Reject] = []
    num_bytes = base = 0
    start: int | None = 0

    def cut() -> Block:
        nonlocal num_bytes
        block = Block(piece, pages[0].offset if pages else 0, list(pages), num_bytes, list(rejects))
        pages.clear()
        rejects.clear()
        num_bytes = 0
        return block

    while start is not None:
        try:
            for page in _read_pages(piece, start, base, max_document_bytes):
                if isinstance(page, Reject):
                    rejects.append(page)
                else:
                    pages.append(page)
                    num_bytes += len(page.body)
                if num_bytes >= block_bytes:
                    yield cut()
            start = None
        except DamagedStream as damage:
            base += damage.offset
            is_gzip = compression_of(piece.path) == "gzip"
            start = find_member(piece.path, damage.member + 1, VERSION) if is_gzip else None
            num_lost = damage.num_lost if start is None else start - damage.member
            reason = f"damaged_stream: {damage.cause}; lost {num_lost} compressed bytes"
            rejects.append(Reject(piece.path, str(base), reason, b""))
    if pages or rejects:
        yield cut()


def _read_pages(piece: Piece, start: int, base: int, max_document_bytes: int) -> Iterator[Page | Reject]:
    """Captured records from a byte of the file on, whose uncompressed offset is `base`."""
    stream = _ChunkStream(piece.path, start)
    kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
    offset = base
    try:
        for record in ArchiveIterator(stream, record_types=kinds, auto_decode="none"):
            offset = base + record.stream_pos
            page = _capture(record, offset, max_document_bytes)
            if isinstance(page, Page):
                yield page
            else:
                url = (_url(record) or "").encode("utf-8", "replace")
                yield Reject(piece.path, str(offset), page, url[:HEAD_BYTES])
    except OSError as error:
        yield Reject(piece.path, str(offset), f"damaged_archive: {error} after the record here", b"")
        return
    if (cut := stream.cut_header()) is not None:
        yield Reject(piece.path, str(base + cut), "truncated_record: the archive ends inside its header", b"")


def _url(record: Any) -> str | None:
    url = record.headers.get("WARC-Target-URI")
    return replace_surrogates(url.strip("<>")) if url else None


def _capture(record: Any, offset: int, max_document_bytes: int) -> Page | str:
    """The record's page, or the reason why it cannot be read."""
    is_html = True
    dropped = None
    if record.record_type == WarcRecordType.conversion:
        is_html = False
    elif record.record_type == WarcRecordType.resource:
        content_type = (record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        dropped = None if content_type in HTML_TYPES else "not_html"
    elif record.http_headers is None:
        dropped = "not_http"
    elif record.http_headers.status_code != 200:
        dropped = "http_status"
    elif (record.http_content_type or "").lower() not in HTML_TYPES:
        dropped = "not_html"
    page = Page(offset, _url(record), record.record_date, record.http_charset, is_html, b"", dropped)
    if dropped:
        return page
    num_bytes = record.content_length
    body = record.reader.read(min(num_bytes, max_document_bytes + 1))
    if len(body) < min(num_bytes, max_document_bytes + 1):
        return f"truncated_record: {len(body)} of {num_bytes} bytes are there"
    if record.http_headers is not None:
        transfer, content = (
            record.http_headers.get(name) or "" for name in ("Transfer-Encoding", "Content-Encoding")
        )
        try:
            body = decode_body(body, transfer, content, max_bytes=max_document_bytes)
        except ValueError as error:
            return f"undecodable_body: {error}"
    if len(body) > max_document_bytes:
        return f"too_large: the decoded body is longer than max_document_bytes ({max_document_bytes})"
    return page._replace(body=body)


def parse_block(block: Block, fields: Input, *, max_document_bytes: int, extractor: Extractor) -> Records:
    """Captured records as documents: main text of HTML, the text of conversions as it is.

    A page whose extraction fails, hangs or crashes is a reject; a page without main text is an empty document,
    which selection drops by reason.
    """
    records = Records.of(block)
    pages: list[Page] = block.payload
    html = [page for page in pages if page.is_html and not page.dropped]
    results = iter(extractor.extract([(page.body, page.charset) for page in html]))
    records.num_in += len(pages)
    for page in pages:
        if page.dropped:
            records.dropped[page.dropped] += 1
            continue
        if page.is_html:
            result = next(results)
            if result.text is None:
                records.reject(page.offset, f"extraction_failed: {result.error}", page.body)
                continue
            text = result.text
        else:
            try:
                text = page.body.decode()
            except UnicodeDecodeError as error:
                records.reject(page.offset, f"invalid_utf8: {error.reason} at byte {error.start}", page.body)
                continue
        records.offsets.append(page.offset)
        records.texts.append(text)
        records.ids.append(page.url)
        records.sources.append(fields.source)
        records.urls.append(page.url)
        records.created.append(page.date)
        records.metadata.append(None)
        records.repaired.append(False)
    return records

"""Main text of HTML pages, and the process that shields a run from hostile ones.

Why resiliparse: on the 91 pages at hand of the article extraction benchmark (Scrapinghub 2020; F1 over
shingles of 4 words, precision and recall averaged over pages), one core, from bytes to text
(`tests/bench/bench_extraction.py`, one run; the machine's speed varies by a third):

    resiliparse 2.0.1, as here        F1 0.930  precision 0.881  recall 0.984  430 pages/s
    resiliparse, main_content alone   F1 0.896  precision 0.823  recall 0.983
    resiliparse, all text             F1 0.651  precision 0.485  recall 0.991
    trafilatura 2.3.1, fast           F1 0.955  precision 0.921  recall 0.991   63 pages/s
    trafilatura, default              F1 0.950  precision 0.913  recall 0.991   40 pages/s

Both lose as little text; trafilatura leaves out 4 points more boilerplate and takes 7 to 10 times as long.
A corpus of hundreds of millions of pages pays for that in machines, and line and quality rules remove
boilerplate later, so the speed wins. Nested `<div>`s cost resiliparse quadratic time (10,000 deep: 2 s;
100,000: minutes), which is one reason why pages are extracted in a process of their own.
"""

import codecs
import os
import re
import select
import signal
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

MAX_CONTROL_FRACTION = 0.05
"""Share of control and undecodable characters above which bytes are not a page: compressed data has 0.1."""
NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")

REQUEST = struct.Struct("<IIQ")
"""Milliseconds of processor time, bytes of the charset, bytes of the page; both follow."""
ANSWER = struct.Struct("<?Q")
"""Whether the page was extracted, bytes of the text or of the error; it follows."""
READY = b"ready\n"
WORKER = (sys.executable, "-m", "gristmill.pipelines.extract_worker")


def decode_html(html: bytes, charset_hint: str | None) -> str:
    """Decode a page as the HTML standard does, except that valid UTF-8 is UTF-8 whatever the page declares.

    In order: byte order mark, UTF-8 if every byte fits (text of another encoding practically never does;
    escape and NUL bytes point to 7-bit and 16-bit encodings), the HTTP charset, the `<meta>` charset,
    detection from the bytes. A declaration that does not fit the bytes is passed over.

    Args:
        html: The page.
        charset_hint: Charset of the HTTP header, None where there is none.

    Returns:
        The text; bytes that fit no encoding become U+FFFD.
    """
    if html.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return html.decode("utf-16", "replace")
    if b"\x1b" not in html and b"\0" not in html:
        try:
            return html.decode().removeprefix("\ufeff")
        except UnicodeDecodeError:
            pass
    declared = map_encoding_to_html5(charset_hint, fallback_utf8=False) if charset_hint else None
    for charset in (declared, detect_encoding(html, from_html_meta=True)):
        if charset is None:
            continue
        try:
            return html.decode(charset)
        except (UnicodeDecodeError, LookupError):
            continue
    return html.decode(detect_encoding(html) or "utf-8", "replace")


def extract_text(html: bytes, charset_hint: str | None = None) -> str:
    """Main text of a page: paragraphs, headings, lists, tables; no navigation, comments or image texts.

    Args:
        html: The page.
        charset_hint: Charset of the HTTP header, None where there is none.

    Returns:
        The text, empty where the page has none.

    Raises:
        ValueError: If the bytes are no text.
    """
    page = decode_html(html, charset_hint)
    head = page[:65536]
    num_controls = len(NOT_TEXT.findall(head))
    if num_controls > 16 and num_controls > MAX_CONTROL_FRACTION * len(head):
        raise ValueError("the bytes are no text")
    text: str = extract_plain_text(page, main_content=True, alt_texts=False, comments=False, post_meta=False)
    return text.strip()


class Extracted(NamedTuple):
    """Main text of a page, or the reason why there is none; the other is None."""

    text: str | None
    error: str | None


class Extractor:
    """Extracts pages in a child process, so that a hang or a crash costs one page and not the run.

    The child is a plain subprocess on two pipes: Beam's workers are daemons, which may not have
    `multiprocessing` children, and threaded, which must not fork. It lives as long as its pages behave and
    ends with its parent. The two copies of a page of 150 kB cost 0.4 ms of processor time, against 2 to 3 ms
    for its extraction. Not for use by several threads at once.

    Args:
        timeout_s: Processor time for one page. Waiting does not count, so a busy machine loses no page and
            the outcome does not depend on the load; ten times as much by the clock ends a child that sleeps.
        max_bytes: Longest page.
        worker: Command line of the child.
    """

    def __init__(
        self, *, timeout_s: float = 10.0, max_bytes: int = 16_000_000, worker: Sequence[str] = WORKER
    ) -> None:
        self.timeout_s = timeout_s
        self.max_bytes = max_bytes
        self._worker = worker
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize[[subprocess.Popen[bytes]], Extractor] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; a later page starts another."""
        if self._stop is not None:
            self._stop()
        self._process = self._stop = None

    def extract(self, pages: Iterable[tuple[bytes, str | None]]) -> list[Extracted]:
        """Extract pages in order.

        Args:
            pages: Bytes and HTTP charset of each page.

        Returns:
            One result a page. Errors start with `too_large`, `timeout`, `crash` or the name of an exception.

        Raises:
            RuntimeError: If no child can be started.
        """
        return [self._extract_page(html, charset) for html, charset in pages]

    def _extract_page(self, html: bytes, charset: str | None) -> Extracted:
        if len(html) > self.max_bytes:
            return Extracted(None, f"too_large: {len(html)} bytes, at most {self.max_bytes}")
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        hint = (charset or "").encode("utf-8", "replace")
        try:
            process.stdin.write(REQUEST.pack(round(self.timeout_s * 1000), len(hint), len(html)) + hint)
            process.stdin.write(html)
            process.stdin.flush()
            answered = select.poll()
            answered.register(process.stdout, select.POLLIN)
            if not answered.poll(10_000 * self.timeout_s):
                self.close()
                return Extracted(None, f"timeout: no answer within {10 * self.timeout_s:g} s")
            is_text, num_bytes = ANSWER.unpack(process.stdout.read(ANSWER.size))
            answer = process.stdout.read(num_bytes).decode()
        except (BrokenPipeError, struct.error):
            status = process.wait()
            self.close()
            if status == -signal.SIGPROF:
                return Extracted(None, f"timeout: more than {self.timeout_s:g} s of processor time")
            return Extracted(None, f"crash: exit status {status}")
        return Extracted(answer, None) if is_text else Extracted(None, answer)

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, sys.path))
        process = subprocess.Popen(
            self._worker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
            # Ctrl-C is for the run, which ends its children in order.
            start_new_session=True,
        )
        self._process = process
        self._stop = weakref.finalize(self, _stop, process)
        assert process.stdout is not None
        if process.stdout.read(len(READY)) != READY:
            self.close()
            raise RuntimeError(
                f"the extraction worker {list(self._worker)} did not start: see its error above"
            )
        return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:
            pass  # what the dead child left unread

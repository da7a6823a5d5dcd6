"""Main-text extraction: exact results on small pages, charsets, and what hostile pages may cost."""

import os
import signal
import sys

import pytest

from gristmill.pipelines.extract_html import WORKER, Extracted, Extractor, decode_html, extract_text

RUSSIAN = "Привет, мир! Это обычный русский текст о погоде и природе. " * 4
JAPANESE = "日本語のテキストです。今日は天気がいいですね。" * 4
FRENCH = "Où est passé l’été ? Déjà la rentrée, les élèves sont là. " * 4
PAGE = (
    "<html><head><title>Title</title><style>p {}</style></head><body>"
    "<nav><a href='/'>Home</a></nav><main><h1>Mills</h1><p>A mill grinds &amp; sifts.</p>"
    "<img alt='a mill'><script>var x = 1;</script></main><footer>Imprint</footer>"
    "</body></html>"
)


@pytest.fixture(scope="module")
def extractor():
    with Extractor() as extractor:
        yield extractor


def test_main_text_of_a_page():
    assert extract_text(PAGE.encode()) == "Mills\n\nA mill grinds & sifts."


@pytest.mark.parametrize("html", [b"", b" \n\t", b"<html></html>", b"<!-- only a comment -->"])
def test_a_page_without_text_is_empty(html):
    assert extract_text(html) == ""


@pytest.mark.parametrize(
    ("text", "encoding", "hint"),
    [
        (FRENCH, "utf-8", None),
        (FRENCH, "utf-8", "iso-8859-1"),
        (FRENCH, "utf-8-sig", None),
        (FRENCH, "utf-16", None),
        (FRENCH, "cp1252", None),
        (FRENCH, "cp1252", "latin1"),
        (FRENCH, "cp1252", "no-such-charset"),
        (FRENCH, "cp1252", "utf-8"),
        (RUSSIAN, "cp1251", None),
        (RUSSIAN, "koi8-r", None),
        (RUSSIAN, "koi8-r", "KOI8-R"),
        (JAPANESE, "shift_jis", None),
        (JAPANESE, "shift_jis", "x-sjis"),
        (JAPANESE, "euc-jp", None),
        (JAPANESE, "iso2022_jp", None),
        ("今天天气很好，我们去公园玩吧。" * 4, "gbk", None),
        ("今天天氣很好，我們去公園玩吧。" * 4, "big5", "big5"),
    ],
)
def test_charsets(text, encoding, hint):
    assert decode_html(text.encode(encoding), hint) == text


def test_the_meta_charset_counts_where_the_header_names_none():
    page = '<meta charset="iso-8859-2"><p>Žluť</p>'
    assert decode_html(page.encode("iso-8859-2"), None) == page


def test_a_few_broken_bytes_become_replacement_characters():
    assert decode_html(FRENCH.encode() + b"\xff", "utf-8") == FRENCH + "\ufffd"


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20])
def test_binary_is_refused(data):
    with pytest.raises(ValueError, match="no text"):
        extract_text(data)


def test_pages_come_back_in_order_with_their_errors(extractor):
    pages = [
        (PAGE.encode(), None),
        (bytes(range(256)) * 20, None),
        (b"", "utf-8"),
        (b"<p>last\0", "n\xff\ud800"),
    ]
    assert extractor.extract(pages) == [
        Extracted(extract_text(PAGE.encode()), None),
        Extracted(None, "ValueError: the bytes are no text"),
        Extracted("", None),
        Extracted("last", None),
    ]


def test_a_page_over_the_limit_is_not_sent(extractor):
    (result,) = Extractor(max_bytes=3).extract([(b"<p>x", None)])
    assert result == Extracted(None, "too_large: 4 bytes, at most 3")


def test_ten_thousand_nested_tags(extractor):
    (result,) = extractor.extract([(b"<b>" * 10_000 + b"deep", None)])
    assert result == Extracted("deep", None)


def test_a_huge_page(extractor):
    (result,) = extractor.extract([(b"<p>" + b"word " * 2_000_000, None)])
    assert result.text is not None
    assert len(result.text) == 9_999_999


def test_a_page_that_takes_too_long_costs_only_itself():
    """A hundred thousand nested divs take resiliparse minutes, without returning to Python."""
    hang = b"<div>" * 100_000 + b"x"
    with Extractor(timeout_s=0.3) as extractor:
        before, slow, after = extractor.extract([(b"<p>before", None), (hang, None), (b"<p>after", None)])
    assert (before.text, after.text) == ("before", "after")
    assert slow == Extracted(None, "timeout: more than 0.3 s of processor time")


WORKER_THAT = """
import os, signal, sys, time
from gristmill.pipelines import extract_worker

def extract_text(html, charset):
    if html == b"bad":
        {act}
    return html.decode()

extract_worker.extract_text = extract_text
with os.fdopen(0, "rb") as stdin, os.fdopen(1, "wb") as stdout:
    extract_worker.serve(stdin, stdout)
"""


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("time.sleep(60)", "timeout: no answer within 0.5 s"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", f"crash: exit status {-signal.SIGSEGV}"),
        ("os._exit(3)", "crash: exit status 3"),
        ("raise RecursionError('too deep')", "RecursionError: too deep"),
    ],
)
def test_a_worker_that_hangs_or_dies_costs_one_page(act, error):
    worker = [sys.executable, "-c", WORKER_THAT.format(act=act)]
    with Extractor(timeout_s=0.05, worker=worker) as extractor:
        results = extractor.extract([(b"one", None), (b"bad", None), (b"two", None)])
    assert results == [Extracted("one", None), Extracted(None, error), Extracted("two", None)]


def test_a_worker_killed_between_pages_costs_one_page_at_most(extractor):
    extractor.extract([(b"", None)])
    os.kill(extractor._process.pid, signal.SIGKILL)
    extractor.extract([(b"<p>lost at most", None)])
    assert extractor.extract([(b"<p>back", None)]) == [Extracted("back", None)]


def test_a_worker_that_does_not_start_is_an_error_of_the_run(capfd):
    extractor = Extractor(worker=[sys.executable, "-c", "raise SystemExit('no library')"])
    with pytest.raises(RuntimeError, match="did not start"):
        extractor.extract([(b"<p>x", None)])
    assert "no library" in capfd.readouterr().err


def test_the_worker_loads_no_beam():
    script = (
        f"import sys, {WORKER[-1]}; sys.exit(any(name in sys.modules for name in ('apache_beam', 'pyarrow')))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert os.spawnvpe(os.P_WAIT, sys.executable, [sys.executable, "-c", script], environment) == 0

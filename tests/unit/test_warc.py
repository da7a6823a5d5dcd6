"""WARC and WET: what becomes a document, what is dropped or rejected and why, and damage that costs only itself."""

import gzip
import zlib
from datetime import UTC, datetime
from functools import partial

import brotli
import pytest
from backports import zstd
from corpora import gzip_members, html, http, warc_record

from gristmill.pipelines import warc
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import Piece, parse_created, to_documents, to_text_free

FIELDS = Input(path="a", source="web")
MAX = 1 << 20
INFO = warc_record("warcinfo", None, b"software: test\r\n", content_type="application/warc-fields")


@pytest.fixture
def read(tmp_path, extractor):
    """A function: bytes of an archive, or a file -> parsed records of its blocks."""

    def read(content, *, name="a.warc.gz", block_bytes=MAX, max_document_bytes=MAX):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path = content
        limits = {"max_document_bytes": max_document_bytes}
        blocks = warc.read_blocks(Piece(str(path), path.name), block_bytes=block_bytes, **limits)
        return [warc.parse_block(block, FIELDS, extractor=extractor, **limits) for block in blocks]

    return read


def joined(parsed, name):
    return [value for records in parsed for value in getattr(records, name)]


def reasons(parsed):
    return [reject.reason for reject in joined(parsed, "rejects")]


def page(number, body=None, **headers):
    return warc_record(
        "response", f"http://h{number}.example/", http(body or html(f"Page {number}."), **headers)
    )


PAGES = [page(n) for n in range(5)]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "one-member.warc.gz"])
def test_pages_of_every_container(read, name):
    content = {
        "a.warc": b"".join([INFO, *PAGES]),
        "a.warc.gz": gzip_members(INFO, *PAGES),
        "one-member.warc.gz": gzip.compress(b"".join([INFO, *PAGES])),
    }[name]
    (records,) = read(content, name=name)
    assert records.texts == [f"Page {n}." for n in range(5)]
    assert records.urls == records.ids == [f"http://h{n}.example/" for n in range(5)]
    assert records.created == [datetime(2021, 2, 3, 4, 5, 6, tzinfo=UTC)] * 5
    starts = [len(INFO) + sum(map(len, PAGES[:n])) for n in range(5)]
    assert records.offsets == starts
    assert (records.num_in, records.rejects, dict(records.dropped)) == (5, [], {})


def test_blocks_end_with_the_record_that_fills_them(read):
    parsed = read(gzip_members(*PAGES), block_bytes=2 * len(html("Page 1.")))
    assert [records.texts for records in parsed] == [
        ["Page 0.", "Page 1."],
        ["Page 2.", "Page 3."],
        ["Page 4."],
    ]


def test_dates_and_hosts_become_columns(read):
    url = "http://user@Example.COM:81/x"
    parsed = read(gzip_members(warc_record(url=url, body=http(html("x")), date="2013-05-18T05:11:00.5Z")))
    rows = to_text_free(*to_documents(parsed[0], "web"), "part").to_pylist()
    assert (rows[0]["url"], rows[0]["host"], rows[0]["year"]) == (url, "example.com", 2013)


def test_urls_in_angle_brackets_and_without(read):
    parsed = read(gzip_members(warc_record(url="<http://a.b/c>", body=http(html("x"))), page(1)))
    assert joined(parsed, "urls") == ["http://a.b/c", "http://h1.example/"]


def test_a_record_without_url_or_date(read):
    parsed = read(gzip_members(warc_record(url=None, date=None, body=http(html("x")))))
    assert (joined(parsed, "texts"), joined(parsed, "urls"), joined(parsed, "ids")) == (["x"], [None], [None])
    assert parse_created(parsed[0].created[0]) is None


def test_a_url_that_is_not_unicode(read):
    parsed = read(gzip_members(warc_record(url="http://a.b/\udcff", body=http(html("x"))), page(1)))
    assert joined(parsed, "texts") == ["x", "Page 1."]
    rows = to_documents(parsed[0], "web")[0].to_pylist()
    assert rows[0]["url"].startswith("http://a.b/")
    bad = warc_record(url="http://a.b/\udcff", body=http(b"\x1f\x8b" + bytes(20), Content_Encoding="gzip"))
    assert [reason.partition(":")[0] for reason in reasons(read(gzip_members(bad)))] == ["undecodable_body"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (page(1, status="404 Not Found"), "http_status"),
        (page(1, status="301 Moved", Location="/x"), "http_status"),
        (page(1, status="206 Partial Content"), "http_status"),
        (page(1, status="OK"), "http_status"),
        (page(1, Content_Type="image/png"), "not_html"),
        (page(1, Content_Type="application/pdf"), "not_html"),
        (page(1, Content_Type="text/plain"), "not_html"),
        (page(1, Content_Type=None), "not_html"),
        (
            warc_record("response", "dns:example.com", b"20210203 1.2.3.4", content_type="text/dns"),
            "not_http",
        ),
        (warc_record("resource", body=b"\x89PNG", content_type="image/png"), "not_html"),
        (warc_record("resource", body=b"{}", content_type="application/json"), "not_html"),
    ],
)
def test_records_that_hold_no_page_are_dropped_by_reason(read, record, reason):
    parsed = read(gzip_members(PAGES[0], record, PAGES[1]))
    assert joined(parsed, "texts") == ["Page 0.", "Page 1."]
    assert sum((records.dropped for records in parsed), start=parsed[0].dropped.__class__()) == {reason: 1}
    assert sum(records.num_in for records in parsed) == 3
    assert reasons(parsed) == []


@pytest.mark.parametrize("kind", ["warcinfo", "request", "metadata", "revisit", "continuation", "unheard-of"])
def test_records_about_other_records_do_not_count(read, kind):
    record = warc_record(
        kind, "http://x/", http(html("not a page")), content_type="application/http; msgtype=request"
    )
    (records,) = read(gzip_members(record, PAGES[0], record))
    assert (records.texts, records.num_in, dict(records.dropped)) == (["Page 0."], 1, {})


@pytest.mark.parametrize(
    "content_type", ["TEXT/HTML", "text/html;charset=x", " text/html ", "application/xhtml+xml"]
)
def test_content_types_are_read_as_the_standard_says(read, content_type):
    parsed = read(gzip_members(page(1, Content_Type=content_type)))
    assert joined(parsed, "texts") == ["Page 1."]
    parsed = read(gzip_members(warc_record("resource", body=html("y"), content_type=content_type.strip())))
    assert joined(parsed, "texts") == ["y"]


def test_the_charset_of_the_header_is_used(read):
    body = html("Où est passé l'été ? Déjà la rentrée.").decode().encode("latin-1")
    parsed = read(gzip_members(page(1, body, Content_Type="text/html; charset=ISO-8859-1")))
    assert joined(parsed, "texts") == ["Où est passé l'été ? Déjà la rentrée."]


def test_encoded_bodies(read):
    body = html("Text.")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    records = [
        page(0, gzip.compress(body), Content_Encoding="gzip"),
        page(1, chunks, Transfer_Encoding="chunked"),
        page(2, body, Content_Encoding="gzip", Transfer_Encoding="chunked"),
        page(3, body, Content_Encoding="br"),
    ]
    parsed = read(gzip_members(*records))
    assert joined(parsed, "texts") == ["Text."] * 4
    assert reasons(parsed) == []


def test_conversions_are_text_as_it_is(read):
    text = "Überschrift\n\n  indented\u2028line \U0001f600\n"
    (records,) = read(
        gzip_members(
            INFO,
            warc_record("conversion", "http://a/", text.encode()),
            warc_record("conversion", "http://b/", b"\xff\xfe"),
            warc_record("conversion", "http://c/", b""),
        ),
        name="a.wet.gz",
    )
    assert (records.texts, records.urls, records.num_in) == ([text, ""], ["http://a/", "http://c/"], 3)
    assert [r.reason for r in records.rejects] == ["invalid_utf8: invalid start byte at byte 0"]


def test_a_page_without_text_is_an_empty_document(read):
    assert joined(read(gzip_members(page(1, b"<html></html>"))), "texts") == [""]


def test_a_page_that_is_no_text_is_a_reject(read):
    parsed = read(gzip_members(PAGES[0], page(1, bytes(range(1, 9)) * 500), PAGES[2]))
    assert joined(parsed, "texts") == ["Page 0.", "Page 2."]
    assert reasons(parsed) == ["extraction_failed: ValueError: the bytes are no text"]
    (reject,) = joined(parsed, "rejects")
    assert (reject.location, reject.head) == (str(len(PAGES[0])), (bytes(range(1, 9)) * 25))


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate", "br", "zstd"])
def test_a_bomb_inside_a_record_costs_only_itself(read, encoding):
    encode = {
        None: bytes,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": partial(brotli.compress, quality=4),
        "zstd": zstd.compress,
    }[encoding]
    bomb = page(1, encode(bytes(20 << 20)), Content_Encoding=encoding)
    parsed = read(gzip_members(PAGES[0], bomb, PAGES[2]))
    assert joined(parsed, "texts") == ["Page 0.", "Page 2."]
    assert reasons(parsed) == [f"too_large: the decoded body is longer than max_document_bytes ({MAX})"]
    assert sum(records.num_in for records in parsed) == 3


@pytest.mark.parametrize("kind", ["plain", "members", "one member"])
def test_a_record_cut_short_is_named_and_costs_no_other(read, kind):
    long = warc_record("response", "http://long/", http(html("Long.")), length=5000)
    content = {
        "plain": b"".join([*PAGES[:2], long]),
        "members": gzip_members(*PAGES[:2], long),
        "one member": gzip.compress(b"".join([*PAGES[:2], long])),
    }[kind]
    parsed = read(content, name="a.warc" if kind == "plain" else "a.warc.gz")
    assert joined(parsed, "texts") == ["Page 0.", "Page 1."]
    (reject,) = joined(parsed, "rejects")
    assert reject.reason.startswith("truncated_record: ")
    assert reject.location == str(sum(map(len, PAGES[:2])))
    assert reject.head == b"http://long/"


@pytest.mark.parametrize("kind", ["members", "one member"])
@pytest.mark.parametrize("cut", [1, 5, 9, 40, 100])
def test_a_truncated_archive_keeps_every_whole_record(read, kind, cut):
    content = gzip_members(*PAGES) if kind == "members" else gzip.compress(b"".join(PAGES))
    parsed = read(content[:-cut])
    texts = joined(parsed, "texts")
    assert texts == [f"Page {n}." for n in range(len(texts))]
    assert len(texts) >= (4 if kind == "members" else 3 if cut <= 9 else 0)
    rejects = joined(parsed, "rejects")
    assert [r.reason for r in rejects] == [
        "damaged_stream: the stream ends inside a member; lost 0 compressed bytes"
    ]
    assert sum(records.num_in for records in parsed) == len(texts) + 1


def test_a_truncated_plain_archive(read):
    """A record is never lost without a word; cut inside its HTTP headers it holds no page."""
    whole = b"".join(PAGES)
    start = sum(map(len, PAGES[:4]))
    for length in range(start + 1, len(whole) - 4, 3):
        parsed = read(whole[:length], name="a.warc")
        assert joined(parsed, "texts") == [f"Page {n}." for n in range(4)]
        found = [reject.reason.partition(":")[0] for reject in joined(parsed, "rejects")]
        found += [reason for records in parsed for reason in records.dropped]
        assert found, length
        assert set(found) <= {"truncated_record", "damaged_archive", "not_html", "http_status", "not_http"}


@pytest.mark.parametrize("damage", ["header", "middle", "checksum", "all"])
def test_a_damaged_member_costs_no_other(read, damage):
    members = [gzip_members(record) for record in PAGES]
    broken = bytearray(members[2])
    places = {
        "header": range(4),
        "middle": range(30, 60),
        "checksum": range(len(broken) - 8, len(broken) - 4),
        "all": range(len(broken)),
    }[damage]
    for place in places:
        broken[place] ^= 0xFF
    parsed = read(b"".join([*members[:2], bytes(broken), *members[3:]]))
    texts = joined(parsed, "texts")
    assert [text for text in texts if text != "Page 2."] == ["Page 0.", "Page 1.", "Page 3.", "Page 4."]
    (reject,) = joined(parsed, "rejects")
    assert reject.reason.startswith("damaged_stream: ")
    assert f"; lost {len(broken)} compressed bytes" in reject.reason
    assert len(set(joined(parsed, "offsets"))) == len(texts)


def test_several_damaged_members(read):
    members = [gzip_members(record) for record in PAGES]
    broken = members[1][:40] + b"\0" * 40 + members[1][80:]
    parsed = read(b"".join([members[0], broken, members[2], broken, members[3], broken]))
    assert joined(parsed, "texts") == ["Page 0.", "Page 2.", "Page 3."]
    assert [reason.partition(":")[0] for reason in reasons(parsed)] == ["damaged_stream"] * 3
    assert len(set(joined(parsed, "offsets"))) == 3


@pytest.mark.parametrize("garbage", [b"<html>no archive</html>\r\n" * 10, b"\r\n" * 3, b"WARC/9.9\r\n\r\n"])
def test_garbage_between_records(read, garbage):
    for content, name in (
        (PAGES[0] + garbage + b"".join(PAGES[1:]), "a.warc"),
        (gzip_members(PAGES[0], garbage, *PAGES[1:]), "a.warc.gz"),
    ):
        parsed = read(content, name=name)
        texts = joined(parsed, "texts")
        assert texts[0] == "Page 0."
        assert texts == [f"Page {n}." for n in range(5)] or len(reasons(parsed)) == 1


@pytest.mark.parametrize(
    "content", [b"<html></html>", b"\x89PNG" * 100, b"WARC/1.0", b"WARC/1.0\r\nWARC-Type: response"]
)
@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.wet.gz"])
def test_no_archive_at_all_is_one_reject(read, content, name):
    parsed = read(gzip.compress(content) if name.endswith("gz") else content, name=name)
    assert joined(parsed, "texts") == []
    assert len(reasons(parsed)) == 1


def test_an_archive_in_lz4(read, shared_data):
    """FastWARC undoes it, where `format: warc` says that it is an archive."""
    path = shared_data / "raw/chatnoir-eu+chatnoir-resiliparse__tests__data__warcfile.warc"
    parsed, same = read(path.with_suffix(".warc.lz4")), read(path.with_suffix(".warc.gz"))
    assert joined(parsed, "texts") == joined(same, "texts")
    assert len(set(joined(parsed, "offsets"))) == len(joined(parsed, "texts")) > 10


@pytest.mark.parametrize(
    ("name", "num_documents", "num_in", "reasons_found"),
    [
        ("allenai+dolma__tests__data__warc__sample-0000.warc.gz", None, None, []),
        ("allenai+dolma__tests__data__warc__sample-0001.warc.gz", None, None, []),
        ("commoncrawl+whirlwind-python__whirlwind.warc.gz", 1, 1, []),
        ("commoncrawl+whirlwind-python__whirlwind.warc.wet.gz", 1, 1, []),
        ("iipc+jwarc__test-resources__org__netpreserve__jwarc__cc.warc.gz", 1, 1, []),
        ("webrecorder+warcio__test__data__example.warc.gz", None, None, []),
        ("webrecorder+warcio__test__data__example-iana.org-chunked.warc", None, None, []),
        ("webrecorder+pywb__sample_archive__warcs__iana.warc.gz", None, None, []),
        ("webrecorder+warcio__test__data__example-trunc.warc", None, None, None),
        ("webrecorder+warcio__test__data__example-bad-non-chunked.warc.gz", None, None, None),
        ("chatnoir-eu+chatnoir-resiliparse__tests__data__clipped.warc.gz", None, None, None),
        ("webrecorder+warcio__test__data__example.arc.gz", 0, 1, None),
    ],
)
def test_real_archives(read, shared_data, name, num_documents, num_in, reasons_found):
    parsed = read(shared_data / "raw" / name, max_document_bytes=32 << 20)
    total = sum(records.num_in for records in parsed)
    dropped = sum(records.dropped.total() for records in parsed)
    texts = joined(parsed, "texts")
    assert total == len(texts) + dropped + len(reasons(parsed))
    if num_documents is not None:
        assert (len(texts), total) == (num_documents, num_in)
    if reasons_found is not None:
        assert reasons(parsed) == reasons_found

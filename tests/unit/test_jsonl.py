"""JSON lines: what ends a line, what a record may hold, what is rejected where, and byte ranges that lose nothing."""

import bz2
import gzip
import json
import lzma
import re
from itertools import pairwise

import orjson
import pytest
from backports import zstd
from corpora import write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.pipelines import jsonl, streams
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import Piece

MAX = 1 << 20
FIELDS = Input(path="a", source="web")


def read(path, *, start=0, end=None, block_bytes=MAX, max_document_bytes=MAX, **fields):
    """Parsed records of a piece, block by block."""
    piece = Piece(str(path), "a.jsonl", start, end)
    limits = {"max_document_bytes": max_document_bytes}
    return [
        jsonl.parse_block(block, FIELDS.model_copy(update=fields), **limits)
        for block in jsonl.read_blocks(piece, block_bytes=block_bytes, **limits)
    ]


def parse(tmp_path, *lines, **options):
    """The records of one block."""
    path = write_lines(tmp_path / "a.jsonl", *lines)
    (records,) = read(path, **options)
    return records


def reasons(records):
    return [reject.reason for reject in records.rejects]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\r", "\x0b", "\x0c", "\x1c", "\x00"])
def test_only_a_newline_ends_a_line(tmp_path, inside):
    text = f"one{inside}two"
    raw = orjson.dumps({"text": text})
    records = parse(tmp_path, raw, "three")
    assert records.texts == [text, "three"]
    assert records.offsets == [0, len(raw) + 1]
    assert records.num_in == 2


def test_a_bare_carriage_return_inside_a_string_is_not_json(tmp_path):
    records = parse(tmp_path, b'{"text": "one\rtwo"}', "three")
    assert records.texts == ["three"]
    assert reasons(records)[0].startswith("broken_json: ")


def test_crlf_blank_lines_and_a_missing_last_newline(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"text":"a"}\r\n\r\n  \t\n{"text":"b"}')
    (records,) = read(path)
    assert (records.texts, records.offsets, records.num_in) == (["a", "b"], [1, 21], 2)
    assert records.rejects == []


def test_a_byte_order_mark_counts_in_the_offsets(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a"}\n{"text":"b"}\n')
    (records,) = read(path)
    assert (records.texts, records.offsets) == (["a", "b"], [0, 16])


def test_a_byte_order_mark_elsewhere_is_broken(tmp_path):
    records = parse(tmp_path, "a", b'\xef\xbb\xbf{"text":"b"}')
    assert (records.texts, len(records.rejects)) == (["a"], 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "broken_json"),
        (b'{"text": "a"} {"text": "b"}', "broken_json"),
        (b"{'text': 'a'}", "broken_json"),
        (b"}", "broken_json"),
        (b'{"text": "a",}', "broken_json"),
        (b'{"text": "\xff"}', "invalid_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"text": "a", "n": "\xc3"}', "invalid_utf8"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b"NaN", "not_an_object"),
        (b'{"body": "a"}', "missing_text"),
        (b"{}", "missing_text"),
        (b'{"text": null}', "null_text"),
        (b'{"text": NaN}', "null_text"),
        (b'{"text": 5}', "wrong_type"),
        (b'{"text": true}', "wrong_type"),
        (b'{"text": ["a"]}', "wrong_type"),
        (b'{"text": {"text": "a"}}', "wrong_type"),
        (b"[" * 100_000, "too_deep"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "broken_json"),
    ],
)
def test_rejects(tmp_path, line, reason):
    """A reject has its place, its reason and its first bytes, and costs no other record."""
    records = parse(tmp_path, "before", line, "after")
    assert records.texts == ["before", "after"]
    (reject,) = records.rejects
    assert reject.reason.startswith(f"{reason}: ")
    assert reject.location == str(len(b'{"text": "before"}\n'))
    assert reject.head == line[:200]
    assert records.num_in == 3


def test_reasons_say_what_was_found(tmp_path):
    records = parse(tmp_path, b'{"b": 1, "a": 2}', b'{"text": 5}', b"[]", b'{"text": "\xff"}')
    assert reasons(records) == [
        "missing_text: no 'text' among a, b",
        "wrong_type: 'text' is int, expected a string",
        "not_an_object: found list",
        "invalid_utf8: invalid start byte at byte 10 of the line",
    ]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"a\udc00b"', "a\ufffdb"),
        (rb'"\ud800\ud800\udc00"', "\ufffd\U00010000"),
        (rb'"\udc00\ud800"', "\ufffd\ufffd"),
        (rb'"\ud83d\ude00 and \ud83d"', "\U0001f600 and \ufffd"),
        (rb'"\\ud800 \ud800"', "\\ud800 \ufffd"),
    ],
)
def test_lone_surrogates_become_replacement_characters(tmp_path, raw, text):
    records = parse(
        tmp_path, b'{"text": ' + raw + b', "id": ' + raw + b', "m": {"k": [' + raw + b"]}}", "after"
    )
    assert records.texts == [text, "after"]
    assert records.ids == [text, None]
    assert json.loads(records.metadata[0]) == {"m": {"k": [text]}}
    assert records.repaired == [True, False]


@given(st.text(st.characters(codec=None, categories=("L", "Cs", "P")), max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_surrogates(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "surrogates.jsonl"
    path.write_bytes(json.dumps({"text": text}).encode() + b"\n")
    (records,) = read(path)
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert records.texts == [joined]
    assert len(joined) == len(re.sub("[\ud800-\udbff][\udc00-\udfff]", "x", text))
    assert records.repaired == [joined.count("\ufffd") > text.count("\ufffd")]


def test_nan_and_infinity_become_null(tmp_path):
    line = b'{"text": "a", "x": NaN, "y": [Infinity, -Infinity, 1e999], "z": 1.5}'
    records = parse(tmp_path, line)
    assert json.loads(records.metadata[0]) == {"x": None, "y": [None, None, None], "z": 1.5}
    assert records.repaired == [False]


@pytest.mark.parametrize(
    "number",
    [
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        123456789012345678901234567890,
        -(10**40),
    ],
)
def test_integers_keep_every_digit(tmp_path, number):
    line = {"text": "a", "id": number, "url": number, "deep": {"list": [number, {"n": number}]}, "x": 0.25}
    records = parse(tmp_path, line)
    assert records.ids == [str(number)]
    assert records.urls == [str(number)]
    assert json.loads(records.metadata[0]) == {"deep": {"list": [number, {"n": number}]}, "x": 0.25}
    assert records.repaired == [False]


def test_metadata_is_kept_exactly(tmp_path):
    rest = {
        "zeta": 1,
        "alpha": [1, 2.5, None, True, {"é": "\u2028"}],
        "empty": {},
        "nothing": None,
        "": "no name",
        "big": 1e300,
        "Unicode": "\U0001f600",
    }
    records = parse(tmp_path, {"text": "a", "id": "x", **rest}, {"id": "y", "text": "b"})
    assert json.loads(records.metadata[0]) == rest
    assert list(json.loads(records.metadata[0])) == list(rest)
    assert records.metadata[1] is None


@pytest.mark.parametrize("depth", [1, 150, 199])
def test_nested_metadata_is_kept(tmp_path, depth):
    line = b'{"text": "a", "n": ' + b"[" * depth + b"]" * depth + b"}"
    records = parse(tmp_path, line)
    assert records.rejects == []
    assert records.metadata == [(b'{"n":' + b"[" * depth + b"]" * depth + b"}").decode()]


@pytest.mark.parametrize("depth", [201, 300, 990, 1100, 50_000])
@pytest.mark.parametrize("tail", [b"1", b'"\\ud800"', b"NaN"])
def test_deeper_nesting_is_a_reject_however_deep_the_stack(tmp_path, depth, tail):
    line = b'{"text": "a", "n": ' + b"[" * depth + tail + b"]" * depth + b"}"
    records = parse(tmp_path, line, "after")
    assert reasons(records) == ["too_deep: nested more than 200 levels"]
    assert records.texts == ["after"]


def test_named_and_usual_fields(tmp_path):
    line = {
        "body": {"main": "a"},
        "key": 7,
        "metadata": {"WARC-Target-URI": "http://x/", "WARC-Date": "2020-01-01"},
        "from": "books",
    }
    records = parse(tmp_path, line, text="body.main", id="key", source_field="from")
    assert (records.texts, records.ids, records.sources) == (["a"], ["7"], ["books"])
    assert (records.urls, records.created) == (["http://x/"], ["2020-01-01"])
    assert json.loads(records.metadata[0]) == {"body": {"main": "a"}, "metadata": line["metadata"]}


def test_named_fields_win_over_usual_ones(tmp_path):
    line = {"text": "a", "url": "http://other/", "link": "http://x/", "date": "2001", "seen": "2002"}
    records = parse(tmp_path, line, url="link", created="seen")
    assert (records.urls, records.created) == (["http://x/"], ["2002"])
    assert json.loads(records.metadata[0]) == {"url": "http://other/", "date": "2001", "seen": "2002"}


def test_a_field_with_a_dot_in_its_name_wins_over_nesting(tmp_path):
    records = parse(
        tmp_path, {"a.b": "flat", "a": {"b": "nested"}}, {"a": {"b": "nested"}}, {"a": "x"}, text="a.b"
    )
    assert records.texts == ["flat", "nested"]
    assert reasons(records) == ["missing_text: no 'a.b' among a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (5, "5"),
        (None, None),
        (1.5, "1.5"),
        (True, "true"),
        ([1], "[1]"),
        ({"a": 1}, '{"a":1}'),
        ("", ""),
    ],
)
def test_ids_of_any_type_become_strings(tmp_path, value, expected):
    records = parse(tmp_path, {"text": "a", "id": value, "origin": value}, source_field="origin")
    assert records.ids == [expected]
    assert records.sources == [expected or "web"]


def test_a_line_over_the_limit_is_rejected_without_being_held(tmp_path, monkeypatch):
    sizes = []
    chunks = jsonl.read_chunks

    def watched(*arguments):
        for chunk in chunks(*arguments):
            sizes.append(len(chunk))
            yield chunk

    monkeypatch.setattr(jsonl, "read_chunks", watched)
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(30):
            file.write(b"x" * MAX)
        file.write(b'"}\n{"text": "after"}\n')
    blocks = list(jsonl.read_blocks(Piece(str(path), "a"), block_bytes=2 * MAX, max_document_bytes=3 * MAX))
    assert max(block.num_bytes for block in blocks) < 3 * MAX
    parsed = [jsonl.parse_block(block, FIELDS, max_document_bytes=3 * MAX) for block in blocks]
    assert [text for records in parsed for text in records.texts] == ["before", "after"]
    assert [offset for records in parsed for offset in records.offsets] == [0, 19 + 10 + 30 * MAX + 3]
    ((reject,),) = (records.rejects for records in parsed if records.rejects)
    assert reject.reason == f"too_large: the record is longer than max_document_bytes ({3 * MAX})"
    assert (reject.location, len(reject.head)) == ("19", 200)
    assert sum(records.num_in for records in parsed) == 3


@pytest.mark.parametrize("size", [-1, 0, 1])
@pytest.mark.parametrize("block_bytes", [1, 10, 1000])
def test_the_limit_is_the_same_for_any_block_size(tmp_path, size, block_bytes):
    line = b'{"text": "a", "x": 1}'
    parsed = read(
        write_lines(tmp_path / "a.jsonl", line, "b"),
        block_bytes=block_bytes,
        max_document_bytes=len(line) + size,
    )
    texts = [text for records in parsed for text in records.texts]
    assert texts == (["b"] if size < 0 else ["a", "b"])


COMPRESS = {"gz": gzip.compress, "zst": zstd.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_truncated_stream_is_one_reject_and_loses_no_whole_line(tmp_path, suffix):
    lines = [orjson.dumps({"text": f"document {n * n}"}) for n in range(3000)]
    content = COMPRESS[suffix](b"\n".join(lines))
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    parsed = read(path)
    texts = [text for records in parsed for text in records.texts]
    assert texts == [f"document {n * n}" for n in range(len(texts))]
    rejects = [reject for records in parsed for reject in records.rejects]
    offset = sum(len(line) + 1 for line in lines[: len(texts)])
    (reject,) = rejects
    assert reject.location == str(offset)
    assert re.fullmatch(
        r"damaged_stream: the stream ends inside a member; lost 0 compressed bytes and \d+ read ones",
        reject.reason,
    )
    assert lines[len(texts)].startswith(reject.head[:10])
    assert sum(records.num_in for records in parsed) == len(texts) + 1


def test_the_last_line_counts_though_the_stream_is_damaged_after_it(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}') + b"garbage after it")
    (records,) = read(path)
    assert records.texts == ["a", "b"]
    assert reasons(records) == [
        "damaged_stream: Error -3 while decompressing data: incorrect header check; "
        "lost 16 compressed bytes and 0 read ones"
    ]


LINE = st.one_of(
    st.text(max_size=30).map(lambda text: orjson.dumps({"text": text})),
    st.builds(lambda n, text: orjson.dumps({"id": n, "text": text}), st.integers(0, 9), st.text(max_size=3)),
    st.sampled_from([b"", b" ", b"\r", b"{", b"\xff", b'{"text":1}', b"\xef\xbb\xbf", b"x" * 60]),
)


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(LINE, max_size=12),
    ends=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    mark=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    block_bytes=st.integers(1, 200),
    chunk_bytes=st.integers(1, 60),
    max_document_bytes=st.sampled_from([20, 59, 60, 1000]),
)
def test_any_byte_ranges_and_blocks_read_every_record_once(
    tmp_path_factory, lines, ends, last, mark, cuts, block_bytes, chunk_bytes, max_document_bytes
):
    content = (b"\xef\xbb\xbf" if mark else b"") + ends.join(lines) + (ends if last else b"")
    path = tmp_path_factory.getbasetemp() / "ranges.jsonl"
    path.write_bytes(content)
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    ranges = list(pairwise(places)) or [(0, 0)]
    before, streams.CHUNK_BYTES = streams.CHUNK_BYTES, chunk_bytes
    try:
        pieces = [
            record
            for start, end in ranges
            for record in read(
                path, start=start, end=end, block_bytes=block_bytes, max_document_bytes=max_document_bytes
            )
        ]
    finally:
        streams.CHUNK_BYTES = before
    whole = read(path, max_document_bytes=max_document_bytes)
    assert documents(pieces) == documents(whole)
    assert rejects(pieces) == rejects(whole)
    assert sum(r.num_in for r in pieces) == sum(r.num_in for r in whole)


def documents(parsed):
    return [
        row for r in parsed for row in zip(r.offsets, r.texts, r.ids, r.metadata, r.repaired, strict=True)
    ]


def rejects(parsed):
    return sorted((int(x.location), x.reason, x.head[:20]) for r in parsed for x in r.rejects)


def test_ranges_of_a_real_file(shared_data):
    path = shared_data / "raw/modelscope+data-juicer__demos__process_sci_data__data__arxiv.jsonl"
    size = path.stat().st_size
    whole = documents(read(path))
    assert len(whole) > 10
    for count in (2, 7, 100):
        places = [size * n // count for n in range(count + 1)]
        parts = [r for start, end in pairwise(places) for r in read(path, start=start, end=end)]
        assert documents(parts) == whole

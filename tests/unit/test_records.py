"""Rows made from parsed records: ids, dates, hosts, sizes."""

import uuid
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.pipelines.records import (
    Piece,
    Records,
    Reject,
    doc_ids,
    hosts,
    parse_created,
    rejects_table,
    to_documents,
    to_text_free,
    uuid_array,
    uuid_text,
)


def ids(source, relative, offsets):
    return uuid_text(uuid_array(doc_ids(source, relative, offsets))).to_pylist()


def test_doc_ids_never_change():
    """These values are in every workspace ever made: a change here is a change of the format."""
    assert ids("web", "a/b.jsonl", [0, 1, 2**40]) == GOLDEN_ASCII
    assert ids("bücher", "é.jsonl", [7]) == GOLDEN_UNICODE


GOLDEN_ASCII = [
    "a9196c5e-d21f-a504-4527-2f201435bf11",
    "7bd729be-4ea2-f7a7-600b-42d65780de83",
    "4ffeb5ea-e1fa-842b-2ba8-66bbf380880f",
]
GOLDEN_UNICODE = ["ad266c5b-edf8-7799-3b66-6e9763c58dd4"]


def test_doc_ids_are_unique_and_depend_on_each_part():
    offsets = np.arange(50_000)
    found = np.concatenate(
        [doc_ids(*key, offsets) for key in (("web", "a"), ("web", "b"), ("books", "a"), ("weba", ""))]
    )
    for half in (found[:, 0], found[:, 1]):
        assert len(np.unique(half)) == len(found)


def test_doc_ids_look_random():
    """Samples and histograms take the upper bits for a random number."""
    keys = doc_ids("web", "a", np.arange(0, 10**7, 1000))[:, 0] / 2.0**64
    assert abs(keys.mean() - 0.5) < 0.01
    assert np.histogram(keys, 10, (0, 1))[0].min() > 900


def test_doc_ids_of_no_documents():
    assert doc_ids("web", "a", []).shape == (0, 2)


def test_names_that_are_not_unicode_have_ids():
    assert len(set(ids("web", "\udcff", [0]) + ids("web", "\udcfe", [0]))) == 2


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(0, 5))
def test_uuid_text_is_how_python_spells_it(values, start):
    halves = np.frombuffer(b"".join(values), ">u8").astype(np.uint64).reshape(-1, 2)
    array = uuid_array(halves)
    assert array.to_pylist() == [uuid.UUID(bytes=value) for value in values]
    expected = [str(uuid.UUID(bytes=value)) for value in values]
    assert uuid_text(array).to_pylist() == expected
    assert uuid_text(array[start:]).to_pylist() == expected[start:]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://example.com/", "example.com"),
        ("HTTPS://Example.COM/Path", "example.com"),
        ("http://example.com:8080/x", "example.com"),
        ("http://user:secret@example.com/x", "example.com"),
        ("http://user:p@ss@example.com/x", "example.com"),
        ("http://example.com/@someone", "example.com"),
        ("http://example.com?mail=a@b.com", "example.com"),
        ("http://example.com#a@b", "example.com"),
        ("http://[2001:DB8::1]:80/x", "[2001:db8::1]"),
        ("http://user@[::1]/", "[::1]"),
        ("http://192.168.0.1/", "192.168.0.1"),
        ("http://BÜCHER.example/", "bücher.example"),
        ("ftp+x://host", "host"),
        ("http://example.com", "example.com"),
        ("http:///path", None),
        ("file:///etc/passwd", None),
        ("mailto:a@b.com", None),
        ("example.com/path", None),
        ("//example.com/", None),
        ("urn:uuid:1", None),
        ("", None),
        (None, None),
    ],
)
def test_hosts(url, host):
    assert hosts(pa.array([url, "http://x/"], pa.string())).to_pylist() == [host, "x"]


def test_hosts_of_no_urls():
    assert hosts(pa.array([], pa.string())).to_pylist() == []
    assert hosts(pa.array([None, None], pa.string())).to_pylist() == [None, None]


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2020-01-02T03:04:05Z", utc(2020, 1, 2, 3, 4, 5)),
        ("2020-01-02T03:04:05.123456Z", utc(2020, 1, 2, 3, 4, 5, 123456)),
        ("2020-01-02T03:04:05.123456789Z", utc(2020, 1, 2, 3, 4, 5, 123456)),
        ("2020-01-02T03:04:05+02:00", utc(2020, 1, 2, 1, 4, 5)),
        ("2020-01-02 03:04:05", utc(2020, 1, 2, 3, 4, 5)),
        ("2020-01-02 03:04:05 UTC", utc(2020, 1, 2, 3, 4, 5)),
        ("2020-01-02", utc(2020, 1, 2)),
        (" 2020-01-02 ", utc(2020, 1, 2)),
        ("20200102", utc(2020, 1, 2)),
        ("20200102030405", utc(2020, 1, 2, 3, 4, 5)),
        ("20200102T030405Z", utc(2020, 1, 2, 3, 4, 5)),
        ("2020-05", utc(2020, 5, 1)),
        ("2020", utc(2020, 1, 1)),
        (2020, utc(2020, 1, 1)),
        ("1577836800", utc(2020, 1, 1)),
        ("1577836800000", utc(2020, 1, 1)),
        ("Thu, 02 Jan 2020 03:04:05 GMT", utc(2020, 1, 2, 3, 4, 5)),
        ("Thu, 02 Jan 2020 03:04:05 +0100", utc(2020, 1, 2, 2, 4, 5)),
        (1577836800, utc(2020, 1, 1)),
        (1577836800.5, utc(2020, 1, 1, 0, 0, 0, 500000)),
        (1577836800000, utc(2020, 1, 1)),
        (-86400, utc(1969, 12, 31)),
        (0, utc(1970, 1, 1)),
        (date(2020, 1, 2), utc(2020, 1, 2)),
        (datetime(2020, 1, 2, 3), utc(2020, 1, 2, 3)),
        (datetime(2020, 1, 2, 3, tzinfo=timezone(timedelta(hours=1))), utc(2020, 1, 2, 2)),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59-05:00", None),
        ("2020-13-01", None),
        ("2020-02-30", None),
        ("yesterday", None),
        ("", None),
        (" ", None),
        ("99999999999999", None),
        (10**30, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ([2020], None),
        ({"year": 2020}, None),
        ("x" * 10**6, None),
    ],
)
def test_dates(value, moment):
    assert parse_created(value) == moment


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.text("0123456789-:TZ+. ,JanMon", max_size=30),
        st.integers(),
        st.floats(),
        st.datetimes(timezones=st.none() | st.just(UTC)),
        st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)).map(datetime.isoformat),
    )
)
def test_any_date_is_a_timestamp_or_none(value):
    moment = parse_created(value)
    assert moment is None or moment.tzinfo is UTC
    pa.array([moment], pa.timestamp("us", tz="UTC"))


def records(*texts, **columns):
    count = len(texts)
    filled = {
        "offsets": list(range(count)),
        "texts": list(texts),
        "ids": [None] * count,
        "sources": ["web"] * count,
        "urls": [None] * count,
        "created": [None] * count,
        "metadata": [None] * count,
        "repaired": [False] * count,
    }
    return Records(Piece("/in/a", "a"), count, **(filled | columns))


def test_rows_and_their_text_free_twins():
    made = records(
        "Grüße\U0001f600",
        " \u3000\n",
        "",
        ids=["x", None, "z"],
        urls=["http://A.b/", None, "c"],
        created=["2020-01-02", None, "x"],
        metadata=['{"k":1}', None, None],
        repaired=[True, False, False],
    )
    batch, repaired = to_documents(made, "web")
    assert batch.to_pylist()[0] | {"doc_id": None} == {
        "doc_id": None,
        "text": "Grüße\U0001f600",
        "id": "x",
        "source": "web",
        "url": "http://A.b/",
        "created": utc(2020, 1, 2),
        "metadata": '{"k":1}',
    }
    rows = to_text_free(batch, repaired, "part-0").to_pylist()
    assert [row["num_chars"] for row in rows] == [6, 3, 0]
    assert [row["num_bytes"] for row in rows] == [11, 5, 0]
    assert [row["blank"] for row in rows] == [False, True, True]
    assert [row["host"] for row in rows] == ["a.b", None, None]
    assert [row["year"] for row in rows] == [2020, None, None]
    assert [row["repaired"] for row in rows] == [True, False, False]
    assert {row["shard"] for row in rows} == {"part-0"}
    assert [row["doc_id"] for row in rows] == batch.column("doc_id").to_pylist()


def test_the_ids_hash_the_source_of_the_input_not_of_the_record():
    batch, _ = to_documents(records("a", sources=["from the record"]), "web")
    assert batch.column("doc_id").to_pylist() == [uuid.UUID(ids("web", "a", [0])[0])]
    assert batch.column("source").to_pylist() == ["from the record"]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_sample_keeps_whole_rows_by_their_ids(share):
    count = 2000
    made = records(*map(str, range(count)), ids=[str(n) for n in range(count)])
    made.drop_unsampled("web", share)
    keys = doc_ids("web", "a", range(count))[:, 0] / 2.0**64
    kept = [n for n in range(count) if keys[n] < share]
    assert made.offsets == kept
    assert made.texts == made.ids == [str(n) for n in kept]
    assert len(made.sources) == len(made.urls) == len(made.created) == len(made.metadata) == len(kept)
    assert made.dropped == {"not_sampled": count - len(kept)}
    assert abs(len(kept) - share * count) < 100


def test_rejects_of_files_with_odd_names():
    rows = rejects_table([Reject("/in/\udcff.txt", "file", "why: \ud800", b"\xff")]).to_pylist()
    assert rows == [{"path": "/in/\ufffd.txt", "location": "file", "reason": "why: \ufffd", "head": b"\xff"}]
    assert rejects_table([]).num_rows == 0

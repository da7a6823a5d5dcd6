"""Parquet inputs: row groups, other schemas, damage, and values of every type."""

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import write_table

from gristmill.pipelines import parquet
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import Piece
from gristmill.scorers.base import RecipeError

FIELDS = Input(path="a", source="web")
MAX = 1 << 20


def read(path, start=0, end=None, *, block_bytes=MAX, max_document_bytes=MAX, **fields):
    """Parsed records of a piece, block by block."""
    piece = Piece(str(path), "a.parquet", start, end)
    limits = {"max_document_bytes": max_document_bytes}
    return [
        parquet.parse_block(block, FIELDS.model_copy(update=fields), **limits)
        for block in parquet.read_blocks(piece, block_bytes=block_bytes, **limits)
    ]


def parse(tmp_path, columns, **options):
    (records,) = read(write_table(tmp_path / "a.parquet", columns), **options)
    return records


def joined(parsed, name):
    return [value for records in parsed for value in getattr(records, name)]


def test_row_groups_can_be_read_apart(tmp_path):
    texts = [f"text {n}" for n in range(25)]
    path = write_table(tmp_path / "a.parquet", {"text": texts, "n": list(range(25))}, row_group_size=10)
    whole = read(path)
    assert joined(whole, "texts") == texts
    assert joined(whole, "offsets") == list(range(25))
    apart = [read(path, group, group + 1) for group in range(3)]
    assert [joined(parsed, "texts") for parsed in apart] == [texts[:10], texts[10:20], texts[20:]]
    assert [offset for parsed in apart for offset in joined(parsed, "offsets")] == list(range(25))
    assert [value for parsed in apart for value in joined(parsed, "metadata")] == joined(whole, "metadata")
    assert sum(records.num_in for parsed in apart for records in parsed) == 25


def test_long_documents_come_in_small_batches(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"text": [f"{n}" * 10_000 for n in range(300)]})
    blocks = list(parquet.read_blocks(Piece(str(path), "a"), block_bytes=100_000, max_document_bytes=MAX))
    assert max(len(block.payload) for block in blocks) <= 20
    assert sum(len(block.payload) for block in blocks) == 300
    assert [block.offset for block in blocks[:3]] == [0, len(blocks[0].payload), 2 * len(blocks[0].payload)]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_every_kind_of_string_is_text(tmp_path, kind):
    values = pa.array(["eins", None, "zwölf \U0001f600", ""], pa.string())
    path = write_table(
        tmp_path / "a.parquet",
        pa.table({"text": values.cast(kind), "id": values.cast(kind), "url": values.cast(kind)}),
    )
    assert parquet.read_metadata(str(path), FIELDS).num_rows == 4
    (records,) = read(path)
    assert records.texts == ["eins", "zwölf \U0001f600", ""]
    assert records.ids == records.urls == records.texts
    assert [(r.location, r.reason) for r in records.rejects] == [("1", "null_text: 'text' is null")]


@pytest.mark.parametrize(
    "column",
    [[1, 2], [b"a", b"b"], [["a"], ["b"]], [{"text": "a"}, {"text": "b"}], [True, False], [None, None]],
    ids=str,
)
def test_a_text_column_of_another_type_is_refused(tmp_path, column):
    path = write_table(tmp_path / "a.parquet", {"text": column})
    with pytest.raises(RecipeError, match=r"a.parquet: column 'text' is .*, expected a string$"):
        parquet.read_metadata(str(path), FIELDS)


def test_another_schema_is_refused_with_what_was_found(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"content": ["a"], "key": [1]})
    with pytest.raises(RecipeError) as caught:
        parquet.read_metadata(str(path), FIELDS)
    assert str(caught.value) == (f"{path}: no column 'text' (named by `text:`); allowed: content, key")


@pytest.mark.parametrize("name", ["url", "created", "source_field", "id"])
def test_a_named_column_that_is_not_there_is_refused(tmp_path, name):
    path = write_table(tmp_path / "a.parquet", {"text": ["a"], "links": ["b"]})
    with pytest.raises(RecipeError) as caught:
        parquet.read_metadata(str(path), FIELDS.model_copy(update={name: "link"}))
    assert str(caught.value) == (
        f"{path}: no column 'link' (named by `{name}:`); allowed: links, text; did you mean 'links'?"
    )


def test_the_usual_columns_may_be_absent(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"text": ["a"]})
    assert parquet.read_metadata(str(path), FIELDS).num_rows == 1
    (records,) = read(path)
    assert (records.ids, records.urls, records.created, records.metadata) == ([None], [None], [None], [None])


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(RecipeError, match="two columns are called 'text'"):
        parquet.read_metadata(str(write_table(tmp_path / "a.parquet", table)), FIELDS)


def test_fields_inside_structs(tmp_path):
    columns = {
        "page": [{"body": "a", "meta": {"key": 7}}, {"body": None, "meta": {"key": 8}}, None],
        "metadata": [{"url": "http://x/", "date": "2020-01-02"}] * 3,
        "id": ["x", "y", "z"],
    }
    path = write_table(tmp_path / "a.parquet", columns)
    fields = {"text": "page.body", "id": "page.meta.key", "source_field": "metadata.url"}
    assert parquet.read_metadata(str(path), FIELDS.model_copy(update=fields)).num_rows == 3
    (records,) = read(path, **fields)
    assert records.texts == ["a"]
    assert (records.ids, records.sources) == (["7"], ["http://x/"])
    assert (records.urls, records.created) == (["http://x/"], ["2020-01-02"])
    assert json.loads(records.metadata[0]) == {
        "page": {"body": "a", "meta": {"key": 7}},
        "metadata": {"url": "http://x/", "date": "2020-01-02"},
        "id": "x",
    }
    assert [r.reason for r in records.rejects] == ["null_text: 'page.body' is null"] * 2


def test_a_column_with_a_dot_in_its_name(tmp_path):
    records = parse(tmp_path, {"a.b": ["flat"], "a": [{"b": "nested"}]}, text="a.b")
    assert records.texts == ["flat"]


def test_a_null_text_is_a_reject_that_shows_the_row(tmp_path):
    records = parse(tmp_path, {"text": pa.array(["a", None, "c"]), "id": [1, 2, 3], "k": ["x", "y", "z"]})
    assert (records.texts, records.ids, records.offsets) == (["a", "c"], ["1", "3"], [0, 2])
    assert [(r.location, r.reason, r.head) for r in records.rejects] == [
        ("1", "null_text: 'text' is null", b'{"k":"y"}')
    ]
    assert records.num_in == 3


@pytest.mark.parametrize(("limit", "count"), [(9, 1), (10, 2)])
def test_a_text_over_the_limit_is_a_reject(tmp_path, limit, count):
    records = parse(tmp_path, {"text": ["ä" * 5, "short"]}, max_document_bytes=limit)
    assert len(records.texts) == count
    assert [r.reason for r in records.rejects] == (
        ["too_large: the text is longer than max_document_bytes (9)"] if count == 1 else []
    )


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (pa.array([1, None, -(2**63)]), ["1", None, str(-(2**63))]),
        (pa.array([1, None, 2**64 - 1], pa.uint64()), ["1", None, str(2**64 - 1)]),
        (pa.array([1.5, None, 2.0]), ["1.5", None, "2.0"]),
        (pa.array([Decimal("1.50"), None, Decimal("2.00")]), ["1.50", None, "2.00"]),
        (pa.array([b"\xff\x00", None, b"abc"]), ["/wA=", None, "YWJj"]),
        (pa.array([date(2020, 1, 2), None, None]), ["2020-01-02", None, None]),
    ],
    ids=["int", "uint64", "float", "decimal", "binary", "date"],
)
def test_ids_of_any_type(tmp_path, column, ids):
    records = parse(tmp_path, pa.table({"text": ["a", "b", "c"], "id": column}))
    assert records.ids == ids


def test_metadata_of_every_type(tmp_path):
    moment = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    columns = {
        "text": pa.array(["a"]),
        "list": pa.array([[1, None, 3]]),
        "struct": pa.array([{"a": {"b": ["c"]}, "none": None}]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "bytes": pa.array([b"\xff\x00"]),
        "time": pa.array([moment], pa.timestamp("us", tz="UTC")),
        "nanoseconds": pa.array([1577836800000000001], pa.timestamp("ns", tz="UTC")),
        "span": pa.array([timedelta(seconds=5)]),
        "span_ns": pa.array([5_000_000_001], pa.duration("ns")),
        "clock": pa.array([5_000_000_001], pa.time64("ns")),
        "decimal": pa.array([Decimal("1.50")]),
        "nan": pa.array([float("nan")]),
        "uint": pa.array([2**64 - 1], pa.uint64()),
        "flag": pa.array([True]),
        "half": pa.array([1.5], pa.float16()),
        "null": pa.nulls(1),
    }
    records = parse(tmp_path, pa.table(columns))
    assert json.loads(records.metadata[0]) == {
        "list": [1, None, 3],
        "struct": {"a": {"b": ["c"]}, "none": None},
        "map": [["k", 1]],
        "bytes": "/wA=",
        "time": "2020-01-02T03:04:05.000006+00:00",
        "nanoseconds": "2020-01-01T00:00:00+00:00",
        "span": "0:00:05",
        "span_ns": "0:00:05",
        "clock": "00:00:05",
        "decimal": "1.50",
        "nan": None,
        "uint": 2**64 - 1,
        "flag": True,
        "half": 1.5,
        "null": None,
    }


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+02:00", "Europe/Paris"])
def test_dates_of_any_unit(tmp_path, unit, zone):
    values = (
        pa.array([1577836800], pa.timestamp("s")).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, tz=zone))
    )
    records = parse(tmp_path, pa.table({"text": ["a"], "created": values}))
    assert [moment.timestamp() if zone else moment for moment in records.created] == (
        [1577836800] if zone else [datetime(2020, 1, 1)]
    )
    assert "created" in json.loads(records.metadata[0])


def test_a_date_outside_the_calendar_costs_its_row(tmp_path):
    column = pa.array([0, 2**62, 1], pa.timestamp("us"))
    records = parse(tmp_path, pa.table({"text": ["a", "b", "c"], "created": column}))
    assert (records.texts, records.offsets) == (["a", "c"], [0, 2])
    ((reject),) = records.rejects
    assert (reject.location, reject.reason.partition(":")[0]) == ("1", "unreadable_value")
    assert records.num_in == 3


@pytest.mark.parametrize("column", ["text", "id", "k"])
def test_invalid_utf8_costs_its_row(tmp_path, column):
    good = pa.array(["one", "two", "six"])
    bad = pa.StringArray.from_buffers(3, good.buffers()[1], pa.py_buffer(b"onet\xffosix"))
    columns = {"text": good, "id": good, "k": good, column: bad}
    records = parse(tmp_path, pa.table(columns))
    assert (records.texts, records.offsets, records.num_in) == (["one", "six"], [0, 2], 3)
    (reject,) = records.rejects
    assert (reject.location, reject.reason) == ("1", "invalid_utf8: invalid start byte at byte 1 of a column")


def test_no_parquet_file_is_one_reject(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 but not really" * 1000)
    assert parquet.read_metadata(str(path), FIELDS) is None
    (records,) = read(path)
    (reject,) = records.rejects
    assert reject.location == "file"
    assert reject.reason.startswith("not_parquet: ")
    assert reject.head == path.read_bytes()[:200]
    assert records.num_in == 1


def test_a_truncated_file_is_one_reject(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"text": ["a"] * 100})
    path.write_bytes(path.read_bytes()[:-10])
    assert parquet.read_metadata(str(path), FIELDS) is None
    (records,) = read(path)
    assert [r.reason.partition(":")[0] for r in records.rejects] == ["not_parquet"]


def test_a_damaged_row_group_costs_no_other(tmp_path):
    texts = [f"{n} {n * n}" for n in range(3000)]
    path = write_table(
        tmp_path / "a.parquet",
        {"text": texts},
        row_group_size=1000,
        use_dictionary=False,
        compression="zstd",
        write_page_checksum=True,
    )
    column = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)
    parsed = read(path)
    assert joined(parsed, "texts") == texts[:1000] + texts[2000:]
    assert joined(parsed, "offsets") == [*range(1000), *range(2000, 3000)]
    (reject,) = joined(parsed, "rejects")
    assert reject.location == "1000"
    assert reject.reason.startswith("damaged_row_group: ")
    assert reject.reason.endswith("; lost 1000 rows")


def test_a_page_checksum_is_checked(tmp_path):
    path = write_table(
        tmp_path / "a.parquet",
        {"text": ["abcdefgh"] * 10},
        use_dictionary=False,
        compression="none",
        write_page_checksum=True,
    )
    path.write_bytes(path.read_bytes().replace(b"\x08\0\0\0abcdefgh", b"\x08\0\0\0abcdefgX", 1))
    parsed = read(path)
    assert joined(parsed, "texts") == []
    assert [r.reason.partition(":")[0] for r in joined(parsed, "rejects")] == ["damaged_row_group"]


def test_a_footer_that_is_not_unicode(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"text": ["a"]}, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"text", b"tex\xf4"))
    assert parquet.read_metadata(str(path), FIELDS) is None
    (records,) = read(path)
    assert [r.reason.partition(":")[0] for r in records.rejects] == ["not_parquet"]


def test_any_flipped_byte_is_survived(tmp_path):
    columns = {
        "text": [f"text {n} ä" for n in range(50)],
        "id": list(range(50)),
        "m": [{"k": [n]} for n in range(50)],
    }
    content = write_table(tmp_path / "a.parquet", columns, row_group_size=25).read_bytes()
    path = tmp_path / "b.parquet"
    chosen = random.Random(0)
    for _ in range(300):
        place = chosen.randrange(len(content) - 8)
        flipped = content[place] ^ (1 << chosen.randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        for records in read(path):
            assert records.num_in == len(records.texts) + len(records.rejects)


def test_real_files(shared_data):
    for path in sorted((shared_data / "raw").glob("*.parquet")):
        fields = FIELDS.model_copy(
            update={"text": "contents" if "contents" in pq.read_schema(path).names else "text"}
        )
        parsed = read(path, text=fields.text)
        assert len(joined(parsed, "texts")) == pq.read_metadata(path).num_rows

"""Ingest as a whole: the same bytes however it is cut, spread or interrupted, and nothing lost on the way."""

import gzip
import json
import os
import tempfile
import uuid
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import gzip_members, html, http, ingest, make_recipe, warc_record, write_lines, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.pipelines import files, read_documents
from gristmill.pipelines.corpus import check_reject_rate, commit_corpus, read_corpus
from gristmill.pipelines.ledger import LedgerRow, read_ledger
from gristmill.pipelines.plan_splits import plan_ingest
from gristmill.pipelines.read_documents import (
    Limits,
    content_digest,
    group_blocks,
    merge_batches,
    write_split,
)
from gristmill.pipelines.records import Records, doc_ids, to_documents, to_text_free
from gristmill.scorers import schema
from gristmill.scorers.base import CorpusError, WorkspaceError
from gristmill.scorers.duplicates import hash128


def data_files(workspace):
    """Relative path -> bytes of every data file: all but the ledger, the identity and the plan with its times."""
    root = Path(workspace.root)
    kept = ("corpus", "documents", "rejects")
    found = {
        path.relative_to(root): path.read_bytes() for kind in kept for path in (root / kind).rglob("*.*")
    }
    return {str(path): content for path, content in found.items() if path.name != "inputs.json"}


@pytest.fixture
def inputs(tmp_path):
    """Inputs of every format, with bad records among them, each as (path, source)."""
    lines = [{"text": f"line {n} " + "x" * (n % 50), "id": n} for n in range(300)]
    root = tmp_path / "in"
    write_lines(root / "plain.jsonl", *lines[:200], b"broken", {"text": None}, *lines[200:])
    content = write_lines(root / "tmp", *lines, b"{").read_bytes()
    (root / "stream.jsonl.gz").write_bytes(gzip.compress(content, mtime=0))
    (root / "cut.jsonl.gz").write_bytes(gzip.compress(content, mtime=0)[:-20])
    (root / "tmp").unlink()
    write_table(
        root / "rows.parquet",
        {"text": [f"row {n}" for n in range(90)] + [None], "n": list(range(91))},
        row_group_size=20,
    )
    pages = [warc_record(url=f"http://h{n}/", body=http(html(f"page {n}"))) for n in range(30)]
    pages[7] = warc_record(url="http://image/", body=http(b"x", Content_Type="image/png"))
    (root / "pages.warc.gz").write_bytes(gzip_members(*pages))
    (root / "empty.jsonl").write_bytes(b"")
    return [{"path": str(path), "source": path.name} for path in sorted(root.iterdir())]


def test_every_format_together(inputs, ingest):
    corpus = ingest(*inputs)
    assert corpus.total("num_in") == corpus.total("num_out") + corpus.total("num_dropped") + corpus.total(
        "num_rejected"
    )
    texts = corpus.texts
    assert [text for text in texts if text.startswith("row")] == [f"row {n}" for n in range(90)]
    assert [text for text in texts if text.startswith("page")] == [f"page {n}" for n in range(30) if n != 7]
    assert sum(text.startswith("line") for text in texts) > 600
    assert sorted(corpus.reasons) == [
        "broken_json",
        "broken_json",
        "damaged_stream",
        "empty_file",
        "null_text",
        "null_text",
    ]
    assert corpus.total("num_dropped") == 1
    reasons = {}
    for row in corpus.ledger:
        for reason, count in row.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    assert reasons == {
        "broken_json": 2,
        "damaged_stream": 1,
        "empty_file": 1,
        "null_text": 2,
        "not_html": 1,
    }
    ids = [row["doc_id"] for row in corpus.rows]
    assert len(set(ids)) == len(ids)
    assert ids == [row["doc_id"] for row in corpus.documents]


def test_doc_ids_are_those_of_source_path_and_offset(tmp_path, ingest):
    write_lines(tmp_path / "in/sub/a.jsonl", "one", "two")
    corpus = ingest(tmp_path / "in")
    assert [str(row["doc_id"]) for row in corpus.rows] == [
        str(uuid.UUID(int=(int(high) << 64) + int(low)))
        for high, low in doc_ids("web", "sub/a.jsonl", [0, 16])
    ]


@pytest.mark.parametrize("shard_bytes", [1500, 10**9])
def test_spread_and_fused_write_the_same_bytes(inputs, tmp_path, extractor, shard_bytes):
    options = {"shard_bytes": shard_bytes, "block_bytes": 300}
    fused = ingest(tmp_path / "fused", inputs, extractor, **options)
    spread = ingest(tmp_path / "spread", inputs, extractor, spread=True, **options)
    assert data_files(fused.workspace) == data_files(spread.workspace)
    assert fused.shards == spread.shards
    assert shard_bytes > 1500 or len(fused.shards) > len(fused.plan.splits)


def test_documents_do_not_depend_on_the_cut(inputs, tmp_path, extractor):
    def of(number, **options):
        corpus = ingest(tmp_path / f"mill{number}", inputs, extractor, **options)
        rows = sorted(corpus.rows, key=lambda row: row["doc_id"])
        rejects = sorted(corpus.rejects)
        return rows, rejects

    first = of(0)
    for number, (shard_bytes, block_bytes) in enumerate([(2500, 1), (10**6, 10**4)], start=1):
        assert of(number, shard_bytes=shard_bytes, block_bytes=block_bytes) == first


def test_the_content_digest_does_not_depend_on_batches():
    texts = [f"text {n}" for n in range(20)]
    records = Records(
        None, 20, list(range(20)), texts, *([[None] * 20, ["web"] * 20] + [[None] * 20] * 3 + [[False] * 20])
    )
    records.piece = type("P", (), {"relative": "a"})()
    table = pa.Table.from_batches([to_text_free(*to_documents(records, "web"), "s")], schema.DOCUMENTS)
    digests = {content_digest(pa.concat_tables([table[:n], table[n:]])) for n in range(21)}
    assert len(digests) == 1
    other = table.set_column(9, "content_hash", hash128(pa.array(["x", *texts[1:]], pa.large_string())))
    assert content_digest(other) not in digests
    assert content_digest(table[1:]) not in digests


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("victim", range(4))
def test_an_interrupted_run_ends_in_the_same_bytes(inputs, tmp_path, extractor, victim, spread):
    options = {"shard_bytes": 6000, "block_bytes": 1000, "spread": spread}
    expected = data_files(ingest(tmp_path / "whole", inputs, extractor, **options).workspace)
    corpus = ingest(tmp_path / "mill", inputs, extractor, **options)
    workspace = corpus.workspace
    shard = corpus.shards[victim * len(corpus.shards) // 4].name
    os.unlink(workspace.documents(shard))  # the last file of a shard to be committed
    Path(workspace.corpus(shard)).write_bytes(b"half")
    Path(workspace.path("corpus", f"{files.TEMPORARY_PREFIX}left")).write_bytes(b"half")
    if victim == 1:
        os.unlink(workspace.path("corpus", f"{shard.rpartition('-')[0]}.json"))
    if victim == 2:
        os.unlink(workspace.path("corpus", "shards.json"))
    again = ingest(tmp_path / "mill", inputs, extractor, **options)
    os.unlink(workspace.path("corpus", f"{files.TEMPORARY_PREFIX}left"))
    assert data_files(workspace) == expected
    assert again.shards == corpus.shards
    assert [(r.shard, r.num_in, r.reasons) for r in again.ledger] == [
        (r.shard, r.num_in, r.reasons) for r in corpus.ledger
    ]


def test_rejects_of_an_attempt_that_died_are_gone_when_the_next_has_none(
    tmp_path, ingest, extractor, monkeypatch
):
    path = write_lines(tmp_path / "a.jsonl", "one", "two")
    corpus = ingest(path)
    (shard,) = corpus.shards
    os.unlink(corpus.workspace.documents(shard.name))
    pq.write_table(pa.table({"path": ["x"]}), make_folder(corpus.workspace.rejects(shard.name)))
    again = ingest(path)
    assert (again.texts, again.rejects) == (["one", "two"], [])


def make_folder(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def test_a_committed_shard_is_not_written_again(tmp_path, ingest, extractor, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", "one")
    corpus = ingest(path)
    monkeypatch.setattr(read_documents, "write_side_file", lambda *_: pytest.fail("written again"))
    assert ingest(path).shards == corpus.shards
    (split,) = corpus.plan.splits
    assert list(write_split(corpus.workspace, split, Limits(1, 1), extractor)) == []


def test_new_inputs_leave_old_shards_untouched(tmp_path, ingest):
    write_lines(tmp_path / "in/b.jsonl", "one", b"broken")
    first = ingest(tmp_path / "in")
    before = {
        path: os.stat(os.path.join(first.workspace.root, path)).st_mtime_ns
        for path in data_files(first.workspace)
    }
    content = data_files(first.workspace)
    write_lines(tmp_path / "in/a.jsonl", "two")
    second = ingest(tmp_path / "in")
    assert second.texts == ["one", "two"]
    for path in before.keys() - {"corpus/shards.json"}:
        assert data_files(second.workspace)[path] == content[path]
        assert os.stat(os.path.join(second.workspace.root, path)).st_mtime_ns == before[path]
    assert second.shards[:1] == first.shards


def test_an_input_that_went_after_it_was_planned_is_a_reject(tmp_path, ingest, extractor, monkeypatch):
    for name in ("a", "b"):
        write_lines(tmp_path / f"in/{name}.jsonl", name)
    open_read = files.open_read

    def fail(path):
        if path.endswith("a.jsonl") and reading:
            raise FileNotFoundError(2, "No such file or directory", path)
        return open_read(path)

    reading = []
    monkeypatch.setattr(files, "open_read", fail)
    monkeypatch.setattr(read_documents, "is_written", lambda *_: bool(reading.append(1)))
    corpus = ingest(tmp_path / "in")
    assert corpus.texts == ["b"]
    ((name, location, reason),) = corpus.rejects
    assert (name, location) == ("a.jsonl", "file")
    assert reason.startswith("unreadable_file: [Errno 2] No such file or directory")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl.gz", b""),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("a.warc.gz", b""),
        ("a.warc", b""),
    ],
)
def test_an_empty_file_is_a_reject(tmp_path, ingest, name, content):
    (tmp_path / name).write_bytes(content)
    corpus = ingest(tmp_path / name)
    assert corpus.rejects == [(name, "file", "empty_file: no record in it")]
    assert (corpus.total("num_in"), corpus.total("num_out")) == (1, 0)
    assert [shard.num_rows for shard in corpus.shards] == [0]


@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_an_empty_text_is_a_document(tmp_path, ingest, name):
    (tmp_path / name).write_bytes(b"")
    corpus = ingest(tmp_path / name)
    assert (corpus.texts, corpus.rejects) == ([""], [])
    assert [row["blank"] for row in corpus.documents] == [True]


def test_files_whose_names_are_not_unicode(tmp_path, ingest):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    for name, content in ((b"\xff.txt", b"text"), (b"\xfe.txt", b"\xff")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    corpus = ingest(tmp_path / "in")
    assert [(row["text"], row["id"]) for row in corpus.rows] == [("text", "\ufffd.txt")]
    assert corpus.rejects == [("\ufffd.txt", "0", "invalid_utf8: invalid start byte at byte 0")]
    assert ingest(tmp_path / "in").shards == corpus.shards


def test_only_blank_lines_are_no_records(tmp_path, ingest):
    (tmp_path / "a.jsonl").write_bytes(b"\n \n\r\n")
    corpus = ingest(tmp_path / "a.jsonl")
    assert (corpus.total("num_in"), corpus.texts, corpus.rejects) == (0, [], [])


def write_large(path, num_bytes):
    """One document between two small ones."""
    with open(path, "wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(num_bytes // 1_000_000):
            file.write(b"word " * 200_000)
        file.write(b'"}\n{"text": "after"}\n')
    return path


def test_a_document_of_200_mb_is_one_reject(tmp_path, ingest):
    corpus = ingest(write_large(tmp_path / "a.jsonl", 200_000_000))
    assert len(corpus.plan.splits) == 2
    assert corpus.texts == ["before", "after"]
    assert corpus.rejects == [
        ("a.jsonl", "19", "too_large: the record is longer than max_document_bytes (33554432)")
    ]
    assert corpus.total("num_in") == 3


@pytest.mark.parametrize("shard_bytes", [1 << 20, 1 << 30])
def test_a_large_document_is_ingested_where_the_limit_allows(tmp_path, ingest, shard_bytes):
    path = write_large(tmp_path / "a.jsonl", 20_000_000)
    corpus = ingest(path, shard_bytes=shard_bytes, max_document_bytes=1 << 30)
    assert [row["num_bytes"] for row in corpus.documents] == [6, 20_000_000, 5]


JUNK = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=20).map(lambda text: json.dumps({"text": text}).encode()),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=5,
    ).map(lambda value: json.dumps({"text": "a", "id": value, "created": value, "x": value}).encode()),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(JUNK, max_size=10).map(b"\n".join),
    st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.warc", "a.warc.gz", "a.txt", "a.parquet", "a.jsonl.zst"]),
    st.booleans(),
)
def test_no_junk_is_lost_without_a_word(extractor, content, name, compressed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(gzip.compress(content) if compressed else content)
        corpus = ingest(f"{folder}/mill", [path], extractor, shard_bytes=100, block_bytes=50)
        assert corpus.total("num_in") == corpus.total("num_out") + len(corpus.rejects) + corpus.total(
            "num_dropped"
        )
        assert len(corpus.rows) == len(corpus.documents) == corpus.total("num_out")
        if content.strip() and not name.endswith("jsonl"):
            assert corpus.total("num_in") >= 1


def test_accounts_that_do_not_add_up_fail_the_run(tmp_path, ingest, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", "one", "two")
    parse = read_documents.parse_block

    def lose_one(*arguments):
        records = parse(*arguments)
        for column in (records.offsets, records.texts, records.ids, records.sources, records.urls):
            column.pop()
        for column in (records.created, records.metadata, records.repaired):
            column.pop()
        return records

    monkeypatch.setattr(read_documents, "parse_block", lose_one)
    with pytest.raises(WorkspaceError, match=r"2 rows in, but 1 out \+ 0 dropped \+ 0 rejected = 1"):
        ingest(path)


def test_a_split_that_did_not_come_to_its_end_fails_the_run(tmp_path, ingest):
    corpus = ingest(write_lines(tmp_path / "a.jsonl", "one"))
    os.unlink(corpus.workspace.path("corpus", "part-00000-00000.json"))
    with pytest.raises(
        WorkspaceError, match="split part-00000-00000 was not read to its end; run ingest again"
    ):
        commit_corpus(corpus.workspace, corpus.plan)


def test_a_corpus_that_is_not_there(tmp_path, ingest):
    corpus = ingest(write_lines(tmp_path / "a.jsonl", "one"))
    assert read_corpus(corpus.workspace) == corpus.shards
    os.unlink(corpus.workspace.path("corpus", "shards.json"))
    with pytest.raises(CorpusError, match="no corpus yet; run `gristmill ingest`"):
        read_corpus(corpus.workspace)


def test_too_many_rejects_stop_the_run():
    def rows(num_in, num_rejected):
        return [LedgerRow("ingest", "a", num_in, num_in - num_rejected, 0, num_rejected)]

    check_reject_rate(rows(999, 999), 0.01)
    check_reject_rate(rows(1000, 10), 0.01)
    check_reject_rate(rows(1000, 1000), 1.0)
    check_reject_rate(rows(0, 0), 0.0)
    with pytest.raises(CorpusError) as caught:
        check_reject_rate(rows(2000, 30), 0.01)
    assert str(caught.value) == (
        "30 of 2,000 records (1.5%) could not be read, max_reject_rate is 1.0%; see `gristmill sql WORKSPACE --query "
        "reject_reasons`, then mend the input or raise max_reject_rate"
    )
    with pytest.raises(CorpusError, match=r"1 of 1,000 records"):
        check_reject_rate(rows(600, 0) + rows(400, 1), 0.0)


def test_a_sample_keeps_ids_and_counts_the_others(tmp_path, ingest):
    path = write_lines(tmp_path / "a.jsonl", *(f"text {n}" for n in range(1000)), b"broken")
    whole = ingest(path)
    sample = ingest(path, root=tmp_path / "sample", share=0.2)
    again = ingest(path, root=tmp_path / "again", share=0.2, block_bytes=100)
    assert 150 < len(sample.rows) < 250
    by_id = {row["doc_id"]: row for row in whole.rows}
    assert all(by_id[row["doc_id"]] == row for row in sample.rows)
    assert sample.rows == again.rows
    assert sample.total("num_dropped") == 1000 - len(sample.rows)
    assert [row.reasons for row in sample.ledger] == [
        {"broken_json": 1, "not_sampled": 1000 - len(sample.rows)}
    ]


def test_small_batches_are_merged_and_large_ones_left():
    def batch(*texts):
        return pa.record_batch({"t": pa.array(texts)}), pa.array([False] * len(texts))

    merged = list(merge_batches([batch("a"), batch("b"), batch("c" * 100), batch("d")], 50))
    assert [b.column("t").to_pylist() for b, _ in merged] == [["a", "b", "c" * 100], ["d"]]
    assert [len(r) for _, r in merged] == [3, 1]
    assert list(merge_batches([], 10)) == []


def test_the_blocks_of_a_split_fill_its_shards_in_order(tmp_path, ingest):
    corpus = ingest(write_lines(tmp_path / "a.jsonl", *(f"{n:05d}" for n in range(50))))
    (split,) = corpus.plan.splits
    numbers = [number for number, _ in group_blocks(split, Limits(100, 1000, block_bytes=40))]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(max(numbers) + 1))


def test_the_ledger_keeps_what_the_footers_say(tmp_path, ingest):
    corpus = ingest(write_lines(tmp_path / "a.jsonl", "one", b"broken", "three"))
    (row,) = read_ledger(corpus.workspace, "ingest")
    assert (row.stage, row.shard, row.num_in, row.num_out, row.num_rejected) == (
        "ingest",
        "part-00000-00000-0000",
        3,
        2,
        1,
    )
    assert (row.num_bytes, row.reasons) == (8, {"broken_json": 1})
    assert row.seconds is not None
    assert row.peak_bytes > 1 << 20
    left = [path for path in Path(corpus.workspace.path("ledger")).rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["ingest.parquet"]


def test_files_that_are_written(tmp_path, ingest):
    corpus = ingest(write_lines(tmp_path / "a.jsonl", {"text": "one", "id": 7, "url": "http://H/", "k": [1]}))
    with pa.ipc.open_file(corpus.workspace.corpus("part-00000-00000-0000")) as file:
        assert file.schema == schema.CORPUS
    table = pq.read_table(corpus.workspace.documents("part-00000-00000-0000"))
    assert table.schema.remove_metadata() == schema.DOCUMENTS
    assert corpus.rows[0] | {"doc_id": 0} == {
        "doc_id": 0,
        "text": "one",
        "id": "7",
        "source": "web",
        "url": "http://H/",
        "created": None,
        "metadata": '{"k":[1]}',
    }


def test_real_files_of_two_formats(shared_data, tmp_path, extractor):
    """The first 1,200 documents of the mixed corpus lie there once more, half of them in each format."""
    paths = sorted((shared_data / "formats").iterdir())
    corpus = ingest(tmp_path / "mill", paths, extractor)
    with gzip.open(shared_data / "corpus/mixed-00.jsonl.gz") as file:
        expected = [json.loads(line) for line in islice(file, 1200)]
    assert [(row["id"], row["text"]) for row in corpus.rows] == [(row["id"], row["text"]) for row in expected]
    assert corpus.rejects == []


def test_a_real_file_read_in_many_shards(shared_data, tmp_path, extractor):
    path = shared_data / "raw/p-lambda+dsir__tests__toy_pile_data.jsonl.gz"
    whole = ingest(tmp_path / "whole", [{"path": str(path), "text": "contents"}], extractor)
    parts = ingest(
        tmp_path / "parts",
        [{"path": str(path), "text": "contents"}],
        extractor,
        shard_bytes=50_000,
        block_bytes=20_000,
    )
    assert len(parts.shards) == 4
    assert whole.rows == parts.rows


def test_planning_and_reading_agree_on_every_raw_file(shared_data, tmp_path, extractor):
    """All real JSONL and Parquet files at hand together, as one messy corpus of inputs."""
    entries = []
    for path in sorted((shared_data / "raw").iterdir()):
        if path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
            entries.append({"path": str(path), "source": path.name})
    corpus = ingest(tmp_path / "mill", entries, extractor, shard_bytes=100_000, block_bytes=30_000)
    assert corpus.total("num_in") == corpus.total("num_out") + corpus.total("num_rejected")
    assert corpus.total("num_out") > 100
    assert plan_ingest(corpus.workspace, make_recipe(corpus.workspace.root, entries)).num_new_files == 0

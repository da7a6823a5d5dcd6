"""Ingest on Beam's local runner: the same bytes as the pure functions in a loop, streams spread or not."""

import gzip
from pathlib import Path

import pytest
from corpora import gzip_members, html, http, ingest, make_recipe, warc_record, write_lines, write_table

from gristmill.pipelines.corpus import commit_corpus
from gristmill.pipelines.ledger import LedgerRow
from gristmill.pipelines.plan_splits import commit_plan, plan_ingest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.read_documents import Limits, ReadDocuments
from gristmill.pipelines.runner import beam_options, run_pipeline
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.base import CorpusError


@pytest.fixture
def inputs(tmp_path):
    root = tmp_path / "in"
    lines = write_lines(root / "a.jsonl", *(f"line {n}" for n in range(200)), b"broken").read_bytes()
    (root / "b.jsonl.gz").write_bytes(gzip.compress(lines * 3))
    (root / "c.warc.gz").write_bytes(
        gzip_members(*(warc_record(url=f"http://h{n}/", body=http(html(f"page {n}"))) for n in range(20)))
    )
    write_table(root / "d.parquet", {"text": [f"row {n}" for n in range(50)]})
    return [{"path": str(path), "source": path.name} for path in sorted(root.iterdir())]


def data_files(root):
    kept = ("corpus", "documents", "rejects")
    found = {str(p.relative_to(root)): p.read_bytes() for kind in kept for p in Path(root, kind).rglob("*.*")}
    found.pop("corpus/inputs.json")
    return found


@pytest.mark.parametrize("spread", [False, True])
def test_beam_writes_what_the_loop_writes(tmp_path, inputs, extractor, spread):
    import apache_beam as beam

    loop = ingest(tmp_path / "loop", inputs, extractor, shard_bytes=4000, block_bytes=1000)
    recipe = make_recipe(tmp_path / "beam", inputs)
    workspace = open_workspace(recipe.workspace, create=True)
    plan = plan_ingest(workspace, recipe, shard_bytes=4000)
    commit_plan(workspace, plan)
    read = ReadDocuments(
        workspace, Limits(4000, recipe.max_document_bytes, block_bytes=1000), spread_streams=spread
    )
    run_pipeline(beam_options([]), lambda pipeline: pipeline | beam.Create(plan.splits) | read)
    shards, ledger = commit_corpus(workspace, plan)
    assert data_files(workspace.root) == data_files(loop.workspace.root)
    assert shards == loop.shards
    assert [accounts(row) for row in ledger] == [accounts(row) for row in loop.ledger]


def accounts(row: LedgerRow):
    return row.shard, row.num_in, row.num_out, row.num_dropped, row.num_rejected, row.reasons


def test_a_run_over_its_reject_rate_stops_and_says_why(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", *["text"] * 985, *[b"broken"] * 15)
    curation = prepare(make_recipe(tmp_path / "mill", [path]), beam_options([]))
    with pytest.raises(
        CorpusError, match=r"15 of 1,000 records \(1.5%\) could not be read, max_reject_rate is 1.0%"
    ):
        curation.run(["ingest"])
    allowed = prepare(make_recipe(tmp_path / "mill", [path], max_reject_rate=0.02), beam_options([]))
    summary = allowed.run(["ingest"])
    assert [(row.num_in, row.num_out, row.num_rejected) for row in summary.ingested] == [(1000, 985, 15)]

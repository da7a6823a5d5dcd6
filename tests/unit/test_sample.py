"""A sample holds about as many documents as asked for, the same ones every time, under the ids of the full run."""

import gzip
import json

import pyarrow.parquet as pq
import pytest
from backports import zstd
from corpora import gzip_members, html, http, make_recipe, warc_record, write_lines, write_table

from gristmill.pipelines.corpus import commit_corpus
from gristmill.pipelines.plan_splits import commit_plan
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.read_documents import Limits, write_split
from gristmill.pipelines.records import Piece, Split
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.sample import choose_splits, sampled
from gristmill.pipelines.workspace import open_workspace

TEXT = "Some text that compresses as text does, number {}, {}, {}."


def lines(count):
    return b"".join(
        json.dumps({"text": TEXT.format(n, n * n % 9973, n * n * n % 99991) * (1 + n % 5)}).encode() + b"\n"
        for n in range(count)
    )


@pytest.fixture
def sample(tmp_path, extractor):
    """A function: inputs and a number -> the sample's curation, plan and documents, read without Beam."""

    def sample(inputs, number, name="mill"):
        recipe = make_recipe(tmp_path / name, inputs)
        curation = sampled(prepare(recipe, beam_options([])), number)
        workspace = open_workspace(curation.recipe.workspace, create=True)
        plan = curation.plan_ingest(workspace)
        limits = Limits(plan.shard_bytes, recipe.max_document_bytes, sampled_share=plan.sampled_share)
        for split in plan.splits:
            list(write_split(workspace, split, limits, extractor))
        shards, _ = commit_corpus(workspace, plan)
        ids = [
            i
            for shard in shards
            for i in pq.read_table(workspace.documents(shard.name))["doc_id"].to_pylist()
        ]
        return curation, plan, ids

    return sample


FORMATS = {
    "a.jsonl": lambda path: path.write_bytes(lines(4000)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines(4000))),
    "a.jsonl.zst": lambda path: path.write_bytes(zstd.compress(lines(4000))),
    "a.parquet": lambda path: write_table(
        path, {"text": [TEXT.format(n, n, n) for n in range(4000)]}, row_group_size=500
    ),
    "a.warc.gz": lambda path: path.write_bytes(
        gzip_members(
            *(warc_record(url=f"http://h{n}/", body=http(html(TEXT.format(n, n, n)))) for n in range(800))
        )
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_about_as_many_documents_as_asked_for(tmp_path, sample, name):
    FORMATS[name](tmp_path / name)
    _, plan, ids = sample([tmp_path / name], 200)
    assert 140 < len(ids) < 260, plan.sampled_share


def test_of_many_files(tmp_path, sample):
    for n in range(40):
        (tmp_path / f"in/{n}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / f"in/{n}.jsonl").write_bytes(lines(50 + n))
    _, _, ids = sample([tmp_path / "in"], 300)
    assert 200 < len(ids) < 400


def test_no_more_than_there_are(tmp_path, sample):
    write_lines(tmp_path / "a.jsonl", *"abc")
    _, plan, ids = sample([tmp_path / "a.jsonl"], 1000)
    assert (plan.sampled_share, len(ids)) == (1.0, 3)


def test_of_nothing(tmp_path, sample):
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert sample([tmp_path / "a.jsonl"], 10)[2] == []


def test_the_same_documents_every_time_and_of_the_full_run(tmp_path, sample, ingest):
    (tmp_path / "a.jsonl").write_bytes(lines(3000))
    first, second = (
        sample([tmp_path / "a.jsonl"], 100)[2],
        sample([tmp_path / "a.jsonl"], 100, name="other")[2],
    )
    assert first == second
    everything = {row["doc_id"] for row in ingest(tmp_path / "a.jsonl", root=tmp_path / "full").documents}
    assert set(first) < everything
    larger = set(sample([tmp_path / "a.jsonl"], 300)[2])
    assert set(first) < larger


def test_a_sample_that_is_planned_again_is_the_same(tmp_path, sample):
    (tmp_path / "a.jsonl").write_bytes(lines(3000))
    curation, plan, _ = sample([tmp_path / "a.jsonl"], 100)
    workspace = open_workspace(curation.recipe.workspace)
    commit_plan(workspace, plan)
    again = curation.plan_ingest(workspace)
    assert (again.splits, again.sampled_share) == (plan.splits, plan.sampled_share)


def test_the_workspace_is_one_of_its_own(tmp_path, sample):
    write_lines(tmp_path / "a.jsonl", "a")
    curation, _, _ = sample([tmp_path / "a.jsonl"], 7)
    assert curation.recipe.workspace == f"{tmp_path}/mill-sample-7"
    assert not (tmp_path / "mill").exists()


def test_large_inputs_are_read_in_part():
    splits = [
        Split(f"part-{n}", None, "jsonl", (Piece("a", "a"),), size)
        for n, size in enumerate([40, 10, 30, 20, 50])
    ]
    chosen = choose_splits(splits, 60)
    assert chosen == choose_splits(splits, 60)
    assert sum(split.num_bytes for split in chosen) <= 60
    assert [split for split in splits if split in chosen] == chosen
    assert choose_splits(splits, 1000) == splits
    assert len(choose_splits(splits, 1)) == 1
    assert choose_splits([], 10) == []


def test_real_text(shared_data, sample):
    _, plan, ids = sample([shared_data / "corpus/mixed-00.jsonl.gz"], 1000)
    assert 800 < len(ids) < 1200, plan.sampled_share

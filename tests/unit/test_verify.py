"""Whatever is changed, cut or taken away behind the project's back is named; garbage is what nothing refers to."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import ingest, make_recipe, write_lines
from mills import Mill, Numbers, publish, score

from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.ledger import read_footer, write_side_file
from gristmill.pipelines.plan_splits import commit_plan, plan_ingest
from gristmill.pipelines.read_documents import Limits, group_blocks, write_shard
from gristmill.pipelines.score_documents import announce_scores, score_shard
from gristmill.pipelines.verify import collect_garbage, verify_workspace
from gristmill.pipelines.workspace import Workspace, open_workspace
from gristmill.scorers import schema
from gristmill.scorers.duplicates import ExactDuplicate

SCORERS = (Numbers(), ExactDuplicate())
RULES = {"where": {"good": "quality >= 1"}, "deduplicate": {}}
FIRST = "part-00000-00000-0000"


@pytest.fixture(scope="module")
def made(tmp_path_factory, extractor):
    """A whole workspace over two inputs: several shards, rejects, scores, decisions, a dataset."""
    folder = tmp_path_factory.mktemp("made")
    lines = [
        {"text": f"{number % 3} 0 0 {number}\n" + "word " * 20, "id": str(number)} for number in range(20)
    ]
    write_lines(folder / "a.jsonl", *lines, b"{broken")
    write_lines(folder / "b.jsonl", *lines[:5])
    corpus = ingest(folder / "mill", [folder / "a.jsonl", folder / "b.jsonl"], extractor, shard_bytes=1500)
    mill = Mill(corpus.workspace, [], corpus.shards, SCORERS)
    score(mill)
    publish(mill, RULES, part_bytes=400)
    return folder


@pytest.fixture
def mill(made, tmp_path):
    """A copy of it, so that a test may break it; its inputs stay where they are."""
    root = tmp_path / "mill"
    shutil.copytree(made / "mill", root)
    workspace = Workspace(str(root))
    return Mill(workspace, [], read_corpus(workspace), SCORERS)


def problems(mill):
    return verify_workspace(mill.workspace).problems


def only(found, *words):
    """The one problem found, which names all of these."""
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found[0]


def data_files(mill):
    root = Path(mill.workspace.root)
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_whole_workspace_has_no_problem(mill):
    report = verify_workspace(mill.workspace)
    assert report.problems == []
    assert report.orphans == [item for item in report.orphans if "/ledger/" in item]
    assert report.facts == [
        "corpus: 3 shards, 25 documents",
        "ledger: 5 stages add up",
        f"scores: exact_duplicate ({ExactDuplicate().fingerprint()})",
        f"scores: numbers ({Numbers().fingerprint()})",
        "decisions: s",
        "dataset: s",
    ]


def rewrite(path, column, values):
    """Replace a column of a side file and keep its footer, as a tool that knows the format could."""
    footer = {key: value for key, value in read_footer(path).items() if key != "num_rows"}
    table = pq.read_table(path).replace_schema_metadata(None)
    index = table.schema.get_field_index(column)
    changed = pa.chunked_array([pa.array(values(table[column].to_pylist()), table.schema.field(column).type)])
    write_side_file(path, table.set_column(index, table.schema.field(column), changed), footer)


def rewrite_corpus(path, column, change):
    with pa.ipc.open_file(path) as reader:
        batches = list(map(reader.get_batch, range(reader.num_record_batches)))
    with pa.ipc.new_file(path, schema.CORPUS) as writer:
        for batch in batches:
            values = change(batch.column(column).to_pylist())
            index, field = schema.CORPUS.get_field_index(column), schema.CORPUS.field(column)
            writer.write_batch(batch.set_column(index, field, pa.array(values, field.type)))


def test_changed_text(mill):
    rewrite_corpus(mill.workspace.corpus(FIRST), "text", lambda texts: [texts[0] + "!", *texts[1:]])
    only(problems(mill), f"{FIRST}.arrow: a text differs from its content hash")


def test_changed_doc_ids(mill):
    rewrite_corpus(mill.workspace.corpus(FIRST), "doc_id", lambda ids: ids[::-1])
    only(problems(mill), f"{FIRST}.arrow: doc_ids differ from ")


def test_shortened_corpus(mill):
    path = mill.workspace.corpus(FIRST)
    with pa.ipc.open_file(path) as reader:
        batch = reader.get_batch(0)
    with pa.ipc.new_file(path, schema.CORPUS) as writer:
        writer.write_batch(batch.slice(0, len(batch) - 1))
    only(problems(mill), f"{FIRST}.arrow: ", "documents, the manifest says")


@pytest.mark.parametrize("kind", ["corpus", "documents"])
def test_deleted_shard(mill, kind):
    os.unlink(getattr(mill.workspace, kind)(FIRST))
    assert any(f"{kind}/{FIRST}" in problem for problem in problems(mill))


def test_changed_documents(mill):
    rewrite(mill.workspace.documents(FIRST), "content_hash", lambda hashes: hashes[::-1])
    assert any(f"{FIRST}.parquet: not the " in problem for problem in problems(mill))


def test_deleted_rejects(mill):
    (path,) = Path(mill.workspace.path("rejects")).iterdir()
    path.unlink()
    only(problems(mill), f"ingest of {path.stem}: ", "the shard lost or gained rows")


def flip_a_byte(path, share):
    content = bytearray(Path(path).read_bytes())
    content[int(len(content) * share)] ^= 0xFF
    Path(path).write_bytes(content)


def test_every_value_of_a_score_file_counts(mill):
    """A damaged byte is noticed wherever it changes a number (headers hold statistics, too, which it may hit)."""
    path = Path(mill.workspace.scores("numbers", Numbers().fingerprint(), FIRST))
    whole, table = path.read_bytes(), pq.read_table(path)
    num_noticed = 0
    for position in range(0, len(whole), len(whole) // 30):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        if noticed := problems(mill):
            num_noticed += 1
            assert all(problem.startswith(f"{path}: ") for problem in noticed)
        else:
            assert pq.read_table(path).equals(table)
    assert num_noticed > 10


def test_score_file_of_other_documents(mill):
    path = mill.workspace.scores("numbers", Numbers().fingerprint(), FIRST)
    rewrite(path, "doc_id", lambda ids: ids[::-1])
    only(problems(mill), f"{FIRST}.parquet: doc_ids are not those of {FIRST}")


def test_score_file_without_its_accounts(mill):
    path = mill.workspace.scores("numbers", Numbers().fingerprint(), FIRST)
    pq.write_table(pq.read_table(path), path)
    only(problems(mill), f"{FIRST}.parquet: damaged or not written by gristmill", "delete it and run again")


def test_score_file_of_other_content(mill):
    path = mill.workspace.scores("numbers", Numbers().fingerprint(), FIRST)
    write_side_file(path, pq.read_table(path).replace_schema_metadata(None), {"content": "other"})
    only(problems(mill), f"{FIRST}.parquet: made from other documents")


@pytest.mark.parametrize("kind", ["scores", "decisions"])
def test_deleted_side_file(mill, kind):
    paths = {
        "scores": mill.workspace.scores("numbers", Numbers().fingerprint(), FIRST),
        "decisions": mill.workspace.decisions("s", FIRST),
    }
    os.unlink(paths[kind])
    assert f"{paths[kind]}: missing" in problems(mill)


def test_changed_decision(mill):
    rewrite(mill.workspace.decisions("s", FIRST), "kept", lambda kept: [not kept[0], *kept[1:]])
    only(problems(mill), "decisions of 's': not those of the manifest")


def test_decisions_without_manifest(mill):
    os.unlink(mill.workspace.path("decisions", "s", "manifest.json"))
    only(problems(mill), "decisions of 's': no manifest; `gristmill select` did not finish, run it again")


def test_changed_dataset(mill):
    flip_a_byte(mill.workspace.dataset("s", "train-00000-of-00003.parquet"), 0.3)
    only(
        problems(mill),
        "train-00000-of-00003.parquet: checksum differs from the manifest; delete the file and export",
    )


def test_deleted_part_of_a_dataset(mill):
    os.unlink(mill.workspace.dataset("s", "train-00001-of-00003.parquet"))
    only(problems(mill), "train-00001-of-00003.parquet: missing")


def test_dataset_without_manifest(mill):
    os.unlink(mill.workspace.dataset("s", "manifest.json"))
    report = verify_workspace(mill.workspace)
    only(report.problems, "datasets/s: no manifest; the export did not finish, run it again")
    assert mill.workspace.dataset("s", "train-00000-of-00003.parquet") in report.orphans


def test_changed_ledger(mill):
    path = mill.workspace.path("ledger", "ingest.parquet")
    table = pq.read_table(path)
    num_in = pa.array([value + 1 for value in table["num_in"].to_pylist()])
    pq.write_table(table.set_column(2, table.schema.field("num_in"), num_in), path)
    only(problems(mill), "ingest.parquet: ingest of part-", "which is a bug")
    Path(path).write_bytes(b"PAR1")
    only(problems(mill), "ingest.parquet: ")


def test_changed_and_vanished_inputs(mill, tmp_path):
    content = mill.workspace.read_json("corpus", "inputs.json")
    away = [shutil.copy2(file["path"], tmp_path) for item in content["inputs"] for file in item["files"]]
    text = json.dumps(content)
    for item in content["inputs"]:
        for file in item["files"]:
            text = text.replace(json.dumps(file["path"]), json.dumps(str(tmp_path / Path(file["path"]).name)))
    Path(mill.workspace.path("corpus", "inputs.json")).write_text(text)
    assert problems(mill) == []
    Path(away[0]).write_text(Path(away[0]).read_text().replace("word", "werd"))
    only(problems(mill), "a.jsonl: changed since it was ingested")
    os.unlink(away[0])
    only(problems(mill), "a.jsonl: gone since it was ingested")


def test_garbage_is_what_nothing_refers_to(mill):
    workspace = mill.workspace
    collect_garbage(workspace, verify_workspace(workspace))
    before = data_files(mill)
    old = Numbers(shift=1.0)
    for name in (
        ".tmp-0123", "corpus/.tmp-0123", f"scores/numbers/{Numbers().fingerprint()}/.tmp-0123", "datasets/s/.tmp-0123",
        "datasets/s/train-00000-of-00001.parquet", f"scores/numbers/{old.fingerprint()}/{FIRST}.parquet",
        "scores/gone/0123/manifest.json", "decisions/s/part-99999-00000-0000.parquet", "tmpabc.duckdb",
        "corpus/part-99999-00000-0000.arrow", "ledger/select-s/part.json", "takedowns/gone.parquet",
    ):  # fmt: skip
        path = Path(workspace.path(*name.split("/")))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left behind")
    workspace.commit_json({"pid": 1}, "lock")
    workspace.commit_json({}, "runs", "another.json")
    report = verify_workspace(workspace)
    assert report.problems == []
    assert len(report.orphans) == 12
    collect_garbage(workspace, report)
    after = data_files(mill)
    assert after.pop("lock")
    assert after.pop("runs/another.json")
    assert after == before
    assert verify_workspace(workspace).orphans == []


def test_scores_of_a_killed_run_are_no_garbage(mill):
    """What was scored before the kill was announced, and resuming does not score it again."""
    new = Numbers(shift=1.0)
    announce_scores(mill.workspace, [new, ExactDuplicate()])
    score_shard(mill.workspace, mill.shards[0], [new])
    report = verify_workspace(mill.workspace)
    assert report.problems == []
    path = mill.workspace.scores("numbers", new.fingerprint(), FIRST)
    assert path not in report.orphans
    collect_garbage(mill.workspace, report)
    before = os.stat(path).st_mtime_ns
    score(replace(mill, scorers=(new, ExactDuplicate())))
    assert os.stat(path).st_mtime_ns == before


def test_shards_of_a_killed_ingest_are_no_garbage(tmp_path, extractor):
    path = write_lines(tmp_path / "a.jsonl", *["some text " * 10] * 50)
    workspace = open_workspace(str(tmp_path / "mill"), create=True)
    plan = plan_ingest(workspace, make_recipe(tmp_path / "mill", [path]), shard_bytes=2000)
    commit_plan(workspace, plan)
    limits = Limits(2000, 1 << 20)
    blocks = [block for _, block in group_blocks(plan.splits[1], limits)]
    (shard,) = write_shard(workspace, plan.splits[1], 0, blocks, limits, extractor)
    report = verify_workspace(workspace)
    assert report.problems == []
    assert workspace.documents(shard) not in report.orphans
    assert workspace.corpus(shard) not in report.orphans


def test_lost_manifest_of_the_corpus_makes_no_garbage_of_it(mill):
    os.unlink(mill.workspace.path("corpus", "shards.json"))
    report = verify_workspace(mill.workspace)
    assert any("shards.json: missing; run `gristmill ingest`" in problem for problem in report.problems)
    assert mill.workspace.corpus(FIRST) not in report.orphans
    assert mill.workspace.documents(FIRST) not in report.orphans


def test_scorer_that_left_the_recipe_is_not_missed_on_new_shards(mill):
    os.unlink(mill.workspace.scores("numbers", Numbers().fingerprint(), mill.shards[-1].name))
    path = mill.workspace.path("ledger", f"score-numbers-{Numbers().fingerprint()}.parquet")
    pq.write_table(pq.read_table(path).slice(0, len(mill.shards) - 1), path)
    assert problems(mill) == []

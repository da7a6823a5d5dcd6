"""Datasets: parts, edits with their counts, checksums, the manifest last, and readers that open them as they are."""

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mills import NO_BLOCKS, Numbers, Row, build, publish

from gristmill.pipelines import dataset_card, files, write_dataset
from gristmill.pipelines.ledger import read_ledger
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_export import Export
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.select_documents import BlockLists
from gristmill.pipelines.takedowns import commit_takedowns
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.write_dataset import DATASET, plan_parts
from gristmill.scorers.base import SelectionError

ROWS = [
    Row(
        0,
        "1 0 0 1\nWrite to miller@example.com or call 212-555-0123 today.",
        "web",
        "a",
        "https://a.example/1",
        2020,
    ),
    Row(1, "0 0 0 1\nDropped, since its quality is not one.", "books"),
    Row(2, "1 0 0 1\nshort", "web", "c"),
    Row(
        3,
        "1 0 0 1\nThis is a sentence of more words than five.\nmenu | login",
        "code",
        url="http://b.example/2",
    ),
    Row(4, "1 0 0 1\nAnother sentence of more words than five.", "books", "é\n\"x'"),
]
GOOD = {"where": {"good": "quality >= 1"}}


@pytest.fixture
def mill(tmp_path):
    return build(tmp_path / "mill", [ROWS[:2], [], ROWS[2:3], ROWS[3:]])


def folder(mill):
    return Path(mill.workspace.dataset("s"))


def names(mill):
    return sorted(path.name for path in folder(mill).iterdir())


def read(mill):
    return [row for path in sorted(folder(mill).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_kept_documents_are_written_in_order_with_every_column(mill):
    publish(mill, GOOD)
    assert names(mill) == ["README.md", "manifest.json", "train-00000-of-00001.parquet"]
    rows = read(mill)
    kept = [ROWS[0], ROWS[2], ROWS[3], ROWS[4]]
    assert [row["doc_id"] for row in rows] == [str(row.doc_id) for row in kept]
    for name in ("text", "id", "source", "url"):
        assert [row[name] for row in rows] == [getattr(row, name) for row in kept]
    assert rows[0]["created"].isoformat() == "2020-07-01T00:00:00+00:00"
    assert rows[1]["created"] is None
    assert pq.read_schema(folder(mill) / "train-00000-of-00001.parquet").equals(DATASET)


def test_parts_hold_about_as_many_bytes_as_wanted(mill):
    publish(mill, GOOD)
    parts = plan_parts(mill.workspace, "s", mill.shards, part_bytes=80)
    assert [(part.name, part.shards, part.num_kept) for part in parts] == [
        ("train-00000-of-00002.parquet", ("part-00000-00000-0000", "part-00000-00002-0000"), 2),
        ("train-00001-of-00002.parquet", ("part-00000-00003-0000",), 2),
    ]
    assert [part.num_bytes for part in parts] == [len(ROWS[0].text) + len(ROWS[2].text), 113]
    assert len(plan_parts(mill.workspace, "s", mill.shards, part_bytes=1)) == 3
    assert plan_parts(mill.workspace, "s", mill.shards[1:2]) == []


def test_parts_hold_no_more_shards_than_allowed(mill, monkeypatch):
    monkeypatch.setattr(write_dataset, "MAX_SHARDS_A_PART", 1)
    publish(mill, GOOD)
    assert [name for name in names(mill) if name.startswith("train")] == [
        f"train-{i:05d}-of-00003.parquet" for i in range(3)
    ]


def test_selection_must_be_made_first(mill):
    with pytest.raises(SelectionError, match="selection 's' has no decisions for part-00000-00000-0000"):
        plan_parts(mill.workspace, "s", mill.shards)


def test_manifest_names_every_file_with_its_rows_bytes_and_checksum(mill):
    manifest = publish(mill, GOOD, part_bytes=1)
    assert manifest == mill.workspace.read_json("datasets", "s", "manifest.json")
    assert [file["name"] for file in manifest["files"]] == [
        f"train-{i:05d}-of-00003.parquet" for i in range(3)
    ]
    for file in manifest["files"]:
        content = (folder(mill) / file["name"]).read_bytes()
        assert file["num_bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["num_documents"] == pq.read_metadata(folder(mill) / file["name"]).num_rows
    assert (manifest["num_documents"], manifest["selection"], manifest["edits"]) == (4, "s", {})


def test_manifest_comes_last(mill, monkeypatch):
    committed = []
    commit_bytes = files.commit_bytes
    monkeypatch.setattr(
        files, "commit_bytes", lambda path, content: (committed.append(path), commit_bytes(path, content))
    )
    publish(mill, GOOD)
    assert committed[-2:] == [
        mill.workspace.dataset("s", "README.md"),
        mill.workspace.dataset("s", "manifest.json"),
    ]


def test_redaction_is_counted_and_leaves_the_corpus_alone(mill):
    manifest = publish(mill, GOOD, Export(redact_pii=True))
    assert manifest["edits"] == {"num_pii_redacted": 2}
    text = read(mill)[0]["text"]
    assert "example.com" not in text
    assert "555" not in text
    assert [row["text"] for row in read(mill)[1:]] == [row.text for row in ROWS[2:]]
    assert verify_workspace(mill.workspace).problems == []


def test_cleaning_is_counted_and_emptied_documents_are_accounted_for(mill):
    manifest = publish(mill, GOOD, Export(clean_lines="c4"), part_bytes=1)
    assert [row["text"] for row in read(mill)] == [
        "Write to miller@example.com or call 212-555-0123 today.",
        "This is a sentence of more words than five.",
        "Another sentence of more words than five.",
    ]
    assert manifest["edits"] == {"num_documents_cleaned": 4, "num_lines_removed": 6}
    ledger = read_ledger(mill.workspace, "export:s")
    assert [(row.num_in, row.num_out, row.num_dropped, row.reasons) for row in ledger] == [
        (1, 1, 0, {}),
        (1, 0, 1, {"emptied_by_cleaning": 1}),
        (2, 2, 0, {}),
    ]
    assert manifest["num_documents"] == 3


def test_metadata_can_be_left_out(mill):
    publish(mill, GOOD, Export(metadata=False))
    assert {row["metadata"] for row in read(mill)} == {None}


def test_another_selection_leaves_no_stale_part(mill):
    publish(mill, GOOD, part_bytes=1)
    publish(mill, {"where": {"good": "quality >= 1", "books": "source = 'books'"}}, part_bytes=1)
    assert names(mill) == ["README.md", "manifest.json", "train-00000-of-00001.parquet"]
    assert [row["doc_id"] for row in read(mill)] == [str(ROWS[4].doc_id)]
    assert verify_workspace(mill.workspace).problems == []


def test_interrupted_export_keeps_its_whole_parts(mill, monkeypatch):
    publish(mill, GOOD, part_bytes=1)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder(mill).glob("*.parquet")}
    (folder(mill) / "manifest.json").unlink()
    (folder(mill) / "train-00001-of-00003.parquet").write_bytes(b"PAR1 damaged")
    publish(mill, GOOD, part_bytes=1)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder(mill).glob("*.parquet")}
    assert [after[path][1] == before[path][1] for path in sorted(before)] == [True] * 3
    assert [after[path][0] == before[path][0] for path in sorted(before)] == [True, False, True]


def test_the_same_export_twice_gives_the_same_bytes(mill, tmp_path):
    other = build(tmp_path / "other", mill.rows)
    first, second = (publish(each, GOOD, Export(redact_pii=True, clean_lines="c4")) for each in (mill, other))
    assert first == second
    for name in names(mill):
        assert (folder(mill) / name).read_bytes() == (folder(other) / name).read_bytes()


def test_an_empty_dataset_is_a_dataset(mill):
    manifest = publish(mill, {"where": {"none": "quality > 99"}})
    assert (manifest["files"], manifest["num_documents"]) == ([], 0)
    assert verify_workspace(mill.workspace).problems == []


def test_card_says_what_was_dropped_and_under_which_licence(mill):
    publish(mill, GOOD)
    head, _, body = (folder(mill) / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(head) == {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
        ],
        "license": "other",
        "license_name": "see-below",
        "task_categories": ["text-generation"],
    }
    assert "4 of 5 documents, selected with gristmill" in body
    assert "| good | 5 | 4 | 80.00% |" in body
    assert f"| numbers | 1 | {Numbers().fingerprint()} |" in body
    assert "| books | CC0 |\n| code | CC0 |\n| web | CC0 |" in body
    rules = yaml.safe_load(body.partition("```yaml\n")[2].partition("```")[0])
    assert Selection(**rules) == Selection(name="s", **GOOD)


def test_card_keeps_its_tables_whole(mill):
    publish(mill, GOOD)
    recipe = Recipe(workspace="/w", corpus=[{"path": "/a", "source": "a|b", "licence": "MIT |\n| GPL"}])
    card = dataset_card.render(mill.workspace, recipe, Selection(name="s"), ())
    assert card.endswith("| source | licence |\n| --- | --- |\n| a\\|b | MIT \\| \\| GPL |\n")


def test_duckdb_opens_it_as_it_is(mill):
    publish(mill, GOOD, part_bytes=1)
    found = duckdb.sql(
        f"SELECT source, count(*) FROM '{folder(mill)}/*.parquet' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert found == [("books", 1), ("code", 1), ("web", 2)]


@pytest.mark.skipif(
    find_spec("datasets") is None, reason="needs Hugging Face `datasets`, which is not a dependency"
)
def test_hugging_face_opens_it_as_it_is(mill, tmp_path):
    publish(mill, GOOD, part_bytes=1)
    code = (
        "import sys, datasets; d = datasets.load_dataset(sys.argv[1], split='train', cache_dir=sys.argv[2]); "
        "print(d.num_rows, sorted(d.column_names), d[3]['id'] == 'é\\n\"x\\'')"
    )
    arguments = [sys.executable, "-c", code, str(folder(mill)), str(tmp_path / "cache")]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True, env={"HF_HUB_OFFLINE": "1"})
    assert found.stdout == f"4 {sorted(DATASET.names)} True\n"


# What must go from datasets already published.

LISTS = BlockLists(
    hosts=frozenset({"a.example"}), ids=frozenset({"c", "a"}), doc_ids=frozenset({str(ROWS[4].doc_id)})
)


def takedowns(mill):
    return pq.read_table(mill.workspace.path("takedowns", "s.parquet")).to_pylist()


def test_blocked_documents_of_a_published_dataset_are_listed(mill):
    publish(mill, GOOD, part_bytes=1)
    (note,) = commit_takedowns(mill.workspace, LISTS)
    assert note.startswith(
        "dataset 's' holds 3 documents on a block list: see `takedowns` in SQL, then export again"
    )
    found = [(row["doc_id"], row["reason"], row["file"], row["selection"]) for row in takedowns(mill)]
    assert found == [
        (str(ROWS[0].doc_id), "blocked_host", "train-00000-of-00003.parquet", "s"),
        (str(ROWS[2].doc_id), "blocked_id", "train-00001-of-00003.parquet", "s"),
        (str(ROWS[4].doc_id), "blocked_doc_id", "train-00002-of-00003.parquet", "s"),
    ]


def test_exporting_again_with_the_lists_drops_them(mill):
    publish(mill, GOOD)
    commit_takedowns(mill.workspace, LISTS)
    publish(mill, GOOD, block_lists=LISTS)
    assert commit_takedowns(mill.workspace, LISTS) == []
    assert takedowns(mill) == []
    assert [row["doc_id"] for row in read(mill)] == [str(ROWS[3].doc_id)]


def test_a_dataset_is_searched_again_only_when_it_or_the_lists_changed(mill, monkeypatch):
    publish(mill, GOOD)
    notes = commit_takedowns(mill.workspace, LISTS)
    path = Path(mill.workspace.path("takedowns", "s.parquet"))
    before = path.stat().st_mtime_ns
    assert commit_takedowns(mill.workspace, LISTS) == notes
    assert path.stat().st_mtime_ns == before
    assert commit_takedowns(mill.workspace, NO_BLOCKS) == []
    assert takedowns(mill) == []


def test_dataset_without_documents_has_nothing_to_take_down(mill):
    publish(mill, {"where": {"none": "quality > 99"}})
    assert commit_takedowns(mill.workspace, LISTS) == []
    assert pa.types.is_string(
        pq.read_schema(mill.workspace.path("takedowns", "s.parquet")).field("reason").type
    )

"""What is read, in which splits: layouts, packing, and inputs that came, changed, moved or went since."""

import json
import os
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import make_recipe, write_lines, write_table
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipelines import files, plan_splits
from gristmill.pipelines.load_recipe import missing_files
from gristmill.pipelines.plan_splits import commit_plan, discover, format_of, pack, plan_ingest
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.records import Piece
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.base import CorpusError, RecipeError


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(str(tmp_path / "mill"), create=True)


def make(folder, *names, content="x"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def found(path, **fields):
    """(relative path, format) of every file of an input, and those skipped."""
    discovered = discover(Input(path=str(path), source="web", **fields), place="corpus.0")
    return [(item.relative, item.format) for item in discovered.files], discovered.skipped


def plan(workspace, *inputs, commit=True, shard_bytes=1000):
    made = plan_ingest(workspace, make_recipe(workspace.root, inputs), shard_bytes=shard_bytes)
    if commit:
        commit_plan(workspace, made)
    return made


def pieces(made):
    return [[(p.relative, p.start, p.end) for p in split.pieces] for split in made.splits]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"),
        ("a.JSONL.GZ", "jsonl"),
        ("a.json.zst", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("train-00000-of-00001.parquet", "parquet"),
        ("a.warc.gz", "warc"),
        ("a.warc.wet.gz", "warc"),
        ("a.txt", "text"),
        ("a.md.xz", "text"),
        ("a.htm", "html"),
        ("x/a.html.bz2", "html"),
        ("a.csv", None),
        ("a.gz", None),
        ("jsonl", None),
        ("LICENSE", None),
        ("a.jsonl.lz4", None),
        ("dataset_info.json", None),
        ("data/state.json", None),
        ("a.parquet.crc", None),
    ],
)
def test_the_name_tells_the_format(name, form):
    assert format_of(name) == form


def test_a_folder_of_texts(tmp_path):
    make(tmp_path, "a.txt", "b/c.md", "d.html", ".git/config.txt", "_drafts/e.txt", "README.md")
    assert found(tmp_path) == (
        [("README.md", "text"), ("a.txt", "text"), ("b/c.md", "text"), ("d.html", "html")],
        [],
    )


def test_the_layout_of_hugging_face(tmp_path):
    make(
        tmp_path,
        "README.md",
        ".gitattributes",
        "dataset_infos.json",
        "data/dataset_info.json",
        "data/state.json",
    )
    write_table(tmp_path / "data/train-00000-of-00002.parquet", {"text": ["a"]})
    write_table(tmp_path / "data/train-00001-of-00002.parquet", {"text": ["b"]})
    assert found(tmp_path) == (
        [("data/train-00000-of-00002.parquet", "parquet"), ("data/train-00001-of-00002.parquet", "parquet")],
        [],
    )


def test_the_layout_of_dolma(tmp_path):
    make(
        tmp_path,
        "documents/a.json.gz",
        "documents/sub/b.jsonl.gz",
        "attributes/quality/a.json.gz",
        "README.md",
    )
    assert found(tmp_path) == (
        [("documents/a.json.gz", "jsonl"), ("documents/sub/b.jsonl.gz", "jsonl")],
        [],
    )


def test_what_a_folder_holds_besides_is_named(tmp_path, workspace):
    make(tmp_path / "in", "a.jsonl", "LICENSE", "b.csv", "notes.txt", "README.md")
    assert found(tmp_path / "in") == ([("a.jsonl", "jsonl")], ["LICENSE", "b.csv", "notes.txt"])
    assert plan(workspace, tmp_path / "in").warnings == (
        f"{tmp_path}/in: 3 files are not read, for their names tell no format or they lie beside structured data: "
        "LICENSE, b.csv, notes.txt",
    )
    make(tmp_path / "dolma", "documents/a.jsonl", "others/b.jsonl")
    assert found(tmp_path / "dolma")[1] == ["others/b.jsonl"]


def test_a_folder_without_a_single_file_to_read_is_refused(tmp_path, workspace):
    make(tmp_path / "in", "LICENSE", "b.csv", ".hidden.txt")
    with pytest.raises(RecipeError) as caught:
        plan(workspace, tmp_path / "in")
    assert str(caught.value) == (
        f"corpus.0.path: no file to read in {tmp_path}/in, only LICENSE, b.csv; set `format:` to one of jsonl, "
        "parquet, warc, text, html"
    )
    (tmp_path / "hidden").mkdir()
    make(tmp_path / "hidden", "_b.txt")
    with pytest.raises(RecipeError, match=r"no file to read in .*/hidden, only hidden ones"):
        plan(workspace, tmp_path / "hidden")


@pytest.mark.parametrize("pattern", ["b.csv", "*"])
def test_a_named_file_without_a_format_is_refused(tmp_path, workspace, pattern):
    make(tmp_path / "in", "a.jsonl", "b.csv")
    with pytest.raises(RecipeError) as caught:
        plan(workspace, tmp_path / "in" / pattern)
    assert str(caught.value) == (
        "corpus.0.path: the name 'b.csv' tells no format; set `format:` to one of jsonl, parquet, warc, text, html"
    )


def test_a_format_that_is_given_counts_for_all(tmp_path):
    make(tmp_path, "a.csv", "b.txt", ".c.txt")
    assert found(tmp_path, format="text") == ([("a.csv", "text"), ("b.txt", "text")], [])


def test_a_hidden_file_is_read_where_it_is_named(tmp_path):
    make(tmp_path, "_a.jsonl", "b.jsonl")
    assert found(tmp_path / "_a.jsonl") == ([("_a.jsonl", "jsonl")], [])
    assert found(tmp_path / "*.jsonl") == ([("b.jsonl", "jsonl")], [])


def test_a_folder_on_a_bucket_is_a_folder(monkeypatch):
    names = ["gs://b/in/documents/a.jsonl", "gs://b/in/attributes/a.jsonl"]
    monkeypatch.setattr(
        files, "list_files", lambda _: [files.FileInfo(name, 1, 0.0) for name in sorted(names)]
    )
    assert found("gs://b/in") == ([("documents/a.jsonl", "jsonl")], [])


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 60))
def test_packing_keeps_order_and_splits_nothing(sizes, shard_bytes):
    items = [(Piece(str(n), str(n)), size) for n, size in enumerate(sizes)]
    groups = list(pack(items, shard_bytes))
    assert [piece for group, _ in groups for piece in group] == [piece for piece, _ in items]
    assert sum(size for _, size in groups) == sum(sizes)
    assert all(group for group, _ in groups)
    assert all(size <= shard_bytes or len(group) == 1 for group, size in groups)


def test_small_files_share_a_split_and_large_ones_are_cut(tmp_path, workspace):
    for name, size in (("a", 400), ("b", 500), ("c", 2500), ("d", 10)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"x" * size)
    made = plan(workspace, tmp_path / "*.jsonl")
    assert pieces(made) == [
        [("a.jsonl", 0, None), ("b.jsonl", 0, None)],
        [("c.jsonl", 0, 1000)],
        [("c.jsonl", 1000, 2000)],
        [("c.jsonl", 2000, 2500), ("d.jsonl", 0, None)],
    ]
    assert [split.name for split in made.splits] == [f"part-00000-0000{n}" for n in range(4)]
    assert [split.num_bytes for split in made.splits] == [900, 1000, 1000, 510]


def test_streams_are_not_cut_and_count_what_they_expand_to(tmp_path, workspace):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(b"x" * 200)
    (tmp_path / "d.jsonl.zst").write_bytes(b"x" * 5000)
    made = plan(workspace, tmp_path / "*.jsonl.*")
    assert pieces(made) == [
        [("a.jsonl.gz", 0, None)],
        [("b.jsonl.gz", 0, None)],
        [("c.jsonl.gz", 0, None)],
        [("d.jsonl.zst", 0, None)],
    ]


def test_formats_do_not_share_a_split(tmp_path, workspace):
    make(tmp_path / "in", "a.txt", "b.html", "c.txt")
    made = plan(workspace, tmp_path / "in")
    assert [(split.format, [p.relative for p in split.pieces]) for split in made.splits] == [
        ("html", ["b.html"]),
        ("text", ["a.txt", "c.txt"]),
    ]


def test_row_groups_are_packed(tmp_path, workspace):
    write_table(tmp_path / "a.parquet", {"text": [f"{n:0100d}" for n in range(20)]}, row_group_size=4)
    made = plan(workspace, tmp_path / "a.parquet")
    covered = [(p.start, p.end) for split in made.splits for p in split.pieces]
    assert len(covered) > 1
    assert covered[0][0] == 0
    assert covered[-1][1] == 5
    assert all(end == start for (_, end), (start, _) in pairwise(covered))


@pytest.mark.parametrize("num_groups", [0, 1])
def test_a_parquet_file_without_rows_has_its_split(tmp_path, workspace, num_groups):
    empty = pa.table({"text": pa.array([], pa.string())})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, empty.schema) as writer:
        for _ in range(num_groups):
            writer.write_table(empty)
    assert pq.read_metadata(path).num_row_groups == num_groups
    assert pieces(plan(workspace, path)) == [[("a.parquet", 0, num_groups or None)]]


def test_what_is_no_parquet_is_planned_and_another_schema_refused(tmp_path, workspace):
    (tmp_path / "a.parquet").write_bytes(b"no")
    assert pieces(plan(workspace, tmp_path / "a.parquet")) == [[("a.parquet", 0, None)]]
    write_table(tmp_path / "b.parquet", {"other": ["a"]})
    with pytest.raises(RecipeError, match=r"b.parquet: no column 'text'"):
        plan(workspace, {"path": str(tmp_path / "b.parquet"), "source": "x"})


def test_a_plan_survives_being_written(tmp_path, workspace):
    write_lines(tmp_path / "a.jsonl", *(str(n) * 100 for n in range(30)))
    entry = {"path": str(tmp_path / "a.jsonl"), "source": "s", "url": "u", "licence": "l"}
    first = plan(workspace, entry)
    assert plan(workspace, entry) == first.__class__(first.inputs, 0, (), 1000)
    assert plan(workspace, entry, shard_bytes=7).shard_bytes == 1000


def test_new_inputs_are_appended(tmp_path, workspace):
    write_lines(tmp_path / "b.jsonl", "b")
    first = plan(workspace, tmp_path / "*.jsonl")
    write_lines(tmp_path / "a.jsonl", "a")
    write_lines(tmp_path / "c.jsonl", "c")
    second = plan(workspace, tmp_path / "*.jsonl")
    assert (first.num_new_files, second.num_new_files) == (1, 2)
    assert [s.name for s in second.splits] == ["part-00000-00000", "part-00001-00000"]
    assert pieces(second) == [[("b.jsonl", 0, None)], [("a.jsonl", 0, None), ("c.jsonl", 0, None)]]
    assert second.inputs[0] == first.inputs[0]


def test_an_input_that_changed_is_refused(tmp_path, workspace):
    path = write_lines(tmp_path / "a.jsonl", "one", "two")
    plan(workspace, path)
    write_lines(path, "one", "2")
    with pytest.raises(CorpusError) as caught:
        plan(workspace, path)
    assert str(caught.value) == (
        f"{path}: changed since it was ingested (then 32 bytes, now 30); restore it, give the changed file another "
        "name or source, or ingest into a new workspace"
    )
    write_lines(path, "one", "TWO")
    with pytest.raises(CorpusError, match=r"changed since it was ingested \(then 32 bytes, now 32\)"):
        plan(workspace, path)


def test_an_input_that_was_touched_is_the_same(tmp_path, workspace, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", "one")
    plan(workspace, path)
    os.utime(path, (1, 1))
    plan(workspace, path)
    monkeypatch.setattr(plan_splits, "digest", lambda _: pytest.fail("digested though nothing changed"))
    plan(workspace, path)


def test_an_input_that_vanished_is_reported(tmp_path, workspace):
    write_lines(tmp_path / "a.jsonl", "one")
    write_lines(tmp_path / "b.jsonl", "two")
    first = plan(workspace, tmp_path / "*.jsonl")
    (tmp_path / "a.jsonl").unlink()
    second = plan(workspace, tmp_path / "*.jsonl")
    assert second.warnings == (
        f"{tmp_path}/a.jsonl: ingested before, no longer among the recipe's inputs; its documents stay in the corpus",
    )
    assert second.inputs == first.inputs


def test_choosing_again_needs_no_raw_inputs(tmp_path, workspace):
    entries = [write_lines(tmp_path / "in/a.jsonl", "one")]
    first = plan(workspace, *entries)
    (tmp_path / "in/a.jsonl").unlink()
    assert missing_files(make_recipe(workspace.root, entries)) == []
    second = plan(workspace, *entries)
    assert (second.inputs, len(second.warnings)) == (first.inputs, 1)
    with pytest.raises(CorpusError, match=r"corpus.1.path: nothing matches .*b.jsonl; expected a file"):
        plan(workspace, *entries, tmp_path / "in/b.jsonl")


def test_an_input_that_moved_is_read_from_where_it_is(tmp_path, workspace):
    write_lines(tmp_path / "old/a.jsonl", "one")
    first = plan(workspace, tmp_path / "old/*.jsonl")
    (tmp_path / "old").rename(tmp_path / "new")
    second = plan(workspace, tmp_path / "new/*.jsonl")
    assert (second.num_new_files, second.warnings) == (0, ())
    assert [p.path for s in second.splits for p in s.pieces] == [f"{tmp_path}/new/a.jsonl"]
    assert [f.path for item in second.inputs for f in item.files] == [f"{tmp_path}/new/a.jsonl"]
    assert pieces(second) == pieces(first)
    assert plan(workspace, tmp_path / "new/*.jsonl") == second


@pytest.mark.parametrize("name", ["text", "id", "url", "created", "source_field"])
def test_other_field_names_are_refused(tmp_path, workspace, name):
    path = write_lines(tmp_path / "a.jsonl", "one")
    plan(workspace, path)
    before = getattr(Input(path="a", source="b"), name)
    with pytest.raises(RecipeError) as caught:
        plan(workspace, {"path": str(path), name: "other"})
    assert str(caught.value) == (
        f"corpus.0.{name}: 'other', but {path} was ingested with {before!r}; restore it, or ingest into a new workspace"
    )


def test_saying_the_format_that_the_name_told_changes_nothing(tmp_path, workspace):
    path = write_lines(tmp_path / "a.jsonl", "one")
    plan(workspace, path)
    assert plan(workspace, {"path": str(path), "format": "jsonl"}).num_new_files == 0
    with pytest.raises(RecipeError, match=r"corpus.0.format: 'text', but .* was ingested with 'jsonl'"):
        plan(workspace, {"path": str(path), "format": "text"})


def test_a_licence_may_change(tmp_path, workspace):
    path = write_lines(tmp_path / "a.jsonl", "one")
    plan(workspace, path)
    assert plan(workspace, {"path": str(path), "licence": "CC0"}).num_new_files == 0


def test_two_files_of_one_source_and_name_are_refused(tmp_path, workspace):
    write_lines(tmp_path / "x/a.jsonl", "one")
    write_lines(tmp_path / "y/a.jsonl", "two")
    with pytest.raises(CorpusError) as caught:
        plan(workspace, tmp_path / "x/a.jsonl", tmp_path / "y/a.jsonl")
    assert str(caught.value) == (
        f"{tmp_path}/y/a.jsonl: source 'web' already has a file 'a.jsonl', and a document's id is made of both; "
        "give one of the inputs another source"
    )
    made = plan(workspace, tmp_path / "x/a.jsonl", {"path": str(tmp_path / "y/a.jsonl"), "source": "other"})
    assert made.num_new_files == 2


def test_a_file_that_is_not_readable_is_refused(tmp_path, workspace, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", "one")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "open_read", refuse)
    with pytest.raises(CorpusError) as caught:
        plan(workspace, path)
    assert (
        str(caught.value)
        == f"{path}: cannot be read (Permission denied); mend it, or leave it out of the recipe"
    )


def test_large_files_are_digested_by_samples(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(bytes(9 << 20))
    first = plan_splits.digest(files.file_info(str(path)))
    content = bytearray(9 << 20)
    content[-1] = 1
    path.write_bytes(content)
    assert plan_splits.digest(files.file_info(str(path))) != first
    path.write_bytes(bytes(8 << 20))
    assert plan_splits.digest(files.file_info(str(path))) != first


def test_file_names_that_are_not_unicode(tmp_path, workspace):
    path = os.fsencode(tmp_path) + b"/in/\xff.jsonl"
    (tmp_path / "in").mkdir()
    with open(path, "wb") as file:
        file.write(b'{"text": "a"}\n')
    made = plan(workspace, tmp_path / "in")
    assert plan(workspace, tmp_path / "in").splits == made.splits
    assert json.loads((tmp_path / "mill/corpus/inputs.json").read_text())

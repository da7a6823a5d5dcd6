"""The plan of a run is printed without a trace on the disk."""

import pytest
from corpora import make_recipe, write_lines

from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.preview import preview
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.sample import sampled
from gristmill.scorers.base import CorpusError, RecipeError, WorkspaceError


def curation(root, *inputs, **keys):
    return prepare(make_recipe(root, inputs, **keys), beam_options([]))


def names_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_nothing_is_written(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", "one", "two")
    before = names_below(tmp_path)
    for planned in (curation(tmp_path / "mill", path), sampled(curation(tmp_path / "mill", path), 5)):
        lines = list(preview(planned))
        assert any(line.startswith("ingest     0 of 1 splits cached; to read about 32 B") for line in lines)
        assert any(line == f"input      web: 1 files, 32 B, {path}" for line in lines)
    assert lines[0] == f"workspace  {tmp_path}/mill-sample-5  (new)"
    assert names_below(tmp_path) == before


def test_nothing_is_written_into_a_workspace(tmp_path, ingest):
    path = write_lines(tmp_path / "a.jsonl", "one", "two")
    corpus = ingest(path)
    write_lines(tmp_path / "b.jsonl", "three")
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names_below(tmp_path)}
    lines = list(
        preview(curation(corpus.workspace.root, path, tmp_path / "b.jsonl", score=["exact_duplicate"]))
    )
    (line,) = [line for line in lines if line.startswith("ingest")]
    assert line.startswith("ingest     1 of 2 splits cached; to read about 18 B, about 6 documents; about ")
    assert any("exact_duplicate" in line and "0 of 1 shards cached" in line for line in lines)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in names_below(tmp_path)} == before


def test_a_plan_with_nothing_to_do(tmp_path, ingest):
    path = write_lines(tmp_path / "a.jsonl", "one")
    corpus = ingest(path)
    lines = list(preview(curation(corpus.workspace.root, path)))
    assert "ingest     1 of 1 splits cached; nothing to read" in lines


def test_what_a_run_would_refuse_is_refused(tmp_path, ingest):
    path = write_lines(tmp_path / "a.jsonl", "one")
    corpus = ingest(path)
    root = corpus.workspace.root
    with pytest.raises(RecipeError, match="nothing matches"):
        curation(tmp_path / "new", tmp_path / "absent.jsonl")
    with pytest.raises(CorpusError, match="nothing matches"):
        list(preview(curation(root, tmp_path / "absent.jsonl")))
    write_lines(path, "changed")
    with pytest.raises(CorpusError, match="changed since it was ingested"):
        list(preview(curation(root, path)))
    corpus.workspace.commit_json({"format": 99}, "workspace.json")
    with pytest.raises(WorkspaceError, match="format 99"):
        list(preview(curation(root, path)))


def test_what_is_not_read_is_said(tmp_path):
    write_lines(tmp_path / "in/a.jsonl", "one")
    (tmp_path / "in/b.csv").write_text("x")
    lines = list(preview(curation(tmp_path / "mill", tmp_path / "in")))
    assert [line for line in lines if line.startswith("warning")] == [
        f"warning    {tmp_path}/in: 1 files are not read, for their names tell no format or they lie beside structured "
        "data: b.csv"
    ]

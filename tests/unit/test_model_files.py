"""Models on a bucket: copied once, kept in step with what lies there, errors that name the bucket's path."""

from pathlib import Path

import pytest
from tiny_models import TEXT, tiny

from gristmill.pipelines import files, model_files
from gristmill.pipelines.model_files import commit_model, local_copy, localised, read_manifest, work_folder
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import ScorerError
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that is `mem://mill`, and a list of the files that were read from it."""
    root = tmp_path / "bucket"
    root.mkdir()
    read = []

    def real(path):
        return path.replace("mem://mill", str(root))

    def list_files(path):
        place = Path(real(path))
        found = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
        return [
            files.FileInfo(
                str(file).replace(str(root), "mem://mill"), file.stat().st_size, file.stat().st_mtime
            )
            for file in found
        ]

    def open_read(path):
        read.append(path)
        return open(real(path), "rb")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files.files, "list_files", list_files)
    monkeypatch.setattr(model_files.files, "open_read", open_read)
    return root, read


def test_local_paths_stay(tmp_path):
    assert local_copy(str(tmp_path)) == str(tmp_path)
    assert local_copy("/nowhere") == "/nowhere"


def test_a_folder_is_copied_once_and_follows_the_bucket(bucket):
    root, read = bucket
    for name, content in (("a.bin", b"1"), ("deep/b.bin", b"2")):
        (root / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "model" / name).write_bytes(content)
    copy = Path(local_copy("mem://mill/model"))
    assert {str(p.relative_to(copy)): p.read_bytes() for p in copy.rglob("*.bin")} == {
        "a.bin": b"1",
        "deep/b.bin": b"2",
    }
    assert len(read) == 2
    assert local_copy("mem://mill/model/") == str(copy)
    assert len(read) == 2

    (root / "model/deep/b.bin").unlink()
    (root / "model/c.bin").write_bytes(b"3")
    assert local_copy("mem://mill/model") == str(copy)
    assert read[2:] == ["mem://mill/model/c.bin"]
    assert sorted(path.name for path in copy.rglob("*.bin")) == ["a.bin", "c.bin"], "b.bin is gone"


def test_a_single_file_is_copied(bucket):
    root, _ = bucket
    (root / "lid.bin").write_bytes(b"model")
    copy = Path(local_copy("mem://mill/lid.bin"))
    assert (copy.name, copy.read_bytes()) == ("lid.bin", b"model")
    assert local_copy("mem://mill/lid.bin") == str(copy)


def test_errors_name_the_path_of_the_bucket(bucket):
    scorer = make_scorer("perplexity", {"model": "mem://mill/nothing"})
    with pytest.raises(ScorerError, match=r"perplexity\.model: mem://mill/nothing: no language model here"):
        localised(scorer).fingerprint()


def test_a_scorer_runs_from_its_copy(bucket):
    root, _ = bucket
    model = tiny()
    model.save(root / "model")
    scorer = localised(make_scorer("perplexity", {"model": "mem://mill/model"}))
    local = make_scorer("perplexity", {"model": str(root / "model")})
    assert scorer.fingerprint() == local.fingerprint()
    batch = TextBatch.from_texts([TEXT])
    assert scorer.score(batch).equals(local.score(batch))
    tiny(seed=1).save(root / "model")
    assert (
        localised(make_scorer("perplexity", {"model": "mem://mill/model"})).fingerprint()
        != scorer.fingerprint()
    )


def test_another_model_takes_the_place_of_one(tmp_path):
    workspace = Workspace(str(tmp_path / "mill"))
    made = work_folder(workspace, "prior") / "made"
    made.mkdir(parents=True)
    (made / "a.bin").write_bytes(b"1")
    commit_model(workspace, "prior", made, {"identity": "first"})
    (made / "a.bin").rename(made / "b.bin")
    commit_model(workspace, "prior", made, {"identity": "second"})
    assert read_manifest(workspace, "prior") == {"identity": "second"}
    assert sorted(path.name for path in (tmp_path / "mill/models/prior").iterdir()) == [
        "b.bin",
        "manifest.json",
    ]
    assert work_folder(Workspace("mem://mill/ws"), "prior") != work_folder(
        Workspace("mem://mill/ws"), "tokenizer"
    )

"""Listing inputs and committing files on a local disk."""

import os
import stat

import pytest

from gristmill.pipelines import files
from gristmill.scorers.base import CorpusError


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def listed(folder, pattern=""):
    root = f"{folder}/"
    return [
        item.path.removeprefix(root) for item in files.list_files(root + pattern if pattern else str(folder))
    ]


NAMES = [
    "a.jsonl",
    "b/a.jsonl",
    "b/c/a.jsonl",
    "b/c/d.txt",
    "b-c/a.jsonl",
    ".hidden",
    "e[1].jsonl",
    "e1.jsonl",
]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", sorted(NAMES)),
        ("a.jsonl", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl", "e1.jsonl", "e[1].jsonl"]),
        ("b/*", ["b/a.jsonl"]),
        ("b*/a.jsonl", ["b-c/a.jsonl", "b/a.jsonl"]),
        ("*/*/a.jsonl", ["b/c/a.jsonl"]),
        ("**.jsonl", ["a.jsonl", "b-c/a.jsonl", "b/a.jsonl", "b/c/a.jsonl", "e1.jsonl", "e[1].jsonl"]),
        ("**/a.jsonl", ["b-c/a.jsonl", "b/a.jsonl", "b/c/a.jsonl"]),
        ("b/**", ["b/a.jsonl", "b/c/a.jsonl", "b/c/d.txt"]),
        ("?.jsonl", ["a.jsonl"]),
        ("e[0-9].jsonl", ["e1.jsonl"]),
        ("e[1].jsonl", ["e[1].jsonl"]),
        ("b/c", ["b/c/a.jsonl", "b/c/d.txt"]),
        ("absent", []),
        ("absent/*.jsonl", []),
        ("*.parquet", []),
    ],
)
def test_what_a_path_names(tmp_path, pattern, found):
    make(tmp_path, *NAMES)
    assert listed(tmp_path, pattern) == found


def test_sizes_and_times(tmp_path):
    make(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", (1000, 2000.5))
    assert files.list_files(str(tmp_path / "a.txt")) == [files.FileInfo(f"{tmp_path}/a.txt", 5, 2000.5)]
    assert files.file_info(f"{tmp_path}/a.txt") == files.FileInfo(f"{tmp_path}/a.txt", 5, 2000.5)


def test_a_name_that_looks_like_a_glob(tmp_path):
    make(tmp_path, "e[1].jsonl", "e1.jsonl", "f[2]/g.txt")
    assert files.file_info(f"{tmp_path}/e[1].jsonl").size == len("e[1].jsonl")
    assert listed(tmp_path, "f[2]") == ["f[2]/g.txt"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path, "data/a.txt", "elsewhere/b.txt")
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "data") == ["a.txt", "link/b.txt"]
    (tmp_path / "data/circle").symlink_to(tmp_path / "data")
    with pytest.raises(CorpusError, match=r"data/circle: a link to a folder that holds it"):
        listed(tmp_path / "data")
    assert listed(tmp_path / "data", "*.txt") == ["a.txt"]


def test_what_is_no_file_is_refused(tmp_path):
    make(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(CorpusError, match=r"pipe.txt: not a regular file"):
        listed(tmp_path)
    assert listed(tmp_path, "a*") == ["a.txt"]


@pytest.mark.parametrize("pattern", ["", "*/*.jsonl", "**.jsonl", "closed/*.jsonl"])
def test_a_folder_that_is_not_readable_is_refused(tmp_path, pattern, monkeypatch):
    make(tmp_path, "open/a.jsonl", "closed/b.jsonl", "other/deep/c.jsonl")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CorpusError, match=r"closed: the folder is not readable \(Permission denied\)"):
        listed(tmp_path, pattern)


@pytest.mark.parametrize("pattern", ["open/*.jsonl", "o*/*.jsonl", "*.txt"])
def test_a_folder_that_does_not_matter_may_be_unreadable(tmp_path, pattern, monkeypatch):
    make(tmp_path, "open/a.jsonl", "closed/b.jsonl", "a.txt")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(listed(tmp_path, pattern)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_without_permission(tmp_path):
    make(tmp_path, "closed/b.jsonl")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(CorpusError, match="not readable"):
            listed(tmp_path)
    finally:
        (tmp_path / "closed").chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/a/b/*.jsonl", "/a/b"),
        ("/a/b*/c/*.jsonl", "/a"),
        ("/a/b.jsonl", "/a"),
        ("gs://bucket/a/*.jsonl", "gs://bucket/a"),
        ("gs://bucket/a.jsonl", "gs://bucket"),
        ("gs://bucket/*", "gs://bucket"),
    ],
)
def test_what_relative_paths_are_relative_to(path, root):
    assert files.input_root(path) == root


@pytest.mark.parametrize(
    ("relative", "hidden"),
    [
        ("a.jsonl", False),
        ("a/b.jsonl", False),
        (".a.jsonl", True),
        ("_SUCCESS", True),
        ("_temporary/0/a.jsonl", True),
        ("a/.b.jsonl.crc", True),
        ("a_b.jsonl", False),
    ],
)
def test_hidden_files(relative, hidden):
    assert files.is_hidden(relative) is hidden


def write_half(path, error):
    with files.committed(str(path)) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_by_a_write_that_fails(tmp_path, error):
    path = tmp_path / "new/folder/a.bin"
    with pytest.raises(error):
        write_half(path, error)
    assert list(path.parent.iterdir()) == []


def test_a_commit_replaces_whole_files(tmp_path):
    path = tmp_path / "a.bin"
    files.commit_bytes(str(path), b"old" * 1000)
    with files.committed(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old" * 1000
        (temporary,) = [name for name in os.listdir(tmp_path) if name != "a.bin"]
        assert temporary.startswith(files.TEMPORARY_PREFIX)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["a.bin"])
    with pytest.raises(ValueError, match="stop"):
        write_half(path, ValueError("stop"))
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["a.bin"])


def test_files_already_gone_are_no_error(tmp_path):
    make(tmp_path, "a.txt")
    files.delete([f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"])
    files.delete([])
    assert list(tmp_path.iterdir()) == []

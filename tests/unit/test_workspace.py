"""One writer at a time; what a killed one leaves behind stops nobody; listing a folder that others write to."""

import json
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from gristmill.pipelines import files
from gristmill.pipelines.workspace import _start_time, locked, open_workspace
from gristmill.scorers.base import CorpusError, WorkspaceError


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(str(tmp_path / "mill"), create=True)


def test_workspace_of_another_format_is_refused(workspace):
    workspace.commit_json({"format": 99}, "workspace.json")
    with pytest.raises(WorkspaceError, match="format 99, this version reads and writes 1"):
        open_workspace(workspace.root)


def test_absent_workspace_is_not_made_by_opening(tmp_path):
    with pytest.raises(
        WorkspaceError, match=r"no workspace.json here; expected a workspace made by `gristmill run`"
    ):
        open_workspace(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_workspace_keeps_its_identity(workspace):
    before = workspace.read_json("workspace.json")
    assert open_workspace(workspace.root + "/", create=True).read_json("workspace.json") == before


def test_lock_is_held_and_given_back(workspace):
    with locked(workspace):
        assert workspace.read_json("lock")["pid"] == os.getpid()
        with pytest.raises(WorkspaceError, match=f"locked by process {os.getpid()} on "):
            with locked(workspace):
                pytest.fail("two runs hold one lock")
        assert workspace.read_json("lock") is not None
    assert workspace.read_json("lock") is None


def test_lock_is_given_back_by_a_run_that_fails(workspace):
    with pytest.raises(ValueError, match="mine"), locked(workspace):
        raise ValueError("mine")
    assert not Path(workspace.path("lock")).exists()


def test_lock_of_a_dead_process_is_taken_over(workspace):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        workspace.commit_json(
            {"host": os.uname().nodename, "pid": process.pid, "started": _start_time(process.pid)}, "lock"
        )
        with pytest.raises(WorkspaceError, match=f"locked by process {process.pid}"), locked(workspace):
            pass
        process.communicate(b"\n")
    with locked(workspace):
        assert workspace.read_json("lock")["pid"] == os.getpid()


def test_lock_of_another_process_with_the_same_id_is_taken_over(workspace):
    workspace.commit_json({"host": os.uname().nodename, "pid": os.getpid(), "started": "1"}, "lock")
    with locked(workspace):
        pass


def test_lock_of_another_host_is_respected(workspace):
    workspace.commit_json({"host": "elsewhere", "pid": 1, "started": "1"}, "lock")
    with pytest.raises(WorkspaceError, match="locked by process 1 on elsewhere"), locked(workspace):
        pass


def test_lock_appears_whole(workspace, monkeypatch):
    """A process killed while it takes the lock may not leave half a lock that nobody can read."""

    def die(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", die)
    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt), locked(workspace):
        pass
    monkeypatch.undo()
    assert not Path(workspace.path("lock")).exists()
    with locked(workspace):
        pass


def test_unreadable_lock_is_explained(workspace):
    Path(workspace.path("lock")).write_bytes(b"")
    with (
        pytest.raises(WorkspaceError, match="/lock is damaged; delete it if no run is alive"),
        locked(workspace),
    ):
        pass


def write_half(path):
    with files.committed(path) as file:
        file.write(b"half")
        raise ValueError("halfway")


def test_committed_file_appears_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "deep" / "file")
    with pytest.raises(ValueError, match="halfway"):
        write_half(path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]
    files.commit_bytes(path, b"old")
    with pytest.raises(ValueError, match="halfway"):
        write_half(path)
    assert Path(path).read_bytes() == b"old"


def test_files_that_vanish_while_a_folder_is_listed_are_no_error(tmp_path):
    """Workers commit (write aside, rename) while the launcher looks how far they are."""
    stop = threading.Event()
    (tmp_path / "there").write_text("")

    def commit():
        while not stop.is_set():
            files.commit_bytes(str(tmp_path / f"{uuid.uuid4().hex}.json"), b"{}")

    threads = [threading.Thread(target=commit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert str(tmp_path / "there") in [item.path for item in files.list_folder(str(tmp_path))]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_dangling_links_are_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"link: cannot be looked at .*; a dangling link"):
        files.list_folder(str(tmp_path))

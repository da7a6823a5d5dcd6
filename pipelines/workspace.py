"""One workspace per corpus: where everything lies, who may write, and what counts as committed."""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.pipelines import files
from gristmill.scorers.base import WorkspaceError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace; holds no state, so it travels to workers as it is.

    Args:
        root: Folder or bucket prefix.
    """

    root: str

    def path(self, *parts: str) -> str:
        """A path below the root."""
        return files.join(self.root, *parts)

    def corpus(self, shard: str) -> str:
        """The Arrow IPC file of a shard's documents with text."""
        return self.path("corpus", f"{shard}.arrow")

    def documents(self, shard: str) -> str:
        """The Parquet file of the same rows without text; committed last, so it marks the shard as whole."""
        return self.path("documents", f"{shard}.parquet")

    def rejects(self, shard: str) -> str:
        """The Parquet file of what could not be read while the shard was made."""
        return self.path("rejects", f"{shard}.parquet")

    def scores(self, scorer: str, fingerprint: str, shard: str) -> str:
        """The Parquet side file of one scorer, row-aligned with the shard."""
        return self.path("scores", scorer, fingerprint, f"{shard}.parquet")

    def duplicates(self, shard: str) -> str:
        """The Parquet file of the shard's near duplicates."""
        return self.path("duplicates", f"{shard}.parquet")

    def decisions(self, selection: str, shard: str) -> str:
        """The Parquet file of one selection's decisions, row-aligned with the shard."""
        return self.path("decisions", selection, f"{shard}.parquet")

    def dataset(self, selection: str, *parts: str) -> str:
        """A path inside the curated output of a selection."""
        return self.path("datasets", selection, *parts)

    def read_json(self, *parts: str) -> Any:
        """A committed JSON file, None where it is absent."""
        path = self.path(*parts)
        return json.loads(files.read_bytes(path)) if files.exists(path) else None

    def commit_json(self, content: Any, *parts: str) -> None:
        """Write a JSON file, whole or not at all, with sorted keys."""
        files.commit_bytes(self.path(*parts), json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def open_workspace(root: str, *, create: bool = False) -> Workspace:
    """Check that a workspace is there and of this format, or make one.

    Raises:
        WorkspaceError: If it is absent, or was written by another format version.
    """
    workspace = Workspace(root.rstrip("/"))
    identity = workspace.read_json("workspace.json")
    if identity is None:
        if not create:
            raise WorkspaceError(
                f"{root}: no workspace.json here; expected a workspace made by `gristmill run`"
            )
        if files.is_local(root):
            os.makedirs(root, exist_ok=True)
        workspace.commit_json({"format": FORMAT_VERSION, "id": str(uuid.uuid4())}, "workspace.json")
    elif identity.get("format") != FORMAT_VERSION:
        raise WorkspaceError(
            f"{root}: format {identity.get('format')!r}, this version reads and writes {FORMAT_VERSION}; "
            "use the version that made it, or a new workspace"
        )
    return workspace


@contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace's lock file while writing.

    The lock of a process that died on this host is taken over. A bucket offers no exclusive create, so there
    the lock is advisory: it is written and read back.

    Raises:
        WorkspaceError: If a run that may be alive holds the lock.
    """
    path = workspace.path("lock")
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "pid": pid, "started": _start_time(pid), "token": uuid.uuid4().hex}
    try:
        holder = workspace.read_json("lock")
    except ValueError as error:
        raise WorkspaceError(f"{path} is damaged; delete it if no run is alive") from error
    if holder is not None and not _is_dead(holder):
        raise WorkspaceError(
            f"{workspace.root}: locked by process {holder['pid']} on {holder['host']}; "
            f"wait for that run, or delete {path} if it is gone"
        )
    if holder is not None:
        files.delete([path])
    _create_lock(workspace, owner)
    try:
        yield
    finally:
        files.delete([path])


def _is_dead(holder: dict[str, Any]) -> bool:
    return holder["host"] == socket.gethostname() and _start_time(holder["pid"]) != holder["started"]


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: a process id alone is reused, in containers at once."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return None


def _create_lock(workspace: Workspace, owner: dict[str, Any]) -> None:
    path = workspace.path("lock")
    if files.is_local(path):
        aside = workspace.path(f"{files.TEMPORARY_PREFIX}{owner['token']}")
        files.commit_bytes(aside, json.dumps(owner).encode())
        try:
            os.link(aside, path)  # unlike a rename, this fails where the lock is there already
        except FileExistsError as error:
            raise WorkspaceError(
                f"{workspace.root}: another run took the lock just now; wait for it"
            ) from error
        finally:
            files.delete([aside])
    else:
        workspace.commit_json(owner, "lock")
        if workspace.read_json("lock") != owner:
            raise WorkspaceError(f"{workspace.root}: another run took the lock just now; wait for it")

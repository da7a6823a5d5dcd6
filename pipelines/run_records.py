"""Records of runs: `runs/<run>.json`, one for each, however it ended."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import GristmillError


@contextmanager
def recorded(workspace: Workspace, command: str) -> Iterator[None]:
    """Leave a record of the run, however it ends."""
    started = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
    record = {"run": f"{moment}-{uuid.uuid4().hex[:8]}", "started": moment, "command": command, "message": ""}

    def commit(status: str) -> None:
        """A run that is killed leaves the status it had."""
        seconds = round(time.time() - started, 3)
        content = {**record, "status": status, "seconds": seconds, "version": version("gristmill")}
        workspace.commit_json(content, "runs", f"{record['run']}.json")

    commit("running")
    status = "failed"
    try:
        yield
        status = "finished"
    except GristmillError as error:
        record["message"] = str(error)
        raise
    finally:
        commit(status)

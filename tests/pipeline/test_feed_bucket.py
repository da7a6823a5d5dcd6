"""The feed on an emulated bucket, in a process of its own: the batches of a local copy."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from token_folders import write_rows

from gristmill.pipelines import feed

CODE = """
import sys
from gristmill.pipelines.feed import TokenFeed
local, bucket = (
    [batch["tokens"].tolist() for batch in TokenFeed(folder, batch_size=16, shuffle_window=512)]
    for folder in sys.argv[1:]
)
assert local == bucket
print(len(bucket))
"""


def test_a_bucket_gives_the_batches_of_a_disk(tmp_path, monkeypatch):
    folder = write_rows(tmp_path / "t", [800, 3, 400], sequence_length=64)
    with socket.create_server(("localhost", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    uri = f"gs://anonymous@mill/tokens?scheme=http&endpoint_override=localhost%3A{port}&retry_limit_seconds=9"
    with create_server("localhost", port, in_memory=True, default_bucket="mill"):
        with storage.Client("my-project-1", AnonymousCredentials()) as client:
            for path in Path(folder).iterdir():
                client.bucket("mill").blob(f"tokens/{path.name}").upload_from_filename(str(path))
        done = subprocess.run(
            [sys.executable, "-c", CODE, folder, uri],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path(feed.__file__).parents[2])},
        )
    assert (done.stdout, done.returncode) == ("75\n", 0), done.stderr

"""One recipe, unchanged, on every runner: the same bytes on each.

local       Beam's FnApiRunner in this process: what all others are compared with
processes   the same runner with two worker processes, and what happens when one dies
bucket      gs:// inputs and workspace, against a storage emulator
Dataflow    every stage translated offline, the hint for a GPU on the model stage only
portable    Beam's job service and a worker pool from a second environment that holds the wheel and nothing of ours else
"""

import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import google.auth
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from corpora import make_recipe, write_lines
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from gristmill.pipelines import files
from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.cli import main
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.recipe_export import Export, Tokens
from gristmill.pipelines.runner import accelerated_transforms, beam_options, worker_processes
from gristmill.pipelines.score_documents import ACCELERATOR_HINT
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.workspace import Workspace, open_workspace
from gristmill.scorers.base import Column, RecipeError, Scorer, WorkspaceError
from gristmill.scorers.facility_location import FacilityLocation

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the a of to and is that with water mill stone grain flour river wheel miller corn meal loft night".split()
DATA = (
    "corpus/*.arrow",
    "documents/*.parquet",
    "scores/*/*/*.parquet",
    "duplicates/*.parquet",
    "decisions/*/*.parquet",
    "datasets/*/*.parquet",
)
SCORE = ["rules", "language", "exact_duplicate", "minhash"]
DUPLICATES = {"threshold": 0.5}
SELECT = {
    "name": "good",
    "where": {"english": "language = 'en'", "long_enough": "rps_doc_word_count >= 60"},
    "deduplicate": {"prefer": ["plain"]},
}
DATAFLOW = [
    "--runner=DataflowRunner",
    "--dry_run=true",
    "--project=my-project-1",
    "--region=europe-west4",
    "--temp_location=gs://mill/temp",
    "--staging_location=gs://mill/staging",
    "--sdk_container_image=europe-docker.pkg.dev/my-project-1/images/gristmill:0.1.0",
]


def make_text(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(40, 120))).capitalize() + "."


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two plain files and one compressed stream, fewer than there will be workers; they share texts."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random(5)
    texts = [make_text(rng) for _ in range(60)]
    write_lines(folder / "a.jsonl", *texts[:20])
    write_lines(folder / "b.jsonl", *texts[20:40], texts[3], b"{broken")
    lines = write_lines(folder / "packed", *texts[40:], texts[5], texts[45])
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes(), mtime=0))
    lines.unlink()
    return str(folder)


def curation(workspace, inputs, *arguments):
    sources = [
        {"path": f"{inputs}/*.jsonl", "source": "plain"},
        {"path": f"{inputs}/*.gz", "source": "packed"},
    ]
    recipe = make_recipe(workspace, sources, score=SCORE, duplicates=DUPLICATES, select=SELECT)
    return prepare(recipe, beam_options(arguments))


def data_files(root):
    """Digest of every data file of a local workspace."""
    paths = [path for pattern in DATA for path in sorted(Path(root).glob(pattern))]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def local(tmp_path_factory, inputs):
    """The data files that one worker in this process writes."""
    root = tmp_path_factory.mktemp("local") / "mill"
    summary = curation(root, inputs).run()
    assert sum(row.num_out for row in summary.ingested) == 63
    assert (
        [step.num_kept for step in summary.funnels["good"]][-1]
        == summary.datasets["good"]["num_documents"]
        > 20
    )
    found = data_files(root)
    assert len(found) == 18
    return found


def test_two_processes_write_the_bytes_of_one(tmp_path, inputs, local):
    two = curation(tmp_path / "mill", inputs, "--direct_num_workers=2")
    assert two._spreads(two.plan_ingest(Workspace("")).splits), (
        "one stream for two workers: its blocks are shuffled"
    )
    two.run()
    assert data_files(tmp_path / "mill") == local


def test_the_death_of_a_worker_process_ends_the_run(tmp_path, inputs):
    def kill_one():
        while len(found := worker_processes()) < 2:
            time.sleep(0.02)
        os.kill(found[0], signal.SIGKILL)

    mill = curation(tmp_path / "mill", inputs, "--direct_num_workers=2")
    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(WorkspaceError, match=r"a worker process died .*run again"):
        mill.run(["ingest"])
    killer.join()
    assert worker_processes() == []
    assert not (tmp_path / "mill/lock").exists()


def test_options_are_refused_in_one_line():
    for arguments, message in [
        (["--no_such_option"], "unknown option '--no_such_option'"),
        (["--dry_run"], "--dry_run: expected one argument"),
        (["--direct_num_workers=many"], "--direct_num_workers: invalid int value: 'many'"),
        (["--dry_run=true"], "gristmill's own --dry-run"),
    ]:
        with pytest.raises(RecipeError, match=message) as refusal:
            beam_options(arguments)
        assert "\n" not in str(refusal.value)


@pytest.fixture
def bucket(inputs, monkeypatch, tmp_path):
    """An emulated bucket `mill` that holds the inputs."""
    with socket.create_server(("localhost", 0)) as probe:
        port = probe.getsockname()[1]
    server = create_server("localhost", port, in_memory=True, default_bucket="mill")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "my-project-1"))
    with server, storage.Client("my-project-1", AnonymousCredentials()) as client:
        bucket = client.bucket("mill")
        for path in Path(inputs).iterdir():
            bucket.blob(f"in/{path.name}").upload_from_filename(str(path))
        yield bucket


def download(bucket, folder):
    """A local copy of the workspace in the bucket."""
    for blob in bucket.list_blobs(prefix="ws/"):
        path = Path(folder) / blob.name
        path.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(path))
    return Path(folder) / "ws"


def test_bucket_from_ingest_to_sql(bucket, tmp_path, local):
    mill = curation("gs://mill/ws", "gs://mill/in")
    mill.run()
    assert data_files(download(bucket, tmp_path)) == local

    written = {blob.name: blob.updated for blob in bucket.list_blobs(prefix="ws/scores")}
    lost = [
        next(name for name in written if "/rules/" in name),
        "ws/datasets/good/train-00000-of-00001.parquet",
    ]
    bucket.delete_blobs(lost)
    mill.run()
    assert data_files(download(bucket, tmp_path)) == local
    again = {blob.name: blob.updated for blob in bucket.list_blobs(prefix="ws/scores")}
    assert {name for name in written if written[name] != again[name]} == {lost[0]}

    workspace = open_workspace("gs://mill/ws")
    report = verify_workspace(workspace)
    assert (report.problems, report.orphans) == ([], [])
    connection = open_catalog(workspace)
    question = """
        SELECT kept, count(*) AS n, sum(length(text)) AS in_texts, sum(num_chars) AS in_documents
        FROM texts JOIN documents USING (doc_id) JOIN decisions USING (doc_id) GROUP BY kept ORDER BY kept
    """
    dropped, kept = run_query(connection, question).to_pylist()
    assert dropped["n"] + kept["n"] == 63
    assert all(row["in_texts"] == row["in_documents"] for row in (dropped, kept))
    twice = "select count(*) n from texts a join texts b on a.text = b.text"
    assert run_query(connection, twice).to_pylist() == [{"n": 69}]
    connection.close()

    recipe = mill.recipe
    stricter = recipe.select[0].model_copy(update={"where": {"long_enough": "rps_doc_word_count >= 100"}})
    prepare(recipe.model_copy(update={"select": [stricter]}), beam_options([])).run(["select"])
    connection = open_catalog(workspace)
    [changed] = run_query(connection, "select count(*) n from decisions where kept").to_pylist()
    connection.close()
    assert changed["n"] < kept["n"]


def test_bucket_refuses_as_a_disk_does(bucket):
    with pytest.raises(FileNotFoundError, match="gs://mill/in/absent"):
        files.open_read("gs://mill/in/absent")
    info = files.file_info("gs://mill/in/a.jsonl")
    late = files.LateFile(info)
    content = files.read_bytes(info.path)
    assert (late.seek(-9, os.SEEK_END), late.read(4), late.tell()) == (
        info.size - 9,
        content[-9:-5],
        info.size - 5,
    )
    assert (late.seek(2, os.SEEK_CUR), late.read()) == (info.size - 3, content[-3:])


@dataclass(frozen=True)
class Model(Scorer):
    """Wants a GPU."""

    name: ClassVar[str] = "model"
    version: ClassVar[int] = 1
    accelerator: ClassVar[bool] = True

    @property
    def columns(self):
        return (Column(name="likelihood", type=pa.float32(), description="none", unit="nats"),)

    def score(self, batch):
        return pa.RecordBatch.from_arrays([pa.array(np.zeros(len(batch), np.float32))], schema=self.schema())


def test_dataflow_translates_every_stage_with_a_gpu_for_models_only(bucket):
    mill = curation("gs://mill/ws", "gs://mill/in", *DATAFLOW)
    control = {"by": "likelihood", "threshold": 0, "direction": "highest", "per": "sentence"}
    recipe = mill.recipe.model_copy(update={"export": Export(tokens=Tokens(control=control))})
    mill = replace(mill, recipe=recipe, scorers=(*mill.scorers, Model(), FacilityLocation()))
    translated = dict(mill.translate())
    of_scores = ["score", "order partitions", "merge groups"]
    of_export = ["export good", "rate good", "tokenise good", "pack good"]
    assert list(translated) == ["ingest", *of_scores, "dedup", *of_export]
    accelerated = {stage: dict(accelerated_transforms(pipeline)) for stage, pipeline in translated.items()}
    assert accelerated.pop("score") == {"ScoreDocumentsAccelerator/ScoreShards": ACCELERATOR_HINT}
    assert accelerated.pop("rate good") == {"RateDocuments/ParDo(_Rate)": ACCELERATOR_HINT}
    assert not any(accelerated.values())
    for pipeline in translated.values():
        used = {t.environment_id for t in pipeline.components.transforms.values()} - {""}
        assert all(
            b"images/gristmill:0.1.0" in pipeline.components.environments[name].payload for name in used
        )
    assert list(bucket.list_blobs(prefix="ws/")) == []


def test_dataflow_dry_run_on_the_command_line(bucket, tmp_path):
    corpus = [{"path": "gs://mill/in/*.jsonl", "source": "plain"}]
    recipe = {"workspace": "gs://mill/ws", "corpus": corpus, "score": ["rules"], "select": {"name": "all"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    done = CliRunner().invoke(main, ["run", str(tmp_path / "recipe.yaml"), *DATAFLOW])
    assert done.exit_code == 0, done.output
    stages = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert stages == ["translated ingest", "translated score", "translated export all"]
    refused = CliRunner().invoke(
        main, ["run", str(tmp_path / "recipe.yaml"), "--set", f"workspace={tmp_path}", *DATAFLOW]
    )
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"error: workspace: {tmp_path} is on this machine, out of reach of Dataflow's workers; expected a gs:// path\n"
    )


def pip(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def second_environment(tmp_path_factory):
    """A virtual environment outside the repository with the wheel and what the constraints let it need."""
    folder = tmp_path_factory.mktemp("second")
    reached = pip("download", "--quiet", "--no-deps", "--dest", folder, "setuptools")
    if reached.returncode:
        pytest.skip(
            f"needs a package index, to build the wheel and install it: {reached.stderr.strip()[-200:]}"
        )
    shutil.copytree(ROOT / ".src", folder / "source/.src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "source")
    built = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist", folder / "source")
    assert built.returncode == 0, built.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    [wheel] = (folder / "dist").iterdir()
    python = folder / "venv/bin/python"
    installed = pip(
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",
        "--constraint",
        ROOT / "constraints.txt",
        wheel,
    )
    assert installed.returncode == 0, installed.stderr
    return folder / "venv"


@contextmanager
def service(environment, folder, module, *arguments):
    """A service of Beam's from an environment, in a session of its own that is ended with all its children."""
    variables = {"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    with (folder / f"{module.rpartition('.')[2]}.log").open("w") as log:
        process = subprocess.Popen(
            ["python", "-m", module, *map(str, arguments)],
            cwd=folder,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
            executable=environment / "bin/python",
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < deadline, "the service did not start"
        time.sleep(0.1)


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def test_portable_runner_with_workers_that_hold_only_the_wheel(tmp_path, inputs, local, second_environment):
    with socket.create_server(("localhost", 0)) as probe:
        pool_port = probe.getsockname()[1]
    port_file = tmp_path / "port"
    beam_runners = "apache_beam.runners"
    jobs = f"{beam_runners}.portability.local_job_service_main", "--port_file", port_file
    pool = f"{beam_runners}.worker.worker_pool_main", f"--service_port={pool_port}"
    try:
        with (
            service(second_environment, tmp_path, *jobs) as job_service,
            service(second_environment, tmp_path, *pool) as worker_pool,
        ):
            wait_for(lambda: port_file.exists() and port_file.read_text(), job_service)
            wait_for(lambda: is_listening(pool_port), worker_pool)
            portable = [
                "--runner=PortableRunner",
                f"--job_endpoint=localhost:{port_file.read_text()}",
                "--environment_type=EXTERNAL",
                f"--environment_config=localhost:{pool_port}",
            ]
            curation(tmp_path / "mill", inputs, *portable).run()
    except Exception as error:
        for log in tmp_path.glob("*.log"):
            error.add_note(f"{log.name}:\n{log.read_text()[-5000:]}")
        raise
    assert data_files(tmp_path / "mill") == local

"""Verify a workspace: checksums, alignment, conservation, changed inputs, and files that nothing refers to."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from gristmill.pipelines import files
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.ledger import check_conservation, read_footer, read_ledger
from gristmill.pipelines.plan_splits import digest
from gristmill.pipelines.read_documents import content_digest
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.workspace import Workspace
from gristmill.pipelines.write_dataset import checksum
from gristmill.scorers.base import GristmillError
from gristmill.scorers.duplicates import hash128


@dataclass
class Report:
    """What was found.

    Args:
        facts: What was checked, one line each.
        problems: What is wrong, one line each.
        orphans: Files that nothing refers to.
    """

    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def verify_workspace(workspace: Workspace) -> Report:
    """Check everything a workspace promises; reads every text once."""
    report = Report()
    shards = read_corpus(workspace) if workspace.read_json("corpus", "shards.json") else []
    for shard in shards:
        report.problems += _guard(_check_shard(workspace, shard))
    report.facts.append(
        f"corpus: {len(shards):,} shards, {sum(shard.num_rows for shard in shards):,} documents"
    )
    report.problems += _guard(_check_inputs(workspace))
    for scorer, fingerprint in sorted(_referenced_scores(workspace)):
        for shard in shards:
            path = workspace.scores(scorer, fingerprint, shard.name)
            report.problems += _guard(_check_aligned(workspace, shard, path, required=True))
        report.facts.append(f"scores: {scorer} ({fingerprint})")
    for selection in _folders(workspace, "decisions"):
        for shard in shards:
            path = workspace.decisions(selection, shard.name)
            report.problems += _guard(_check_aligned(workspace, shard, path, required=False))
        report.facts.append(f"decisions: {selection}")
    for selection in _folders(workspace, "datasets"):
        report.problems += _guard(_check_dataset(workspace, selection))
        report.facts.append(f"dataset: {selection}")
    report.problems += _guard(_check_ledgers(workspace, report))
    referenced = set(_referenced(workspace, shards))
    report.orphans = [item.path for item in files.list_folder(workspace.root) if item.path not in referenced]
    return report


def collect_garbage(workspace: Workspace, report: Report) -> None:
    """Delete the orphans of a report."""
    files.delete(report.orphans)


def _guard(checks: Iterator[str]) -> list[str]:
    """The problems a check yields, with the error that stopped it as one more."""
    problems: list[str] = []
    try:
        problems.extend(checks)
    except (GristmillError, OSError, pa.ArrowException, files.BeamIOError, KeyError) as error:
        problems.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return problems


def _check_shard(workspace: Workspace, shard: Shard) -> Iterator[str]:
    path = workspace.documents(shard.name)
    with files.open_read(path) as file:
        table = pq.read_table(file)
    if len(table) != shard.num_rows or content_digest(table) != shard.content:
        yield f"{path}: not the {shard.num_rows:,} documents of the manifest"
    row = 0
    for batch in read_batches(workspace, shard.name):
        expected = table.slice(row, len(batch))
        row += len(batch)
        hashes = pa.chunked_array([hash128(batch.column("text"))])
        if not pa.chunked_array([batch.column("doc_id")]).equals(expected["doc_id"]):
            yield f"{workspace.corpus(shard.name)}: doc_ids differ from {path}"
        elif not hashes.equals(expected["content_hash"]):
            yield f"{workspace.corpus(shard.name)}: a text differs from its content hash"
    if row != shard.num_rows:
        yield f"{workspace.corpus(shard.name)}: {row:,} documents, the manifest says {shard.num_rows:,}"


def _check_inputs(workspace: Workspace) -> Iterator[str]:
    content = workspace.read_json("corpus", "inputs.json")
    for item in content["inputs"] if content else []:
        for file in item["files"]:
            if not files.exists(file["path"]):
                yield f"input {file['path']}: gone since it was ingested"
            elif digest(files.file_info(file["path"])) != file["digest"]:
                yield f"input {file['path']}: changed since it was ingested"


def _check_aligned(workspace: Workspace, shard: Shard, path: str, *, required: bool) -> Iterator[str]:
    footer = read_footer(path)
    if footer is None:
        if required:
            yield f"{path}: missing"
        return
    if footer.get("content", shard.content) != shard.content:
        yield f"{path}: made from other documents"
        return
    with files.open_read(path) as side, files.open_read(workspace.documents(shard.name)) as documents:
        same = pq.read_table(side, columns=["doc_id"]).equals(pq.read_table(documents, columns=["doc_id"]))
    if not same:
        yield f"{path}: doc_ids are not those of {shard.name}"


def _check_dataset(workspace: Workspace, selection: str) -> Iterator[str]:
    manifest = workspace.read_json("datasets", selection, "manifest.json")
    if manifest is None:
        yield f"{workspace.dataset(selection)}: no manifest; the export did not finish, run it again"
        return
    for entry in manifest["files"]:
        path = workspace.dataset(selection, entry["name"])
        if not files.exists(path):
            yield f"{path}: missing"
        elif checksum(path) != (entry["num_bytes"], entry["sha256"]):
            yield f"{path}: checksum differs from the manifest"


def _check_ledgers(workspace: Workspace, report: Report) -> Iterator[str]:
    stages = [
        item.path.rpartition("/")[2].removesuffix(".parquet")
        for item in files.list_folder(workspace.path("ledger"))
        if item.path.endswith(".parquet")
    ]
    for stage in stages:
        check_conservation(read_ledger(workspace, stage))
    report.facts.append(f"ledger: {len(stages)} stages add up")
    yield from ()


def _folders(workspace: Workspace, kind: str) -> list[str]:
    root = workspace.path(kind)
    return sorted(
        {item.path.removeprefix(root).lstrip("/").split("/")[0] for item in files.list_folder(root)}
    )


def _referenced_scores(workspace: Workspace) -> set[tuple[str, str]]:
    """Scorer versions that are current or that some decisions were made from."""
    found = set((workspace.read_json("scores", "current.json") or {}).items())
    for selection in _folders(workspace, "decisions"):
        manifest = workspace.read_json("decisions", selection, "manifest.json")
        found |= set(manifest["identity"]["scorers"].items()) if manifest else set()
    return found


def _referenced(workspace: Workspace, shards: list[Shard]) -> Iterator[str]:
    for name in ("workspace.json", "lock", "catalog.duckdb"):
        yield workspace.path(name)
    for name in ("inputs.json", "shards.json"):
        yield workspace.path("corpus", name)
    content = workspace.read_json("corpus", "inputs.json")
    for item in content["inputs"] if content else []:
        for split in item["splits"]:
            yield workspace.path("corpus", f"{split['name']}.json")
    for shard in shards:
        yield workspace.corpus(shard.name)
        yield workspace.documents(shard.name)
        yield workspace.rejects(shard.name)
    yield workspace.path("scores", "current.json")
    for scorer, fingerprint in _referenced_scores(workspace):
        yield workspace.path("scores", scorer, fingerprint, "manifest.json")
        yield from (workspace.scores(scorer, fingerprint, shard.name) for shard in shards)
    for selection in _folders(workspace, "decisions"):
        yield workspace.path("decisions", selection, "manifest.json")
        yield from (workspace.decisions(selection, shard.name) for shard in shards)
    for selection in _folders(workspace, "datasets"):
        yield workspace.path("takedowns", f"{selection}.parquet")
        manifest = workspace.read_json("datasets", selection, "manifest.json")
        if manifest:
            yield from (workspace.dataset(selection, name) for name in ("manifest.json", "README.md"))
            yield from (workspace.dataset(selection, entry["name"]) for entry in manifest["files"])
    for kind in ("runs", "models"):
        yield from (item.path for item in files.list_folder(workspace.path(kind)))
    yield from (
        item.path for item in files.list_folder(workspace.path("ledger")) if item.path.endswith(".parquet")
    )

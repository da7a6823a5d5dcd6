"""Verify a workspace: checksums, alignment, conservation, changed inputs, and files that nothing refers to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.pipelines import files
from gristmill.pipelines.cluster_duplicates import STAGE as DEDUP
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.ledger import check_conservation, folder_of, read_footer, read_ledger, require_footer
from gristmill.pipelines.plan_splits import digest
from gristmill.pipelines.read_documents import STAGE as INGEST
from gristmill.pipelines.read_documents import content_digest, ledger_row
from gristmill.pipelines.score_documents import Shard, read_batches, stage_of_version
from gristmill.pipelines.select_documents import kept_digest
from gristmill.pipelines.select_documents import stage_of as select_stage
from gristmill.pipelines.token_shards import FOLDER, MANIFEST
from gristmill.pipelines.token_shards import digest as digest_of
from gristmill.pipelines.workspace import Workspace
from gristmill.pipelines.write_dataset import checksum, read_decisions
from gristmill.scorers.base import GristmillError, WorkspaceError
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
        report.problems += _guard(shard.name, _check_shard(workspace, shard))
    report.facts.append(
        f"corpus: {len(shards):,} shards, {sum(shard.num_rows for shard in shards):,} documents"
    )
    report.problems += _guard("inputs", _check_inputs(workspace))
    stages: dict[str, set[str]] = {}
    report.problems += _guard("ledger", _check_ledgers(workspace, stages))
    report.facts.append(f"ledger: {len(stages)} stages add up")
    if not shards and stages.get(INGEST):
        report.problems.append(f"{workspace.path('corpus', 'shards.json')}: missing; run `gristmill ingest`")
    for scorer, fingerprint in sorted(_referenced_scores(workspace)):
        done = stages.get(folder_of(stage_of_version(scorer, fingerprint)), set())
        for shard in shards:
            path = workspace.scores(scorer, fingerprint, shard.name)
            report.problems += _guard(
                path, _check_aligned(workspace, shard, path, required=shard.name in done)
            )
        report.facts.append(f"scores: {scorer} ({fingerprint})")
    if workspace.read_json("duplicates", "manifest.json") is not None:
        for shard in shards:
            path = workspace.duplicates(shard.name)
            report.problems += _guard(path, _check_duplicates(workspace, shard, path))
        report.facts.append("duplicates")
    for selection in _folders(workspace, "decisions"):
        done = stages.get(folder_of(select_stage(selection)), set())
        decided = [shard for shard in shards if shard.name in done]
        for shard in decided:
            path = workspace.decisions(selection, shard.name)
            report.problems += _guard(path, _check_aligned(workspace, shard, path, required=True))
        report.problems += _guard(
            f"decisions of {selection!r}", _check_decisions(workspace, selection, decided)
        )
        report.facts.append(f"decisions: {selection}")
    for selection in _folders(workspace, "datasets"):
        report.problems += _guard(f"dataset {selection!r}", _check_dataset(workspace, selection))
        report.facts.append(f"dataset: {selection}")
    referenced = set(_referenced(workspace, shards))
    unfinished = _unfinished(workspace)
    report.orphans = [
        item.path
        for item in files.list_folder(workspace.root)
        if item.path not in referenced and not item.path.startswith(unfinished)
    ]
    return report


def collect_garbage(workspace: Workspace, report: Report) -> None:
    """Delete the orphans of a report; call it with the lock that the report was made under."""
    files.delete(report.orphans)


def _guard(where: str, checks: Iterator[str]) -> list[str]:
    """The problems a check yields, with the error that stopped it as one more."""
    problems: list[str] = []
    try:
        problems.extend(checks)
    except GristmillError as error:
        problems.append(str(error))
    except (OSError, pa.ArrowException, files.BeamIOError, LookupError, TypeError, ValueError) as error:
        problems.append(f"{where}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return problems


def _check_shard(workspace: Workspace, shard: Shard) -> Iterator[str]:
    check_conservation([ledger_row(workspace, shard.name)])
    path = workspace.documents(shard.name)
    with files.open_read(path) as file:
        table = files.read_table(file, page_checksum_verification=True)
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
        doc_ids = files.read_table(side, page_checksum_verification=True).select(["doc_id"])
        same = doc_ids.equals(files.read_table(documents, columns=["doc_id"]))
    if not same:
        yield f"{path}: doc_ids are not those of {shard.name}"


def _check_duplicates(workspace: Workspace, shard: Shard, path: str) -> Iterator[str]:
    if shard.name not in {row.shard for row in read_ledger(workspace, DEDUP)}:
        return  # ingested since duplicates were marked
    if require_footer(path)["content"] != shard.content:
        yield f"{path}: made from other documents"
        return
    with files.open_read(path) as side, files.open_read(workspace.documents(shard.name)) as documents:
        table = files.read_table(side, page_checksum_verification=True)
        expected = files.read_table(documents, columns=["doc_id"]).take(table["position"])
    if not table.select(["doc_id"]).equals(expected):
        yield f"{path}: doc_ids are not those of {shard.name}"


def _check_decisions(workspace: Workspace, selection: str, shards: Sequence[Shard]) -> Iterator[str]:
    manifest = workspace.read_json("decisions", selection, "manifest.json")
    if manifest is None:
        yield f"decisions of {selection!r}: no manifest; `gristmill select` did not finish, run it again"
        return
    found = kept_digest(read_decisions(workspace, selection, shard.name) for shard in shards)
    if found != manifest["kept"]:
        yield f"decisions of {selection!r}: not those of the manifest; delete its folder and select again"


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
            yield f"{path}: checksum differs from the manifest; delete the file and export again"
    tokens = workspace.read_json("datasets", selection, FOLDER, MANIFEST)
    if tokens is not None:
        yield from _check_tokens(workspace, selection, tokens, manifest["identity"])


def _check_tokens(
    workspace: Workspace, selection: str, tokens: dict[str, Any], dataset: str
) -> Iterator[str]:
    if tokens["dataset"] != dataset:
        yield f"{workspace.dataset(selection, FOLDER)}: tokens of another dataset; export again"
    for entry in [*tokens["shards"], *tokens["also"]]:
        path = workspace.dataset(selection, FOLDER, entry["name"])
        if not files.exists(path):
            yield f"{path}: missing; export again"
            continue
        with files.open_read(path) as file:
            if digest_of(file) != entry["blake2b"]:
                yield f"{path}: checksum differs from the manifest; delete the file and export again"


def _check_ledgers(workspace: Workspace, stages: dict[str, set[str]]) -> Iterator[str]:
    """Check every ledger, and note the shards that each stage has done."""
    for item in files.list_folder(workspace.path("ledger")):
        stage = item.path.rpartition("/")[2].removesuffix(".parquet")
        if item.path == workspace.path("ledger", f"{stage}.parquet"):
            try:
                rows = read_ledger(workspace, stage)
                stages[stage] = {row.shard for row in rows}
                check_conservation(rows)
            except (WorkspaceError, pa.ArrowException, KeyError) as error:
                yield f"{item.path}: {str(error).partition(chr(10))[0]}"


def _folders(workspace: Workspace, kind: str) -> list[str]:
    root = workspace.path(kind)
    return sorted(
        {item.path.removeprefix(root).lstrip("/").split("/")[0] for item in files.list_folder(root)}
    )


def _referenced_scores(workspace: Workspace) -> set[tuple[str, str]]:
    """Scorer versions that are current, that a run wants, or that some decisions were made from."""
    found = set((workspace.read_json("scores", "current.json") or {}).items())
    found |= set((workspace.read_json("scores", "wanted.json") or {}).items())
    for selection in _folders(workspace, "decisions"):
        manifest = workspace.read_json("decisions", selection, "manifest.json")
        found |= set(manifest["identity"]["scorers"].items()) if manifest else set()
    return found


def _unfinished(workspace: Workspace) -> tuple[str, ...]:
    """Beginnings of the paths of what an interrupted ingest or dedup has made and will not make again."""
    content = workspace.read_json("corpus", "inputs.json")
    names = [split["name"] for item in (content["inputs"] if content else []) for split in item["splits"]]
    if content and workspace.read_json("corpus", "shards.json") is not None:
        names = [name for name in names if workspace.read_json("corpus", f"{name}.json") is None]
    kinds = ("corpus", "documents", "rejects")
    unfinished = [workspace.path(kind, f"{name}-") for name in names for kind in kinds]
    if workspace.read_json("duplicates", "manifest.json") is None:
        unfinished.append(workspace.path("duplicates", ""))
    return tuple(unfinished)


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
        yield workspace.duplicates(shard.name)
    for name in ("manifest.json", "buckets.parquet"):
        yield workspace.path("duplicates", name)
    for name in ("current.json", "wanted.json"):
        yield workspace.path("scores", name)
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
        tokens = workspace.read_json("datasets", selection, FOLDER, MANIFEST)
        if tokens:
            yield workspace.dataset(selection, FOLDER, MANIFEST)
            entries = [*tokens["shards"], *tokens["also"]]
            yield from (workspace.dataset(selection, FOLDER, entry["name"]) for entry in entries)
    for kind in ("runs", "models", "target", "evaluation", "domains", "seed", "ablations", "mixtures"):
        yield from (item.path for item in files.list_folder(workspace.path(kind)))
    yield from (
        item.path for item in files.list_folder(workspace.path("ledger")) if item.path.endswith(".parquet")
    )

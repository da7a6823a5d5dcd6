"""Export: the kept documents or windows as Parquet files that Hugging Face `datasets` and DuckDB open as they are.

The manifest is written last and names every file with its rows and checksum; a folder without one is no dataset.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines import files
from gristmill.pipelines.cut_windows import WINDOW, cut_windows
from gristmill.pipelines.ledger import (
    LedgerRow,
    encode_footer,
    parquet_writer,
    read_footer,
    record_task,
    require_footer,
)
from gristmill.pipelines.model_files import localised
from gristmill.pipelines.recipe_export import Export
from gristmill.pipelines.records import uuid_text
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.token_shards import FOLDER
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import SelectionError, WorkspaceError
from gristmill.scorers.clean_lines import clean_lines
from gristmill.scorers.color_filter import ColorFilter
from gristmill.scorers.pii import redact

PART_BYTES = 256 << 20
ROW_GROUP_BYTES = 64 << 20
MAX_SHARDS_A_PART = 1024
DATASET = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("created", pa.timestamp("us", tz="UTC")),
        pa.field("metadata", pa.large_string()),
    ]
)
"""One row a kept document. `doc_id` is text here, for readers that know no UUIDs."""
WINDOWS = DATASET.append(WINDOW)
"""One row a kept window: what its document says, with the window's text and number."""


@dataclass(frozen=True)
class Part:
    """One output file and the shards whose kept documents it holds.

    Args:
        name: File name.
        shards: In order.
        num_kept: Documents the decisions keep in them.
        num_bytes: UTF-8 bytes of their texts, before cleaning and cutting.
    """

    name: str
    shards: tuple[str, ...]
    num_kept: int
    num_bytes: int


class WriteDataset(beam.PTransform):
    """Parts -> names of the files written.

    Args:
        workspace: Where corpus, decisions and datasets lie.
        selection: Name of the selection.
        export: What is done to the texts.
        identity: What the files depend on; a file that carries it is not written again.
        cutter: The scorer whose windows were chosen, None where whole documents were.
    """

    def __init__(
        self,
        workspace: Workspace,
        selection: str,
        export: Export,
        identity: str,
        cutter: ColorFilter | None = None,
    ) -> None:
        super().__init__()
        self.arguments = (workspace, selection, export, identity, cutter)

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return parts | "WriteParts" >> beam.Map(write_part, *self.arguments)


def stage_of(selection: str) -> str:
    """The ledger's name for one export."""
    return f"export:{selection}"


def plan_parts(
    workspace: Workspace, selection: str, shards: Sequence[Shard], *, part_bytes: int = PART_BYTES
) -> list[Part]:
    """Group shards in order so that each file holds about `part_bytes` of kept text; shards without any are left out.

    Raises:
        SelectionError: If the selection has not been made.
    """
    groups: list[list[tuple[str, int, int]]] = []
    held = 0
    for shard in shards:
        path = workspace.decisions(selection, shard.name)
        if not files.exists(path):
            raise SelectionError(
                f"selection {selection!r} has no decisions for {shard.name}; run `gristmill select`"
            )
        with files.open_read(workspace.documents(shard.name)) as documents:
            num_bytes = files.read_table(documents, columns=["num_bytes"])["num_bytes"]
        num_bytes = num_bytes.filter(read_decisions(workspace, selection, shard.name)["kept"])
        if not len(num_bytes):
            continue
        size = pc.sum(num_bytes).as_py()
        if not groups or held + size > part_bytes or len(groups[-1]) == MAX_SHARDS_A_PART:
            groups.append([])
            held = 0
        groups[-1].append((shard.name, len(num_bytes), size))
        held += size
    return [
        Part(
            f"train-{number:05d}-of-{len(groups):05d}.parquet",
            tuple(name for name, _, _ in group),
            sum(count for _, count, _ in group),
            sum(size for _, _, size in group),
        )
        for number, group in enumerate(groups)
    ]


def write_part(
    part: Part,
    workspace: Workspace,
    selection: str,
    export: Export,
    identity: str,
    cutter: ColorFilter | None = None,
) -> str:
    """Write one file of the dataset, unless it is there already.

    A document that cleaning leaves without text is dropped here, with its reason in the accounts.
    """
    path = workspace.dataset(selection, part.name)
    footer = read_footer(path)
    if footer is not None and footer["identity"] == identity:
        return part.name
    started = time.monotonic()
    counts: Counter[str] = Counter()
    num_in = num_out = 0
    kept_schema = DATASET if cutter is None else WINDOWS
    with files.committed(path) as file, parquet_writer(file, kept_schema) as writer:
        for table in _row_groups(kept_rows(workspace, selection, part.shards, cutter)):
            num_in += count_documents(table)
            table = edit(table, export, counts)
            num_out += count_documents(table)
            if len(table):
                writer.write_table(table)
        emptied = {"emptied_by_cleaning": num_in - num_out} if num_in > num_out else {}
        footer = {
            "identity": identity,
            "num_in": num_in,
            "reasons": emptied,
            "edits": dict(sorted(counts.items())),
        }
        if cutter is not None:
            footer["num_documents"] = num_out
        writer.add_key_value_metadata(encode_footer(footer))
    row = _row(selection, part, num_in, num_out, emptied)
    record_task(workspace, replace(row, seconds=time.monotonic() - started))
    return part.name


def kept_rows(
    workspace: Workspace, selection: str, shards: Sequence[str], cutter: ColorFilter | None
) -> Iterator[pa.Table]:
    """The kept documents of shards, or their kept windows, batch by batch."""
    cutter = cutter and localised(cutter)
    for shard in shards:
        decisions = read_decisions(workspace, selection, shard)
        start = 0
        for batch in read_batches(workspace, shard):
            decided = decisions.slice(start, len(batch))
            start += len(batch)
            kept = decided["kept"].combine_chunks()
            rows = batch.filter(kept)
            if not len(rows):
                continue
            doc_id = uuid_text(rows.column("doc_id"))
            table = pa.Table.from_arrays([doc_id, *rows.columns[1:]], schema=DATASET)
            if cutter is not None:
                table = cut_windows(table, decided["windows"].combine_chunks().filter(kept), cutter)
            yield table


def read_decisions(workspace: Workspace, selection: str, shard: str) -> pa.Table:
    """Which documents of a shard a selection keeps, and which windows of them, in their order."""
    with files.open_read(workspace.decisions(selection, shard)) as file:
        return files.read_table(file, columns=["kept", "windows"])


def count_documents(rows: pa.Table) -> int:
    """Documents that rows of a dataset come from."""
    return int(pc.count_distinct(rows["doc_id"]).as_py())


def edit(table: pa.Table, export: Export, counts: Counter[str]) -> pa.Table:
    """The texts as the export wants them; what was changed is added to `counts`, emptied documents are left out."""
    text = table["text"].combine_chunks()
    if export.clean_lines:
        text, num_removed = clean_lines(text)
        counts["num_lines_removed"] += int(num_removed.sum())
        counts["num_documents_cleaned"] += int((num_removed > 0).sum())
    if export.redact_pii:
        text, num_redacted = redact(text)
        counts["num_pii_redacted"] += int(num_redacted.sum())
    table = table.set_column(1, DATASET.field("text"), text)
    if not export.metadata:
        table = table.set_column(6, DATASET.field("metadata"), pa.nulls(len(table), pa.large_string()))
    return (
        table.filter(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(text)), 0))
        if export.clean_lines
        else table
    )


def commit_dataset(
    workspace: Workspace, selection: str, parts: Sequence[Part], provenance: dict[str, Any], card: str
) -> dict[str, Any]:
    """Check and describe what was written: checksums, manifest and dataset card; the manifest last.

    Args:
        workspace: Where the dataset lies.
        selection: Its name.
        parts: What should have been written.
        provenance: Parents, recipe, thresholds, scorers: goes into the manifest.
        card: The dataset card.

    Returns:
        The manifest.
    """
    paths = [workspace.dataset(selection, part.name) for part in parts]
    checksums = files.in_parallel(checksum, paths)
    footers = [require_footer(path) for path in paths]
    edits: Counter[str] = Counter()
    for footer in footers:
        edits.update(footer["edits"])
    entries: list[dict[str, Any]] = [
        {
            "name": part.name,
            "shards": list(part.shards),
            "num_documents": _num_documents(footer),
            "num_bytes": size,
            "sha256": digest,
        }
        for part, footer, (size, digest) in zip(parts, footers, checksums, strict=True)
    ]
    manifest = {
        **provenance,
        "selection": selection,
        "files": entries,
        "num_documents": sum(entry["num_documents"] for entry in entries),
        "num_bytes": sum(entry["num_bytes"] for entry in entries),
        "edits": dict(sorted(edits.items())),
    }
    num_windows = workspace.read_json("decisions", selection, "manifest.json")["num_windows"]
    if num_windows is not None:
        manifest["num_windows"] = sum(footer["num_rows"] for footer in footers)
        if manifest["num_windows"] != num_windows:
            raise WorkspaceError(
                f"dataset {selection!r}: {num_windows:,} windows are kept, but {manifest['num_windows']:,} were "
                "written; the export lost or gained windows, which is a bug"
            )
    files.commit_bytes(workspace.dataset(selection, "README.md"), card.encode())
    workspace.commit_json(manifest, "datasets", selection, "manifest.json")
    return manifest


def clear_dataset(workspace: Workspace, selection: str, identity: str) -> None:
    """Make room for another export: the manifest goes first, so that nobody reads a mixture; reusable files stay.

    So do tokens, which name their dataset in a manifest of their own.
    """
    files.delete([workspace.dataset(selection, "manifest.json")])
    tokens = workspace.dataset(selection, FOLDER, "")
    stale = [
        item.path
        for item in files.list_folder(workspace.dataset(selection))
        if not item.path.startswith(tokens) and not _is_reusable(item.path, identity)
    ]
    files.delete(stale)


def _is_reusable(path: str, identity: str) -> bool:
    if not path.endswith(".parquet"):
        return False
    try:
        footer = read_footer(path)
    except WorkspaceError:  # damaged, so it is written again
        return False
    return footer is not None and footer.get("identity") == identity


def ledger_row(workspace: Workspace, selection: str, part: Part) -> LedgerRow:
    """What a committed file says of itself, against what the decisions keep."""
    footer = require_footer(workspace.dataset(selection, part.name))
    return _row(selection, part, part.num_kept, _num_documents(footer), footer["reasons"])


def _num_documents(footer: dict[str, Any]) -> int:
    """Documents in a file: its rows, unless they are windows and it says how many documents they come from."""
    return int(footer.get("num_documents", footer["num_rows"]))


def _row(selection: str, part: Part, num_in: int, num_out: int, reasons: dict[str, int]) -> LedgerRow:
    return LedgerRow(
        stage_of(selection),
        part.name.removesuffix(".parquet"),
        num_in,
        num_out,
        num_dropped=sum(reasons.values()),
        num_bytes=part.num_bytes,
        reasons=reasons,
    )


def checksum(path: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    state = hashlib.sha256()
    size = 0
    with files.open_read(path) as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
            size += len(chunk)
    return size, state.hexdigest()


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    num_bytes = 0
    for table in tables:
        held.append(table)
        num_bytes += table.nbytes
        if num_bytes >= ROW_GROUP_BYTES:
            yield pa.concat_tables(held)
            held, num_bytes = [], 0
    if held:
        yield pa.concat_tables(held)

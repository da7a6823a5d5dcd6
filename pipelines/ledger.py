"""The ledger: what went into every stage and shard and what became of it, checked, from committed files only.

A data file says in its own footer what it counted. Beam's counters are not used: a retried bundle counts twice.
Seconds are kept beside the data, so that data files are the same bytes on every run.
"""

import json
import resource
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers import schema
from gristmill.scorers.base import WorkspaceError

FOOTER_KEY = b"gristmill"


@dataclass(frozen=True)
class LedgerRow:
    """One stage of one shard; `num_in` must equal the sum of the three that follow it."""

    stage: str
    shard: str
    num_in: int
    num_out: int
    num_dropped: int = 0
    num_rejected: int = 0
    num_bytes: int = 0
    seconds: float | None = None
    peak_bytes: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)


def write_side_file(path: str, table: pa.Table, footer: dict[str, Any]) -> None:
    """Commit a Parquet file whose footer holds its own accounts."""
    with files.committed(path) as file, parquet_writer(file, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(encode_footer(footer))


def parquet_writer(file: BinaryIO, table_schema: pa.Schema) -> pq.ParquetWriter:
    """A writer whose pages carry checksums, so that `verify` notices every damaged value."""
    return pq.ParquetWriter(file, table_schema, compression="zstd", write_page_checksum=True)


def encode_footer(footer: dict[str, Any]) -> dict[bytes, bytes]:
    """Accounts as Parquet key-value metadata."""
    return {FOOTER_KEY: json.dumps(footer, sort_keys=True).encode()}


def read_footer(path: str) -> dict[str, Any] | None:
    """The accounts in a committed side file with its number of rows as `num_rows`, None where it is absent.

    Raises:
        WorkspaceError: If the file is there but is no side file.
    """
    if not files.exists(path):
        return None
    try:
        with files.open_read(path) as file:
            metadata = pq.read_metadata(file)
        return {**json.loads(metadata.metadata[FOOTER_KEY]), "num_rows": metadata.num_rows}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise WorkspaceError(
            f"{path}: damaged or not written by gristmill ({str(error).partition(chr(10))[0]}); delete it and run again"
        ) from error


def require_footer(path: str) -> dict[str, Any]:
    """The accounts in a side file that must be there.

    Raises:
        WorkspaceError: If it is absent or damaged.
    """
    footer = read_footer(path)
    if footer is None:
        raise WorkspaceError(f"{path}: missing, though its stage is done; run the stage again")
    return footer


def record_task(workspace: Workspace, row: LedgerRow) -> None:
    """Leave a finished task's row for the launcher's progress bar and ledger; called after the data is committed."""
    row = replace(row, peak_bytes=peak_bytes())
    workspace.commit_json(asdict(row), "ledger", folder_of(row.stage), f"{row.shard}.json")


def peak_bytes() -> int:
    """The most memory this process has used so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def finished_tasks(workspace: Workspace, stage: str, seen: dict[str, LedgerRow]) -> dict[str, LedgerRow]:
    """The rows of tasks finished so far, by shard; `seen` ones are not read again."""
    rows = dict(seen)
    for item in files.list_folder(workspace.path("ledger", folder_of(stage))):
        shard = item.path.replace("\\", "/").rpartition("/")[2].removesuffix(".json")
        if shard not in rows and not shard.startswith(files.TEMPORARY_PREFIX):
            rows[shard] = LedgerRow(**json.loads(files.read_bytes(item.path)))
    return rows


def read_ledger(workspace: Workspace, stage: str) -> list[LedgerRow]:
    """The committed ledger of a stage, empty where it never ran."""
    path = workspace.path("ledger", f"{folder_of(stage)}.parquet")
    if not files.exists(path):
        return []
    with files.open_read(path) as file:
        rows = files.read_table(file).to_pylist()
    return [LedgerRow(**{**row, "reasons": dict(row["reasons"])}) for row in rows]


def commit_ledger(workspace: Workspace, stage: str, rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Check a stage's accounts and write them, with the seconds its tasks left.

    Args:
        workspace: Where the ledger lies.
        stage: Name of the stage.
        rows: What the committed footers say, every shard of the stage.

    Returns:
        The rows as written, seconds filled in where a task or an earlier ledger knows them.

    Raises:
        WorkspaceError: If rows in differ from rows out, dropped and rejected together in any shard.
    """
    tasks = finished_tasks(workspace, stage, {})
    timed = {row.shard: row for row in read_ledger(workspace, stage)} | tasks
    written = [
        replace(row, seconds=timed[row.shard].seconds, peak_bytes=timed[row.shard].peak_bytes)
        if row.seconds is None and row.shard in timed
        else row
        for row in rows
    ]
    check_conservation(written)
    columns = {name: [getattr(row, name) for row in written] for name in schema.LEDGER.names}
    columns["reasons"] = [sorted(row.reasons.items()) for row in written]
    with files.committed(workspace.path("ledger", f"{folder_of(stage)}.parquet")) as file:
        pq.write_table(pa.table(columns, schema=schema.LEDGER), file, compression="zstd")
    files.delete([workspace.path("ledger", folder_of(stage), f"{shard}.json") for shard in tasks])
    return written


def check_conservation(rows: Iterable[LedgerRow]) -> None:
    """Refuse accounts in which a row appeared or vanished.

    Raises:
        WorkspaceError: Naming the first stage and shard that does not add up.
    """
    for row in rows:
        accounted = row.num_out + row.num_dropped + row.num_rejected
        if row.num_in != accounted:
            raise WorkspaceError(
                f"{row.stage} of {row.shard}: {row.num_in} rows in, but {row.num_out} out + {row.num_dropped} dropped "
                f"+ {row.num_rejected} rejected = {accounted}; the shard lost or gained rows, which is a bug"
            )
        if sum(row.reasons.values()) != row.num_dropped + row.num_rejected:
            raise WorkspaceError(
                f"{row.stage} of {row.shard}: reasons {row.reasons} do not add up to what was lost"
            )


def folder_of(stage: str) -> str:
    """The name under which a stage's ledger lies."""
    return stage.replace(":", "-")

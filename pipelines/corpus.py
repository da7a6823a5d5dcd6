"""The corpus manifest: the shards that readers may trust, written by the launcher after ingest.

`corpus/shards.json` lists every committed shard in order, with its rows, bytes and content digest. Score tables,
decisions and datasets follow this list, never a glob.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from gristmill.pipelines import files
from gristmill.pipelines.ledger import LedgerRow, commit_ledger, require_footer
from gristmill.pipelines.plan_splits import IngestPlan
from gristmill.pipelines.read_documents import STAGE, ledger_row, shard_names
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.scratch import scratch_database
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import CorpusError, WorkspaceError

MIN_SEEN = 1000
"""Records that must have been seen before a reject rate means anything."""


def commit_corpus(workspace: Workspace, plan: IngestPlan) -> tuple[list[Shard], list[LedgerRow]]:
    """Check what ingest left and write the manifest.

    Returns:
        The shards in order, and the ledger of ingest.

    Raises:
        WorkspaceError: If a planned split did not come to its end, or a shard's accounts do not add up.
    """
    names = []
    for split, of_split in zip(
        plan.splits, files.in_parallel(partial(shard_names, workspace), plan.splits), strict=True
    ):
        if of_split is None:
            raise WorkspaceError(
                f"{workspace.root}: split {split.name} was not read to its end; run ingest again"
            )
        names += of_split
    rows = commit_ledger(workspace, STAGE, files.in_parallel(partial(ledger_row, workspace), names))
    shards = files.in_parallel(partial(read_shard, workspace), names)
    workspace.commit_json([asdict(shard) for shard in shards], "corpus", "shards.json")
    return shards, rows


def read_corpus(workspace: Workspace) -> list[Shard]:
    """The committed shards in order.

    Raises:
        CorpusError: If nothing has been ingested yet.
    """
    content = workspace.read_json("corpus", "shards.json")
    if content is None:
        raise CorpusError(f"{workspace.root}: no corpus yet; run `gristmill ingest` or `gristmill run` first")
    return [Shard(**shard) for shard in content]


def count_duplicate_ids(workspace: Workspace, shards: Sequence[Shard]) -> int:
    """How many of the users' own ids several documents of one source share.

    Ids are grouped on the launcher's temporary disk, a few dozen bytes a document.
    """
    with scratch_database() as connection:
        connection.execute("CREATE TABLE ids (source VARCHAR, id VARCHAR)")
        for shard in shards:
            with files.open_read(workspace.documents(shard.name)) as file:
                connection.register("shard", files.read_table(file, columns=["source", "id"]))
            connection.execute("INSERT INTO ids SELECT source, id FROM shard WHERE id IS NOT NULL")
            connection.unregister("shard")
        shared = "SELECT 1 FROM ids GROUP BY source, id HAVING count(*) > 1"
        (count,) = connection.execute(f"SELECT count(*) FROM ({shared})").fetchone() or (0,)
    return int(count)


def check_reject_rate(rows: list[LedgerRow], max_reject_rate: float) -> None:
    """Stop a run whose input is worse than its user expects.

    Raises:
        CorpusError: With the rate, the reasons and where to look.
    """
    num_in = sum(row.num_in for row in rows)
    num_rejected = sum(row.num_rejected for row in rows)
    if num_in >= MIN_SEEN and num_rejected > max_reject_rate * num_in:
        raise CorpusError(
            f"{num_rejected:,} of {num_in:,} records ({num_rejected / num_in:.1%}) could not be read, max_reject_rate "
            f"is {max_reject_rate:.1%}; see `gristmill sql WORKSPACE --query reject_reasons`, then mend the input or "
            "raise max_reject_rate"
        )


def read_shard(workspace: Workspace, name: str) -> Shard:
    """A committed shard, as its own file describes it."""
    footer = require_footer(workspace.documents(name))
    return Shard(name, footer["num_rows"], footer["num_bytes"], footer["content"])

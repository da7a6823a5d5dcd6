"""Block and take-down lists applied to datasets already published: what must go."""

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines import files
from gristmill.pipelines.catalog import TAKEDOWNS
from gristmill.pipelines.ledger import read_footer, write_side_file
from gristmill.pipelines.records import hosts
from gristmill.pipelines.select_documents import BLOCKED, BlockLists
from gristmill.pipelines.workspace import Workspace

COLUMNS = ["doc_id", "id", "url", "source"]


def commit_takedowns(workspace: Workspace, block_lists: BlockLists) -> list[str]:
    """Look for blocked documents in every published dataset and write down which must go.

    A dataset is read again only when it or the lists changed.

    Returns:
        One line for every dataset that holds any.
    """
    notes = []
    for item in files.list_folder(workspace.path("datasets")):
        selection = item.path.rpartition("/")[0].rpartition("/")[2]
        if item.path != workspace.dataset(selection, "manifest.json"):
            continue
        manifest = workspace.read_json("datasets", selection, "manifest.json")
        path = workspace.path("takedowns", f"{selection}.parquet")
        footer = {"dataset": manifest["identity"], "block": block_lists.digest()}
        earlier = read_footer(path)
        if earlier is not None and earlier == {**footer, "num_rows": earlier["num_rows"]}:
            notes += _note(selection, earlier["num_rows"])
            continue
        found = [
            find_blocked(workspace.dataset(selection, file["name"]), file["name"], selection, block_lists)
            for file in (manifest["files"] if block_lists != BlockLists() else [])
        ]
        table = pa.concat_tables([TAKEDOWNS.empty_table(), *found])
        write_side_file(path, table, footer)
        notes += _note(selection, len(table))
    return notes


def _note(selection: str, num_found: int) -> list[str]:
    if not num_found:
        return []
    return [
        f"dataset {selection!r} holds {num_found:,} documents on a block list: see `takedowns` in SQL, "
        "then export again to drop them"
    ]


def find_blocked(path: str, name: str, selection: str, block_lists: BlockLists) -> pa.Table:
    """The rows of one dataset file that a block list names, with the reason."""
    with files.open_read(path) as file:
        table = files.read_table(file, columns=COLUMNS).combine_chunks()
    table = table.append_column(
        "host", hosts(table["url"].combine_chunks()) if len(table) else pa.array([], pa.string())
    )
    reason = pa.nulls(len(table), pa.string())
    for kind, column in reversed(BLOCKED.items()):
        entries = pa.array(sorted(getattr(block_lists, kind)), pa.string())
        reason = pc.if_else(pc.is_in(table[column], entries), f"blocked_{column}", reason)
    table = table.append_column("reason", reason).filter(pc.is_valid(reason)).drop_columns(["host"])
    table = table.group_by(table.column_names, use_threads=False).aggregate([])  # one row for all its windows
    constants = {"selection": selection, "file": name}
    for constant, value in constants.items():
        table = table.append_column(constant, pa.array([value] * len(table), pa.string()))
    return table.select(TAKEDOWNS.names).cast(TAKEDOWNS)

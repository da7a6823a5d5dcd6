"""Thin: of the documents of a group, such as a site or a book, exemplars stay and what is nearly the same goes.

The scratch database sorts the documents that passed every rule by group and preference, on disk where memory ends, and
hands them over group by group. Memory holds `BATCH_ROWS` documents or the largest group: 48 bytes a document, and what
`choose_exemplars` takes, 230 at the default distance.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.scorers.doc_ids import uuid_halves
from gristmill.scorers.simhash import choose_exemplars

BATCH_ROWS = 1_000_000


def thin_groups(connection: duckdb.DuckDBPyConnection, max_distance: int) -> None:
    """Drop the documents that are near an exemplar of their group, and name it to them.

    Args:
        connection: With the tables `judged` and `superseded` of a selection.
        max_distance: Bits up to which two hashes are near.
    """
    ordered = (
        connection.cursor()
        .sql(
            "SELECT group_hash, shard, position, doc_id, simhash FROM judged "
            "WHERE step IS NULL AND group_hash IS NOT NULL "
            "ORDER BY group_hash, exemplar_preference.rank, exemplar_preference.score, doc_id"
        )
        .to_arrow_reader(BATCH_ROWS)
    )
    for documents in whole_groups(ordered):
        exemplars = _exemplars(documents, max_distance)
        dropped = np.flatnonzero(exemplars != np.arange(len(documents)))
        near = documents.select(["shard", "position"]).take(dropped)
        near = near.append_column("survivor", documents["doc_id"].take(exemplars[dropped]))
        connection.register("near", near)
        connection.execute("INSERT INTO superseded SELECT shard, position, 'thin', survivor FROM near")
        connection.unregister("near")


def whole_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches that are sorted by `group_hash`, cut anew so that no group is parted."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        table = pa.Table.from_batches([*held, batch]).combine_chunks()
        last = int(_group_starts(table)[-1])
        yield table.slice(0, last)
        held = table.slice(last).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _group_starts(documents: pa.Table) -> npt.NDArray[np.int64]:
    halves = uuid_halves(documents["group_hash"].combine_chunks())
    return np.flatnonzero(np.r_[True, (halves[1:] != halves[:-1]).any(axis=1)][: len(halves)])


def _exemplars(documents: pa.Table, max_distance: int) -> npt.NDArray[np.int64]:
    """Position of each document's exemplar, an exemplar's own."""
    hashes = documents["simhash"].to_numpy()
    exemplars = np.arange(len(documents))
    for start, end in pairwise([*_group_starts(documents).tolist(), len(documents)]):
        if end - start > 1:
            exemplars[start:end] = start + choose_exemplars(hashes[start:end], max_distance)
    return exemplars

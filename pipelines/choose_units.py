"""Top by windows or by batches: the best windows of all documents, or the best of each batch of documents.

Every document that reaches `top` puts its candidates, itself or its windows, into one table, about 50 bytes each on
disk. One choice among all is a cut in it; batches are settled by a running sum over each, which DuckDB sorts on disk
where memory ends. Memory holds two numbers a batch.
"""

from fractions import Fraction
from math import ceil

import duckdb
import pyarrow as pa

from gristmill.pipelines.budget import find_cut
from gristmill.pipelines.recipe_select import Top


def choose_units(connection: duckdb.DuckDBPyConnection, top: Top, still_in: str) -> None:
    """Keep the best windows or documents, and drop the documents of which nothing is kept.

    Args:
        connection: With the tables `judged`, `superseded` and `kept_windows` of a selection.
        top: What to keep.
        still_in: SQL condition for the rows of `judged` that no earlier budget drops.
    """
    reached = f"judged ANTI JOIN superseded USING (shard, position) WHERE step IS NULL AND {still_in}"
    _make_candidates(connection, top, reached)
    best = _best(connection, top.keep) if top.batch is None else _best_of_batches(connection, top.keep)
    connection.execute(f"CREATE TABLE kept AS SELECT shard, position, number FROM ({best})")
    connection.execute(
        "INSERT INTO superseded SELECT shard, position, 'top', NULL FROM "
        f"(SELECT shard, position FROM {reached}) ANTI JOIN kept USING (shard, position) ORDER BY shard, position"
    )
    if top.unit == "windows":
        connection.execute("INSERT INTO kept_windows FROM kept ORDER BY shard, position, number")
    connection.execute("DROP TABLE candidates; DROP TABLE kept")


def _make_candidates(connection: duckdb.DuckDBPyConnection, top: Top, reached: str) -> None:
    """One row a candidate: its place and doc_id, its number in the document, key, weight, and its batch."""
    num_batches = 1
    if top.batch is not None:
        ((num_documents,),) = connection.execute(f"SELECT count(*) FROM {reached}").fetchall()
        num_batches = ceil(num_documents / top.batch)
    units = (
        "unnest(range(len(window_scores)))::INTEGER AS number, unnest(window_scores, recursive := true)"
        if top.unit == "windows"
        else "0 AS number, key_top AS key, weight_top AS weight"
    )
    connection.execute(
        f"CREATE TABLE candidates AS SELECT shard, position, doc_id, {units}, "
        f"floor(batch_key * {num_batches})::INTEGER AS batch FROM {reached}"
    )


def _best(connection: duckdb.DuckDBPyConnection, keep: int | Fraction) -> str:
    """SQL for the shortest prefix of all candidates that reaches the budget."""
    cut = find_cut(connection, "candidates", keep)
    within = "true" if cut is None else f"row(key, doc_id, number) <= {cut.as_sql()}"
    return f"SELECT * FROM candidates WHERE {within}"


def _best_of_batches(connection: duckdb.DuckDBPyConnection, share: int | Fraction) -> str:
    """SQL for the shortest prefix of each batch that reaches its share of the batch's weight."""
    if share == 1:
        return "SELECT * FROM candidates"
    totals = connection.execute(
        "SELECT batch, sum(weight)::HUGEINT FROM candidates GROUP BY batch"
    ).fetchall()
    budgets = pa.table(
        {
            "batch": pa.array([batch for batch, _ in totals], pa.int32()),
            "budget": pa.array([ceil(share * total) for _, total in totals], pa.int64()),
        }
    )
    connection.register("budgets", budgets)
    running = "sum(weight) OVER (PARTITION BY batch ORDER BY key, doc_id, number ROWS UNBOUNDED PRECEDING)"
    return (
        f"SELECT * FROM (SELECT *, {running} AS reached FROM candidates) JOIN budgets USING (batch) "
        "WHERE reached - weight < budget"
    )

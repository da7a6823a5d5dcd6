"""Budgets: which rows are the shortest prefix that reaches a share of documents, characters or tokens."""

from fractions import Fraction
from math import ceil, isfinite

import duckdb
import numpy as np

NUM_BINS = 4096
MAX_SORTED = 1_000_000
"""Rows of the boundary bin that are sorted at once; a fuller bin is divided again."""
MAX_DIVISIONS = 8
NOTHING = (-float("inf"), "00000000-0000-0000-0000-000000000000")
"""The cut that keeps no row."""


def find_cut(
    connection: duckdb.DuckDBPyConnection, rows: str, amount: int | Fraction
) -> tuple[float, str] | None:
    """The last row of the shortest prefix, in the order of (key, doc_id), whose weights reach a budget.

    Weights are summed as integers in histograms of 4,096 bins, finer and finer around the budget; only the rows of the
    last bin are sorted.

    Args:
        connection: Where the rows are.
        rows: A relation with key (DOUBLE, finite), doc_id and weight (BIGINT, at least 0).
        amount: A share of the total weight, or an absolute weight.

    Returns:
        Key and doc_id of the last row kept; None where everything is; `NOTHING` where nothing is.
    """
    ((total, low, high),) = connection.execute(
        f"SELECT coalesce(sum(weight), 0)::HUGEINT, min(key), max(key) FROM {rows}"
    ).fetchall()
    if isinstance(amount, Fraction) and amount == 1:
        return None
    budget = ceil(amount * total) if isinstance(amount, Fraction) else amount
    if budget > total:
        return None
    if budget == 0:
        return NOTHING
    for _ in range(MAX_DIVISIONS):
        if low == high:
            break
        scale = 1.0 if isfinite(high - low) else 0.5
        place = "(key * $scale - $low * $scale) / ($high * $scale - $low * $scale)"
        histogram = connection.execute(
            f"SELECT least(floor({place} * {NUM_BINS}), {NUM_BINS - 1})::INTEGER AS bin, "
            "sum(weight)::HUGEINT, count(*), min(key), max(key) "
            f"FROM {rows} WHERE key BETWEEN $low AND $high GROUP BY bin ORDER BY bin",
            {"low": low, "high": high, "scale": scale},
        ).fetchall()
        for _, weight, count, low, high in histogram:  # noqa: B007 (the bin that reaches the budget goes on)
            if weight >= budget:
                break
            budget -= weight
        if count <= MAX_SORTED:
            break
    ordered = connection.sql(
        f"SELECT key, doc_id, weight FROM {rows} WHERE key BETWEEN $low AND $high ORDER BY key, doc_id",
        params={"low": low, "high": high},
    ).to_arrow_reader(MAX_SORTED)
    for batch in ordered:
        reached = np.cumsum(batch["weight"].to_numpy())
        index = int(np.searchsorted(reached, budget))
        if index < len(reached):
            return batch["key"][index].as_py(), str(batch["doc_id"][index].as_py())
        budget -= int(reached[-1])
    raise AssertionError("the rows of the boundary bin do not reach what its histogram counted")

"""Budgets: which rows are the shortest prefix that reaches a share of documents, characters or tokens."""

from fractions import Fraction
from math import ceil, isfinite
from typing import NamedTuple

import duckdb
import numpy as np

NUM_BINS = 4096
MAX_SORTED = 1_000_000
"""Rows of the boundary bin that are sorted at once; a fuller bin is divided again."""
MAX_DIVISIONS = 8


class Cut(NamedTuple):
    """The last row that a budget keeps.

    Args:
        key: What rows are ordered by.
        doc_id: What breaks ties.
        number: What breaks ties within a document: the window's, 0 for a whole document.
    """

    key: float
    doc_id: str
    number: int

    def as_sql(self) -> str:
        """The cut as SQL compares it with `row(key, doc_id, number)`."""
        return f"row('{self.key!r}'::DOUBLE, '{self.doc_id}'::UUID, {self.number})"


NOTHING = Cut(-float("inf"), "00000000-0000-0000-0000-000000000000", 0)
"""The cut that keeps no row."""


def find_cut(connection: duckdb.DuckDBPyConnection, rows: str, amount: int | Fraction) -> Cut | None:
    """The last row of the shortest prefix, in the order of (key, doc_id, number), whose weights reach a budget.

    Weights are summed as integers in histograms of 4,096 bins, finer and finer around the budget; only the rows of the
    last bin are sorted.

    Args:
        connection: Where the rows are.
        rows: A relation with key (DOUBLE, finite), doc_id, number (of a window, 0 for a whole document) and weight
            (BIGINT, at least 0).
        amount: A share of the total weight, or an absolute weight.

    Returns:
        The last row kept; None where everything is; `NOTHING` where nothing is.
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
        f"SELECT key, doc_id, number, weight FROM {rows} WHERE key BETWEEN $low AND $high "
        "ORDER BY key, doc_id, number",
        params={"low": low, "high": high},
    ).to_arrow_reader(MAX_SORTED)
    for batch in ordered:
        reached = np.cumsum(batch["weight"].to_numpy())
        index = int(np.searchsorted(reached, budget))
        if index < len(reached):
            key, doc_id, number = (batch[name][index].as_py() for name in ("key", "doc_id", "number"))
            return Cut(key, str(doc_id), number)
        budget -= int(reached[-1])
    raise AssertionError("the rows of the boundary bin do not reach what its histogram counted")

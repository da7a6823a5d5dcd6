"""Budgets against a plain sort: the shortest prefix in the order of (key, doc_id, number) that reaches the amount."""

from fractions import Fraction
from math import ceil, inf
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.pipelines import budget
from gristmill.pipelines.budget import NOTHING, find_cut
from gristmill.pipelines.records import doc_ids, uuid_array
from gristmill.scorers.doc_ids import random_keys

TINY, LARGE = 5e-324, 1.7976931348623157e308
keys = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e300, -1e300, LARGE, -LARGE, TINY, 1 / 3]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 3).map(float),
)
rows = st.lists(st.tuples(keys, st.sampled_from([0, 1, 2, 7, 1 << 40])), max_size=40)
amounts = st.one_of(
    st.sampled_from([0, 1, Fraction(0), Fraction(1), Fraction(1, 10**9), Fraction(1, 3), 1 << 60]),
    st.integers(0, 60),
    st.fractions(0, 1, max_denominator=50),
)


def ids(count):
    """Distinct UUIDs whose order is not that of the rows, over the whole range."""
    return [UUID(int=(position * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128) for position in range(count)]


def kept_by_sort(table, amount):
    """The rows kept, as the recipe's documentation says it."""
    if isinstance(amount, Fraction):
        if amount == 1:
            return set(range(len(table)))
        amount = ceil(amount * sum(weight for _, _, weight in table))
    kept, reached = set(), 0
    for position in sorted(range(len(table)), key=lambda row: (table[row][0], table[row][1].int, row)):
        if reached >= amount:
            break
        kept.add(position)
        reached += table[position][2]
    return kept if reached >= amount else set(range(len(table)))


CONNECTION = duckdb.connect()


def kept_by_cut(table, amount):
    columns = [list(column) for column in zip(*table, strict=True)] or [[], [], []]
    arrow = pa.table(
        {
            "key": pa.array(columns[0], pa.float64()),
            "doc_id": pa.array([value.bytes for value in columns[1]], pa.uuid()),
            "number": pa.array(range(len(table)), pa.int32()),
            "weight": pa.array(columns[2], pa.int64()),
        }
    )
    CONNECTION.register("t", arrow)
    cut = find_cut(CONNECTION, "t", amount)
    if cut is None:
        return set(range(len(table)))
    query = f"SELECT number FROM t WHERE row(key, doc_id, number) <= {cut.as_sql()}"
    return {number for (number,) in CONNECTION.execute(query).fetchall()}


@given(rows=rows, amount=amounts)
@example(rows=[(0.0, 1), (1.0, 1), (2.0, 1)], amount=1)
@example(rows=[(0.0, 0), (1.0, 0)], amount=0)
@example(rows=[(0.0, 0), (1.0, 0)], amount=Fraction(1, 2))
@example(rows=[(-LARGE, 1), (0.0, 1), (LARGE, 1)], amount=2)
@example(rows=[(0.0, 1)] * 20 + [(1e300, 1)], amount=7)
@example(rows=[(1.0, 3)] * 10, amount=Fraction(1, 2))
@example(rows=[(-0.0, 1), (0.0, 1), (-0.0, 1)], amount=2)
@settings(deadline=None, max_examples=80)
def test_cut_is_the_shortest_prefix(rows, amount):
    table = [(key, doc_id, weight) for (key, weight), doc_id in zip(rows, ids(len(rows)), strict=True)]
    assert kept_by_cut(table, amount) == kept_by_sort(table, amount)


@given(rows=rows, amount=amounts, divisions=st.integers(0, 8))
@example(rows=[(-LARGE, 1), (0.0, 1), (1.0, 1), (LARGE, 1)], amount=2, divisions=8)
@example(rows=[(2.0**-power, 1) for power in range(40)], amount=20, divisions=3)
@settings(deadline=None, max_examples=80)
def test_boundary_bin_is_divided_until_it_is_small(rows, amount, divisions):
    table = [(key, doc_id, weight) for (key, weight), doc_id in zip(rows, ids(len(rows)), strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "MAX_SORTED", 2)
        patch.setattr(budget, "NUM_BINS", 3)
        patch.setattr(budget, "MAX_DIVISIONS", divisions)
        assert kept_by_cut(table, amount) == kept_by_sort(table, amount)


def test_one_document_is_not_everything():
    table = [(float(key), doc_id, 1) for key, doc_id in enumerate(ids(5))]
    assert kept_by_cut(table, 1) == {0}
    assert kept_by_cut(table, Fraction(1)) == {0, 1, 2, 3, 4}


def test_ties_are_broken_by_doc_id():
    table = [(1.0, UUID(int=value), 1) for value in (2**127 + 1, 5, 2**128 - 1, 0, 2**64)]
    assert kept_by_cut(table, 3) == {1, 3, 4}


def test_ties_within_a_document_are_broken_by_window():
    first, second = ids(2)
    table = [(1.0, max(first, second), 1), *[(1.0, min(first, second), 1)] * 3]
    assert kept_by_cut(table, 2) == {1, 2}
    assert kept_by_cut(table, 3) == {1, 2, 3}


def test_nothing_lies_before_every_row():
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT -1e308 AS key, uuid() AS doc_id, 0 AS number, 5::BIGINT AS weight"
        )
        assert find_cut(connection, "t", 0) == NOTHING
        assert find_cut(connection, "t", Fraction(0)) == NOTHING
        assert find_cut(connection, "(SELECT * FROM t WHERE false)", 10) is None
    assert NOTHING[0] == -inf


def column(start, stop):
    return pa.chunked_array([uuid_array(doc_ids("web", "a.jsonl", range(start, stop)))])


def test_random_keys_are_stable():
    expected = [0.551010352478459, 0.620942395727172, 0.3287981829992419, 0.49719157863202945]
    assert random_keys(column(0, 4), 0).tolist() == expected


def test_random_keys_are_uniform():
    keys = np.sort(random_keys(column(0, 100_000), 7))
    assert 0 <= keys[0] < keys[-1] < 1
    assert np.abs(keys - (np.arange(100_000) + 0.5) / 100_000).max() < 0.006  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize("other", [1, 2, 1 << 32, -1, 2**64 + 5])
def test_random_keys_of_two_seeds_are_independent(other):
    first, second = random_keys(column(0, 50_000), 0), random_keys(column(0, 50_000), other)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    both = np.mean((first < 0.1) & (second < 0.1))
    assert both == pytest.approx(0.01, abs=0.002)


def test_random_keys_depend_on_doc_id_alone():
    whole = random_keys(column(0, 100), 3)
    sliced = pa.chunked_array([column(0, 100).chunk(0).slice(10, 20)])
    assert random_keys(sliced, 3).tolist() == whole[10:30].tolist()
    divided = pa.chunked_array([column(0, 7).chunk(0), column(7, 7).chunk(0), column(7, 100).chunk(0)])
    assert random_keys(divided, 3).tolist() == whole.tolist()
    assert random_keys(pa.chunked_array([], pa.uuid()), 3).tolist() == []

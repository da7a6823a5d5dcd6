"""Predictive strength against a plain count of pairs, and the set of documents it was measured on."""

from itertools import combinations
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.seed_set import id_bytes, is_in_seed_set, load_seed_set, save_seed_set
from gristmill.models.strength import predictive_strength

loss = st.sampled_from([0.0, 0.5, 1.0, 1.5, float("nan")]) | st.floats(0, 10)


def count_pairs(row):
    """The formula of the paper, pair by pair."""
    if any(np.isnan(row)):
        return float("nan")
    pairs = list(combinations(range(len(row)), 2))
    return sum(row[worse] > row[better] for worse, better in pairs) / len(pairs)


@settings(deadline=None)
@given(rows=st.integers(2, 7).flatmap(lambda n: st.lists(st.lists(loss, min_size=n, max_size=n), min_size=1)))
def test_strength_is_the_share_of_pairs(rows):
    found = predictive_strength(np.array(rows))
    assert found.tolist() == pytest.approx([count_pairs(row) for row in rows], nan_ok=True)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 2.0, 1.0], 1.0),
        ([1.0, 2.0, 3.0], 0.0),
        ([2.0, 2.0, 2.0], 0.0),
        ([3.0, 1.0, 1.0], 2 / 3),
        ([2.0, 1.0], 1.0),
    ],
    ids=["better is better", "better is worse", "ties", "a tie", "one pair"],
)
def test_examples(losses, expected):
    assert predictive_strength(np.array([losses])).tolist() == [expected]


def test_a_missing_rung_leaves_no_strength():
    found = predictive_strength(np.array([[2.0, np.nan, 1.0], [3.0, 2.0, 1.0]]))
    assert np.isnan(found[0])
    assert found[1] == 1
    assert predictive_strength(np.empty((0, 3))).shape == (0,)


def uuids(*numbers):
    return pa.array([UUID(int=number).bytes for number in numbers], pa.uuid())


def test_a_seed_set_knows_its_documents(tmp_path):
    inside = uuids(0, 1 << 8, 255 << 120, (255 << 120) + 1, 7)
    save_seed_set(tmp_path, id_bytes(inside))
    seed_set = load_seed_set(tmp_path)
    assert is_in_seed_set(inside, seed_set).all()
    others = uuids(1, 1 << 16, 254 << 120, (1 << 128) - 1, 7)
    assert is_in_seed_set(others, seed_set).tolist() == [False] * 4 + [True]
    assert is_in_seed_set(others[3:], seed_set).tolist() == [False, True]
    assert is_in_seed_set(others[:0], seed_set).tolist() == []


def test_a_model_without_a_seed_set_has_seen_nothing(tmp_path):
    assert not is_in_seed_set(uuids(1, 2), load_seed_set(tmp_path)).any()

"""Windows cover every token once, and batches every window once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.windows import plan_batches, split_windows

LENGTHS = st.lists(st.integers(0, 60), max_size=8)


@given(LENGTHS, st.integers(1, 20), st.data())
def test_every_token_is_scored_once_inside_its_document(lengths, window, data):
    stride = data.draw(st.integers(1, window))
    offsets = np.cumsum([0, *lengths])
    windows = split_windows(offsets, window, stride)
    scored = [
        token for first, end in zip(windows.scored, windows.ends, strict=True) for token in range(first, end)
    ]
    assert scored == list(range(offsets[-1]))
    assert (windows.num_scored > 0).all()
    assert ((windows.lengths > 0) & (windows.lengths <= window)).all()
    assert (windows.starts >= offsets[windows.documents]).all()
    assert (windows.ends <= offsets[windows.documents + 1]).all()
    assert (windows.starts <= windows.scored).all()
    assert (np.diff(windows.documents) >= 0).all()
    of_later = windows.scored > offsets[windows.documents]
    assert (windows.scored - windows.starts)[of_later].tolist() == [window - stride] * int(of_later.sum())


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_batches_hold_every_window_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, np.int64)
    batches = list(plan_batches(lengths, budget))
    assert sorted(np.concatenate([np.empty(0, np.int64), *batches]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * lengths[batch].max() <= budget or len(batch) == 1


def test_by_hand():
    windows = split_windows(np.array([0, 0, 3, 10]), 4, 2)
    assert windows.documents.tolist() == [1, 2, 2, 2]
    assert windows.starts.tolist() == [0, 3, 5, 7]
    assert windows.ends.tolist() == [3, 7, 9, 10]
    assert windows.scored.tolist() == [0, 3, 7, 9]

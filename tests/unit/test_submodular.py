import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.greedy import choose
from gristmill.models.submodular import FacilityLocation


@st.composite
def features(draw):
    """Few distinct vectors, many copies, zero vectors among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_rows, width, num_kinds = draw(st.integers(1, 40)), draw(st.integers(1, 9)), draw(st.integers(1, 40))
    kinds = rng.normal(size=(num_kinds, width)) * (rng.random((num_kinds, 1)) < 0.9)
    return kinds[rng.integers(0, num_kinds, num_rows)].astype(np.float32)


FUNCTIONS = {
    "facility location": FacilityLocation,
    "facility location, rbf": lambda table: FacilityLocation(table, "rbf"),
}


def same(one, other):
    np.testing.assert_array_equal(one.order, other.order)
    np.testing.assert_array_equal(one.gains, other.gains)


@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
@settings(deadline=None, max_examples=60)
@given(table=features(), data=st.data())
def test_lazy_finds_the_order_and_the_gains_of_naive(make, table, data):
    num_rows = len(table)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    options = {
        "budget": data.draw(st.integers(0, num_rows + 1)),
        "keys": rng.permutation(num_rows),
        "costs": data.draw(st.sampled_from([None, rng.integers(1, 4, num_rows).astype(np.float64)])),
        "rank_all": data.draw(st.booleans()),
    }
    naive = choose(make(table), optimizer="naive", **options)
    same(choose(make(table), **options), naive)
    same(choose(make(table), **options, max_bytes=3000), naive)
    assert len(set(naive.order)) == len(naive.order)

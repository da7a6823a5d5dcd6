"""Quantiles by counting, against sorting."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipelines.exact_quantile import exact_quantile

NUMBERS = st.lists(st.floats(allow_nan=False), min_size=1, max_size=50)


@given(NUMBERS, st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99, 1.0]), st.integers(1, 7))
def test_the_quantile_is_one_of_the_numbers_sorted(numbers, share, size):
    pieces = [np.array(numbers[start : start + size]) for start in range(0, len(numbers), size)]
    rank = max(ceil(Fraction(str(share)) * len(numbers)), 1)
    assert exact_quantile(lambda: pieces, share) == sorted(numbers)[rank - 1]


def test_a_tenth_of_thirty_numbers_are_three():
    assert exact_quantile(lambda: [np.arange(30.0)], 0.1) == 2.0


@pytest.mark.parametrize("pieces", [[], [np.array([])]])
def test_no_numbers_have_no_quantile(pieces):
    assert exact_quantile(lambda: pieces, 0.5) is None

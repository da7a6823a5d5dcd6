import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gristmill.models.signal_weights import FILE, SignalWeights, fit_signal

COLUMN = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))
NORMALISATIONS = ("quantile", "min_max")


def fitted(values, normalisation="quantile", higher_is_better=True):
    return fit_signal(
        "a", np.array(values, float), higher_is_better=higher_is_better, normalisation=normalisation
    )


def test_min_max_puts_the_smallest_at_0_and_the_largest_at_5():
    signal = fitted([2, 4, 12], "min_max")
    np.testing.assert_allclose(signal.scale(np.array([2.0, 4, 12, 7, -3, 99])), [0, 1, 5, 2.5, 0, 5])


def test_quantiles_count_what_lies_below_and_half_of_what_is_equal():
    signal = fitted([1, 1, 1, 9])
    np.testing.assert_allclose(signal.scale(np.array([1.0, 9, 0, 10])), [1.875, 4.375, 1.875, 4.375])


def test_an_outlier_moves_everything_by_min_max_and_nothing_by_quantiles():
    values = np.arange(100.0)
    outlier = np.append(values, 1e6)
    assert fitted(outlier, "min_max").scale(values).max() < 0.001
    np.testing.assert_allclose(fitted(outlier).scale(values), fitted(values).scale(values), atol=0.1)


def test_a_signal_whose_lower_end_is_better_is_turned():
    signal = fitted([2, 4, 12], "min_max", higher_is_better=False)
    np.testing.assert_allclose(signal.scale(np.array([2.0, 4, 12])), [5, 4, 0])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_what_is_missing_is_worst(higher_is_better):
    signal = fitted([1, 2], higher_is_better=higher_is_better)
    assert signal.scale(np.array([np.nan])).tolist() == [0]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_values_that_are_all_equal_lie_in_the_middle(normalisation):
    assert fitted([3, 3, np.nan], normalisation).scale(np.array([3.0, 8])).tolist() == [2.5, 2.5]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@given(COLUMN)
def test_scaled_values_keep_their_order_within_the_scale(normalisation, column):
    scaled = fitted(column, normalisation).scale(column)
    assert ((scaled >= 0) & (scaled <= 5)).all()
    assert (np.diff(scaled[np.argsort(column)]) >= -1e-9).all()


def test_a_column_without_a_number_is_refused():
    with pytest.raises(ValueError, match="a: found no number among 2 values"):
        fitted([np.nan, np.inf])


def test_contributions_are_weights_times_scaled_signals():
    signals = (
        replace(fitted([0, 10], "min_max"), weight=0.25),
        replace(fitted([0, 1]), name="b", weight=0.75),
    )
    weights = SignalWeights(signals)
    columns = {"b": np.array([0.0, 1]), "a": np.array([4.0, np.nan])}
    np.testing.assert_allclose(weights.contributions(columns), [[0.5, 0.9375], [0, 2.8125]])


def test_weights_survive_the_disk(tmp_path):
    weights = SignalWeights((replace(fitted([0, 1, 5]), weight=1.0),))
    weights.save(tmp_path)
    assert SignalWeights.load(tmp_path) == weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no signal weights"),
        ("[{}]", "no signal weights"),
        ("[]", "found weights below 0, or none"),
        (
            json.dumps([{"name": "a", "weight": -1, "higher_is_better": True, "values": [1], "scaled": [1]}]),
            "found weights below 0, or none",
        ),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=message):
        SignalWeights.load(tmp_path)

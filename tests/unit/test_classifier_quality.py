"""Quality of classifiers: area under the ROC curve, Brier score and calibration against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.classifier_quality import Bin, area_under_roc, quality

values = st.lists(st.floats(0, 1) | st.sampled_from([0.1, 0.3, 0.5]), min_size=1, max_size=30)


@given(positive=values, negative=values)
def test_area_counts_pairs(positive, negative):
    pairs = [(above > below) + (above == below) / 2 for above in positive for below in negative]
    assert area_under_roc(np.array(positive), np.array(negative)) == pytest.approx(np.mean(pairs))


@given(positive=values, negative=values)
def test_bins_hold_every_document(positive, negative):
    found = quality(np.array(positive), np.array(negative))
    rows = [(value, 1) for value in positive] + [(value, 0) for value in negative]
    assert found.brier == pytest.approx(np.mean([(value - truth) ** 2 for value, truth in rows]))
    assert sum(part.count for part in found.bins) == len(rows)
    assert sum(part.count * part.share_positive for part in found.bins) == pytest.approx(len(positive))
    gaps = [part.count * abs(part.mean_probability - part.share_positive) for part in found.bins]
    assert found.expected_calibration_error == pytest.approx(sum(gaps) / len(rows))
    assert 0 <= found.expected_calibration_error <= 1


def test_a_calibrated_classifier():
    found = quality(np.array([0.75, 0.75, 0.75, 0.25]), np.array([0.75, 0.25, 0.25, 0.25]))
    assert found.expected_calibration_error == 0
    assert (found.auc, found.brier) == (0.75, 0.1875)
    assert found.bins[2] == Bin(0.2, 4, 0.25, 0.25)
    assert found.bins[7] == Bin(0.7, 4, 0.75, 0.75)
    assert found.bins[0] == Bin(0.0, 0, 0.0, 0.0)


def test_certainty_falls_into_the_last_bin():
    found = quality(np.array([1.0]), np.array([0.0, 1.0]))
    assert found.bins[9] == Bin(0.9, 2, 1.0, 0.5)
    assert found.expected_calibration_error == pytest.approx(1 / 3)

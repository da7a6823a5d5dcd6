import numpy as np
import pytest
import torch

from gristmill.models import uncovered
from gristmill.models.similarity import Similarities
from gristmill.models.uncovered import find_uncovered

ALL = torch.arange(300)


@pytest.fixture
def similarities():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(15, 24))[rng.integers(0, 15, 300)] + 0.4 * rng.normal(size=(300, 24))
    return Similarities(table.astype(np.float32), "cosine")


@pytest.fixture(params=["one walk", "many walks"])
def walks(request, monkeypatch):
    monkeypatch.setattr(uncovered, "MAX_SHARE", 1)
    monkeypatch.setattr(uncovered, "MAX_WALK", 2**18 if request.param == "one walk" else 7)


def covered_by(similarities, chosen):
    return similarities.block(torch.tensor(chosen), slice(0, 300)).max(dim=0).values


def added(similarities, covered):
    """What every document would add, by its definition."""
    return (similarities.block(ALL, slice(0, 300)).double() - covered).clamp_min(0).sum(dim=1).numpy()


@pytest.mark.usefixtures("walks")
def test_walks_along_lists_give_the_gains_to_the_last_bit(similarities):
    chosen = [250, 3, 77]
    pairs = find_uncovered(similarities, covered_by(similarities, chosen), ALL, 2**20)
    for row in (120, 4, 299, 181):
        np.testing.assert_array_equal(
            pairs.gains(np.arange(300)), added(similarities, covered_by(similarities, chosen))
        )
        pairs.add(row)
        chosen.append(row)
    np.testing.assert_array_equal(pairs.covered, covered_by(similarities, chosen))


@pytest.mark.usefixtures("walks")
def test_lists_shorten_as_documents_are_covered(similarities):
    pairs = find_uncovered(similarities, covered_by(similarities, [250]), ALL, 2**20)
    num_pairs = len(pairs.others)
    for row in range(20):
        pairs.add(row)
        found = pairs.gains(np.arange(300))
    assert len(pairs.others) < num_pairs / 4
    np.testing.assert_array_equal(found, added(similarities, covered_by(similarities, [250, *range(20)])))


@pytest.mark.usefixtures("walks")
def test_only_candidates_have_lists(similarities):
    covered, candidates = covered_by(similarities, [250]), torch.tensor([2, 40, 41, 290])
    pairs = find_uncovered(similarities, covered, candidates, 2**20)
    assert np.flatnonzero(pairs.lengths).tolist() == candidates.tolist()
    np.testing.assert_array_equal(pairs.gains(np.array([290, 2])), added(similarities, covered)[[290, 2]])


def test_too_many_pairs_are_not_listed(similarities):
    covered = covered_by(similarities, [250])
    num_pairs = int((similarities.block(ALL, slice(0, 300)) > covered).sum())
    assert num_pairs > 300 * 300 / 32
    assert find_uncovered(similarities, covered, ALL, 2**20) is None
    covered = covered_by(similarities, list(range(60)))
    assert find_uncovered(similarities, covered, ALL, 100) is None
    assert 0 < len(find_uncovered(similarities, covered, ALL, 2**20).others) < 300 * 300 / 32

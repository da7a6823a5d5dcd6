"""Bands: the formula, datasketch's choice, and that signatures collide as often as the formula says."""

import re

import datasketch
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.scorers import bands
from gristmill.scorers.bands import DATATROVE_BANDS, band_hashes, choose_bands, collision_probability
from gristmill.scorers.minhash import multipliers, signatures
from gristmill.scorers.shingles import DocumentHashes


@given(st.floats(0, 1), st.integers(1, 64), st.integers(1, 32))
def test_collision_probability_is_the_formula(jaccard: float, num_bands: int, rows_per_band: int) -> None:
    probability = float(collision_probability(jaccard, num_bands, rows_per_band))
    assert probability == pytest.approx(1 - (1 - jaccard**rows_per_band) ** num_bands)
    assert 0 <= probability <= 1


def test_more_bands_find_more_and_more_rows_find_less() -> None:
    assert (
        collision_probability(0.8, 15, 8)
        > collision_probability(0.8, 14, 8)
        > collision_probability(0.8, 14, 9)
    )
    assert collision_probability([0, 1], *DATATROVE_BANDS).tolist() == [0, 1]


def test_the_table_of_the_module_is_right() -> None:
    assert bands.__doc__
    rows = [line.split() for line in bands.__doc__.splitlines() if re.match(r" +\d+ bands of", line)]
    assert len(rows) == 4
    for num_bands, _, _, rows_per_band, _, num_perm, *percent in rows:
        assert int(num_perm) == int(num_bands) * int(rows_per_band)
        expected = 100 * collision_probability([0.5, 0.6, 0.7, 0.8, 0.9], int(num_bands), int(rows_per_band))
        assert list(map(int, percent[:5])) == np.rint(expected).tolist()


def objective(threshold: float, num_bands: int, rows_per_band: int) -> float:
    """Half the area under the collision probability below the threshold plus half that over it above."""
    similarity = (np.arange(20_000) + 0.5) / 20_000
    probability = collision_probability(similarity, num_bands, rows_per_band)
    return float(np.where(similarity < threshold, probability, 1 - probability).mean() / 2)


@pytest.mark.parametrize("num_perm", [32, 112, 128])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_choose_bands_agrees_with_datasketch_and_its_objective(threshold: float, num_perm: int) -> None:
    num_bands, rows_per_band = choose_bands(threshold, num_perm)
    peer = datasketch.MinHashLSH(threshold=threshold, num_perm=num_perm)
    assert (num_bands, rows_per_band) == (peer.b, peer.r)
    best = min(
        objective(threshold, bands, rows)
        for bands in range(1, num_perm + 1)
        for rows in range(1, num_perm // bands + 1)
    )
    assert objective(threshold, num_bands, rows_per_band) == pytest.approx(best, abs=1e-5)


def test_no_bands_for_a_high_threshold_and_few_values() -> None:
    with pytest.raises(ValueError, match="number of bands"):
        choose_bands(0.9, 16)


@given(
    st.integers(0, 6).flatmap(
        lambda num_rows: st.lists(
            st.lists(st.integers(0, 1) | st.just(2**32 - 1), min_size=12, max_size=12),
            min_size=num_rows,
            max_size=num_rows,
        )
    ),
    st.sampled_from([(1, 12), (3, 4), (12, 1), (2, 5), (1, 1)]),
)
@settings(deadline=None)
def test_equal_bands_and_no_others_have_equal_hashes(rows: list[list[int]], layout: tuple[int, int]) -> None:
    num_bands, rows_per_band = layout
    hashes = band_hashes(np.array(rows, np.uint32).reshape(-1, 12), num_bands, rows_per_band)
    assert hashes.dtype == np.uint64
    assert hashes.shape == (len(rows), num_bands)
    values = [
        (band, *row[band * rows_per_band : (band + 1) * rows_per_band])
        for row in rows
        for band in range(num_bands)
    ]
    assert (
        len(set(zip(values, hashes.ravel().tolist(), strict=True)))
        == len(set(values))
        == len(set(hashes.ravel().tolist()))
    )


def test_one_signature_serves_several_layouts() -> None:
    values = np.arange(224, dtype=np.uint32).reshape(2, 112)
    assert band_hashes(values, 14, 8).shape == (2, 14)
    assert band_hashes(values, 18, 6).shape == (2, 18)
    # Hashes of a document depend on no other.
    assert np.array_equal(band_hashes(values[1:], 14, 8), band_hashes(values, 14, 8)[1:])
    assert band_hashes(values, 14, 8)[0, :2].tolist() == [18384933772358135901, 1096119636777414151]


def test_too_many_bands() -> None:
    with pytest.raises(ValueError, match="14 bands of 9 rows need 126 values of a signature, there are 112"):
        band_hashes(np.zeros((1, 112), np.uint32), 14, 9)


def collisions(jaccard: float, layout: tuple[int, int], num_pairs: int) -> npt.NDArray[np.bool_]:
    """Whether pairs of random sets of 100 to 125 hashes with one Jaccard similarity share a band."""
    rng = np.random.default_rng(round(100 * jaccard))
    num_union, num_both = 125, round(125 * jaccard)
    num_left = (num_union - num_both) // 2
    hashes = rng.integers(0, 2**64, (num_pairs, num_union), np.uint64)
    factors = multipliers(layout[0] * layout[1], seed=1)
    found = []
    for kept in (np.s_[: num_both + num_left], np.r_[:num_both, num_both + num_left : num_union]):
        sets = hashes[:, kept]
        shingles = DocumentHashes(sets.ravel(), np.arange(num_pairs + 1) * sets.shape[1])
        found.append(band_hashes(signatures(shingles, factors), *layout))
    return (found[0] == found[1]).any(axis=1)


@pytest.mark.parametrize("layout", [DATATROVE_BANDS, (18, 6), (9, 12)])
@pytest.mark.parametrize("jaccard", [0.4, 0.6, 0.72, 0.8, 0.88])
def test_pairs_collide_as_often_as_the_formula_says(jaccard: float, layout: tuple[int, int]) -> None:
    num_pairs = 4000
    expected = float(collision_probability(round(125 * jaccard) / 125, *layout))
    # Within 4 standard errors.
    tolerance = 4 * np.sqrt(expected * (1 - expected) / num_pairs)
    assert collisions(jaccard, layout, num_pairs).mean() == pytest.approx(expected, abs=tolerance)

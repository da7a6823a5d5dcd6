"""SimHash against its definition, bit by bit."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.scorers import simhash
from gristmill.scorers.shingles import DATATROVE_SHINGLING, DocumentHashes, Shingling, shingle_hashes
from gristmill.scorers.simhash import ALL_PAIRS, MAX_COUNT, SimHash, choose_exemplars, hamming, simhashes
from gristmill.scorers.text import TextBatch


def group(documents: list[list[int]]) -> DocumentHashes:
    flat = [value for document in documents for value in document]
    return DocumentHashes(np.array(flat, np.uint64), np.cumsum([0, *map(len, documents)]))


def simhash_by_bit(document: list[int]) -> int:
    counts = [sum(value >> bit & 1 for value in document) for bit in range(64)]
    return sum(1 << bit for bit in range(64) if 2 * counts[bit] > len(document))


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), max_size=8))
@settings(deadline=None)
def test_simhashes_are_majorities(documents: list[list[int]]) -> None:
    found = simhashes(group(documents))
    assert found.dtype == np.uint64
    assert found.tolist() == list(map(simhash_by_bit, documents))


@pytest.mark.parametrize("length", [MAX_COUNT - 1, MAX_COUNT, MAX_COUNT + 1, 2 * MAX_COUNT, 5000])
def test_counts_do_not_overflow(length: int) -> None:
    rng = np.random.default_rng(length)
    values = rng.integers(0, 2**64, length, np.uint64) | np.uint64(1 << 63 | 1)
    documents = [[5], values.tolist(), [], [2**64 - 1] * length, [0] * length, values[:300].tolist()]
    assert simhashes(group(documents)).tolist() == list(map(simhash_by_bit, documents))


def test_no_documents() -> None:
    assert simhashes(group([])).tolist() == []
    assert simhashes(group([[], []])).tolist() == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))))
def test_hamming_counts_differing_bits(pairs: list[tuple[int, int]]) -> None:
    left, right = np.array(pairs, np.uint64).reshape(-1, 2).T
    assert hamming(left, right).tolist() == [(first ^ second).bit_count() for first, second in pairs]


def exemplars_one_by_one(hashes: list[int], max_distance: int) -> list[int]:
    """The first exemplar within the distance, else the document itself becomes one."""
    exemplars: list[int] = []
    found = []
    for position, value in enumerate(hashes):
        near = (other for other in exemplars if (hashes[other] ^ value).bit_count() <= max_distance)
        found.append(next(near, position))
        if found[-1] == position:
            exemplars.append(position)
    return found


bits = st.sets(st.integers(0, 63), max_size=12).map(lambda places: sum(1 << place for place in places))
flocks = st.lists(
    st.builds(int.__xor__, st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF]), bits), max_size=40
)


@given(flocks, st.integers(0, 64), st.sampled_from([0, ALL_PAIRS]))
@settings(deadline=None)
def test_exemplars_are_those_of_one_look_after_the_other(
    hashes: list[int], max_distance: int, all_pairs: int
) -> None:
    with mock.patch.object(simhash, "ALL_PAIRS", all_pairs):
        found = choose_exemplars(np.array(hashes, np.uint64), max_distance)
    assert found.dtype == np.int64
    assert found.tolist() == exemplars_one_by_one(hashes, max_distance)


def test_a_chain_of_drifting_copies_keeps_every_second_exemplar() -> None:
    drifting = np.array([(1 << 4 * step) - 1 for step in range(8)], np.uint64)
    assert choose_exemplars(drifting, 4).tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert choose_exemplars(drifting, 3).tolist() == list(range(8))
    assert choose_exemplars(drifting[::-1].copy(), 64).tolist() == [0] * 8


def test_large_groups_lose_no_near_document() -> None:
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 2**64, ALL_PAIRS, np.uint64)
    copies = originals.copy()
    for _ in range(6):
        copies ^= np.uint64(1) << rng.integers(0, 64, len(copies), np.uint64)
    assert (hamming(originals, copies) > 3).mean() > 0.9
    found = choose_exemplars(np.concatenate([originals, copies]), 6)
    assert found.tolist() == [*range(ALL_PAIRS), *range(ALL_PAIRS)]


def test_scores_are_of_the_shingles_that_minhash_uses() -> None:
    texts = ["The mill grinds the grain of 3 farmers.", "short", "", "..."]
    scores = SimHash().score(TextBatch.from_texts(texts))
    shingles = shingle_hashes(TextBatch.from_texts(texts), DATATROVE_SHINGLING)
    assert scores.column("simhash").to_pylist() == simhashes(shingles).tolist()
    assert scores.column("simhash_num_shingles").to_pylist() == [4, 1, 0, 0]
    other = SimHash(shingling=Shingling(size=2))
    assert other.score(TextBatch.from_texts(texts)).column("simhash")[0] != scores.column("simhash")[0]
    assert other.fingerprint() != SimHash().fingerprint()


@pytest.mark.parametrize(("jaccard", "bits"), [(0.9, 6.6), (0.8, 9.7), (0.5, 17.2), (0, 32)])
def test_distance_follows_the_angle_between_the_sets(jaccard: float, bits: float) -> None:
    # 64 / pi * arccos(2 J / (1 + J)) bits for sets of one size; the mean of 400 pairs within half a bit.
    rng = np.random.default_rng(0)
    num_both = round(300 * jaccard)
    num_left = (300 - num_both) // 2
    hashes = rng.integers(0, 2**64, (400, 300), np.uint64)
    parts = hashes[:, : num_both + num_left], np.delete(hashes, np.s_[num_both : num_both + num_left], axis=1)
    left, right = (simhashes(DocumentHashes(part.ravel(), np.arange(401) * part.shape[1])) for part in parts)
    assert hamming(left, right).mean() == pytest.approx(bits, abs=0.5)

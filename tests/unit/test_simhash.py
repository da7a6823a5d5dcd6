"""SimHash against its definition, bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.scorers.shingles import DATATROVE_SHINGLING, DocumentHashes, Shingling, shingle_hashes
from gristmill.scorers.simhash import MAX_COUNT, SimHash, hamming, simhashes
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

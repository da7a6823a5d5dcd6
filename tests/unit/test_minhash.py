"""MinHash signatures against the definition, against true Jaccard similarities and against datasketch."""

import gzip
import json
from itertools import islice, pairwise
from pathlib import Path

import datasketch
import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.scorers import minhash
from gristmill.scorers.minhash import (
    NO_SHINGLE,
    MinHash,
    estimate_jaccard,
    multipliers,
    signature_values,
    signatures,
)
from gristmill.scorers.shingles import DATATROVE_SHINGLING, DocumentHashes, Shingling, shingle_hashes
from gristmill.scorers.text import TextBatch

DATA = Path(__file__).resolve().parents[3] / "shared/data"

HASHES = st.integers(0, 2**64 - 1) | st.integers(0, 2**33) | st.just(0)


def group(documents: list[list[int]]) -> DocumentHashes:
    flat = [value for document in documents for value in document]
    return DocumentHashes(np.array(flat, np.uint64), np.cumsum([0, *map(len, documents)]))


@given(
    st.lists(st.lists(HASHES, max_size=12), max_size=6),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(1, 7),
)
@settings(deadline=None)
def test_signatures_are_smallest_products(
    documents: list[list[int]], num_perm: int, seed: int, block: int
) -> None:
    factors = multipliers(num_perm, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "BLOCK_SHINGLES", block)
        found = signatures(group(documents), factors)
    expected = [
        [
            min((max(value >> 32, 1) * factor % 2**32 for value in document), default=2**32 - 1)
            for factor in factors.tolist()
        ]
        for document in documents
    ]
    assert found.dtype == np.uint32
    assert found.shape == (len(documents), num_perm)
    assert found.tolist() == expected


def test_multipliers_are_odd_distinct_and_the_same_for_ever() -> None:
    factors = multipliers(4096, 1)
    assert factors.dtype == np.uint32
    assert (factors & 1).all()
    assert len(np.unique(factors)) == len(factors)
    assert np.array_equal(multipliers(112, 1), factors[:112])
    assert multipliers(3, 1).tolist() == [2058620425, 3653179345, 4012945437]
    assert not set(multipliers(112, 2).tolist()) & set(factors.tolist())


def pairs(
    jaccard: float, num_union: int, num_pairs: int, seed: int
) -> tuple[DocumentHashes, DocumentHashes, float]:
    """Pairs of sets of random hashes with one Jaccard similarity, which is also returned, rounded to what fits."""
    rng = np.random.default_rng(seed)
    num_both = round(jaccard * num_union)
    num_left = (num_union - num_both) // 2
    hashes = rng.integers(0, 2**64, (num_pairs, num_union), np.uint64)
    left, right = (
        hashes[:, : num_both + num_left],
        np.delete(hashes, np.s_[num_both : num_both + num_left], axis=1),
    )
    return (
        DocumentHashes(left.ravel(), np.arange(num_pairs + 1) * left.shape[1]),
        DocumentHashes(right.ravel(), np.arange(num_pairs + 1) * right.shape[1]),
        num_both / num_union,
    )


@pytest.mark.parametrize("num_union", [10, 200, 5000])
@pytest.mark.parametrize("jaccard", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9])
def test_estimates_are_unbiased_and_as_precise_as_independent_trials(jaccard: float, num_union: int) -> None:
    num_pairs, num_perm = 4_000_000 // num_union // 10 if num_union == 5000 else 2000, 112
    left, right, true = pairs(jaccard, num_union, num_pairs, seed=num_union)
    factors = multipliers(num_perm, seed=1)
    estimates = estimate_jaccard(signatures(left, factors), signatures(right, factors))
    variance = true * (1 - true) / num_perm
    # The mean within 4 of its standard errors, the variance within 4 of its own, sqrt(2 / pairs).
    assert abs(estimates.mean() - true) < 4 * np.sqrt(variance / num_pairs)
    assert estimates.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / num_pairs) + 0.02)


def test_values_are_independent_within_a_band() -> None:
    # Bands follow their formula only if values agree independently: 8 of them with the 8th power of one.
    left, right, true = pairs(0.8, 200, 4000, seed=3)
    factors = multipliers(112, seed=1)
    agree = signatures(left, factors) == signatures(right, factors)
    shares = agree.reshape(4000, 14, 8).all(axis=2).mean(axis=1)
    assert shares.mean() == pytest.approx(true**8, abs=4 * shares.std() / np.sqrt(4000))


def texts_of(name: str, num: int) -> list[str]:
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in islice(file, num)]


def test_as_precise_as_datasketch_on_real_near_duplicates() -> None:
    texts = texts_of("neardup/spdx_licenses", 150)
    hashes, offsets = shingle_hashes(TextBatch.from_texts(texts), DATATROVE_SHINGLING)
    documents = [set(part.tolist()) for part in np.split(hashes, offsets[1:-1])]
    left, right = np.triu_indices(len(texts), 1)
    true = np.array(
        [
            len(documents[i] & documents[j]) / len(documents[i] | documents[j])
            for i, j in zip(left.tolist(), right.tolist(), strict=True)
        ]
    )
    near = true > 0.3
    left, right, true = left[near], right[near], true[near]
    assert len(true) > 100

    found = signatures(DocumentHashes(hashes, offsets), multipliers(112, seed=1))
    tokens = [[value.to_bytes(8, "little") for value in document] for document in documents]
    peers = np.array([peer.hashvalues for peer in datasketch.MinHash.bulk(tokens, num_perm=112)])
    errors = estimate_jaccard(found[left], found[right]) - true
    peer_errors = (peers[left] == peers[right]).mean(axis=1) - true
    # Pairs share documents, so errors are not independent: compared with what one estimate may be off by.
    expected = np.sqrt((true * (1 - true)).mean() / 112)
    assert abs(errors.mean()) < 0.5 * expected
    assert np.sqrt((errors**2).mean()) < 1.25 * expected
    assert np.sqrt((errors**2).mean()) < 1.25 * np.sqrt((peer_errors**2).mean())


def test_equal_texts_have_equal_signatures_and_wordless_ones_none() -> None:
    texts = [
        "The mill grinds the grain.",
        "the MILL grinds — the grain",
        "the mill",
        "",
        "...",
        "other words",
    ]
    scores = MinHash().score(TextBatch.from_texts(texts))
    values = signature_values(scores.column("minhash_signature"))
    assert scores.column("num_shingles").to_pylist() == [1, 1, 1, 0, 0, 1]
    assert values.shape == (6, 112)
    assert (values[0] == values[1]).all()
    assert (values[3:5] == NO_SHINGLE).all()
    assert estimate_jaccard(values[[0, 0, 0]], values[[1, 2, 5]]).tolist() == [1, 0, 0]
    assert not (values[[0, 1, 2, 5]] == NO_SHINGLE).any()


def test_signatures_are_the_same_for_ever() -> None:
    scores = MinHash(num_perm=3).score(TextBatch.from_texts(["The mill grinds the grain of 3 farmers."]))
    assert signature_values(scores.column("minhash_signature")).tolist() == [
        [735038448, 1910019129, 430320889]
    ]


def test_a_seed_gives_other_values_and_the_options_of_shingling_count() -> None:
    batch = TextBatch.from_texts(["The mill grinds the grain of 3 farmers."])

    def sign(scorer: MinHash) -> npt.NDArray[np.uint32]:
        return signature_values(scorer.score(batch).column("minhash_signature"))

    assert not (sign(MinHash(seed=2)) == sign(MinHash())).any()
    assert (sign(MinHash(shingling=Shingling(collapse_numbers=False))) != sign(MinHash())).any()
    assert (sign(MinHash(num_perm=8)) == sign(MinHash())[:, :8]).all()
    fingerprints = {MinHash(shingling=Shingling(size=size)).fingerprint() for size in range(1, 5)}
    assert len(fingerprints) == 4


def test_signature_values_are_a_view_also_of_slices() -> None:
    column = (
        MinHash(num_perm=8).score(TextBatch.from_texts(["a b", "c d", "e f"])).column("minhash_signature")
    )
    values = signature_values(column)
    assert not values.flags.owndata
    assert signature_values(column[1:]).tolist() == values[1:].tolist()
    assert signature_values(column[3:]).shape == (0, 8)


def test_duckdb_reads_signatures(tmp_path: Path) -> None:
    scores = MinHash(num_perm=16).score(TextBatch.from_texts(["a b c d e f g h", "a b c d e f g x", "y"]))
    pq.write_table(pa.Table.from_batches([scores]), tmp_path / "scores.parquet")
    rows = duckdb.sql(
        f"""SELECT a.minhash_signature[1:32] = b.minhash_signature[1:32],
               list_avg([(a.minhash_signature[4 * i + 1:4 * i + 4] = b.minhash_signature[4 * i + 1:4 * i + 4])::INT
                         FOR i IN range(16)])
        FROM '{tmp_path}/scores.parquet' a POSITIONAL JOIN (FROM '{tmp_path}/scores.parquet' OFFSET 1) b LIMIT 2"""
    ).fetchall()
    values = signature_values(scores.column("minhash_signature"))
    expected = [((left[:8] == right[:8]).all(), (left == right).mean()) for left, right in pairwise(values)]
    assert rows == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_perm": 0}, "num_perm is 0, must be at least 1"),
        ({"seed": -1}, "seed is -1, must be from 0 to 2^64 - 1"),
    ],
)
def test_impossible_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("^", r"\^")):
        MinHash(**options)

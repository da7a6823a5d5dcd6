"""MinHash LSH in SQL over stored signatures, for any layout and threshold, against the functions of the dedup stage."""

import random
from itertools import combinations

import duckdb
import numpy as np
import pytest
from mills import Row, build

from gristmill import sql
from gristmill.pipelines.catalog import named_query, open_catalog, run_query
from gristmill.scorers.bands import band_hashes, collision_probability
from gristmill.scorers.base import QueryError
from gristmill.scorers.minhash import MinHash, estimate_jaccard
from gristmill.scorers.text import TextBatch

WORDS = [first + second for first in "bdfgklmnprst" for second in ("al", "em", "in", "or", "un")]


def drifting_texts():
    """Copies that drift apart, equal ones, and texts without a word, which have no shingle."""
    source = random.Random(0)
    texts = ["", "...", "...", "one line", "one line", "ONE line"]
    for _ in range(8):
        words = source.choices(WORDS, k=80)
        for _ in range(6):
            texts.append(" ".join(words))
            words[source.randrange(80)] = source.choice(WORDS)
    return texts


ROWS = [Row(number, text, id=str(number)) for number, text in enumerate(drifting_texts())]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    mill = build(
        tmp_path_factory.mktemp("layouts") / "mill", [ROWS[::2], ROWS[1::2]], (MinHash(num_perm=60),)
    )
    with open_catalog(mill.workspace) as connection:
        yield connection


def near_pairs(connection, **parameters):
    """(id, other id) -> estimated similarity."""
    arguments = {name: str(value) for name, value in parameters.items()}
    found = run_query(connection, named_query(connection, "near_pairs", arguments)).to_pylist()
    return {frozenset([row["id"], row["other_id"]]): row["estimated_jaccard"] for row in found}


def reference(num_bands, rows_per_band, threshold):
    """The same pairs by the functions of the dedup stage, document by document."""
    scores = MinHash(num_perm=60).score(TextBatch.from_texts([row.text for row in ROWS]))
    values = [np.frombuffer(signature, "<u4") for signature in scores["minhash_signature"].to_pylist()]
    bands = band_hashes(np.stack(values), num_bands, rows_per_band)
    signed = np.flatnonzero(scores["num_shingles"].to_numpy())
    leaders = {}
    for row in sorted(signed, key=lambda row: ROWS[row].doc_id.int):
        leaders.setdefault(values[row].tobytes(), row)
    pairs = {}
    for left, right in combinations(signed, 2):
        first = [leaders[values[row].tobytes()] for row in (left, right)]
        is_candidate = first[0] in (left, right) if first[0] == first[1] else first == [left, right]
        similarity = float(estimate_jaccard(values[left], values[right]))
        if is_candidate and (bands[left] == bands[right]).any() and similarity >= threshold:
            pairs[frozenset([ROWS[left].id, ROWS[right].id])] = similarity
    return pairs


@pytest.mark.parametrize(
    ("num_bands", "rows_per_band", "threshold"),
    [(10, 6, 0.8), (5, 12, 0.8), (30, 2, 0.5), (60, 1, 0), (1, 60, 0)],
)
def test_pairs_are_those_of_bands_and_estimates(catalog, num_bands, rows_per_band, threshold):
    found = near_pairs(catalog, num_bands=num_bands, rows_per_band=rows_per_band, threshold=threshold)
    expected = reference(num_bands, rows_per_band, threshold)
    assert found.keys() == expected.keys()
    assert len(found) > 2
    for pair, similarity in found.items():
        assert similarity == pytest.approx(expected[pair])


def test_layouts_differ_in_what_they_find(catalog):
    found = [near_pairs(catalog, num_bands=b, rows_per_band=r, threshold=0.3) for b, r in ((30, 2), (3, 20))]
    assert found[1].keys() < found[0].keys()


def test_equal_signatures_are_paired_with_the_first_alone(catalog):
    same = sorted([ROWS[number] for number in (3, 4, 5)], key=lambda row: row.doc_id.int)
    found = near_pairs(catalog, num_bands=10, rows_per_band=6, threshold=1)
    assert found == {frozenset([same[0].id, other.id]): 1.0 for other in same[1:]} | {
        pair: 1.0 for pair in found if not pair & {"3", "4", "5"}
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((11, 6, 0.8), "11 bands of 6 rows do not fit a signature of 60 values; use fewer bands or rows"),
        ((0, 6, 0.8), "0 bands of 6 rows do not fit a signature of 60 values"),
        ((6, 0, 0.8), "6 bands of 0 rows do not fit a signature of 60 values"),
        (("ten", 6, 0.8), "Could not convert string 'ten' to INT32"),
    ],
)
def test_a_layout_that_does_not_fit_is_one_line(catalog, arguments, message):
    with pytest.raises(QueryError, match=message) as caught:
        near_pairs(catalog, **dict(zip(["num_bands", "rows_per_band", "threshold"], arguments, strict=True)))
    assert "\n" not in str(caught.value)


def test_recall_of_a_layout_is_that_of_the_formula(catalog):
    text = named_query(catalog, "layout_recall", {"num_bands": "18", "rows_per_band": "6"})
    rows = run_query(catalog, text).to_pylist()
    assert [row["jaccard"] for row in rows] == [step / 20 for step in range(10, 21)]
    chances = [row["probability"] for row in rows]
    assert chances == pytest.approx(collision_probability([row["jaccard"] for row in rows], 18, 6), abs=5e-5)


def test_macros_see_little_endian_values():
    with duckdb.connect() as connection:
        sql.install_macros(connection)
        left, right = (np.array(values, "<u4").tobytes() for values in ([1, 2, 3, 0], [1, 2 << 8, 3, 4]))
        (found,) = connection.execute(
            "SELECT estimate_jaccard($left, $right), signature_bands($left::BLOB, 2, 1)",
            {"left": left, "right": right},
        ).fetchall()
    assert found == (0.5, [left[:4], left[4:8]])

"""The `rules` scorer against the plain reference, and the rule sets in SQL against decisions written out."""

import gzip
import json
import math
import random
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import rules_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill import sql
from gristmill.scorers.rules import Rules
from gristmill.scorers.text import TextBatch

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus/mixed-00.jsonl.gz"
MULTILINGUAL = Path(__file__).resolve().parents[3] / "shared/data/multilingual"
NUM_DOCUMENTS = 300

PIECES = st.sampled_from(
    [
        *"the cat Sat of with Word don't U.S. J. 5.00 ٣ ½ ... .... … -- • – # ( ) ' ” é İ ß ǅ 中文 我。".split(),
        *"ไทย かな 한국 😀 $ { } [1] [edit] [ ] JavaScript javascript ? .".split(),
        *('"', "- ", ". ", " ", "  ", "\n", "\n\n", "\n\n\n", "\r\n", "\t"),
        *("\x0b", "\x0c", "\x85", "\u2028", "\0", "e\u0301", "❤\ufe0f"),
        *("[citation needed]", "lorem ipsum", "Lorem, Ipsum", "terms of use", "Privacy Policy"),
        *("use of cookies", "One more line, then. ", "It ends here!", "x" * 1001),
        *("the cat sat on the mat. ", "\nthe cat sat on the mat.\n"),
    ]
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=40).map("".join),
    st.lists(PIECES, max_size=25).map(" ".join),
    st.lists(st.sampled_from(["a", "b", "cc"]), max_size=60).map(" ".join),
    st.text(max_size=60),
)


def score(texts: list[str]) -> list[dict[str, float]]:
    return Rules().score(TextBatch.from_texts(texts)).to_pylist()


def assert_equals_reference(texts: list[str]) -> None:
    for text, found in zip(texts, score(texts), strict=True):
        expected = reference.features(text)
        assert found.keys() == expected.keys()
        # The entropy is a sum of logarithms in another order; all else is exact.
        entropy = "rps_doc_unigram_entropy"
        assert math.isclose(found.pop(entropy), expected.pop(entropy), rel_tol=1e-9, abs_tol=1e-9)
        assert found == expected, text


def read_texts(path: Path, num_documents: int) -> list[str]:
    if not path.exists():
        pytest.skip(f"{path.name} lies in shared/data, which is not beside this repository")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in islice(file, num_documents)]


@given(st.lists(TEXTS, max_size=4))
@settings(deadline=None, max_examples=400)
def test_features_equal_the_reference(texts: list[str]) -> None:
    assert_equals_reference(texts)


def test_features_of_real_documents_equal_the_reference() -> None:
    assert_equals_reference(read_texts(CORPUS, NUM_DOCUMENTS))


@pytest.mark.parametrize("name", ["udhr_declarations", "wikipedia_zh", "wikipedia_9langs", "wikipedia_ko"])
def test_features_of_real_documents_in_other_scripts_equal_the_reference(name: str) -> None:
    texts = read_texts(MULTILINGUAL / f"{name}.jsonl.gz", 40)
    assert_equals_reference([text[:2000] for text in texts])


def test_features_of_a_small_text_are_as_counted_by_hand() -> None:
    text = "The cat sat on the mat. The cat sat on the mat!\n- Yes... #1\n\n- Yes... #1\n"
    (found,) = score([text])
    words = "The cat sat on the mat . The cat sat on the mat ! - Yes ... # 1 - Yes ... # 1".split()
    assert found["gopher_word_count"] == 12 + 4
    assert found["gopher_frac_alpha_words"] == 14 / len(words)
    assert found["gopher_hash_to_word_ratio"] == found["gopher_ellipsis_to_word_ratio"] == 2 / len(words)
    assert found["gopher_num_stop_words"] == 1
    assert found["gopher_frac_bullet_lines"] == 2 / 4
    assert found["gopher_frac_dup_lines"] == 1 / 3
    assert found["gopher_frac_chars_dup_lines"] == len("- Yes... #1") / len(text)
    assert found["gopher_frac_dup_paragraphs"] == 0
    assert found["gopher_frac_chars_top_2gram"] == len("The cat") * 2 / len(text)
    assert found["gopher_frac_chars_dupe_5grams"] == (len("Thecatsatonthe") + len("-Yes...#1")) / len(text)
    assert found["c4_num_lines"] == 4
    assert found["c4_num_kept_lines_3_words"] == 1
    assert found["c4_num_sentences_3_words"] == 2
    assert found["fineweb_line_punct_ratio"] == 1 / 3
    assert found["fineweb_short_line_ratio_30_chars"] == 2 / 3
    assert found["fineweb_newline_to_word_ratio"] == 4 / len(words)
    assert found["rps_doc_word_count"] == 12 + 4
    assert found["rps_doc_frac_unique_words"] == 7 / 16
    assert found["rps_doc_num_sentences"] == 5
    assert found["rps_lines_ending_with_terminal_punctution_mark"] == 1 / 4


@pytest.mark.parametrize("text", ["", " \n\t ", "x", "\0", "😀", "\n", ".", "\u0301"])
def test_tiny_texts_are_answered(text: str) -> None:
    assert_equals_reference([text])


def test_empty_text_has_the_declared_values() -> None:
    (found,) = score([""])
    assert found == {column.name: column.empty for column in Rules().columns}


def test_a_batch_without_documents_is_answered() -> None:
    result = Rules().score(TextBatch.from_texts([]))
    assert result.num_rows == 0
    assert result.schema == Rules().schema()


@pytest.mark.parametrize("text", ["a " * 500_000, "x" * 10_000_000, "[1]" * 500_000, "!\n" * 500_000])
def test_large_and_degenerate_texts_are_answered(text: str) -> None:
    (found,) = score([text])
    assert all(map(math.isfinite, found.values()))


def test_a_repeated_word_counts_overlapping_ngrams() -> None:
    (found,) = score(["a a a a"])
    assert found["gopher_frac_chars_top_2gram"] == 3 * 3 / 7
    assert found["rps_doc_frac_chars_top_2gram"] == 3 * 2 / 4


def test_repeated_ngrams_are_read_without_overlap() -> None:
    (found,) = score(["a b c d e f a b c d e f"])
    assert found["gopher_frac_chars_dupe_5grams"] == 5 / 23
    assert found["rps_doc_frac_chars_dupe_5grams"] == 1


@given(st.lists(TEXTS, min_size=1, max_size=6), st.randoms())
@settings(deadline=None, max_examples=60)
def test_splitting_or_reordering_changes_no_score(texts: list[str], rng: random.Random) -> None:
    whole = score(texts)
    assert [row for text in texts for row in score([text])] == whole
    order = rng.sample(range(len(texts)), len(texts))
    assert score([texts[index] for index in order]) == [whole[index] for index in order]


def test_every_column_is_described() -> None:
    for column in Rules().columns:
        assert column.description.endswith(".")
        assert column.source
        assert column.minimum == 0


# --- rule sets ---


def gopher_quality(row: dict[str, float]) -> bool:
    return (
        50 <= row["gopher_word_count"] <= 100_000
        and 3 <= row["gopher_mean_word_length"] <= 10
        and row["gopher_hash_to_word_ratio"] <= 0.1
        and row["gopher_ellipsis_to_word_ratio"] <= 0.1
        and row["gopher_frac_bullet_lines"] <= 0.9
        and row["gopher_frac_ellipsis_lines"] <= 0.3
        and row["gopher_frac_alpha_words"] >= 0.8
        and row["gopher_num_stop_words"] >= 2
    )


def gopher_repetition(row: dict[str, float]) -> bool:
    limits = {
        "dup_lines": 0.3,
        "dup_paragraphs": 0.3,
        "chars_dup_lines": 0.2,
        "chars_dup_paragraphs": 0.2,
        "chars_top_2gram": 0.2,
        "chars_top_3gram": 0.18,
        "chars_top_4gram": 0.16,
        "chars_dupe_5grams": 0.15,
        "chars_dupe_6grams": 0.14,
        "chars_dupe_7grams": 0.13,
        "chars_dupe_8grams": 0.12,
        "chars_dupe_9grams": 0.11,
        "chars_dupe_10grams": 0.10,
    }
    return all(row[f"gopher_frac_{name}"] <= limit for name, limit in limits.items())


def c4(row: dict[str, float], min_words: int, min_sentences: int) -> bool:
    return (
        row[f"c4_num_sentences_{min_words}_words"] >= min_sentences
        and row[f"c4_num_lorem_ipsum_lines_{min_words}_words"] == 0
        and row[f"c4_num_curly_bracket_lines_{min_words}_words"] == 0
    )


def fineweb(row: dict[str, float]) -> bool:
    return (
        row["fineweb_line_punct_ratio"] >= 0.12
        and row["fineweb_short_line_ratio_30_chars"] <= 0.67
        and row["fineweb_char_dup_ratio"] <= 0.01
        and row["fineweb_newline_to_word_ratio"] <= 0.3
    )


DECISIONS = {
    "gopher_quality_pass": gopher_quality,
    "gopher_repetition_pass": gopher_repetition,
    "gopher_pass": lambda row: gopher_quality(row) and gopher_repetition(row),
    "c4_pass": lambda row: c4(row, 3, 5),
    "c4_jmlr_pass": lambda row: c4(row, 5, 3),
    "fineweb_pass": fineweb,
}
AT_THE_THRESHOLD = {
    "gopher_quality_pass": {
        "gopher_word_count": 50,
        "gopher_mean_word_length": 10.0,
        "gopher_hash_to_word_ratio": 0.1,
        "gopher_ellipsis_to_word_ratio": 0.1,
        "gopher_frac_bullet_lines": 0.9,
        "gopher_frac_ellipsis_lines": 0.3,
        "gopher_frac_alpha_words": 0.8,
        "gopher_num_stop_words": 2,
    },
    "c4_pass": {"c4_num_sentences_3_words": 5},
    "c4_jmlr_pass": {"c4_num_sentences_5_words": 3},
    "fineweb_pass": {
        "fineweb_line_punct_ratio": 0.12,
        "fineweb_short_line_ratio_30_chars": 0.67,
        "fineweb_char_dup_ratio": 0.01,
        "fineweb_newline_to_word_ratio": 0.3,
    },
}


def decide(scores: pa.Table) -> dict[str, list[bool]]:
    connection = duckdb.connect()
    connection.execute(sql.read_sql("macros.sql"))
    connection.register("scores", scores)
    columns = ", ".join(f"({sql.rule_sets()[name]}) AS {name}" for name in DECISIONS)
    rows = connection.execute(f"SELECT {columns} FROM scores").fetchall()
    return {name: list(column) for name, column in zip(DECISIONS, zip(*rows, strict=True), strict=True)}


def test_rule_sets_in_sql_decide_like_python() -> None:
    texts = [
        *read_texts(CORPUS, NUM_DOCUMENTS),
        "",
        "word " * 60,
        "A fine sentence of the day that I have. " * 4,
    ]
    scores = Rules().score(TextBatch.from_texts(texts))
    rows = scores.to_pylist()
    decisions = decide(pa.Table.from_batches([scores]))
    assert decisions == {name: [rule(row) for row in rows] for name, rule in DECISIONS.items()}
    assert all(len(set(kept)) == 2 for kept in decisions.values())


@pytest.mark.parametrize("name", AT_THE_THRESHOLD)
def test_a_document_at_the_threshold_passes_and_one_beyond_does_not(name: str) -> None:
    passing = {column.name: column.empty for column in Rules().columns} | AT_THE_THRESHOLD[name]
    rows = [passing]
    for column, value in AT_THE_THRESHOLD[name].items():
        step = 1e-9 if isinstance(value, float) else 1
        rows += [passing | {column: value - step}, passing | {column: value + step}]
    kept = decide(pa.Table.from_pylist(rows))[name]
    assert kept == [DECISIONS[name](row) for row in rows]
    assert kept[0]
    assert all(below != above for below, above in zip(kept[1::2], kept[2::2], strict=True))


def test_a_threshold_is_a_named_parameter() -> None:
    connection = duckdb.connect()
    connection.execute(sql.read_sql("macros.sql"))
    query = "SELECT c4_passes(4, 0, 0), c4_passes(4, 0, 0, min_sentences := 4)"
    assert connection.execute(query).fetchall() == [(False, True)]

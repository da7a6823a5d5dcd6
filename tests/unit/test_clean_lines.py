"""C4's cleaning of lines against the plain reference, one document at a time."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
import rules_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.scorers.clean_lines import clean_lines

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus/mixed-00.jsonl.gz"
PIECES = st.sampled_from(
    [
        *("One line that has enough words.", "Four words are few.", "No end of this line"),
        *("It ends in dots, you see...", "Now turn on JavaScript in here.", 'He said "so it is, my dear."'),
        *("See our cookie policy for all that.", "Lorem ipsum is what it said.", "é 中文 😀", "x" * 1001),
        *("\n", "\n\n", "\r\n", "\u2028", "  ", "{", "..", "."),
        *("[1]", "[edit]", "[citation needed]", " [2] "),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=15).map("".join), st.text(max_size=60))


def clean(texts: list[str]) -> tuple[list[str], list[int]]:
    cleaned, num_removed = clean_lines(pa.array(texts, pa.large_string()))
    cleaned.validate(full=True)
    return cleaned.to_pylist(), num_removed.tolist()


def plain_clean(text: str) -> tuple[str, int]:
    lines = reference.text_lines(text)
    kept = [reference.CITATION.sub("", line.strip()) for line in lines if not reference.c4_line(line, 5)]
    return "\n".join(kept), len(lines) - len(kept)


def test_lines_are_kept_or_dropped_as_documented() -> None:
    text = (
        "Title\n"
        "  A sentence with a citation.[1][citation needed] \n"
        "A sentence [2] that goes on and on.\n"
        "Please enable Javascript to see this page.\n"
        "We use cookies on all of our pages.\n"
        "This one stops before it...\n"
        "Too few words here.\n"
        "\n"
        'And a last one, "in quotes."'
    )
    cleaned = 'A sentence with a citation.\nA sentence  that goes on and on.\nAnd a last one, "in quotes."'
    assert clean([text, "", "nothing stays"]) == ([cleaned, "", ""], [6, 0, 1])


@given(st.lists(TEXTS, max_size=5))
@settings(deadline=None, max_examples=300)
def test_clean_lines_equals_the_reference(texts: list[str]) -> None:
    cleaned, num_removed = clean(["é skipped", *texts])
    assert list(zip(cleaned[1:], num_removed[1:], strict=True)) == [plain_clean(text) for text in texts]


def test_a_sliced_array_gives_only_its_rows() -> None:
    text = pa.array(["Skip this one.", "One line that has enough words.\nno"], pa.large_string())
    cleaned, num_removed = clean_lines(text.slice(1))
    assert cleaned.to_pylist() == ["One line that has enough words."]
    assert num_removed.tolist() == [1]


def test_no_documents_give_none() -> None:
    assert clean([]) == ([], [])


def test_real_documents_are_cleaned_as_the_reference_does() -> None:
    if not CORPUS.exists():
        pytest.skip("shared/data is not beside this repository")
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, 300)]
    cleaned, num_removed = clean(texts)
    assert list(zip(cleaned, num_removed, strict=True)) == [plain_clean(text) for text in texts]

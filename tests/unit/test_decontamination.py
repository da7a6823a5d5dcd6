"""Contamination against plain Python: planted questions, every evaluation set, and what a set may look like."""

import gzip
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import shingles_reference as reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.scorers.base import ScorerError
from gristmill.scorers.decontamination import Decontamination
from gristmill.scorers.shingles import Shingling
from gristmill.scorers.text import TextBatch

DATA = Path(__file__).resolve().parents[3] / "shared/data"

TWENTY = " ".join(f"word{chr(97 + index)}" for index in range(20))


def write_set(path: Path, records: list[Any]) -> str:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write(lines)
    return str(path)


def score(scorer: Decontamination, texts: list[str]) -> list[tuple[float, str]]:
    rows = scorer.score(TextBatch.from_texts(texts)).to_pylist()
    return [(row["contamination"], row["contaminated_by"]) for row in rows]


def by_plain_python(
    scorer: Decontamination, texts_by_set: dict[str, list[str]], text: str
) -> tuple[float, str]:
    shingling = Shingling(size=scorer.n)
    ngrams = reference.shingles(text, shingling)
    hits = {
        name: ngrams & set().union(*(reference.shingles(item, shingling) for item in texts))
        for name, texts in sorted(texts_by_set.items())
    }
    found = set().union(*hits.values())
    if not found:
        return 0.0, ""
    return len(found) / len(ngrams), max(hits, key=lambda name: len(hits[name]))


TEXTS = st.lists(st.lists(st.sampled_from("abcé.1磨 "), max_size=14).map(" ".join), max_size=5)


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shares_and_sets_are_those_of_plain_python(
    tmp_path: Path, first: list[str], second: list[str], texts: list[str], n: int
) -> None:
    texts_by_set = {"zebra": first, "ant": second}
    sets = {
        name: write_set(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts])
        for name, texts in texts_by_set.items()
    }
    scorer = Decontamination(sets=sets, n=n)
    texts = [*texts, *first]
    assert score(scorer, texts) == [by_plain_python(scorer, texts_by_set, text) for text in texts]


def test_a_planted_question(tmp_path: Path) -> None:
    scorer = Decontamination(sets={"quiz": write_set(tmp_path / "quiz.jsonl.gz", [{"text": TWENTY}])})
    filler = " ".join(f"filler{chr(97 + index)}" for index in range(26))
    (whole, planted, clean, spaced) = score(
        scorer, [TWENTY, f"{filler} {TWENTY} {filler}", filler, TWENTY.upper().replace(" ", " -- ")]
    )
    assert whole == spaced == (1.0, "quiz")
    # 8 13-grams among 60, of which the filler has 14 twice.
    assert planted == (pytest.approx(8 / 46), "quiz")
    assert clean == (0.0, "")


def test_fewer_words_than_an_ngram_are_compared_as_a_whole(tmp_path: Path) -> None:
    records = [{"text": "Is the mill open?"}, {"text": TWENTY}]
    scorer = Decontamination(sets={"quiz": write_set(tmp_path / "quiz.jsonl", records)})
    texts = [
        "is the mill open",
        "is the mill open today",
        " ".join(TWENTY.split()[:12]),
        " ".join(TWENTY.split()[:13]),
        "",
        "?",
    ]
    assert score(scorer, texts) == [(1.0, "quiz"), (0.0, ""), (0.0, ""), (1.0, "quiz"), (0.0, ""), (0.0, "")]


def test_the_set_with_most_ngrams_and_the_first_by_name(tmp_path: Path) -> None:
    words = TWENTY.split()
    sets = {
        "c": write_set(tmp_path / "c.jsonl", [{"text": " ".join(words[:15])}]),
        "b": write_set(tmp_path / "b.jsonl", [{"text": " ".join(words)}]),
        "a": write_set(tmp_path / "a.jsonl", [{"text": " ".join(words)}, {"text": "other"}]),
    }
    assert score(Decontamination(sets=sets), [TWENTY, " ".join(words[:15])]) == [(1.0, "a"), (1.0, "a")]
    assert score(Decontamination(sets={name: sets[name] for name in "cb"}), [TWENTY]) == [(1.0, "b")]


def test_fields_may_hold_lists_and_be_absent(tmp_path: Path) -> None:
    records = [{"question": TWENTY}, {"question": "q", "choices": ["one two", f"last {TWENTY}"], "label": 1}]
    path = write_set(tmp_path / "quiz.jsonl", records)
    scorer = Decontamination(sets={"quiz": path}, fields=("question", "choices"))
    assert score(scorer, [f"last {TWENTY}", "one two", "one", "q"]) == [
        (1.0, "quiz"),
        (1.0, "quiz"),
        (0.0, ""),
        (1.0, "quiz"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n\n{"txt": "b"}\n', "quiz.jsonl, line 3: no text in text; name the fields"),
        (b'{"text": 5}\n', "quiz.jsonl, line 1: no text in text"),
        (b'["text"]\n', "quiz.jsonl, line 1: no text in text"),
        (b'{"text": "a"}\n{"text": \n', "quiz.jsonl cannot be read (line 2 is no JSON: "),
        (b'{"text": "\xff"}\n', "quiz.jsonl cannot be read (line 1 is no JSON: "),
    ],
)
def test_a_set_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "quiz.jsonl"
    path.write_bytes(content)
    with pytest.raises(ScorerError, match=re.escape(message)):
        Decontamination(sets={"quiz": str(path)}).setup()


def test_a_set_that_is_not_there_or_no_gzip(tmp_path: Path) -> None:
    missing = Decontamination(sets={"quiz": str(tmp_path / "quiz.jsonl")})
    for ask in (missing.setup, missing.fingerprint):
        with pytest.raises(ScorerError, match=r"decontamination\.sets\.quiz: .*quiz\.jsonl cannot be read"):
            ask()
    broken = tmp_path / "quiz.jsonl.gz"
    broken.write_bytes(b'{"text": "a"}\n')
    with pytest.raises(ScorerError, match=r"quiz\.jsonl\.gz cannot be read"):
        Decontamination(sets={"quiz": str(broken)}).setup()
    broken.write_bytes(gzip.compress(b'{"text": "a"}\n' * 100)[:-9])
    with pytest.raises(ScorerError, match=r"quiz\.jsonl\.gz cannot be read"):
        Decontamination(sets={"quiz": str(broken)}).setup()


def test_an_empty_set_contaminates_nothing(tmp_path: Path) -> None:
    scorer = Decontamination(sets={"quiz": write_set(tmp_path / "quiz.jsonl", [])})
    assert score(scorer, ["a", ""]) == [(0.0, ""), (0.0, "")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": {}}, "sets is empty, must name at least one evaluation set"),
        ({"sets": {"": "x"}}, "an evaluation set has no name"),
        ({"sets": {"a": "x"}, "n": 0}, "n is 0, must be at least 1"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decontamination(**options)


def test_fingerprints_follow_names_and_bytes_not_paths(tmp_path: Path) -> None:
    records = [{"text": TWENTY}]
    first = write_set(tmp_path / "a.jsonl", records)
    copy = write_set(tmp_path / "b.jsonl", records)
    other = write_set(tmp_path / "c.jsonl", [{"text": "other"}])

    def fingerprint(**sets: str) -> str:
        return Decontamination(sets=sets).fingerprint()

    assert fingerprint(quiz=first) == fingerprint(quiz=copy)
    assert fingerprint(a=first, b=other) == fingerprint(b=other, a=first)
    assert (
        len(
            {
                fingerprint(quiz=first),
                fingerprint(test=first),
                fingerprint(quiz=other),
                fingerprint(a=first, b=copy),
            }
        )
        == 4
    )


def test_every_evaluation_set_finds_itself() -> None:
    paths = sorted((DATA / "downstream").glob("*.jsonl.gz"))
    if not paths:
        pytest.skip(f"{DATA / 'downstream'} is not there")
    scorer = Decontamination(sets={path.name.removesuffix(".jsonl.gz"): str(path) for path in paths})
    scorer.setup()
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in islice(file, 100)]
        rows = score(scorer, [*texts, *(f"{text} {TWENTY}" for text in texts)])
        assert all(share == 1 for share, _ in rows[:100])
        own = path.name.removesuffix(".jsonl.gz")
        assert sum(name == own for _, name in rows[:100]) >= 99
        # 20 words more, none of whose 13-grams is in a set.
        for (share, _), text in zip(rows[100:], texts, strict=True):
            num_words = len(reference.words(text, Shingling()))
            assert share == (
                0 if num_words < 13 else pytest.approx((num_words - 12) / (num_words + 8), abs=0.1)
            )

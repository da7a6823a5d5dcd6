"""Finding and building scorers: every mistake of a recipe is one line that says what is allowed."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from os import environ, pathsep
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from gristmill.scorers import registry
from gristmill.scorers.base import Scorer, ScorerError
from gristmill.scorers.duplicates import ExactDuplicate
from gristmill.scorers.language import Language
from gristmill.scorers.minhash import MinHash
from gristmill.scorers.registry import make_scorer, path_options, scorer_class, scorer_names
from gristmill.scorers.shingles import Shingling


@dataclass(frozen=True, kw_only=True)
class Custom(Scorer):
    """A user's scorer with options of several types."""

    name = "custom"
    version = 1

    threshold: float
    num_words: int = 3
    languages: tuple[str, ...] = ()
    path: Path | None = None
    mode: Literal["fast", "exact"] = "fast"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.num_words < 1:
            raise ValueError(f"num_words is {self.num_words}, must be at least 1")

    @property
    def columns(self):
        return ()

    def score(self, batch):
        return pa.RecordBatch.from_pydict({})


class NoScorer:
    """Something else."""


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages with these entry points are installed."""

    def install(**values):
        monkeypatch.setitem(sys.modules, "user_package", sys.modules[__name__])
        points = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)

    return install


def test_built_in_scorers():
    assert set(registry.SCORERS) <= set(scorer_names())
    for name in registry.SCORERS:
        assert scorer_class(name).name == name
    assert make_scorer("exact_duplicate", {}) == ExactDuplicate()
    assert make_scorer("language", {"model": "lid.bin"}) == Language(model="lid.bin")


def test_options_with_options_of_their_own():
    assert make_scorer("minhash", {"shingling": {"unit": "char", "size": 9}}) == MinHash(
        shingling=Shingling(unit="char", size=9)
    )


def test_path_options():
    assert path_options("language") == {"model"}
    assert path_options("decontamination") == {"sets"}
    assert path_options("minhash") == set()


def test_a_scorer_of_an_installed_package(installed):
    installed(custom="user_package:Custom")
    assert "custom" in scorer_names()
    options = {"threshold": 1, "languages": ["en"], "path": "a/b", "mode": "exact", "weights": {"x": 0.5}}
    expected = Custom(threshold=1.0, languages=("en",), path=Path("a/b"), mode="exact", weights={"x": 0.5})
    assert make_scorer("custom", options) == expected


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "langage",
            {},
            "unknown scorer 'langage', did you mean 'language'? (there are: advertisement, bits_per_character,",
        ),
        (
            "nothing_like_it",
            {},
            "unknown scorer 'nothing_like_it' (there are: advertisement, bits_per_character,",
        ),
        (
            "language",
            {"modle": "x"},
            "language: unknown option 'modle', did you mean 'model'? (there are: model)",
        ),
        ("pii", {"model": "x"}, "pii: unknown option 'model'; there are none"),
        (
            "minhash",
            {"shingling": {"siez": 9}},
            "minhash.shingling: unknown option 'siez', did you mean 'size'? (there are: collapse_numbers,",
        ),
        ("minhash", {"shingling": {"size": 0}}, "minhash.shingling: size is 0, must be at least 1"),
        (
            "minhash",
            {"shingling": {"unit": "line"}},
            "minhash.shingling.unit: found 'line', allowed is Literal[",
        ),
        (
            "minhash",
            {"shingling": 5},
            "minhash.shingling: found 5, allowed is a mapping of lower_case, strip_punctuation, unicode,",
        ),
        ("decontamination", {}, "decontamination: option 'sets' is missing; it takes dict[str, str]"),
        (
            "language",
            {"model": 3},
            "language.model: found 3, allowed is str | None (Input should be a valid string)",
        ),
        ("custom", {}, "custom: option 'threshold' is missing; it takes float"),
        ("custom", {"threshold": "0.5"}, "custom.threshold: found '0.5', allowed is float ("),
        ("custom", {"threshold": True}, "custom.threshold: found True, allowed is float ("),
        ("custom", {"threshold": 1, "num_words": 2.5}, "custom.num_words: found 2.5, allowed is int ("),
        (
            "custom",
            {"threshold": 1, "mode": "slow"},
            "custom.mode: found 'slow', allowed is Literal['fast', 'exact']",
        ),
        (
            "custom",
            {"threshold": 1, "languages": "en"},
            "custom.languages: found 'en', allowed is tuple[str, ...] (",
        ),
        ("custom", {"threshold": object}, "custom.threshold: found <class 'object'>, allowed is float ("),
        ("custom", {"threshold": 1, "num_words": 0}, "custom: num_words is 0, must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(installed, name, options, message):
    installed(custom="user_package:Custom")
    with pytest.raises(ScorerError, match=re.escape(message)) as caught:
        make_scorer(name, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("points", "name", "message"),
    [
        ({"custom": "no_such_package:Custom"}, "custom", "cannot be imported from no_such_package:Custom"),
        ({"custom": "user_package:Missing"}, "custom", "cannot be imported from user_package:Missing"),
        ({"other": "user_package:NoScorer"}, "other", "is no dataclass derived from Scorer"),
        ({"other": "user_package:Custom"}, "other", "calls itself 'custom'"),
        ({"pii": "user_package:Custom"}, "language", "two scorers are called 'pii'"),
    ],
)
def test_a_broken_package_is_named(installed, points, name, message):
    installed(**points)
    with pytest.raises(ScorerError, match=re.escape(message)):
        make_scorer(name, {})


RUN = """
import sys
from gristmill.scorers import registry
registry.scorer_names()
loaded = {"gristmill.scorers.rules", "fasttext", "py3langid"} & set(sys.modules)
assert not loaded, loaded
from gristmill.scorers.text import TextBatch
for name in ("rules", "pii", "exact_duplicate"):
    scorer = registry.make_scorer(name, {})
    scorer.setup()
    scorer.score(TextBatch.from_texts(["The mill grinds."]))
loaded = {"torch", "transformers", "apache_beam", "duckdb", "fasttext", "py3langid"} & set(sys.modules)
assert not loaded, loaded
"""


def test_rule_scorers_run_without_heavy_packages():
    path = pathsep.join(filter(None, sys.path))
    subprocess.run([sys.executable, "-c", RUN], check=True, env=environ | {"PYTHONPATH": path})

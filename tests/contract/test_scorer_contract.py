"""What every registered scorer must hold, so that caching, resume and any split of a corpus are safe."""

import json
import pickle
from dataclasses import fields, is_dataclass, replace
from functools import partial

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_raters import make_rater
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gristmill.models import ngram_counts
from gristmill.models.classifier_training import train_classifier
from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.tokenizer import Tokenizer as LanguageTokenizer
from gristmill.scorers.base import DerivedScorer
from gristmill.scorers.importance import count_ngrams
from gristmill.scorers.registry import SCORERS, make_scorer, scorer_class, scorer_names
from gristmill.scorers.shingles import Shingling
from gristmill.scorers.text import TextBatch

OTHER_RATER_OPTIONS = {
    "model": "other",
    "head": "labels",
    "label": "LABEL_0",
    "window": 16,
    "long_texts": "truncate",
    "dtype": "bfloat16",
}
RATERS = {
    "professionalism": 6,
    "readability": 6,
    "reasoning": 6,
    "cleanliness": 6,
    "educational_value": 1,
    "advertisement": 2,
    "fluency": 2,
    "qurating": 4,
    "toxicity": 2,
    "machine_written": 2,
    "rater": 5,
}
"""Scorers by Hugging Face raters, and the logits of theirs."""
OTHER_OPTIONS = {
    **dict.fromkeys(RATERS, OTHER_RATER_OPTIONS),
    "color_filter": {
        "prior": "other",
        "conditional": "other",
        "window": 16,
        "stride": 8,
        "dtype": "bfloat16",
        "windows": False,
    },
    "bits_per_character": {"model": "other", "window": 16, "stride": 8, "dtype": "bfloat16"},
    "embedding": {"model": "other", "window": 16, "stride": 8, "dtype": "bfloat16", "layer": 1},
    "perplexity": {"model": "other", "window": 16, "stride": 8, "dtype": "bfloat16"},
    "decontamination": {"sets": {"other": "other.jsonl"}, "n": 8, "fields": ("question",)},
    "importance": {"model": "other", "seed": 1},
    "domain_importance": {"model": "other", "domains": ("mill",)},
    "language": {"model": "lid.bin"},
    "minhash": {"num_perm": 128, "seed": 2, "shingling": Shingling(unit="char", size=9)},
    "simhash": {"shingling": Shingling(collapse_numbers=False)},
    "dclm_quality": {"model": "other.bin", "label": "cc", "normalisation": "default"},
    "fasttext": {"model": "other.bin", "label": "0", "normalisation": "dclm"},
    "predictive_strength": {"model": "other.bin", "label": "0", "normalisation": "dclm"},
    "target_classifier": {"model": "other.bin", "label": "0", "normalisation": "dclm"},
    "tokens": {"tokenizer": "other"},
}
"""Options that change the numbers, for each scorer that has some."""

PROSE = """The mill grinds the grain. The mill grinds the grain that farmers bring.

- a list of 3 things, "quoted"
- call 212-555-0123 or write to miller@example.com
Lorem ipsum dolor sit amet ... see https://example.com/a?b=c {javascript}
"""
FIXED = {
    "empty": "",
    "one character": "x",
    "one wide character": "磨",
    "white space": " \t\n\r\x0b\x0c\x1c\x85\xa0\u2028\u3000",
    "newlines": "\n\n\n",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈 🇩🇪 👍🏽 ☕",
    "nul": "a\0b\0",
    "only nul": "\0",
    "no spaces": "磨坊磨碎农民秋天从山上运来的谷物。" * 20,
    "combining": "e\u0301\u0323" * 50,
    "right to left": "המטחנה טוחנת את הדגן. \u202eabc",
    "last code point": "\U0010ffff\ufeff\ufffe",
    "prose": PROSE,
    "one long word": "a" * 5000,
    "repetitive": "spam " * 2000,
}

pieces = st.sampled_from(
    [" ", "\n", "the", "The mill", "a b c d e", ". ", "...", "磨坊", "\0", "é", "e\u0301", PROSE]
)
texts = st.lists(st.one_of(st.text(max_size=40), st.lists(pieces, max_size=30).map("".join)), max_size=8)
with_fixed = example(texts=list(FIXED.values()))
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rater_options(name, folder):
    model = make_rater(folder, num_labels=RATERS[name])
    return {"model": str(model)} | ({"window": 24} if name == "qurating" else {})


REQUIRED_OPTIONS = {
    **{name: partial(rater_options, name) for name in RATERS},
    "color_filter": lambda folder: {
        "prior": make_language_model(folder / "prior", 0),
        "conditional": make_language_model(folder / "conditional", 1),
        "windows": True,
    },
    "bits_per_character": lambda folder: {"model": make_language_model(folder, 0)},
    "embedding": lambda folder: {"model": make_language_model(folder, 0)},
    "perplexity": lambda folder: {"model": make_language_model(folder, 0)},
    "decontamination": lambda folder: {"sets": {"mill": str(make_evaluation_set(folder))}},
    "importance": lambda folder: {"model": str(make_counts(folder))},
    "domain_importance": lambda folder: {"model": str(make_domains(folder)), "domains": ["mill", "spam"]},
    "dclm_quality": lambda folder: {"model": str(make_classifier(folder)), "label": "1"},
    "fasttext": lambda folder: {"model": str(make_language_classifier(folder)), "label": "b"},
    "predictive_strength": lambda folder: {"model": str(make_classifier(folder))},
    "target_classifier": lambda folder: {"model": str(make_classifier(folder))},
    "tokens": lambda folder: {"tokenizer": str(make_tokenizer(folder))},
    "clusters": lambda folder: {"model": str(folder)},
    "meta_rater": lambda folder: {"model": str(folder)},
}
"""Options without a default, for each scorer that has some, from a folder to make models in."""


def make_language_model(folder, seed):
    tokenizer = LanguageTokenizer.train([PROSE], 300)
    LanguageModel.make(Architecture(layers=1, width=16, heads=2, context=24), tokenizer, seed).save(folder)
    return str(folder)


def make_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [PROSE], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_evaluation_set(folder):
    path = folder / "mill.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (PROSE, "x", "the mill")))
    return path


def make_counts(folder):
    target, pool = (count_ngrams(TextBatch.from_texts(texts)) for texts in ([PROSE], FIXED.values()))
    ngram_counts.save(str(folder), target, pool)
    return folder


def make_domains(folder):
    for domain in ("mill", "spam"):
        (folder / domain).mkdir()
        make_counts(folder / domain)
    return folder


def make_classifier(folder):
    positives, negatives = (pa.array(texts, pa.large_string()) for texts in ([PROSE], ["spam spam"]))
    train_classifier(positives, negatives, str(folder / "target.bin"), dim=4, bucket=100)
    return folder / "target.bin"


def make_language_classifier(folder):
    """Three labels and subwords, which only fastText's own library takes."""
    lines = folder / "train.txt"
    lines.write_text("__label__a the mill\n__label__b die Mühle\n__label__c le moulin\n" * 5)
    model = fasttext.train_supervised(
        str(lines), dim=4, bucket=100, minn=2, maxn=3, thread=1, epoch=20, verbose=0
    )
    model.save_model(str(folder / "languages.bin"))
    return folder / "languages.bin"


def make(name, folder):
    return make_scorer(name, REQUIRED_OPTIONS.get(name, lambda _: {})(folder))


OF_TEXTS = [name for name in scorer_names() if not issubclass(scorer_class(name), DerivedScorer)]


@pytest.fixture(scope="module", params=OF_TEXTS)
def scorer(request, tmp_path_factory):
    scorer = make(request.param, tmp_path_factory.mktemp("models"))
    scorer.setup()
    return scorer


def score(scorer, texts):
    return scorer.score(TextBatch.from_texts(texts))


def is_same(scorer, found, expected):
    """Equal, or within the scorer's tolerance where it sums floats in another order."""
    if scorer.tolerance == 0:
        return found.equals(expected)
    assert found.schema == expected.schema
    return all(
        is_close(left, right, scorer.tolerance)
        for left, right in zip(found.columns, expected.columns, strict=True)
    )


def is_close(left, right, tolerance):
    if pa.types.is_list(left.type):
        lengths = left.value_lengths().equals(right.value_lengths())
        return lengths and is_close(left.flatten(), right.flatten(), tolerance)
    if pa.types.is_struct(left.type):
        pairs = zip(left.flatten(), right.flatten(), strict=True)
        return all(is_close(*pair, tolerance) for pair in pairs)
    if pa.types.is_floating(left.type):
        return np.allclose(left.to_numpy(), right.to_numpy(), rtol=tolerance, atol=tolerance)
    return left.equals(right)


def test_the_table_names_every_scorer(tmp_path):
    assert set(SCORERS) <= set(scorer_names())
    made = [make(name, tmp_path) for name in scorer_names()]
    columns = [column.name for scorer in made for column in scorer.columns]
    # Both count tokens, so that budgets of tokens need no second scorer; a recipe takes one of them.
    columns.remove("num_tokens")
    assert len(set(columns)) == len(columns)


@few
@given(texts=texts)
@with_fixed
def test_rows_schema_and_ranges(scorer, texts):
    scores = score(scorer, texts)
    assert len(scores) == len(texts)
    assert scores.schema == scorer.schema()
    scores.validate(full=True)
    for column in scorer.columns:
        values = scores.column(column.name)
        assert values.null_count == 0
        if pa.types.is_floating(column.type):
            assert pc.all(pc.is_finite(values), min_count=0).as_py()
        if column.minimum is not None:
            assert pc.all(pc.greater_equal(values, column.minimum), min_count=0).as_py(), column.name
        if column.maximum is not None:
            assert pc.all(pc.less_equal(values, column.maximum), min_count=0).as_py(), column.name


@few
@given(texts=texts)
@with_fixed
def test_scoring_again_gives_the_same_and_leaves_the_input(scorer, texts):
    batch = TextBatch.from_texts(texts)
    first = scorer.score(batch)
    assert batch.text.to_pylist() == texts
    assert scorer.score(batch).equals(first)
    assert score(scorer, texts).equals(first)


@few
@given(texts=texts, data=st.data())
@example(texts=list(FIXED.values()), data=None)
def test_splitting_or_reordering_the_batch_changes_no_score(scorer, texts, data):
    order = data.draw(st.permutations(range(len(texts)))) if data else list(reversed(range(len(texts))))
    cut = data.draw(st.integers(0, len(texts))) if data else len(texts) // 3
    together = score(scorer, texts)
    documents = TextBatch.from_texts(texts).documents
    indices = pa.array(order, pa.int64())
    assert is_same(scorer, scorer.score(TextBatch(documents.take(indices))), together.take(indices))
    # A slice shares the buffers of the whole.
    for part, expected in (
        (documents[:cut], together[:cut]),
        (documents[cut:], together[cut:]),
        *((documents[row : row + 1], together[row : row + 1]) for row in range(len(texts))),
    ):
        assert is_same(scorer, scorer.score(TextBatch(part)), expected)


def test_empty_text_has_the_declared_value(scorer):
    (row,) = score(scorer, [""]).to_pylist()
    assert row == {column.name: column.empty for column in scorer.columns}


def test_no_rows(scorer):
    assert score(scorer, []).equals(pa.RecordBatch.from_pylist([], scorer.schema()))


@pytest.mark.parametrize("name", FIXED)
def test_fixed_cases_alone_and_beside_others(scorer, name):
    alone = score(scorer, [FIXED[name]])
    beside = score(scorer, [PROSE, FIXED[name], "x"])
    assert is_same(scorer, beside[1:2], alone)


@pytest.mark.parametrize("unit", [PROSE, "x", "\n"], ids=["prose", "one word", "newlines"])
def test_two_megabytes(scorer, unit):
    # A model sees windows in batches of a budget, however long the text: a tenth of a megabyte fills several.
    num_bytes = 100_000 if scorer.accelerator else 2_000_000
    text = unit * (num_bytes // len(unit.encode()))
    scores = score(scorer, [text, PROSE])
    assert len(scores) == 2
    assert is_same(scorer, scores[1:], score(scorer, [PROSE]))


def test_picklable_before_setup(scorer):
    fresh = replace(scorer)
    copy = pickle.loads(pickle.dumps(fresh))
    assert copy == fresh
    assert copy.fingerprint() == fresh.fingerprint() == scorer.fingerprint()
    copy.setup()
    assert score(copy, [PROSE]).equals(score(scorer, [PROSE]))


def test_options_are_fields_and_change_the_fingerprint(scorer, monkeypatch):
    scorer_type = scorer_class(scorer.name)
    assert is_dataclass(scorer)
    fingerprint = scorer.fingerprint()
    assert len(fingerprint) == 16
    monkeypatch.setattr(scorer_type, "version", scorer.version + 1)
    assert replace(scorer).fingerprint() != fingerprint
    monkeypatch.undo()
    options = OTHER_OPTIONS.get(scorer.name, {})
    assert {field.name for field in fields(scorer)} == set(options)
    for option, value in options.items():
        other = replace(scorer, **{option: value})
        monkeypatch.setattr(scorer_type, "model_digests", lambda self: {})
        assert other.fingerprint() != replace(scorer).fingerprint()
        monkeypatch.undo()


def test_every_column_is_documented(scorer):
    assert scorer.columns
    for column in scorer.columns:
        assert column.description, column.name
        assert column.unit, column.name
        assert column.source, column.name
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        assert is_number or (column.minimum is None and column.maximum is None), column.name
    assert scorer_class(scorer.name).__doc__
    assert np.unique([column.name for column in scorer.columns]).size == len(scorer.columns)

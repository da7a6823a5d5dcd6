"""The target classifier: what training writes, twice and ten times, and what the scorer makes of it."""

import re
import shutil
from dataclasses import replace

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from gristmill.models.classifier_training import train_classifier
from gristmill.models.one_line import read_family
from gristmill.models.seed_set import save_seed_set
from gristmill.models.text_classifier import FILE, TextClassifier
from gristmill.scorers.base import ScorerError
from gristmill.scorers.classifier import FastText
from gristmill.scorers.dclm_quality import DclmQuality
from gristmill.scorers.predictive_strength import PredictiveStrength
from gristmill.scorers.target_classifier import TargetClassifier
from gristmill.scorers.text import TextBatch

SMALL = {"dim": 8, "bucket": 1000, "epoch": 20, "lr": 0.5}
POSITIVES = [
    "the miller grinds the corn",
    "flour and bread\nfrom the mill",
    "the mill stands by the river",
] * 8
NEGATIVES = ["buy cheap watches now", "click here to win", "cheap pills </s> online __label__1"] * 12


def texts(values: list[str]) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def train(path, **options) -> None:
    train_classifier(texts(POSITIVES), texts(NEGATIVES), str(path), **SMALL | options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "model.bin"
    train(path)
    return path


def score(scorer: TargetClassifier, *values: str) -> list[float]:
    return scorer.score(TextBatch.from_texts(values))["target_probability"].to_pylist()


def test_two_processes_train_the_same_bytes(model, tmp_path):
    train(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == model.read_bytes()
    train(tmp_path / "other.bin", seed=1)
    assert (tmp_path / "other.bin").read_bytes() != model.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.bin",
        "normalisation.json",
        "other.bin",
    ]


def test_the_end_of_a_line_can_keep_its_vector(model, tmp_path):
    train(tmp_path / "kept.bin", zero_end_of_line=False)
    zeroed, kept = (fasttext.load_model(str(path)) for path in (model, tmp_path / "kept.bin"))
    end = kept.get_word_id("</s>")
    assert kept.get_input_vector(end).any()
    assert not zeroed.get_input_vector(end).any()
    assert np.array_equal(zeroed.get_word_vector("mill"), kept.get_word_vector("mill"))
    # Nothing is known of an unseen word, so only the end of the line speaks, and now it says nothing.
    unseen = texts(["unseen"])
    assert TextClassifier.load(model).probability(unseen, "1") == pytest.approx(0.5, abs=0.05)
    assert abs(TextClassifier.load(tmp_path / "kept.bin").probability(unseen, "1") - 0.5) > 0.05


def test_no_training_leaves_values_that_are_no_numbers(tmp_path):
    unseen = texts(["words that no text had", "the corn buy", "", "mill cheap river win"])
    for seed in range(10):
        train(tmp_path / "model.bin", seed=seed, dim=4, epoch=1)
        fasttext_model = fasttext.load_model(str(tmp_path / "model.bin"))
        assert np.isfinite(fasttext_model.get_input_matrix()).all()
        probability = TextClassifier.load(tmp_path / "model.bin").probability(unseen, "1")
        assert np.isfinite(probability).all()


def test_documents_of_the_target_score_higher(model):
    scorer = TargetClassifier(model=str(model))
    near, far, *blank = score(scorer, "the mill\ngrinds the corn", "win cheap watches", "", " \n\u3000")
    assert 0 <= far < 0.2 < 0.8 < near <= 1
    assert blank == [0, 0]


def test_the_labels_share_the_probability(model):
    classifier = TextClassifier.load(model)
    values = texts(["the mill", "cheap corn", "watches", "corn unknown"])
    positive, negative = (classifier.probability(values, label) for label in "10")
    assert positive.dtype == np.float32
    assert positive + negative == pytest.approx(1, abs=1e-4)
    best, probability = classifier.predict(values)
    assert np.where(positive > negative, "1", "0").tolist() == best
    assert np.maximum(positive, negative) == pytest.approx(probability, abs=2e-5)
    assert classifier.probability(texts([]), "1").shape == (0,)


def test_what_fasttext_reserves_is_text(model):
    scorer = TargetClassifier(model=str(model))
    plain, ended = score(scorer, "cheap the mill grinds the corn", "cheap </s> the mill grinds the corn")
    assert plain == ended


def test_any_two_labels_of_a_model_can_be_the_target(tmp_path):
    (tmp_path / "train.txt").write_text("__label__hq good mill\n__label__cc bad watch\n" * 20)
    trained = fasttext.train_supervised(
        str(tmp_path / "train.txt"), thread=1, dim=4, bucket=10, epoch=20, verbose=0
    )
    trained.save_model(str(tmp_path / "model.bin"))
    good, bad = (
        score(TargetClassifier(model=str(tmp_path / "model.bin"), label=label), "good mill")
        for label in ("hq", "cc")
    )
    assert good[0] > bad[0]
    message = "target_classifier.label: found '1', the labels of .*model.bin are cc, hq"
    with pytest.raises(ScorerError, match=message):
        TargetClassifier(model=str(tmp_path / "model.bin")).setup()


def test_known_models_are_scored_by_their_rules(model, tmp_path):
    (tmp_path / "train.txt").write_text("__label__hq good mill\n__label__cc bad watch\n" * 20)
    trained = fasttext.train_supervised(
        str(tmp_path / "train.txt"), thread=1, dim=4, bucket=10, epoch=20, verbose=0
    )
    trained.save_model(str(tmp_path / "dclm.bin"))
    # U+2028 ends a line for DCLM's script and is a part of a word for fastText.
    batch = TextBatch.from_texts(["good\u2028mill", "bad\u2028watch"])
    path = str(tmp_path / "dclm.bin")
    good, bad = DclmQuality(model=path).score(batch)["dclm_quality"].to_pylist()
    assert bad < 0.4 < 0.6 < good
    as_words = FastText(model=path, label="hq").score(batch)["fasttext_probability"].to_pylist()
    assert as_words[0] == as_words[1]
    strength = PredictiveStrength(model=str(model)).score(TextBatch.from_texts(["the mill", ""]))
    assert strength["predictive_strength"].to_pylist() == score(
        TargetClassifier(model=str(model)), "the mill", ""
    )
    assert strength["in_seed_set"].to_pylist() == [False, False]


def test_documents_of_the_seed_set_are_flagged(model, tmp_path):
    shutil.copy(model, tmp_path / FILE)
    scorer = PredictiveStrength(model=str(tmp_path))
    without = scorer.fingerprint()
    doc_ids = [bytes([7, *[0] * 14, last]) for last in (0, 1, 2, 3)]
    save_seed_set(tmp_path, np.array([doc_ids[2], doc_ids[0]], "S16"))
    assert replace(scorer).fingerprint() != without
    columns = {"doc_id": pa.array(doc_ids, pa.uuid()), "text": texts(["the mill"] * 4)}
    batch = TextBatch(pa.RecordBatch.from_pydict(columns))
    assert replace(scorer).score(batch)["in_seed_set"].to_pylist() == [True, False, True, False]


def test_a_model_is_scored_as_it_was_trained(model, tmp_path):
    train(tmp_path / FILE)
    assert read_family(tmp_path) == "default"
    assert (
        TargetClassifier(model=str(tmp_path)).fingerprint()
        == TargetClassifier(model=str(model)).fingerprint()
    )
    message = (
        r"target_classifier\.normalisation: .* lines by 'default', and 'dclm' is asked for; leave that out"
    )
    with pytest.raises(ScorerError, match=message):
        TargetClassifier(model=str(tmp_path), normalisation="dclm").fingerprint()


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([], ["a"], "found no positive text to train a classifier from"),
        (["a"], [], "found no negative text to train a classifier from"),
    ],
)
def test_a_class_without_text(tmp_path, positives, negatives, message):
    with pytest.raises(ValueError, match=message):
        train_classifier(texts(positives), texts(negatives), str(tmp_path / "model.bin"))


def test_what_fasttext_says_is_passed_on(tmp_path):
    with pytest.raises(RuntimeError, match=r"fastText cannot train the classifier: .*NaN"):
        train(tmp_path / "model.bin", lr=1e30)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_none(tmp_path):
    path = tmp_path / "model.bin"
    with pytest.raises(
        ScorerError, match=re.escape(f"target_classifier.model: {path} cannot be read (No such")
    ):
        TargetClassifier(model=str(path)).fingerprint()
    path.write_bytes(b"no model")
    with pytest.raises(ScorerError, match=r"model\.bin is no supervised fastText model"):
        TargetClassifier(model=str(path)).setup()

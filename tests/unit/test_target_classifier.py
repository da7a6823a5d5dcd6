"""The target classifier: what training writes, twice and ten times, and what the scorer makes of it."""

import re

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from gristmill.models.classifier_training import train_classifier
from gristmill.models.text_classifier import TextClassifier, one_line
from gristmill.scorers.base import ScorerError
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.bin", "other.bin"]


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
    values = texts(["the mill", "cheap corn", "watches", "unknown", ""])
    positive, negative = (classifier.probability(values, label) for label in "10")
    assert positive.dtype == np.float32
    assert positive + negative == pytest.approx(1, abs=1e-4)
    best, probability = classifier.predict(values)
    assert np.where(positive > negative, "1", "0").tolist() == best
    assert np.maximum(positive, negative) == pytest.approx(probability)
    assert classifier.probability(texts([]), "1").shape == (0,)


def test_a_label_without_probability_is_zero(model):
    assert TextClassifier.load(model).probability(texts(["the mill"]), "other").tolist() == [0]


def test_what_fasttext_reserves_is_text(model):
    assert one_line(texts(["a\nb </s> c __label__0 d"])).to_pylist() == ["a b   c  0 d"]
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

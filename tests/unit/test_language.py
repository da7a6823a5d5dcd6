"""Language scorer: py3langid's numbers, fastText models with their own labels, and texts in no language."""

import json
import random

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from py3langid.langid import MODEL_FILE
from py3langid.langid import LanguageIdentifier as Peer

from gristmill.models.language_identifier import MAX_BYTES, LanguageIdentifier
from gristmill.models.text_classifier import TextClassifier
from gristmill.scorers.base import ScorerError
from gristmill.scorers.language import Language
from gristmill.scorers.text import TextBatch

SENTENCES = {
    "en": "The mill grinds the grain that the farmers bring down from the hills in autumn.",
    "de": "Die Mühle mahlt das Korn, das die Bauern im Herbst von den Hügeln bringen.",
    "fr": "Le moulin moud le grain que les paysans apportent des collines en automne.",
    "ru": "Мельница мелет зерно, которое крестьяне привозят осенью с холмов.",
    "el": "Ο μύλος αλέθει το σιτάρι που φέρνουν οι αγρότες από τους λόφους το φθινόπωρο.",
    "zh": "磨坊磨碎农民秋天从山上运来的谷物。",
    "ja": "水車小屋は、農民たちが秋に丘から運んでくる穀物を挽きます。",
    "hi": "चक्की उस अनाज को पीसती है जो किसान पतझड़ में पहाड़ियों से लाते हैं।",
    "vi": "Cối xay nghiền hạt mà nông dân mang từ trên đồi xuống vào mùa thu.",
}


@pytest.fixture(scope="module")
def default():
    scorer = Language()
    scorer.setup()
    return scorer


@pytest.fixture(scope="module")
def peer():
    return Peer.from_model_file(MODEL_FILE, norm_probs=True)


@pytest.fixture(scope="module")
def fasttext_model(tmp_path_factory):
    """A tiny language model with labels as GlotLID writes them."""
    folder = tmp_path_factory.mktemp("fasttext")
    words = {
        "eng_Latn": "the mill grinds grain and",
        "deu_Latn": "die Mühle mahlt Korn und",
        "pt-br": "o moinho mói",
    }
    draw = random.Random(0)
    lines = [
        f"__label__{label} {' '.join(draw.choices(text.split(), k=6))}" for label, text in words.items()
    ] * 50
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    model = fasttext.train_supervised(
        str(folder / "train.txt"), thread=1, dim=8, epoch=20, bucket=100, verbose=0
    )
    model.save_model(str(folder / "lid.bin"))
    return folder / "lid.bin"


def score(scorer, *texts):
    rows = scorer.score(TextBatch.from_texts(texts)).to_pylist()
    return [(row["language"], row["language_probability"]) for row in rows]


@pytest.mark.parametrize(("language", "text"), SENTENCES.items())
def test_sentences(default, language, text):
    ((label, probability),) = score(default, text)
    assert label == language
    assert probability > 0.65


def test_equals_py3langid(default, peer):
    texts = [
        *SENTENCES.values(),
        *(text[:9].strip() for text in SENTENCES.values()),
        "STOP THE MILL",
        "e\u0301te\u0301",
    ]
    texts += ["Мајка је отишла у млин. Мелет зрно.", "Tegirmon donni maydalaydi.", "x" * MAX_BYTES]
    for text, (label, probability) in zip(texts, score(default, *texts), strict=True):
        expected_label, expected_probability = peer.classify(text)
        assert label == expected_label
        assert probability == pytest.approx(expected_probability, abs=1e-4)


def test_only_the_beginning_counts(default):
    text = "\n " * 1000 + SENTENCES["en"] * 20
    assert score(default, text + SENTENCES["de"] * 1000) == score(default, text)


@pytest.mark.parametrize("text", ["", " \n\t\u3000", "\0", "\x01"])
def test_no_language(default, text):
    assert score(default, text) == [("und", 0.0)]


def test_the_fingerprint_holds_the_models_bytes(fasttext_model, tmp_path):
    copy = tmp_path / "other-name.bin"
    copy.write_bytes(fasttext_model.read_bytes())
    fingerprint = Language(model=str(fasttext_model)).fingerprint()
    assert Language(model=str(copy)).fingerprint() == fingerprint
    copy.write_bytes(copy.read_bytes() + b"x")
    assert Language(model=str(copy)).fingerprint() != fingerprint
    assert Language().fingerprint() != fingerprint
    assert len(LanguageIdentifier.digest()) == 32


def test_fasttext_labels_stay_as_they_are(fasttext_model):
    scorer = Language(model=str(fasttext_model))
    texts = ["the mill\ngrinds __label__deu_Latn grain", "die Mühle mahlt", "o moinho mói", "", " \n"]
    found = score(scorer, *texts)
    assert [label for label, _ in found] == ["eng_Latn", "deu_Latn", "pt-br", "und", "und"]
    assert all(0.65 < probability <= 1 for _, probability in found[:3])
    assert [probability for _, probability in found[3:]] == [0, 0]


def test_text_classifier(fasttext_model):
    classifier = TextClassifier.load(fasttext_model)
    assert sorted(classifier.labels) == ["deu_Latn", "eng_Latn", "pt-br"]
    labels, probabilities = classifier.predict(pa.array(["the mill", "Mühle"], pa.large_string()))
    assert labels == ["eng_Latn", "deu_Latn"]
    assert probabilities.dtype == np.float32


def test_a_missing_model_is_named():
    with pytest.raises(ScorerError, match=r"'no/such\.bin' is no file"):
        Language(model="no/such.bin").fingerprint()


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "lid.bin"
    path.write_bytes(b"no model")
    with pytest.raises(ScorerError, match="no supervised fastText model"):
        Language(model=str(path)).setup()


def test_word_vectors_are_no_classifier(tmp_path):
    (tmp_path / "train.txt").write_text("the mill grinds grain\n" * 20)
    model = fasttext.train_unsupervised(
        str(tmp_path / "train.txt"), thread=1, dim=4, epoch=1, bucket=10, minCount=1, verbose=0
    )
    model.save_model(str(tmp_path / "vectors.bin"))
    with pytest.raises(ScorerError, match="no supervised fastText model"):
        Language(model=str(tmp_path / "vectors.bin")).setup()


def test_columns_are_declared(default):
    assert json.dumps([column.name for column in default.columns]) == '["language", "language_probability"]'

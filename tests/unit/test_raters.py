"""Scorers by Hugging Face raters: which number each takes, and which models each refuses."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_raters import PROSE, make_rater
from transformers import AutoModelForSequenceClassification

from gristmill.models.load_rater import load_rater
from gristmill.models.rater import Reading
from gristmill.models.tokenizer import Tokenizer
from gristmill.scorers.base import ScorerError
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch

TEXTS = [PROSE, " \n\u3000", "The mill grinds corn.", "x"]
READ = [0, 2, 3]


def change(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def set_bias(folder, *bias):
    """Logits that are the same for every text."""
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][:] = 0
    weights["classifier.bias"][:] = torch.tensor(bias)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def score(name, folder, **options):
    scorer = make_scorer(name, {"model": str(folder), **options})
    scorer.fingerprint()
    return scorer.score(TextBatch.from_texts(TEXTS)).to_pydict()


def refused(message, name, folder, **options):
    with pytest.raises(ScorerError, match=message) as refusal:
        make_scorer(name, {"model": str(folder), **options}).fingerprint()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["professionalism", "readability", "reasoning", "cleanliness"])
def test_six_classes_are_worth_0_to_5_points(tmp_path, name):
    found = score(name, make_rater(tmp_path, num_labels=6))
    probabilities = np.array([found[f"{name}_probabilities"][row] for row in READ])
    np.testing.assert_allclose(np.array(found[name])[READ], probabilities @ np.arange(6), rtol=1e-5)
    assert np.array(found[f"{name}_class"])[READ].tolist() == probabilities.argmax(axis=1).tolist()
    assert [found[column][1] for column in found] == [0.0, 0, []]


@pytest.mark.parametrize(
    ("logit", "value", "likeliest"), [(2.734, 2.734, 3), (7.3, 5, 5), (-1, 0, 0), (2.5, 2.5, 2)]
)
def test_educational_value_is_clipped_and_its_class_rounded_as_in_fineweb_edu(
    tmp_path, logit, value, likeliest
):
    found = score("educational_value", set_bias(make_rater(tmp_path, num_labels=1), logit))
    assert found["educational_value"] == pytest.approx([value, 0, value, value])
    assert found["educational_value_class"] == [likeliest, 0, likeliest, likeliest]
    assert found["educational_value_probabilities"] == [[], [], [], []]


@pytest.mark.parametrize("name", ["advertisement", "fluency"])
def test_the_second_label_is_the_good_one(tmp_path, name):
    folder = set_bias(make_rater(tmp_path, num_labels=2), np.log(0.2), np.log(0.8))
    found = score(name, folder)
    assert found[name] == pytest.approx([0.8, 0, 0.8, 0.8])
    assert found[f"{name}_class"] == [1, 0, 1, 1]
    assert found[f"{name}_probabilities"][0] == pytest.approx([0.2, 0.8])
    turned = score(name, folder, label=0)
    assert turned[name] == pytest.approx([0.2, 0, 0.2, 0.2])
    assert turned[f"{name}_class"] == [0, 0, 0, 0]


def test_labels_that_are_words_must_be_chosen(tmp_path):
    folder = set_bias(make_rater(tmp_path, labels=["Fake", "Real"]), np.log(0.7), np.log(0.3))
    refused("machine_written.model: .* its classes are Fake, Real, .*say `label`", "machine_written", folder)
    found = score("machine_written", folder, label="Fake")
    assert found["machine_written"] == pytest.approx([0.7, 0, 0.7, 0.7])
    assert found["machine_written_class"] == [1, 0, 1, 1]


def test_one_of_several_labels(tmp_path):
    made = make_rater(tmp_path, labels=["toxic", "threat"], problem_type="multi_label_classification")
    folder = set_bias(made, np.log(3), 0)
    refused(
        r"toxicity.model: found 2 values \(toxic, threat\) .*; expected 1; say `label`", "toxicity", folder
    )
    found = score("toxicity", folder, label="toxic")
    assert found["toxicity"] == pytest.approx([0.75, 0, 0.75, 0.75])
    assert found["toxicity_class"] == [1, 0, 1, 1]
    assert found["toxicity_probabilities"] == [[], [], [], []]


def test_any_rater(tmp_path):
    folder = set_bias(make_rater(tmp_path, labels=["1", "2", "9"]), *np.log([0.5, 0.25, 0.25]))
    found = score("rater", folder)
    assert found["rater"] == pytest.approx([3.25, 0, 3.25, 3.25])
    assert found["rater_class"] == [1, 0, 1, 1]


def test_qurating_reads_windows_without_special_tokens(tmp_path):
    folder = make_rater(tmp_path, "llama", num_labels=4, context=24)
    change(folder, pad_token_id=None)
    found = score("qurating", folder, window=10)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = Tokenizer.load(str(folder)).encode(pa.array([PROSE], pa.large_string())).tokens.astype(np.int64)
    windows = [tokens[start : start + 10] for start in range(0, len(tokens), 10)]
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor(window[None])).logits[0].numpy() for window in windows]
    expected = np.average(logits, axis=0, weights=list(map(len, windows)))
    assert list(found) == [
        f"qurating_{name}"
        for name in ("writing_style", "required_expertise", "facts_and_trivia", "educational_value")
    ]
    np.testing.assert_allclose([values[0] for values in found.values()], expected, atol=2e-5)
    assert [values[1] for values in found.values()] == [0, 0, 0, 0]


def test_models_of_another_dimension_are_refused(tmp_path):
    two = make_rater(tmp_path, num_labels=2)
    refused(
        "readability.model: found classes worth 0, 1 in .*; expected 0, 1, 2, 3, 4, 5; take",
        "readability",
        two,
    )
    refused("qurating.model: found 2 values .*; expected 4", "qurating", two, window=24)
    refused("educational_value.model: found classes worth 0, 1", "educational_value", two)
    six = make_rater(tmp_path, num_labels=6)
    refused("fluency.model: found classes worth 0, 1, 0, 0, 0, 0 in .*; expected 0, 1", "fluency", six)
    refused("fluency.model: .* found the label 'good'", "fluency", six, label="good")
    refused("rater.model: .* found windows of 25 tokens; expected 3 to 24", "rater", six, window=25)
    refused("rater.model: .*no sequence classification here", "rater", tmp_path / "none")


def test_where_it_reads_only_the_first_window(tmp_path):
    folder = make_rater(tmp_path, num_labels=6)
    long, start = PROSE * 3, PROSE[:60]
    rate = {
        long_texts: make_scorer("rater", {"model": str(folder), "window": 12, "long_texts": long_texts})
        for long_texts in ("windows", "truncate")
    }
    beginning, whole = (
        [scorer.score(TextBatch.from_texts([text]))["rater"][0].as_py() for text in (long, start)]
        for scorer in (rate["truncate"], rate["windows"])
    )
    assert beginning[0] == pytest.approx(beginning[1], abs=1e-5)
    assert abs(whole[0] - whole[1]) > 1e-3


def test_broken_weights_are_refused_by_setup(tmp_path):
    folder = make_rater(tmp_path / "rater", num_labels=6)
    set_bias(folder, *[torch.nan] * 6)
    with pytest.raises(ScorerError, match=r"reasoning\.model: .*classifier.bias holds NaN"):
        make_scorer("reasoning", {"model": str(folder)}).setup()


def test_a_model_is_loaded_once_for_all_scorers_that_read_it_alike(tmp_path, monkeypatch):
    folder = make_rater(tmp_path, num_labels=6)
    loads = []
    load = load_rater
    monkeypatch.setattr(
        "gristmill.models.load_rater.load_rater", lambda *given: loads.append(given) or load(*given)
    )
    for name in ("professionalism", "readability", "professionalism"):
        make_scorer(name, {"model": str(folder)}).setup()
    make_scorer("reasoning", {"model": str(folder), "window": 12}).setup()
    assert [reading for _, reading in loads] == [Reading(), Reading(window=12)]


def test_another_model_at_the_same_place_is_loaded_again(tmp_path):
    folder = make_rater(tmp_path / "a", num_labels=6)
    before = score("reasoning", folder)
    shutil.rmtree(folder)
    make_rater(tmp_path / "a", num_labels=6, seed=1)
    assert score("reasoning", folder)["reasoning"] != before["reasoning"]

"""Fine-tuning an encoder: it learns, is the model that was judged, and goes on after a kill as if without it."""

import json

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file
from tiny_raters import make_rater

from gristmill.models import encoder_training
from gristmill.models.encoder_training import BEST, FineTuning, fine_tune
from gristmill.models.load_rater import describe, load_rater
from gristmill.models.rater import Reading
from gristmill.models.rater_training import LabelledTexts, selection_score

PLAN = FineTuning(epochs=4, batch_size=16, learning_rate=3e-3, window=16, seed=1)
GRAIN, TRADE = "mill grinds corn", "flour for himself"


def labelled(count, seed, worth=(0.0, 5.0)):
    rng = np.random.default_rng(seed)
    is_grain = rng.random(count) < 0.5
    texts = [" ".join(rng.permutation((GRAIN if grain else TRADE).split())) for grain in is_grain]
    return LabelledTexts(pa.array(texts, pa.large_string()), np.where(is_grain, *worth[::-1]))


def tune(encoder, folder, kind="classification", plan=PLAN, report=lambda *_: None):
    parts = labelled(80, 0), labelled(20, 1)
    return fine_tune(str(encoder), *parts, kind, plan, folder, lambda _: None, report)


@pytest.fixture
def encoder(tmp_path):
    return make_rater(tmp_path / "encoder")


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_what_is_learnt_is_what_is_loaded(encoder, tmp_path, kind):
    scores = tune(encoder, tmp_path / "work", kind)
    assert len(scores) == PLAN.epochs
    assert max(scores) > 0.8
    best = str(tmp_path / "work" / BEST)
    rater = load_rater(best, Reading(head="labels", window=1))  # heeds no reading but its own
    assert selection_score(rater, labelled(20, 1)) == pytest.approx(max(scores))
    assert describe(best, Reading()).classes == ((0, 5) if kind == "classification" else None)
    grain, trade = rater.rate(pa.array([GRAIN, TRADE], pa.large_string())).values[:, 0]
    assert grain > trade + 0.3


def test_an_interrupted_training_ends_with_the_same_model(encoder, tmp_path):
    scores = tune(encoder, tmp_path / "whole")
    steps = []

    def interrupt(step, _):
        steps.append(step)
        if step == 12:  # in the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(encoder, tmp_path / "cut", report=interrupt)
    assert tune(encoder, tmp_path / "cut", report=lambda step, _: steps.append(step)) == scores
    assert steps[12:] == list(range(11, 21))
    whole, cut = (tmp_path / name / BEST / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_texts_are_trained_on_up_to_the_window(encoder, tmp_path, monkeypatch):
    widths = []
    pad = encoder_training.pad_windows

    def note(*arguments):
        inputs, mask = pad(*arguments)
        widths.append(inputs.shape[1])
        return inputs, mask

    monkeypatch.setattr(encoder_training, "pad_windows", note)
    train = LabelledTexts(pa.array([f"{GRAIN} " * 20, TRADE, ""], pa.large_string()), np.array([1.0, 0, 0]))
    plan = FineTuning(epochs=1, window=9)
    fine_tune(str(encoder), train, train, "classification", plan, tmp_path, lambda _: None, lambda *_: None)
    assert max(widths) == 9
    assert json.loads((tmp_path / BEST / "tokenizer_config.json").read_text())["model_max_length"] == 9


def test_an_encoder_that_is_none_is_refused(tmp_path):
    (tmp_path / "encoder").mkdir()
    with pytest.raises(ValueError, match="no encoder here; expected a Hugging Face directory"):
        tune(tmp_path / "encoder", tmp_path / "work")


def test_an_encoder_without_all_its_weights_is_refused(encoder, tmp_path):
    weights = load_file(encoder / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "layer.1" not in name},
        encoder / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"weights are missing or of another shape: bert\.encoder\.layer\.1"):
        tune(encoder, tmp_path / "work")


def test_labels_of_one_class_are_refused(encoder, tmp_path):
    same = labelled(5, 0, (1.0, 1.0))
    with pytest.raises(ValueError, match="found 5 texts of 1 labels in the part 'train'"):
        fine_tune(str(encoder), same, same, "classification", PLAN, tmp_path, lambda _: None, lambda *_: None)


def test_a_rate_that_destroys_the_model_is_refused(encoder, tmp_path):
    plan = FineTuning(epochs=9, batch_size=8, learning_rate=1e30)
    with pytest.raises(ValueError, match="try a smaller learning rate"):
        tune(encoder, tmp_path / "work", plan=plan)

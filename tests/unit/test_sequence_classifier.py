"""Documents under a Hugging Face sequence classification: the same as one window at a time, whatever the batch."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_raters import END, FAMILIES, PADDING, PROSE, START, make_rater, mean_of_each_window
from transformers import AutoModel, AutoModelForSequenceClassification

from gristmill.models import padded_windows
from gristmill.models.hugging_face import ModelError
from gristmill.models.load_rater import describe, digest, load_rater
from gristmill.models.padded_windows import Template, mean_of_windows, pad_windows
from gristmill.models.rater import RaterError, Reading
from gristmill.models.sequence_classifier import SequenceClassifier
from gristmill.models.windows import Windows, split_windows

CONTEXT = 24
TEXTS = ["x", "The mill grinds. " * 20, PROSE, "corn", PROSE[:40], f"{PROSE} " * 3]
VALUES = Reading(head="regression")


def strings(texts):
    return pa.array(texts, pa.large_string())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return make_rater(tmp_path_factory.mktemp(request.param), request.param, num_labels=3, context=CONTEXT)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_rater(tmp_path_factory.mktemp("bert"), num_labels=3, context=CONTEXT)


def by_hand(folder, texts, *, first_only=False):
    """Logits by transformers, one window at a time, float64[n, k]."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def read(ids):
        return model(input_ids=ids).logits[0]

    return mean_of_each_window(folder, texts, CONTEXT, read, first_only=first_only)


def test_every_family_gives_the_logits_of_its_windows_one_at_a_time(family):
    found = load_rater(str(family), VALUES).rate(strings(TEXTS)).values
    expected = by_hand(family, TEXTS)
    assert np.ptp(expected, axis=0).min() > 0.05, "texts differ by far more than the tolerance"
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_first_window_alone(family):
    truncated = Reading(head="regression", long_texts="truncate")
    found = load_rater(str(family), truncated).rate(strings(TEXTS)).values
    np.testing.assert_allclose(found, by_hand(family, TEXTS, first_only=True), atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.sampled_from([*TEXTS, "", "\0", "the mill"]), max_size=12),
    budget=st.integers(1, 200),
)
def test_neither_batches_nor_their_budget_change_a_rating(bert, texts, budget):
    rater = load_rater(str(bert), VALUES)
    alone = [rater.rate(strings([text])).values for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padded_windows, "TOKEN_BUDGET", {"cpu": budget})
        together = rater.rate(strings(texts)).values
    np.testing.assert_allclose(together, np.concatenate([np.empty((0, 3)), *alone]), atol=2e-5)


def test_the_number_of_threads_changes_no_bit(bert):
    rater, before = load_rater(str(bert), VALUES), torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            found.append(rater.rate(strings(TEXTS * 9)).values.tobytes())
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_text_without_tokens_is_all_zeros(bert):
    found = load_rater(str(bert), Reading()).rate(strings(["", PROSE, "\0"]))
    assert found.values[[0, 2]].tolist() == [[0], [0]]
    assert found.probabilities[[0, 2]].tolist() == [[0, 0, 0]] * 2
    assert found.probabilities[1].sum() == pytest.approx(1)
    nothing = load_rater(str(bert), Reading()).rate(strings([]))
    assert (nothing.values.shape, nothing.probabilities.shape) == ((0, 1), (0, 3))


def test_rows_of_a_batch():
    windows = split_windows(np.array([0, 3, 4]), window=2, stride=2)
    rows, mask = pad_windows(
        np.array([10, 11, 12, 13], np.uint32), windows, np.array([0, 2, 1]), Template((1, 5), (2,), padding=9)
    )
    assert rows.tolist() == [[1, 5, 10, 11, 2], [1, 5, 13, 2, 9], [1, 5, 12, 2, 9]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]


def test_windows_count_by_their_tokens():
    windows = Windows(np.array([0, 0, 2]), np.array([0, 3, 9]), np.array([3, 4, 10]), np.array([0, 3, 9]))
    documents, means = mean_of_windows(np.array([[4, 0], [8, -4], [1, 1]], np.float32), windows)
    assert documents.tolist() == [0, 2]
    assert means.tolist() == [[5, -1], [1, 1]]


def test_special_tokens_and_the_window(bert, tmp_path):
    assert load_rater(str(bert), VALUES)._plan.template == Template((START,), (END,), PADDING)
    bare = load_rater(str(bert), Reading(head="regression", special_tokens=False, window=8))
    assert (bare._plan.template, bare._plan.window) == (Template((), (), PADDING), 8)
    roberta = make_rater(tmp_path, "roberta", context=CONTEXT)
    assert json.loads((roberta / "config.json").read_text())["max_position_embeddings"] == CONTEXT + 1
    assert load_rater(str(roberta), VALUES)._plan.window == CONTEXT - 2
    (roberta / "tokenizer_config.json").write_text('{"model_max_length": 12}')
    assert load_rater(str(roberta), VALUES)._plan.window == 10
    (roberta / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert load_rater(str(roberta), VALUES)._plan.window == CONTEXT - 2


def test_its_own_padding_token_or_else_the_end(tmp_path):
    llama = make_rater(tmp_path, "llama", num_labels=3, context=CONTEXT)
    expected = load_rater(str(llama), VALUES).rate(strings(TEXTS)).values
    change(llama, pad_token_id=None)
    rater = load_rater(str(llama), VALUES)
    assert rater._plan.template.padding == END
    np.testing.assert_allclose(rater.rate(strings(TEXTS)).values, expected, atol=2e-5)
    change(llama, pad_token_id=None, eos_token_id=None)
    refused(llama, ModelError, "names no token for padding; expected pad_token_id")


def change(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refused(folder, error, message, reading=VALUES, load=load_rater):
    with pytest.raises(error, match=message) as refusal:
        load(str(folder), reading)
    assert str(refusal.value).startswith(str(folder))
    assert "\n" not in str(refusal.value)


@pytest.fixture
def broken(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "broken")


def test_what_cannot_rate_is_refused_by_its_small_files(broken, tmp_path):
    for window in (2, CONTEXT + 1):
        message = f"found windows of {window} tokens; expected 3 to {CONTEXT}, all that the model reads"
        refused(broken, ModelError, message, Reading(window=window), describe)
    refused(tmp_path / "none", ModelError, "no sequence classification here", load=describe)
    change(broken, architectures=["BertForMaskedLM"])
    refused(
        broken, RaterError, "found BertForMaskedLM in config.json; expected one for sequence", load=describe
    )
    change(broken, architectures=["BertForSequenceClassification"], id2label={"0": "ham", "1": "spam"})
    refused(broken, RaterError, "its classes are ham, spam", Reading(), describe)
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    refused(broken, ModelError, "found pytorch_model.bin, a pickle, which can run code", load=describe)


def test_weights_that_are_no_sequence_classification_are_refused(broken):
    AutoModel.from_pretrained(broken).save_pretrained(broken)
    change(broken, architectures=["BertForSequenceClassification"])
    refused(broken, ModelError, "weights are missing or of another shape: classifier.bias")


def test_weights_and_logits_that_are_not_finite_are_refused(broken):
    file = broken / "model.safetensors"
    weights = load_file(file)
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, file, {"format": "pt"})
    refused(broken, ModelError, "classifier.bias holds NaN or infinite weights")
    weights["classifier.bias"][0] = 0
    weights["classifier.weight"][:] = 3e38
    save_file(weights, file, {"format": "pt"})
    rater = SequenceClassifier.load(str(broken), VALUES)
    with pytest.raises(RaterError, match="the model gives NaN or infinite logits; try `dtype: float32`"):
        rater.rate(strings([PROSE]))


def test_code_in_the_directory_is_not_run(broken):
    (broken / "evil.py").write_text("raise SystemExit('run')\n")
    change(
        broken,
        model_type="evil",
        auto_map={
            "AutoConfig": "evil.Config",
            "AutoModelForSequenceClassification": "evil.EvilForSequenceClassification",
        },
    )
    refused(broken, ModelError, "trust_remote_code|custom code")


def test_the_digest_follows_weights_configuration_and_tokenizer(broken):
    seen = {digest(str(broken))}
    change(broken, id2label={"0": "a", "1": "b", "2": "c"})
    seen.add(digest(str(broken)))
    (broken / "tokenizer.json").write_text((broken / "tokenizer.json").read_text() + " ")
    seen.add(digest(str(broken)))
    with (broken / "model.safetensors").open("ab") as file:
        file.write(b" ")
    seen.add(digest(str(broken)))
    (broken / "README.md").write_text("a card")
    seen.add(digest(str(broken)))
    assert len(seen) == 4

"""Documents under a Hugging Face encoder: pooled hidden states, the same as one window at a time."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny
from tiny_raters import FAMILIES, PROSE, make_rater, mean_of_each_window
from transformers import AutoModel, AutoModelForMaskedLM

from gristmill.models import padded_windows
from gristmill.models.hugging_face import ModelError
from gristmill.models.text_encoder import Encoding, TextEncoder, digest, is_language_model, plan_encoding
from gristmill.scorers.base import ScorerError
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch

CONTEXT = 24
TEXTS = ["x", "The mill grinds. " * 20, PROSE, "corn", PROSE[:40], f"{PROSE} " * 3]


def strings(texts):
    return pa.array(texts, pa.large_string())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return make_rater(tmp_path_factory.mktemp(request.param), request.param, context=CONTEXT)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_rater(tmp_path_factory.mktemp("bert"), context=CONTEXT)


@pytest.fixture
def copied(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "copied")


def by_hand(folder, texts, *, layer=-1, first=False):
    """Pooled states by transformers, one window at a time, float64[n, d]."""
    model = AutoModel.from_pretrained(folder).eval()

    def read(ids):
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
        return states[0] if first else states.double().mean(dim=0)

    return mean_of_each_window(folder, texts, CONTEXT, read)


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_every_family_gives_the_states_of_its_windows_one_at_a_time(family, layer):
    rows, vectors = TextEncoder.load(str(family), Encoding(layer)).embed(strings(TEXTS))
    expected = by_hand(family, TEXTS, layer=-1 if layer is None else layer)
    assert rows.tolist() == list(range(len(TEXTS)))
    assert vectors.dtype == np.float32
    assert np.ptp(expected, axis=0).min() > 0.01, "texts differ by far more than the tolerance"
    np.testing.assert_allclose(vectors, expected, atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.sampled_from([*TEXTS, "", "\0", "the mill"]), max_size=12),
    budget=st.integers(1, 200),
)
def test_neither_batches_nor_their_budget_change_a_vector(bert, texts, budget):
    encoder = TextEncoder.load(str(bert), Encoding())
    alone = [encoder.embed(strings([text]))[1] for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padded_windows, "TOKEN_BUDGET", {"cpu": budget})
        rows, together = encoder.embed(strings(texts))
    assert rows.tolist() == [row for row, vectors in enumerate(alone) if len(vectors)]
    np.testing.assert_allclose(together, np.concatenate([np.empty((0, 32)), *alone]), atol=2e-5)


def test_a_layer_of_a_language_model_is_read_behind_an_end_of_text(tmp_path):
    model = tiny(context=16)
    model.save(tmp_path)
    assert is_language_model(str(tmp_path))
    tokens = model.tokenizer.encode(strings([PROSE])).tokens[:20].astype(np.int64)
    text = "".join(model.tokenizer._tokenizer.decode([token]) for token in tokens)
    assert model.tokenizer.encode(strings([text])).tokens.tolist() == tokens.tolist()
    parts = []
    for part in (tokens[:15], tokens[15:]):
        row = torch.tensor([[model.tokenizer.end_of_text, *part]])
        with torch.inference_mode():
            states = model.model(input_ids=row, output_hidden_states=True).hidden_states[1][0]
        parts.append(states.double().numpy().mean(axis=0))
    _, vectors = TextEncoder.load(str(tmp_path), Encoding(layer=1)).embed(strings([text]))
    np.testing.assert_allclose(vectors[0], np.average(parts, axis=0, weights=[15, 5]), atol=2e-5)


def test_a_masked_language_model_needs_no_pooler(copied):
    expected = TextEncoder.load(str(copied), Encoding()).embed(strings(TEXTS))[1]
    AutoModelForMaskedLM.from_pretrained(copied).save_pretrained(copied)
    np.testing.assert_allclose(
        TextEncoder.load(str(copied), Encoding()).embed(strings(TEXTS))[1], expected, atol=1e-6
    )


def write(folder, name, content):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def test_files_of_sentence_transformers_are_heeded(copied):
    modules = ("Transformer", "Pooling", "Normalize")
    write(copied, "modules.json", [{"type": f"sentence_transformers.models.{name}"} for name in modules])
    write(
        copied, "1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    )
    _, vectors = TextEncoder.load(str(copied), Encoding()).embed(strings(TEXTS))
    np.testing.assert_allclose(vectors, by_hand(copied, TEXTS, first=True), atol=2e-5)
    write(copied, "sentence_bert_config.json", {"max_seq_length": 12})
    assert plan_encoding(str(copied), Encoding())[1].window == 10
    write(copied, "1_Pooling/config.json", {"pooling_mode_max_tokens": True})
    refused(copied, "says pooling_mode_max_tokens; expected pooling_mode_mean_tokens or")
    write(copied, "modules.json", [{"type": "sentence_transformers.models.Dense"}])
    refused(copied, "modules.json names Dense; expected Normalize, Pooling, Transformer alone")


def test_the_digest_follows_all_that_vectors_depend_on(copied):
    seen = {digest(str(copied))}
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "README.md"):
        write(copied, name, {})
        seen.add(digest(str(copied)))
    assert len(seen) == 4


def refused(folder, message, encoding=Encoding()):  # noqa: B008
    with pytest.raises(ModelError, match=message) as refusal:
        plan_encoding(str(folder), encoding)
    assert str(refusal.value).startswith(str(folder))
    assert "\n" not in str(refusal.value)


def test_what_cannot_encode_is_refused_by_its_small_files(copied):
    for layer in (-1, 3):
        refused(
            copied,
            f"found layer {layer}; expected 0, the embeddings of tokens, to 2, the last",
            Encoding(layer),
        )
    refused(copied, f"found windows of 2 tokens; expected 3 to {CONTEXT}, all that", Encoding(window=2))
    change(copied, is_encoder_decoder=True)
    refused(copied, "found an encoder with a decoder; expected an encoder or a language model")
    change(copied, num_hidden_layers=None, is_encoder_decoder=False)
    refused(copied, "names no number of layers; expected num_hidden_layers")


def change(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# The scorer.


def scored(options, texts):
    scorer = make_scorer("embedding", options)
    scorer.setup()
    return scorer.score(TextBatch.from_texts(texts))["embedding"].to_pylist()


def test_embeddings_of_an_encoder_and_of_a_layer(bert, tmp_path):
    found = scored({"model": str(bert)}, ["", PROSE, "\0", "corn"])
    expected = by_hand(bert, [PROSE, "corn"])
    assert (found[0], found[2]) == ([], [])
    np.testing.assert_allclose([found[1], found[3]], expected, atol=2e-3)
    tiny(context=16).save(tmp_path)
    options = {"model": str(tmp_path)}
    last, first = (scored(options | layer, [PROSE])[0] for layer in ({}, {"layer": 0}))
    assert not np.allclose(last, first, atol=0.01)


def test_a_model_layer_or_window_is_part_of_the_identity(bert, tmp_path):
    tiny(context=16).save(tmp_path)
    options = [
        {"model": str(model)} | more
        for model in (bert, tmp_path)
        for more in ({}, {"layer": 1}, {"window": 8})
    ]
    assert len({make_scorer("embedding", option).fingerprint() for option in options}) == 6


def test_options_that_do_not_fit_are_refused_before_any_scoring(bert, tmp_path):
    tiny(context=16).save(tmp_path)
    overlap = r"embedding.stride: found 4; windows overlap only where losses are scored in the same pass, .* leave it"
    for options, message in (
        ({"model": str(bert), "stride": 4}, overlap),
        ({"model": str(tmp_path), "stride": 4, "layer": 1}, overlap),
        ({"model": str(tmp_path), "layer": 9}, "embedding.model: .*found layer 9; expected 0"),
        ({"model": str(tmp_path / "none")}, "embedding.model: .*no model here"),
    ):
        with pytest.raises(ScorerError, match=message):
            make_scorer("embedding", options).fingerprint()

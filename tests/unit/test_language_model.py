"""Making, saving and loading language models, and the directories that are refused in one line."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXT, other, strings, tiny, tokenizer, tokens_of

from gristmill.models import hugging_face, language_model
from gristmill.models.hugging_face import ModelError
from gristmill.models.language_model import LanguageModel, context_of, digest, sample_of
from gristmill.models.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path):
    tiny().save(tmp_path)
    return tmp_path


def test_comes_back_the_same(folder):
    made, loaded = tiny(), LanguageModel.load(str(folder))
    texts = made.tokenizer.encode(strings(TEXT, "", "mill"))
    assert np.array_equal(loaded.losses(texts, 16, 16).nll, made.losses(texts, 16, 16).nll)
    assert loaded.context == context_of(str(folder)) == 16
    assert loaded.tokenizer.end_of_text == made.tokenizer.end_of_text
    assert loaded.model.dtype == torch.float32


def test_the_seed_decides_the_weights_and_no_other_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, different = tiny(0), tiny(0), tiny(1)
    assert torch.equal(before, torch.get_rng_state())
    weights = [model.model.model.embed_tokens.weight for model in (first, again, different)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_tokenizer_trains_to_the_same_bytes_and_loses_nothing(tmp_path):
    for name in ("a", "b"):
        tokenizer().save(tmp_path / name)
    assert Tokenizer.digest(str(tmp_path / "a")) == Tokenizer.digest(str(tmp_path / "b"))
    made = tokenizer()
    assert made.vocab_size == 300
    texts = [TEXT, "", "磨坊 é\0", " \n\n"] * 200
    tokens = made.encode(strings(*texts))
    assert tokens.tokens.dtype == np.uint32
    assert np.diff(tokens.offsets).tolist() == made.count(strings(*texts)).tolist()
    for row, text in enumerate(texts):
        ids = tokens.tokens[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        assert made._tokenizer.decode(ids, skip_special_tokens=False) == text


def refused(folder, message):
    with pytest.raises(ModelError, match=message) as refusal:
        LanguageModel.load(str(folder))
    assert "\n" not in str(refusal.value)


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_incomplete_directories(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    refused(folder, r"expected weights as \.safetensors; found none")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    refused(folder, r"found pytorch_model\.bin, a pickle, which can run code; convert it")
    weights.write_bytes(content[:1000])
    refused(folder, "(?i)header|invalid|incomplete")
    weights.write_bytes(content)
    (folder / "tokenizer.json").rename(folder / "elsewhere.json")
    refused(folder, r"no tokenizer\.json; expected the model's own")
    (folder / "elsewhere.json").rename(folder / "tokenizer.json")
    for broken in ("{", "[]", '{"model_type": "llama"}', '{"text_config": 3}', '{"vocab_size": null}'):
        (folder / "config.json").write_text(broken)
        refused(folder, r"config\.json: no configuration of a language model; expected JSON with vocab_size")
    (folder / "config.json").unlink()
    refused(folder, r"no language model here; expected a Hugging Face directory with config\.json")


def test_weights_that_do_not_fit(folder):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "down_proj" in name)
    for value, message in ((torch.nan, "NaN or infinite weights"), (torch.inf, "NaN or infinite weights")):
        broken = tensors | {name: tensors[name].clone()}
        broken[name][0, 0] = value
        save_file(broken, weights, metadata={"format": "pt"})
        refused(folder, f"{name} holds {message}; train or fetch the model again")
    save_file({n: t for n, t in tensors.items() if n != name}, weights, metadata={"format": "pt"})
    refused(folder, f"weights are missing or of another shape: {name}")


def test_a_tokenizer_of_another_model(folder):
    Tokenizer.train([TEXT * 3 + "abcdefgh " * 9, "the corn of the farmers"], 320).save(folder)
    refused(
        folder,
        "the tokenizer makes tokens up to 3[01][0-9], the model knows 300; expected the tokenizer that",
    )


def test_a_context_that_nobody_names(folder):
    change_config(folder, max_position_embeddings=None)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["max_position_embeddings"]
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="names no context length; expected max_position_embeddings"):
        context_of(str(folder))


def test_logits_that_are_no_plain_product(tmp_path):
    other("scaled").save_pretrained(tmp_path)
    tokenizer().save(tmp_path)
    refused(
        tmp_path, r"the logits are not the last hidden state times the output weights \(a bias, a cap or a"
    )
    other("capped").save_pretrained(tmp_path)  # Gemma 2: its attention has a cap, too
    refused(tmp_path, "Gemma2ForCausalLM does not support")
    capped = tiny()
    capped.model.config.final_logit_softcapping = 30.0
    with pytest.raises(ModelError, match="a bias, a cap or a scale"):
        language_model._check_head(capped.model, "somewhere")
    biased = tiny()
    head = torch.nn.Linear(32, 300, bias=True)
    with torch.no_grad():
        head.weight.copy_(biased.model.lm_head.weight)
    biased.model.lm_head = head
    with pytest.raises(ModelError, match="a bias, a cap or a scale"):
        language_model._check_head(biased.model, "somewhere")


def test_the_digest_is_of_everything_that_changes_numbers(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    seen = {digest(str(folder))}
    assert digest(str(copy)) in seen
    for change in (
        lambda: change_config(copy, rms_norm_eps=0.5),
        lambda: (copy / "sample.json").write_text('{"seed": 0, "low": 0.0, "high": 0.5}'),
        lambda: (copy / "tokenizer_config.json").write_text('{"eos_token": "!"}'),
        lambda: (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " "),
        lambda: tiny(3).save(copy),
    ):
        change()
        assert digest(str(copy)) not in seen
        seen.add(digest(str(copy)))


def test_what_a_model_was_trained_on(folder):
    assert sample_of(str(folder)) is None
    (folder / "sample.json").write_text('{"seed": 3, "low": 0.0, "high": 0.25}')
    assert sample_of(str(folder)) == (3, 0.0, 0.25)


def test_losses_in_several_dtypes_are_loaded_apart(folder):
    half = LanguageModel.load(str(folder), "bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert np.isfinite(half.losses(tokens_of(20, 3), 16, 16).nll).all()


def test_a_device_is_leased_once_however_blocks_nest(monkeypatch):
    leases = []

    @contextmanager
    def counted():
        leases.append("taken")
        yield torch.device("cpu")

    monkeypatch.setattr(hugging_face, "lease_device", counted)
    model = tiny()
    with model.on_device(), model.on_device() as device:
        assert device == torch.device("cpu")
    assert len(leases) == 1
    with model.on_device():
        assert len(leases) == 2

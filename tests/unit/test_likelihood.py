"""Losses against a plain loop over the logits of transformers in float64."""

import numpy as np
import pytest
import torch
from tiny_models import TEXT, fitted, other, slow_nll, strings, tiny, tokenizer, tokens_of

from gristmill.models import likelihood
from gristmill.models.language_model import LanguageModel
from gristmill.models.likelihood import token_losses, window_losses
from gristmill.models.tokenizer import TokenizedTexts
from gristmill.models.windows import split_windows

CASES = {
    "empty": [0],
    "one token": [1],
    "exactly one window": [16],
    "a window and a token": [17],
    "100 windows": [1600],
    "all of them": [0, 1, 16, 17, 5, 0, 3, 40, 16, 0],
    "nothing": [],
}


@pytest.mark.parametrize("stride", [16, 5], ids=["apart", "overlapping"])
@pytest.mark.parametrize("case", CASES)
def test_llama(case, stride):
    model = tiny()
    texts = tokens_of(*CASES[case])
    found = model.losses(texts, 16, stride)
    end = model.tokenizer.end_of_text
    expected = slow_nll(model.model, texts, end, 16, stride)
    np.testing.assert_allclose(found.nll, expected, rtol=1e-5)
    assert found.nll.dtype == np.float64
    assert found.num_tokens.tolist() == CASES[case]
    assert found.nll[found.num_tokens == 0].tolist() == [0.0] * CASES[case].count(0)
    by_window = np.bincount(found.windows.documents, found.window_nll, len(found.nll))
    assert np.array_equal(by_window, found.nll)


@pytest.mark.parametrize("kind", ["gpt2", "untied"])
def test_other_families(tmp_path, kind):
    model = other(kind)
    model.save_pretrained(tmp_path)
    tokenizer().save(tmp_path)
    loaded = LanguageModel.load(str(tmp_path))
    texts = tokens_of(0, 1, 16, 50)
    found = loaded.losses(texts, 16, 8)
    expected = slow_nll(model, texts, loaded.tokenizer.end_of_text, 16, 8)
    np.testing.assert_allclose(found.nll, expected, rtol=1e-5)


def test_hidden_is_the_mean_over_the_tokens_of_a_text():
    model = tiny()
    texts = tokens_of(3, 0, 20)
    found = model.losses(texts, 16, 16)
    rows = []
    for start, end in ((0, 3), (3, 19), (19, 23)):
        part = texts.tokens[start:end].astype(np.int64)
        inputs = torch.tensor([[model.tokenizer.end_of_text, *part[:-1]]])
        with torch.inference_mode():
            rows.append(model.model.model(inputs).last_hidden_state[0].numpy())
    expected = [rows[0].mean(0), np.zeros(32), np.concatenate(rows[1:]).mean(0)]
    np.testing.assert_allclose(found.hidden, expected, rtol=1e-5, atol=1e-6)
    assert found.hidden.dtype == np.float32


def test_padding_batches_and_neighbours_change_nothing():
    model = tiny()
    texts = tokens_of(1, 40, 7, 16, 2, 33)
    together = model.losses(texts, 16, 8).nll
    for row, (start, end) in enumerate(zip(texts.offsets[:-1], texts.offsets[1:], strict=True)):
        alone = TokenizedTexts(texts.tokens[start:end], np.array([0, end - start]))
        np.testing.assert_allclose(model.losses(alone, 16, 8).nll, together[row], rtol=1e-5)
    windows = split_windows(texts.offsets, 16, 8)
    for budget in (1, 16, 50, 10_000):
        found = window_losses(model.model, texts.tokens, windows, model.tokenizer.end_of_text, budget)
        sums = np.bincount(windows.documents, found.nll)
        np.testing.assert_allclose(sums, together, rtol=1e-5)


def test_the_number_of_threads_changes_no_bit():
    """Torch counts its own threads for each product; here every thread computes alone."""
    model = tiny(width=64)
    texts = tokens_of(*range(1, 200, 7))
    before = torch.get_num_threads()
    try:
        found = []
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            found.append(model.losses(texts, 16, 16))
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0].nll, found[1].nll)
    assert np.array_equal(found[0].hidden, found[1].hidden)


def test_an_error_of_a_batch_is_raised():
    model = tiny()
    with pytest.raises(IndexError):
        model.losses(tokens_of(50, vocab_size=10_000), 16, 16)


@pytest.mark.parametrize("block", [(7, 64), (1, 1), (1000, 10_000)])
def test_blocks_of_rows_and_vocabulary(monkeypatch, block):
    monkeypatch.setitem(likelihood.LOGIT_BLOCK, "cpu", block)
    torch.manual_seed(0)
    states, targets = torch.randn(20, 8), torch.randint(0, 300, (20,))
    head = torch.nn.Linear(8, 300, bias=False)
    with torch.inference_mode():
        logits = states.double() @ head.weight.double().T
        expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        found = token_losses(states, head, targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sure_tokens_have_no_negative_loss():
    head = torch.nn.Linear(1, 5000, bias=False)
    with torch.inference_mode():
        head.weight.copy_(torch.linspace(-3, 0, 5000)[:, None])
        head.weight[17] = 60.0
        found = token_losses(torch.full((64, 1), 1.37), head, torch.full((64,), 17))
    assert (found >= 0).all()
    assert found.max() < 1e-5


def test_bfloat16_is_near_float32(tmp_path):
    """On two trained models of 20,000 parameters, whose scores spread as those of larger ones do."""
    paths = []
    for name, seed in (("prior", 0), ("conditional", 1)):
        fitted(tmp_path / "work", seed=seed).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    words = TEXT.split()
    rng = np.random.default_rng(0)
    texts = strings(*(" ".join(rng.permutation(words)[: rng.integers(3, 18)]) for _ in range(300)), TEXT)
    scores = []
    for dtype in ("float32", "bfloat16"):
        models = [LanguageModel.load(path, dtype) for path in paths]
        tokens = models[0].tokenizer.encode(texts)
        prior, conditional = (model.losses(tokens, 16, 16) for model in models)
        scores.append((prior.nll - conditional.nll) / prior.num_tokens)
    assert np.abs(scores[0] - scores[1]).mean() < 0.01
    ranks = [np.argsort(np.argsort(of_dtype)) for of_dtype in scores]
    assert np.corrcoef(*ranks)[0, 1] >= 0.999
    assert scores[0].std() > 0.05

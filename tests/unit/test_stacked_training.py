"""Models that are trained side by side learn what each would learn alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny

from gristmill.models.language_model import SIZES
from gristmill.models.stacked_training import (
    MAX_STACK,
    STACK_BYTES,
    clip_each,
    num_bytes,
    stack_size,
    train_stacked,
)
from gristmill.models.training import TrainingPlan, train

PLAN = TrainingPlan(batch_tokens=64, learning_rate=3e-3, num_steps=20)


def streams(*lengths):
    """Streams in which one token of ten is far more frequent than others, so that there is something to learn."""
    rng = np.random.default_rng(0)
    return [rng.zipf(1.5, length).clip(1, 299).astype(np.uint32) for length in lengths]


def compare(folder):
    """Losses and weights of three models alone and together; their streams end at different steps of an epoch."""
    of_models = streams(100, 700, 3000)
    alone, together = ([tiny(seed) for seed in range(3)] for _ in range(2))
    logs = [
        [row.loss for row in train(model, stream, PLAN, folder, lambda row, num_steps: None)]
        for model, stream in zip(alone, of_models, strict=True)
    ]
    return alone, logs, together, train_stacked(together, of_models, PLAN, ["a", "b", "c"])


def test_every_model_learns_what_it_would_alone(tmp_path):
    alone, logs, together, found = compare(tmp_path)
    np.testing.assert_allclose(found, logs, rtol=1e-5)
    assert all(log[-1] < log[0] - 0.5 for log in found)
    for one, other in zip(together, alone, strict=True):
        assert not one.model.training
        assert one.model.config._attn_implementation == "sdpa"
        for weight, expected in zip(one.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-2, atol=1e-4)


def test_products_in_bfloat16_move_losses_no_further_than_rounding_does(tmp_path, monkeypatch):
    """On a GPU, types are mixed."""
    _, exact, _, _ = compare(tmp_path)
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device, dtype, enabled: autocast(device, dtype))
    _, alone, _, together = compare(tmp_path)
    assert alone != exact
    np.testing.assert_allclose(together, alone, rtol=1e-3)


def test_gradients_are_clipped_model_by_model():
    rng = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, *shape, generator=rng) for shape in ((4, 5), (6,), (1, 2))]
    for gradient in gradients:
        gradient *= torch.tensor([0.01, 1.0, 100.0]).view(-1, *[1] * (gradient.dim() - 1))
    weights = [[torch.zeros_like(part[number]) for part in gradients] for number in range(3)]
    norms = []
    for number, of_model in enumerate(weights):
        for weight, gradient in zip(of_model, gradients, strict=True):
            weight.grad = gradient[number].clone()
        norms.append(torch.nn.utils.clip_grad_norm_(of_model, 1.0))
    torch.testing.assert_close(clip_each(gradients, 1.0), torch.stack(norms))
    for number, of_model in enumerate(weights):
        for weight, gradient in zip(of_model, gradients, strict=True):
            torch.testing.assert_close(gradient[number], weight.grad)


def test_a_model_that_diverges_is_named():
    models = [tiny(), tiny()]
    with torch.no_grad():
        models[1].model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"^proxy 7: step 1 has a loss of nan"):
        train_stacked(models, streams(100, 100), PLAN, ["proxy 3", "proxy 7"])


@pytest.mark.parametrize(("length", "num_steps"), [(16, 20), (17, None)])
def test_what_cannot_be_stacked_is_refused(length, num_steps):
    with pytest.raises(ValueError, match=f"streams of {length} tokens and more for {num_steps} steps"):
        train_stacked([tiny(), tiny()], streams(100, length), replace(PLAN, num_steps=num_steps), ["a", "b"])


def test_stacks_fit_the_memory_of_a_gpu(monkeypatch):
    small, large = SIZES["300k"], SIZES["30m"]
    assert stack_size(small, 4096, 2048) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert stack_size(small, 4096, 2048) == MAX_STACK
    assert stack_size(large, 4096, 2048) == STACK_BYTES // num_bytes(large, 4096, 2048) == 4
    assert stack_size(large, 50_000, 1 << 17) == 1

"""Training: what each step sees, what it does, and that a kill leaves no trace."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import other, tiny, tokenizer, trained

from gristmill.models import checkpoint, training
from gristmill.models.language_model import LanguageModel
from gristmill.models.schedule import Cosine
from gristmill.models.tokenizer import TokenizedTexts
from gristmill.models.training import (
    CHECKPOINT,
    TrainingPlan,
    cut_sequences,
    join_documents,
    learning_rate,
    losses,
    plan_steps,
    train,
)


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Killed(BaseException):
    """What a reporter raises in place of a kill."""


def killer(at):
    def report(row, num_steps):
        if row.step == at:
            raise Killed

    return report


def silent(row, num_steps):
    pass


def test_documents_stand_behind_an_end_of_text():
    texts = TokenizedTexts(np.array([1, 2, 3, 4], np.uint32), np.array([0, 2, 2, 3, 4, 4]))
    assert join_documents(texts, 9).tolist() == [9, 1, 2, 9, 3, 9, 4]
    nothing = TokenizedTexts(np.empty(0, np.uint32), np.array([0, 0]))
    assert join_documents(nothing, 9).tolist() == []


@given(st.integers(2, 100), st.integers(1, 12))
def test_sequences_cover_the_stream(length, context):
    stream = np.arange(length, dtype=np.uint32)
    sequences = cut_sequences(stream, context)
    targets = sequences[:, 1:].ravel().tolist()
    assert targets == list(range(1, len(targets) + 1))
    assert length - 1 - len(targets) < context
    assert sequences.shape[1] == min(context + 1, length)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3), st.integers(0, 5))
def test_steps_see_every_sequence_once_an_epoch(num_sequences, batch_size, epochs, seed):
    plan = TrainingPlan(epochs=epochs, seed=seed)
    steps = plan_steps(num_sequences, batch_size, plan)
    assert sorted(np.concatenate(steps).tolist()) == sorted(list(range(num_sequences)) * epochs)
    sizes = [len(step) for step in steps]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    again = plan_steps(num_sequences, batch_size, plan)
    assert all(np.array_equal(*pair) for pair in zip(steps, again, strict=True))


def test_the_order_follows_the_seed_and_the_epoch():
    first, second = plan_steps(50, 50, TrainingPlan(epochs=2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, plan_steps(50, 50, TrainingPlan(seed=1))[0])


def test_learning_rates():
    plan = TrainingPlan(learning_rate=1.0, schedule=Cosine(warmup_share=0.1))
    rates = [learning_rate(step, 100, plan) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1, abs=1e-3)
    assert all(later <= sooner for sooner, later in pairwise(rates[9:]))
    assert learning_rate(0, 1, plan) == 1.0


def test_losses_are_those_of_torch():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    loss, penalty = losses(logits, targets)
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    )
    assert penalty.item() == pytest.approx(logits.exp().sum(-1).log().square().mean().item(), rel=1e-5)


def test_the_loss_falls_on_text_that_repeats(tmp_path):
    model, stream, plan = trained()
    log = train(model, stream, plan, tmp_path, silent)
    assert log[0].loss == pytest.approx(math.log(300), abs=0.1)
    assert log[-1].loss < log[0].loss / 2
    assert [row.step for row in log] == list(range(1, len(log) + 1))
    assert log[-1].num_tokens == (len(stream) - 1) // 16 * 16
    assert not (tmp_path / CHECKPOINT).exists(), "a short training needs none"
    assert not model.model.training


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("at", [1, 2, 7, -1])
def test_a_kill_leaves_no_trace(tmp_path, monkeypatch, kind, at):
    """GPT-2 has dropout, which would depend on more than the step."""
    monkeypatch.setattr(training, "CHECKPOINT_S", -1.0)

    def fresh():
        model, stream, plan = trained(steps=10)
        if kind == "gpt2":
            model = LanguageModel(other("gpt2"), tokenizer())
        return model, stream, replace(plan, epochs=2)

    model, stream, plan = fresh()
    log = train(model, stream, plan, tmp_path / "whole", silent)
    expected = weights(model)

    kill_at = at if at > 0 else len(log)
    killed, stream, plan = fresh()
    for step in sorted({kill_at // 2 + 1, kill_at}):
        with pytest.raises(Killed):
            train(killed, stream, plan, tmp_path / "killed", killer(step))
        killed = fresh()[0]
    resumed = train(killed, stream, plan, tmp_path / "killed", silent)
    assert same(weights(killed), expected)
    assert [replace(row, seconds=0) for row in resumed] == [replace(row, seconds=0) for row in log]
    assert all(a.seconds <= b.seconds for a, b in pairwise(resumed))


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_S", -1.0)
    model, stream, plan = trained(steps=10)
    with pytest.raises(Killed):
        train(model, stream, plan, tmp_path, killer(3))
    before = (tmp_path / CHECKPOINT).read_bytes()

    def die(*arguments):
        (tmp_path / "checkpoint.tmp").write_bytes(before[:100])
        raise Killed

    monkeypatch.setattr(checkpoint.os, "replace", die)
    with pytest.raises(Killed):
        train(tiny(), stream, plan, tmp_path, silent)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_accumulated_gradients_are_those_of_one_batch(tmp_path, monkeypatch):
    model, stream, plan = trained(steps=4)
    plan = replace(plan, learning_rate=1e-3)
    log = train(model, stream, plan, tmp_path, silent)
    assert len(log) > 1
    for num_sequences in (1, 3):
        monkeypatch.setitem(training.MICRO_BATCH_LOGITS, "cpu", num_sequences * 17 * 300)
        other_model = tiny()
        found = train(other_model, stream, plan, tmp_path, silent)
        assert [row.loss for row in found] == pytest.approx([row.loss for row in log], rel=1e-5)
        for name, weight in weights(other_model).items():
            torch.testing.assert_close(weight, weights(model)[name], rtol=1e-3, atol=1e-4)


def test_a_training_that_diverges_says_so(tmp_path):
    model, stream, plan = trained()
    with torch.no_grad():
        model.model.model.embed_tokens.weight[3] = torch.nan
    with pytest.raises(ValueError, match=r"step 1 has a loss of nan .*; try a smaller learning rate"):
        train(model, stream, plan, tmp_path, silent)
    assert not (tmp_path / CHECKPOINT).exists()


def test_infinite_gradients_of_a_finite_loss_are_noticed(tmp_path, monkeypatch):
    model, stream, plan = trained()
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.inf))
    with pytest.raises(ValueError, match="gradients of norm inf"):
        train(model, stream, plan, tmp_path, silent)


def test_little_or_nothing_to_train_on(tmp_path):
    for stream in ([], [3]):
        with pytest.raises(ValueError, match="there is no text to train on"):
            train(tiny(), np.array(stream, np.uint32), TrainingPlan(), tmp_path, silent)
    (row,) = train(tiny(), np.array([3, 4, 5], np.uint32), TrainingPlan(), tmp_path, silent)
    assert row.num_tokens == 2


def test_a_model_that_was_trained_can_be_loaded(tmp_path):
    model, stream, plan = trained(steps=3)
    train(model, stream, plan, tmp_path, silent)
    model.save(tmp_path / "model")
    assert same(weights(LanguageModel.load(str(tmp_path / "model"))), weights(model))

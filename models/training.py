"""Train a causal language model on a stream of tokens, resumable to the bit.

Documents stand end to end, each after an end-of-text token, and the stream is cut into sequences of the model's context
regardless of document borders, as in CoLoR-Filter (arXiv 2406.10670, section 4). Which sequences make a step depends on
the seed and the step alone, so a checkpoint is weights, optimiser state and the number of the step.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.models.checkpoint import read_metadata, restore_checkpoint, save_checkpoint
from gristmill.models.language_model import LanguageModel
from gristmill.models.schedule import COSINE, Schedule
from gristmill.models.tokenizer import TokenizedTexts

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.safetensors"
FORK = "fork.safetensors"
"""A checkpoint from which trainings of other lengths go on."""
CHECKPOINT_S = 60.0
MICRO_BATCH_LOGITS = {"cpu": 1 << 25, "cuda": 1 << 29}
"""Logits of one forward and backward pass, 128 MB and 2 GB in float32; a larger batch accumulates gradients."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a model is trained; the defaults are those of the CoLoR-Filter paper where it names one.

    Args:
        batch_tokens: Tokens of a step, about.
        learning_rate: At its peak.
        schedule: Of the learning rate.
        epochs: Times that every sequence is seen.
        num_steps: Steps of equal size in place of whole epochs, None for whole epochs.
        seed: Of the order of sequences.
        betas: Of AdamW.
        epsilon: Of AdamW.
        weight_decay: Of AdamW.
        max_norm: Gradients are clipped to.
        z_loss: Weight of the squared logarithm of the normaliser.
    """

    batch_tokens: int = 8192
    learning_rate: float = 1e-3
    schedule: Schedule = COSINE
    epochs: int = 1
    num_steps: int | None = None
    seed: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-15
    weight_decay: float = 0.0
    max_norm: float = 1.0
    z_loss: float = 1e-4


@dataclass(frozen=True)
class LogRow:
    """One step of training.

    Args:
        step: From 1.
        num_tokens: Seen so far.
        loss: Mean cross-entropy of the step, in nats a token.
        learning_rate: Of the step.
        seconds: Since the training began, without the time it was interrupted.
    """

    step: int
    num_tokens: int
    loss: float
    learning_rate: float
    seconds: float


def join_documents(texts: TokenizedTexts, end_of_text: int) -> npt.NDArray[np.uint32]:
    """The tokens of n documents as one stream, an end-of-text token before each; empty ones are left out."""
    lengths = np.diff(texts.offsets)
    starts = texts.offsets[:-1][lengths > 0]
    return np.insert(texts.tokens, starts, np.uint32(end_of_text))


def cut_sequences(stream: npt.NDArray[np.uint32], context: int) -> npt.NDArray[np.uint32]:
    """Sequences of `context` + 1 tokens, each of which starts with the last token of the one before.

    Args:
        stream: Tokens, uint32[t]; what does not fill a sequence at its end is left out.
        context: Tokens that the model sees at once.

    Returns:
        A view of the stream, uint32[s, context + 1]; one shorter sequence where the stream fills none.
    """
    if len(stream) <= context:
        return stream[None]
    return np.lib.stride_tricks.sliding_window_view(stream, context + 1)[::context]


def order_sequences(num_sequences: int, num_epochs: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """A seeded permutation of sequences for each epoch."""
    return [np.random.default_rng([seed, epoch]).permutation(num_sequences) for epoch in range(num_epochs)]


def plan_steps(num_sequences: int, batch_size: int, plan: TrainingPlan) -> list[npt.NDArray[np.int64]]:
    """Which sequences each step takes: a seeded permutation for each epoch, cut into batches of equal size.

    Batches of whole epochs differ by one sequence at most, so that the last step of an epoch is no noisier than the
    others. With a number of steps, batches may cross epochs, and a shorter training takes the first steps of a longer.
    """
    num_epochs = plan.epochs if plan.num_steps is None else -(-plan.num_steps * batch_size // num_sequences)
    orders = order_sequences(num_sequences, num_epochs, plan.seed)
    if plan.num_steps is not None:
        return list(np.concatenate(orders)[: plan.num_steps * batch_size].reshape(plan.num_steps, batch_size))
    return [batch for order in orders for batch in np.array_split(order, -(-num_sequences // batch_size))]


def steps_over(sequences: npt.NDArray[np.uint32], plan: TrainingPlan) -> list[npt.NDArray[np.int64]]:
    """Which sequences each step takes, where a step is of the plan's `batch_tokens`.

    Args:
        sequences: As `cut_sequences` makes them, uint32[s, l + 1].
        plan: How they are trained on.
    """
    return plan_steps(len(sequences), max(plan.batch_tokens // (sequences.shape[1] - 1), 1), plan)


def learning_rate(step: int, num_steps: int, plan: TrainingPlan) -> float:
    """The rate of a step (from 0)."""
    return plan.learning_rate * plan.schedule.share(step, num_steps)


def train(
    language_model: LanguageModel,
    stream: npt.NDArray[np.uint32],
    plan: TrainingPlan,
    folder: Path,
    report: Callable[[LogRow, int], None],
    *,
    steps: Sequence[npt.NDArray[np.int64]] | None = None,
    fork_after: int | None = None,
) -> list[LogRow]:
    """Train a model in place; a training that was killed goes on from its last checkpoint.

    Args:
        language_model: What is trained; in evaluation mode afterwards.
        stream: Tokens, as `join_documents` makes them.
        plan: How.
        folder: Where the checkpoint lies while the training runs.
        report: Called after each step with its row and the number of all steps; before the step is in a checkpoint.
        steps: Which sequences of the stream each step takes, None for those of `plan_steps`.
        fork_after: Steps after which a checkpoint is also left as `FORK`, None for no such checkpoint.

    Returns:
        One row a step.

    Raises:
        ValueError: If there is nothing to train on, or the loss is no longer finite.
    """
    if len(stream) < 2:
        raise ValueError("there is no text to train on")
    sequences = cut_sequences(stream, language_model.context)
    if steps is None:
        steps = steps_over(sequences, plan)
    checkpoint = folder / CHECKPOINT
    with language_model.on_device():
        state = _State(language_model.model, plan)
        if checkpoint.is_file():
            state.restore(checkpoint)
        saved = time.monotonic()
        before = state.log[-1].seconds if state.log else 0.0
        started = saved
        for step in range(len(state.log), len(steps)):
            rate = learning_rate(step, len(steps), plan)
            loss, norm = state.step(sequences, steps[step], rate)
            check_finite(f"step {step + 1}", loss, norm)
            seen = state.log[-1].num_tokens if state.log else 0
            now = time.monotonic()
            tokens = len(steps[step]) * (sequences.shape[1] - 1)
            state.log.append(LogRow(step + 1, seen + tokens, loss, rate, before + now - started))
            report(state.log[-1], len(steps))
            if step + 1 == fork_after:
                state.save(folder / FORK)
            if now - saved > CHECKPOINT_S:
                state.save(checkpoint)
                saved = now
    return state.log


class _State:
    """Weights, moments and log of a training."""

    def __init__(self, model: Any, plan: TrainingPlan) -> None:
        self.model = model.eval()  # no dropout: passes are few, and a step depends on its sequences alone
        self.plan = plan
        self.log: list[LogRow] = []
        self.optimizer = make_optimizer(model.parameters(), plan)

    def step(
        self, sequences: npt.NDArray[np.uint32], chosen: npt.NDArray[np.int64], rate: float
    ) -> tuple[float, float]:
        """One step of the optimiser; the mean loss of its sequences, and the norm of the gradients."""
        import torch

        device = self.model.device
        num_logits = sequences.shape[1] * self.model.config.get_text_config().vocab_size
        size = max(MICRO_BATCH_LOGITS[device.type] // num_logits, 1)
        total = 0.0
        for batch in _pieces(chosen, size):
            tokens = torch.from_numpy(sequences[batch].astype(np.int64)).to(device)
            loss, penalty = sequence_losses(self.model, tokens)
            share = len(batch) / len(chosen)
            ((loss + self.plan.z_loss * penalty) * share).backward()
            total += loss.item() * share
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.max_norm)
        take_step(self.optimizer, rate)
        return total, float(norm)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        log = json.dumps([asdict(row) for row in self.log])
        save_checkpoint(path, self.model, self.optimizer, {"log": log})

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint."""
        self.log = [LogRow(**row) for row in json.loads(read_metadata(path)["log"])]
        restore_checkpoint(path, self.model, self.optimizer, len(self.log))


def make_optimizer(weights: "Iterable[torch.Tensor]", plan: TrainingPlan) -> "torch.optim.AdamW":
    """AdamW as a plan wants it; every number of a weight is updated by itself."""
    import torch

    return torch.optim.AdamW(
        weights, lr=plan.learning_rate, betas=plan.betas, eps=plan.epsilon, weight_decay=plan.weight_decay
    )


def take_step(optimizer: "torch.optim.Optimizer", rate: float) -> None:
    """Update the weights at a learning rate, and forget their gradients."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def check_finite(step: str, loss: float, norm: float) -> None:
    """Refuse to go on after a step that has diverged.

    Args:
        step: What errors call it.
        loss: Of the step.
        norm: Of its gradients.

    Raises:
        ValueError: If either is not finite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ValueError(
            f"{step} has a loss of {loss} and gradients of norm {norm}; try a smaller learning rate"
        )


def sequence_losses(
    model: "Callable[..., Any]", tokens: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The `losses` of every token of sequences but the first, in bfloat16 on a GPU.

    Args:
        model: A model of transformers, or what is called like one.
        tokens: int64[b, l + 1].
    """
    import torch

    kind = tokens.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return losses(logits, tokens[:, 1:])


def losses(logits: "torch.Tensor", targets: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean cross-entropy, and mean squared logarithm of the normaliser, over all tokens.

    Args:
        logits: [b, l, vocabulary].
        targets: int64[b, l].
    """
    logits = logits.float()
    normaliser = logits.logsumexp(-1)
    wanted = logits.gather(-1, targets[..., None])[..., 0]
    return (normaliser - wanted).mean(), normaliser.square().mean()


def _pieces(chosen: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(chosen), size):
        yield chosen[start : start + size]

"""Train models of one architecture side by side, each on its own stream: their weights stacked, one kernel for all.

A step of a small model is hundreds of kernels that each keep a GPU busy for a moment only: more models fill it. A CPU
is busy with one: there two models of the size `300k` take 1.2 times as long side by side as one after the other, eight
models 1.7 times (`tests/bench/bench_stacked_training.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.models.hugging_face import on_device
from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.training import (
    TrainingPlan,
    check_finite,
    cut_sequences,
    learning_rate,
    make_optimizer,
    sequence_losses,
    steps_over,
    take_step,
)

if TYPE_CHECKING:
    import torch

MAX_STACK = 16
"""More models would leave too few stacks for several GPUs to share, and a kill would lose more of them."""
STACK_BYTES = 8 << 30
"""What a stack may take of a GPU's memory: half of the 16 GB that small ones have."""
WEIGHT_BYTES, LOGIT_BYTES, STATE_BYTES, SCORE_BYTES = 16, 14, 64, 6
"""A weight with gradient and moments; a logit with its gradients; what a layer keeps for the backward pass, by number
of a token's hidden state and by attention score."""


def stack_size(architecture: Architecture, vocab_size: int, batch_tokens: int) -> int:
    """How many models to train side by side on the device of this process: one on the CPU.

    Args:
        architecture: Of the models.
        vocab_size: Tokens that they know.
        batch_tokens: Tokens of a step of each.
    """
    import torch

    if not torch.cuda.is_available():
        return 1
    return min(max(STACK_BYTES // num_bytes(architecture, vocab_size, batch_tokens), 1), MAX_STACK)


def num_bytes(architecture: Architecture, vocab_size: int, batch_tokens: int) -> int:
    """Bytes of memory that a model takes while it is trained, about."""
    num_weights = architecture.num_parameters + vocab_size * architecture.width
    per_layer = STATE_BYTES * architecture.width + SCORE_BYTES * architecture.heads * architecture.context
    per_token = LOGIT_BYTES * vocab_size + architecture.layers * per_layer
    return WEIGHT_BYTES * num_weights + per_token * batch_tokens


def train_stacked(
    language_models: Sequence[LanguageModel],
    streams: Sequence[npt.NDArray[np.uint32]],
    plan: TrainingPlan,
    names: Sequence[str],
) -> list[list[float]]:
    """Train k models in place, each as `train` would alone, but for rounding.

    A step of all models is one pass, so memory grows with k. On a GPU, losses differ from those of `train` by as much
    as products in bfloat16 move them.

    Args:
        language_models: Of one architecture; in evaluation mode afterwards.
        streams: One a model, each of more tokens than the models see at once.
        plan: How, with a number of steps.
        names: What errors call the models.

    Returns:
        The losses of the steps of each model, in nats a token.

    Raises:
        ValueError: If a stream or the plan does not fit, or a loss is no longer finite.
    """
    context = language_models[0].context
    if plan.num_steps is None or min(map(len, streams)) <= context:
        raise ValueError(
            f"found streams of {min(map(len, streams))} tokens and more for {plan.num_steps} steps; models that are "
            f"trained side by side take a number of steps, from more than {context} tokens each"
        )
    model = deepcopy(language_models[0].model.eval())
    # The fused attention refuses mixed types, which vmap hides from autocast.
    model.set_attn_implementation("eager")
    with on_device(model):
        return _train(model, language_models, _steps(streams, context, plan), plan, names)


def _train(
    model: Any,
    language_models: Sequence[LanguageModel],
    steps: Iterable[tuple[npt.NDArray[np.int64], float]],
    plan: TrainingPlan,
    names: Sequence[str],
) -> list[list[float]]:
    """Nothing of the stack outlives this function, so that the device is free when its lease ends."""
    stack = _Stack(model, language_models, plan)
    log = []
    for step, (batch, rate) in enumerate(steps, start=1):
        losses, norms = stack.step(batch, rate)
        for name, loss, norm in zip(names, losses, norms, strict=True):
            check_finite(f"{name}: step {step}", loss, norm)
        log.append(losses)
    stack.unstack(language_models)
    return [list(of_model) for of_model in zip(*log, strict=True)]


def _steps(
    streams: Sequence[npt.NDArray[np.uint32]], context: int, plan: TrainingPlan
) -> Iterator[tuple[npt.NDArray[np.int64], float]]:
    """The sequences that each step takes of every stream, int64[k, b, context + 1], and its learning rate."""
    sequences = [cut_sequences(stream, context) for stream in streams]
    steps = list(zip(*(steps_over(of_model, plan) for of_model in sequences), strict=True))
    for step, chosen in enumerate(steps):
        batch = np.stack([of_model[rows] for of_model, rows in zip(sequences, chosen, strict=True)])
        yield batch.astype(np.int64), learning_rate(step, len(steps), plan)


class _Stack:
    """The weights of k models and their moments, each tensor with one more dimension, of size k, in front."""

    def __init__(self, model: Any, language_models: Sequence[LanguageModel], plan: TrainingPlan) -> None:
        import torch

        self.model, self.plan = model, plan
        of_models = [dict(one.model.named_parameters()) for one in language_models]
        self.weights = {
            name: torch.stack(
                [weights[name].detach().to(model.device) for weights in of_models]
            ).requires_grad_()
            for name in of_models[0]
        }
        self.optimizer = make_optimizer(self.weights.values(), plan)

    def step(self, batch: npt.NDArray[np.int64], rate: float) -> tuple[list[float], list[float]]:
        """One step of every model; the mean loss of its sequences, and the norm of its gradients.

        Args:
            batch: Sequences, int64[k, b, l + 1].
            rate: The learning rate.
        """
        import torch

        tokens = torch.from_numpy(batch).to(self.model.device)
        losses, penalties = torch.vmap(self._losses)(self.weights, tokens)
        (losses + self.plan.z_loss * penalties).sum().backward()
        norms = clip_each([weight.grad for weight in self.weights.values()], self.plan.max_norm)
        take_step(self.optimizer, rate)
        return losses.tolist(), norms.tolist()

    def _losses(
        self, weights: "dict[str, torch.Tensor]", tokens: "torch.Tensor"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        from torch.func import functional_call

        def one(**inputs: Any) -> Any:
            return functional_call(self.model, weights, (), inputs)

        return sequence_losses(one, tokens)

    def unstack(self, language_models: Sequence[LanguageModel]) -> None:
        """Give every model its weights."""
        import torch

        with torch.no_grad():
            for number, one in enumerate(language_models):
                for name, weight in one.model.eval().named_parameters():
                    weight.copy_(self.weights[name][number])


def clip_each(gradients: "Sequence[torch.Tensor]", max_norm: float) -> "torch.Tensor":
    """Clip the gradients of every model of a stack as torch's `clip_grad_norm_` would those of one.

    Args:
        gradients: Tensors whose first dimension are the k models; changed in place.
        max_norm: Longer gradients are brought to this norm.

    Returns:
        The norms before, [k].
    """
    import torch

    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    shares = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shares.view(-1, *[1] * (gradient.dim() - 1)))
    return norms

"""Losses of texts under a language model, in one forward pass over batches of a token budget.

Windows of similar length are padded on the right. Attention looks to the left only, so padding changes no loss, and
a batch needs no mask: the fastest attention kernels apply. The logits are made in blocks of the vocabulary, each
reduced at once, so memory does not grow with the vocabulary.

On the CPU every thread takes whole batches and computes alone. Threads that share each matrix product wait for one
another at every layer, which costs small models most of the time on a busy machine, and their number would change the
last digits of the losses.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.models.devices import batch_threads
from gristmill.models.windows import Windows, plan_batches

if TYPE_CHECKING:
    import torch

TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536}
"""Tokens of a batch, padding included."""
LOGIT_BLOCK = {"cpu": (512, 4096), "cuda": (8192, 16384)}
"""Tokens and vocabulary entries of one block of float32 logits. On the CPU 8 MB stay in its cache: 1.3 s for 4,096
tokens, width 128 and a vocabulary of 50,000, where whole rows take 2.3 s and the matrix product alone 1.1 s."""


@dataclass(frozen=True)
class WindowLosses:
    """What one forward pass tells about w windows.

    Args:
        nll: Sum of -ln p over the scored tokens of each window, float64[w], in nats.
        hidden: Sum of the last hidden state over the same tokens, float32[w, width].
    """

    nll: npt.NDArray[np.float64]
    hidden: npt.NDArray[np.float32]


def window_losses(
    model: Any, tokens: npt.NDArray[np.uint32], windows: Windows, end_of_text: int, token_budget: int
) -> WindowLosses:
    """Score every window.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        tokens: Tokens of all documents, end to end, uint32[t].
        windows: w windows over them.
        end_of_text: The token that each window starts from, so that its first token has a loss.
        token_budget: Tokens of a batch, padding included.
    """
    import torch

    nll = np.zeros(len(windows))
    hidden = np.zeros((len(windows), model.config.get_text_config().hidden_size), np.float32)

    def score(batch: npt.NDArray[np.int64]) -> None:
        inputs, targets, rows = pad_batch(tokens, windows, batch, end_of_text)
        with torch.inference_mode():
            states, losses = _forward(model, inputs, targets)
            of_row = torch.from_numpy(rows).to(states.device)
            sums = torch.zeros(len(batch), states.shape[1], device=states.device)
            hidden[batch] = sums.index_add_(0, of_row, states.float()).cpu().numpy()
        nll[batch] = np.bincount(rows, losses.cpu().numpy(), len(batch))

    with batch_threads(model.device) as threads:
        for _ in threads.map(score, plan_batches(windows.lengths, token_budget)):
            pass  # an error of a batch is raised here
    return WindowLosses(nll, hidden)


def pad_batch(
    tokens: npt.NDArray[np.uint32], windows: Windows, batch: npt.NDArray[np.int64], end_of_text: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One batch of windows as a model takes it.

    Args:
        tokens: Tokens of all documents, uint32[t].
        windows: w windows over them.
        batch: Which windows, int64[b].
        end_of_text: The token before each window.

    Returns:
        Inputs, each window shifted right behind the end of text, int64[b, l]; the scored tokens, -1 at every other
        place, int64[b, l]; the window in the batch of each scored token, int64[s].
    """
    starts, lengths = windows.starts[batch, None], windows.lengths[batch, None]
    column = np.arange(lengths.max())
    targets = tokens[np.minimum(starts + column, len(tokens) - 1)].astype(np.int64)
    inputs = np.concatenate([np.full((len(batch), 1), end_of_text), targets[:, :-1]], axis=1)
    is_scored = (column < lengths) & (column >= windows.scored[batch, None] - starts)
    targets[~is_scored] = -1
    return inputs, targets, np.nonzero(is_scored)[0]


def _forward(
    model: Any, inputs: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Last hidden state and loss at every scored token, row by row."""
    import torch

    device = model.device
    states = model.base_model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False)
    flat = torch.from_numpy(targets).to(device).flatten()
    scored = torch.nonzero(flat >= 0)[:, 0]
    kept = states.last_hidden_state.flatten(0, 1)[scored]
    return kept, token_losses(kept, model.get_output_embeddings(), flat[scored])


def token_losses(states: "torch.Tensor", head: Any, targets: "torch.Tensor") -> "torch.Tensor":
    """Cross-entropy at each token, without the logits of more than one block in memory.

    Args:
        states: Last hidden states, [s, width].
        head: The linear layer from states to logits.
        targets: The tokens that follow, int64[s].

    Returns:
        -ln p of each target, float32[s].
    """
    import torch

    num_rows, num_columns = LOGIT_BLOCK[states.device.type]
    weights = head.weight.split(num_columns)
    losses = torch.empty(len(states), device=states.device)
    for start in range(0, len(states), num_rows):
        part = states[start : start + num_rows]
        top = torch.full((len(part),), -torch.inf, device=part.device)
        total = torch.zeros_like(top)
        for weight in weights:
            logits = _product(part, weight)
            higher = torch.maximum(top, logits.amax(1))
            total = total * (top - higher).exp_() + logits.sub_(higher[:, None]).exp_().sum(1)
            top = higher
        wanted = head.weight[targets[start : start + num_rows]]
        losses[start : start + num_rows] = top + total.log_() - (part.float() * wanted.float()).sum(1)
    return losses.clamp_(min=0)  # a sure token may come out below by rounding


def _product(states: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    """States @ weight.T in float32: rounding logits to bfloat16 would cost up to 0.03 nats a token."""
    import torch

    if states.is_cuda and states.dtype != torch.float32:
        return torch.mm(states, weight.T, out_dtype=torch.float32)
    return states.float() @ weight.float().T

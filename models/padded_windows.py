"""Windows of documents as rows of tokens between special ones, for models that see a whole window at once.

Windows of similar length are read together in batches of a token budget, padded on the right. What a model gives its
windows is averaged over each document, weighted by their tokens.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.models.devices import batch_threads
from gristmill.models.hugging_face import CONFIG, ModelError, on_device, text_config
from gristmill.models.likelihood import TOKEN_BUDGET
from gristmill.models.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG
from gristmill.models.windows import Windows, plan_batches

if TYPE_CHECKING:
    import torch

COUNT_FROM_PADDING = (
    "camembert",
    "data2vec-text",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Model types whose first position has the number after that of the padding token."""


@dataclass(frozen=True)
class Template:
    """How a window becomes a row of tokens.

    Args:
        before: Special tokens before the window.
        after: Special tokens after it.
        padding: What fills a row after that.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    padding: int

    @property
    def num_special(self) -> int:
        """Special tokens of a window."""
        return len(self.before) + len(self.after)


def window_outputs(
    model: Any,
    forward: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
    tokens: npt.NDArray[np.uint32],
    windows: Windows,
    template: Template,
    num_outputs: int,
) -> npt.NDArray[np.float32]:
    """What a model gives every window, on the device that this process may use.

    Args:
        model: A model class of transformers.
        forward: Asks it: tokens, int64[b, l], and 1 where they are no padding, int64[b, l] -> [b, k].
        tokens: Tokens of all documents, end to end, uint32[t].
        windows: w windows over them.
        template: How a window becomes a row of tokens.
        num_outputs: k.

    Returns:
        float32[w, k].
    """
    import torch

    def read(batch: npt.NDArray[np.int64]) -> torch.Tensor:
        inputs, mask = (torch.from_numpy(array) for array in pad_windows(tokens, windows, batch, template))
        if device.type != "cpu":  # copied while the batch before is computed
            inputs, mask = (array.pin_memory().to(device, non_blocking=True) for array in (inputs, mask))
        with torch.inference_mode():
            return forward(inputs, mask).float()

    outputs = np.empty((len(windows), num_outputs), np.float32)
    with on_device(model) as device, batch_threads(device) as threads:
        batches = list(plan_batches(windows.lengths + template.num_special, TOKEN_BUDGET[device.type]))
        # A GPU is not waited for before all batches are on their way.
        for batch, found in zip(batches, list(threads.map(read, batches)), strict=True):
            outputs[batch] = found.cpu().numpy()
    return outputs


def pad_windows(
    tokens: npt.NDArray[np.uint32], windows: Windows, batch: npt.NDArray[np.int64], template: Template
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One batch of windows as a model takes it.

    Args:
        tokens: Tokens of all documents, uint32[t].
        windows: w windows over them.
        batch: Which windows, int64[b].
        template: How a window becomes a row of tokens.

    Returns:
        Tokens, int64[b, l], and 1 where they are no padding, int64[b, l].
    """
    starts, lengths = windows.starts[batch, None], windows.lengths[batch, None]
    column = np.arange(lengths.max())
    is_token = column < lengths
    before, after = len(template.before), len(template.after)
    inputs = np.full((len(batch), len(column) + template.num_special), template.padding, np.int64)
    inputs[:, :before] = template.before
    inputs[:, before : before + len(column)][is_token] = tokens[(starts + column)[is_token]]
    inputs[np.arange(len(batch))[:, None], before + lengths + np.arange(after)] = template.after
    mask = np.arange(inputs.shape[1]) < lengths + template.num_special
    return inputs, mask.astype(np.int64)


def mean_of_windows(
    outputs: npt.NDArray[np.float32], windows: Windows
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Mean over the windows of each document, weighted by their tokens.

    Args:
        outputs: Of w windows, float32[w, k].
        windows: The windows.

    Returns:
        The d documents that have windows, int64[d], and their means, float64[d, k].
    """
    if not len(windows):
        return np.empty(0, np.int64), np.empty((0, outputs.shape[1]))
    documents, first = np.unique(windows.documents, return_index=True)
    weights = windows.lengths[:, None].astype(np.float64)
    return documents, np.add.reduceat(outputs * weights, first) / np.add.reduceat(weights, first)


def padding_of(path: str, config: dict[str, Any]) -> int:
    """The token that fills rows.

    Args:
        path: The model's directory, for errors.
        config: The content of its config.json.

    Raises:
        ModelError: If the configuration names none.
    """
    sizes = text_config(config)
    for name in ("pad_token_id", "eos_token_id"):
        found = sizes.get(name, config.get(name))
        if isinstance(found, int) and 0 <= found < sizes["vocab_size"]:
            return found
    raise ModelError(f"{path}: {CONFIG} names no token for padding; expected pad_token_id")


def window_of(
    path: str, config: dict[str, Any], template: Template, window: int | None, longest: int | None = None
) -> int:
    """Tokens of a document that are read together.

    Args:
        path: The model's directory.
        config: The content of its config.json.
        template: How a window becomes a row of tokens.
        window: Tokens read together, special ones included; None for all that the model reads at once.
        longest: What it reads at once at most, where more than its and its tokenizer's configuration say so.

    Raises:
        ModelError: If a window is too short for a token or longer than the model reads, or nothing says how long.
    """
    context = _context(path, config, longest)
    window = context if window is None else window
    if not template.num_special < window <= context:
        raise ModelError(
            f"{path}: found windows of {window} tokens; expected {template.num_special + 1} to {context}, "
            "all that the model reads at once"
        )
    return window - template.num_special


def _context(path: str, config: dict[str, Any], longest: int | None) -> int:
    sizes = text_config(config)
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    found = [sizes[name] for name in names if isinstance(sizes.get(name), int)]
    if found and sizes.get("model_type") in COUNT_FROM_PADDING:
        found = [found[0] - padding_of(path, config) - 1]
    file = Path(path) / TOKENIZER_CONFIG
    if file.is_file() and (length := json.loads(file.read_text()).get("model_max_length")):
        found.append(int(length))
    found += [] if longest is None else [longest]
    if not found:
        raise ModelError(f"{path}: {CONFIG} names no context length; expected max_position_embeddings")
    return min(found)

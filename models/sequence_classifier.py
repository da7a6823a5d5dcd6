"""Any Hugging Face model of sequence classification or regression as a rater of documents.

Documents are cut into windows that the model reads at once, windows of similar length are read together in batches of
a token budget, and the mean of the windows' logits, weighted by their tokens, is the document's. Logits, because a
regression's are its values and QuRating (arXiv 2402.09739) averages its own so; for classes it lets a window that is
sure count for more than one that is not, where a mean of probabilities would count undecided windows in full.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.devices import batch_threads
from gristmill.models.hugging_face import CONFIG, check_files, digest_of, load_model, on_device, text_config
from gristmill.models.likelihood import TOKEN_BUDGET
from gristmill.models.logits import Meaning, meaning_of
from gristmill.models.rater import Outputs, RaterError, Ratings, Reading
from gristmill.models.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.windows import Windows, plan_batches, split_windows

KIND = "sequence classification"
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


@dataclass(frozen=True)
class Plan:
    """How a model reads documents, from its small files alone.

    Args:
        meaning: Of its logits.
        template: How a window becomes a row of tokens.
        window: Tokens of a document read together.
    """

    meaning: Meaning
    template: Template
    window: int


class SequenceClassifier:
    """A model of sequence classification with its tokenizer.

    Args:
        path: Its directory, for errors.
        model: A model class of transformers.
        tokenizer: The tokenizer it was trained with.
        plan: How it reads documents.
        truncate: Whether it reads only the first window of each.
    """

    def __init__(self, path: str, model: Any, tokenizer: Tokenizer, plan: Plan, truncate: bool) -> None:
        self._path = path
        self._model = model
        self._tokenizer = tokenizer
        self._plan = plan
        self._truncate = truncate

    @classmethod
    def load(cls, path: str, reading: Reading) -> Self:
        """Load a Hugging Face directory, weights from safetensors only.

        Raises:
            ModelError: If the directory is incomplete, its weights are pickled, missing or not finite, or the
                tokenizer does not match.
            RaterError: If it is no sequence classification, or not clear what its outputs mean.
        """
        from transformers import AutoModelForSequenceClassification

        tokenizer, plan = plan_reading(path, reading)
        model = load_model(AutoModelForSequenceClassification, path, reading.dtype)
        # Models that decide at the last token look for it before the padding.
        model.config.get_text_config().pad_token_id = plan.template.padding
        return cls(path, model, tokenizer, plan, reading.long_texts == "truncate")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its values."""
        return self._plan.meaning.outputs.names

    @property
    def classes(self) -> tuple[float, ...] | None:
        """What each class is worth, None where values are no expectation over classes."""
        return self._plan.meaning.outputs.classes

    def rate(self, texts: pa.LargeStringArray) -> Ratings:
        """Rate n documents.

        The same text has the same logits in any batch up to 1e-5 in float32. Text without tokens gets 0 everywhere.

        Raises:
            RaterError: If the model gives NaN or infinite logits.
        """
        tokenized = self._tokenizer.encode(texts)
        windows = split_windows(tokenized.offsets, self._plan.window, self._plan.window)
        if self._truncate:
            windows = windows.where(np.diff(windows.documents, prepend=-1) > 0)
        with on_device(self._model) as device:
            logits = window_logits(
                self._model,
                tokenized.tokens,
                windows,
                self._plan.template,
                self._plan.meaning.num_logits,
                TOKEN_BUDGET[device.type],
            )
        if not np.isfinite(logits).all():
            raise RaterError(
                f"{self._path}: the model gives NaN or infinite logits; try `dtype: float32`, or another model"
            )
        documents, means = mean_logits(logits, windows)
        return _spread(self._plan.meaning.ratings(means), documents, len(texts))


def window_logits(
    model: Any,
    tokens: npt.NDArray[np.uint32],
    windows: Windows,
    template: Template,
    num_logits: int,
    token_budget: int,
) -> npt.NDArray[np.float32]:
    """Logits of every window.

    Args:
        model: A sequence classification of transformers, in evaluation mode.
        tokens: Tokens of all documents, end to end, uint32[t].
        windows: w windows over them.
        template: How a window becomes a row of tokens.
        num_logits: k.
        token_budget: Tokens of a batch, padding included.

    Returns:
        float32[w, k].
    """
    import torch

    def read(batch: npt.NDArray[np.int64]) -> torch.Tensor:
        inputs, mask = (torch.from_numpy(array) for array in pad_windows(tokens, windows, batch, template))
        if model.device.type != "cpu":  # copied while the batch before is computed
            inputs, mask = (
                array.pin_memory().to(model.device, non_blocking=True) for array in (inputs, mask)
            )
        with torch.inference_mode():
            found: torch.Tensor = model(input_ids=inputs, attention_mask=mask).logits
            return found.float()

    logits = np.empty((len(windows), num_logits), np.float32)
    batches = list(plan_batches(windows.lengths + template.num_special, token_budget))
    with batch_threads(model.device) as threads:
        # A GPU is not waited for before all batches are on their way.
        for batch, found in zip(batches, list(threads.map(read, batches)), strict=True):
            logits[batch] = found.cpu().numpy()
    return logits


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


def mean_logits(
    logits: npt.NDArray[np.float32], windows: Windows
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Mean over the windows of each document, weighted by their tokens.

    Args:
        logits: Of w windows, float32[w, k].
        windows: The windows.

    Returns:
        The d documents that have windows, int64[d], and their logits, float64[d, k].
    """
    if not len(windows):
        return np.empty(0, np.int64), np.empty((0, logits.shape[1]))
    documents, first = np.unique(windows.documents, return_index=True)
    weights = windows.lengths[:, None].astype(np.float64)
    return documents, np.add.reduceat(logits * weights, first) / np.add.reduceat(weights, first)


def describe(path: str, reading: Reading) -> Outputs:
    """What a model gives each document, from its small files alone.

    Raises:
        ModelError: If the directory cannot hold a usable model.
        RaterError: If it is no sequence classification, or not clear what its outputs mean.
    """
    return plan_reading(path, reading)[1].meaning.outputs


def digest(path: str) -> str:
    """BLAKE2b of all that its numbers depend on, 32 hexadecimal digits, of a directory that was described."""
    return digest_of(path, (CONFIG, TOKENIZER_CONFIG))


def plan_reading(path: str, reading: Reading) -> tuple[Tokenizer, Plan]:
    """A model's tokenizer and how it reads documents, from its small files alone.

    Raises:
        ModelError: If the directory cannot hold a usable model.
        RaterError: If it is no sequence classification, or not clear what its outputs mean.
    """
    config, tokenizer = check_files(path, KIND)
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise RaterError(
            f"{path}: found {', '.join(architectures) or 'no architecture'} in {CONFIG}; "
            "expected one for sequence classification"
        )
    try:
        meaning = meaning_of(config, reading)
    except RaterError as error:
        raise RaterError(f"{path}: {error}") from error
    before, after = tokenizer.special_tokens if reading.special_tokens else ((), ())
    template = Template(before, after, _padding(path, config))
    context = _context(path, config)
    window = context if reading.window is None else reading.window
    if not template.num_special < window <= context:
        raise RaterError(
            f"{path}: found windows of {window} tokens; expected {template.num_special + 1} to {context}, "
            "all that the model reads at once"
        )
    return tokenizer, Plan(meaning, template, window - template.num_special)


def _padding(path: str, config: dict[str, Any]) -> int:
    """The token that fills rows."""
    sizes = text_config(config)
    for name in ("pad_token_id", "eos_token_id"):
        found = sizes.get(name, config.get(name))
        if isinstance(found, int) and 0 <= found < sizes["vocab_size"]:
            return found
    raise RaterError(f"{path}: {CONFIG} names no token for padding; expected pad_token_id")


def _context(path: str, config: dict[str, Any]) -> int:
    """Tokens that the model reads at once, as its own and its tokenizer's configuration say."""
    sizes = text_config(config)
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    found = [sizes[name] for name in names if isinstance(sizes.get(name), int)]
    if found and sizes.get("model_type") in COUNT_FROM_PADDING:
        found = [found[0] - _padding(path, config) - 1]
    file = Path(path) / TOKENIZER_CONFIG
    if file.is_file() and (longest := json.loads(file.read_text()).get("model_max_length")):
        found.append(int(longest))
    if not found:
        raise RaterError(f"{path}: {CONFIG} names no context length; expected max_position_embeddings")
    return min(found)


def _spread(ratings: Ratings, documents: npt.NDArray[np.int64], num_texts: int) -> Ratings:
    """Ratings of all n texts from those of some, 0 for the others."""

    def place(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        found = np.zeros((num_texts, rows.shape[1]), np.float32)
        found[documents] = rows
        return found

    probabilities = None if ratings.probabilities is None else place(ratings.probabilities)
    return Ratings(place(ratings.values), probabilities)

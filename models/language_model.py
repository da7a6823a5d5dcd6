"""Causal language models: make one from a few numbers, load any Hugging Face directory, save, score texts.

The model classes are those of transformers. On 2 cores a Llama of a million parameters spends its time in matrix
products, and a class of our own would do the same ones.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.models.hugging_face import (
    CONFIG,
    ModelError,
    check_files,
    digest_of,
    load_model,
    on_device,
    text_config,
)
from gristmill.models.likelihood import TOKEN_BUDGET, window_losses
from gristmill.models.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG
from gristmill.models.tokenizer import TokenizedTexts, Tokenizer, tokenizer_file
from gristmill.models.windows import Windows, split_windows

if TYPE_CHECKING:
    import torch

SAMPLE = "sample.json"
"""Beside a model trained in a workspace: seed and range of the random keys of the documents it was trained on."""
PROBE_TOKENS = 8
HEAD_TOLERANCE = 1e-3
"""Nats by which a model's own logits may differ from its last hidden state times its output weights."""


@dataclass(frozen=True)
class Architecture:
    """A Llama-style decoder: rotary positions, RMS norms, SwiGLU of 8/3 the width, tied embeddings.

    The CoLoR-Filter paper's auxiliary models (arXiv 2406.10670, appendix) have the same width, depth and heads at
    `150m`; theirs are OLMo models with GELU, QK-norm and untied embeddings.

    Args:
        layers: Blocks.
        width: Numbers in a hidden state; a multiple of `heads`.
        heads: Attention heads.
        context: Tokens that the model sees at once.
    """

    layers: int
    width: int
    heads: int
    context: int = 512

    @property
    def num_parameters(self) -> int:
        """Parameters without the embeddings, about."""
        return 12 * self.layers * self.width**2


SIZES = {
    "300k": Architecture(layers=3, width=96, heads=3),
    "1m": Architecture(layers=5, width=128, heads=4),
    "3m": Architecture(layers=7, width=192, heads=6),
    "10m": Architecture(layers=8, width=320, heads=5),
    "30m": Architecture(layers=10, width=512, heads=8),
    "70m": Architecture(layers=10, width=768, heads=12),
    "150m": Architecture(layers=12, width=1024, heads=16),
}
"""Named sizes, by parameters without embeddings."""


@dataclass(frozen=True)
class TextLosses:
    """Losses of n texts under one model.

    Args:
        windows: The windows they were scored in.
        window_nll: Sum of -ln p over the scored tokens of each window, float64[w], in nats.
        nll: Sum over each text, 0 for an empty one, float64[n], in nats.
        num_tokens: Tokens of each text, int64[n].
        hidden: Mean last hidden state over the tokens of each text, 0 for an empty one, float32[n, width].
    """

    windows: Windows
    window_nll: npt.NDArray[np.float64]
    nll: npt.NDArray[np.float64]
    num_tokens: npt.NDArray[np.int64]
    hidden: npt.NDArray[np.float32]


class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        model: A model class of transformers.
        tokenizer: The tokenizer it was trained with.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._leased: torch.device | None = None

    @classmethod
    def make(cls, architecture: Architecture, tokenizer: Tokenizer, seed: int) -> "LanguageModel":
        """A model with seeded random weights."""
        return cls(make_model(architecture, tokenizer.vocab_size, tokenizer.end_of_text, seed), tokenizer)

    @classmethod
    def load(cls, path: str, dtype: str = "float32") -> "LanguageModel":
        """Load a Hugging Face directory, weights from safetensors only.

        Args:
            path: The directory.
            dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where there is a GPU.

        Raises:
            ModelError: If the directory is incomplete, its weights are pickled, missing or not finite, or the
                tokenizer does not match.
        """
        from transformers import AutoModelForCausalLM

        check_directory(path)
        model = load_model(AutoModelForCausalLM, path, dtype, attn_implementation="sdpa")
        _check_head(model, path)
        return cls(model, Tokenizer.load(path))

    @property
    def context(self) -> int:
        """Tokens that the model sees at once."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def save(self, folder: Path) -> None:
        """Write a Hugging Face directory: safetensors, configuration and tokenizer."""
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save(folder)

    @contextmanager
    def on_device(self) -> "Iterator[torch.device]":
        """The model on the device that this process may use, alone there if it is a GPU; blocks may nest."""
        if self._leased is not None:
            yield self._leased
            return
        with on_device(self.model) as device:
            self._leased = device
            try:
                yield device
            finally:
                self._leased = None

    def losses(self, texts: TokenizedTexts, window: int, stride: int) -> TextLosses:
        """Score n texts.

        The same text has the same losses in any batch up to 1e-5 nats a token in float32.

        Args:
            texts: Tokens of this model's tokenizer.
            window: Tokens scored together.
            stride: Tokens between the starts of windows.
        """
        windows = split_windows(texts.offsets, window, stride)
        with self.on_device() as device:
            found = window_losses(
                self.model, texts.tokens, windows, self.tokenizer.end_of_text, TOKEN_BUDGET[device.type]
            )
        num_texts = len(texts.offsets) - 1
        num_tokens = np.diff(texts.offsets)
        hidden = np.zeros((num_texts, found.hidden.shape[1]), np.float32)
        if len(windows):
            documents, first = np.unique(windows.documents, return_index=True)
            hidden[documents] = np.add.reduceat(found.hidden, first) / num_tokens[documents, None]
        nll = np.bincount(windows.documents, found.nll, num_texts).astype(np.float64)
        return TextLosses(windows, found.nll, nll, num_tokens, hidden)


def make_model(architecture: Architecture, vocab_size: int, end_of_text: int, seed: int) -> Any:
    """A Llama of transformers with seeded random weights.

    Args:
        architecture: Its numbers.
        vocab_size: Tokens it knows.
        end_of_text: The token that ends a document.
        seed: Of the weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=architecture.width,
        intermediate_size=-(-architecture.width * 8 // 3 // 32) * 32,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=architecture.context,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


@lru_cache(maxsize=8)
def shared_model(path: str, digest: str, dtype: str) -> LanguageModel:
    """A model loaded once in this process; `digest` tells a directory from what lay there before."""
    return LanguageModel.load(path, dtype)


def check_directory(path: str) -> dict[str, Any]:
    """Refuse a directory that cannot hold a usable model, from its small files alone.

    Returns:
        The model's configuration.

    Raises:
        ModelError: If a part is missing, weights are pickled, or the tokenizer does not match.
    """
    config, tokenizer = check_files(path, "language model")
    _ = tokenizer.end_of_text
    return text_config(config)


def context_of(path: str) -> int:
    """Tokens that a model sees at once, from its configuration."""
    sizes = check_directory(path)
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        if name in sizes:
            return int(sizes[name])
    raise ModelError(f"{path}: {CONFIG} names no context length; expected max_position_embeddings")


def sample_of(path: str) -> tuple[int, float, float] | None:
    """Seed and range of the random keys of the documents that a model was trained on, None where nobody says."""
    file = Path(path) / SAMPLE
    if not file.is_file():
        return None
    sample = json.loads(file.read_text())
    return sample["seed"], sample["low"], sample["high"]


def family_of(path: str) -> str:
    """What models of one family share: the architecture, and the kind of tokenizer."""
    architecture = check_directory(path).get("model_type", "of no named type")
    kind = json.loads(tokenizer_file(path).read_text())["model"].get("type", "another tokenizer")
    return f"{architecture} with {kind}"


def digest(path: str) -> str:
    """BLAKE2b of all that its numbers depend on, 32 hexadecimal digits, of a directory that was checked."""
    return digest_of(path, (CONFIG, TOKENIZER_CONFIG, SAMPLE))


def _check_head(model: Any, path: str) -> None:
    """Refuse a model whose logits are not its last hidden state times its output weights."""
    import torch

    head = model.get_output_embeddings()
    tokens = torch.arange(PROBE_TOKENS)[None] % head.weight.shape[0]
    # A cap bends large logits only, which the probe may not reach.
    is_capped = getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None
    with torch.inference_mode():
        own = model(input_ids=tokens).logits.float().log_softmax(-1)
        states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        ours = (states.float() @ head.weight.float().T).log_softmax(-1)
    tolerance = HEAD_TOLERANCE if head.weight.dtype == torch.float32 else 0.1
    if is_capped or not torch.allclose(own, ours, atol=tolerance, rtol=tolerance):
        raise ModelError(
            f"{path}: the logits are not the last hidden state times the output weights (a bias, a cap or a scale); "
            "such models are not supported"
        )

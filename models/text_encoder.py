"""Any Hugging Face model as an encoder of documents: the pooled hidden states of one of its layers.

A window's vector is that of sentence-transformers: the mean of the states of all its tokens, special ones included,
or the state of the first one where the directory says so. A document's is the mean of its windows' vectors, weighted by
their tokens, where sentence-transformers reads the first window alone.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.hugging_face import (
    CONFIG,
    ModelError,
    check_files,
    digest_of,
    load_model,
    text_config,
)
from gristmill.models.padded_windows import Template, mean_of_windows, padding_of, window_of, window_outputs
from gristmill.models.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.windows import split_windows

if TYPE_CHECKING:
    import torch

MODULES, LENGTHS, POOLING = "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"
"""What sentence-transformers writes beside a model."""
KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}
POOLER = ("pooler.",)
"""Weights of BERT's pooler, which only some directories hold and no embedding comes from."""


@dataclass(frozen=True)
class Encoding:
    """How a model encodes documents, where that can be chosen.

    Args:
        layer: Whose states, from 0, the embeddings of tokens; None for the last one, after its norm.
        window: Tokens read together, special ones included; None for all that the model reads at once.
        dtype: Of the weights: `float32`, `bfloat16`, or `auto`: bfloat16 where there is a GPU.
    """

    layer: int | None = None
    window: int | None = None
    dtype: str = "auto"


@dataclass(frozen=True)
class Plan:
    """How a model reads documents, from its small files alone.

    Args:
        template: How a window becomes a row of tokens.
        window: Tokens of a document read together.
        takes_first: Whether the first token's state stands for a window, and not the mean of all.
    """

    template: Template
    window: int
    takes_first: bool


class TextEncoder:
    """A model without its head, with its tokenizer.

    Args:
        model: A base model of transformers.
        tokenizer: The tokenizer it was trained with.
        plan: How it reads documents.
        layer: Whose states; None for the last.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, plan: Plan, layer: int | None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._plan = plan
        self._layer = layer

    @classmethod
    def load(cls, path: str, encoding: Encoding) -> Self:
        """Load a Hugging Face directory, weights from safetensors only.

        Raises:
            ModelError: If the directory is incomplete, its weights are pickled, missing or not finite, the tokenizer
                does not match, or it encodes in a way that is not supported.
        """
        from transformers import AutoModel

        tokenizer, plan = plan_encoding(path, encoding)
        model = load_model(AutoModel, path, encoding.dtype, unused=POOLER)
        model.config.get_text_config().use_cache = False
        return cls(model, tokenizer, plan, encoding.layer)

    def embed(self, texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Encode n texts; the same text has the same vector in any batch up to 1e-5 in float32.

        Returns:
            The texts that have tokens, ascending, int64[m], and their vectors, float32[m, width].
        """
        tokenized = self._tokenizer.encode(texts)
        windows = split_windows(tokenized.offsets, self._plan.window, self._plan.window)
        width = self._model.config.get_text_config().hidden_size
        vectors = window_outputs(
            self._model, self._pooled, tokenized.tokens, windows, self._plan.template, width
        )
        documents, means = mean_of_windows(vectors, windows)
        return documents, means.astype(np.float32)

    def _pooled(self, inputs: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        found = self._model(
            input_ids=inputs, attention_mask=mask, output_hidden_states=self._layer is not None
        )
        states: torch.Tensor = (
            found.last_hidden_state if self._layer is None else found.hidden_states[self._layer]
        )
        if self._plan.takes_first:
            return states[:, 0]
        is_token = mask[:, :, None].float()
        return (states.float() * is_token).sum(dim=1) / is_token.sum(dim=1)


def is_language_model(path: str) -> bool:
    """Whether a directory holds a causal language model, or nothing that says what it is.

    Raises:
        ModelError: If the directory cannot hold a usable model.
    """
    config, _ = check_files(path, "model")
    return _predicts_tokens(config) or not config.get("architectures")


def plan_encoding(path: str, encoding: Encoding) -> tuple[Tokenizer, Plan]:
    """A model's tokenizer and how it reads documents, from its small files alone.

    A causal language model reads each window behind an end of text, as it was trained.

    Raises:
        ModelError: If the directory cannot hold a usable model, there is no such layer or window, or its vectors come
            from more than the mean or the first of its states.
    """
    config, tokenizer = check_files(path, "encoder")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{path}: found an encoder with a decoder; expected an encoder or a language model")
    _check_layer(path, text_config(config), encoding.layer)
    before, after = ((tokenizer.end_of_text,), ()) if _predicts_tokens(config) else tokenizer.special_tokens
    template = Template(before, after, padding_of(path, config))
    longest = _read(path, LENGTHS).get("max_seq_length")
    window = window_of(path, config, template, encoding.window, longest)
    return tokenizer, Plan(template, window, _takes_first(path))


def digest(path: str) -> str:
    """BLAKE2b of all that its vectors depend on, 32 hexadecimal digits, of a directory that was planned."""
    return digest_of(path, (CONFIG, TOKENIZER_CONFIG, MODULES, LENGTHS, POOLING))


@lru_cache(maxsize=4)
def shared_encoder(path: str, digest: str, encoding: Encoding) -> TextEncoder:
    """An encoder loaded once in this process; `digest` tells a directory from what lay there before."""
    return TextEncoder.load(path, encoding)


def _predicts_tokens(config: dict[str, Any]) -> bool:
    architectures = config.get("architectures") or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)


def _check_layer(path: str, sizes: dict[str, Any], layer: int | None) -> None:
    names = ("num_hidden_layers", "n_layer", "n_layers")
    num_layers = next((sizes[name] for name in names if isinstance(sizes.get(name), int)), None)
    if num_layers is None:
        raise ModelError(f"{path}: {CONFIG} names no number of layers; expected num_hidden_layers")
    if layer is not None and not 0 <= layer <= num_layers:
        raise ModelError(
            f"{path}: found layer {layer}; expected 0, the embeddings of tokens, to {num_layers}, the last"
        )


def _takes_first(path: str) -> bool:
    """Whether the first state of a window is its vector, as sentence-transformers' files say; else the mean is."""
    modules = [str(entry["type"]).rpartition(".")[2] for entry in _read(path, MODULES, [])]
    if unknown := sorted(set(modules) - KNOWN_MODULES):
        raise ModelError(
            f"{path}: {MODULES} names {unknown[0]}; expected {', '.join(sorted(KNOWN_MODULES))} alone"
        )
    said = _read(path, POOLING)
    modes = sorted(name for name, on in said.items() if name.startswith("pooling_mode_") and on is True)
    if modes not in ([], ["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise ModelError(
            f"{path}: {POOLING} says {' and '.join(modes)}; expected pooling_mode_mean_tokens or pooling_mode_cls_token"
        )
    return modes == ["pooling_mode_cls_token"]


def _read(path: str, name: str, absent: Any = None) -> Any:
    """A small JSON file of a directory, or what stands for an absent one: an empty object."""
    file = Path(path) / name
    return json.loads(file.read_text()) if file.is_file() else ({} if absent is None else absent)

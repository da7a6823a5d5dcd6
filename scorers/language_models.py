"""Losses of a batch under language models, shared by every scorer that asks for the same model and windows.

A batch is tokenised once for all models of one tokenizer, and each model sees it once, whoever asks.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import ClassVar, Literal

from gristmill.models import language_model
from gristmill.models.language_model import LanguageModel, TextLosses
from gristmill.models.tokenizer import TokenizedTexts, Tokenizer
from gristmill.scorers.base import ModelPath, Scorer, ScorerError, loading
from gristmill.scorers.text import TextBatch

Dtype = Literal["auto", "float32", "bfloat16"]
"""Of a model's weights; `auto` is bfloat16 on a GPU and float32 on the CPU."""
TOLERANCE = 1e-4
"""Nats a token by which a document's loss may differ between batches, in float32."""


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer, the same wherever its bytes lie."""

    digest: str
    path: str = field(compare=False)


@dataclass(frozen=True)
class Forward:
    """One forward pass: which model, and how it sees a document.

    Args:
        path: Hugging Face directory of the model.
        digest: Hash of its content.
        tokenizer: Its tokenizer.
        window: Tokens scored together.
        stride: Tokens between the starts of windows.
        dtype: Of the weights.
    """

    path: str
    digest: str
    tokenizer: TokenizerFile
    window: int
    stride: int
    dtype: Dtype


@dataclass(frozen=True, kw_only=True)
class LanguageModelScorer(Scorer):
    """Base of the scorers that ask one language model.

    Args:
        model: Hugging Face directory; by default the prior trained in the workspace.
        window: Tokens scored together; by default all that the model sees at once.
        stride: Tokens between the starts of windows; by default the window.
        dtype: Of the weights.
    """

    accelerator: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE
    trained_models = MappingProxyType({"model": "prior"})

    model: ModelPath
    window: int | None = None
    stride: int | None = None
    dtype: Dtype = "auto"

    def model_digests(self) -> dict[str, str]:
        """The model's bytes."""
        return {"model": self._forward.digest}

    def setup(self) -> None:
        """Load the model."""
        load_model(f"{self.name}.model", self._forward)

    def losses(self, batch: TextBatch) -> TextLosses:
        """Losses of n documents, from a pass shared with other scorers of the same model and windows."""
        return text_losses(batch, self._forward)

    @cached_property
    def _forward(self) -> Forward:
        return plan_forward(f"{self.name}.model", self.model, self.window, self.stride, self.dtype)


def plan_forward(place: str, path: str, window: int | None, stride: int | None, dtype: Dtype) -> Forward:
    """Check a model and the windows asked of it, from its small files alone.

    Args:
        place: Scorer and option, for errors.
        path: Hugging Face directory.
        window: Tokens scored together, None for the model's context.
        stride: Tokens between the starts of windows, None for windows that do not overlap.
        dtype: Of the weights.

    Raises:
        ScorerError: In one line.
    """
    with loading(place, "a language model"):
        context = language_model.context_of(path)
        digest = language_model.digest(path)
        tokenizer = TokenizerFile(Tokenizer.digest(path), path)
    window = context if window is None else window
    if not 1 <= window <= context:
        raise ScorerError(
            f"{place}: found windows of {window} tokens; expected 1 to {context}, all that {path} sees at once"
        )
    stride = window if stride is None else stride
    if not 1 <= stride <= window:
        raise ScorerError(f"{place}: found a stride of {stride}; expected 1 to {window}, the window")
    return Forward(path, digest, tokenizer, window, stride, dtype)


def load_model(place: str, forward: Forward) -> LanguageModel:
    """The model of a forward pass, loaded once in this process.

    Raises:
        ScorerError: If it cannot be loaded.
    """
    with loading(place, "a language model"):
        return language_model.shared_model(forward.path, forward.digest, forward.dtype)


def text_losses(batch: TextBatch, forward: Forward) -> TextLosses:
    """Losses of the batch's documents under one model, computed once."""
    return batch.view(_text_losses, forward)


def _text_losses(batch: TextBatch, forward: Forward) -> TextLosses:
    tokens = batch.view(_tokens, forward.tokenizer)
    return load_model(forward.path, forward).losses(tokens, forward.window, forward.stride)


def _tokens(batch: TextBatch, tokenizer: TokenizerFile) -> TokenizedTexts:
    return _loaded(tokenizer).encode(batch.text)


@lru_cache(maxsize=4)
def _loaded(tokenizer: TokenizerFile) -> Tokenizer:
    return Tokenizer.load(tokenizer.path)

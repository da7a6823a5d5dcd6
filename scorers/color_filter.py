"""CoLoR-Filter (Brandfonbrener et al. 2024, arXiv 2406.10670): how much a target model gains on a document.

Two models of one kind: the prior, trained on a sample of the pool, and the conditional, the prior fine-tuned on the
target. A document is worth choosing where fine-tuning has lowered its loss the most.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.language_model import TextLosses, sample_of
from gristmill.models.tokenizer import Tokenizer
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.doc_ids import random_keys
from gristmill.scorers.language_models import TOLERANCE, Dtype, Forward, load_model, plan_forward, text_losses
from gristmill.scorers.text import TextBatch

PAPER = "CoLoR-Filter, arXiv 2406.10670, section 3"
DEVIATION = (
    "windows lie inside a document, where the paper cuts the concatenated stream, and start from the end of text, so "
    "that every token is scored; a document's loss is the mean over its tokens"
)
WINDOW = pa.struct(
    [
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("nll_prior", pa.float32(), nullable=False),
        pa.field("nll_conditional", pa.float32(), nullable=False),
    ]
)
"""Losses of one window, means over its tokens, in nats."""


@dataclass(frozen=True, kw_only=True)
class ColorFilter(Scorer):
    """Scores documents by the difference of two language models' losses.

    Args:
        prior: Hugging Face directory of the prior; by default the one trained in the workspace.
        conditional: Hugging Face directory of the conditional model, with the prior's tokenizer.
        window: Tokens scored together; by default all that the models see at once.
        stride: Tokens between the starts of windows; by default the window, so that they do not overlap.
        dtype: Of the weights. Scores in bfloat16 lie within 0.01 nats of those in float32.
        windows: Whether to keep the losses of every window, for a selection by windows.
    """

    name: ClassVar[str] = "color_filter"
    version: ClassVar[int] = 1
    accelerator: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE
    trained_models = MappingProxyType({"prior": "prior", "conditional": "conditional"})

    prior: ModelPath
    conditional: ModelPath
    window: int | None = None
    stride: int | None = None
    dtype: Dtype = "auto"
    windows: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """The score, its two parts, and the sizes that budgets count."""

        def nats(name: str, description: str, *, higher_is_better: bool | None) -> Column:
            return Column(
                name=name,
                type=pa.float64(),
                description=description,
                unit="nats per token",
                minimum=None if name == "color_filter" else 0,
                higher_is_better=higher_is_better,
                empty=0.0,
                source=PAPER,
                deviation=DEVIATION,
            )

        columns = [
            nats(
                "color_filter",
                "Loss under the prior minus loss under the conditional model. Its mean over a pool is not 0: choose by "
                "`top`, not by a threshold",
                higher_is_better=True,
            ),
            nats("nll_prior", "Mean -ln p of the tokens under the prior", higher_is_better=False),
            nats(
                "nll_conditional",
                "Mean -ln p of the tokens under the conditional model: the baseline `conditional only`",
                higher_is_better=False,
            ),
            Column(
                name="bits_per_byte",
                type=pa.float64(),
                description="Sum of -log2 p of the tokens under the prior over the UTF-8 bytes of the text",
                unit="bits per byte",
                minimum=0,
                higher_is_better=False,
                empty=0.0,
                source=PAPER,
            ),
            Column(
                name="num_tokens",
                type=pa.int64(),
                description="Tokens of the text under the models' tokenizer, special ones not counted",
                unit="tokens",
                minimum=0,
                source=PAPER,
            ),
            Column(
                name="in_prior_sample",
                type=pa.bool_(),
                description="Whether the prior was trained on the document, which lowers its loss and so the score; "
                "false where the prior says nothing of its sample",
                unit="flag",
                empty=False,
                source=PAPER,
                deviation="documents that came after the training are flagged by the same rule",
            ),
        ]
        if self.windows:
            columns.append(
                Column(
                    name="color_filter_windows",
                    type=pa.list_(pa.field("item", WINDOW, nullable=False)),
                    description="Losses of each window, in order",
                    unit="nats per token",
                    empty=[],
                    source=PAPER,
                    deviation=DEVIATION,
                )
            )
        return tuple(columns)

    def model_digests(self) -> dict[str, str]:
        """The bytes of both models."""
        prior, conditional = self._forwards
        return {"prior": prior.digest, "conditional": conditional.digest}

    def setup(self) -> None:
        """Load both models."""
        for place, forward in zip(("prior", "conditional"), self._forwards, strict=True):
            load_model(f"{self.name}.{place}", forward)

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Score n documents."""
        prior, conditional = (text_losses(batch, forward) for forward in self._forwards)
        num_tokens = np.maximum(prior.num_tokens, 1)
        nll_prior, nll_conditional = prior.nll / num_tokens, conditional.nll / num_tokens
        bits = prior.nll / np.log(2) / np.maximum(batch.num_bytes, 1)
        numbers = [nll_prior - nll_conditional, nll_prior, nll_conditional, bits, prior.num_tokens]
        arrays = [pa.array(column) for column in (*numbers, self._in_sample(batch))]
        if self.windows:
            arrays.append(_window_column(prior, conditional))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema())

    def window_texts(self, text: str) -> list[str]:
        """The text of each window that a document was scored in, in order; end to end they are the document.

        A window begins where its first token does: a character whose bytes are tokens of two windows belongs to the
        later one. Needs windows that do not overlap.
        """
        starts = self._tokenizer.char_offsets(text)[: -1 : self._forwards[0].window]
        return [text[start:end] for start, end in pairwise([0, *starts[1:], len(text)])]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.prior)

    def _in_sample(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Which documents the prior was trained on, none where they have no doc_id, bool[n]."""
        sample = sample_of(self.prior)
        if sample is None or "doc_id" not in batch.documents.schema.names:
            return np.zeros(len(batch), np.bool_)
        seed, low, high = sample
        keys = random_keys(pa.chunked_array([batch.documents["doc_id"]]), seed)
        return (keys >= low) & (keys < high)

    @cached_property
    def _forwards(self) -> tuple[Forward, Forward]:
        prior, conditional = (
            plan_forward(f"{self.name}.{place}", path, self.window, self.stride, self.dtype)
            for place, path in (("prior", self.prior), ("conditional", self.conditional))
        )
        if prior.tokenizer != conditional.tokenizer:
            raise ScorerError(
                f"{self.name}: the tokenizers of {self.prior} and {self.conditional} differ; expected a conditional "
                "model that was fine-tuned from the prior"
            )
        if prior.window != conditional.window:
            raise ScorerError(
                f"{self.name}: the models see {prior.window} and {conditional.window} tokens at once; say `window`"
            )
        return prior, conditional


def _window_column(prior: TextLosses, conditional: TextLosses) -> pa.ListArray:
    """Losses of the windows of n documents, as one list a document."""
    windows = prior.windows
    num_tokens = windows.num_scored
    fields = [
        pa.array(num_tokens.astype(np.int32)),
        pa.array((prior.window_nll / num_tokens).astype(np.float32)),
        pa.array((conditional.window_nll / num_tokens).astype(np.float32)),
    ]
    offsets = np.searchsorted(windows.documents, np.arange(len(prior.nll) + 1))
    values = pa.StructArray.from_arrays(fields, fields=list(WINDOW))
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), values, type=pa.list_(pa.field("item", WINDOW, nullable=False))
    )

"""Perplexity under one language model: the baseline of every model-based filter, for pools without a target."""

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.scorers.base import Column, ModelPath, Scorer
from gristmill.scorers.language_models import TOLERANCE, Dtype, Forward, load_model, plan_forward, text_losses
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Perplexity(Scorer):
    """Scores documents by how well a language model predicts them.

    Args:
        model: Hugging Face directory; by default the prior trained in the workspace.
        window: Tokens scored together; by default all that the model sees at once.
        stride: Tokens between the starts of windows; by default the window.
        dtype: Of the weights.
    """

    name: ClassVar[str] = "perplexity"
    version: ClassVar[int] = 1
    accelerator: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE
    trained_models = MappingProxyType({"model": "prior"})

    model: ModelPath
    window: int | None = None
    stride: int | None = None
    dtype: Dtype = "auto"

    @property
    def columns(self) -> tuple[Column, ...]:
        """One number."""
        return (
            Column(
                name="perplexity",
                type=pa.float64(),
                description="exp of the mean -ln p of the tokens; windows inside the document, from the end of text",
                unit="tokens",
                minimum=1,
                higher_is_better=False,
                empty=1.0,
                source="Wenzek et al. 2020, CCNet, arXiv 1911.00359, section 3.4",
                deviation="a Transformer's windows instead of a 5-gram model; good text is low, too low is boilerplate",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The model's bytes."""
        return {"model": self._forward.digest}

    def setup(self) -> None:
        """Load the model."""
        load_model(f"{self.name}.model", self._forward)

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Score n documents."""
        losses = text_losses(batch, self._forward)
        perplexity = np.exp(losses.nll / np.maximum(losses.num_tokens, 1))
        return pa.RecordBatch.from_arrays([pa.array(perplexity)], schema=self.schema())

    @cached_property
    def _forward(self) -> Forward:
        return plan_forward(f"{self.name}.model", self.model, self.window, self.stride, self.dtype)

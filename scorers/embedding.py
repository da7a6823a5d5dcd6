"""Document embeddings from a language model: the mean of its last hidden states, from the pass that scores losses."""

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.scorers.base import Column, ModelPath, Scorer
from gristmill.scorers.language_models import Dtype, Forward, load_model, plan_forward, text_losses
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Embedding(Scorer):
    """Keeps the mean-pooled hidden state of each document.

    Args:
        model: Hugging Face directory; by default the prior trained in the workspace.
        window: Tokens seen together; by default all that the model sees at once.
        dtype: Of the weights.
    """

    name: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    accelerator: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2
    trained_models = MappingProxyType({"model": "prior"})

    model: ModelPath
    window: int | None = None
    dtype: Dtype = "auto"

    @property
    def columns(self) -> tuple[Column, ...]:
        """One vector."""
        return (
            Column(
                name="embedding",
                type=pa.list_(pa.field("item", pa.float16(), nullable=False)),
                description="Mean of the last hidden states over the tokens of the text; of an empty one nothing",
                unit="hidden state",
                empty=[],
                source="INGENIOUS, arXiv 2305.06677, section 3",
                deviation="the last layer, after its norm",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The model's bytes."""
        return {"model": self._forward.digest}

    def setup(self) -> None:
        """Load the model."""
        load_model(f"{self.name}.model", self._forward)

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Embed n documents."""
        losses = text_losses(batch, self._forward)
        is_text = losses.num_tokens > 0
        width = losses.hidden.shape[1]
        offsets = np.concatenate([[0], np.cumsum(np.where(is_text, width, 0))])
        values = pa.array(losses.hidden[is_text].astype(np.float16).ravel())
        (column,) = self.columns
        vectors = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=column.type)
        return pa.RecordBatch.from_arrays([vectors], schema=self.schema())

    @cached_property
    def _forward(self) -> Forward:
        return plan_forward(f"{self.name}.model", self.model, self.window, None, self.dtype)

"""Document embeddings from a language model: the mean of its last hidden states, from the pass that scores losses."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.scorers.base import Column
from gristmill.scorers.language_models import LanguageModelScorer
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Embedding(LanguageModelScorer):
    """Keeps the mean-pooled hidden state of each document."""

    name: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    tolerance: ClassVar[float] = 1e-2

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

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Embed n documents."""
        losses = self.losses(batch)
        is_text = losses.num_tokens > 0
        width = losses.hidden.shape[1]
        offsets = np.concatenate([[0], np.cumsum(np.where(is_text, width, 0))])
        values = pa.array(losses.hidden[is_text].astype(np.float16).ravel())
        (column,) = self.columns
        vectors = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=column.type)
        return pa.RecordBatch.from_arrays([vectors], schema=self.schema())

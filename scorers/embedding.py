"""Document embeddings from a language model: the mean of its last hidden states, from the pass that scores losses."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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


def read_vectors(
    embeddings: pa.Array | pa.ChunkedArray,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """The embeddings of the documents that have one: of empty texts, and of those that are not finite, there is none.

    Args:
        embeddings: n lists, empty or of d numbers.

    Returns:
        Rows, ascending, int64[m], and vectors, float16[m, d].
    """
    lengths = pc.list_value_length(embeddings).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(lengths)
    flat = pc.list_flatten(embeddings).to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    vectors = flat.reshape(len(rows), -1) if len(rows) else np.empty((0, 0), np.float16)
    is_finite = np.isfinite(vectors).all(axis=1)
    return rows[is_finite], vectors[is_finite]

"""Document embeddings: the pooled hidden states of a language model or an encoder.

Those of a language model's last layer come from the pass that scores losses, and so cost nothing beside such a scorer.
Those of another layer, and of encoders, come from a pass of their own.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models import text_encoder
from gristmill.models.text_encoder import Encoding, TextEncoder
from gristmill.scorers.base import Column, ScorerError, loading
from gristmill.scorers.language_models import LanguageModelScorer
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Embedding(LanguageModelScorer):
    """Keeps the pooled hidden state of each document.

    Args:
        model: Hugging Face directory of a language model, or of an encoder such as a sentence embedding; by default
            the prior trained in the workspace.
        layer: Whose states, from 0, the embeddings of tokens; by default the last one's, after its norm.
        window: Tokens read together; by default all that the model sees at once.
        stride: Tokens between the starts of windows, only where the pass scores losses too; by default the window.
        dtype: Of the weights.
    """

    name: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    tolerance: ClassVar[float] = 1e-2

    layer: int | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """One vector."""
        return (
            Column(
                name="embedding",
                type=pa.list_(pa.field("item", pa.float16(), nullable=False)),
                description="Mean of the hidden states over the tokens of the text; of an empty one nothing",
                unit="hidden state",
                empty=[],
                source="INGENIOUS, arXiv 2305.06677, section 3",
                deviation="the last layer by default; of a long text the mean over windows, weighted by their tokens",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The model's bytes, of one that can be used."""
        return super().model_digests() if self._has_losses else {"model": self._encoder_digest}

    def setup(self) -> None:
        """Load the model."""
        if self._has_losses:
            super().setup()
        else:
            _ = self._encoder

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Embed n documents."""
        rows, vectors = self._embed(batch)
        lengths = np.zeros(len(batch), np.int64)
        lengths[rows] = vectors.shape[1]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        (column,) = self.columns
        values = pa.array(vectors.astype(np.float16).ravel())
        lists = pa.ListArray.from_arrays(offsets, values, type=column.type)
        return pa.RecordBatch.from_arrays([lists], schema=self.schema())

    def _embed(self, batch: TextBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The documents that have tokens, int64[m], and their vectors, float32[m, d]."""
        if not self._has_losses:
            return self._encoder.embed(batch.text)
        losses = self.losses(batch)
        rows = np.flatnonzero(losses.num_tokens)
        return rows, losses.hidden[rows]

    @cached_property
    def _has_losses(self) -> bool:
        """Whether the states are those of a pass that scores losses."""
        with self._loading():
            return self.layer is None and text_encoder.is_language_model(self.model)

    @property
    def _encoding(self) -> Encoding:
        return Encoding(self.layer, self.window, self.dtype)

    @cached_property
    def _encoder_digest(self) -> str:
        if self.stride is not None:
            raise ScorerError(
                f"{self.name}.stride: found {self.stride}; windows overlap only where losses are scored in the same "
                "pass, of the last layer of a language model; leave it out"
            )
        with self._loading():
            text_encoder.plan_encoding(self.model, self._encoding)
            return text_encoder.digest(self.model)

    @cached_property
    def _encoder(self) -> TextEncoder:
        with self._loading():
            return text_encoder.shared_encoder(self.model, self._encoder_digest, self._encoding)

    def _loading(self) -> AbstractContextManager[None]:
        return loading(f"{self.name}.model", "an encoder")


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

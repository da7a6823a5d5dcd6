"""Perplexity under one language model: the baseline of every model-based filter, for pools without a target."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.scorers.base import Column
from gristmill.scorers.language_models import LanguageModelScorer
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Perplexity(LanguageModelScorer):
    """Scores documents by how well a language model predicts them."""

    name: ClassVar[str] = "perplexity"
    version: ClassVar[int] = 1

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

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Score n documents."""
        losses = self.losses(batch)
        perplexity = np.exp(losses.nll / np.maximum(losses.num_tokens, 1))
        return pa.RecordBatch.from_arrays([pa.array(perplexity)], schema=self.schema())

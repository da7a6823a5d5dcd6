"""Bits per character under one language model: a loss that models of different tokenizers can be compared by."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.scorers.base import Column
from gristmill.scorers.language_models import LanguageModelScorer
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class BitsPerCharacter(LanguageModelScorer):
    """Scores documents by how well a language model compresses them."""

    name: ClassVar[str] = "bits_per_character"
    version: ClassVar[int] = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """One number."""
        return (
            Column(
                name="bits_per_character",
                type=pa.float64(),
                description="-log2 p of all tokens over the Unicode code points of the text",
                unit="bits per character",
                minimum=0,
                higher_is_better=False,
                source="PreSelect, arXiv 2503.00808, section 3",
                deviation="windows stay inside the document and start from the end of text, where the released code "
                "joins documents, so that context leaks from one to the next",
            ),
        )

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Score n documents."""
        num_chars = pc.utf8_length(batch.text).to_numpy()
        bits = self.losses(batch).nll / math.log(2)
        return pa.RecordBatch.from_arrays([pa.array(bits / np.maximum(num_chars, 1))], schema=self.schema())

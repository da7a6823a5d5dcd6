"""How likely a document's compression tells strong models from weak ones (PreSelect, Shum et al. 2025)."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.classifier_training import POSITIVE
from gristmill.models.seed_set import DocIds, is_in_seed_set, load_seed_set
from gristmill.scorers.base import Column
from gristmill.scorers.classifier import Classifier
from gristmill.scorers.text import TextBatch

PAPER = "PreSelect, arXiv 2503.00808, section 3"


@dataclass(frozen=True, kw_only=True)
class PredictiveStrength(Classifier):
    """The probability of high predictive strength, by a classifier trained here or PreSelect's own.

    Args:
        label: The label of high strength, `1` in PreSelect's own classifier too.
    """

    name: ClassVar[str] = "predictive_strength"
    version: ClassVar[int] = 1
    column: ClassVar[str] = "predictive_strength"
    source: ClassVar[str] = PAPER
    trained_models = MappingProxyType({"model": "predictive_strength"})

    label: str = POSITIVE

    @property
    def columns(self) -> tuple[Column, ...]:
        """The probability, and whether the document was seen in training."""
        in_seed_set = Column(
            name="in_seed_set",
            type=pa.bool_(),
            description="Whether the document is of the set whose strength was measured to train the classifier; "
            "false where the model says nothing of that set",
            unit="flag",
            empty=False,
            source=PAPER,
        )
        return (*super().columns, in_seed_set)

    def model_digests(self) -> dict[str, str]:
        """The model's bytes, and the seed set beside them."""
        seed_set = load_seed_set(Path(self.model)).tobytes()
        return super().model_digests() | {"seed_set": hashlib.blake2b(seed_set, digest_size=16).hexdigest()}

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Classify n documents."""
        arrays = [self.probability(batch), pa.array(self._in_seed_set(batch))]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema())

    def _in_seed_set(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Which documents belong to the seed set, none where they have no doc_id, bool[n]."""
        if "doc_id" not in batch.documents.schema.names:
            return np.zeros(len(batch), np.bool_)
        return is_in_seed_set(batch.documents["doc_id"], self._seed_set)

    @cached_property
    def _seed_set(self) -> DocIds:
        return load_seed_set(Path(self.model))

"""Meta-rater (arXiv 2504.14194): one quality from many signals, by weights that proxies found to teach best."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.models.signal_weights import TOP, SignalWeights, digest, to_numbers
from gristmill.scorers.base import Column, DerivedScorer, ModelPath, ScorerError
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class MetaRater(DerivedScorer):
    """The weighted sum of the signals that the model names, each on a scale from 0 to 5.

    Args:
        model: Folder with `weights.json`; by default the one trained in the workspace.
        versions: Signal -> scorer and fingerprint of what made it; the pipeline fills it in.
    """

    name: ClassVar[str] = "meta_rater"
    version: ClassVar[int] = 1
    trained_models = MappingProxyType({"model": "meta_rater"})

    model: ModelPath
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The sum, and what each signal adds to it."""
        return (
            Column(
                name="meta_rater",
                type=pa.float64(),
                description="Sum of weight times scaled signal, over the signals of the model",
                unit="points",
                minimum=0,
                maximum=TOP,
                higher_is_better=True,
                source="Meta-rater, arXiv 2504.14194, section 3",
                deviation="signals may be scaled by quantiles, and are turned so that higher is better",
            ),
            Column(
                name="meta_rater_contributions",
                type=pa.list_(pa.field("item", pa.float32(), nullable=False)),
                description="Weight times scaled signal of each signal, in the order of `meta_rater_weights`",
                unit="points",
                empty=[],
            ),
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The signals."""
        return tuple(self._weights.names)

    def model_digests(self) -> dict[str, str]:
        """The weights."""
        return {"model": digest(Path(self.model))}

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Weigh the signals of n documents."""
        values = {name: to_numbers(batch.documents[name]) for name in self.inputs}
        contributions = self._weights.contributions(values)
        offsets = np.arange(len(batch) + 1, dtype=np.int32) * contributions.shape[1]
        lists = pa.ListArray.from_arrays(
            pa.array(offsets),
            pa.array(contributions.astype(np.float32).ravel()),
            type=self.columns[1].type,
        )
        return pa.RecordBatch.from_arrays([pa.array(contributions.sum(axis=1)), lists], schema=self.schema())

    @cached_property
    def _weights(self) -> SignalWeights:
        try:
            return SignalWeights.load(Path(self.model))
        except ValueError as error:
            raise ScorerError(f"{self.name}.model: {error}") from error

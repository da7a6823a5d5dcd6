"""What the scorers that ask a rater have in common: one model, its options, and the columns made of its ratings."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.load_rater import describe, digest, is_trained_here, shared_rater
from gristmill.models.rater import Dtype, Head, LongTexts, Outputs, Rater, Ratings, Reading
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError, loading
from gristmill.scorers.text import TextBatch

WINDOWS = "the mean of all windows' logits; the published code reads only the first, which is `long_texts: truncate`"
SMALLEST_CLASS, LARGEST_CLASS = -128, 127


@dataclass(frozen=True, kw_only=True)
class ModelRatings(Scorer):
    """Base of the scorers that ask one rater.

    Args:
        model: Hugging Face directory of a sequence classification, or the folder of a rater trained here, which knows
            what its outputs mean and heeds none of the other options.
        head: What the logits mean; by default as the model's configuration says.
        label: The label whose probability counts, by name or number.
        window: Tokens read together, special ones included; by default all that the model reads at once.
        long_texts: `windows`, whose logits are averaged by their tokens, or `truncate`: only the first is read.
        dtype: Of the weights.
    """

    version: ClassVar[int] = 1
    accelerator: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-4

    meaning: ClassVar[str]
    """What a value says, for the description of its column."""
    unit: ClassVar[str]
    minimum: ClassVar[float | None] = None
    maximum: ClassVar[float | None] = None
    higher_is_better: ClassVar[bool | None] = True
    source: ClassVar[str]
    deviation: ClassVar[str] = WINDOWS
    worth: ClassVar[tuple[float, ...] | None] = None
    """What the classes of a Hugging Face model must be worth, in any order; None where any will do."""
    special_tokens: ClassVar[bool] = True

    model: ModelPath
    head: Head | None = None
    label: str | int | None = None
    window: int | None = None
    long_texts: LongTexts = "windows"
    dtype: Dtype = "auto"

    @property
    def values(self) -> tuple[str, ...]:
        """Columns of the values."""
        return (self.name,)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The values."""
        return tuple(
            Column(
                name=name,
                type=pa.float32(),
                description=f"{self.meaning}; 0 for white space alone",
                unit=self.unit,
                minimum=self.minimum,
                maximum=self.maximum,
                higher_is_better=self.higher_is_better,
                empty=0.0,
                source=self.source,
                deviation=self.deviation,
            )
            for name in self.values
        )

    def model_digests(self) -> dict[str, str]:
        """The model's bytes, of one that can be used."""
        _ = self._outputs
        return {"model": digest(self.model)}

    def setup(self) -> None:
        """Load the model."""
        _ = self._rater

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Rate n documents."""
        return pa.RecordBatch.from_arrays(self._arrays(*self.rate(batch)), schema=self.schema())

    def rate(self, batch: TextBatch) -> tuple[Ratings, npt.NDArray[np.bool_]]:
        """Ratings of the documents that are more than white space, r rows, and which of all these are, bool[n]."""
        lengths = pc.binary_length(pc.utf8_trim_whitespace(batch.text))
        is_read = pc.greater(lengths, 0).to_numpy(zero_copy_only=False)
        found = self._rater.rate(batch.text.filter(pa.array(is_read)))
        return Ratings(np.clip(found.values, self.minimum, self.maximum), found.probabilities), is_read

    def _arrays(self, ratings: Ratings, is_read: npt.NDArray[np.bool_]) -> list[pa.Array]:
        """The columns of n documents."""
        return [pa.array(_spread(values, is_read)) for values in ratings.values.T]

    @property
    def _reading(self) -> Reading:
        return Reading(
            head=self.head,
            label=self.label,
            window=self.window,
            long_texts=self.long_texts,
            special_tokens=self.special_tokens,
            dtype=self.dtype,
        )

    @cached_property
    def _outputs(self) -> Outputs:
        with self._loading():
            outputs = describe(self.model, self._reading)
        if len(outputs.names) != len(self.values):
            raise ScorerError(
                f"{self.name}.model: found {len(outputs.names)} values ({', '.join(outputs.names)}) in {self.model}; "
                f"expected {len(self.values)}; say `label`, the one that counts, or take a model of this dimension"
            )
        if not is_trained_here(self.model) and outputs.classes is not None:
            self._check_worth(outputs.classes)
        return outputs

    def _check_worth(self, classes: tuple[float, ...]) -> None:
        if self.worth and sorted(classes) != sorted(self.worth):
            found, expected = (", ".join(f"{value:g}" for value in worth) for worth in (classes, self.worth))
            raise ScorerError(
                f"{self.name}.model: found classes worth {found} in {self.model}; expected {expected}; "
                "take a model of this dimension, or the scorer `rater`, which takes any"
            )

    @cached_property
    def _rater(self) -> Rater:
        with self._loading():
            return shared_rater(self.model, self.model_digests()["model"], self._reading)

    def _loading(self) -> AbstractContextManager[None]:
        return loading(f"{self.name}.model", "a rater")


@dataclass(frozen=True, kw_only=True)
class Dimension(ModelRatings):
    """Base of the scorers of one value: with the likeliest class, and the probabilities of all classes."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The value, the class, the probabilities."""
        likeliest = Column(
            name=f"{self.name}_class",
            type=pa.int8(),
            description="Worth of the likeliest class; where there are no classes, the value rounded",
            unit=self.unit,
            minimum=None if self.minimum is None else round(self.minimum),
            maximum=None if self.maximum is None else round(self.maximum),
            higher_is_better=self.higher_is_better,
            source=self.source,
            deviation=self.deviation,
        )
        probabilities = Column(
            name=f"{self.name}_probabilities",
            type=pa.list_(pa.field("item", pa.float32(), nullable=False)),
            description="Probability of each class in the model's order; empty where there are no classes, and for "
            "white space alone",
            unit="probability",
            empty=[],
            source=self.source,
            deviation=self.deviation,
        )
        return (*super().columns, likeliest, probabilities)

    def _arrays(self, ratings: Ratings, is_read: npt.NDArray[np.bool_]) -> list[pa.Array]:
        _, likeliest, probabilities = self.columns
        return [
            *super()._arrays(ratings, is_read),
            pa.array(_spread(self._likeliest(ratings), is_read), likeliest.type),
            _lists(ratings.probabilities, is_read, probabilities.type),
        ]

    def _likeliest(self, ratings: Ratings) -> npt.NDArray[np.int8]:
        """Worth of the likeliest class of r documents, int8[r]."""
        values = ratings.values[:, 0]
        if ratings.probabilities is not None and self._rater.classes is not None:
            best = np.array(self._rater.classes)[ratings.probabilities.argmax(axis=1)]
            values = np.where(ratings.probabilities.any(axis=1), best, 0)
        return np.clip(np.rint(values), SMALLEST_CLASS, LARGEST_CLASS).astype(np.int8)


def _spread(values: npt.NDArray[Any], is_read: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Values of all n documents from those that were read, 0 for the others."""
    found = np.zeros(len(is_read), values.dtype)
    found[is_read] = values
    return found


def _lists(
    rows: npt.NDArray[np.float32] | None, is_read: npt.NDArray[np.bool_], list_type: pa.ListType
) -> pa.ListArray:
    """A list for each of n documents, empty where nothing was read."""
    rows = np.empty((is_read.sum(), 0), np.float32) if rows is None else rows
    offsets = np.concatenate([[0], np.cumsum(is_read * rows.shape[1])])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(rows.ravel()), type=list_type)

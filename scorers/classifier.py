"""Probabilities of any supervised fastText model (Joulin et al. 2017), and what the known ones have in common."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.one_line import Family
from gristmill.models.text_classifier import TextClassifier, family_of
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Classifier(Scorer):
    """The probability that a supervised fastText model gives to one label.

    Args:
        model: The model's `.bin` or `.ftz`, or the folder of one trained here.
        label: The label whose probability counts, without fastText's prefix.
        normalisation: How texts become lines, see `models/one_line.py`; by default as the model's folder says,
            `default` for a bare file.
    """

    column: ClassVar[str]
    """Name of the column with the probability."""
    source: ClassVar[str]
    deviation: ClassVar[str] = (
        "line ends, `__label__` and `</s>` in texts are blanks; text without words gets 0, where fastText gives the "
        "probability of an empty line; with two labels without the 1e-5 that fastText adds to each"
    )

    model: ModelPath
    label: str
    normalisation: Family | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The probability."""
        return (
            Column(
                name=self.column,
                type=pa.float32(),
                description=f"Probability of the label {self.label!r}; 0 for white space alone",
                unit="probability",
                minimum=0,
                maximum=1,
                higher_is_better=True,
                empty=0.0,
                source=self.source,
                deviation=self.deviation,
            ),
        )

    def options(self) -> dict[str, Any]:
        """The options, and the normalisation that they come to."""
        try:
            family = family_of(Path(self.model), self.normalisation)
        except ValueError as error:
            raise ScorerError(f"{self.name}.normalisation: {self.model}: {error}") from error
        return super().options() | {"normalisation": family}

    def model_digests(self) -> dict[str, str]:
        """The model's bytes."""
        try:
            return {"model": TextClassifier.digest(Path(self.model))}
        except OSError as error:
            raise ScorerError(
                f"{self.name}.model: {self.model} cannot be read ({error.strerror}); "
                "give the path of a fastText .bin or .ftz"
            ) from error

    def setup(self) -> None:
        """Load the model: 12 bytes a word and 4 an n-gram's bucket if it has two labels, else as much as its file."""
        _ = self._classifier

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Classify n documents."""
        return pa.RecordBatch.from_arrays([self.probability(batch)], schema=self.schema())

    def probability(self, batch: TextBatch) -> pa.FloatArray:
        """Probability of the label for n documents, float[n]."""
        has_text = pc.greater(pc.binary_length(pc.utf8_trim_whitespace(batch.text)), 0)
        probability = pa.array(self._classifier.probability(batch.text, self.label))
        return pc.if_else(has_text, probability, pa.scalar(0, pa.float32()))

    @cached_property
    def _classifier(self) -> TextClassifier:
        try:
            classifier = TextClassifier.load(Path(self.model), self.normalisation)
        except (OSError, ValueError) as error:
            raise ScorerError(
                f"{self.name}.model: {self.model} is no supervised fastText model ({error})"
            ) from error
        if self.label not in classifier.labels:
            raise ScorerError(
                f"{self.name}.label: found {self.label!r}, "
                f"the labels of {self.model} are {', '.join(sorted(classifier.labels))}"
            )
        return classifier


@dataclass(frozen=True, kw_only=True)
class FastText(Classifier):
    """The probability that any supervised fastText model gives to one of its labels."""

    name: ClassVar[str] = "fasttext"
    version: ClassVar[int] = 1
    column: ClassVar[str] = "fasttext_probability"
    source: ClassVar[str] = "fastText (Joulin et al. 2017)"

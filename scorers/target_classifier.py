"""How likely a document comes from a target rather than from the pool it is chosen from, by a fastText classifier."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.classifier_training import POSITIVE
from gristmill.models.text_classifier import TextClassifier
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class TargetClassifier(Scorer):
    """The probability that a supervised fastText model gives to one label.

    Args:
        model: The model's `.bin` or `.ftz`.
        label: The label whose probability counts, without fastText's prefix.
    """

    name: ClassVar[str] = "target_classifier"
    version: ClassVar[int] = 1
    trained_models: ClassVar[dict[str, str]] = {"model": "target_classifier"}

    model: ModelPath
    label: str = POSITIVE

    @property
    def columns(self) -> tuple[Column, ...]:
        """The probability."""
        return (
            Column(
                name="target_probability",
                type=pa.float32(),
                description=f"Probability of the label {self.label!r}; 0 for white space alone",
                unit="probability",
                minimum=0,
                maximum=1,
                higher_is_better=True,
                empty=0.0,
                source="fastText (Joulin et al. 2017); as a filter, Li et al. 2024, DataComp-LM",
                deviation="line ends, `__label__` and `</s>` in texts are blanks; text without words gets 0, "
                "where fastText gives the probability of an empty line",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The model's bytes."""
        try:
            return {"model": TextClassifier.digest(Path(self.model))}
        except OSError as error:
            raise ScorerError(
                f"target_classifier.model: {self.model} cannot be read ({error.strerror}); "
                "give the path of a fastText .bin or .ftz"
            ) from error

    def setup(self) -> None:
        """Load the model, which takes as much memory as its file."""
        _ = self._classifier

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Classify n documents."""
        has_text = pc.greater(pc.binary_length(pc.utf8_trim_whitespace(batch.text)), 0)
        probability = pa.array(self._classifier.probability(batch.text, self.label))
        return pa.RecordBatch.from_arrays(
            [pc.if_else(has_text, probability, pa.scalar(0, pa.float32()))], schema=self.schema()
        )

    @cached_property
    def _classifier(self) -> TextClassifier:
        try:
            classifier = TextClassifier.load(Path(self.model))
        except ValueError as error:
            raise ScorerError(
                f"target_classifier.model: {self.model} is no supervised fastText model ({error})"
            ) from error
        if self.label not in classifier.labels:
            raise ScorerError(
                f"target_classifier.label: found {self.label!r}, "
                f"the labels of {self.model} are {', '.join(sorted(classifier.labels))}"
            )
        return classifier

"""How likely a document comes from a target rather than from the pool it is chosen from, by a fastText classifier."""

from dataclasses import dataclass
from typing import ClassVar

from gristmill.models.classifier_training import POSITIVE
from gristmill.scorers.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class TargetClassifier(Classifier):
    """The probability that a document comes from the target.

    Args:
        label: The label of the target.
    """

    name: ClassVar[str] = "target_classifier"
    version: ClassVar[int] = 2
    trained_models: ClassVar[dict[str, str]] = {"model": "target_classifier"}
    column: ClassVar[str] = "target_probability"
    source: ClassVar[str] = "fastText (Joulin et al. 2017); as a filter, Li et al. 2024, DataComp-LM"

    label: str = POSITIVE

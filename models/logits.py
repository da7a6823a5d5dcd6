"""What the logits of a sequence classification mean: classes with a worth, labels, or values."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.models.rater import Head, Outputs, RaterError, Ratings, Reading

HEADS: dict[str, Head] = {
    "single_label_classification": "classes",
    "multi_label_classification": "labels",
    "regression": "regression",
}
"""Ours of the `problem_type` of transformers."""
NUMBERED_LABEL = re.compile(r"(?:LABEL_)?(-?\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Meaning:
    """What the k logits of a model mean.

    Args:
        head: The kind.
        num_logits: k.
        outputs: Values, and the worth of classes.
        chosen: The logits that are values, where those are no expectation over classes.
    """

    head: Head
    num_logits: int
    outputs: Outputs
    chosen: tuple[int, ...] = ()

    def ratings(self, logits: npt.NDArray[np.float64]) -> Ratings:
        """Ratings of n documents.

        Args:
            logits: float64[n, k].
        """
        if self.outputs.classes is None:
            values = logits[:, self.chosen]
            if self.head == "labels":
                values = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
            return Ratings(values.astype(np.float32), None)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        worth = np.array(self.outputs.classes)
        # Rounding may lead beyond the best class.
        values = np.clip(probabilities @ worth, worth.min(), worth.max())
        return Ratings(values[:, None].astype(np.float32), probabilities.astype(np.float32))


def meaning_of(config: dict[str, Any], reading: Reading) -> Meaning:
    """What a model's logits mean, by its configuration and what the recipe adds.

    Without a `problem_type` one logit is a regression, as transformers trains it, and several are classes. A class is
    worth its number where labels are numbers (`LABEL_3` or `3`); where one label counts, that is worth 1 and all
    others 0.

    Args:
        config: The content of config.json.
        reading: Head and label where the recipe names them.

    Raises:
        RaterError: If labels are words and none was named, or there is no such label.
    """
    labels = labels_of(config)
    head = reading.head or HEADS.get(config.get("problem_type") or "", _usual_head(labels))
    chosen = None if reading.label is None else _position(labels, reading.label)
    if head != "classes":
        columns = tuple(range(len(labels))) if chosen is None else (chosen,)
        return Meaning(head, len(labels), Outputs(tuple(labels[i] for i in columns), None), columns)
    if len(labels) < 2:
        raise RaterError("one logit tells no classes apart; say `head: regression`, or `head: labels`")
    if chosen is None:
        return Meaning(head, len(labels), Outputs(("expectation",), _worth(labels)))
    worth = tuple(float(i == chosen) for i in range(len(labels)))
    return Meaning(head, len(labels), Outputs((labels[chosen],), worth))


def labels_of(config: dict[str, Any]) -> list[str]:
    """Names of the logits, as transformers names them where the configuration does not.

    Raises:
        RaterError: If they are not numbered from 0.
    """
    default = {str(i): f"LABEL_{i}" for i in range(config.get("num_labels", 2))}
    named = config.get("id2label") or default
    if not isinstance(named, dict) or set(named) != set(map(str, range(len(named)))):
        raise RaterError(f"found id2label {named!r}; expected a name for each logit from 0 up")
    return [str(named[str(i)]) for i in range(len(named))]


def _usual_head(labels: list[str]) -> Head:
    return "regression" if len(labels) == 1 else "classes"


def _position(labels: list[str], label: str | int) -> int:
    if isinstance(label, int):
        if 0 <= label < len(labels):
            return label
    elif label in labels:
        return labels.index(label)
    raise RaterError(
        f"found the label {label!r}; expected one of {', '.join(labels)}, or a number from 0 to {len(labels) - 1}"
    )


def _worth(labels: list[str]) -> tuple[float, ...]:
    matches = [NUMBERED_LABEL.fullmatch(label) for label in labels]
    worth = tuple(float(match[1]) for match in matches if match)
    if len(worth) < len(labels):
        raise RaterError(
            f"its classes are {', '.join(labels)}, which have no worth; say `label`, the one that counts"
        )
    return worth

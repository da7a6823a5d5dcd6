"""Raters: models that read documents and give them values, whoever trained them.

One is a Hugging Face model of sequence classification (`models/sequence_classifier.py`), another was trained here
(`models/rater_head.py`). `models/load_rater.py` tells them apart.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

RATER_FILE = "rater.json"
"""In the folder of every rater trained here."""

Head = Literal["classes", "labels", "regression"]
"""What logits mean: softmax over classes that exclude each other, a sigmoid for each label, or values as they are."""
LongTexts = Literal["windows", "truncate"]
Dtype = Literal["auto", "float32", "bfloat16"]
"""Of weights; `auto` is bfloat16 on a GPU and float32 on the CPU."""


class RaterError(ValueError):
    """A rater that cannot be used, and why."""


@dataclass(frozen=True)
class Reading:
    """How a Hugging Face model reads documents, where that can be chosen; a rater trained here knows it all.

    Args:
        head: What its logits mean; by default as its configuration says.
        label: The label that counts, by name or number: the value is its probability, or its output in a regression.
        window: Tokens read together, special ones included; by default all that the model reads at once.
        long_texts: `windows`, which are all read, or `truncate`: only the first.
        special_tokens: Whether each window has the special tokens that the tokenizer puts around a text.
        dtype: Of the weights.
    """

    head: Head | None = None
    label: str | int | None = None
    window: int | None = None
    long_texts: LongTexts = "windows"
    special_tokens: bool = True
    dtype: Dtype = "auto"


@dataclass(frozen=True)
class Outputs:
    """What a rater gives each document.

    Args:
        names: Names of its v values.
        classes: What each of k classes is worth, so that a value is the sum of worth times probability; None where
            values are no expectation over classes.
    """

    names: tuple[str, ...]
    classes: tuple[float, ...] | None


@dataclass(frozen=True)
class Ratings:
    """Ratings of n documents.

    Args:
        values: Expectations over the classes, probabilities of labels, or outputs of a regression, float32[n, v].
        probabilities: Of the classes, float32[n, k]; None where there are none.
    """

    values: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None


class Rater(Protocol):
    """A model that rates documents; the same document is rated the same in any batch, up to rounding."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its v values."""

    @property
    def classes(self) -> tuple[float, ...] | None:
        """What each of its k classes is worth, None where values are no expectation over classes."""

    def rate(self, texts: pa.LargeStringArray) -> Ratings:
        """Rate n documents; where the model finds nothing to read, all is 0."""

"""Any Hugging Face model of sequence classification or regression as a rater of documents.

Documents are cut into windows that the model reads at once, and the mean of the windows' logits, weighted by their
tokens, is the document's. Logits, because a regression's are its values and QuRating (arXiv 2402.09739) averages its
own so; for classes it lets a window that is sure count for more than one that is not, where a mean of probabilities
would count undecided windows in full.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.hugging_face import CONFIG, check_files, digest_of, load_model
from gristmill.models.logits import Meaning, meaning_of
from gristmill.models.padded_windows import Template, mean_of_windows, padding_of, window_of, window_outputs
from gristmill.models.rater import Outputs, RaterError, Ratings, Reading
from gristmill.models.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.windows import split_windows

if TYPE_CHECKING:
    import torch

KIND = "sequence classification"


@dataclass(frozen=True)
class Plan:
    """How a model reads documents, from its small files alone.

    Args:
        meaning: Of its logits.
        template: How a window becomes a row of tokens.
        window: Tokens of a document read together.
    """

    meaning: Meaning
    template: Template
    window: int


class SequenceClassifier:
    """A model of sequence classification with its tokenizer.

    Args:
        path: Its directory, for errors.
        model: A model class of transformers.
        tokenizer: The tokenizer it was trained with.
        plan: How it reads documents.
        truncate: Whether it reads only the first window of each.
    """

    def __init__(self, path: str, model: Any, tokenizer: Tokenizer, plan: Plan, truncate: bool) -> None:
        self._path = path
        self._model = model
        self._tokenizer = tokenizer
        self._plan = plan
        self._truncate = truncate

    @classmethod
    def load(cls, path: str, reading: Reading) -> Self:
        """Load a Hugging Face directory, weights from safetensors only.

        Raises:
            ModelError: If the directory is incomplete, its weights are pickled, missing or not finite, or the
                tokenizer does not match.
            RaterError: If it is no sequence classification, or not clear what its outputs mean.
        """
        from transformers import AutoModelForSequenceClassification

        tokenizer, plan = plan_reading(path, reading)
        model = load_model(AutoModelForSequenceClassification, path, reading.dtype)
        # Models that decide at the last token look for it before the padding.
        model.config.get_text_config().pad_token_id = plan.template.padding
        return cls(path, model, tokenizer, plan, reading.long_texts == "truncate")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its values."""
        return self._plan.meaning.outputs.names

    @property
    def classes(self) -> tuple[float, ...] | None:
        """What each class is worth, None where values are no expectation over classes."""
        return self._plan.meaning.outputs.classes

    def rate(self, texts: pa.LargeStringArray) -> Ratings:
        """Rate n documents.

        The same text has the same logits in any batch up to 1e-5 in float32. Text without tokens gets 0 everywhere.

        Raises:
            RaterError: If the model gives NaN or infinite logits.
        """
        tokenized = self._tokenizer.encode(texts)
        windows = split_windows(tokenized.offsets, self._plan.window, self._plan.window)
        if self._truncate:
            windows = windows.where(np.diff(windows.documents, prepend=-1) > 0)
        num_logits = self._plan.meaning.num_logits
        logits = window_outputs(
            self._model, self._logits, tokenized.tokens, windows, self._plan.template, num_logits
        )
        if not np.isfinite(logits).all():
            raise RaterError(
                f"{self._path}: the model gives NaN or infinite logits; try `dtype: float32`, or another model"
            )
        documents, means = mean_of_windows(logits, windows)
        return _spread(self._plan.meaning.ratings(means), documents, len(texts))

    def _logits(self, inputs: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        found: torch.Tensor = self._model(input_ids=inputs, attention_mask=mask).logits
        return found


def describe(path: str, reading: Reading) -> Outputs:
    """What a model gives each document, from its small files alone.

    Raises:
        ModelError: If the directory cannot hold a usable model.
        RaterError: If it is no sequence classification, or not clear what its outputs mean.
    """
    return plan_reading(path, reading)[1].meaning.outputs


def digest(path: str) -> str:
    """BLAKE2b of all that its numbers depend on, 32 hexadecimal digits, of a directory that was described."""
    return digest_of(path, (CONFIG, TOKENIZER_CONFIG))


def plan_reading(path: str, reading: Reading) -> tuple[Tokenizer, Plan]:
    """A model's tokenizer and how it reads documents, from its small files alone.

    Raises:
        ModelError: If the directory cannot hold a usable model, or windows do not fit it.
        RaterError: If it is no sequence classification, or not clear what its outputs mean.
    """
    config, tokenizer = check_files(path, KIND)
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise RaterError(
            f"{path}: found {', '.join(architectures) or 'no architecture'} in {CONFIG}; "
            "expected one for sequence classification"
        )
    try:
        meaning = meaning_of(config, reading)
    except RaterError as error:
        raise RaterError(f"{path}: {error}") from error
    before, after = tokenizer.special_tokens if reading.special_tokens else ((), ())
    template = Template(before, after, padding_of(path, config))
    return tokenizer, Plan(meaning, template, window_of(path, config, template, reading.window))


def _spread(ratings: Ratings, documents: npt.NDArray[np.int64], num_texts: int) -> Ratings:
    """Ratings of all n texts from those of some, 0 for the others."""

    def place(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        found = np.zeros((num_texts, rows.shape[1]), np.float32)
        found[documents] = rows
        return found

    probabilities = None if ratings.probabilities is None else place(ratings.probabilities)
    return Ratings(place(ratings.values), probabilities)

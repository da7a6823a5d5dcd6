"""fastText classifiers (Joulin et al. 2017): load a `.bin` or `.ftz` file, label texts.

fastText reads one text a line, takes words that start with `__label__` for labels and the word `</s>` for the end of
the line, so line ends, that prefix and that word become blanks. Two faults of its 0.9.2 wheel decide how it is asked:
single strings fail under NumPy 2, and lists get the probability of the likeliest label for every label.
"""

import hashlib
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

FILE = "classifier.bin"
LABEL_PREFIX = "__label__"
RESERVED = ("\n", LABEL_PREFIX, "</s>")


def one_line(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """The texts as fastText takes them, in training and after: no line end, no label; n texts."""
    for reserved in RESERVED:
        texts = pc.replace_substring(texts, reserved, " ")
    return texts


class TextClassifier:
    """A supervised fastText model.

    Args:
        model: What `fasttext.load_model` returns.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model.

        Raises:
            ValueError: If the file is no supervised fastText model.
        """
        import fasttext

        # Every load prints a warning about an interface that changed in 2020.
        with redirect_stderr(StringIO()):
            model = fasttext.load_model(str(classifier_file(path)))
        model.predict([""])
        return cls(model)

    @staticmethod
    def digest(path: Path) -> str:
        """Hash of the model's bytes."""
        with classifier_file(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

    @property
    def labels(self) -> list[str]:
        """All labels, without fastText's prefix and otherwise as trained ("en", "eng_Latn")."""
        return [label.removeprefix(LABEL_PREFIX) for label in self._model.get_labels()]

    def predict(self, texts: pa.LargeStringArray) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The likeliest label of each text.

        Args:
            texts: n texts.

        Returns:
            n labels, empty where the model knows no word of a text, and their probabilities in [0, 1],
            float32, shape (n,); fastText's own exceed 1 by rounding.
        """
        labels, probabilities = self._model.predict(one_line(texts).to_pylist())
        best = [label[0].removeprefix(LABEL_PREFIX) if len(label) else "" for label in labels]
        values = np.array([value[0] if len(value) else 0.0 for value in probabilities], np.float32)
        return best, np.clip(values, 0, 1)

    def probability(self, texts: pa.LargeStringArray, label: str) -> npt.NDArray[np.float32]:
        """Probability of one label for each text.

        Args:
            texts: n texts.
            label: One of `labels`.

        Returns:
            float32, shape (n,), in [0, 1]; 0 where the model gives the label no probability.
        """
        wanted = f"{LABEL_PREFIX}{label}"
        predict = self._model.f.predict
        found = [
            {name: value for value, name in predict(f"{line}\n", -1, 0.0, "strict")}
            for line in one_line(texts).to_pylist()
        ]
        return np.clip(np.array([by_label.get(wanted, 0.0) for by_label in found], np.float32), 0, 1)


def classifier_file(path: Path) -> Path:
    """The model file a path means: itself, or the one in a folder."""
    return path / FILE if path.is_dir() else path

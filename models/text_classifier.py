"""fastText classifiers (Joulin et al. 2017): load a `.bin` or `.ftz` file, label texts.

A model of two labels, words and softmax (PreSelect's, DCLM's, NeMo Curator's, those trained here) becomes a
`LinearClassifier`, four times as fast as the library and a fortieth of its size. All others are asked through
fastText's binding, which holds the whole file in the memory of each process. Two faults of its 0.9.2 wheel decide how:
single strings fail under NumPy 2, and lists get the probability of the likeliest label for every label.
"""

import hashlib
from contextlib import redirect_stderr
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.fasttext_file import FastTextFile
from gristmill.models.linear_classifier import LinearClassifier
from gristmill.models.one_line import LABEL_PREFIX, Family, one_line, read_family

FILE = "classifier.bin"


class TextClassifier:
    """A supervised fastText model.

    Args:
        path: The model's file.
        family: How texts become lines.
        linear: The model in a form of its own, None where it takes the library.
    """

    def __init__(self, path: Path, family: Family, linear: LinearClassifier | None) -> None:
        self._path = path
        self._family = family
        self._linear = linear

    @classmethod
    def load(cls, path: Path, family: Family | None = None) -> Self:
        """Read a model.

        Args:
            path: A `.bin` or `.ftz` file, or the folder of a model trained here.
            family: How texts become lines; by default as the folder says, else `default`.

        Raises:
            ValueError: If the file is no supervised fastText model, or the family is not the one of the folder.
        """
        file = classifier_file(path)
        model = FastTextFile.read(file)
        linear = LinearClassifier.fold(model) if model else None
        classifier = cls(file, family_of(path, family), linear)
        _ = classifier.labels
        return classifier

    @staticmethod
    def digest(path: Path) -> str:
        """Hash of the model's bytes, read once in a process while its size and time stay."""
        file = classifier_file(path)
        found = file.stat()
        return _digest(file, found.st_size, found.st_mtime_ns)

    @property
    def labels(self) -> list[str]:
        """All labels, without fastText's prefix and otherwise as trained ("en", "eng_Latn")."""
        labels = self._linear.labels if self._linear else self._binding.get_labels()
        return [label.removeprefix(LABEL_PREFIX) for label in labels]

    def predict(self, texts: pa.LargeStringArray) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The likeliest label of each text.

        Args:
            texts: n texts.

        Returns:
            n labels, empty where the model knows no word of a text, and their probabilities in [0, 1],
            float32, shape (n,); fastText's own exceed 1 by rounding.
        """
        labels, probabilities = self._binding.predict(one_line(texts, self._family).to_pylist())
        best = [label[0].removeprefix(LABEL_PREFIX) if len(label) else "" for label in labels]
        values = np.array([value[0] if len(value) else 0.0 for value in probabilities], np.float32)
        return best, np.clip(values, 0, 1)

    def probability(self, texts: pa.LargeStringArray, label: str) -> npt.NDArray[np.float32]:
        """Probability of one label for each text; every label is asked for it.

        Args:
            texts: n texts.
            label: One of `labels`.

        Returns:
            float32, shape (n,), in [0, 1]; 0 where the model gives the label no probability.
        """
        lines, wanted = one_line(texts, self._family), f"{LABEL_PREFIX}{label}"
        if self._linear:
            return self._linear.probability(lines, wanted)
        predict = self._binding.f.predict
        found = [
            {name: value for value, name in predict(f"{line}\n", -1, 0.0, "strict")}
            for line in lines.to_pylist()
        ]
        return np.clip(np.array([by_label.get(wanted, 0.0) for by_label in found], np.float32), 0, 1)

    @cached_property
    def _binding(self) -> Any:
        import fasttext

        # Every load prints a warning about an interface that changed in 2020.
        with redirect_stderr(StringIO()):
            model = fasttext.load_model(str(self._path))
        model.predict([""])
        return model


@lru_cache
def _digest(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def family_of(path: Path, family: Family | None) -> Family:
    """How texts become lines for the model at a path.

    Raises:
        ValueError: If its folder says otherwise than was asked for.
    """
    trained = read_family(path)
    if family is not None and trained not in (None, family):
        raise ValueError(
            f"its texts became lines by {trained!r}, and {family!r} is asked for; leave that out"
        )
    return trained or family or "default"


def classifier_file(path: Path) -> Path:
    """The model file a path means: itself, or the one in a folder."""
    return path / FILE if path.is_dir() else path

"""Raters trained here: a linear head over a text's bag of words and pairs; `rater_training` is what makes them.

In a folder:

    rater.json   kind, name, what the classes are worth
    head.npz     buckets that count, int32[b]; how rare they are, float32[b]; weights, float32[b, k]; bias, float64[k]
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.bag_of_words import BUCKET_BITS, Rarity, count_words
from gristmill.models.rater import RATER_FILE, Outputs, RaterError, Ratings

KIND = "linear head over words and pairs"
HEAD_FILE = "head.npz"
ARRAYS = ("buckets", "rarity", "weights", "bias")


@dataclass(frozen=True)
class RaterHead:
    """A linear regression, or a softmax over classes.

    Args:
        name: Of its value.
        classes: What each of k classes is worth, None for a regression.
        rarity: Of the buckets.
        weights: Of the buckets, float32[2 ** BUCKET_BITS, k]; a regression has one column.
        bias: float64[k].
    """

    name: str
    classes: tuple[float, ...] | None
    rarity: Rarity
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float64]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder.

        Raises:
            RaterError: If it holds no such rater.
        """
        outputs = describe(folder)
        buckets, rarity, weights, bias = _read_arrays(folder / HEAD_FILE)
        dense = np.zeros(1 << BUCKET_BITS, np.float32)
        dense[buckets] = rarity
        dense_weights = np.zeros((len(dense), weights.shape[1]), np.float32)
        dense_weights[buckets] = weights
        return cls(outputs.names[0], outputs.classes, Rarity(dense), dense_weights, bias)

    def save(self, folder: Path) -> None:
        """Write into a folder; the same head gives the same bytes."""
        buckets = np.flatnonzero(self.rarity.weights).astype(np.int32)
        arrays = (buckets, self.rarity.weights[buckets], self.weights[buckets], self.bias)
        with (folder / HEAD_FILE).open("wb") as file:
            named: dict[str, Any] = dict(zip(ARRAYS, arrays, strict=True))
            np.savez(file, allow_pickle=False, **named)
        said = {"kind": KIND, "name": self.name, "classes": self.classes}
        (folder / RATER_FILE).write_text(json.dumps(said, indent=2))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of its value."""
        return (self.name,)

    def rate(self, texts: pa.LargeStringArray) -> Ratings:
        """Rate n documents; those without any word get 0 everywhere."""
        counts = count_words(texts)
        has_words = np.diff(counts.indptr)[:, None] > 0
        outputs = self.rarity.weigh(counts) @ self.weights + self.bias
        if self.classes is None:
            return Ratings(np.where(has_words, outputs, 0).astype(np.float32), None)
        probabilities = np.where(has_words, softmax(outputs), 0)
        values = (probabilities * np.array(self.classes)).sum(axis=1, keepdims=True)
        return Ratings(values.astype(np.float32), probabilities.astype(np.float32))


def describe(folder: Path) -> Outputs:
    """What a rater gives each document, from its small file alone.

    Raises:
        RaterError: If it is none of this kind.
    """
    file = folder / RATER_FILE
    try:
        said: Any = json.loads(file.read_text())
        is_ours = said["kind"] == KIND
        classes = None if said["classes"] is None else tuple(float(worth) for worth in said["classes"])
        name = str(said["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RaterError(f"{file}: no rater that was trained here ({error!r}); train it again") from error
    if not is_ours:
        raise RaterError(f"{file}: found the kind {said['kind']!r}; expected {KIND!r}; train it again")
    return Outputs((name,), classes)


def digest(folder: Path) -> str:
    """BLAKE2b of all that its numbers depend on, 32 hexadecimal digits."""
    files = [folder / name for name in (RATER_FILE, HEAD_FILE)]
    return _digest_of(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for path, _, _ in files:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "blake2b").digest())
    return found.hexdigest()


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities of k classes, float64[n, k]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _read_arrays(file: Path) -> tuple[npt.NDArray[Any], ...]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return tuple(arrays[name] for name in ARRAYS)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise RaterError(f"{file}: no head of a rater ({error}); train it again") from error

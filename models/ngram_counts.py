"""Counts of hashed n-grams in a target and in a pool: what importance weights are computed from."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = "ngram_counts.npy"

Counts = npt.NDArray[np.int64]


def save(folder: str, target_counts: Counts, pool_counts: Counts) -> None:
    """Write counts into a folder as NumPy's `.npy`, int64, shape (2, buckets): target, pool.

    Args:
        folder: An existing folder.
        target_counts: Occurrences in the target of the n-grams of each bucket, int64[buckets].
        pool_counts: Occurrences in the pool, int64[buckets].

    Raises:
        ValueError: If these are no such counts, or one of the two has no n-gram at all.
    """
    np.save(_file(folder), _checked(np.stack([target_counts, pool_counts])), allow_pickle=False)


def load(folder: str) -> Counts:
    """Read the counts of a folder, int64, shape (2, buckets): target, pool.

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds no such counts.
    """
    with _file(folder).open("rb") as file:
        try:
            return _checked(np.lib.format.read_array(file, allow_pickle=False))
        except ValueError as error:
            raise ValueError(f"{_file(folder)} holds no n-gram counts: {error}") from error


def digest(folder: str) -> str:
    """BLAKE2b of the counts' file, 32 hexadecimal digits."""
    return hashlib.blake2b(_file(folder).read_bytes(), digest_size=16).hexdigest()


def _file(folder: str) -> Path:
    return Path(folder) / FILE


def _checked(counts: npt.NDArray[Any]) -> Counts:
    if counts.dtype != np.int64 or counts.ndim != 2 or len(counts) != 2:
        raise ValueError(
            f"found {counts.dtype} of shape {counts.shape}, expected int64 of shape (2, buckets)"
        )
    if counts.min(initial=0) < 0:
        raise ValueError(f"found the count {counts.min()}, expected none below 0")
    for name, total in zip(("target", "pool"), counts.sum(axis=1).tolist(), strict=True):
        if total == 0:
            raise ValueError(
                f"found no n-gram in the {name}, expected at least one: give it texts with words"
            )
    return counts

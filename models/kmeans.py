"""Clusters of embeddings: spherical k-means (Dhillon and Modha 2001), on a sample that fits into memory.

The sample's mean is taken away first: mean hidden states of a language model all point about one way, and their
directions from the middle tell them apart.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

Vectors = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

FILE = "clusters.safetensors"
BLOCK_ROWS = 1 << 14
"""Vectors compared with the centroids at once: 128 MB of similarities to 1,000 centroids."""


@dataclass(frozen=True)
class Clusters:
    """k clusters of embeddings.

    Args:
        centre: Mean of the embeddings, float32[d].
        centroids: Directions from it, unit vectors, float32[k, d].
        target_share: Share of the target's documents that fall into each, float64[k]; zeros where there is no target.
    """

    centre: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    target_share: npt.NDArray[np.float64]

    def assign(self, vectors: Vectors) -> Rows:
        """The cluster of each embedding, shape (n, d): int64[n]."""
        return nearest_centroids(vectors - self.centre, self.centroids)[0]

    def save(self, folder: Path) -> None:
        """Write `clusters.safetensors`."""
        save_file(vars(self), folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Clusters":
        """Read what `save` wrote.

        Raises:
            ValueError: If it is not there, or is something else.
        """
        try:
            return cls(**load_file(folder / FILE))
        except (OSError, TypeError, SafetensorError) as error:
            raise ValueError(
                f"{folder / FILE}: no clusters ({error!r}); expected those of `models.clusters`"
            ) from error


def digest(folder: Path) -> str:
    """Hash of the clusters' bytes.

    Raises:
        ValueError: If they are not there.
    """
    try:
        return hashlib.blake2b((folder / FILE).read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise ValueError(
            f"{folder / FILE}: no clusters ({error.strerror}); expected those of `models.clusters`"
        ) from error


def fit_centroids(vectors: Vectors, num_clusters: int, *, seed: int, iterations: int = 20) -> Vectors:
    """Centroids whose cosine similarity to the vectors nearest to them is large.

    The first centroids are random vectors. A cluster that loses all its vectors takes the one that is least like its
    own centroid.

    Args:
        vectors: Shape (n, d), any float dtype, finite, n > 0.
        num_clusters: At most n are made.
        seed: Of the first centroids.
        iterations: Rounds at most; fewer where nothing moves. INGENIOUS (arXiv 2305.06677) takes 20.

    Returns:
        Unit vectors, float32[k, d].
    """
    units = unit_vectors(vectors)
    k = min(num_clusters, len(units))
    centroids = units[np.random.default_rng(seed).choice(len(units), k, replace=False)]
    before = np.full(len(units), -1)
    for _ in range(iterations):
        nearest, similarity = nearest_centroids(units, centroids)
        if np.array_equal(nearest, before):
            break
        before = nearest.copy()
        empty = np.setdiff1d(np.arange(k), nearest)
        nearest[np.argsort(similarity, kind="stable")[: len(empty)]] = empty
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(units[order].astype(np.float64), starts, axis=0)
        centroids = centroids.copy()
        centroids[found] = unit_vectors(sums)
    return centroids


def nearest_centroids(vectors: Vectors, centroids: Vectors) -> tuple[Rows, npt.NDArray[np.float64]]:
    """The most similar centroid of each vector, the first of equal ones, and its cosine similarity.

    Args:
        vectors: Shape (n, d), finite; zero vectors are like none and fall to the first centroid.
        centroids: Unit vectors, shape (k, d).

    Returns:
        int64[n], float64[n].
    """
    nearest = np.empty(len(vectors), np.int64)
    similarity = np.empty(len(vectors))
    towards = centroids.astype(np.float64).T
    for start in range(0, len(vectors), BLOCK_ROWS):
        some = slice(start, start + BLOCK_ROWS)
        similarities = unit_vectors(vectors[some]).astype(np.float64) @ towards
        nearest[some] = similarities.argmax(axis=1)
        similarity[some] = similarities.max(axis=1)
    return nearest, similarity


def unit_vectors(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Vectors of length 1 in the same directions, float32[n, d]; zero vectors stay."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(lengths == 0, 1, lengths)).astype(np.float32)

"""Which cluster of the corpus a document is in, and how much of the target is in it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.models.kmeans import Clusters, digest
from gristmill.scorers.base import Column, DerivedScorer, ModelPath, ScorerError
from gristmill.scorers.embedding import read_vectors
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class EmbeddingClusters(DerivedScorer):
    """The centroid nearest to a document's embedding.

    Args:
        model: Folder with `clusters.safetensors`; by default the one made in the workspace.
        versions: Input -> scorer and fingerprint of what made it; the pipeline fills it in.
    """

    name: ClassVar[str] = "clusters"
    version: ClassVar[int] = 1
    trained_models = MappingProxyType({"model": "clusters"})

    model: ModelPath
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The cluster, and the target's share of documents in it."""
        return (
            Column(
                name="cluster",
                type=pa.int32(),
                description="Number of the centroid in the direction of the embedding from the mean, -1 without one",
                unit="cluster",
                minimum=-1,
                empty=-1,
                source="spherical k-means, Dhillon and Modha 2001",
            ),
            Column(
                name="cluster_target_share",
                type=pa.float64(),
                description="Share of the target's documents that fall into the same cluster",
                unit="fraction",
                minimum=0,
                maximum=1,
                higher_is_better=True,
                source="feature mapping of DP4TL, arXiv 2310.08782",
                deviation="clusters stand for classes, cosine similarity for L2 distance",
            ),
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The embedding."""
        return ("embedding",)

    def model_digests(self) -> dict[str, str]:
        """The centroids."""
        try:
            return {"model": digest(Path(self.model))}
        except ValueError as error:
            raise ScorerError(f"{self.name}.model: {error}") from error

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Find the clusters of n documents."""
        rows, vectors = read_vectors(batch.documents["embedding"])
        cluster = np.full(len(batch), -1, np.int32)
        if len(rows) and vectors.shape[1] != self._clusters.centroids.shape[1]:
            raise ScorerError(
                f"{self.name}.model: centroids of {self._clusters.centroids.shape[1]} numbers, embeddings of "
                f"{vectors.shape[1]}; expected both from one model"
            )
        if len(rows):
            cluster[rows] = self._clusters.assign(vectors)
        share = np.where(cluster < 0, 0.0, self._clusters.target_share[cluster])
        return pa.RecordBatch.from_arrays([pa.array(cluster), pa.array(share)], schema=self.schema())

    @cached_property
    def _clusters(self) -> Clusters:
        try:
            return Clusters.load(Path(self.model))
        except ValueError as error:
            raise ScorerError(f"{self.name}.model: {error}") from error

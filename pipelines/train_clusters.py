"""Clusters of the corpus by embedding, and how the target falls into them (feature mapping, arXiv 2310.08782).

The launcher holds embeddings of a seeded sample of the corpus, 26 bytes a number, and one batch of the target's texts.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.models.kmeans import Clusters, fit_centroids
from gristmill.pipelines import files
from gristmill.pipelines.score_documents import MODEL_VIEW_BYTES, MODEL_VIEW_ROWS, cut_batches
from gristmill.pipelines.train_models import trained_scorer
from gristmill.pipelines.training import Training
from gristmill.scorers.base import RecipeError, Scorer
from gristmill.scorers.doc_ids import random_keys
from gristmill.scorers.embedding import Embedding, read_vectors
from gristmill.scorers.text import TextBatch

SAMPLE_SEED = 1 << 38


def make_clusters(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Fit centroids to a sample of the corpus, and count the target's documents in each cluster."""
    spec = training.models.clusters
    scorer = trained_scorer(training.recipe, Embedding.name)
    vectors = sample_vectors(training, scorer)
    if not len(vectors):
        raise RecipeError("models.clusters: no document has an embedding; expected a corpus with text")
    centre = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    centroids = fit_centroids(vectors - centre, spec.num_clusters, seed=spec.seed)
    counts = np.zeros(len(centroids))
    clusters = Clusters(centre, centroids, counts)
    if training.target:
        counts = count_target(training, scorer, clusters)
        clusters = replace(clusters, target_share=counts / max(counts.sum(), 1))
    clusters.save(made)
    return {
        "num_clusters": len(centroids),
        "num_sampled": len(vectors),
        "num_target": int(counts.sum()),
        "num_target_clusters": int((counts > 0).sum()),
    }


def sample_vectors(training: Training, scorer: Scorer) -> npt.NDArray[np.float16]:
    """Embeddings of about as many documents as the recipe says, shape (n, d)."""
    spec = training.models.clusters
    num_documents = sum(shard.num_rows for shard in training.shards)
    share = spec.max_documents / max(num_documents, 1)
    found = []
    for shard in training.shards:
        with files.open_read(
            training.workspace.scores(scorer.name, scorer.fingerprint(), shard.name)
        ) as file:
            for batch in pq.ParquetFile(file).iter_batches(
                columns=["doc_id", "embedding"], use_threads=False
            ):
                keys = random_keys(pa.chunked_array([batch["doc_id"]]), SAMPLE_SEED + spec.seed)
                _, vectors = read_vectors(batch["embedding"].filter(pa.array(keys < share)))
                found += [vectors] if len(vectors) else []
    return np.concatenate(found) if found else np.empty((0, 0), np.float16)


def count_target(training: Training, scorer: Scorer, clusters: Clusters) -> npt.NDArray[np.float64]:
    """Documents of the target in each cluster, without those held out; embedded as the models see them."""
    scorer.setup()
    counts = np.zeros(len(clusters.centroids))
    for batch in _batches(training):
        _, vectors = read_vectors(scorer.score(TextBatch(batch))["embedding"])
        if len(vectors):
            counts += np.bincount(clusters.assign(vectors), minlength=len(counts))
    return counts


def _batches(training: Training) -> Iterator[pa.RecordBatch]:
    for batch in cut_batches(training.target_documents(), MODEL_VIEW_BYTES, MODEL_VIEW_ROWS):
        if len(batch):
            yield batch

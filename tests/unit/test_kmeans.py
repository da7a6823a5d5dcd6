"""Clusters of embeddings: every vector at its nearest centroid, the same for any order of batches."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.kmeans import Clusters, digest, fit_centroids, nearest_centroids, unit_vectors
from gristmill.scorers.base import ScorerError
from gristmill.scorers.clusters_of_embeddings import EmbeddingClusters
from gristmill.scorers.text import TextBatch

AXES = np.eye(4, dtype=np.float32)
MIDDLE = np.full(4, 50, np.float32)


def blobs(sizes, seed=0):
    """Vectors about the axes, so many each."""
    rng = np.random.default_rng(seed)
    parts = [AXES[axis] + rng.normal(0, 0.05, (size, 4)) for axis, size in enumerate(sizes)]
    return np.concatenate(parts).astype(np.float16)


def test_clusters_that_are_apart_are_found():
    vectors = blobs([40, 30, 20, 10])
    centroids = fit_centroids(vectors, 4, seed=1)
    nearest, similarity = nearest_centroids(vectors, centroids)
    groups = [set(nearest[start:end]) for start, end in ((0, 40), (40, 70), (70, 90), (90, 100))]
    assert sorted(map(len, groups)) == [1, 1, 1, 1]
    assert set.union(*groups) == {0, 1, 2, 3}
    assert similarity.min() > 0.9
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-6)


def test_the_same_seed_finds_the_same():
    vectors = blobs([20, 20, 20, 20])
    np.testing.assert_array_equal(fit_centroids(vectors, 3, seed=5), fit_centroids(vectors, 3, seed=5))


@pytest.mark.parametrize("vectors", [np.zeros((6, 3)), np.ones((6, 3)), np.eye(2)])
def test_vectors_that_are_alike_or_few_have_clusters_too(vectors):
    centroids = fit_centroids(vectors, 3, seed=0)
    assert centroids.shape == (min(3, len(vectors)), vectors.shape[1])
    assert np.isfinite(centroids).all()


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-10, 10, width=16), min_size=3, max_size=3), min_size=1, max_size=20))
def test_a_vector_is_assigned_alone_as_among_others(rows):
    vectors, centroids = np.array(rows, np.float16), unit_vectors(np.eye(3) + 0.1)
    together, _ = nearest_centroids(vectors, centroids)
    alone = [nearest_centroids(vectors[row : row + 1], centroids)[0][0] for row in range(len(vectors))]
    wide = vectors.astype(float)
    for cluster, other, vector in zip(together, alone, wide, strict=True):
        near = centroids @ vector
        assert near[cluster] == pytest.approx(near.max(), abs=1e-5)
        assert near[other] == pytest.approx(near.max(), abs=1e-5)


def test_clusters_survive_the_disk(tmp_path):
    before = Clusters(MIDDLE, AXES, np.array([0.5, 0.25, 0.25, 0.0]))
    before.save(tmp_path)
    after = Clusters.load(tmp_path)
    np.testing.assert_array_equal(after.centroids, before.centroids)
    np.testing.assert_array_equal(after.target_share, before.target_share)
    first = digest(tmp_path)
    Clusters(MIDDLE, AXES, np.zeros(4)).save(tmp_path)
    assert digest(tmp_path) != first


def test_a_folder_without_clusters_is_said_to_be(tmp_path):
    for look in (Clusters.load, digest):
        with pytest.raises(ValueError, match=r"clusters.safetensors: no clusters .*expected those of"):
            look(tmp_path)


def batch(*vectors):
    kind = pa.list_(pa.field("item", pa.float16(), nullable=False))
    lists = pa.array([[np.float16(number) for number in vector] for vector in vectors], kind)
    return TextBatch(pa.RecordBatch.from_pydict({"embedding": lists}))


def test_documents_are_in_the_nearest_cluster_and_know_the_share_of_the_target(tmp_path):
    Clusters(MIDDLE, AXES, np.array([0.75, 0.0, 0.25, 0.0])).save(tmp_path)
    scorer = EmbeddingClusters(model=str(tmp_path))
    found = scorer.score(batch([59, 51, 50, 50], [], [50, 50, 51, 50], [50, 52, 51, 50], [np.nan, 0, 0, 0]))
    assert found.to_pydict() == {
        "cluster": [0, -1, 2, 1, -1],
        "cluster_target_share": [0.75, 0.0, 0.25, 0.0, 0.0],
    }
    assert scorer.score(batch()).schema == scorer.schema()


def test_embeddings_of_another_width_are_refused(tmp_path):
    Clusters(MIDDLE, AXES, np.zeros(4)).save(tmp_path)
    with pytest.raises(ScorerError, match=r"clusters.model: centroids of 4 numbers, embeddings of 3"):
        EmbeddingClusters(model=str(tmp_path)).score(batch([1, 2, 3]))

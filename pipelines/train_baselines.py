"""The models of the baselines: n-gram counts for importance weights (DSIR), and a classifier of target against pool."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models import ngram_counts
from gristmill.models.classifier_quality import quality
from gristmill.models.classifier_training import POSITIVE, train_classifier
from gristmill.models.text_classifier import FILE, TextClassifier
from gristmill.pipelines import files
from gristmill.pipelines.recipe_inputs import Target
from gristmill.pipelines.sample_texts import Sample, is_sampled, join_texts
from gristmill.pipelines.score_documents import cut_batches, read_batches
from gristmill.pipelines.target import target_texts, target_workspace
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError
from gristmill.scorers.importance import count_ngrams
from gristmill.scorers.text import TextBatch

Counts = npt.NDArray[np.int64]
MAX_JUDGED = 10_000
"""Held-out documents of the target by which its classifier is judged, and about as many of the pool."""


class CountNgrams(beam.PTransform):
    """(pool or target, shard) -> path of the file with the counts of each.

    Sums are of whole numbers, so they do not depend on the order. A worker holds 8 bytes a bucket.

    Args:
        training: Where the documents are.
        folder: Where the counts go, below the workspace.
    """

    def __init__(self, training: Training, folder: str) -> None:
        super().__init__()
        num_buckets = training.models.importance.num_buckets
        self.count = partial(
            count_shard, training.workspace, training.recipe.target, training.held_out, num_buckets
        )
        self.write = partial(write_counts, training.workspace, folder)

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return (
            shards
            | "CountShards" >> beam.Map(self.count)
            | "SumCounts" >> beam.CombinePerKey(sum_counts)
            | "WriteCounts" >> beam.MapTuple(self.write)
        )


def count_shard(
    workspace: Workspace,
    entries: Sequence[Target],
    held_out: Sample,
    num_buckets: int,
    element: tuple[str, Any],
) -> tuple[str, Counts]:
    """The hashed n-grams of one shard of pool or target, int64[num_buckets]."""
    kind, shard = element
    batches = read_batches(workspace, shard.name)
    if kind == "target":
        documents = target_texts(target_workspace(workspace, entries), [shard], entries)
        batches = (batch.filter(pc.invert(is_sampled(batch, held_out))) for batch in documents)
    counts = [count_ngrams(TextBatch(batch), num_buckets) for batch in cut_batches(batches)]
    return kind, sum_counts([np.zeros(num_buckets, np.int64), *counts])


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """The sum of counts, bucket by bucket."""
    return np.sum(list(counts), axis=0)


def write_counts(workspace: Workspace, folder: str, kind: str, counts: Counts) -> str:
    """Leave the counts for the launcher."""
    path = workspace.path(folder, f"{kind}.npy")
    content = io.BytesIO()
    np.save(content, counts, allow_pickle=False)
    files.commit_bytes(path, content.getvalue())
    return path


def make_importance(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Count the hashed n-grams of target and pool, in one pass."""
    workspace, counted = training.workspace, "models/.tmp-counts"
    elements = [("pool", shard) for shard in training.shards]
    elements += [("target", shard) for shard in training.target]
    training.run(elements, "CountNgrams" >> CountNgrams(training, counted))
    paths = [workspace.path(counted, f"{kind}.npy") for kind in ("pool", "target")]
    pool, target = (np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False) for path in paths)
    files.delete(paths)
    try:
        ngram_counts.save(str(made), target, pool)
    except ValueError as error:
        raise RecipeError(f"models.importance: {error}") from error
    return {"num_target_ngrams": int(target.sum()), "num_pool_ngrams": int(pool.sum())}


def make_target_classifier(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Train a fastText classifier of the target's documents against as many of the pool, and judge it by others."""
    spec = training.models.target_classifier
    num_target = sum(shard.num_rows for shard in training.target)
    num_pool = max(sum(shard.num_rows for shard in training.shards), 1)
    # By the seed of the held-out documents, these would be the first to be wanted.
    wanted = Sample(
        training.held_out.seed + 1 + spec.seed, 0.0, min(spec.max_documents / max(num_target, 1), 1.0)
    )
    positives = join_texts(
        batch["text"].filter(is_sampled(batch, wanted)) for batch in training.target_documents()
    )
    sample = Sample(spec.seed, 0.0, min(len(positives) / num_pool, 1.0))
    negatives = join_texts(training.texts(sample))
    path = made / FILE
    try:
        # Target and pool may differ in length, and then it tells them apart.
        train_classifier(
            positives, negatives, str(path), epoch=spec.epoch, seed=spec.seed, zero_end_of_line=False
        )
    except (ValueError, RuntimeError) as error:
        raise RecipeError(f"models.target_classifier: {error}") from error
    held_out = join_texts(batch["text"] for batch in training.held_out_documents())[:MAX_JUDGED]
    others = replace(sample, low=sample.high, high=sample.high + len(held_out) / num_pool)
    return {
        "num_positives": len(positives),
        "num_negatives": len(negatives),
        "quality": judge_classifier(made, held_out, join_texts(training.texts(others))),
    }


def judge_classifier(
    folder: Path, positives: pa.LargeStringArray, negatives: pa.LargeStringArray
) -> dict[str, Any] | None:
    """The quality of a classifier, as its manifest has it, by texts that it was not trained on.

    Args:
        folder: Where the classifier lies.
        positives: Texts of label 1.
        negatives: Texts of label 0.

    Returns:
        `Quality` and how many texts it rests on; None where a class has none.
    """
    if len(positives) == 0 or len(negatives) == 0:
        return None
    classifier = TextClassifier.load(folder)
    probabilities = (
        classifier.probability(texts, POSITIVE).astype(np.float64) for texts in (positives, negatives)
    )
    facts = {"num_positives": len(positives), "num_negatives": len(negatives)}
    return facts | asdict(quality(*probabilities))

"""The models of the baselines: n-gram counts for importance weights (DSIR), and a classifier of target against pool."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from gristmill.pipelines.score_documents import Shard, cut_batches, read_batches
from gristmill.pipelines.target import target_texts
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError
from gristmill.scorers.importance import count_ngrams
from gristmill.scorers.text import TextBatch

Counts = npt.NDArray[np.int64]
POOL = "the-pool"
"""The corpus that is chosen from; no domain has a dash in its name."""
MAX_JUDGED = 10_000
"""Held-out documents of the target by which its classifier is judged, and about as many of the pool."""


@dataclass(frozen=True)
class Beside:
    """A corpus that the pool is compared with.

    Args:
        workspace: Its own.
        entries: The recipe's, for their sources' rules.
        shards: Its shards.
        held_out: Documents that are not counted, None where all are.
    """

    workspace: Workspace
    entries: Sequence[Target]
    shards: Sequence[Shard]
    held_out: Sample | None = None


class CountNgrams(beam.PTransform):
    """(pool or corpus beside it, shard) -> path of the file with the counts of each.

    Sums are of whole numbers, so they do not depend on the order. A worker holds 8 bytes a bucket.

    Args:
        workspace: The pool's.
        beside: Name -> corpus.
        num_buckets: Of the n-grams.
        folder: Where the counts go, below the workspace.
    """

    def __init__(
        self, workspace: Workspace, beside: Mapping[str, Beside], num_buckets: int, folder: str
    ) -> None:
        super().__init__()
        self.count = partial(count_shard, workspace, beside, num_buckets)
        self.write = partial(write_counts, workspace, folder)

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return (
            shards
            | "CountShards" >> beam.Map(self.count)
            | "SumCounts" >> beam.CombinePerKey(sum_counts)
            | "WriteCounts" >> beam.MapTuple(self.write)
        )


def count_shard(
    workspace: Workspace, beside: Mapping[str, Beside], num_buckets: int, element: tuple[str, Shard]
) -> tuple[str, Counts]:
    """The hashed n-grams of one shard of the pool or a corpus beside it, int64[num_buckets]."""
    name, shard = element
    if name == POOL:
        batches = read_batches(workspace, shard.name)
    else:
        corpus = beside[name]
        documents = target_texts(corpus.workspace, [shard], corpus.entries)
        batches = (_without(batch, corpus.held_out) for batch in documents)
    counts = [count_ngrams(TextBatch(batch), num_buckets) for batch in cut_batches(batches)]
    return name, sum_counts([np.zeros(num_buckets, np.int64), *counts])


def _without(batch: pa.RecordBatch, held_out: Sample | None) -> pa.RecordBatch:
    return batch if held_out is None else batch.filter(pc.invert(is_sampled(batch, held_out)))


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """The sum of counts, bucket by bucket."""
    return np.sum(list(counts), axis=0)


def write_counts(workspace: Workspace, folder: str, name: str, counts: Counts) -> str:
    """Leave the counts for the launcher."""
    path = workspace.path(folder, f"{name}.npy")
    content = io.BytesIO()
    np.save(content, counts, allow_pickle=False)
    files.commit_bytes(path, content.getvalue())
    return path


def count_corpora(training: Training, beside: Mapping[str, Beside], num_buckets: int) -> dict[str, Counts]:
    """Count the hashed n-grams of the pool and the corpora beside it, in one pass, int64[num_buckets] each."""
    workspace, folder = training.workspace, "models/.tmp-counts"
    corpora: dict[str, Sequence[Shard]] = {POOL: training.shards}
    corpora |= {name: corpus.shards for name, corpus in beside.items()}
    elements = [(name, shard) for name, shards in corpora.items() for shard in shards]
    training.run(elements, "CountNgrams" >> CountNgrams(workspace, beside, num_buckets, folder))
    paths = {name: workspace.path(folder, f"{name}.npy") for name, shards in corpora.items() if shards}
    counts = {
        name: np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False) for name, path in paths.items()
    }
    files.delete(list(paths.values()))
    return dict.fromkeys(corpora, np.zeros(num_buckets, np.int64)) | counts


def make_importance(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Count the hashed n-grams of target and pool."""
    target = Beside(
        training.target_workspace, training.recipe.target, training.target, held_out=training.held_out
    )
    counts = count_corpora(training, {"target": target}, training.models.importance.num_buckets)
    _save_counts(made, counts["target"], counts[POOL], "models.importance")
    return {"num_target_ngrams": int(counts["target"].sum()), "num_pool_ngrams": int(counts[POOL].sum())}


def make_domain_importance(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Count the hashed n-grams of the domains and the pool."""
    spec = training.models.domain_importance
    beside = {
        name: Beside(training.domain_workspace(name), [spec.domains[name]], shards)
        for name, shards in training.domain_shards.items()
    }
    counts = count_corpora(training, beside, spec.num_buckets)
    for name in beside:
        (made / name).mkdir()
        _save_counts(made / name, counts[name], counts[POOL], f"models.domain_importance.domains.{name}")
    return {
        "num_ngrams": {name: int(counts[name].sum()) for name in beside},
        "num_pool_ngrams": int(counts[POOL].sum()),
    }


def _save_counts(folder: Path, target: Counts, pool: Counts, place: str) -> None:
    try:
        ngram_counts.save(str(folder), target, pool)
    except ValueError as error:
        raise RecipeError(f"{place}: {error}") from error


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

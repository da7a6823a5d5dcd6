"""What auxiliary models are trained from: samples of the corpus, the target, and models trained before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

from gristmill.pipelines.model_files import local_copy, model_path
from gristmill.pipelines.progress import Reporter
from gristmill.pipelines.recipe import Models, Recipe
from gristmill.pipelines.sample_texts import Sample, sample_texts, share_of
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.target import target_texts, target_workspace
from gristmill.pipelines.workspace import Workspace


@dataclass(frozen=True)
class Training:
    """The inputs of every training.

    Args:
        workspace: Where the corpus lies and models go.
        recipe: What the models shall be.
        shards: The corpus.
        target: The shards of the target.
        reporter: Where progress goes.
        run: Runs a transform over elements as a Beam pipeline.
    """

    workspace: Workspace
    recipe: Recipe
    shards: tuple[Shard, ...]
    target: tuple[Shard, ...]
    reporter: Reporter
    run: Callable[[Sequence[Any], beam.PTransform], object]

    @property
    def models(self) -> Models:
        """What the recipe says of the models."""
        return self.recipe.models

    @property
    def target_workspace(self) -> Workspace:
        """Where the target's documents lie."""
        return target_workspace(self.workspace, self.recipe.target)

    def path(self, name: str) -> str:
        """A local folder with a model that is there: the recipe's own, or the one trained in the workspace."""
        return local_copy(getattr(self.models, name).path or model_path(self.workspace, name))

    def sample(self, max_bytes: float, seed: int) -> Sample:
        """A sample of the corpus of about so many bytes of text."""
        return Sample(seed, 0.0, share_of(self.shards, max_bytes))

    def texts(self, sample: Sample) -> Iterator[pa.LargeStringArray]:
        """The sample's texts, an array a batch."""
        return sample_texts(self.workspace, self.shards, sample)

    def target_documents(self) -> Iterator[pa.RecordBatch]:
        """The target's doc_ids and texts, batch by batch."""
        return target_texts(self.target_workspace, self.target, self.recipe.target)

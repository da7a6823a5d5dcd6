"""What auxiliary models are trained from: samples of the corpus, the target, and models trained before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.language_model import LanguageModel
from gristmill.models.training import LogRow, TrainingPlan, train
from gristmill.pipelines.model_files import local_copy, model_path
from gristmill.pipelines.progress import Reporter
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_inputs import Target
from gristmill.pipelines.recipe_models import Models
from gristmill.pipelines.sample_texts import Sample, is_sampled, sample_texts, share_of
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.target import held_out_sample, target_texts, target_workspace
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import Scorer


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
        ingest: Reads inputs into a workspace of their own, once.
        score: Scores the shards of a workspace, where they are not scored yet.
    """

    workspace: Workspace
    recipe: Recipe
    shards: tuple[Shard, ...]
    target: tuple[Shard, ...]
    reporter: Reporter
    run: Callable[[Sequence[Any], beam.PTransform], object]
    ingest: Callable[[Workspace, Sequence[Target]], list[Shard]]
    score: Callable[[Workspace, Sequence[Shard], Sequence[Scorer]], None]

    @property
    def models(self) -> Models:
        """What the recipe says of the models."""
        return self.recipe.models

    @property
    def target_workspace(self) -> Workspace:
        """Where the target's documents lie."""
        return target_workspace(self.workspace, self.recipe.target)

    @property
    def task_workspace(self) -> Workspace:
        """Where the questions lie that order the rungs of a ladder."""
        return target_workspace(self.workspace, self.models.ladder.tasks, "evaluation")

    @cached_property
    def task_shards(self) -> list[Shard]:
        """Their shards."""
        tasks = self.models.ladder.tasks
        return self.ingest(self.task_workspace, tasks) if tasks else []

    def domain_workspace(self, domain: str) -> Workspace:
        """Where the documents of a domain lie."""
        return target_workspace(self.workspace, [self.models.domain_importance.domains[domain]], "domains")

    @cached_property
    def domain_shards(self) -> dict[str, list[Shard]]:
        """Domain -> its shards."""
        return {
            name: self.ingest(self.domain_workspace(name), [domain])
            for name, domain in self.models.domain_importance.domains.items()
        }

    def path(self, name: str) -> str:
        """A local folder with a model that is there: the recipe's own, or the one trained in the workspace."""
        return local_copy(self.models.of(name).path or model_path(self.workspace, name))

    def sample(self, max_bytes: float, seed: int) -> Sample:
        """A sample of the corpus of about so many bytes of text."""
        return Sample(seed, 0.0, share_of(self.shards, max_bytes))

    def texts(self, sample: Sample) -> Iterator[pa.LargeStringArray]:
        """The sample's texts, an array a batch."""
        return sample_texts(self.workspace, self.shards, sample)

    @property
    def held_out(self) -> Sample:
        """Documents of the target that no model is trained on: by them models and selections are judged."""
        return held_out_sample(self.target)

    def target_documents(self) -> Iterator[pa.RecordBatch]:
        """The doc_ids and texts of the target that models are trained on, batch by batch."""
        for batch in target_texts(self.target_workspace, self.target, self.recipe.target):
            yield batch.filter(pc.invert(is_sampled(batch, self.held_out)))

    def held_out_documents(self) -> Iterator[pa.RecordBatch]:
        """The doc_ids and texts of the target that models are judged by, batch by batch."""
        for batch in target_texts(self.target_workspace, self.target, self.recipe.target):
            yield batch.filter(is_sampled(batch, self.held_out))

    def fit(
        self,
        name: str,
        model: LanguageModel,
        stream: npt.NDArray[np.uint32],
        plan: TrainingPlan,
        folder: Path,
        *,
        steps: Sequence[npt.NDArray[np.int64]] | None = None,
        fork_after: int | None = None,
        after_step: Callable[[LogRow], None] = lambda row: None,
    ) -> list[LogRow]:
        """Train a language model as `train` does, under the reporter's eyes; `after_step` may look at it.

        Raises:
            ValueError: If there is nothing to train on, or the loss is no longer finite.
        """

        def report(row: LogRow, num_steps: int) -> None:
            self.reporter.update(row.step, row.num_tokens, row.seconds)
            after_step(row)

        num_tokens = (
            len(stream) * plan.epochs if plan.num_steps is None else plan.num_steps * plan.batch_tokens
        )
        self.reporter.start_training(name, num_tokens)
        log = train(model, stream, plan, folder, report, steps=steps, fork_after=fork_after)
        self.reporter.finish(log[-1].step, log[-1].num_tokens, log[-1].seconds)
        return log

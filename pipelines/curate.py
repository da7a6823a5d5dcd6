"""The main path: ingest -> train -> score -> dedup -> select -> export, each stage resumable, each accounted for.

    corpus     = documents read from the recipe's inputs
    models     = auxiliary models that the scorers use, trained on samples of the corpus and on the target
    scores     = numbers of every document by every scorer the recipe names
    duplicates = clusters of near duplicates, by the signatures among the scores
    decisions  = SQL over the scores: kept, or the step and reason that dropped it
    dataset    = the kept documents, and their tokens packed into sequences

Start here; each stage's own file says how it is done.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from gristmill.pipelines import dataset_card, files, write_dataset, write_tokens
from gristmill.pipelines.choose_subset import MergeGroups, OrderPartitions, Subset, choose_subset
from gristmill.pipelines.cluster_duplicates import mark_duplicates, require_marked
from gristmill.pipelines.corpus import check_reject_rate, commit_corpus, count_duplicate_ids, read_corpus
from gristmill.pipelines.derived_scores import derived_scorers, split_derived
from gristmill.pipelines.ledger import LedgerRow, commit_ledger
from gristmill.pipelines.mark_duplicates import Corpus, FindEdges, layout_warnings
from gristmill.pipelines.model_files import localised
from gristmill.pipelines.plan_splits import IngestPlan, commit_plan, plan_ingest
from gristmill.pipelines.progress import Reporter, watched
from gristmill.pipelines.read_documents import STAGE as INGEST
from gristmill.pipelines.read_documents import Limits, ReadDocuments, is_stream, is_written
from gristmill.pipelines.recipe import Duplicates, Recipe
from gristmill.pipelines.recipe_inputs import Target
from gristmill.pipelines.records import Split
from gristmill.pipelines.run_records import recorded
from gristmill.pipelines.runner import num_workers, run_pipeline
from gristmill.pipelines.score_documents import (
    ScoreDocuments,
    ScoreTask,
    Shard,
    announce_scores,
    commit_scores,
    corpus_digest,
    plan_scores,
    stage_of,
)
from gristmill.pipelines.select_documents import (
    FunnelStep,
    check_keep_rates,
    read_block_lists,
    select_documents,
    selection_identity,
)
from gristmill.pipelines.select_sql import CompiledSelection
from gristmill.pipelines.takedowns import commit_takedowns
from gristmill.pipelines.target import target_workspace
from gristmill.pipelines.token_plan import divide_stage, rate_stage
from gristmill.pipelines.train_models import (
    of_texts,
    train_models,
    uses_target,
)
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace, locked, open_workspace
from gristmill.scorers.base import DerivedScorer, RecipeError, Scorer, SelectionError
from gristmill.scorers.color_filter import ColorFilter
from gristmill.scorers.facility_location import FacilityLocation
from gristmill.scorers.minhash import MinHash

LOCAL_SHUFFLE_BYTES = 1 << 30
"""Text that Beam's local runner may shuffle: it holds about 4 bytes of memory a byte."""
STAGES = ("ingest", "train", "score", "dedup", "select", "export")


@dataclass
class Summary:
    """What a run did: rows for the closing table.

    Args:
        ingested: Ledger of ingest.
        duplicates: Manifest of the near duplicates.
        funnels: Selection -> its funnel.
        datasets: Selection -> manifest of its dataset.
        notes: Warnings.
    """

    ingested: list[LedgerRow] = field(default_factory=list)
    duplicates: dict[str, Any] = field(default_factory=dict)
    funnels: dict[str, list[FunnelStep]] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Curation:
    """A recipe that was checked as a whole, ready to run.

    Args:
        recipe: What is wanted.
        scorers: The recipe's scorers, before setup.
        trained: Names of the models that are trained in the workspace, parents first.
        selections: The recipe's selections as SQL.
        options: Beam's options.
        reporter: Where progress goes.
    """

    recipe: Recipe
    scorers: tuple[Scorer, ...]
    trained: tuple[str, ...]
    selections: tuple[CompiledSelection, ...]
    options: PipelineOptions
    reporter: Reporter

    def run(self, stages: Sequence[str] = STAGES, *, command: str = "run") -> Summary:
        """Run stages in order; what is done already is not done again.

        Raises:
            GristmillError: If a stage cannot be done; what is committed stays.
        """
        workspace = open_workspace(self.recipe.workspace, create="ingest" in stages)
        summary = Summary()
        with locked(workspace), recorded(workspace, command):
            if "ingest" in stages:
                plan = self.plan_ingest(workspace)
                summary.notes += plan.warnings
                shards, summary.ingested = self.ingest(workspace, plan)
                if plan.num_new_files and (count := count_duplicate_ids(workspace, shards)):
                    summary.notes.append(
                        f"{count:,} ids are shared by several documents of a source; doc_ids tell them apart "
                        "(`gristmill sql WORKSPACE --query duplicate_ids`)"
                    )
            else:
                shards = read_corpus(workspace)
            if "train" in stages:
                names = of_texts(self.trained) if "score" in stages else self.trained
                summary.notes += self.train(workspace, shards, names)
            if "score" in stages:
                summary.notes += self.score(workspace, shards)
            if "dedup" in stages and self.recipe.duplicates is not None:
                summary.duplicates = self.dedup(workspace, shards, self.recipe.duplicates)
                num_perm = self._signed(workspace, shards, self.recipe.duplicates).scorer.num_perm
                summary.notes += layout_warnings(self.recipe.duplicates, num_perm)
            for compiled in self.selections:
                name = compiled.selection.name
                if "select" in stages:
                    summary.funnels[name] = self.select(workspace, shards, compiled)
                if "export" in stages:
                    summary.datasets[name] = self.export(workspace, shards, compiled)
            if "select" in stages:
                summary.notes += commit_takedowns(workspace, read_block_lists(self.recipe.block))
        return summary

    def translate(self, stages: Sequence[str] = STAGES) -> Iterator[tuple[str, Any]]:
        """Translate the pipeline of each stage for the runner without running it; nothing is written.

        A pipeline's shape does not depend on what the stages before it leave, so each split stands for its shard, one
        file for each dataset and one row group for its tokens.

        Yields:
            A stage, and its pipeline as Beam's portable message.
        """
        workspace = Workspace(self.recipe.workspace.rstrip("/"))
        plan = self.plan_ingest(workspace)
        shards = [Shard(split.name, 0, split.num_bytes, "") for split in plan.splits]
        results = {}
        if "ingest" in stages:
            results["ingest"] = self._run_ingest(workspace, plan, plan.splits)
        results |= self._translate_scores(workspace, shards) if "score" in stages else {}
        if "dedup" in stages and self.recipe.duplicates is not None:
            corpus = self._signed(workspace, shards, self.recipe.duplicates)
            bands = range(self.recipe.duplicates.num_bands)
            results["dedup"] = self._run(
                range(len(shards)), "FindEdges" >> FindEdges(corpus, bands, "duplicates")
            )
        for compiled in self.selections if "export" in stages else ():
            name = compiled.selection.name
            part = write_dataset.Part("train", tuple(shard.name for shard in shards), 0, 0)
            results[f"export {name}"] = self._run_export(workspace, compiled, [part], "")
            results |= self._run_token_passes(workspace, name)
        for stage, result in results.items():
            yield stage, result.job.proto_pipeline

    def plan_ingest(self, workspace: Workspace) -> IngestPlan:
        """What there is to read."""
        return plan_ingest(workspace, self.recipe)

    def ingest(self, workspace: Workspace, plan: IngestPlan) -> tuple[list[Shard], list[LedgerRow]]:
        """Raw inputs -> shards."""
        commit_plan(workspace, plan)
        splits = [split for split in plan.splits if not is_written(workspace, split)]
        if splits:
            num_bytes = sum(split.num_bytes for split in splits)
            with watched(self.reporter, workspace, "ingest", [INGEST], num_bytes):
                self._run_ingest(workspace, plan, splits)
        shards, rows = commit_corpus(workspace, plan)
        check_reject_rate(rows, self.recipe.max_reject_rate)
        return shards, rows

    def train(self, workspace: Workspace, shards: Sequence[Shard], names: Sequence[str]) -> list[str]:
        """Samples of the corpus, and the target -> auxiliary models; returns warnings."""
        with_target = any(uses_target(self.recipe, name) for name in names)
        return train_models(self.training(workspace, shards, with_target=with_target), names)

    def training(self, workspace: Workspace, shards: Sequence[Shard], *, with_target: bool) -> Training:
        """What models are trained from, the target's documents ingested where they are needed."""
        target = self.ingest_target(workspace) if with_target else []
        return Training(
            workspace,
            self.recipe,
            tuple(shards),
            tuple(target),
            self.reporter,
            self._run,
            self.ingest_beside,
            self.score_with,
        )

    def ingest_target(self, workspace: Workspace) -> list[Shard]:
        """The target's documents -> shards of their own."""
        beside = target_workspace(workspace, self.recipe.target)
        shards = self.ingest_beside(beside, self.recipe.target)
        if not any(shard.num_bytes for shard in shards):
            raise RecipeError(
                "target: it holds no text; expected documents that the trained model should be good at"
            )
        return shards

    def ingest_beside(self, workspace: Workspace, entries: Sequence[Target]) -> list[Shard]:
        """Documents that are no part of the corpus -> shards of a workspace of their own."""
        open_workspace(workspace.root, create=True)
        inputs = [entry.as_input() for entry in entries]
        plan = plan_ingest(workspace, self.recipe.model_copy(update={"corpus": inputs}))
        return self.ingest(workspace, plan)[0]

    def score(self, workspace: Workspace, shards: Sequence[Shard]) -> list[str]:
        """Texts -> scores; then what is made from scores: models, and more scores. Returns warnings."""
        self.score_with(workspace, shards, self.text_scorers)
        of_scores = [name for name in self.trained if name not in of_texts(self.trained)]
        notes = self.train(workspace, shards, of_scores) if of_scores else []
        by_batches, of_corpus = self.derived(shards)
        if by_batches:
            self.score_with(workspace, shards, by_batches)
        for scorer in of_corpus:
            self.score_corpus(workspace, shards, scorer)
        return notes

    def score_corpus(self, workspace: Workspace, shards: Sequence[Shard], scorer: FacilityLocation) -> None:
        """All scores of one kind -> scores of documents that depend on all others."""
        announce_scores(workspace, [scorer])
        with reported(self.reporter, scorer.name, shards):
            choose_subset(workspace, shards, scorer, self._run)
        commit_scores(workspace, shards, scorer)

    def score_with(self, workspace: Workspace, shards: Sequence[Shard], scorers: Sequence[Scorer]) -> None:
        """Shards -> one side file for each scorer."""
        local = [localised(scorer) for scorer in scorers]
        announce_scores(workspace, local)
        tasks = plan_scores(workspace, shards, local)
        if tasks:
            stages = [stage_of(scorer) for scorer in local]
            num_bytes = sum(task.shard.num_bytes * len(task.scorers) for task in tasks)
            with watched(self.reporter, workspace, "score", stages, num_bytes):
                self._run_scores(workspace, tasks, scorers)
        for scorer in local:
            commit_scores(workspace, shards, scorer)

    def dedup(self, workspace: Workspace, shards: Sequence[Shard], rule: Duplicates) -> dict[str, Any]:
        """Signatures -> clusters of near duplicates."""
        with reported(self.reporter, "dedup", shards):
            manifest = mark_duplicates(self._signed(workspace, shards, rule), self._run)
        if rule.max_cluster_size is not None and manifest["largest_cluster"] > rule.max_cluster_size:
            raise SelectionError(
                f"the largest cluster of near duplicates holds {manifest['largest_cluster']:,} documents, duplicates."
                f"max_cluster_size is {rule.max_cluster_size:,}; look at `gristmill sql WORKSPACE --query "
                "largest_clusters`, then raise the threshold or the limit"
            )
        return manifest

    def select(
        self, workspace: Workspace, shards: Sequence[Shard], compiled: CompiledSelection
    ) -> list[FunnelStep]:
        """Scores -> decisions."""
        if compiled.near is not None:
            require_marked(self._signed(workspace, shards, compiled.near))
        block_lists = read_block_lists(self.recipe.block)
        with reported(self.reporter, f"select {compiled.selection.name}", shards):
            return select_documents(workspace, shards, self.local_scorers(shards), compiled, block_lists)

    def export(
        self, workspace: Workspace, shards: Sequence[Shard], compiled: CompiledSelection
    ) -> dict[str, Any]:
        """Decisions -> dataset, and its tokens where the recipe wants them."""
        manifest = self.export_dataset(workspace, shards, compiled)
        spec = self.recipe.export.tokens
        if spec is None:
            write_tokens.clear_tokens(workspace, compiled.selection.name, "")
            return manifest
        plan = write_tokens.plan_tokens(workspace, self.recipe, spec, manifest, self.versioned(shards))
        stages = [divide_stage(plan.selection)]
        if plan.rater is not None:
            stages.append(rate_stage(plan.selection))
        num_bytes = sum(group.num_bytes for group in plan.row_groups) * len(stages)
        with watched(self.reporter, workspace, f"tokens {plan.selection}", stages, num_bytes):
            write_tokens.export_tokens(plan, manifest, self._run)
        return manifest

    def export_dataset(
        self, workspace: Workspace, shards: Sequence[Shard], compiled: CompiledSelection
    ) -> dict[str, Any]:
        """Decisions -> dataset."""
        name = compiled.selection.name
        export = self.recipe.export.model_copy(update={"tokens": None})
        decisions = workspace.read_json("decisions", name, "manifest.json")
        block_lists = read_block_lists(self.recipe.block)
        parents = selection_identity(shards, self.local_scorers(shards), compiled, block_lists)
        if decisions is None or decisions["identity"] != parents:
            raise SelectionError(
                f"selection {name!r} is not made from this recipe and corpus; run `gristmill select`"
            )
        check_keep_rates(compiled, [FunnelStep(**step) for step in decisions["funnel"]])
        identity = blake2b(repr((decisions["kept"], parents, export)).encode(), digest_size=16).hexdigest()
        manifest = workspace.read_json("datasets", name, "manifest.json")
        recipe = self.recipe.model_dump(mode="json", exclude={"workspace", "ablate", "mixture"})
        if manifest is not None and (manifest["identity"], manifest["recipe"]) == (identity, recipe):
            paths = [workspace.dataset(name, file["name"]) for file in manifest["files"]]
            if all(map(files.exists, paths)):
                return manifest
        write_dataset.clear_dataset(workspace, name, identity)
        parts = write_dataset.plan_parts(workspace, name, shards)
        stage = write_dataset.stage_of(name)
        with watched(
            self.reporter, workspace, f"export {name}", [stage], sum(part.num_bytes for part in parts)
        ):
            self._run_export(workspace, compiled, parts, identity)
        commit_ledger(workspace, stage, [write_dataset.ledger_row(workspace, name, part) for part in parts])
        provenance = {
            "identity": identity,
            "parents": parents,
            "recipe": recipe,
            "gristmill": version("gristmill"),
        }
        card = dataset_card.render(workspace, self.recipe, compiled.selection, self.local_scorers(shards))
        return write_dataset.commit_dataset(workspace, name, parts, provenance, card)

    @property
    def text_scorers(self) -> list[Scorer]:
        """The scorers that see texts."""
        return [scorer for scorer in self.scorers if not isinstance(scorer, DerivedScorer)]

    def derived(self, shards: Sequence[Shard]) -> tuple[list[DerivedScorer], list[FacilityLocation]]:
        """The scorers that see other scores, batch by batch or all at once, with what they are made from."""
        return derived_scorers(self.scorers, corpus_digest(shards))

    def local_scorers(self, shards: Sequence[Shard]) -> list[Scorer]:
        """The scorers with their models on this machine; those trained in the workspace must be there.

        Raises:
            ScorerError: If a model is not there or cannot be used.
        """
        return [localised(scorer) for scorer in self.versioned(shards)]

    def versioned(self, shards: Sequence[Shard]) -> list[Scorer]:
        """The scorers, those that see other scores with what they are made from."""
        by_batches, of_corpus = self.derived(shards)
        return [*self.text_scorers, *by_batches, *of_corpus]

    def cutter(self, compiled: CompiledSelection) -> ColorFilter | None:
        """The scorer whose windows a selection chooses, None where it chooses whole documents."""
        if compiled.window_scores is None:
            return None
        (cutter,) = (scorer for scorer in self.scorers if isinstance(scorer, ColorFilter))
        return cutter

    def _signed(self, workspace: Workspace, shards: Sequence[Shard], rule: Duplicates) -> Corpus:
        (scorer,) = (scorer for scorer in self.scorers if isinstance(scorer, MinHash))
        return Corpus(workspace, tuple(shards), scorer, rule)

    def _run_ingest(self, workspace: Workspace, plan: IngestPlan, splits: Sequence[Split]) -> PipelineResult:
        limits = Limits(plan.shard_bytes, self.recipe.max_document_bytes, sampled_share=plan.sampled_share)
        read = ReadDocuments(workspace, limits, spread_streams=self._spreads(splits))
        return self._run(splits, "ReadDocuments" >> read)

    def _run_scores(
        self, workspace: Workspace, tasks: Sequence[ScoreTask], scorers: Sequence[Scorer]
    ) -> PipelineResult:
        by_name = {scorer.name: scorer for scorer in scorers}

        def build(pipeline: beam.Pipeline) -> None:
            for accelerator, label in ((False, "Cpu"), (True, "Accelerator")):
                names = {name for name, scorer in by_name.items() if scorer.accelerator == accelerator}
                of_class = [
                    ScoreTask(task.shard, wanted)
                    for task in tasks
                    if (wanted := tuple(name for name in task.scorers if name in names))
                ]
                if of_class:
                    score = ScoreDocuments(workspace, by_name, accelerator=accelerator)
                    _spread(pipeline, of_class, label) | f"ScoreDocuments{label}" >> score

        return run_pipeline(self.options, build)

    def _translate_scores(self, workspace: Workspace, shards: Sequence[Shard]) -> dict[str, PipelineResult]:
        by_batches, of_corpus = split_derived(self.scorers)
        kinds: dict[str, Sequence[Scorer]] = {"score": self.text_scorers, "derive": by_batches}
        results = {}
        for stage, scorers in kinds.items():
            if scorers:
                names = tuple(scorer.name for scorer in scorers)
                tasks = [ScoreTask(shard, names) for shard in shards]
                results[stage] = self._run_scores(workspace, tasks, scorers)
        for scorer in of_corpus:
            subset = Subset(workspace, tuple(shards), scorer, (1,), 1.0)
            order, merge = OrderPartitions(subset), MergeGroups(subset, 0)
            results["order partitions"] = self._run(range(len(shards)), "OrderPartitions" >> order)
            results["merge groups"] = self._run([[0]], "MergeGroups" >> merge)
        return results

    def _run_export(
        self,
        workspace: Workspace,
        compiled: CompiledSelection,
        parts: Sequence[write_dataset.Part],
        identity: str,
    ) -> PipelineResult:
        name, export, cutter = compiled.selection.name, self.recipe.export, self.cutter(compiled)
        write = write_dataset.WriteDataset(workspace, name, export, identity, cutter)
        return self._run(parts, "WriteDataset" >> write)

    def _run_token_passes(self, workspace: Workspace, name: str) -> dict[str, PipelineResult]:
        """The pipelines that would make the tokens of a dataset that is not there yet."""
        spec = self.recipe.export.tokens
        if spec is None:
            return {}
        plan = write_tokens.stand_in_plan(workspace, self.recipe, spec, name, self.scorers)
        return {
            stage.replace(":", " "): self._run(elements, transform)
            for stage, elements, transform in write_tokens.token_passes(plan)
        }

    def _run(self, elements: Sequence[Any], transform: beam.PTransform) -> PipelineResult:
        return run_pipeline(self.options, lambda pipeline: _spread(pipeline, elements, "") | transform)

    def _spreads(self, splits: Sequence[Split]) -> bool:
        """Whether to shuffle blocks of streams: where they are too few for the workers and the runner can hold them."""
        streams = [split for split in splits if is_stream(split)]
        workers = num_workers(self.options)
        if not streams or workers is None:
            return bool(streams)
        return len(streams) < workers and sum(split.num_bytes for split in streams) <= LOCAL_SHUFFLE_BYTES


def _spread(pipeline: beam.Pipeline, elements: Sequence[Any], label: str) -> beam.PCollection:
    """Elements on all workers: `Create` reshuffles, so that no runner fuses the whole list into one."""
    return pipeline | f"Create{label}" >> beam.Create(elements)


@contextmanager
def reported(reporter: Reporter, stage: str, shards: Sequence[Shard]) -> Iterator[None]:
    """Report on a stage that the launcher does as a whole."""
    num_documents, num_bytes = (
        sum(getattr(shard, name) for shard in shards) for name in ("num_rows", "num_bytes")
    )
    started = time.monotonic()
    reporter.start(stage, num_bytes)
    try:
        yield
    finally:
        reporter.finish(num_documents, num_bytes, time.monotonic() - started)

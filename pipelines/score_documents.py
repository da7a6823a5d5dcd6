"""Score: every shard is read once for all the scorers of a resource class that miss it.

A side file at `scores/<scorer>/<fingerprint>/<shard>.parquet` that holds the shard's content digest in its footer is
never made again, whatever the number of workers, the runner or the recipe.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import apache_beam as beam
import pyarrow as pa

from gristmill.pipelines import files
from gristmill.pipelines.allocator import keep_freed_memory
from gristmill.pipelines.derived_scores import read_scores
from gristmill.pipelines.ledger import (
    LedgerRow,
    commit_ledger,
    encode_footer,
    parquet_writer,
    read_footer,
    record_task,
    write_side_file,
)
from gristmill.pipelines.model_files import localised
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import DerivedScorer, Scorer, ScorerError
from gristmill.scorers.schema import DOC_ID
from gristmill.scorers.text import TextBatch

VIEW_BYTES = 2 << 20
"""Text scored at once: arrays derived from more leave the caches (rules: 4 MB/s by 8 MB, 10 MB/s by 2 MB)."""
MODEL_VIEW_BYTES = 16 << 20
"""Text that models score at once: enough that documents of equal length fill their batches."""
MODEL_VIEW_ROWS = 1 << 14
"""Documents that models score at once: each has a hidden state, 64 MB of them at a width of 1,024."""
ROW_GROUP_ROWS = 1 << 16
"""Rows written at once: a row group for each batch of text would make footers larger than the scores."""
LIBRARIES = ("gristmill", "numpy", "pyarrow")
ACCELERATOR_HINT = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"


@dataclass(frozen=True)
class Shard:
    """A committed shard of the corpus.

    Args:
        name: File name without suffix.
        num_rows: Documents in it.
        num_bytes: UTF-8 bytes of their texts.
        content: Digest of its doc_ids and texts.
    """

    name: str
    num_rows: int
    num_bytes: int
    content: str


@dataclass(frozen=True)
class ScoreTask:
    """A shard with the names of the scorers that miss it."""

    shard: Shard
    scorers: tuple[str, ...]


def corpus_digest(shards: Sequence[Shard]) -> str:
    """Identity of all documents, in whatever order the shards are."""
    contents = sorted(shard.content for shard in shards)
    return blake2b(repr(contents).encode(), digest_size=8).hexdigest()


class ScoreDocuments(beam.PTransform):
    """Score tasks -> names of the shards scored.

    Args:
        workspace: Where shards and side files lie.
        scorers: Name -> scorer, before setup.
        accelerator: Whether the tasks want a GPU; only then does the transform carry a resource hint.
    """

    def __init__(
        self, workspace: Workspace, scorers: Mapping[str, Scorer], *, accelerator: bool = False
    ) -> None:
        super().__init__()
        self.workspace = workspace
        self.scorers = dict(scorers)
        self.accelerator = accelerator

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        score = beam.ParDo(_ShardScorer(self.workspace, self.scorers))
        if self.accelerator:
            score = score.with_resource_hints(accelerator=ACCELERATOR_HINT)
        return tasks | "ScoreShards" >> score


def stage_of(scorer: Scorer) -> str:
    """The ledger's name for scoring with one scorer."""
    return stage_of_version(scorer.name, scorer.fingerprint())


def stage_of_version(name: str, fingerprint: str) -> str:
    """The ledger's name for scoring with one version of a scorer."""
    return f"score:{name}:{fingerprint}"


def plan_scores(workspace: Workspace, shards: Sequence[Shard], scorers: Sequence[Scorer]) -> list[ScoreTask]:
    """The shards that some scorers miss, in order."""
    versions = [(scorer.name, scorer.fingerprint()) for scorer in scorers]

    def task(shard: Shard) -> ScoreTask:
        missing = (name for name, version in versions if not is_scored(workspace, shard, name, version))
        return ScoreTask(shard, tuple(missing))

    return [task for task in files.in_parallel(task, shards) if task.scorers]


def is_scored(workspace: Workspace, shard: Shard, scorer: str, fingerprint: str) -> bool:
    """Whether a side file of this scorer version is there and was made from this content."""
    footer = read_footer(workspace.scores(scorer, fingerprint, shard.name))
    return footer is not None and footer["content"] == shard.content


def read_batches(workspace: Workspace, shard: str) -> Iterator[pa.RecordBatch]:
    """The documents of a shard batch by batch, memory-mapped where the disk is local."""
    path = workspace.corpus(shard)
    with pa.memory_map(path) if files.is_local(path) else files.open_read(path) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def score_shard(workspace: Workspace, shard: Shard, scorers: Sequence[Scorer]) -> None:
    """Score one shard with scorers that share one view of every batch, and commit one side file each.

    Args:
        workspace: Where shards and side files lie.
        shard: The shard.
        scorers: After setup.

    Raises:
        ScorerError: If a scorer fails or breaks its contract; no side file of this shard is committed then.
    """
    num_rows = 0
    seconds = dict.fromkeys([scorer.name for scorer in scorers], 0.0)
    with ExitStack() as stack:
        writers = {}
        for scorer in scorers:
            path = workspace.scores(scorer.name, scorer.fingerprint(), shard.name)
            file = stack.enter_context(files.committed(path))
            table_schema = pa.schema([DOC_ID, *scorer.schema()])
            writers[scorer.name] = stack.enter_context(parquet_writer(file, table_schema))
        held: dict[str, list[pa.RecordBatch]] = {name: [] for name in writers}
        steps = _Steps(workspace, shard)
        derived = [scorer for scorer in scorers if isinstance(scorer, DerivedScorer)]
        read = read_scores(workspace, shard.name, derived) if derived else read_batches(workspace, shard.name)
        for documents in views(read, scorers):
            batch = TextBatch(documents)
            num_rows += len(batch)
            for scorer in scorers:
                started = time.monotonic()
                scores = steps.score(scorer, batch, num_rows)
                columns = [documents.column("doc_id"), *scores.columns]
                batches = held[scorer.name]
                batches.append(pa.RecordBatch.from_arrays(columns, schema=writers[scorer.name].schema))
                if sum(map(len, batches)) >= ROW_GROUP_ROWS:
                    writers[scorer.name].write_table(pa.Table.from_batches(batches))
                    batches.clear()
                seconds[scorer.name] += time.monotonic() - started
        for name, batches in held.items():
            if batches:
                writers[name].write_table(pa.Table.from_batches(batches))
        if num_rows != shard.num_rows:
            raise ScorerError(
                f"{shard.name}: {num_rows} documents in the corpus file, {shard.num_rows} in the manifest"
            )
        for scorer in scorers:
            footer = {"stage": stage_of(scorer), "num_in": num_rows, "content": shard.content}
            writers[scorer.name].add_key_value_metadata(encode_footer(footer))
    for scorer in scorers:
        record_task(workspace, _row(stage_of(scorer), shard, num_rows, seconds[scorer.name]))
    steps.forget()


class _Steps:
    """Scores of models inside a shard, kept until its side file is committed: a pass that is killed goes on there.

    Args:
        workspace: Where they lie, `scores/<scorer>/<fingerprint>/steps/<shard>-<row>.parquet`.
        shard: What is scored.
    """

    def __init__(self, workspace: Workspace, shard: Shard) -> None:
        self.workspace = workspace
        self.shard = shard
        self.paths: list[str] = []

    def score(self, scorer: Scorer, batch: TextBatch, end: int) -> pa.RecordBatch:
        """Scores of the batch that ends before row `end` of the shard."""
        if not scorer.accelerator:
            return score_batch(scorer, batch, self.shard.name)
        path = self.workspace.scores(scorer.name, scorer.fingerprint(), f"steps/{self.shard.name}-{end}")
        self.paths.append(path)
        footer = {"content": self.shard.content}
        found = read_footer(path)
        if found is not None and found["content"] == self.shard.content and found["num_rows"] == len(batch):
            with files.open_read(path) as file:
                (scores,) = files.read_table(file, schema=scorer.schema()).combine_chunks().to_batches()
            return scores
        scores = score_batch(scorer, batch, self.shard.name)
        write_side_file(path, pa.Table.from_batches([scores]), footer)
        return scores

    def forget(self) -> None:
        """Delete what is now in the side files."""
        files.delete(self.paths)


def views(batches: Iterable[pa.RecordBatch], scorers: Sequence[Scorer]) -> Iterator[pa.RecordBatch]:
    """Batches of the size that the scorers want, all of one resource class."""
    if not any(scorer.accelerator for scorer in scorers):
        yield from cut_batches(batches)
        return
    held: list[pa.RecordBatch] = []
    for batch in cut_batches(batches, MODEL_VIEW_BYTES, MODEL_VIEW_ROWS):
        grown = [*held, batch]
        is_full = (
            sum(part.nbytes for part in grown) > MODEL_VIEW_BYTES or sum(map(len, grown)) > MODEL_VIEW_ROWS
        )
        if held and is_full:
            yield pa.concat_batches(held)
            grown = [batch]
        held = grown
    if held:
        yield pa.concat_batches(held)


def cut_batches(
    batches: Iterable[pa.RecordBatch], max_bytes: int = VIEW_BYTES, max_rows: int = sys.maxsize
) -> Iterator[pa.RecordBatch]:
    """Batches cut into slices of equal numbers of rows, of about `max_bytes` each and `max_rows` at most."""
    for batch in batches:
        num_rows = min(max(len(batch) * max_bytes // max(batch.nbytes, 1), 1), max_rows)
        for start in range(0, len(batch), num_rows):
            yield batch.slice(start, num_rows)


def score_batch(scorer: Scorer, batch: TextBatch, where: str) -> pa.RecordBatch:
    """Scores of a batch, checked against what the scorer declares.

    Raises:
        ScorerError: Naming the scorer, the shard and what is wrong.
    """
    try:
        scores = scorer.score(batch)
    except Exception as error:
        raise ScorerError(f"{scorer.name} failed on {where}: {type(error).__name__}: {error}") from error
    expected = scorer.schema()
    if scores.num_rows != len(batch):
        raise ScorerError(f"{scorer.name} on {where}: {scores.num_rows} rows for {len(batch)} documents")
    if scores.schema.names != expected.names or scores.schema.types != expected.types:
        raise ScorerError(f"{scorer.name} on {where}: columns {scores.schema}, declared {expected}")
    for name, column in zip(expected.names, scores.columns, strict=True):
        if column.null_count:
            raise ScorerError(
                f"{scorer.name} on {where}: {column.null_count} nulls in {name}; scores are never null"
            )
    return scores


def announce_scores(workspace: Workspace, scorers: Sequence[Scorer]) -> None:
    """Note which versions are about to be scored, so that nobody takes the files of a killed run for garbage."""
    wanted = {scorer.name: scorer.fingerprint() for scorer in scorers}
    if workspace.read_json("scores", "wanted.json") != wanted:
        workspace.commit_json(wanted, "scores", "wanted.json")


def commit_scores(workspace: Workspace, shards: Sequence[Shard], scorer: Scorer) -> None:
    """Check that every shard is scored, write the ledger and the description of the columns, and make them current."""
    stage, fingerprint = stage_of(scorer), scorer.fingerprint()

    def row(shard: Shard) -> LedgerRow:
        footer = read_footer(workspace.scores(scorer.name, fingerprint, shard.name))
        return _row(stage, shard, footer["num_rows"] if footer else 0, None)

    commit_ledger(workspace, stage, files.in_parallel(row, shards))
    if workspace.read_json("scores", scorer.name, fingerprint, "manifest.json") is None:
        workspace.commit_json(describe(scorer), "scores", scorer.name, fingerprint, "manifest.json")
    current = workspace.read_json("scores", "current.json") or {}
    if current.get(scorer.name) != fingerprint:
        workspace.commit_json(current | {scorer.name: fingerprint}, "scores", "current.json")


def describe(scorer: Scorer) -> dict[str, Any]:
    """Everything a number of this scorer can be traced to."""
    columns = [
        {**vars(column), "type": str(column.type), "empty": str(column.empty)} for column in scorer.columns
    ]
    return {
        "scorer": scorer.name,
        "version": scorer.version,
        "fingerprint": scorer.fingerprint(),
        "options": scorer.options(),
        "models": scorer.model_digests(),
        "columns": columns,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _row(stage: str, shard: Shard, num_out: int, seconds: float | None) -> LedgerRow:
    return LedgerRow(stage, shard.name, shard.num_rows, num_out, num_bytes=shard.num_bytes, seconds=seconds)


class _ShardScorer(beam.DoFn):
    """Sets each scorer up once in a worker, when the first shard that misses it arrives."""

    def __init__(self, workspace: Workspace, scorers: dict[str, Scorer]) -> None:
        super().__init__()
        self.workspace = workspace
        self.scorers = scorers

    def setup(self) -> None:
        """Forget what another worker set up."""
        keep_freed_memory()
        self.ready: dict[str, Scorer] = {}

    def process(self, task: ScoreTask) -> Iterator[str]:
        """Score one shard."""
        for name in task.scorers:
            if name not in self.ready:
                self.ready[name] = localised(self.scorers[name])
                self.ready[name].setup()
        score_shard(self.workspace, task.shard, [self.ready[name] for name in task.scorers])
        yield task.shard.name

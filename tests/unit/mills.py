"""Small scored workspaces for tests of selection, SQL and export, made without inputs and without Beam."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import ceil, floor
from typing import ClassVar
from uuid import UUID

import apache_beam as beam
import numpy as np
import pyarrow as pa

from gristmill.pipelines import dataset_card, files, write_dataset, write_tokens
from gristmill.pipelines.ledger import LedgerRow, commit_ledger, write_side_file
from gristmill.pipelines.read_documents import content_digest
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_export import Export, Tokens
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.records import Piece, Records, doc_ids, to_documents, to_text_free
from gristmill.pipelines.runner import beam_options, run_pipeline
from gristmill.pipelines.score_documents import Shard, commit_scores, plan_scores, score_shard
from gristmill.pipelines.select_documents import BATCH_SEED, BlockLists, select_documents
from gristmill.pipelines.select_sql import compile_selection
from gristmill.pipelines.workspace import Workspace, open_workspace
from gristmill.scorers import schema
from gristmill.scorers.base import Column, Scorer
from gristmill.scorers.color_filter import WINDOW, ColorFilter
from gristmill.scorers.doc_ids import random_keys
from gristmill.scorers.duplicates import ExactDuplicate

SOURCES = ("web", "books", "code")


@dataclass(frozen=True, kw_only=True)
class Numbers(Scorer):
    """Scores that the first line of a text says: `quality badness neutral num_tokens`; capitals add 0.5 of quality."""

    name: ClassVar[str] = "numbers"
    version: ClassVar[int] = 1
    shift: float = 0.0

    @property
    def columns(self):
        def column(name, kind=None, direction=None):
            return Column(
                name=name, type=kind or pa.float64(), description=name, unit="", higher_is_better=direction
            )

        return (
            column("quality", direction=True),
            column("badness", direction=False),
            column("neutral"),
            column("num_tokens", pa.int64()),
            column("topic", pa.string()),
        )

    def score(self, batch):
        rows = [self.numbers(text) for text in batch.text.to_pylist()]
        columns = [pa.array(column, kind) for column, kind in zip(zip(*rows), self.schema().types)]  # noqa: B905
        return pa.RecordBatch.from_arrays(columns, schema=self.schema())

    def numbers(self, text):
        """Quality, badness, neutral, number of tokens and topic of one text."""
        words = text.partition("\n")[0].split()
        quality, badness, neutral, num_tokens = map(int, words) if len(words) == 4 else (0, 0, 0, 0)
        quality += self.shift + 0.5 * (text != text.lower())
        return quality, badness, neutral, num_tokens, "even" if num_tokens % 2 == 0 else "odd"


@dataclass(frozen=True, kw_only=True)
class Losses(ColorFilter):
    """Windows of three characters, a character a token; the first two say the window's losses."""

    prior: str = ""
    conditional: str = ""
    window: int | None = 3
    windows: bool = True

    def model_digests(self):
        return {}

    def window_texts(self, text):
        return [text[start : start + 3] for start in range(0, len(text), 3)]

    def losses(self, text):
        """Number of tokens and both losses of each window."""
        return [
            (len(window), *(np.float32(ord(character) % 7 / 10) for character in (window + "  ")[:2]))
            for window in self.window_texts(text)
        ]

    def score(self, batch):
        texts = batch.text.to_pylist()
        values = dict.fromkeys(self.schema().names, [0.0] * len(texts)) | {
            "num_tokens": [len(text) for text in texts],
            "in_prior_sample": [False] * len(texts),
            "color_filter_windows": [
                [dict(zip(WINDOW.names, losses, strict=True)) for losses in self.losses(text)]
                for text in texts
            ],
        }
        return pa.RecordBatch.from_pydict(values, schema=self.schema())


@dataclass(frozen=True)
class Row:
    """One document; `number` makes its doc_id, whatever the shard."""

    number: int
    text: str
    source: str = "web"
    id: str | None = None
    url: str | None = None
    year: int | None = None

    @property
    def doc_id(self):
        high, low = doc_ids("mill", "rows", [self.number])[0].tolist()
        return UUID(int=high << 64 | low)

    @property
    def host(self):
        return None if self.url is None else self.url.split("/")[2].lower()


@dataclass
class Mill:
    """A workspace with its shards and scorers."""

    workspace: Workspace
    rows: list[list[Row]]
    shards: list[Shard]
    scorers: tuple[Scorer, ...]
    recipe: Recipe = field(init=False)

    def __post_init__(self):
        self.recipe = Recipe(
            workspace=self.workspace.root,
            corpus=[{"path": f"/{source}.jsonl", "source": source, "licence": "CC0"} for source in SOURCES],
        )

    def compile(self, **rules):
        return compile_selection(self.recipe, Selection(**{"name": "s", **rules}), self.scorers, "select")


LOSSES = Losses()
SCORERS = (Numbers(), ExactDuplicate())


def build(root, shards_of_rows, scorers=SCORERS):
    """A workspace that holds these rows, shard by shard, scored."""
    workspace = open_workspace(str(root), create=True)
    shards = [write(workspace, f"part-00000-{i:05d}-0000", rows) for i, rows in enumerate(shards_of_rows)]
    workspace.commit_json([asdict(shard) for shard in shards], "corpus", "shards.json")
    ledger = [LedgerRow("ingest", s.name, s.num_rows, s.num_rows, num_bytes=s.num_bytes) for s in shards]
    commit_ledger(workspace, "ingest", ledger)
    mill = Mill(workspace, list(shards_of_rows), shards, tuple(scorers))
    score(mill)
    return mill


def score(mill):
    """Score what is missing, as the score stage does."""
    by_name = {scorer.name: scorer for scorer in mill.scorers}
    for task in plan_scores(mill.workspace, mill.shards, mill.scorers):
        score_shard(mill.workspace, task.shard, [by_name[name] for name in task.scorers])
    for scorer in mill.scorers:
        commit_scores(mill.workspace, mill.shards, scorer)


def write(workspace, name, rows, batch_rows=7):
    """One shard of the corpus, its text-free twin and its accounts, in batches of a few rows."""
    table = pa.concat_tables(
        [
            pa.Table.from_batches([_documents(rows[start : start + batch_rows])])
            for start in range(0, len(rows), batch_rows)
        ]
        or [schema.CORPUS.empty_table()]
    )
    with files.committed(workspace.corpus(name)) as file, pa.ipc.new_file(file, schema.CORPUS) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    twins = [to_text_free(batch, pa.array([False] * len(batch)), name) for batch in table.to_batches()]
    twin = pa.Table.from_batches(twins, schema.DOCUMENTS)
    num_bytes = sum(len(row.text.encode()) for row in rows)
    footer = {
        "stage": "ingest", "num_in": len(rows), "num_dropped": 0, "num_rejected": 0, "num_bytes": num_bytes,
        "reasons": {}, "content": content_digest(twin),
    }  # fmt: skip
    write_side_file(workspace.documents(name), twin, footer)
    return Shard(name, len(rows), num_bytes, footer["content"])


def _documents(rows):
    records = Records(Piece("/rows", "rows"))
    for row in rows:
        created = None if row.year is None else datetime(row.year, 7, 1, tzinfo=UTC)
        records.texts.append(row.text)
        records.ids.append(row.id)
        records.sources.append(row.source)
        records.urls.append(row.url)
        records.created.append(created)
        records.metadata.append(None)
        records.offsets.append(row.number)
    return to_documents(records, "mill")[0]


def divide(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)] or [[]]


def random_key(row, seed):
    return random_keys(pa.chunked_array([pa.array([row.doc_id.bytes], pa.uuid())]), seed)[0]


def batches(rows, size):
    """Rows by batch; all together without one."""
    found = {}
    for row in rows:
        batch = floor(random_key(row, BATCH_SEED) * ceil(len(rows) / size)) if size else 0
        found.setdefault(batch, []).append(row)
    return found.values()


NO_BLOCKS = BlockLists()
PLAIN = Export()


def publish(mill, rules=None, export=PLAIN, block_lists=NO_BLOCKS, part_bytes=write_dataset.PART_BYTES):
    """Select and export, as the main path does it, one part after the other; the manifest."""
    compiled = mill.compile(**(rules or {}))
    name = compiled.selection.name
    select_documents(mill.workspace, mill.shards, mill.scorers, compiled, block_lists)
    decisions = mill.workspace.read_json("decisions", name, "manifest.json")
    identity = f"{decisions['kept']} {export}"
    write_dataset.clear_dataset(mill.workspace, name, identity)
    parts = write_dataset.plan_parts(mill.workspace, name, mill.shards, part_bytes=part_bytes)
    cutter = None
    if compiled.window_scores is not None:
        (cutter,) = (scorer for scorer in mill.scorers if isinstance(scorer, ColorFilter))
    for part in parts:
        write_dataset.write_part(part, mill.workspace, name, export, identity, cutter)
    rows = [write_dataset.ledger_row(mill.workspace, name, part) for part in parts]
    commit_ledger(mill.workspace, write_dataset.stage_of(name), rows)
    card = dataset_card.render(mill.workspace, mill.recipe, compiled.selection, mill.scorers)
    return write_dataset.commit_dataset(mill.workspace, name, parts, {"identity": identity}, card)


def publish_tokens(mill, dataset, **said):
    """Export the tokens of a dataset, as the main path does it; their manifest."""
    spec = Tokens(**said)
    plan = write_tokens.plan_tokens(mill.workspace, mill.recipe, spec, dataset, mill.scorers)

    def run(elements, transform):
        return run_pipeline(beam_options([]), lambda pipeline: pipeline | beam.Create(elements) | transform)

    return write_tokens.export_tokens(plan, dataset, run)

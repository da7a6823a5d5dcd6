"""Small corpora for tests: writers of input files, and ingest as a plain loop over the pure functions."""

import gzip
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.corpus import commit_corpus
from gristmill.pipelines.plan_splits import SHARD_BYTES, IngestPlan, commit_plan, plan_ingest
from gristmill.pipelines.read_documents import (
    BLOCK_BYTES,
    Limits,
    commit_num_shards,
    group_blocks,
    is_written,
    write_shard,
    write_split,
)
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.workspace import Workspace, open_workspace

DATE = "2021-02-03T04:05:06Z"


@dataclass
class Corpus:
    """What ingest left in a workspace."""

    workspace: Workspace
    plan: IngestPlan
    shards: list
    ledger: list

    @property
    def rows(self):
        """Every document with its text, in order."""
        rows = []
        for shard in self.shards:
            with pa.ipc.open_file(self.workspace.corpus(shard.name)) as file:
                rows += file.read_all().to_pylist()
        return rows

    @property
    def documents(self):
        """Every document without its text, in order."""
        paths = [self.workspace.documents(shard.name) for shard in self.shards]
        return [row for path in paths for row in pq.read_table(path).to_pylist()]

    @property
    def texts(self):
        return [row["text"] for row in self.rows]

    @property
    def rejects(self):
        """(file name, location, reason) of every reject, in order."""
        paths = [self.workspace.rejects(shard.name) for shard in self.shards]
        rows = [row for path in paths if files.exists(path) for row in pq.read_table(path).to_pylist()]
        return [(Path(row["path"]).name, row["location"], row["reason"]) for row in rows]

    @property
    def reasons(self):
        """The words before the colon of every reject's reason."""
        return [reason.partition(":")[0] for _, _, reason in self.rejects]

    def total(self, name):
        """Sum of a ledger column."""
        return sum(getattr(row, name) for row in self.ledger)


def make_recipe(root, inputs, **keys):
    """A recipe over inputs, each a path or the keys of an input."""
    corpus = [{"source": "web", **(i if isinstance(i, dict) else {"path": str(i)})} for i in inputs]
    return Recipe.model_validate({"workspace": str(root), "corpus": corpus, **keys})


def ingest(
    root,
    inputs,
    extractor,
    *,
    shard_bytes=SHARD_BYTES,
    block_bytes=BLOCK_BYTES,
    spread=False,
    share=1.0,
    **keys,
):
    """Plan, read, parse and commit, one split after the other."""
    recipe = make_recipe(root, inputs, **keys)
    workspace = open_workspace(recipe.workspace, create=True)
    plan = plan_ingest(workspace, recipe, shard_bytes=shard_bytes)
    commit_plan(workspace, plan)
    limits = Limits(plan.shard_bytes, recipe.max_document_bytes, block_bytes=block_bytes, sampled_share=share)
    for split in plan.splits:
        if is_written(workspace, split):
            continue
        if spread:
            spread_split(workspace, split, limits, extractor)
        else:
            list(write_split(workspace, split, limits, extractor))
    return Corpus(workspace, plan, *commit_corpus(workspace, plan))


def spread_split(workspace, split, limits, extractor):
    """As `ReadDocuments(spread_streams=True)` does it: all blocks first, shards in any order."""
    shards = [
        (n, [b for _, b in group]) for n, group in groupby(group_blocks(split, limits), lambda item: item[0])
    ]
    commit_num_shards(workspace, split, len(shards))
    for number, blocks in reversed(shards):
        list(write_shard(workspace, split, number, blocks, limits, extractor))


def write_lines(path, *records, end=b"\n"):
    """A JSON lines file; bytes are lines as they are, a string is a document's text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        record
        if isinstance(record, bytes)
        else json.dumps({"text": record} if isinstance(record, str) else record)
        for record in records
    ]
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + end for line in lines))
    return path


def write_table(path, columns, **options):
    """A Parquet file from columns or a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


def warc_record(
    kind="response", url="http://example.com/", body=b"", *, content_type=None, date=DATE, **headers
):
    """A WARC record; `body` of a response starts with the HTTP status line."""
    types = {"response": "application/http; msgtype=response", "conversion": "text/plain"}
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        *([f"WARC-Date: {date}"] if date else []),
        *([f"WARC-Target-URI: {url}"] if url else []),
        f"Content-Type: {content_type or types.get(kind, 'text/html')}",
        f"Content-Length: {headers.pop('length', len(body))}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body + b"\r\n\r\n"


def http(body, *, status="200 OK", **headers):
    """An HTTP response; keyword names are headers with `_` for `-`."""
    named = {"Content-Type": "text/html; charset=utf-8"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    lines = [
        f"HTTP/1.1 {status}",
        *(f"{name}: {value}" for name, value in named.items() if value is not None),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def html(text):
    """A page whose main text is `text`."""
    return f"<html><body><main><p>{text}</p></main></body></html>".encode()


def gzip_members(*records):
    """Records as archives are compressed: one gzip member each."""
    return b"".join(gzip.compress(record, mtime=0) for record in records)

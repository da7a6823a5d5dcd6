"""Seed documents: those on which predictive strength is measured, as a small corpus of their own.

They are `documents_per_host` documents of each of the most frequent hosts (PreSelect, Shum et al. 2025, arXiv
2503.00808, section 4: 3,000 hosts, 300 documents each), by a seeded hash of doc_id. Documents without a host count as
of a host that is called like their source. Blank ones and those that a model was trained on are left out.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.corpus import read_shard
from gristmill.pipelines.ledger import write_side_file
from gristmill.pipelines.read_documents import STAGE, content_digest
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.scratch import scratch_database
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace, open_workspace
from gristmill.scorers import schema
from gristmill.scorers.doc_ids import random_keys

FOLDER = "seed"
PLAN = "plan.parquet"
SHARD_BYTES = 8 << 20
"""Text of a seed shard, about: enough to fill the batches of a model, little enough to keep many of them busy."""
SEED = 1 << 34
"""Apart from the seeds of other samples."""
PLAN_SCHEMA = pa.schema([("part", pa.int64()), ("shard", pa.string()), ("row", pa.int64())])


@dataclass(frozen=True)
class SeedRule:
    """Which documents are seeds.

    Args:
        hosts: How many hosts.
        documents_per_host: At most.
        seed: Of the hash that draws them.
        seen: Documents that are left out.
    """

    hosts: int
    documents_per_host: int
    seed: int
    seen: tuple[Sample, ...] = ()


class CopySeeds(beam.PTransform):
    """Numbers of the plan's parts -> names of the shards written.

    Args:
        workspace: Where the corpus lies.
        seeds: Where the plan lies and the seeds go.
    """

    def __init__(self, workspace: Workspace, seeds: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.seeds = seeds

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return parts | "WriteSeeds" >> beam.Map(write_seeds, self.workspace, self.seeds)


def gather_seeds(training: Training, rule: SeedRule) -> tuple[Workspace, list[Shard]]:
    """The seed documents in a workspace of their own, made once for a rule and a corpus."""
    said = [asdict(rule), SHARD_BYTES, [(shard.name, shard.content) for shard in training.shards]]
    digest = blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()
    seeds = open_workspace(training.workspace.path(FOLDER, digest), create=True)
    content = seeds.read_json("corpus", "shards.json")
    if content is None:
        plan = plan_seeds(training.workspace, training.shards, rule)
        with files.committed(seeds.path(PLAN)) as file:
            pq.write_table(plan, file, row_group_size=1 << 16)
        parts = pc.unique(plan["part"]).to_pylist()
        training.run(parts, "CopySeeds" >> CopySeeds(training.workspace, seeds))
        content = [asdict(read_shard(seeds, part_name(part))) for part in parts]
        seeds.commit_json(content, "corpus", "shards.json")
    return seeds, [Shard(**shard) for shard in content]


def plan_seeds(workspace: Workspace, shards: Sequence[Shard], rule: SeedRule) -> pa.Table:
    """Which row of which shard goes to which part, in the order of the corpus.

    One shard's documents are held at a time. The temporary disk holds a row a shard and host to find the most frequent
    hosts, and then at most `documents_per_host` rows a shard and host, of about 40 bytes.

    Args:
        workspace: Where the corpus lies.
        shards: The corpus.
        rule: Which documents are seeds.

    Returns:
        Rows of `PLAN_SCHEMA`.
    """
    with scratch_database() as connection:
        connection.execute("CREATE TABLE counts (host VARCHAR, num_documents BIGINT)")
        for shard in shards:
            connection.register("documents", _documents(workspace, shard, rule))
            connection.execute("INSERT INTO counts SELECT host, count(*) FROM documents GROUP BY host")
        connection.execute(
            "CREATE TABLE frequent AS SELECT host FROM counts GROUP BY host "
            f"ORDER BY sum(num_documents) DESC, host LIMIT {rule.hosts}"
        )
        first = (
            f"QUALIFY row_number() OVER (PARTITION BY host ORDER BY key, doc_id) <= {rule.documents_per_host}"
        )
        connection.execute(
            "CREATE TABLE drawn (host VARCHAR, key DOUBLE, doc_id UUID, shard BIGINT, row BIGINT, num_bytes BIGINT)"
        )
        for number, shard in enumerate(shards):
            connection.register("documents", _documents(workspace, shard, rule))
            connection.execute(
                f"INSERT INTO drawn SELECT host, key, doc_id, {number}, row, num_bytes FROM documents "
                f"SEMI JOIN frequent USING (host) WHERE NOT seen {first}"
            )
        found = connection.sql(
            f"SELECT shard, row, num_bytes FROM (SELECT * FROM drawn {first}) ORDER BY shard, row"
        ).to_arrow_table()
    num_bytes = found["num_bytes"].to_numpy()
    parts = (np.cumsum(num_bytes) - num_bytes) // SHARD_BYTES
    names = pa.array([shard.name for shard in shards], pa.string()).take(found["shard"].combine_chunks())
    return pa.table([pa.array(parts), names, found["row"]], schema=PLAN_SCHEMA)


def _documents(workspace: Workspace, shard: Shard, rule: SeedRule) -> pa.Table:
    """Host, key and size of the documents of a shard that are not blank, and whether a model has seen them."""
    with files.open_read(workspace.documents(shard.name)) as file:
        table = files.read_table(file, columns=["doc_id", "host", "source", "num_bytes", "blank"])
    seen = np.zeros(len(table), np.bool_)
    for sample in rule.seen:
        keys = random_keys(table["doc_id"], sample.seed)
        seen |= (keys >= sample.low) & (keys < sample.high)
    columns = {
        "host": pc.coalesce(table["host"], table["source"]),
        "key": random_keys(table["doc_id"], SEED + rule.seed),
        "doc_id": table["doc_id"],
        "row": np.arange(len(table)),
        "num_bytes": table["num_bytes"],
        "seen": seen,
    }
    return pa.table(columns).filter(pc.invert(table["blank"]))


def write_seeds(part: int, workspace: Workspace, seeds: Workspace) -> str:
    """Copy the documents of one part; its text-free twin last, which marks it as whole."""
    name = part_name(part)
    if files.exists(seeds.documents(name)):
        return name
    with files.open_read(seeds.path(PLAN)) as file:
        plan = files.read_table(file, filters=[("part", "=", part)])
    twins = []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        files.committed(seeds.corpus(name)) as file,
        pa.ipc.new_file(file, schema.CORPUS, options=options) as writer,
    ):
        for shard in pc.unique(plan["shard"]).to_pylist():
            rows = plan.filter(pc.equal(plan["shard"], shard))["row"].combine_chunks()
            for batch in take_rows(read_batches(workspace, shard), rows):
                writer.write_batch(batch)
            with files.open_read(workspace.documents(shard)) as documents:
                twins.append(files.read_table(documents, schema=schema.DOCUMENTS).take(rows))
    twin = pa.concat_tables(twins).set_column(
        schema.DOCUMENTS.get_field_index("shard"),
        schema.DOCUMENTS.field("shard"),
        pa.array([name] * len(plan), pa.string()),
    )
    num_bytes = pc.sum(twin["num_bytes"]).as_py()
    footer = {"stage": STAGE, "num_in": len(twin), "num_dropped": 0, "num_rejected": 0, "reasons": {}}
    write_side_file(
        seeds.documents(name), twin, footer | {"num_bytes": num_bytes, "content": content_digest(twin)}
    )
    return name


def take_rows(batches: Iterator[pa.RecordBatch], rows: pa.Int64Array) -> Iterator[pa.RecordBatch]:
    """Some rows of a shard, in order, from its batches."""
    wanted, start = rows.to_numpy(), 0
    for batch in batches:
        first, last = np.searchsorted(wanted, [start, start + len(batch)])
        if last > first:
            yield batch.take(pa.array(wanted[first:last] - start))
        start += len(batch)


def part_name(part: int) -> str:
    """The name of a seed shard."""
    return f"part-{part:05d}"

"""From edges to the `duplicates` table: clusters whose members all reach their representative.

The launcher holds the edges and the documents that have one, nothing else of the corpus.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import count
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.ledger import LedgerRow, commit_ledger, peak_bytes, read_footer, write_side_file
from gristmill.pipelines.mark_duplicates import (
    EDGES,
    VERIFIED,
    Corpus,
    FindEdges,
    VerifyMembers,
    compare_here,
    flat_lists,
    member_blocks,
    plan_passes,
)
from gristmill.pipelines.records import uuid_array
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers import schema
from gristmill.scorers.base import SelectionError
from gristmill.scorers.clusters import Floats, Pairs, Rows, Stars, cluster_verified
from gristmill.scorers.doc_ids import uuid_halves

STAGE = "dedup"
FEW_PAIRS = 128
"""So many pairs are verified on the launcher: to start a pipeline takes longer."""
Run = Callable[[Sequence[Any], beam.PTransform], object]
"""Runs a transform over elements, on whatever runner."""


def identity(corpus: Corpus) -> dict[str, Any]:
    """Everything the table depends on."""
    shards = blake2b(repr([asdict(shard) for shard in corpus.shards]).encode(), digest_size=16).hexdigest()
    return {
        "rule": corpus.rule.model_dump(mode="json"),
        "minhash": corpus.scorer.fingerprint(),
        "shards": shards,
    }


def require_marked(corpus: Corpus) -> None:
    """Refuse duplicates that were marked by another rule or in another corpus.

    Raises:
        SelectionError: If the table is not that of this rule, these signatures and these documents.
    """
    manifest = corpus.workspace.read_json("duplicates", "manifest.json")
    if manifest is None or manifest["identity"] != identity(corpus):
        raise SelectionError(
            "near duplicates are not marked by this recipe in this corpus; run `gristmill dedup` first"
        )


def mark_duplicates(corpus: Corpus, run: Run) -> dict[str, Any]:
    """Mark near duplicates and commit the table, one file a shard, the manifest last.

    Returns:
        The manifest: identity, counts, and what was reported on the way.
    """
    wanted = identity(corpus)
    manifest = corpus.workspace.read_json("duplicates", "manifest.json")
    if manifest is not None and manifest["identity"] == wanted:
        return dict(manifest)
    started = time.monotonic()
    files.delete([corpus.workspace.path("duplicates", "manifest.json")])
    work = f"duplicates/work-{blake2b(repr(wanted).encode(), digest_size=8).hexdigest()}"
    for bands in plan_passes(sum(shard.num_rows for shard in corpus.shards), corpus.rule.num_bands):
        done = f"pass-{bands.start:03d}.json"
        if corpus.workspace.read_json(work, done) is None:
            run(range(len(corpus.shards)), "FindEdges" >> FindEdges(corpus, bands, work))
            corpus.workspace.commit_json({}, work, done)
    pairs, similarity = read_edges(corpus, work)
    rows, inverse = np.unique(pairs, return_inverse=True)
    ranks, doc_ids = _describe(corpus, rows)
    verify = _verify(corpus, run, work, rows) if corpus.rule.verify else None
    stars = cluster_verified(
        inverse.reshape(-1, 2), similarity, _priority(ranks, doc_ids), corpus.rule.threshold, verify
    )
    report = _commit_table(corpus, rows, doc_ids, stars, started)
    buckets = _commit_buckets(corpus, work)
    content = {
        "identity": wanted,
        **report,
        "num_edges": len(pairs),
        "num_parted": stars.num_parted,
        "num_oversized_buckets": len(buckets),
        "largest_bucket": int(buckets["size"].to_numpy().max(initial=0)),
    }
    corpus.workspace.commit_json(content, "duplicates", "manifest.json")
    files.delete_folder(corpus.workspace.path(work))
    return content


def read_edges(corpus: Corpus, work: str) -> tuple[Pairs, Floats]:
    """Every edge once, however many passes found it: pairs int64[e, 2], sorted, and similarities float64[e]."""
    table = _read_work(corpus, work, "edges-", EDGES)
    which, right = flat_lists(table["right"])
    left = table["left"].to_numpy()[which]
    _, similarity = flat_lists(table["similarity"])
    order = np.lexsort((right, left))
    left, right, similarity = left[order], right[order], similarity[order]
    is_new = np.r_[True, (left[1:] != left[:-1]) | (right[1:] != right[:-1])][: len(left)]
    return np.stack([left, right], axis=1)[is_new], similarity[is_new]


def _verify(corpus: Corpus, run: Run, work: str, rows: Rows) -> Callable[[Pairs], Floats]:
    """A function from distinct pairs of documents, as positions in `rows`, to their true similarities."""
    attempts = count()

    def compare(pairs: Pairs) -> Floats:
        if len(pairs) <= FEW_PAIRS:
            return compare_here(corpus, rows[pairs])
        attempt = next(attempts)
        run(member_blocks(corpus, rows[pairs]), "VerifyMembers" >> VerifyMembers(corpus, work, attempt))
        table = _read_work(corpus, work, f"verified-{attempt:03d}-", VERIFIED)
        jaccard = np.empty(len(pairs))
        answered = np.lexsort((table["representative"].to_numpy(), table["member"].to_numpy()))
        jaccard[np.lexsort((pairs[:, 1], pairs[:, 0]))] = table["jaccard"].to_numpy()[answered]
        return jaccard

    return compare


def _describe(corpus: Corpus, rows: Rows) -> tuple[Rows, npt.NDArray[np.uint64]]:
    """Rank of each row's source among the preferred ones, and the halves of its doc_id, shapes (n,) and (n, 2)."""
    ranks = [np.empty(0, np.int64)]
    halves = [np.empty((0, 2), np.uint64)]
    numbers = corpus.shard_of(rows)
    preferred = {source: rank for rank, source in enumerate(corpus.rule.prefer)}
    for number in np.unique(numbers).tolist():
        local = rows[numbers == number] - corpus.starts[number]
        with files.open_read(corpus.workspace.documents(corpus.shards[number].name)) as file:
            table = (
                files.read_table(file, columns=["doc_id", "source"]).take(pa.array(local)).combine_chunks()
            )
        sources = table["source"].to_pylist()
        ranks.append(np.array([preferred.get(source, len(preferred)) for source in sources], np.int64))
        halves.append(uuid_halves(table["doc_id"].combine_chunks()))
    return np.concatenate(ranks), np.concatenate(halves)


def _priority(ranks: Rows, doc_ids: npt.NDArray[np.uint64]) -> Rows:
    """Position of each row in the order of source, then doc_id."""
    priority = np.empty(len(ranks), np.int64)
    priority[np.lexsort((doc_ids[:, 1], doc_ids[:, 0], ranks))] = np.arange(len(ranks))
    return priority


def _commit_table(
    corpus: Corpus, rows: Rows, doc_ids: npt.NDArray[np.uint64], stars: Stars, started: float
) -> dict[str, Any]:
    """Write the members of clusters of two and more, shard by shard."""
    representative = stars.representative
    sizes = np.bincount(representative, minlength=len(rows))
    is_member = sizes[representative] > 1
    numbers = corpus.shard_of(rows)
    ledger = []
    for number, shard in enumerate(corpus.shards):
        chosen = np.flatnonzero(is_member & (numbers == number))
        leaders = uuid_array(doc_ids[representative[chosen]])
        table = pa.table(
            [
                pa.array(rows[chosen] - corpus.starts[number]),
                uuid_array(doc_ids[chosen]),
                leaders,
                leaders,
                leaders,
                pa.array(stars.estimate[chosen]),
                pa.array(stars.jaccard[chosen], from_pandas=True),
            ],
            schema=schema.DUPLICATES,
        )
        footer = {"stage": STAGE, "num_in": shard.num_rows, "content": shard.content}
        write_side_file(corpus.workspace.duplicates(shard.name), table, footer)
        ledger.append(LedgerRow(STAGE, shard.name, shard.num_rows, shard.num_rows, num_bytes=shard.num_bytes))
    seconds = (time.monotonic() - started) / max(len(ledger), 1)
    timed = [replace(row, seconds=seconds, peak_bytes=peak_bytes()) for row in ledger]
    commit_ledger(corpus.workspace, STAGE, timed)
    return {
        "num_clusters": int((sizes > 1).sum()),
        "num_near_duplicates": int(is_member.sum() - (sizes > 1).sum()),
        "largest_cluster": int(sizes.max(initial=0)),
    }


def read_clusters(workspace: Workspace, shard: Shard) -> pa.Array:
    """The cluster of each document of a shard, null where it is in none, row-aligned with the shard.

    Raises:
        SelectionError: If the shard's table is missing or was made from other documents.
    """
    path = workspace.duplicates(shard.name)
    footer = read_footer(path)
    if footer is None or footer["content"] != shard.content:
        raise SelectionError(f"{shard.name} has no marked duplicates; run `gristmill dedup` first")
    with files.open_read(path) as file:
        table = files.read_table(file, columns=["position", "cluster_id"]).combine_chunks()
    where = np.full(shard.num_rows, -1)
    where[table["position"].to_numpy()] = np.arange(len(table))
    return table["cluster_id"].combine_chunks().take(pa.array(where, mask=where < 0))


def _commit_buckets(corpus: Corpus, work: str) -> pa.Table:
    """Write the buckets above the cap, of which not all pairs were formed; a file without rows where there is none."""
    table = _read_work(corpus, work, "oversized-", schema.DUPLICATE_BUCKETS)
    table = table.sort_by([(name, "ascending") for name in schema.DUPLICATE_BUCKETS.names])
    with files.committed(corpus.workspace.path("duplicates", "buckets.parquet")) as file:
        pq.write_table(table, file)
    return table


def _read_work(corpus: Corpus, work: str, prefix: str, expected: pa.Schema) -> pa.Table:
    """The files of one kind of intermediate result, end to end, in order."""
    tables = [expected.empty_table()]
    for item in files.list_folder(corpus.workspace.path(work)):
        if item.path.rpartition("/")[2].startswith(prefix):
            with files.open_read(item.path) as file:
                tables.append(files.read_table(file))
    return pa.concat_tables(tables)

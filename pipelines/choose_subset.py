"""Representative subsets: a greedy algorithm in partitions of the corpus, and once more over what they chose.

1. Partitions. Embeddings travel as Arrow blocks to the partition of their document, drawn by a seeded hash of doc_id
   or within its cluster. Each puts all its documents in order. A worker holds one partition, 6 d + 60 bytes a document
   with embeddings of d numbers, and 1 GB of similarities at most: 20,000 documents of 768 numbers are 94 MB. 10^9
   documents make 50,000 partitions, each a task of its own; a block then holds about one document, and its encoding,
   1 kB, costs as much as the embedding.
2. Merge. Of a group of up to 8 partitions, each puts forward up to four times its share of the budget, and the greedy
   algorithm chooses again among these, now by what they are worth to all documents of the group. A worker holds a
   group, 750 MB at the sizes above. Where one group of up to 4 partitions is the whole corpus, this is the distributed
   greedy algorithm (GreeDi, Mirzasoleiman et al. 2013): every partition puts forward a whole budget, and with random
   partitions and monotone functions (1 - 1/e) / 2 of the best subset's worth is sure in expectation (Barbosa et al.
   2015). Beyond that nothing is sure: groups keep their shares, and `tests/bench/bench_subset_partitions.py` measures
   what is lost.
3. Representatives. Every document is compared with what its group chose. The scores travel to the document's shard, 60
   bytes each.

Partitions in order lie in files until all is done, so that a run that was killed goes on. Beam's local runner holds
what is shuffled in memory, about 4 bytes a byte: 8 d bytes a document.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.candidates import Candidates
from gristmill.models.devices import lease_device
from gristmill.models.greedy import Ranking, choose
from gristmill.models.similarity import assign, mean_squared_distance
from gristmill.models.submodular import FacilityLocation as Coverage
from gristmill.models.submodular import FeatureCoverage, GraphCut, LogDeterminant, SetFunction
from gristmill.models.taylor_softmax import taylor_softmax
from gristmill.pipelines import files
from gristmill.pipelines.arrow_beam import blocks_by_key, keyed_blocks
from gristmill.pipelines.derived_scores import read_scores
from gristmill.pipelines.ledger import LedgerRow, read_footer, record_task, write_side_file
from gristmill.pipelines.score_documents import Shard, is_scored, stage_of
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.doc_ids import random_keys, uuid_halves
from gristmill.scorers.embedding import read_vectors
from gristmill.scorers.facility_location import NOBODY, FacilityLocation
from gristmill.scorers.schema import DOC_ID

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Blocks = tuple[int, Iterable[pa.RecordBatch]]
Run = Callable[[Sequence[Any], beam.PTransform], object]
"""Runs a transform over elements, on whatever runner."""

GROUP_PARTITIONS = 8
"""Partitions that are merged together at most."""
OVERSAMPLE, MAX_CANDIDATES = 4.0, 0.5
"""Budgets' worth of documents that compete in a merge, but no larger a share of all documents than this."""
BANDWIDTH_DOCUMENTS = 10_000
"""Embeddings by which rbf's bandwidth is estimated, and those of the rest of a shard."""
PARTITION_SEED = 1 << 37


@dataclass(frozen=True)
class Subset:
    """What is chosen from what.

    Args:
        workspace: Where shards and scores lie.
        shards: The corpus.
        scorer: How, with versions and corpus.
        pieces: Partitions of each cluster, int64[c]; of the whole corpus where partitions are random, int64[1].
        share: The budget as a share of all documents or tokens, of which every partition has as much.
        bandwidth: Of similarities by rbf, one for all partitions; None for cosines, or without embeddings.
    """

    workspace: Workspace
    shards: tuple[Shard, ...]
    scorer: FacilityLocation
    pieces: tuple[int, ...]
    share: float
    bandwidth: float | None = None

    @property
    def groups(self) -> list[list[int]]:
        """Partitions that are merged together; fewer where the budget is large, and so many candidates compete."""
        num_partitions = sum(self.pieces)
        size = max(min(GROUP_PARTITIONS, int(1 / self.share)), 1)
        parts = np.array_split(np.arange(num_partitions), -(-num_partitions // size))
        return [part.tolist() for part in parts]

    def partition_of(self, doc_ids: pa.Array, clusters: Rows) -> Rows:
        """The partition of each of n documents, int64[n]."""
        uniform = random_keys(pa.chunked_array([doc_ids]), PARTITION_SEED + self.scorer.seed)
        pieces = np.array(self.pieces)
        firsts = np.cumsum(pieces) - pieces
        return firsts[clusters] + (uniform * pieces[clusters]).astype(np.int64)

    def path(self, partition: int) -> str:
        """The file of a partition in order, which is deleted in the end."""
        return self.workspace.path(*_work(self.scorer), f"partition-{partition:06d}.parquet")

    def choose(
        self, vectors: Vectors, costs: Numbers, candidates: Rows | None = None, *, rank_all: bool = False
    ) -> Ranking:
        """Documents in the order in which the greedy algorithm chooses them, of equal ones the first row.

        Args:
            vectors: float32[n, d].
            costs: What the budget counts, float64[n].
            candidates: Rows that may be chosen; all by default.
            rank_all: Whether to go on beyond the budget, until all candidates are chosen.
        """
        function = make_function(self.scorer, vectors, self.bandwidth)
        if candidates is not None:
            function = Candidates(function, candidates)
            costs_of = costs[candidates]
        else:
            costs_of = costs
        is_priced = self.scorer.of == "tokens"
        budget = self.share * costs.sum()
        with lease_device() as device:
            return choose(
                function,
                max(budget, costs_of.min()) if is_priced else ceil(budget - 1e-9),
                optimizer=self.scorer.optimizer,
                costs=costs_of if is_priced else None,
                rank_all=rank_all,
                seed=self.scorer.seed,
                device=str(device),
            )


class OrderPartitions(beam.PTransform):
    """Shard numbers -> numbers of the partitions that are in order."""

    def __init__(self, subset: Subset) -> None:
        super().__init__()
        self.subset = subset

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return (
            shards
            | "PartitionShards" >> keyed_blocks(partition_shard, self.subset)
            | "GroupByPartition" >> beam.GroupByKey()
            | "OrderPartitions" >> beam.Map(order_partition, self.subset)
        )


class MergeGroups(beam.PTransform):
    """Groups of partitions in order -> numbers of the shards that are scored.

    Args:
        subset: What is chosen from what.
        num_documents: With an embedding, in all partitions.
    """

    def __init__(self, subset: Subset, num_documents: int) -> None:
        super().__init__()
        self.subset, self.num_documents = subset, num_documents

    def expand(self, groups: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return (
            groups
            | "MergeGroups" >> keyed_blocks(merge_group, self.subset, self.num_documents)
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShards" >> beam.Map(write_shard, self.subset, self.num_documents)
        )


def choose_subset(workspace: Workspace, shards: Sequence[Shard], scorer: FacilityLocation, run: Run) -> None:
    """Score every document by what it adds to a representative subset of all; what is done is not done again."""
    if all(files.in_parallel(partial(_is_scored, workspace, scorer), shards)):
        return
    subset = plan_subset(workspace, shards, scorer)
    done = (*_work(scorer), "ordered.json")
    if workspace.read_json(*done) is None:
        run(range(len(shards)), "OrderPartitions" >> OrderPartitions(subset))
        workspace.commit_json({}, *done)
    subset, groups, num_documents = read_orders(subset)
    if groups:
        run(groups, "MergeGroups" >> MergeGroups(subset, num_documents))
    for number, shard in enumerate(shards):
        if not _is_scored(workspace, scorer, shard):  # none of its documents has an embedding
            write_shard((number, []), subset, num_documents)
    files.delete_folder(workspace.path(*_work(scorer)))


def _work(scorer: FacilityLocation) -> tuple[str, ...]:
    return "scores", scorer.name, scorer.fingerprint(), "work"


def _is_scored(workspace: Workspace, scorer: FacilityLocation, shard: Shard) -> bool:
    return is_scored(workspace, shard, scorer.name, scorer.fingerprint())


def plan_subset(workspace: Workspace, shards: Sequence[Shard], scorer: FacilityLocation) -> Subset:
    """What is chosen from what; documents without an embedding are counted until partitions are in order."""
    pieces = plan_pieces(workspace, shards, scorer)
    share = scorer.share_of(partial(_count, workspace, shards, scorer))
    bandwidth = estimate_bandwidth(workspace, shards, scorer) if scorer.similarity == "rbf" else None
    return Subset(workspace, tuple(shards), scorer, pieces, share, bandwidth)


def _count(workspace: Workspace, shards: Sequence[Shard], scorer: FacilityLocation) -> int:
    """All documents or tokens."""
    if scorer.of == "documents":
        return sum(shard.num_rows for shard in shards)
    columns = (_read_column(workspace, shard.name, scorer, "num_tokens") for shard in shards)
    return sum(pc.sum(column).as_py() or 0 for column in columns)


def estimate_bandwidth(
    workspace: Workspace, shards: Sequence[Shard], scorer: FacilityLocation
) -> float | None:
    """Mean squared distance of embeddings in a few shards, drawn by the seed; None if no document has one."""
    names = np.random.default_rng(scorer.seed).permutation(sorted(shard.name for shard in shards))
    sample: list[npt.NDArray[np.float16]] = []
    for name in names.tolist():
        vectors = read_vectors(_read_column(workspace, name, scorer, "embedding"))[1]
        sample += [vectors] if len(vectors) else []
        if sum(map(len, sample)) >= BANDWIDTH_DOCUMENTS:
            break
    return mean_squared_distance(np.concatenate(sample)) if sample else None


def plan_pieces(workspace: Workspace, shards: Sequence[Shard], scorer: FacilityLocation) -> tuple[int, ...]:
    """Partitions of each cluster, or of the corpus; reads 4 bytes a document where there are clusters."""
    sizes = np.array([sum(shard.num_rows for shard in shards)])
    if scorer.partitions == "clusters":
        sizes = np.zeros(0, np.int64)
        for shard in shards:
            clusters = _read_column(workspace, shard.name, scorer, "cluster").to_numpy()
            counts = np.bincount(clusters[clusters >= 0], minlength=len(sizes))
            counts[: len(sizes)] += sizes
            sizes = counts
    return tuple(np.maximum(-(-sizes // scorer.partition_documents), 1).tolist())


def read_orders(subset: Subset) -> tuple[Subset, list[list[int]], int]:
    """What partitions in order tell.

    Returns:
        The subset with its share of the documents that have an embedding, the groups without partitions that got no
        document, and the number of documents in all of them.
    """
    partitions = range(sum(subset.pieces))
    footers = files.in_parallel(read_footer, [subset.path(number) for number in partitions])
    sizes = [0 if footer is None else footer["num_in"] for footer in footers]
    total = sum(footer["cost"] for footer in footers if footer is not None)
    exact = replace(subset, share=subset.scorer.share_of(lambda: total))
    groups = [[number for number in group if sizes[number]] for group in exact.groups]
    return exact, [group for group in groups if group], sum(sizes)


def _read_column(workspace: Workspace, shard: str, scorer: FacilityLocation, name: str) -> pa.ChunkedArray:
    """One input of a shard's documents, without their doc_ids."""
    maker, _, fingerprint = scorer.versions[name].partition("/")
    with files.open_read(workspace.scores(maker, fingerprint, shard)) as file:
        return files.read_table(file, columns=[name])[name]


def partition_shard(number: int, subset: Subset) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The documents of a shard that have an embedding, as blocks for their partitions."""
    start = 0
    for batch in read_scores(subset.workspace, subset.shards[number].name, [subset.scorer]):
        rows, vectors = read_vectors(batch["embedding"])
        if len(rows):
            kept = batch.take(pa.array(rows))
            clusters = np.zeros(len(rows), np.int64)
            if "cluster" in batch.schema.names:
                clusters = kept["cluster"].to_numpy().astype(np.int64)
            columns = {
                "doc_id": kept["doc_id"],
                "shard": pa.array(np.full(len(rows), number, np.int64)),
                "position": pa.array(rows + start),
                "cost": kept["num_tokens"].cast(pa.float64())
                if "num_tokens" in batch.schema.names
                else pa.array(np.ones(len(rows))),
                "vector": _vector_column(vectors),
            }
            yield from blocks_by_key(pa.table(columns), subset.partition_of(kept["doc_id"], clusters))
        start += len(batch)


def order_partition(element: Blocks, subset: Subset) -> int:
    """Put the documents of a partition in order, and leave them with gains and places."""
    number, blocks = element
    path = subset.path(number)
    if not files.exists(path):
        table = _by_doc_id(pa.Table.from_batches(blocks))
        ranking = subset.choose(_vectors(table), table["cost"].to_numpy(), rank_all=True)
        gains, places = np.empty(len(table)), np.empty(len(table), np.int64)
        gains[ranking.order], places[ranking.order] = ranking.gains, np.arange(len(table))
        table = table.append_column("gain", pa.array(gains)).append_column("place", pa.array(places))
        write_side_file(path, table, {"num_in": len(table), "cost": float(table["cost"].to_numpy().sum())})
    return number


def merge_group(group: list[int], subset: Subset, num_documents: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The scores of a group's documents, as blocks for their shards."""
    partitions = [_read(subset.path(number)) for number in group]
    scores = [_describe(table, subset, num_documents) for table in partitions]
    gains, probabilities, ranks, is_candidate = (
        np.concatenate(columns) for columns in zip(*scores, strict=True)
    )
    table = pa.concat_tables(partitions).combine_chunks()
    vectors, costs = _vectors(table), table["cost"].to_numpy()
    candidates = np.flatnonzero(is_candidate)
    if len(group) > 1 and len(candidates) < len(table):
        chosen = candidates[subset.choose(vectors, costs, candidates).order]
    else:
        in_order = np.argsort(ranks, kind="stable")
        chosen = in_order[: prefix_length(costs[in_order], subset.share)]
    ranks = promoted(ranks, chosen, candidates)
    with lease_device() as device:
        nearest, similarity = assign(
            vectors,
            chosen,
            kind=subset.scorer.similarity,
            bandwidth=subset.bandwidth,
            device=str(device),
        )
    columns = {
        "position": table["position"],
        "facility_location_gain": pa.array(gains),
        "facility_location_rank": pa.array(ranks),
        "facility_location_probability": pa.array(probabilities),
        "facility_location_representative": table["doc_id"].combine_chunks().take(pa.array(nearest)),
        "facility_location_similarity": pa.array(similarity.astype(np.float64)),
    }
    yield from blocks_by_key(pa.table(columns), table["shard"].to_numpy())


def _describe(table: pa.Table, subset: Subset, num_documents: int) -> tuple[Numbers, Numbers, Rows, Flags]:
    """Gains, probabilities and ranks of a partition's documents, and which of them compete in the merge."""
    scorer = subset.scorer
    gains, places = table["gain"].to_numpy(), table["place"].to_numpy()
    probabilities = taylor_softmax(gains, scorer.temperature) * (len(table) / num_documents)
    share = max(min(OVERSAMPLE * subset.share, MAX_CANDIDATES), subset.share)
    num_candidates = prefix_length(table["cost"].to_numpy()[np.argsort(places)], share)
    return gains, probabilities, stretched(places, num_documents), places < num_candidates


def promoted(ranks: Rows, chosen: Rows, candidates: Rows) -> Rows:
    """The same ranks, the lowest of the candidates' in the order of what is chosen of them.

    Args:
        ranks: int64[n].
        chosen: Some candidates, in order.
        candidates: Rows, int64[m].
    """
    others = np.setdiff1d(candidates, chosen)
    order = np.concatenate([chosen, others[np.argsort(ranks[others], kind="stable")]])
    found = ranks.copy()
    found[order] = np.sort(ranks[order])
    return found


def write_shard(element: Blocks, subset: Subset, num_documents: int) -> int:
    """Commit the scores of a shard; what has no embedding comes last and represents nothing."""
    number, blocks = element
    shard, scorer = subset.shards[number], subset.scorer
    found = [pa.Table.from_batches([block]) for block in blocks]
    schema = pa.schema([("position", pa.int64()), *scorer.schema()])
    table = pa.concat_tables([schema.empty_table(), *(piece.cast(schema) for piece in found)])
    missing = np.setdiff1d(np.arange(shard.num_rows), table["position"].to_numpy())
    n = len(missing)
    nothing = [
        pa.array(missing),
        pa.array(np.zeros(n)),
        pa.array(np.full(n, num_documents)),
        pa.array(np.zeros(n)),
        pa.array([NOBODY.bytes] * n, pa.uuid()),
        pa.array(np.zeros(n)),
    ]
    table = pa.concat_tables([table, pa.table(nothing, schema=schema)]).sort_by("position")
    with files.open_read(subset.workspace.documents(shard.name)) as file:
        doc_ids = files.read_table(file, columns=["doc_id"])["doc_id"]
    table = table.set_column(0, DOC_ID, doc_ids).combine_chunks()
    footer = {"stage": stage_of(scorer), "num_in": shard.num_rows, "content": shard.content}
    write_side_file(subset.workspace.scores(scorer.name, scorer.fingerprint(), shard.name), table, footer)
    record_task(
        subset.workspace,
        LedgerRow(stage_of(scorer), shard.name, shard.num_rows, shard.num_rows, num_bytes=shard.num_bytes),
    )
    return number


def prefix_length(costs: Numbers, share: float) -> int:
    """How many of the first documents it takes to reach a share of all costs; one at least."""
    reached = np.cumsum(costs)
    return min(int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))) + 1, len(costs))


def make_function(scorer: FacilityLocation, vectors: Vectors, bandwidth: float | None = None) -> SetFunction:
    """What a subset of documents is worth.

    Feature coverage counts what is not negative, so the positive and the negative part of each number count alone.
    """
    match scorer.function:
        case "graph_cut":
            return GraphCut(vectors, similarity=scorer.similarity, bandwidth=bandwidth)
        case "log_determinant":
            return LogDeterminant(vectors, similarity=scorer.similarity, bandwidth=bandwidth)
        case "feature_coverage":
            return FeatureCoverage(np.maximum(np.concatenate([vectors, -vectors], axis=1), 0))
        case _:
            return Coverage(vectors, similarity=scorer.similarity, bandwidth=bandwidth)


def stretched(places: Rows, num_documents: int) -> Rows:
    """Ranks among all documents of the places in a partition, so that every partition fills the whole range."""
    return ((2 * places + 1) * num_documents) // (2 * max(len(places), 1))


def _by_doc_id(table: pa.Table) -> pa.Table:
    halves = uuid_halves(table["doc_id"].combine_chunks())
    return table.take(pa.array(np.lexsort((halves[:, 1], halves[:, 0])))).combine_chunks()


def _read(path: str) -> pa.Table:
    with files.open_read(path) as file:
        return files.read_table(file).combine_chunks()


def _vector_column(vectors: npt.NDArray[np.float16]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def _vectors(table: pa.Table) -> Vectors:
    """The embeddings, float32[n, d]."""
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(table), -1)

"""Near duplicates by MinHash LSH: an annotation, never a delete.

1. Candidates. Each shard's signatures become band hashes, which travel as Arrow blocks partitioned by hash prefix, 16
   bytes a document and band. A partition sorts its hashes; documents that share one are candidate pairs. Documents
   of equal signature share one more, that of the whole signature, and are linked to the first of them however many.
2. Judgement. A pair travels to the shard of its first document, 16 bytes. All pairs of a first document and one
   shard travel on to that shard together, with its signature, 4 `num_perm` + 12 bytes and 8 a pair; a pair is an edge
   where the signatures agree.
3. Clusters, on the launcher, from the edges alone: 24 bytes an edge and about 60 a document that has one.
4. Verification: the true Jaccard similarity of every member to its representative. The representative's shingles (8
   bytes each) travel to the member's shard; no text does. A member below the threshold loses that edge, and its
   documents are clustered again, until none is below: one comparison a member, and a few more where one is in doubt.
   The last few pairs are compared on the launcher.

Beam's local runner holds what is shuffled in memory, about 4 bytes a byte, so step 1 runs in as many passes over the
bands as keep it within `SHUFFLE_BYTES`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.arrow_beam import blocks_by_key, keyed_blocks
from gristmill.pipelines.recipe import Duplicates
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.bands import band_hashes, choose_bands, collision_probability
from gristmill.scorers.clusters import Floats, Pairs, Rows, bucket_pairs, link_to_first, unique_pairs
from gristmill.scorers.minhash import MinHash, Signatures, estimate_jaccard, signature_values
from gristmill.scorers.schema import DUPLICATE_BUCKETS
from gristmill.scorers.shingles import shingle_hashes
from gristmill.scorers.text import TextBatch

SHUFFLE_BYTES = 512 << 20
PARTITION_BYTES = 4 << 20
"""Hashes that share a partition at least, where there are that many: each block costs as much as 10,000 hashes."""
MAX_PARTITION_BITS = 6
WHOLE = 1 << MAX_PARTITION_BITS
"""Partitions from here on group documents by their whole signature."""
JUDGED_PAIRS = 1 << 14
"""Pairs judged at once, each with two copies of signatures."""
MIN_RECALL = 0.5
"""Share of the pairs at the threshold below which a layout is worth a warning."""
NUM_ERRORS = 3
"""Standard errors below the threshold down to which an estimate is left to verification."""
PAIR = pa.schema([("left", pa.int64()), ("right", pa.int64())])
EDGES = pa.schema(
    [("left", pa.int64()), ("right", pa.list_(pa.int64())), ("similarity", pa.list_(pa.float64()))]
)
"""The edges of a first document as one row, so that its signature travels once."""
"""A bucket above the cap, and the first band of the pass that met it."""
MEMBER = pa.schema([("member", pa.int64()), ("representative", pa.int64())])
VERIFIED = pa.schema([*MEMBER, ("jaccard", pa.float64())])


@dataclass(frozen=True)
class Corpus:
    """The corpus as one sequence of documents: shard after shard, in the order of the manifest.

    Args:
        workspace: Where the shards and their signatures lie.
        shards: In order.
        scorer: Whose signatures are compared.
        rule: When two documents are near duplicates.
    """

    workspace: Workspace
    shards: tuple[Shard, ...]
    scorer: MinHash
    rule: Duplicates

    @property
    def starts(self) -> Rows:
        """Position of each shard's first document, and of the end."""
        return np.cumsum([0, *(shard.num_rows for shard in self.shards)])

    def shard_of(self, rows: Rows) -> Rows:
        """Number of the shard of each position."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def read_signatures(self, number: int) -> tuple[Signatures, npt.NDArray[np.int64]]:
        """Signatures and numbers of shingles of a shard's documents, uint32[n, num_perm] and int64[n]."""
        path = self.workspace.scores(self.scorer.name, self.scorer.fingerprint(), self.shards[number].name)
        with files.open_read(path) as file:
            table = files.read_table(file, columns=["minhash_signature", "num_shingles"]).combine_chunks()
        return signature_values(table["minhash_signature"].combine_chunks()), table["num_shingles"].to_numpy()

    def read_shingles(self, number: int, rows: Rows) -> list[npt.NDArray[np.uint64]]:
        """Distinct shingles, ascending, of documents of one shard.

        Args:
            number: The shard.
            rows: Positions in the corpus, ascending, each once.
        """
        local = rows - self.starts[number]
        found = []
        for documents in self._take_documents(number, local):
            shingles = shingle_hashes(TextBatch(documents), self.scorer.shingling)
            found += np.split(shingles.hashes, shingles.offsets[1:-1])
        return found

    def _take_documents(self, number: int, positions: Rows) -> Iterator[pa.RecordBatch]:
        """Texts at ascending positions of a shard; batches without one are not decompressed, nor other columns."""
        path = self.workspace.corpus(self.shards[number].name)
        with pa.memory_map(path) if files.is_local(path) else files.open_read(path) as source:
            names = pa.ipc.open_file(source).schema.names
            ids, texts = (
                pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=[names.index(name)]))
                for name in ("doc_id", "text")
            )
            start = 0
            for batch in range(ids.num_record_batches):
                end = start + len(ids.get_batch(batch))
                inside = positions[(positions >= start) & (positions < end)] - start
                start = end
                if len(inside):
                    yield texts.get_batch(batch).take(pa.array(inside))

    def least_estimate(self) -> float:
        """Similarity of signatures from which a pair is an edge."""
        threshold = self.rule.threshold
        if not self.rule.verify:
            return threshold
        return threshold - NUM_ERRORS * sqrt(threshold * (1 - threshold) / self.scorer.num_perm)


class FindEdges(beam.PTransform):
    """Shard numbers -> paths of edge files: pairs of documents whose signatures agree.

    Args:
        corpus: What is compared.
        bands: The bands of this pass; the first pass also links documents of equal signature.
        folder: Where edges go, below the workspace.
    """

    def __init__(self, corpus: Corpus, bands: range, folder: str) -> None:
        super().__init__()
        self.corpus = corpus
        self.bands = bands
        self.folder = folder

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return (
            shards
            | "HashBands" >> keyed_blocks(hash_bands, self.corpus, self.bands)
            | "GroupByPrefix" >> beam.GroupByKey()
            | "PairBuckets" >> keyed_blocks(pair_buckets, self.corpus, self.folder, self.bands.start)
            | "GroupByFirst" >> beam.GroupByKey()
            | "TakeSignatures" >> keyed_blocks(take_signatures, self.corpus)
            | "GroupBySecond" >> beam.GroupByKey()
            | "JudgePairs" >> beam.Map(judge_pairs, self.corpus, self.folder, self.bands.start)
        )


class VerifyMembers(beam.PTransform):
    """(Shard number, block of members and representatives of that shard) -> paths of files with true similarities.

    Args:
        corpus: What is compared.
        folder: Where the similarities go, below the workspace.
        attempt: Distinguishes the files of this round.
    """

    def __init__(self, corpus: Corpus, folder: str, attempt: int) -> None:
        super().__init__()
        self.arguments = (corpus, folder, attempt)

    def expand(self, members: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        corpus, folder, attempt = self.arguments
        return (
            members
            | "TakeShingles" >> keyed_blocks(take_shingles, corpus)
            | "GroupByMember" >> beam.GroupByKey()
            | "CompareShingles" >> beam.Map(compare_shingles, corpus, folder, attempt)
        )


def layout_warnings(rule: Duplicates, num_perm: int) -> list[str]:
    """A line where the layout misses many pairs at the threshold, with the one that datasketch would take."""
    found = float(collision_probability(rule.threshold, rule.num_bands, rule.rows_per_band))
    if found >= MIN_RECALL:
        return []
    num_bands, rows_per_band = choose_bands(rule.threshold, num_perm)
    return [
        f"duplicates: {rule.num_bands} bands of {rule.rows_per_band} rows find {found:.0%} of the pairs at "
        f"{rule.threshold:g}; datasketch, which weighs misses and false candidates alike, would take {num_bands} of "
        f"{rows_per_band} (`gristmill sql WORKSPACE --query layout_recall` compares layouts)"
    ]


def plan_passes(num_documents: int, num_bands: int) -> list[range]:
    """Ranges of bands whose hashes the local runner can hold, 16 bytes a document and band."""
    at_once = max(SHUFFLE_BYTES // (16 * max(num_documents, 1)), 1)
    return [range(start, min(start + at_once, num_bands)) for start in range(0, num_bands, at_once)]


def partition_bits(num_documents: int, num_bands: int) -> int:
    """Bits of a hash that name its partition, so that partitions are neither many nor large."""
    return min((16 * num_documents * num_bands // PARTITION_BYTES).bit_length(), MAX_PARTITION_BITS)


def hash_bands(number: int, corpus: Corpus, bands: range) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Band hashes of one shard as one block a partition; documents without a shingle have none."""
    signatures, num_shingles = corpus.read_signatures(number)
    positions = np.flatnonzero(num_shingles)
    rows = positions + corpus.starts[number]
    signatures = signatures[positions]
    hashes = band_hashes(signatures, corpus.rule.num_bands, corpus.rule.rows_per_band)[
        :, bands.start : bands.stop
    ]
    num_bits = partition_bits(int(corpus.starts[-1]), len(bands))
    yield from _by_prefix(hashes.ravel(), np.repeat(rows, len(bands)), num_bits, 0)
    if bands.start == 0:
        whole = band_hashes(signatures, 1, corpus.scorer.num_perm).ravel()
        yield from _by_prefix(whole, rows, partition_bits(int(corpus.starts[-1]), 1), WHOLE)


def pair_buckets(
    element: tuple[int, Iterable[pa.RecordBatch]], corpus: Corpus, folder: str, first_band: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Candidate pairs of one partition, as one block for each shard of a first document; full buckets are reported."""
    key, blocks = element
    table = pa.Table.from_batches(blocks)
    hashes, rows = table["hash"].to_numpy(), table["row"].to_numpy()
    if key >= WHOLE:
        pairs = link_to_first(hashes, rows)
    else:
        pairs, oversized = bucket_pairs(hashes, rows, max_bucket=corpus.rule.max_bucket)
        if len(oversized):
            name = f"oversized-{first_band:03d}-{key:03d}.parquet"
            with files.committed(corpus.workspace.path(folder, name)) as file:
                bands = pa.repeat(pa.scalar(first_band, pa.int32()), len(oversized))
                pq.write_table(pa.table([bands, oversized], schema=DUPLICATE_BUCKETS), file)
    yield from blocks_by_key(pa.table([pairs[:, 0], pairs[:, 1]], schema=PAIR), corpus.shard_of(pairs[:, 0]))


def take_signatures(
    element: tuple[int, Iterable[pa.RecordBatch]], corpus: Corpus
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The first documents in this shard: a row for each shard that it has pairs with, and its signature."""
    number, blocks = element
    table = pa.Table.from_batches(blocks)
    pairs = unique_pairs(np.stack([table["left"].to_numpy(), table["right"].to_numpy()], axis=1))
    shards = corpus.shard_of(pairs[:, 1])
    order = np.argsort(shards, kind="stable")
    pairs, shards = pairs[order], shards[order]
    starts = run_starts(shards, pairs[:, 0])
    left = pairs[starts, 0]
    signatures, _ = corpus.read_signatures(number)
    taken = signatures[left - corpus.starts[number]]
    column = pa.Array.from_buffers(pa.binary(4 * taken.shape[1]), len(taken), [None, pa.py_buffer(taken)])
    rows = pa.table([left, _lists(pairs[:, 1], starts), column], names=["left", "right", "signature"])
    yield from blocks_by_key(rows, shards[starts])


def judge_pairs(
    element: tuple[int, Iterable[pa.RecordBatch]], corpus: Corpus, folder: str, first_band: int
) -> str:
    """Write the pairs whose second document is in this shard and whose signatures agree."""
    number, blocks = element
    table = pa.Table.from_batches(blocks).sort_by("left").combine_chunks()
    which, right = flat_lists(table["right"])
    left = table["left"].to_numpy()[which]
    own, _ = corpus.read_signatures(number)
    taken = signature_values(table["signature"].combine_chunks())
    blocks_of = [slice(start, start + JUDGED_PAIRS) for start in range(0, len(right), JUDGED_PAIRS)]
    similarity = np.concatenate(
        [estimate_jaccard(taken[which[some]], own[right[some] - corpus.starts[number]]) for some in blocks_of]
    )
    agree = similarity >= corpus.least_estimate()
    left, right, similarity = left[agree], right[agree], similarity[agree]
    starts = run_starts(left)
    path = corpus.workspace.path(folder, f"edges-{first_band:03d}-{number:05d}.parquet")
    with files.committed(path) as file:
        columns = [left[starts], _lists(right, starts), _lists(similarity, starts)]
        pq.write_table(pa.table(columns, schema=EDGES), file)
    return path


def member_blocks(corpus: Corpus, members: Pairs) -> list[tuple[int, pa.RecordBatch]]:
    """Pairs of (member, representative) as one block for each shard of a representative."""
    table = pa.table([members[:, 0], members[:, 1]], schema=MEMBER)
    return list(blocks_by_key(table, corpus.shard_of(members[:, 1])))


def take_shingles(
    element: tuple[int, pa.RecordBatch], corpus: Corpus
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The members of this shard's representatives, with those representatives' shingles, by shard of the member."""
    number, block = element
    representatives, which = np.unique(block["representative"].to_numpy(), return_inverse=True)
    shingles = corpus.read_shingles(number, representatives)
    offsets = np.cumsum([0, *map(len, shingles)])
    column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(shingles)))
    table = pa.Table.from_batches([block]).append_column("shingles", column.take(pa.array(which)))
    yield from blocks_by_key(table, corpus.shard_of(block["member"].to_numpy()))


def compare_shingles(
    element: tuple[int, Iterable[pa.RecordBatch]], corpus: Corpus, folder: str, attempt: int
) -> str:
    """Write the true Jaccard similarity of this shard's members to their representatives."""
    number, blocks = element
    table = pa.Table.from_batches(blocks).combine_chunks()
    table = table.sort_by([(name, "ascending") for name in MEMBER.names])
    members, which = np.unique(table["member"].to_numpy(), return_inverse=True)
    column = table["shingles"].combine_chunks()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    own = corpus.read_shingles(number, members)
    jaccard = [
        true_jaccard(own[mine], values[start:end])
        for mine, start, end in zip(which.tolist(), offsets[:-1], offsets[1:], strict=True)
    ]
    path = corpus.workspace.path(folder, f"verified-{attempt:03d}-{number:05d}.parquet")
    with files.committed(path) as file:
        pq.write_table(
            pa.table([table["member"], table["representative"], pa.array(jaccard)], schema=VERIFIED), file
        )
    return path


def compare_here(corpus: Corpus, pairs: Pairs) -> Floats:
    """True Jaccard similarities of a few pairs of documents, without a pipeline."""
    documents = np.unique(pairs)
    numbers = corpus.shard_of(documents)
    shingles = [
        shingles
        for number in np.unique(numbers).tolist()
        for shingles in corpus.read_shingles(number, documents[numbers == number])
    ]
    compared = np.searchsorted(documents, pairs).tolist()
    return np.array([true_jaccard(shingles[left], shingles[right]) for left, right in compared])


def true_jaccard(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> float:
    """Jaccard similarity of two sets of distinct hashes."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def run_starts(*columns: Rows) -> Rows:
    """Where values differ in any column from those before them, int64[r]."""
    is_start = np.ones(len(columns[0]), np.bool_)
    is_start[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(is_start)


def flat_lists(column: pa.ChunkedArray) -> tuple[Rows, npt.NDArray[np.generic]]:
    """The row of each value of a column of lists, int64[v], and the values, shape (v,)."""
    lists = column.combine_chunks()
    return pc.list_parent_indices(lists).to_numpy(), lists.flatten().to_numpy()


def _lists(values: npt.NDArray[np.generic], starts: Rows) -> pa.ListArray:
    """Values cut into one list from each start to the next."""
    return pa.ListArray.from_arrays(pa.array(np.append(starts, len(values)), pa.int32()), pa.array(values))


def _by_prefix(
    hashes: npt.NDArray[np.uint64], rows: Rows, num_bits: int, first: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Hashes and rows cut into one block a partition, by the first bits of the hash."""
    prefix = (hashes >> np.uint64(64 - MAX_PARTITION_BITS)).astype(np.int64) >> (
        MAX_PARTITION_BITS - num_bits
    )
    yield from (
        (first + key, block)
        for key, block in blocks_by_key(pa.table([hashes, rows], names=["hash", "row"]), prefix)
    )

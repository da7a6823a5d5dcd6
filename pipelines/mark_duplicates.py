"""Near duplicates by MinHash LSH: an annotation, never a delete.

1. Candidates. Each shard's signatures become band hashes, which travel as Arrow blocks partitioned by hash prefix, 16
   bytes a document and band. A partition sorts its hashes; documents that share one are candidate pairs. Documents
   of equal signature share one more, that of the whole signature, and are linked to the first of them however many.
2. Judgement. A pair travels to the shard of its first document, takes that signature along to the shard of its
   second, and is an edge where the signatures agree: 4 `num_perm` + 16 bytes for each pair.
3. Clusters, on the launcher, from the edges alone: 24 bytes an edge and about 60 a document that has one.
4. Verification: the true Jaccard similarity of every member to its representative. The representative's shingles (8
   bytes each) travel to the member's shard; no text does. A member below the threshold loses that edge, and its
   documents are clustered again, until none is below: one comparison a member, and a few more where one was refuted.

Beam's local runner holds what is shuffled in memory, about 4 bytes a byte, so step 1 runs in as many passes over the
bands as keep it within `SHUFFLE_BYTES`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.pipelines import files
from gristmill.pipelines.arrow_beam import KEYED_BLOCK
from gristmill.pipelines.recipe import Duplicates
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.bands import band_hashes
from gristmill.scorers.clusters import Pairs, Rows, bucket_pairs, link_to_first, unique_pairs
from gristmill.scorers.minhash import MinHash, Signatures, estimate_jaccard, signature_values
from gristmill.scorers.shingles import shingle_hashes
from gristmill.scorers.text import TextBatch

SHUFFLE_BYTES = 512 << 20
NUM_PARTITIONS = 64
WHOLE = NUM_PARTITIONS
"""Partitions from here on group documents by their whole signature."""
NUM_ERRORS = 3
"""Standard errors below the threshold down to which an estimate is left to verification."""
PAIR = pa.schema([("left", pa.int64()), ("right", pa.int64())])
EDGE = pa.schema([*PAIR, ("similarity", pa.float64())])
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
            table = pq.read_table(file, columns=["minhash_signature", "num_shingles"]).combine_chunks()
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
            | "HashBands" >> _blocks(hash_bands, self.corpus, self.bands)
            | "GroupByPrefix" >> beam.GroupByKey()
            | "PairBuckets" >> _blocks(pair_buckets, self.corpus, self.folder, self.bands.start)
            | "GroupByFirst" >> beam.GroupByKey()
            | "TakeSignatures" >> _blocks(take_signatures, self.corpus)
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
            | "TakeShingles" >> _blocks(take_shingles, corpus)
            | "GroupByMember" >> beam.GroupByKey()
            | "CompareShingles" >> beam.Map(compare_shingles, corpus, folder, attempt)
        )


def _blocks(
    function: Callable[..., Iterator[tuple[int, pa.RecordBatch]]], *arguments: object
) -> beam.PTransform:
    """A map to keyed blocks in Arrow's own encoding."""
    return beam.FlatMap(function, *arguments).with_output_types(KEYED_BLOCK)


def plan_passes(num_documents: int, num_bands: int) -> list[range]:
    """Ranges of bands whose hashes the local runner can hold, 16 bytes a document and band."""
    at_once = max(SHUFFLE_BYTES // (16 * max(num_documents, 1)), 1)
    return [range(start, min(start + at_once, num_bands)) for start in range(0, num_bands, at_once)]


def hash_bands(number: int, corpus: Corpus, bands: range) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Band hashes of one shard as one block a partition; documents without a shingle have none."""
    signatures, num_shingles = corpus.read_signatures(number)
    positions = np.flatnonzero(num_shingles)
    rows = positions + corpus.starts[number]
    signatures = signatures[positions]
    hashes = band_hashes(signatures, corpus.rule.num_bands, corpus.rule.rows_per_band)[
        :, bands.start : bands.stop
    ]
    yield from _by_prefix(hashes.ravel(), np.repeat(rows, len(bands)), 0)
    if bands.start == 0:
        yield from _by_prefix(band_hashes(signatures, 1, corpus.scorer.num_perm).ravel(), rows, WHOLE)


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
                pq.write_table(pa.table([oversized], names=["size"]), file)
    yield from _by_shard(pa.table([pairs[:, 0], pairs[:, 1]], schema=PAIR), corpus.shard_of(pairs[:, 0]))


def take_signatures(
    element: tuple[int, Iterable[pa.RecordBatch]], corpus: Corpus
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The pairs whose first document is in this shard, each once, with that document's signature."""
    number, blocks = element
    pairs = unique_pairs(_as_pairs(pa.Table.from_batches(blocks)))
    signatures, _ = corpus.read_signatures(number)
    taken = signatures[pairs[:, 0] - corpus.starts[number]]
    column = pa.Array.from_buffers(pa.binary(4 * taken.shape[1]), len(taken), [None, pa.py_buffer(taken)])
    table = pa.table([pairs[:, 0], pairs[:, 1], column], names=["left", "right", "signature"])
    yield from _by_shard(table, corpus.shard_of(pairs[:, 1]))


def judge_pairs(
    element: tuple[int, Iterable[pa.RecordBatch]], corpus: Corpus, folder: str, first_band: int
) -> str:
    """Write the pairs whose second document is in this shard and whose signatures agree."""
    number, blocks = element
    table = pa.Table.from_batches(blocks).combine_chunks()
    pairs = _as_pairs(table)
    signatures, _ = corpus.read_signatures(number)
    left = signature_values(table["signature"].combine_chunks())
    similarity = estimate_jaccard(left, signatures[pairs[:, 1] - corpus.starts[number]])
    agree = similarity >= corpus.least_estimate()
    path = corpus.workspace.path(folder, f"edges-{first_band:03d}-{number:05d}.parquet")
    with files.committed(path) as file:
        pq.write_table(pa.table([pairs[agree, 0], pairs[agree, 1], similarity[agree]], schema=EDGE), file)
    return path


def member_blocks(corpus: Corpus, members: Pairs) -> list[tuple[int, pa.RecordBatch]]:
    """Pairs of (member, representative) as one block for each shard of a representative."""
    table = pa.table([members[:, 0], members[:, 1]], schema=MEMBER)
    return list(_by_shard(table, corpus.shard_of(members[:, 1])))


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
    yield from _by_shard(table, corpus.shard_of(block["member"].to_numpy()))


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


def true_jaccard(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> float:
    """Jaccard similarity of two sets of distinct hashes."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def _as_pairs(table: pa.Table) -> Pairs:
    return np.stack([table["left"].to_numpy(), table["right"].to_numpy()], axis=1)


def _by_prefix(
    hashes: npt.NDArray[np.uint64], rows: Rows, first: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Hashes and rows cut into one block a partition, by the first bits of the hash."""
    prefix = (hashes >> np.uint64(64 - (NUM_PARTITIONS - 1).bit_length())).astype(np.int64)
    yield from (
        (first + key, block)
        for key, block in _by_shard(pa.table([hashes, rows], names=["hash", "row"]), prefix)
    )


def _by_shard(table: pa.Table, numbers: Rows) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A table cut into one block for each number, in order."""
    order = np.argsort(numbers, kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    found, starts = np.unique(numbers[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    for number, start, end in zip(found.tolist(), starts, ends, strict=True):
        yield number, table.slice(start, end - start).to_batches()[0]

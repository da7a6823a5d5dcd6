"""Texts of a seeded sample of the corpus: the documents whose random key lies in a range.

The key depends on doc_id and seed alone, so whether a document was sampled can be told at any time from the range. One
batch of text is held at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.doc_ids import random_keys


@dataclass(frozen=True)
class Sample:
    """Documents whose key lies from `low` up to `high`, both from 0 to 1."""

    seed: int
    low: float
    high: float


def share_of(shards: Sequence[Shard], max_bytes: float) -> float:
    """The share of the corpus that holds about `max_bytes` of text."""
    num_bytes = sum(shard.num_bytes for shard in shards)
    return min(max_bytes / num_bytes, 1.0) if num_bytes else 1.0


def sample_texts(
    workspace: Workspace, shards: Sequence[Shard], sample: Sample
) -> Iterator[pa.LargeStringArray]:
    """The sample's texts, in the order of the corpus, an array a batch."""
    for shard in shards:
        for batch in read_batches(workspace, shard.name):
            yield batch["text"].filter(is_sampled(batch, sample))


def is_sampled(batch: pa.RecordBatch, sample: Sample) -> pa.BooleanArray:
    """Which documents of a batch belong to a sample."""
    keys = random_keys(pa.chunked_array([batch["doc_id"]]), sample.seed)
    return pa.array((keys >= sample.low) & (keys < sample.high))


def join_texts(arrays: Iterable[pa.LargeStringArray]) -> pa.LargeStringArray:
    """Arrays of texts, of which there may be none, as one."""
    return pa.chunked_array(list(arrays), pa.large_string()).combine_chunks()

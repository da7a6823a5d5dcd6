"""What partitions cost a representative subset.

    python tests/bench/bench_subset_partitions.py [--documents N] [--budget SHARE] [--partition N] [--corpus FOLDER]

Features are TF-IDF of hashed words, projected to 128 random directions: cheap, and as uneven as the topics of real
text. A subset's worth is the sum over all documents of the similarity to the most similar one in it, as a share of what
lazy greedy over all documents reaches; "union" is every partition's own choice without the merge. Times are of CPU,
from stored embeddings to stored scores, with the whole order of every partition.
"""

import argparse
import gzip
import json
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.models.greedy import choose
from gristmill.models.similarity import assign
from gristmill.models.submodular import FacilityLocation as Coverage
from gristmill.pipelines import files
from gristmill.pipelines.choose_subset import choose_subset, plan_subset
from gristmill.pipelines.runner import beam_options, run_pipeline
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.facility_location import FacilityLocation
from gristmill.scorers.schema import DOC_ID

Vectors = npt.NDArray[np.float16]
CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
WIDTH = 128
NUM_BUCKETS = 1 << 14
SHARD_ROWS = 5000


def embed(folder: Path, num_documents: int) -> Vectors:
    """Features of the first documents, float16[n, 128]."""
    rows, columns, num_texts = [], [], 0
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                words = json.loads(line)["text"].lower().split()[:500]
                if words and num_texts < num_documents:
                    columns += [hash_of(word) for word in words]
                    rows += [num_texts] * len(words)
                    num_texts += 1
    if num_texts < num_documents:
        raise SystemExit(f"{folder}: {num_texts} texts; expected {num_documents}")
    pairs, counts = np.unique(np.array(rows) * NUM_BUCKETS + np.array(columns), return_counts=True)
    of_row, bucket = pairs // NUM_BUCKETS, pairs % NUM_BUCKETS
    idf = np.log(num_texts / (1 + np.bincount(bucket, minlength=NUM_BUCKETS)))
    weights = np.log1p(counts) * idf[bucket]
    directions = np.random.default_rng(0).normal(size=(NUM_BUCKETS, WIDTH)).astype(np.float32)
    vectors = np.zeros((num_texts, WIDTH), np.float32)
    for start in range(0, len(pairs), 1 << 18):
        some = slice(start, start + (1 << 18))
        np.add.at(vectors, of_row[some], weights[some, None].astype(np.float32) * directions[bucket[some]])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def hash_of(word: str) -> int:
    """A bucket, the same in every process."""
    value = 0
    for character in word:
        value = (value * 31 + ord(character)) % 2147483647
    return value % NUM_BUCKETS


def lay(root: str, vectors: Vectors) -> tuple[Workspace, list[Shard]]:
    """A workspace that holds nothing but doc_ids and embeddings."""
    workspace, shards = Workspace(root), []
    kind = pa.list_(pa.field("item", pa.float16(), nullable=False))
    for number, start in enumerate(range(0, len(vectors), SHARD_ROWS)):
        some = vectors[start : start + SHARD_ROWS]
        shard = Shard(f"part-{number:05d}", len(some), some.nbytes, f"{start}")
        ids = pa.array([UUID(int=start + row).bytes for row in range(len(some))], pa.uuid())
        lists = pa.array(list(some), kind)
        for path, names in (
            (workspace.documents(shard.name), {}),
            (workspace.scores("embedding", "0", shard.name), {"embedding": lists}),
        ):
            schema = pa.schema([DOC_ID, *(pa.field(name, kind) for name in names)])
            with files.committed(path) as file:
                pq.write_table(pa.table([ids, *names.values()], schema=schema), file)
        shards.append(shard)
    return workspace, shards


def run(elements: Any, transform: beam.PTransform) -> object:
    """On Beam's local runner, in this process."""
    return run_pipeline(beam_options([]), lambda pipeline: pipeline | beam.Create(elements) | transform)


def partitioned(vectors: Vectors, scorer: FacilityLocation) -> tuple[npt.NDArray[np.int64], float]:
    """The ranks of all documents, and the seconds it took."""
    with TemporaryDirectory() as root:
        workspace, shards = lay(root, vectors)
        started = time.process_time()
        choose_subset(workspace, shards, scorer, run)
        seconds = time.process_time() - started
        paths = [workspace.scores(scorer.name, scorer.fingerprint(), shard.name) for shard in shards]
        ranks = [pq.read_table(path)["facility_location_rank"].to_numpy() for path in paths]
    return np.concatenate(ranks), seconds


def union(vectors: Vectors, scorer: FacilityLocation) -> npt.NDArray[np.int64]:
    """What the partitions choose without a merge."""
    with TemporaryDirectory() as root:
        workspace, shards = lay(root, vectors)
        subset = plan_subset(workspace, shards, scorer)
        ids = pa.array([UUID(int=row).bytes for row in range(len(vectors))], pa.uuid())
        partitions = subset.partition_of(ids, np.zeros(len(vectors), np.int64))
    chosen = []
    for number in np.unique(partitions):
        rows = np.flatnonzero(partitions == number)
        budget = int(np.ceil(scorer.budget * len(rows)))
        chosen.append(rows[choose(Coverage(vectors[rows].astype(np.float32)), budget).order])
    return np.concatenate(chosen)


def worth(vectors: Vectors, chosen: npt.NDArray[np.int64]) -> float:
    """Mean similarity of documents to their representatives."""
    return float(assign(vectors.astype(np.float32), chosen)[1].mean())


def compare(vectors: Vectors, scorer: FacilityLocation) -> None:
    """Print what each way of choosing is worth."""
    budget = round(scorer.budget * len(vectors))
    started = time.process_time()
    best = choose(Coverage(vectors.astype(np.float32)), budget).order
    seconds = time.process_time() - started
    reached = worth(vectors, best)
    print(f"{len(vectors):,} documents of {WIDTH} numbers, budget {budget:,}")
    print(f"lazy greedy over all   {reached:.4f}            {seconds:6.1f} s, budget only")
    ranks, seconds = partitioned(vectors, scorer)
    ways = {
        f"partitions of {scorer.partition_documents:,}": np.argsort(ranks, kind="stable")[:budget],
        "their union, unmerged": union(vectors, scorer)[: 2 * budget],
        "random": np.random.default_rng(0).choice(len(vectors), budget, replace=False),
    }
    for name, chosen in ways.items():
        found = worth(vectors, chosen)
        took = f"{seconds:6.1f} s, every document ranked" if name.startswith("partitions") else ""
        print(f"{name:22} {found:.4f}  {found / reached:7.2%}  {took}")


def peak_bytes() -> int:
    """Of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--budget", type=float, default=0.05)
    parser.add_argument("--partition", type=int, default=2000)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    arguments = parser.parse_args()
    scorer = FacilityLocation(
        budget=arguments.budget,
        partition_documents=arguments.partition,
        versions={"embedding": "embedding/0"},
        corpus="bench",
    )
    compare(embed(arguments.corpus, arguments.documents), scorer)


if __name__ == "__main__":
    main()

"""Memory and time of LSH and clustering over synthetic signatures, at 0.1, 1 and 10 million documents.

    python tests/bench/bench_dedup_memory.py [--millions 0.1 1 10]

The signatures are drawn when they are asked for and never stored: 112 random values a document, and one document in
five a near copy, nine values in ten alike, of a document of its own shard or of the one before. Each size runs in a
process of its own, one worker: the passes over the bands on Beam's local runner as `gristmill dedup` runs them, then
star clusters on the launcher. There are no texts, so nothing is verified. The time of drawing is printed beside the
whole.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from gristmill.pipelines.mark_duplicates import Corpus
from gristmill.pipelines.recipe import Duplicates
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.minhash import MinHash, Signatures

ROWS = 100_000
COPIES = ROWS // 5
CHANGED = 0.1
"""Share of a copy's values that differ from the original's."""
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import bench_dedup_memory
bench_dedup_memory.cluster(int(sys.argv[2]))
"""
drawing = [0.0]
"""Seconds spent on drawing signatures."""


class Synthetic(Corpus):
    """A corpus whose signatures are drawn."""

    def read_signatures(self, number: int) -> tuple[Signatures, npt.NDArray[np.int64]]:
        """Signatures of a shard, the same whenever they are drawn; the last fifth are near copies."""
        started = time.perf_counter()
        num_perm = self.scorer.num_perm
        drawn = draw(number, num_perm)
        random = np.random.Generator(np.random.SFC64([number, 1]))
        half = COPIES // 2
        sources = random.integers(0, ROWS - COPIES, COPIES)
        earlier = draw(max(number - 1, 0), num_perm)
        copies = np.concatenate([drawn[sources[:half]], earlier[sources[half:]]])
        changed = random.random(copies.shape, np.float32) < CHANGED
        drawn[ROWS - COPIES :] = np.where(changed, drawn[ROWS - COPIES :], copies)
        drawing[0] += time.perf_counter() - started
        return drawn, np.full(ROWS, 100)


def draw(number: int, num_perm: int) -> Signatures:
    """Random values, uint32[ROWS, num_perm]."""
    raw = np.random.SFC64([number, 0]).random_raw(ROWS * num_perm // 2)
    return raw.view(np.uint32).reshape(ROWS, num_perm)


def cluster(num_documents: int) -> None:
    """Find edges and clusters once and print what it took."""
    import resource

    from gristmill.pipelines.cluster_duplicates import read_edges
    from gristmill.pipelines.mark_duplicates import FindEdges, plan_passes
    from gristmill.pipelines.runner import beam_options, run_pipeline
    from gristmill.scorers.clusters import cluster_verified

    rule = Duplicates(verify=False)
    options = beam_options([])

    def run(elements: Sequence[Any], transform: beam.PTransform) -> None:
        run_pipeline(options, lambda p: p | beam.Create(elements) | beam.Reshuffle() | transform)

    with tempfile.TemporaryDirectory() as folder:
        shards = tuple(Shard(f"part-{n:05d}", ROWS, 0, str(n)) for n in range(num_documents // ROWS))
        corpus = Synthetic(open_workspace(folder, create=True), shards, MinHash(), rule)
        started = time.perf_counter()
        passes = plan_passes(num_documents, rule.num_bands)
        for bands in passes:
            run(range(len(shards)), "FindEdges" >> FindEdges(corpus, bands, "work"))
            print(f"pass {bands}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        pairs, similarity = read_edges(corpus, "work")
        rows, inverse = np.unique(pairs, return_inverse=True)
        stars = cluster_verified(
            inverse.reshape(-1, 2), similarity, np.arange(len(rows)), rule.threshold, None
        )
        seconds = time.perf_counter() - started
    answer = {
        "seconds": seconds,
        "drawing": drawing[0],
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "num_passes": len(passes),
        "num_edges": len(pairs),
        "num_members": int((stars.representative != np.arange(len(rows))).sum()),
    }
    print(json.dumps(answer))


def main() -> None:
    """Print a line a size and the fitted exponent of time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, nargs="+", default=[0.1, 1, 10])
    arguments = parser.parse_args()
    here = __file__.rpartition("/")[0]
    points = []
    for millions in arguments.millions:
        command = [sys.executable, "-c", RUN, here, str(int(millions * 1e6))]
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        without = answer["seconds"] - answer["drawing"]
        points.append((math.log(millions), math.log(answer["seconds"]), math.log(without)))
        print(
            f"{millions:5.1f} million documents: {answer['seconds']:6.1f} s ({answer['drawing']:.1f} s of it drawing), "
            f"{answer['num_passes']} passes, peak {answer['peak_megabytes']:,.0f} MB, {answer['num_edges']:,} edges, "
            f"{answer['num_members']:,} near duplicates of {int(millions * 1e6) // 5:,} copies",
            flush=True,
        )
    if len(points) > 1:
        sizes, whole, without = zip(*points, strict=True)
        print(
            f"time grows as (number of documents)^{np.polyfit(sizes, whole, 1)[0]:.2f}, "
            f"without drawing as ^{np.polyfit(sizes, without, 1)[0]:.2f}"
        )


if __name__ == "__main__":
    main()

"""How time and memory of a representative subset grow with the corpus, in partitions.

    python tests/bench/bench_subset_growth.py [--sizes N ...] [--partition N] [--budget SHARE] [--width D]

Embeddings are random vectors around 1,000 centres. Each size runs in a process of its own: seconds of CPU from stored
embeddings to stored scores, every document ranked, and the process's peak memory, on Beam's local runner, which holds
what is shuffled. Exponents are fitted to all sizes; memory's to what is held beyond a first run of 100 documents.
"""

import argparse
import json
import os
import subprocess
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt
from bench_subset_partitions import partitioned, peak_bytes

from gristmill.pipelines.allocator import keep_freed_memory
from gristmill.scorers.facility_location import FacilityLocation

SIZES = [10_000, 31_623, 100_000, 316_228, 1_000_000]
NUM_CENTERS, BLOCK = 1000, 10_000


def embeddings(num_documents: int, width: int) -> npt.NDArray[np.float16]:
    """float16[n, d]."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((NUM_CENTERS, width), np.float32)
    vectors = np.empty((num_documents, width), np.float16)
    for start in range(0, num_documents, BLOCK):
        block = vectors[start : start + BLOCK]
        noise = rng.standard_normal(block.shape, np.float32)
        block[:] = centers[rng.integers(0, NUM_CENTERS, len(block))] + np.float32(0.7) * noise
    return vectors


def measure(num_documents: int, scorer: FacilityLocation, width: int) -> dict[str, float]:
    """Seconds of CPU and peak bytes of this process, and what a first small run took of them."""
    keep_freed_memory()
    partitioned(embeddings(100, width), scorer)
    first_bytes = peak_bytes()
    _, seconds = partitioned(embeddings(num_documents, width), scorer)
    return {"seconds": seconds, "bytes": peak_bytes(), "first_bytes": first_bytes}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Of the power of size that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    """Start a process for each size, and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--partition", type=int, default=2000)
    parser.add_argument("--budget", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        scorer = FacilityLocation(
            budget=arguments.budget,
            partition_documents=arguments.partition,
            versions={"embedding": "embedding/0"},
            corpus="bench",
        )
        print(json.dumps(measure(arguments.one, scorer, arguments.width)))
        return
    sizes, found = sorted(arguments.sizes), []
    print(
        f"width {arguments.width}, partitions of {arguments.partition:,}, budget {arguments.budget:.0%}, one core"
    )
    for size in sizes:
        options = [f"--{name}={getattr(arguments, name)}" for name in ("partition", "budget", "width")]
        command = [sys.executable, __file__, f"--one={size}", *options]
        found.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        print(
            f"{size:>9,} documents  {found[-1]['seconds']:7.1f} s  peak {found[-1]['bytes'] / 1e6:,.0f} MB",
            flush=True,
        )
    seconds = exponent(sizes, [one["seconds"] for one in found])
    memory = exponent(sizes, [one["bytes"] - one["first_bytes"] for one in found])
    print(f"time grows as n^{seconds:.2f}, memory as n^{memory:.2f}")


if __name__ == "__main__":
    main()

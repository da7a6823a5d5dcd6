"""Speed of lazy facility location beside apricot and submodlib at an equal objective, and many documents in 4 GB.

    python tests/bench/bench_subset.py [--documents N] [--budget K] [--large N] [--peer-python PYTHON]

Features are clustered random vectors, or --features FILE.npy, float32[n, d]. All three choose from the same features
by cosine, on one core, in seconds of CPU, the best of 5 runs; the objective of each choice is computed alike, in
float64. Then --large documents of width --large-width in a process of its own, with its peak memory; 0 leaves them
out. Without --peer-python a venv for the peers is made in the user's cache folder.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt
from peers import peer_python

from gristmill.models.greedy import Optimizer, choose
from gristmill.models.similarity import Features, Rows
from gristmill.models.submodular import FacilityLocation
from gristmill.pipelines.allocator import keep_freed_memory

PEER = Path(__file__).with_name("peer_subset.py")
PEER_PACKAGES = ["apricot-select==0.6.1", "submodlib-py==0.0.3"]
NUM_RUNS = 5
ROWS_A_CLUSTER = 25


def clustered(num_rows: int, width: int) -> Features:
    """Random vectors around random centres."""
    rng = np.random.default_rng(0)
    num_clusters = max(num_rows // ROWS_A_CLUSTER, 1)
    centers = rng.standard_normal((num_clusters, width), np.float32)
    noise = rng.standard_normal((num_rows, width), np.float32)
    return centers[rng.integers(0, num_clusters, num_rows)] + np.float32(0.7) * noise


def objective(features: Features, order: Rows) -> float:
    """Mean over all documents of the cosine to the most similar chosen one, at least 0."""
    unit: npt.NDArray[np.float64] = features / np.linalg.norm(
        features.astype(np.float64), axis=1, keepdims=True
    )
    return float(np.maximum(unit @ unit[order].T, 0).max(axis=1).mean())


def compare(features: Features, budget: int, python: Path) -> None:
    """Print seconds, ratios and objectives."""
    seconds = []
    for _ in range(NUM_RUNS):
        started = time.process_time()
        ranking = choose(FacilityLocation(features), budget)
        seconds.append(time.process_time() - started)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        np.save(path, features)
        command = [python, PEER, path, str(budget)]
        peers = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    print(f"{len(features):,} documents of width {features.shape[1]}, budget {budget:,}, one core")
    print(f"gristmill: {min(seconds):.2f} s, objective {objective(features, ranking.order):.6f}")
    for name, peer in peers.items():
        print(
            f"{name}: {peer['cpu_s']:.2f} s, objective {objective(features, np.array(peer['order'])):.6f}, "
            f"ratio {peer['cpu_s'] / min(seconds):.1f}x"
        )


def measure_large(num_rows: int, width: int, budget: int, optimizer: Optimizer) -> None:
    """Print seconds, peak memory and the objective of many documents."""
    features = clustered(num_rows, width)
    started = time.process_time()
    ranking = choose(FacilityLocation(features), budget, optimizer=optimizer)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{num_rows:,} documents of width {width}, budget {budget:,}, {optimizer}, one core: {seconds:.0f} s, "
        f"peak {peak:.2f} GB, objective {ranking.gains.sum() / num_rows:.6f}; "
        f"all similarities at once would be {4e-9 * num_rows**2:.0f} GB"
    )


def main() -> None:
    """Print comparisons, then many documents."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--large-width", type=int, default=64)
    parser.add_argument("--large-budget", type=int, default=1000)
    parser.add_argument("--large-optimizer", choices=get_args(Optimizer), default="lazy")
    parser.add_argument("--peer-python", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.documents:
        features = np.load(arguments.features) if arguments.features else clustered(arguments.documents, 128)
        compare(
            features[: arguments.documents],
            arguments.budget,
            arguments.peer_python or peer_python("subset", PEER_PACKAGES),
        )
        if arguments.large:
            options = ["--documents", "0", "--large", str(arguments.large)]
            options += ["--large-width", str(arguments.large_width)]
            options += ["--large-budget", str(arguments.large_budget)]
            options += ["--large-optimizer", arguments.large_optimizer]
            subprocess.run([sys.executable, __file__, *options], check=True)
    elif arguments.large:
        measure_large(
            arguments.large, arguments.large_width, arguments.large_budget, arguments.large_optimizer
        )


if __name__ == "__main__":
    main()

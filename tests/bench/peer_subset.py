"""Facility location by apricot and submodlib, run by bench_subset.py in a venv of its own.

    python peer_subset.py FEATURES.npy BUDGET

Both choose lazily by cosines clipped at 0, from features to rows. apricot gets its kernel from NumPy, because its own
"cosine" is squared. Prints one JSON object: peer -> {"cpu_s": seconds, "order": rows}.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from apricot import FacilityLocationSelection
from submodlib.functions.facilityLocation import FacilityLocationFunction

NUM_RUNS = 5


def choose_by_apricot(features: npt.NDArray[np.float32], budget: int) -> list[int]:
    """apricot's two-stage greedy, lazy from the start."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    kernel = np.maximum(unit @ unit.T, 0)
    selection = FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy")
    return selection.fit(kernel).ranking.tolist()


def choose_by_submodlib(features: npt.NDArray[np.float32], budget: int) -> list[int]:
    """submodlib's dense mode."""
    function = FacilityLocationFunction(n=len(features), mode="dense", data=features, metric="cosine")
    return [row for row, _ in function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)]


def main() -> None:
    """Time each peer a few times, the first of which may compile."""
    features, budget = np.load(sys.argv[1]), int(sys.argv[2])
    peers: dict[str, Callable[[npt.NDArray[np.float32], int], list[int]]] = {
        "apricot": choose_by_apricot,
        "submodlib": choose_by_submodlib,
    }
    found = {}
    for name, choose in peers.items():
        seconds = []
        for _ in range(NUM_RUNS):
            started = time.process_time()
            order = choose(features, budget)
            seconds.append(time.process_time() - started)
        found[name] = {"cpu_s": min(seconds), "order": order}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

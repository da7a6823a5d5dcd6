"""Signatures by rensa and their times, run by bench_signatures.py in a venv of its own.

    python peer_rensa_signatures.py SHINGLES.npz NUM_PERM

SHINGLES.npz holds `hashes` (uint64) and `offsets`, those of document i being hashes[offsets[i]:offsets[i + 1]], and
the same as `pair_hashes` and `pair_offsets`. Prints one JSON object: the seconds of each run on the former and the
signatures of the latter.
"""

import json
import sys
import time

import numpy as np
import rensa

NUM_RUNS = 5


def main() -> None:
    """Time and sign."""
    data, num_perm = np.load(sys.argv[1]), int(sys.argv[2])
    sign = rensa.RMinHash.digest_matrix_from_flat_token_hashes
    seconds = []
    for _ in range(NUM_RUNS):
        start = time.process_time()
        sign(data["hashes"], data["offsets"], num_perm, 42)
        seconds.append(time.process_time() - start)
    rows = sign(data["pair_hashes"], data["pair_offsets"], num_perm, 42).to_rows()
    json.dump({"seconds": seconds, "signatures": [list(row) for row in rows]}, sys.stdout)


if __name__ == "__main__":
    main()

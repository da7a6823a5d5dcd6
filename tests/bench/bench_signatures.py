"""Speed of shingles and signatures on one core, beside datasketch and rensa, and how far off the estimates are.

    python tests/bench/bench_signatures.py [--documents N] [--peer-python PYTHON] [--data FOLDER]

One process, texts in memory as Arrow batches of 1 MB, seconds of CPU, the fastest of 5 runs. The shingles and the
signatures of all three are the same work: 112 values over the same 64-bit shingle hashes. datasketch signs the first
300 documents, once with its default SHA-1 and once with a hash that costs nothing. Without --peer-python a venv for
rensa is made in the user's cache folder. The last table compares estimates with true Jaccard similarities on all
pairs of licence texts that have at least 0.3.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import datasketch
import numpy as np
import numpy.typing as npt
from peers import peer_python

from gristmill.pipelines.allocator import keep_freed_memory
from gristmill.scorers.decontamination import Decontamination
from gristmill.scorers.minhash import MinHash, estimate_jaccard, multipliers, signatures
from gristmill.scorers.shingles import DATATROVE_SHINGLING, DocumentHashes, shingle_hashes
from gristmill.scorers.simhash import simhashes
from gristmill.scorers.text import TextBatch

DATA = Path(__file__).resolve().parents[3] / "shared/data"
PEER = Path(__file__).with_name("peer_rensa_signatures.py")
PEER_PACKAGES = ["rensa==0.5.0", "numpy"]
BATCH_BYTES = 1_000_000
NUM_RUNS = 5
NUM_PERM = 112
NUM_DATASKETCH = 300


def read_texts(path: Path, num: int | None = None) -> list[str]:
    """The texts of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in islice(file, num)]


def batches(texts: list[str]) -> Iterator[TextBatch]:
    """Texts in batches of about `BATCH_BYTES`."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield TextBatch.from_texts(batch)
            batch, size = [], 0
    if batch:
        yield TextBatch.from_texts(batch)


def fastest(run: Callable[[], object]) -> float:
    """Seconds of CPU."""
    seconds = []
    for _ in range(NUM_RUNS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def sign_with_datasketch(
    shingles: DocumentHashes, hashfunc: Callable[[bytes], int] | None = None
) -> tuple[float, npt.NDArray[np.uint64]]:
    """Seconds of CPU, and signatures."""
    tokens = [
        [value.tobytes() for value in shingles.hashes[start:end]]
        for start, end in zip(shingles.offsets, shingles.offsets[1:], strict=False)
    ]
    options = {"hashfunc": hashfunc} if hashfunc else {}
    start = time.process_time()
    signed = datasketch.MinHash.bulk(tokens, num_perm=NUM_PERM, **options)
    return time.process_time() - start, np.array([peer.hashvalues for peer in signed])


def near_pairs(shingles: DocumentHashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """All pairs of documents of Jaccard similarity 0.3 or more, int64[p, 2], and their similarities, float64[p]."""
    documents = [set(part.tolist()) for part in np.split(shingles.hashes, shingles.offsets[1:-1])]
    pairs, similarities = [], []
    for second, right in enumerate(documents):
        for first, left in enumerate(documents[:second]):
            num_both = len(left & right)
            similarity = num_both / (len(left) + len(right) - num_both) if num_both else 0.0
            if similarity >= 0.3:
                pairs.append((first, second))
                similarities.append(similarity)
    return np.array(pairs), np.array(similarities)


def main() -> None:
    """Print speeds, then errors."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=15_000)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with corpus/, downstream/ and neardup/"
    )
    arguments = parser.parse_args()
    if not arguments.data.exists():
        print(f"{arguments.data} is not there; name another folder with --data")
        return

    keep_freed_memory()
    texts = read_texts(arguments.data / "corpus/mixed-00.jsonl.gz", arguments.documents)
    documents = [batch.documents for batch in batches(texts)]
    num_mb = sum(len(text.encode()) for text in texts) / 1e6
    cut = [shingle_hashes(TextBatch(batch), DATATROVE_SHINGLING) for batch in documents]
    num_shingles = sum(len(shingles.hashes) for shingles in cut)
    print(
        f"{len(texts):,} documents, {num_mb:.1f} MB, {num_shingles:,} distinct shingles; {platform.machine()}, "
        f"{os.cpu_count()} cores, NumPy {np.__version__}"
    )

    factors, minhash = multipliers(NUM_PERM, seed=1), MinHash(num_perm=NUM_PERM)
    sets = {
        path.name.removesuffix(".jsonl.gz"): str(path)
        for path in arguments.data.glob("downstream/*.jsonl.gz")
    }
    decontamination = Decontamination(sets=sets)
    decontamination.setup()
    steps: dict[str, Callable[[], object]] = {
        "shingles, from text": lambda: [
            shingle_hashes(TextBatch(batch), DATATROVE_SHINGLING) for batch in documents
        ],
        "MinHash, from shingles": lambda: [signatures(shingles, factors) for shingles in cut],
        "SimHash, from shingles": lambda: [simhashes(shingles) for shingles in cut],
        "minhash, from text": lambda: [minhash.score(TextBatch(batch)) for batch in documents],
        f"decontamination, {len(sets)} sets, from text": lambda: [
            decontamination.score(TextBatch(batch)) for batch in documents
        ],
    }
    seconds = {name: fastest(step) for name, step in steps.items()}
    for name, spent in seconds.items():
        print(f"{name:40} {num_mb / spent:7.1f} MB/s  {spent:6.3f} s")
    ours = seconds["MinHash, from shingles"] / num_shingles

    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        hashes = np.concatenate([shingles.hashes for shingles in cut])
        lengths = np.concatenate([np.diff(shingles.offsets) for shingles in cut])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        licences = shingle_hashes(
            TextBatch.from_texts(read_texts(arguments.data / "neardup/spdx_licenses.jsonl.gz")),
            DATATROVE_SHINGLING,
        )
        np.savez(
            file,
            hashes=hashes,
            offsets=offsets.astype(np.uint64),
            pair_hashes=licences.hashes,
            pair_offsets=licences.offsets.astype(np.uint64),
        )
        file.flush()
        output = subprocess.run(
            [
                arguments.peer_python or peer_python("rensa-0.5.0", PEER_PACKAGES),
                "-I",
                PEER,
                file.name,
                str(NUM_PERM),
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "RAYON_NUM_THREADS": "1"},
        )
    peer = json.loads(output.stdout)

    first = DocumentHashes(hashes[: offsets[NUM_DATASKETCH]], offsets[: NUM_DATASKETCH + 1])
    print(f"\nsignatures of {NUM_PERM} values   s a million shingles   gristmill is faster by")
    for name, spent in {
        "gristmill": ours,
        "rensa 0.5.0": min(peer["seconds"]) / num_shingles,
        "datasketch bulk": sign_with_datasketch(first)[0] / len(first.hashes),
        "datasketch bulk, hash free": sign_with_datasketch(
            first, lambda token: int.from_bytes(token[:4], "little")
        )[0]
        / len(first.hashes),
    }.items():
        print(f"{name:27} {1e6 * spent:20.4f} {spent / ours:22.2f}x")

    pairs, true = near_pairs(licences)
    expected = np.sqrt((true * (1 - true)).mean() / NUM_PERM)
    print(
        f"\nestimates of {len(true):,} pairs: mean error, root mean square (independent values: {expected:.4f})"
    )
    signed = {
        "gristmill": signatures(licences, factors),
        "rensa 0.5.0": np.array(peer["signatures"], np.uint32),
        "datasketch": sign_with_datasketch(licences)[1],
    }
    for name, values in signed.items():
        errors = estimate_jaccard(values[pairs[:, 0]], values[pairs[:, 1]]) - true
        print(f"{name:27} {errors.mean():+20.4f} {np.sqrt((errors**2).mean()):22.4f}")


if __name__ == "__main__":
    main()

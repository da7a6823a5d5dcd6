"""Speed of near-duplicate marking on one worker, beside datatrove 0.10.1 and a plain script with rensa 0.5, in one run.

    python tests/bench/bench_dedup_speed.py [--files N] [--peer-files N] [--datatrove-python P] [--rensa-python P]

Over the mixed corpus (212 MB of JSONL, gzipped in 10 files), in seconds of wall time:

- from JSONL to marked duplicates: ingest, signatures, clusters with every member verified, against datatrove's four
  MinHash stages, which run on `--peer-files` of the files because they take minutes; compared by MB/s of text.
- from ingested shards to marked duplicates: signatures and clusters, against a script with its texts in memory that
  cuts shingles in Python and calls rensa's matrix functions; it verifies nothing and stores nothing.

Without the two options venvs for the peers are made in the user's cache folder.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import peer_python

from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.runner import beam_options

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
HERE = Path(__file__).parent
DATATROVE = ["datatrove[processing]==0.10.1", "spacy>=3.8,<3.9", "orjson"]
RENSA = ["rensa==0.5.0", "numpy"]
BANDS = (18, 6)


def run_peer(python: Path, script: str, *arguments: object) -> Any:
    """What a peer's script prints, on one thread."""
    output = subprocess.run(
        [python, "-I", "-W", "ignore", HERE / script, *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAYON_NUM_THREADS": "1"},
    )
    return json.loads(output.stdout)


def text_megabytes(path: Path) -> float:
    """UTF-8 bytes of the texts of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return sum(len(json.loads(line)["text"].encode()) for line in file) / 1e6


def run_ours(paths: list[Path]) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each stage, and the manifest of the duplicates."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.model_validate(
            {
                "workspace": f"{folder}/workspace",
                "corpus": [
                    {"path": str(path), "source": "mixed", "source_field": "source"} for path in paths
                ],
                "score": ["minhash"],
                "duplicates": {"num_bands": BANDS[0], "rows_per_band": BANDS[1]},
            }
        )
        curation = prepare(recipe, beam_options([]))
        seconds = {}
        for stage in ("ingest", "score", "dedup"):
            started = time.perf_counter()
            summary = curation.run([stage])
            seconds[stage] = time.perf_counter() - started
    return seconds, summary.duplicates


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument(
        "--peer-files", type=int, default=1, help="files that datatrove takes; 0 leaves it out"
    )
    parser.add_argument("--datatrove-python", type=Path)
    parser.add_argument("--rensa-python", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.corpus.glob("*.jsonl.gz"))[: arguments.files]
    if not paths:
        print(f"{arguments.corpus} has no *.jsonl.gz; name another folder with --corpus")
        return
    megabytes = [text_megabytes(path) for path in paths]
    print(
        f"{len(paths)} files, {sum(megabytes):.0f} MB of text; {platform.machine()}, {os.cpu_count()} cores",
        flush=True,
    )

    seconds, manifest = run_ours(paths)
    whole = sum(megabytes) / sum(seconds.values())
    print(
        "gristmill: "
        + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items())
        + f"; {whole:.1f} MB/s "
        f"from JSONL; {manifest['num_near_duplicates']:,} documents marked, every one verified",
        flush=True,
    )

    python = arguments.rensa_python or peer_python("rensa-0.5.0", RENSA)
    ours = seconds["score"] + seconds["dedup"]
    print(f"from shards: gristmill {ours:.1f} s, {sum(megabytes) / ours:.1f} MB/s")
    for way, peer in run_peer(python, "peer_rensa_dedup.py", *BANDS, *paths).items():
        theirs = peer["shingle"] + peer["match"]
        print(
            f"  rensa, {way:6}: shingles {peer['shingle']:.1f} s, the rest {peer['match']:.1f} s, "
            f"{sum(megabytes) / theirs:.1f} MB/s, {peer['num_marked']:,} candidates; ratio {theirs / ours:.2f}x",
            flush=True,
        )

    if arguments.peer_files:
        python = arguments.datatrove_python or peer_python("datatrove-0.10.1", DATATROVE)
        with tempfile.TemporaryDirectory() as folder:
            peer = run_peer(python, "peer_datatrove_minhash.py", folder, *paths[: arguments.peer_files])
        own, own_manifest = run_ours(paths[: arguments.peer_files])
        num_mb = sum(megabytes[: arguments.peer_files])
        theirs = num_mb / peer["seconds"]
        print(
            f"from JSONL: datatrove 0.10.1 {peer['seconds']:.1f} s for {peer['num_documents']:,} documents, "
            f"{num_mb:.0f} MB, {theirs:.2f} MB/s, {peer['num_marked']:,} marked; gristmill on the same files "
            f"{sum(own.values()):.1f} s, {own_manifest['num_near_duplicates']:,} marked; ratio {whole / theirs:.0f}x, "
            f"on the same files {peer['seconds'] / sum(own.values()):.0f}x"
        )


if __name__ == "__main__":
    main()

"""Ingest: MB/s of text a worker process, and its peak memory, from one JSONL.zst of 10 MB and of 2 GB of text.

    python tests/bench/bench_ingest.py [--corpus FOLDER] [--gigabytes 2]

The text is the mixed corpus, repeated. Each run is a process of its own; MB/s counts all it does after its imports:
decompression, parsing, doc_ids, hashes, both files of the shards. Beside the speed: documents out equal lines in.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from backports import zstd

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
RUN = """
import json, resource, sys, time
from gristmill.pipelines.extract_html import Extractor
from gristmill.pipelines.plan_splits import commit_plan, plan_ingest
from gristmill.pipelines.corpus import commit_corpus
from gristmill.pipelines.read_documents import Limits, write_split
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.workspace import open_workspace

path, folder = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
workspace = open_workspace(folder, create=True)
recipe = Recipe(workspace=folder, corpus=[{"path": path, "source": "mixed"}])
started, used = time.perf_counter(), time.process_time()
plan = plan_ingest(workspace, recipe)
commit_plan(workspace, plan)
for split in plan.splits:
    list(write_split(workspace, split, Limits(plan.shard_bytes, 32 << 20), Extractor()))
seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
shards, rows = commit_corpus(workspace, plan)
print(json.dumps({
    "megabytes": sum(shard.num_bytes for shard in shards) / 1e6,
    "documents": sum(shard.num_rows for shard in shards),
    "seconds": seconds,
    "cpu_seconds": cpu_seconds,
    "imports_megabytes": before / 1024,
    "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def write_input(path: Path, corpus: Path, num_bytes: int) -> int:
    """Repeat the corpus into one JSONL.zst; returns the number of lines."""
    num_lines = written = 0
    with zstd.open(path, "wb") as target:
        while written < num_bytes:
            for source in sorted(corpus.glob("*.jsonl.gz")):
                for line in gzip.open(source):
                    target.write(line)
                    num_lines += 1
                    written += len(json.loads(line)["text"].encode()) if num_bytes < 1e8 else len(line)
                    if written >= num_bytes:
                        return num_lines
    return num_lines


def main() -> None:
    """Print a line a size, then the ratio of the two peaks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    arguments = parser.parse_args()
    peaks = []
    for num_bytes in (10_000_000, int(arguments.gigabytes * 1e9)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "input.jsonl.zst"
            num_lines = write_input(path, arguments.corpus, num_bytes)
            command = [sys.executable, "-c", RUN, str(path), f"{folder}/workspace"]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks.append(answer["peak_megabytes"])
        megabytes, documents = answer["megabytes"], answer["documents"]
        print(f"{megabytes:8,.0f} MB of text, {documents:,} documents of {num_lines:,} lines: ", end="")
        print(
            f"{megabytes / answer['seconds']:.1f} MB/s ({megabytes / answer['cpu_seconds']:.1f} MB a CPU second), ",
            end="",
        )
        print(f"peak {answer['peak_megabytes']:.0f} MB of which imports {answer['imports_megabytes']:.0f} MB")
    print(f"peak memory of the large input over the small one: {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()

"""Near duplicates by datatrove's four MinHash stages, run by bench_dedup_speed.py in a venv of their own.

    python peer_datatrove_minhash.py FOLDER FILE...

JSONL files, gzipped or not, in; the kept documents out, below FOLDER, uncompressed. One worker, datatrove's defaults:
14 bands of 8 rows, runs of 5 words. Prints one JSON object: {"seconds": ...,
"num_documents": ..., "num_marked": ...}.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    """Run the stages one after the other."""
    folder, paths = Path(sys.argv[1]), sys.argv[2:]
    (folder / "paths.txt").write_text("".join(f"{path}\n" for path in paths))
    config = MinhashConfig()

    def read() -> JsonlReader:
        return JsonlReader("/", paths_file=str(folder / "paths.txt"), compression="infer")

    stages = [
        (1, [read(), MinhashDedupSignature(f"{folder}/signatures", config=config)]),
        (
            config.num_buckets,
            [MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)],
        ),
        (1, [MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config)]),
        (
            1,
            [
                read(),
                MinhashDedupFilter(f"{folder}/removed"),
                JsonlWriter(f"{folder}/kept", compression=None),
            ],
        ),
    ]
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        for number, (tasks, pipeline) in enumerate(stages):
            LocalPipelineExecutor(
                pipeline, tasks=tasks, workers=1, logging_dir=f"{folder}/logs/{number}"
            ).run()
    seconds = time.perf_counter() - started
    num_marked = sum(path.stat().st_size for path in (folder / "removed").glob("*")) // 4
    num_kept = sum(sum(1 for _ in path.open("rb")) for path in (folder / "kept").rglob("*") if path.is_file())
    answer = {"seconds": seconds, "num_documents": num_kept + num_marked, "num_marked": num_marked}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

"""Speed of the `rules` scorer against datatrove 0.10.1, and agreement of their decisions, in one run.

    python tests/bench/bench_rules.py [--documents N] [--peer-python PYTHON] [--data FILE]

Both sides are one process with the texts in memory, timed in seconds of CPU: here all features of all documents,
from strings to a table of scores, in batches of 1 MB; there GopherRepetition, GopherQuality, C4Quality and
FineWebQuality filters. Without --peer-python a venv for datatrove is made in the user's cache folder. Below the
ratio stands, filter by filter, how often the decisions agree, and every class of disagreement: the reason datatrove
gives, or the condition that fails here, with the number of documents.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
from peers import peer_python

from gristmill import sql
from gristmill.scorers.rules import Rules
from gristmill.scorers.text import TextBatch

DATA = Path(__file__).resolve().parents[3] / "shared/data/corpus/mixed-00.jsonl.gz"
PEER = Path(__file__).with_name("peer_datatrove_rules.py")
PEER_PACKAGES = ["datatrove[processing]==0.10.1", "spacy>=3.8,<3.9", "orjson"]
BATCH_BYTES = 1_000_000
NUM_RUNS = 5
TOP_LIMITS = ((2, 0.2), (3, 0.18), (4, 0.16))
DUPE_LIMITS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
# What may fail here, to name a disagreement by.
CONDITIONS = {
    "gopher_repetition_pass": [
        "gopher_frac_dup_lines > 0.3",
        "gopher_frac_dup_paragraphs > 0.3",
        "gopher_frac_chars_dup_lines > 0.2",
        "gopher_frac_chars_dup_paragraphs > 0.2",
        *(f"gopher_frac_chars_top_{n}gram > {limit}" for n, limit in TOP_LIMITS),
        *(f"gopher_frac_chars_dupe_{n}grams > {limit}" for n, limit in DUPE_LIMITS),
    ],
    "gopher_quality_pass": [
        "gopher_word_count < 50",
        "gopher_word_count > 100000",
        "gopher_mean_word_length < 3",
        "gopher_mean_word_length > 10",
        "gopher_hash_to_word_ratio > 0.1",
        "gopher_ellipsis_to_word_ratio > 0.1",
        "gopher_frac_bullet_lines > 0.9",
        "gopher_frac_ellipsis_lines > 0.3",
        "gopher_frac_alpha_words < 0.8",
        "gopher_num_stop_words < 2",
    ],
    "c4_pass": [
        "c4_num_lorem_ipsum_lines_3_words > 0",
        "c4_num_curly_bracket_lines_3_words > 0",
        "c4_num_sentences_3_words < 5",
    ],
    "fineweb_pass": [
        "fineweb_line_punct_ratio < 0.12",
        "fineweb_short_line_ratio_30_chars > 0.67",
        "fineweb_char_dup_ratio > 0.01",
        "fineweb_newline_to_word_ratio > 0.3",
    ],
}


def batches(texts: list[str]) -> Iterator[list[str]]:
    """Texts in batches of about `BATCH_BYTES`."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def score(texts: list[str]) -> pa.Table:
    """All features of all documents."""
    rules = Rules()
    return pa.Table.from_batches([rules.score(TextBatch.from_texts(batch)) for batch in batches(texts)])


def decide(scores: pa.Table) -> dict[str, list[str]]:
    """Rule set -> the condition that fails, empty where the document passes, one a document."""
    connection = duckdb.connect()
    connection.execute(sql.read_sql("macros.sql"))
    connection.register("scores", scores)
    columns = []
    for name, conditions in CONDITIONS.items():
        cases = " ".join(f"WHEN {condition} THEN '{condition}'" for condition in conditions)
        passes = f"({sql.rule_sets()[name]})"
        columns.append(f"CASE WHEN {passes} THEN '' {cases} ELSE 'unnamed' END AS {name}")
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM scores").fetchall()
    return {name: list(column) for name, column in zip(CONDITIONS, zip(*rows, strict=True), strict=True)}


def main() -> None:
    """Print the ratio, then the agreement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="gzipped JSONL with a field text")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        print(f"{arguments.data} is not there; name another file with --data")
        return

    with gzip.open(arguments.data, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, arguments.documents)]
    num_mb = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {num_mb:.1f} MB; {platform.machine()}, {os.cpu_count()} cores")

    score(texts[:100])
    seconds = []
    for _ in range(NUM_RUNS):
        start = time.process_time()
        scores = score(texts)
        seconds.append(time.process_time() - start)
    ours = statistics.median(seconds)

    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        file.flush()
        python = arguments.peer_python or peer_python("datatrove-0.10.1", PEER_PACKAGES)
        output = subprocess.run(
            [python, "-I", "-W", "ignore", PEER, file.name], check=True, capture_output=True
        )
    peer = json.loads(output.stdout)
    theirs = sum(result["cpu_s"] for result in peer.values())

    print(
        f"gristmill rules, {scores.num_columns} features: {len(texts) / ours:,.0f} documents/s, "
        f"{num_mb / ours:.1f} MB/s ({ours:.2f} s; {min(seconds):.2f} to {max(seconds):.2f} in {NUM_RUNS} runs)"
    )
    print(
        f"datatrove 0.10.1, four filters: {len(texts) / theirs:,.0f} documents/s, "
        f"{num_mb / theirs:.2f} MB/s ({theirs:.1f} s)"
    )
    print(f"ratio: {theirs / ours:.0f}x")

    for name, failed in decide(scores).items():
        reasons = peer[name]["reasons"]
        pairs = list(zip(reasons, failed, strict=True))
        differing = [pair for pair in pairs if bool(pair[0]) != bool(pair[1])]
        agreement = 1 - len(differing) / len(pairs)
        num_kept = sum(not reason for reason in reasons), sum(not condition for condition in failed)
        print(f"{name}: {agreement:.2%} agree; datatrove keeps {num_kept[0]}, gristmill {num_kept[1]}")
        for (reason, condition), count in Counter(differing).most_common():
            print(
                f"  {count:4} {f'only datatrove drops: {reason}' if reason else f'only gristmill drops: {condition}'}"
            )


if __name__ == "__main__":
    main()

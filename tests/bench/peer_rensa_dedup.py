"""Near duplicates as a plain script finds them, with rensa, run by bench_dedup_speed.py in a venv of its own.

    python peer_rensa_dedup.py NUM_BANDS ROWS_PER_BAND FILE...

The texts of gzipped JSONL files are read first, which is not timed. Then each document becomes a set of shingles of 5
words, and rensa's matrix functions sign them and look for duplicates; nothing is verified. Three ways to cut shingles:

    raw     `hash` of tuples of what str.split leaves, case and punctuation as they are: the least that Python can do
    words   the same of the lower-case words without punctuation, which is what gristmill and datatrove compare
    joined  these words joined to strings, hashed by rensa

Prints one JSON object: way -> {"shingle": seconds, "match": seconds, "num_marked": documents}.
"""

import gzip
import json
import re
import sys
import time
from collections.abc import Callable

import numpy as np
import rensa

SEED = 42
WORD = re.compile(r"\w+")


def flat_matrix(
    texts: list[str], num_perm: int, split: Callable[[str], list[str]]
) -> tuple[float, rensa.RMinHashDigestMatrix]:
    """Seconds of cutting shingles, and signatures of their hashes."""
    started = time.perf_counter()
    parts, offsets = [], [0]
    for text in texts:
        words = split(text)
        shingles = {hash(run) for run in zip(words, words[1:], words[2:], words[3:], words[4:], strict=False)}
        parts.append(np.fromiter(shingles, np.int64, len(shingles)))
        offsets.append(offsets[-1] + len(shingles))
    flat = np.concatenate(parts).view(np.uint64)
    seconds = time.perf_counter() - started
    sign = rensa.RMinHash.digest_matrix_from_flat_token_hashes
    return seconds, sign(flat, np.array(offsets, np.uint64), num_perm, SEED)


def joined_matrix(
    texts: list[str], num_perm: int, split: Callable[[str], list[str]]
) -> tuple[float, rensa.RMinHashDigestMatrix]:
    """Seconds of cutting shingles, and signatures of the strings."""
    started = time.perf_counter()
    sets = []
    for text in texts:
        words = split(text)
        sets.append({" ".join(words[start : start + 5]) for start in range(max(len(words) - 4, 1))})
    seconds = time.perf_counter() - started
    return seconds, rensa.RMinHash.digest_matrix_from_token_sets(sets, num_perm, SEED)


def main() -> None:
    """Time each way once over all texts."""
    num_bands, rows_per_band, paths = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    texts = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in file]
    num_perm = num_bands * rows_per_band
    answer = {}
    for name, sign, split in (
        ("raw", flat_matrix, str.split),
        ("words", flat_matrix, lambda text: WORD.findall(text.lower())),
        ("joined", joined_matrix, lambda text: WORD.findall(text.lower())),
    ):
        started = time.perf_counter()
        shingle, matrix = sign(texts, num_perm, split)
        lsh = rensa.RMinHashLSH(0.8, num_perm, num_bands)
        flags = lsh.query_duplicate_flags_matrix_one_shot(matrix)
        match = time.perf_counter() - started - shingle
        answer[name] = {"shingle": shingle, "match": match, "num_marked": int(sum(flags))}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

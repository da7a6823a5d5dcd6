"""Peer of bench_feed.py: Hugging Face datasets over the same rows, run in a venv that holds datasets and torch.

    python peer_datasets_feed.py TOKENS.npy BATCH_SIZE NUM_BATCHES NUM_WORKERS

Prints seconds a batch of each way to read shuffled batches of tensors.
"""

import json
import sys
import tempfile
import time

import datasets
import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader


def main() -> None:
    """Time them."""
    tokens = np.load(sys.argv[1], mmap_mode="r")
    batch_size, num_batches, num_workers = map(int, sys.argv[2:])
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        offsets = np.arange(len(tokens) + 1, dtype=np.int32) * tokens.shape[1]
        column = pa.ListArray.from_arrays(offsets, tokens.astype(np.int32).ravel())
        datasets.Dataset(pa.table({"input_ids": column})).save_to_disk(folder)
        dataset = datasets.load_from_disk(folder).with_format("torch")
        if num_workers:
            ways = {"DataLoader": DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers)}
        else:
            shuffled = dataset.shuffle(seed=0)
            ways = {
                "DataLoader": DataLoader(dataset, batch_size, shuffle=True),
                "iter": shuffled.iter(batch_size),
            }
        print(json.dumps({name: seconds_a_batch(way, num_batches) for name, way in ways.items()}))


def seconds_a_batch(batches, num_batches: int) -> float:
    """Of the batches after the first ones."""
    stream = iter(batches)
    for _ in range(5):
        next(stream)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(stream)
    return (time.perf_counter() - start) / num_batches


if __name__ == "__main__":
    main()

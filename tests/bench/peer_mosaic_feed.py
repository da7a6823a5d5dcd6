"""Peer of bench_feed.py: MosaicML streaming over the same rows, run in a venv that holds mosaicml-streaming.

    python peer_mosaic_feed.py MDS_FOLDER TOKENS.npy BATCH_SIZE NUM_BATCHES NUM_WORKERS

Compares every row that it reads with the tokens, and prints seconds a batch of shuffled batches of tensors.
"""

import json
import sys
import time

import numpy as np
import torch
from streaming import StreamingDataset
from torch.utils.data import DataLoader


class Tokens(StreamingDataset):
    """Rows as tensors of int64."""

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(super().__getitem__(row)["tokens"].astype(np.int64))


def main() -> None:
    """Compare, and time."""
    folder, path = sys.argv[1:3]
    batch_size, num_batches, num_workers = map(int, sys.argv[3:])
    tokens = np.load(path, mmap_mode="r")
    dataset = Tokens(local=folder, batch_size=batch_size, shuffle=True, shuffle_seed=0)
    if len(dataset) != len(tokens) or any(
        (dataset[row].numpy() != tokens[row]).any() for row in range(len(tokens))
    ):
        sys.exit("MosaicML streaming reads other rows than were written")
    stream = iter(DataLoader(dataset, batch_size, num_workers=num_workers))
    for _ in range(50):
        next(stream)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(stream)
    print(json.dumps((time.perf_counter() - start) / num_batches))


if __name__ == "__main__":
    main()

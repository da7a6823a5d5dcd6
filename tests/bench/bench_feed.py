"""Speed of the feed into a training step that does nothing, beside what else feeds a trainer.

    python tests/bench/bench_feed.py [--peer-python PYTHON] [--mosaic-python PYTHON] [--rows N]

Batches of 32 rows of 1,024 tokens from shards in the page cache, checksums left out, in one process and with two
DataLoader workers. Beside it: the same shards as if on a bucket (`file://`), checksums included; Hugging Face datasets
over the same rows, shuffled, the faster of its two ways; MosaicML streaming over the same rows as `also: mds` writes
them, which also compares every row with the tokens; a bare memory map read at random rows; a DataLoader that yields one
prebuilt tensor, whose storage is shared once; and one that yields a new tensor each time, without any data. All are
measured in turn, five times, and the medians of the ratios printed. Without the options a venv for each peer is made in
the user's cache folder. Last, the time to the first batch with a manifest of 10,000 shards.

How a batch gets from a worker to the trainer decides the speed with workers. Ratios to the prebuilt tensor, in runs on
a machine with other work: two tensors 0.38; two in one storage 0.39 to 0.65; the same by the strategy `file_system`
0.42; the values through the pipe, 8 bytes a token, 0.69 to 1.0; 2 bytes, as `feed.Batch` sends them, 0.66 to 1.8.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from peers import peer_python
from torch.utils.data import DataLoader, IterableDataset

from gristmill.models.tokenizer import TokenizedTexts
from gristmill.pipelines.feed import TokenFeed
from gristmill.pipelines.pack_tokens import concatenate
from gristmill.pipelines.token_shards import digest, names_of, open_shard, write_shard
from gristmill.pipelines.tokenise import CELL, to_batch
from gristmill.pipelines.trainer_formats import Documents, mds_index, to_mds

PEER = Path(__file__).with_name("peer_datasets_feed.py")
MOSAIC_PEER = Path(__file__).with_name("peer_mosaic_feed.py")
PEER_PACKAGE = "datasets==5.2.0"
MOSAIC_PACKAGE = "mosaicml-streaming==0.13.0"
TORCH = "torch==2.13.0"
BATCH_SIZE = 32
SEQUENCE_LENGTH = 1024
DOCUMENT_TOKENS = 600
NUM_BATCHES = 400
NUM_ROUNDS = 5
NUM_SHARDS = 4
MANY_SHARDS = 10_000


class Prebuilt(IterableDataset):
    """One tensor, again and again."""

    def __init__(self) -> None:
        self.tokens = torch.zeros((BATCH_SIZE, SEQUENCE_LENGTH), dtype=torch.int64)

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            yield self.tokens


class Fresh(IterableDataset):
    """A new tensor each time, filled with one number."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            yield torch.full((BATCH_SIZE, SEQUENCE_LENGTH), 7)


def write_tokens(folder: Path, num_rows: int) -> None:
    """Shards of random documents, packed end to end."""
    random = np.random.default_rng(0)
    entries = []
    for name in names_of(NUM_SHARDS):
        lengths = random.geometric(
            1 / DOCUMENT_TOKENS, num_rows * SEQUENCE_LENGTH // DOCUMENT_TOKENS // NUM_SHARDS
        )
        offsets = np.append(0, np.cumsum(lengths))
        texts = TokenizedTexts(random.integers(1, 50_000, offsets[-1]).astype(np.uint32), offsets)
        columns = [
            np.zeros(len(lengths)),
            pa.array([number.to_bytes(16, "big") for number in range(len(lengths))], pa.binary(16)),
            ["web"] * len(lengths),
            pa.array([[]] * len(lengths), CELL.field("tokens").type),
            *([value] * len(lengths) for value in (0, False, 0, 0)),
        ]
        batch = to_batch(concatenate(texts, 0, SEQUENCE_LENGTH), pa.table(columns, schema=CELL), np.uint16)
        with (folder / name).open("w+b") as file:
            write_shard(file, batch, {"identity": str(folder)})
            file.seek(0)
            entry = {"name": name, "num_rows": len(batch), "blake2b": digest(file)}
        entries.append({**entry, "num_bytes": (folder / name).stat().st_size})
    write_manifest(folder, entries)


def write_manifest(folder: Path, entries: list[dict[str, object]]) -> None:
    """The manifest of a folder of shards."""
    manifest = {
        "identity": str(folder),
        "sequence_length": SEQUENCE_LENGTH,
        "dtype": "uint16",
        "shards": entries,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_many_shards(folder: Path, source: Path) -> None:
    """A folder with links to one shard under many names."""
    (entry, *_) = json.loads((source / "manifest.json").read_text())["shards"]
    names = names_of(MANY_SHARDS)
    for name in names:
        os.link(source / entry["name"], folder / name)
    write_manifest(folder, [{**entry, "name": name} for name in names])


def write_mds(folder: Path, shards: list[npt.NDArray[np.uint16]]) -> None:
    """The same rows as `also: mds` writes them."""
    folder.joinpath("mds").mkdir()
    for number, tokens in enumerate(shards):
        documents = Documents(tokens, np.array([0]), [bytes(16)], ["web"])
        for name, content in to_mds(number, documents).items():
            (folder / name).write_bytes(content)
    index = mds_index(
        [len(tokens) for tokens in shards], np.dtype(np.uint16), SEQUENCE_LENGTH, has_mask=False
    )
    (folder / "mds" / "index.json").write_bytes(index)


def bare_map(tokens: npt.NDArray[np.uint16]) -> Iterator[torch.Tensor]:
    """Random rows of a memory map as tensors."""
    random = np.random.default_rng(0)
    while True:
        rows = random.integers(0, len(tokens), BATCH_SIZE)
        yield torch.from_numpy(tokens[rows].astype(np.int64))


def seconds_a_batch(batches: Iterable[object]) -> float:
    """Of the batches after the first ones."""
    stream = iter(batches)
    for _ in range(50):
        next(stream)
    start = time.perf_counter()
    for _ in range(NUM_BATCHES):
        next(stream)
    return (time.perf_counter() - start) / NUM_BATCHES


def main() -> None:
    """Print tokens a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--mosaic-python", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    arguments = parser.parse_args()
    python = arguments.peer_python or peer_python(PEER_PACKAGE.replace("==", "-"), [PEER_PACKAGE, TORCH])
    mosaic_python = arguments.mosaic_python or peer_python(
        MOSAIC_PACKAGE.replace("==", "-"), [MOSAIC_PACKAGE, TORCH]
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, NumPy {np.__version__}")

    with tempfile.TemporaryDirectory() as root:
        folder, many = Path(root, "tokens"), Path(root, "many")
        folder.mkdir()
        many.mkdir()
        write_tokens(folder, arguments.rows)
        shards = [open_shard(str(folder / name)).tokens for name in names_of(NUM_SHARDS)]
        rows = Path(root, "rows.npy")
        np.save(rows, np.concatenate(shards))
        write_mds(Path(root), shards)

        def feed() -> TokenFeed:
            return TokenFeed(str(folder), batch_size=BATCH_SIZE, epochs=None, verify=False)

        def bucket() -> TokenFeed:
            return TokenFeed(f"file://{folder}", batch_size=BATCH_SIZE, epochs=None)

        def mosaic(num_workers: int) -> float:
            numbers = map(str, (BATCH_SIZE, NUM_BATCHES, num_workers))
            command = [mosaic_python, "-W", "ignore", MOSAIC_PEER, Path(root, "mds"), rows, *numbers]
            return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

        def peer(num_workers: int) -> float:
            numbers = map(str, (BATCH_SIZE, NUM_BATCHES, num_workers))
            command = [python, "-I", PEER, rows, *numbers]
            done = subprocess.run(command, check=True, capture_output=True, env={"HF_HUB_OFFLINE": "1"})
            return min(json.loads(done.stdout).values())

        def loaded(dataset: IterableDataset, num_workers: int) -> float:
            return seconds_a_batch(DataLoader(dataset, batch_size=None, num_workers=num_workers))

        mapped = np.load(rows, mmap_mode="r")
        ways: dict[str, dict[str, Callable[[], float]]] = {
            "one process": {
                "the feed": lambda: seconds_a_batch(feed()),
                "the feed, as from a bucket": lambda: seconds_a_batch(bucket()),
                "datasets": lambda: peer(0),
                "MosaicML streaming": lambda: mosaic(0),
                "bare memory map": lambda: seconds_a_batch(bare_map(mapped)),
                "DataLoader, prebuilt tensor": lambda: loaded(Prebuilt(), 0),
                "DataLoader, new tensors": lambda: loaded(Fresh(), 0),
            },
            "two workers": {
                "the feed": lambda: loaded(feed(), 2),
                "the feed, as from a bucket": lambda: loaded(bucket(), 2),
                "datasets": lambda: peer(2),
                "MosaicML streaming": lambda: mosaic(2),
                "DataLoader, prebuilt tensor": lambda: loaded(Prebuilt(), 2),
                "DataLoader, new tensors": lambda: loaded(Fresh(), 2),
            },
        }
        for title, of_title in ways.items():
            rounds = [{name: way() for name, way in of_title.items()} for _ in range(NUM_ROUNDS)]
            print(f"\n{title:32} million tokens/s   the feed is faster by")
            for name in of_title:
                seconds = statistics.median(measured[name] for measured in rounds)
                ratio = statistics.median(measured[name] / measured["the feed"] for measured in rounds)
                print(f"{name:32} {BATCH_SIZE * SEQUENCE_LENGTH / seconds / 1e6:16.1f} {ratio:22.2f}x")

        write_many_shards(many, folder)
        start = time.perf_counter()
        stream = iter(TokenFeed(str(many), batch_size=BATCH_SIZE, verify=False))
        opened = time.perf_counter()
        next(stream)
        print(
            f"\nmanifest of {MANY_SHARDS:,} shards: {opened - start:.3f} s to open, "
            f"{time.perf_counter() - opened:.3f} s to the first batch"
        )


if __name__ == "__main__":
    main()

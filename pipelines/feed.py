"""The feed: token shards -> batches of tensors, in an order that depends on nothing but the seed.

    stream = samples of a mixture of datasets, or of datasets in turns, each in its own order of rows, epoch after epoch
    batch  = the next `batch_size` samples of the stream, of which each rank takes its part

Ranks and DataLoader workers only divide the batches among each other, so the stream is the same for any number of them,
and its state is the number of samples taken of each dataset. Training processes need pyarrow, numpy and torch alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from gristmill.pipelines.mixture import Entry, choose_datasets, take_turns
from gristmill.pipelines.remote_shards import RemoteShards
from gristmill.pipelines.row_order import BLOCK_ROWS
from gristmill.pipelines.token_dataset import TokenDataset
from gristmill.pipelines.token_shards import TokensError

PLANNED_SAMPLES = 4096
"""Samples whose rows are computed at once."""
Integers = npt.NDArray[np.int64]


class Batch(dict[str, torch.Tensor]):
    """Tensors by name; a DataLoader's worker sends their values, as few bytes as hold them, through its pipe.

    Torch would send each storage as a file of shared memory, which costs more than copying: see bench_feed.py.
    """

    def __copy__(self) -> "Batch":
        return Batch(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, ({name: _pack(values) for name, values in self.items()},)


class TokenFeed(IterableDataset[Batch]):
    """Batches for one rank: iterate over it, or hand it to a `DataLoader` with `batch_size=None`.

    A batch has `tokens`, int64[b, s], and `loss_mask`, bool[b, s], False on padding. With `segments` it also has
    `segment_ids`, the number of each token's document within its sequence, and `position_ids`, its place since that
    document's start there, int64[b, s]: with them a model keeps attention inside documents.

    A stream is iterated over once: ask for as many epochs as the training takes. The last samples of the stream that
    fill no batch are left out.

    Args:
        datasets: Folder of tokens on a disk or a bucket, or the (folder, weight) of each dataset of a mixture; (folder,
            weight, source) takes the shards of one source. With `refresh`, the folder of each draw.
        batch_size: Sequences of all ranks together.
        rank: This process.
        world_size: Number of processes; divides `batch_size`.
        seed: Of the order and of the mixture.
        refresh: Batches after which the next draw has its turn, after the last one the first again, each going on where
            it was. None: the datasets are a mixture.
        epochs: The stream ends where a dataset would begin one pass more than these; None: never.
        shuffle_window: Rows that are shuffled among each other, a multiple of 256. Of a dataset on a bucket each
            process holds so many rows, and 512 more, in memory.
        segments: Whether batches say where documents start.
        verify: Whether a process compares the checksum of a shard when it first opens it, and on a bucket those of
            each block of rows when it reads it.

    Raises:
        TokensError: If the tokens are not there or do not go together.
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        datasets: str | Sequence[Entry] | Sequence[str],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epochs: int | None = 1,
        refresh: int | None = None,
        shuffle_window: int = 1 << 16,
        segments: bool = False,
        verify: bool = True,
    ) -> None:
        super().__init__()
        given = [datasets] if isinstance(datasets, str) else list(datasets)
        _check_turns(given, refresh)
        entries: list[Entry] = [(entry, 1.0) if isinstance(entry, str) else entry for entry in given]
        _check_numbers(entries, batch_size, rank, world_size, shuffle_window)
        self._weights = [entry[1] for entry in entries]
        self._datasets = [
            TokenDataset(
                entry[0],
                entry[2] if len(entry) == 3 else None,
                seed,
                shuffle_window,
                segments=segments,
                verify=verify,
            )
            for entry in entries
        ]
        self._is_remote = any(dataset.is_remote for dataset in self._datasets)
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._seed, self._epochs, self._refresh, self._segments = seed, epochs, refresh, segments
        self._dtype = np.result_type(*(dataset.dtype for dataset in self._datasets))
        self._samples = self._origin = 0
        self._taken = np.zeros(len(entries), np.int64)
        self._begin = self._samples, self._taken
        lengths = sorted({dataset.sequence_length for dataset in self._datasets})
        if len(lengths) > 1:
            raise TokensError(
                f"sequences of {lengths} tokens in one mixture; export all with one sequence_length"
            )
        keys = {dataset.key for dataset in self._datasets}
        has_both = any(dataset.source is not None and dataset.identity in keys for dataset in self._datasets)
        if has_both or len(keys) < len(entries):
            raise TokensError(
                "a mixture holds the same tokens twice; give each dataset once, with its whole weight"
            )

    def __iter__(self) -> Iterator[Batch]:
        """What is left of the stream: this rank's part of the batches that fall to this DataLoader worker."""
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        size = self._batch_size // self._world_size
        part = slice(self._rank * size, (self._rank + 1) * size)
        for plan in self._plans(self._samples, self._taken):
            first = (plan.samples - self._origin) // self._batch_size
            mine = np.arange((number - first) % num_workers, len(plan.chosen), num_workers)
            places = self._locate(plan.chosen[mine, part], plan.index[mine, part])
            for batch, of_batch, following in zip(mine.tolist(), places, [*places, []][1:], strict=True):
                self._ask(following)
                self._samples = plan.samples + (batch + 1) * self._batch_size
                self._taken = plan.taken[batch]
                yield self._read(of_batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is in this process, the same for every rank.

        A DataLoader's workers iterate over copies: its own process asks `state_after`, or torchdata's
        `StatefulDataLoader`, which collects the states of its workers.
        """
        state = self._state(self._samples, self._taken)
        return state | {"origin": self._origin} if get_worker_info() else state

    def state_after(self, num_batches: int) -> dict[str, Any]:
        """Where the stream is so many batches after its start, or after the state that was loaded.

        Raises:
            ValueError: If it ends before.
        """
        if num_batches == 0:
            return self._state(*self._begin)
        left = num_batches
        for plan in self._plans(*self._begin):
            if left <= len(plan.chosen):
                return self._state(plan.samples + left * self._batch_size, plan.taken[left - 1])
            left -= len(plan.chosen)
        raise ValueError(f"the stream ends after {num_batches - left:,} batches, before {num_batches:,}")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with any number of ranks and workers, any batch size and any weights.

        Datasets that are new in the mixture begin with their first epoch; those that left it are forgotten.

        Raises:
            ValueError: If the state is that of another seed, whose order is another.
        """
        if state["seed"] != self._seed:
            raise ValueError(
                f"state of seed {state['seed']}, this feed has {self._seed}; use the seed of the state"
            )
        taken = [state["taken"].get(dataset.key, 0) for dataset in self._datasets]
        self._samples, self._taken = state["samples"], np.array(taken)
        self._origin = state.get("origin", self._samples)
        self._begin = self._samples, self._taken

    def _state(self, samples: int, taken: Integers) -> dict[str, Any]:
        keys = [dataset.key for dataset in self._datasets]
        return {
            "seed": self._seed,
            "samples": samples,
            "taken": dict(zip(keys, taken.tolist(), strict=True)),
        }

    def _plans(self, samples: int, taken_before: Integers) -> Iterator["_Plan"]:
        """The batches of all ranks after some samples, many at a time."""
        num_batches = max(PLANNED_SAMPLES // self._batch_size, 1)
        shape = num_batches, self._batch_size
        numbers = np.arange(len(self._datasets))
        epochs = np.inf if self._epochs is None else self._epochs
        ends = epochs * np.array([dataset.num_rows for dataset in self._datasets])
        while True:
            chosen = self._choose(samples + np.arange(shape[0] * shape[1]))
            taken = taken_before + np.cumsum(chosen[:, None] == numbers, axis=0)
            index = np.take_along_axis(taken, chosen[:, None], axis=1)[:, 0] - 1
            beyond = np.flatnonzero(index >= ends[chosen])
            num_left = beyond[0] // self._batch_size if len(beyond) else num_batches
            after = taken[self._batch_size - 1 :: self._batch_size]
            yield _Plan(samples, chosen.reshape(shape)[:num_left], index.reshape(shape)[:num_left], after)
            if num_left < num_batches:
                return
            samples, taken_before = samples + len(chosen), after[-1]

    def _choose(self, samples: Integers) -> Integers:
        """The dataset of each sample."""
        if self._refresh is None:
            return choose_datasets(samples, self._weights, self._seed)
        return take_turns(samples, len(self._datasets), self._refresh * self._batch_size)

    def _locate(self, chosen: Integers, index: Integers) -> list[list[list[int]]]:
        """Dataset, shard and row in the shard of each sample of some batches."""
        places = np.stack([chosen, index, index], axis=-1)
        for number, dataset in enumerate(self._datasets):
            of_dataset = chosen == number
            places[of_dataset, 1:] = dataset.locate(index[of_dataset])
        return places.tolist()

    def _ask(self, places: Sequence[Sequence[int]]) -> None:
        """Let threads read, of what lies on buckets, what these samples need."""
        for number, shard_number, row in places if self._is_remote else ():
            shards = self._datasets[number].shards
            if isinstance(shards, RemoteShards):
                shards.ask(shard_number, row)

    def _read(self, places: Sequence[Sequence[int]]) -> Batch:
        shape = len(places), self._datasets[0].sequence_length
        rows = np.empty(shape, self._dtype)
        loss_mask = np.ones(shape, np.bool_)
        starts = np.zeros(shape, np.bool_) if self._segments else None
        for sample, (number, shard_number, row) in enumerate(places):
            shard = self._datasets[number].shards.shard(shard_number)
            rows[sample] = shard.tokens[row]
            if len(shard.masked):
                for start, end in shard.masked_ranges(row):
                    loss_mask[sample, start:end] = False
            if starts is not None:
                starts[sample, shard.starts(row)] = True
        arrays = {"tokens": rows.astype(np.int64), "loss_mask": loss_mask}
        if starts is not None:
            positions = np.arange(shape[1])
            last_starts = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
            arrays["segment_ids"] = np.cumsum(starts, axis=1) - 1
            arrays["position_ids"] = positions - last_starts
        return Batch((name, torch.from_numpy(values)) for name, values in arrays.items())


@dataclass(frozen=True)
class _Plan:
    """n batches of all ranks.

    Args:
        samples: Taken from the stream before them.
        chosen: Dataset of each sample, int64[n, batch_size].
        index: Its number in the dataset's own stream of epochs, int64[n, batch_size].
        taken: Samples taken of each of d datasets after each batch, int64[at least n, d].
    """

    samples: int
    chosen: Integers
    index: Integers
    taken: Integers


def _pack(values: Any) -> Any:
    """Integers and truth values on the CPU as the smallest array that holds them, anything else as it is."""
    if (
        not isinstance(values, torch.Tensor)
        or values.is_cuda
        or values.dtype not in (torch.int64, torch.bool)
    ):
        return values
    array = values.numpy()
    for dtype in (np.uint16, np.uint32) if array.dtype == np.int64 else ():
        if array.min(initial=0) >= 0 and array.max(initial=0) <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array


def _unpack(packed: Mapping[str, Any]) -> Batch:
    batch = Batch()
    for name, values in packed.items():
        is_narrow = isinstance(values, np.ndarray) and values.dtype.kind == "u"
        array = values.astype(np.int64) if is_narrow else values
        batch[name] = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return batch


def _check_turns(given: Sequence[str | Entry], refresh: int | None) -> None:
    num_folders = sum(isinstance(entry, str) for entry in given)
    if refresh is None and num_folders and len(given) > 1:
        raise ValueError(
            f"found {len(given)} datasets, {num_folders} of them without a weight; expected (folder, weight) of each, "
            "or `refresh`, with which they take turns"
        )
    if refresh is not None and (refresh < 1 or num_folders < len(given)):
        raise ValueError(
            f"refresh {refresh}; expected at least 1 batch, and folders without weights, since draws take turns"
        )


def _check_numbers(
    entries: Sequence[Entry], batch_size: int, rank: int, world_size: int, shuffle_window: int
) -> None:
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"batch_size {batch_size} for {world_size} ranks; expected a multiple of their number"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}; expected 0 to {world_size - 1}")
    if shuffle_window < BLOCK_ROWS or shuffle_window % BLOCK_ROWS:
        raise ValueError(f"shuffle_window {shuffle_window}; expected a multiple of {BLOCK_ROWS}")
    weights = [entry[1] for entry in entries]
    if not weights or min(weights) <= 0:
        raise ValueError(f"weights {weights}; expected datasets, each with a weight above 0")

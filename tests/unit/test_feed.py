"""The feed: one stream for any number of ranks and workers, resumable anywhere, every row once an epoch."""

import copy
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import chain, cycle, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from feeds import batches_with_kills, global_batches, heads
from hypothesis import given, settings
from hypothesis import strategies as st
from token_folders import write_documents, write_rows
from torch.utils.data import DataLoader

from gristmill.pipelines import feed as feed_module
from gristmill.pipelines import token_dataset
from gristmill.pipelines.feed import Batch, TokenFeed
from gristmill.pipelines.mixture import STRONG_SHIFT, WEAK_SHIFT, choose_datasets, with_replay
from gristmill.pipelines.row_order import RowOrder, ShardRows, permute
from gristmill.pipelines.token_shards import TokensError

NUM_ROWS = 700


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("tokens") / "t", [300, 1, 399])


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("tokens") / "u", [50], identity="b", first=1000)


# The order.


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(size, key):
    values = np.arange(size)
    found = permute(values, np.full(size, size), np.full(size, key, np.uint64))
    assert sorted(found.tolist()) == values.tolist()


@given(st.integers(1, 2000), st.integers(0, 2**40), st.integers(1, 4), st.integers(0, 3))
def test_every_row_stands_once_in_every_epoch(num_rows, seed, blocks, epoch):
    order = RowOrder(num_rows, seed, 256 * blocks)
    rows = order.rows(epoch * num_rows + np.arange(num_rows))
    assert sorted(rows.tolist()) == list(range(num_rows))


def test_epochs_and_seeds_have_orders_of_their_own():
    positions = np.arange(2000)
    orders = [RowOrder(2000, seed, 512).rows(positions + 2000 * epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all((first != second).mean() > 0.9 for first, second in pairwise(orders))


def test_order_looks_random():
    """Neighbours in the stream are far from each other on disk, and every place is as likely as any other."""
    rows = RowOrder(1 << 16, 3, 1 << 16).rows(np.arange(1 << 16))
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(rows, np.arange(1 << 16))[0, 1]) < 0.02
    halves = (rows[: 1 << 15] < 1 << 15).mean()
    assert abs(halves - 0.5) < 0.02


def test_windows_read_few_blocks_at_a_time():
    rows = RowOrder(1 << 20, 0, 1 << 12).rows(np.arange(1 << 12))
    assert len(np.unique(rows // 256)) == 16


@given(st.lists(st.integers(0, 600), min_size=1, max_size=6).filter(any))
def test_rows_lie_in_full_blocks_of_shards_and_then_in_what_is_left(rows_of_shards):
    places = ShardRows(rows_of_shards).find(np.arange(sum(rows_of_shards)))
    expected = [(shard, row) for shard, rows in enumerate(rows_of_shards) for row in range(rows)]
    assert sorted(map(tuple, places.tolist())) == expected
    num_full = sum(rows // 256 for rows in rows_of_shards)
    for block in range(num_full):
        of_block = places[256 * block : 256 * (block + 1)]
        assert of_block[0, 1] % 256 == 0
        assert (of_block - of_block[0]).tolist() == [[0, row] for row in range(256)]


def test_order_of_a_billion_rows_costs_nothing():
    order = RowOrder(10**9, 0, 1 << 16)
    rows = order.rows(np.arange(10**9 - 5, 10**9 + 5))
    assert ((rows >= 0) & (rows < 10**9)).all()


# The stream.


def test_every_row_once_an_epoch(folder):
    rows = [row for batch in heads(TokenFeed(folder, batch_size=7, epochs=3)) for row in batch]
    assert len(rows) == 3 * NUM_ROWS
    for epoch in range(3):
        assert sorted(rows[epoch * NUM_ROWS : (epoch + 1) * NUM_ROWS]) == list(range(NUM_ROWS))


def test_last_samples_that_fill_no_batch_are_left_out(folder):
    batches = heads(TokenFeed(folder, batch_size=64))
    assert [len(batch) for batch in batches] == [64] * (NUM_ROWS // 64)


def test_batches_are_tensors_of_whole_rows(folder):
    batch = next(iter(TokenFeed(folder, batch_size=3)))
    assert batch["tokens"].dtype == torch.int64
    assert batch["tokens"].shape == (3, 4)
    assert batch["loss_mask"].dtype == torch.bool
    assert batch["loss_mask"].all()
    assert batch["tokens"][:, :3].unique(dim=1).shape == (3, 1)


@given(st.lists(st.integers(-(2**62), 2**62), max_size=3), st.sampled_from([8, 20, 40, 62]))
def test_any_values_get_through_a_pipe(values, bits):
    tokens = torch.tensor([value % 2**bits for value in values], dtype=torch.int64)
    given = Batch(
        tokens=tokens, signed=torch.tensor(values, dtype=torch.int64), mask=tokens > 5, rates=tokens / 3
    )
    for batch in (pickle.loads(pickle.dumps(given)), copy.copy(given)):
        assert type(batch) is Batch
        assert batch.keys() == given.keys()
        assert all(
            batch[name].dtype == values.dtype and torch.equal(batch[name], values)
            for name, values in given.items()
        )


def test_tokens_pass_a_pipe_in_two_bytes(folder):
    batch = next(iter(TokenFeed(folder, batch_size=400)))
    num_bytes = 400 * 4 * (2 + 1)
    assert num_bytes <= len(pickle.dumps(batch)) < num_bytes + 500


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_divide_the_same_batches(folder, world_size):
    one, _ = global_batches(folder, 40, batch_size=12, epochs=None)
    assert global_batches(folder, 40, batch_size=12, epochs=None, world_size=world_size)[0] == one


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_divide_the_same_batches(folder, num_workers, monkeypatch):
    monkeypatch.setattr(feed_module, "PLANNED_SAMPLES", 50)
    one = heads(TokenFeed(folder, batch_size=10))
    feed = TokenFeed(folder, batch_size=10)
    loader = DataLoader(feed, batch_size=None, num_workers=num_workers)
    assert heads(loader) == one
    feed.load_state_dict(feed.state_after(13))
    assert heads(DataLoader(feed, batch_size=None, num_workers=num_workers)) == one[13:]
    assert feed.state_after(0)["samples"] == 130


def test_the_loop_of_the_readme_stops_and_goes_on(folder):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = readme.partition("## Tokens for training")[2].partition("```python\n")[2].partition("```")[0]
    code = code.replace("mill/datasets/small/tokens", folder)
    seen = []

    def train(tokens, loss_mask):
        seen.append(tokens[:, 0].tolist())
        if len(seen) == 5:
            raise KeyboardInterrupt

    space = {
        "rank": 0,
        "world_size": 1,
        "train": train,
        "checkpoint": TokenFeed(folder, batch_size=64).state_dict(),
    }
    with pytest.raises(KeyboardInterrupt):
        exec(code, space)
    seen.pop()  # its step was never finished
    seen.append("stopped")
    exec(code, space)
    seen.remove("stopped")
    assert seen == heads(TokenFeed(folder, batch_size=64, epochs=2))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=2), st.permutations([1, 2, 3]))
def test_kills_and_other_world_sizes_change_nothing(folder, other, cuts, world_sizes):
    mixture = [(folder, 0.7), (other, 0.3)]
    options = {"batch_size": 6, "epochs": None, "seed": 5}
    expected, _ = global_batches(mixture, 100, **options)
    stops = zip(world_sizes, [*cuts, 100 - sum(cuts)], strict=True)
    assert batches_with_kills(mixture, stops, **options) == expected


def test_fifty_kills_and_three_world_sizes_change_nothing(folder, other):
    mixture = [(folder, 0.7), (other, 0.3)]
    options = {"batch_size": 6, "epochs": None, "seed": 5}
    lengths = np.random.default_rng(0).integers(1, 20, 51).tolist()
    expected, _ = global_batches(mixture, sum(lengths), **options)
    stops = zip(cycle([1, 3, 2]), lengths, strict=False)
    assert batches_with_kills(mixture, stops, **options) == expected


def test_state_is_plain_and_known_without_reading(folder, other):
    mixture = [(folder, 2), (other, 1)]
    feed = TokenFeed(mixture, batch_size=6, epochs=None)
    stream = iter(feed)
    for _ in range(37):
        next(stream)
    state = json.loads(json.dumps(feed.state_dict()))
    assert state["samples"] == 37 * 6 == sum(state["taken"].values())
    fresh = TokenFeed(mixture, batch_size=6, epochs=None)
    assert fresh.state_after(37) == state
    assert fresh.state_after(0)["samples"] == 0
    with pytest.raises(ValueError, match="the stream ends after 70 batches, before 71"):
        TokenFeed(folder, batch_size=10).state_after(71)


def test_state_of_another_seed_is_refused(folder):
    state = TokenFeed(folder, batch_size=6, seed=1).state_dict()
    with pytest.raises(ValueError, match="state of seed 1, this feed has 0; use the seed of the state"):
        TokenFeed(folder, batch_size=6).load_state_dict(state)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_stateful_data_loader_resumes_its_workers(folder):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    expected = heads(TokenFeed(folder, batch_size=10))
    for num_workers in (0, 2):
        loader = stateful.StatefulDataLoader(
            TokenFeed(folder, batch_size=10), batch_size=None, num_workers=num_workers
        )
        stream = iter(loader)
        begun = heads(next(stream) for _ in range(21))
        state = loader.state_dict()
        del stream
        resumed = stateful.StatefulDataLoader(
            TokenFeed(folder, batch_size=10), batch_size=None, num_workers=num_workers
        )
        resumed.load_state_dict(state)
        assert begun + heads(resumed) == expected


# Mixtures.


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.integers(0, 10**12), st.integers(0, 9))
def test_any_stretch_holds_nearly_its_shares(weights, start, seed):
    num_samples = 2000
    chosen = choose_datasets(np.arange(start, start + num_samples), weights, seed)
    counts = np.bincount(chosen, minlength=len(weights))
    expected = num_samples * np.array(weights) / sum(weights)
    assert np.abs(counts - expected).max() < 6


def test_each_dataset_goes_its_own_way_in_a_mixture(folder, other):
    alone = [row for batch in heads(TokenFeed(folder, batch_size=10)) for row in batch]
    stream = iter(TokenFeed([(folder, 3), (other, 1)], batch_size=10, epochs=None))
    mixed = [row for _ in range(60) for row in heads([next(stream)])[0]]
    assert [row for row in mixed if row < 1000] == alone[: sum(row < 1000 for row in mixed)]
    repeated = Counter(row for row in mixed if row >= 1000)
    assert set(repeated.values()) <= {2, 3, 4}


def test_stream_ends_where_a_dataset_is_used_up(folder, other):
    rows = [row for batch in heads(TokenFeed([(folder, 1), (other, 1)], batch_size=4)) for row in batch]
    assert 92 <= len(rows) <= 104
    assert max(Counter(rows).values()) == 1


def test_weights_and_datasets_change_at_a_checkpoint(folder, other):
    feed = TokenFeed(folder, batch_size=10, epochs=None)
    stream = iter(feed)
    before = heads(next(stream) for _ in range(20))
    changed = TokenFeed([(folder, 0.75), (other, 0.25)], batch_size=20, epochs=None)
    changed.load_state_dict(feed.state_dict())
    stream = iter(changed)
    after = [row for batch in heads(next(stream) for _ in range(20)) for row in batch]
    alone = [row for batch in heads(TokenFeed(folder, batch_size=10)) for row in batch]
    kept = [row for row in after if row < 1000]
    assert [*chain(*before), *kept] == alone[: 200 + len(kept)]
    assert abs(len(kept) - 300) <= 3


def test_replay_takes_its_share_from_the_earlier_mixture():
    assert (WEAK_SHIFT, STRONG_SHIFT) == (0.05, 0.25)
    assert with_replay([("new", 1)], [("old", 3, "web"), ("older", 1)], 0.2) == [
        ("new", 0.8),
        ("old", pytest.approx(0.15), "web"),
        ("older", pytest.approx(0.05)),
    ]


def say_sources(folder, *sources):
    """Say of each shard of a folder which source it is of."""
    path = Path(folder, "manifest.json")
    manifest = json.loads(path.read_text())
    for entry, source in zip(manifest["shards"], sources, strict=True):
        entry["source"] = source
    path.write_text(json.dumps(manifest))


@pytest.fixture
def sources(tmp_path):
    folder = write_rows(tmp_path / "s", [100, 300, 60], identity="s")
    say_sources(folder, "books", "web", "books")
    return folder


def test_sources_of_a_dataset_have_weights_of_their_own(sources, other):
    mixture = [(sources, 2, "books"), (sources, 1, "web"), (other, 1)]
    stream = iter(TokenFeed(mixture, batch_size=10, epochs=None))
    rows = [row for _ in range(60) for row in heads([next(stream)])[0]]
    books = [row for row in rows if row < 100 or 400 <= row < 460]
    web = [row for row in rows if 100 <= row < 400]
    assert abs(len(books) - 300) <= 4
    assert abs(len(web) - 150) <= 4
    assert len(set(books[:160])) == 160
    assert len(set(web)) == len(web)


def test_weights_of_sources_change_at_a_checkpoint(sources):
    feed = TokenFeed([(sources, 1, "books"), (sources, 1, "web")], batch_size=10, epochs=None)
    stream = iter(feed)
    before = heads(next(stream) for _ in range(10))
    state = json.loads(json.dumps(feed.state_dict()))
    assert set(state["taken"]) == {"s:books", "s:web"}
    assert sum(state["taken"].values()) == 100
    changed = TokenFeed([(sources, 0.1, "books"), (sources, 0.9, "web")], batch_size=10)
    changed.load_state_dict(state)
    after = list(chain(*heads(changed)))
    rows = [*chain(*before), *after]
    assert len(set(rows)) == len(rows), "both sources go on where they were"
    assert sum(100 <= row < 400 for row in after) > 0.85 * len(after) > 200


def test_what_is_wrong_with_sources_is_said(sources, folder):
    for datasets, message in (
        ([(sources, 1, "code")], "no shards of source 'code'; expected one of books, web"),
        ([(folder, 1, "web")], "its shards mix the sources, so 'web' cannot be weighed; export with"),
        ([(sources, 1), (sources, 1, "web")], "holds the same tokens twice"),
        ([(sources, 1, "web"), (sources, 2, "web")], "holds the same tokens twice"),
    ):
        with pytest.raises(TokensError, match=message):
            TokenFeed(datasets, batch_size=8)


# Documents within sequences.


def test_segments_and_positions_follow_the_documents(tmp_path):
    folder = write_documents(tmp_path / "t", [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11, 12]], "best_fit")
    (batch,) = TokenFeed(folder, batch_size=2, segments=True)
    rows = sorted(
        zip(
            *(batch[name].tolist() for name in ("tokens", "loss_mask", "segment_ids", "position_ids")),
            strict=True,
        )
    )
    assert rows == [
        ([1, 2, 3, 0, 4, 5, 0, 0], [True] * 7 + [False], [0] * 4 + [1] * 4, [0, 1, 2, 3, 0, 1, 2, 3]),
        ([6, 7, 8, 9, 10, 11, 12, 0], [True] * 8, [0] * 8, list(range(8))),
    ]


# What can be wrong.


def test_damage_is_found_when_a_shard_is_first_opened(tmp_path):
    folder = write_rows(tmp_path / "t", [40, 40])
    path = next(Path(folder).glob("*00001-of*.arrow"))
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(TokensError, match=r"00001-of-00002\.arrow: BLAKE2b .* delete it and export"):
        list(TokenFeed(folder, batch_size=8))
    assert len(list(TokenFeed(folder, batch_size=8, verify=False))) == 10
    path.unlink()
    with pytest.raises(TokensError, match="not there; export the tokens again"):
        list(TokenFeed(folder, batch_size=8))


def test_checksums_are_compared_once(folder, monkeypatch):
    checked = []
    monkeypatch.setattr(token_dataset, "check_shard", lambda folder, entry: checked.append(entry["name"]))
    list(TokenFeed(folder, batch_size=10, epochs=2))
    assert len(checked) == len(set(checked)) == 3


def test_what_does_not_go_together_is_refused(folder, other, tmp_path):
    longer = write_rows(tmp_path / "t", [5], identity="c", sequence_length=6)
    empty = write_rows(tmp_path / "e", [], identity="d")
    for datasets, options, message in (
        (str(tmp_path), {}, "expected the `tokens` folder of a dataset"),
        ([(folder, 1), (longer, 1)], {}, r"sequences of \[4, 6\] tokens in one mixture"),
        ([(folder, 1), (folder, 1)], {}, "holds the same tokens twice"),
        (empty, {}, "holds no sequences"),
        (folder, {"world_size": 3}, "batch_size 8 for 3 ranks; expected a multiple"),
        (folder, {"rank": 2, "world_size": 2}, "rank 2 of 2; expected 0 to 1"),
        (folder, {"shuffle_window": 100}, "shuffle_window 100; expected a multiple of 256"),
        ([(folder, 1), (other, 0)], {}, "each with a weight above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenFeed(datasets, batch_size=8, **options)


def test_more_shards_than_may_be_open(tmp_path, monkeypatch):
    folder = write_rows(tmp_path / "t", [3] * 40)
    num_open = len(os.listdir("/proc/self/fd"))
    rows = sorted(row for batch in heads(TokenFeed(folder, batch_size=4)) for row in batch)
    assert rows == list(range(120))
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_training_process_needs_neither_beam_nor_duckdb(folder):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['apache_beam', 'duckdb', 'pydantic', 'tokenizers']))\n"
        "from gristmill.pipelines.feed import TokenFeed\n"
        "print(len(list(TokenFeed(sys.argv[1], batch_size=7))))"
    )
    arguments = [sys.executable, "-c", code, folder]
    root = Path(feed_module.__file__).parents[2]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.stdout == "100\n"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_memory_stays_flat(tmp_path, scheme):
    """After the first, epochs of 64 MB of tokens add less than a fifth of that to the process's own memory."""
    code = """
import re, sys
from pathlib import Path
from gristmill.pipelines.feed import TokenFeed

def own_memory():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

stream = iter(TokenFeed(sys.argv[1], batch_size=32, epochs=None, shuffle_window=2048, verify=False))
for _ in range(1100):
    next(stream)
before = own_memory()
for _ in range(2000):
    next(stream)
print(own_memory() - before)
"""
    folder = scheme + write_rows(tmp_path / "t", [8192] * 4, sequence_length=1024)
    root = Path(feed_module.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    assert int(done.stdout) < 12 << 20

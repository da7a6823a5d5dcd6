"""Shards on buckets: the stream of a disk, by ranges of bytes, each read once while it is in use and checked."""

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_folders import write_documents, write_rows
from torch.utils.data import DataLoader

from gristmill.pipelines import remote_shards
from gristmill.pipelines.feed import TokenFeed
from gristmill.pipelines.row_order import BLOCK_ROWS
from gristmill.pipelines.token_shards import TokensError

ROWS_OF_SHARDS = [700, 3, 0, 256, 1300]
ROW_BYTES = 2 * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("tokens") / "t", ROWS_OF_SHARDS, sequence_length=64)


class Watched(io.FileIO):
    """A file that writes down which bytes are read."""

    def __init__(self, path, ranges):
        super().__init__(path)
        self.ranges = ranges

    def read(self, size=-1):
        start = self.tell()
        content = super().read(size)
        self.ranges.append((Path(self.name).name, start, len(content)))
        return content


class Bucket:
    """What `pyarrow.fs` has to offer for the feed, over a local folder."""

    def __init__(self):
        self.ranges = []
        self.files = []

    def open_input_file(self, path):
        self.files.append(Watched(path, self.ranges))
        return pa.PythonFile(self.files[-1], mode="r")


@pytest.fixture
def bucket(monkeypatch):
    bucket = Bucket()

    class Opener:
        @staticmethod
        def from_uri(uri):
            return bucket, uri.removeprefix("file://")

    class FileSystems:
        FileSystem = Opener

    monkeypatch.setattr(remote_shards, "fs", FileSystems)
    yield bucket
    for file in bucket.files:
        file.close()


def remote(folder):
    return f"file://{folder}"


def content(feed):
    return [{name: values.tolist() for name, values in batch.items()} for batch in feed]


@pytest.mark.parametrize("segments", [False, True])
def test_a_bucket_gives_the_batches_of_a_disk(folder, segments):
    options = {"batch_size": 7, "epochs": 2, "shuffle_window": 512, "segments": segments}
    assert content(TokenFeed(remote(folder), **options)) == content(TokenFeed(folder, **options))


@settings(deadline=None, max_examples=10)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=2, max_size=40), st.booleans())
def test_masks_and_documents_are_those_of_a_disk(tmp_path_factory, documents, segments):
    folder = write_documents(tmp_path_factory.mktemp("tokens") / "t", documents, "best_fit")
    options = {"batch_size": 1, "segments": segments}
    assert content(TokenFeed(remote(folder), **options)) == content(TokenFeed(folder, **options))


def test_a_mixture_holds_disks_and_buckets(folder, tmp_path):
    other = write_rows(tmp_path / "u", [50], identity="b", sequence_length=64, first=5000)
    options = {"batch_size": 6, "epochs": None}
    mixed = iter(TokenFeed([(remote(folder), 3), (other, 1)], **options))
    local = iter(TokenFeed([(folder, 3), (other, 1)], **options))
    for _ in range(100):
        assert content([next(mixed)]) == content([next(local)])


def test_every_block_is_read_once_an_epoch(folder, bucket):
    list(TokenFeed(remote(folder), batch_size=10, shuffle_window=4096))
    blocks = Counter(
        (name, start)
        for name, start, size in bucket.ranges
        if size == BLOCK_ROWS * ROW_BYTES and start % 8 == 0
    )
    assert len(blocks) == sum(rows // BLOCK_ROWS for rows in ROWS_OF_SHARDS)
    assert set(blocks.values()) == {1}


def test_a_batch_reads_its_blocks_and_no_more(folder, bucket):
    stream = iter(TokenFeed(remote(folder), batch_size=1, shuffle_window=256))
    next(stream)
    read = sum(size for _, start, size in bucket.ranges if start > 4096)
    assert read < 3 * BLOCK_ROWS * ROW_BYTES < 1300 * ROW_BYTES


def test_only_the_rows_of_a_window_stay_in_memory(tmp_path):
    folder = write_rows(tmp_path / "t", [256] * 40, sequence_length=64)
    feed = TokenFeed(remote(folder), batch_size=16, shuffle_window=1024)
    held = 0
    (dataset,) = feed._datasets
    for _ in feed:
        held = max(held, len(dataset.shards._connection.blocks._futures))
    assert held == 4 + 2


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:This process .* is multi-threaded")
def test_worker_processes_connect_by_themselves(folder, context):
    feed = TokenFeed(remote(folder), batch_size=100)
    expected = content(feed)
    loader = DataLoader(
        TokenFeed(remote(folder), batch_size=100),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=context,
    )
    next(iter(feed), None)
    assert content(loader) == expected


def test_a_feed_that_has_read_may_be_forked(folder):
    feed = TokenFeed(remote(folder), batch_size=100, epochs=2)
    stream = iter(feed)
    begun = content(next(stream) for _ in range(5))
    loader = DataLoader(feed, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert begun + content(loader) == content(TokenFeed(folder, batch_size=100, epochs=2))


def damage(path, position):
    changed = bytearray(path.read_bytes())
    changed[position] ^= 1
    path.write_bytes(changed)


def test_damage_is_found_when_it_is_read(tmp_path):
    folder = write_rows(tmp_path / "t", [600, 600], sequence_length=64)
    path = next(Path(folder).glob("*00001-of*.arrow"))
    start = remote_shards.first_token(path.read_bytes())
    damage(path, start + 300 * ROW_BYTES)
    with pytest.raises(
        TokensError, match=r"00001-of-00002\.arrow: tokens of rows 256 to 511: BLAKE2b .* delete it"
    ):
        list(TokenFeed(remote(folder), batch_size=8))
    assert len(list(TokenFeed(remote(folder), batch_size=8, verify=False))) == 150
    damage(path, start + 300 * ROW_BYTES)
    assert len(list(TokenFeed(remote(folder), batch_size=8))) == 150


def test_damage_beside_the_tokens_is_found(tmp_path):
    folder = write_documents(tmp_path / "t", [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11]], "best_fit")
    (path,) = Path(folder).glob("*.arrow")
    with pa.memory_map(str(path)) as file:
        ends = pa.ipc.open_file(file).get_batch(0)["masked"].values.field("end")
        position = ends.buffers()[1].address - file.read_buffer().address
    damage(path, position)
    with pytest.raises(TokensError, match=r"arrow: masked: BLAKE2b .* delete it and export"):
        list(TokenFeed(remote(folder), batch_size=1))


def test_what_is_not_the_shard_of_the_manifest_is_refused(tmp_path):
    folder = Path(write_rows(tmp_path / "t", [40], sequence_length=64))
    (path,) = folder.glob("*.arrow")
    manifest = json.loads((folder / "manifest.json").read_text())
    whole = path.read_bytes()
    for content, identity, message in (
        (whole[:-200], "a", "no token shard"),
        (b"", "a", "no token shard"),
        (whole, "b", "bytes of export a, the manifest says .* of b"),
        (None, "a", "not there; export the tokens again"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        (folder / "manifest.json").write_text(json.dumps({**manifest, "identity": identity}))
        with pytest.raises(TokensError, match=message):
            list(TokenFeed(remote(folder), batch_size=8))
    with pytest.raises(TokensError, match="expected the `tokens` folder of a dataset"):
        TokenFeed(remote(tmp_path), batch_size=8)

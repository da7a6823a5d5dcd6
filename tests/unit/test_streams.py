"""Compressed streams: every member of every kind, damage at every place with exact numbers, bounded chunks."""

import bz2
import gzip
import lzma
import random
import zlib
from functools import partial

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.pipelines import streams
from gristmill.pipelines.streams import CHUNK_BYTES, DamagedStream, compression_of, find_member, read_chunks

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}
COMPRESS = {
    ".gz": gzip.compress,
    ".zst": partial(zstd.compress, options=CHECKED),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
SUFFIXES = sorted(COMPRESS)


def read(path, start=0):
    """(bytes read, damage or None)."""
    held, damage = b"", None
    try:
        for chunk in read_chunks(str(path), start):
            assert 0 < len(chunk) <= CHUNK_BYTES
            held += chunk
    except DamagedStream as error:
        damage = error
    assert damage is None or damage.offset == len(held)
    return held, damage


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl.gz", "gzip"),
        ("a.zst", "zstd"),
        ("a.zstd", "zstd"),
        ("a.bz2", "bzip2"),
        ("a.xz", "xz"),
        ("a.jsonl", None),
        ("a.gz/b.jsonl", None),
        ("A.JSONL.GZ", "gzip"),
    ],
)
def test_the_name_tells_the_compression(name, kind):
    assert compression_of(name) == kind


@pytest.mark.parametrize("start", [0, 1, 7, 100])
def test_a_plain_file_can_be_entered_anywhere(tmp_path, start):
    (tmp_path / "a.jsonl").write_bytes(b"0123456789")
    assert read(tmp_path / "a.jsonl", start) == (b"0123456789"[start:], None)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("num_members", [0, 1, 3])
def test_members_follow_each_other(tmp_path, suffix, num_members):
    parts = [b"first " * 1000, b"", b"third"][:num_members]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    assert read(path) == (b"".join(parts), None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_small_members_across_reads(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(streams, "FEED_BYTES", 50)
    parts = [b"member %d " % n * n for n in range(100)]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    assert read(path) == (b"".join(parts), None)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("num_zeros", [4, 512, streams.FEED_BYTES - 20, 3 * streams.FEED_BYTES])
def test_zero_padding_is_no_damage(tmp_path, suffix, num_zeros):
    member = COMPRESS[suffix](b"text")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(member + bytes(num_zeros) + member + bytes(num_zeros))
    assert read(path) == (b"texttext", None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_at_every_place(tmp_path, suffix):
    """Whatever is there is read; nothing that is there is counted as lost."""
    text = b"".join(b"%d " % (n * n) for n in range(200))
    whole = COMPRESS[suffix](text) + COMPRESS[suffix](b"second")
    first = len(COMPRESS[suffix](text))
    path = tmp_path / f"a{suffix}"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        held, damage = read(path)
        assert (text + b"second").startswith(held)
        if length in (0, first):
            assert (held, damage) == (text[: length and None], None) if length else (b"", None)
        else:
            assert damage is not None
            assert (damage.cause, damage.num_lost) == ("the stream ends inside a member", 0)
            assert len(held) >= (len(text) if length >= first else 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_garbage_after_a_member(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(COMPRESS[suffix](b"text") + b"<html>no such page</html>" * 3)
    held, damage = read(path)
    assert held == b"text"
    assert damage is not None
    assert damage.num_lost == 75


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_compressed_file_at_all(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b'{"text": "plain"}\n' * 10_000)
    held, damage = read(path)
    assert held == b""
    assert damage is not None
    assert damage.num_lost == 180_000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_member_keeps_those_before_it(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(streams, "FEED_BYTES", 64)
    first, second, third = (COMPRESS[suffix](random.Random(n).randbytes(1000)) for n in range(3))
    broken = second[:500] + bytes(255 - byte for byte in second[500:])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(first + broken + third)
    held, damage = read(path)
    assert held[:1000] == random.Random(0).randbytes(1000)
    assert damage is not None
    assert len(third) <= damage.num_lost <= len(broken) + len(third)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bomb_comes_in_small_chunks(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(COMPRESS[suffix](bytes(20 << 20)))
    sizes = [len(chunk) for chunk in read_chunks(str(path))]
    assert sum(sizes) == 20 << 20
    assert max(sizes) <= CHUNK_BYTES


def test_an_xz_file_that_asks_for_4_gb_of_memory_is_damage(tmp_path):
    content = bytearray(lzma.compress(b"text"))
    header = content[12 : 12 + (content[12] + 1) * 4]
    assert (
        header[2] == 0x21
    )  # LZMA2, whose next bytes are the size of its properties and the dictionary's size
    header[4] = 40
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    content[12 : 12 + len(header)] = header
    path = tmp_path / "a.xz"
    path.write_bytes(content)
    assert read(path) == (b"", DamagedStream(0, len(content), "Memory usage limit exceeded"))


def test_skippable_frames_of_zstd_hold_nothing(tmp_path):
    skippable = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"notes"
    path = tmp_path / "a.zst"
    path.write_bytes(skippable + zstd.compress(b"text") + skippable)
    assert read(path) == (b"text", None)


def test_a_disk_that_fails_half_way_is_damage_with_what_was_read(tmp_path, monkeypatch):
    class Failing:
        def __init__(self):
            self.chunks = [b"one\n", b"two\n"]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _):
            if not self.chunks:
                raise OSError(5, "Input/output error")
            return self.chunks.pop(0)

    monkeypatch.setattr(streams.files, "open_read", lambda _: Failing())
    held, damage = read(tmp_path / "a.jsonl")
    assert held == b"one\ntwo\n"
    assert damage == DamagedStream(8, 0, "cannot be read further: [Errno 5] Input/output error")


def test_a_file_that_is_not_there_is_an_error_not_damage(tmp_path):
    with pytest.raises(OSError, match="absent"):
        list(read_chunks(str(tmp_path / "absent.gz")))


def test_the_member_that_is_damaged_is_named(tmp_path):
    members = [gzip.compress(b"%d" % n * 1000) for n in range(4)]
    path = tmp_path / "a.gz"
    zeros = bytes(7)
    path.write_bytes(members[0] + members[1] + zeros + members[2][:-5] + members[3])
    held, damage = read(path)
    assert held == b"0" * 1000 + b"1" * 1000
    assert damage is not None
    assert damage.member == len(members[0]) + len(members[1]) + 7
    found = find_member(str(path), damage.member + 1, b"33")
    assert found == path.stat().st_size - len(members[3])
    assert read(path, found) == (b"3" * 1000, None)
    assert find_member(str(path), found + 1, b"33") is None
    assert find_member(str(path), 0, b"44") is None


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 1000])
def test_members_are_found_over_the_border_of_a_read(tmp_path, chunk_bytes, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(streams, "PROBE_BYTES", 30)
    path = tmp_path / "a.gz"
    path.write_bytes(b"\x1f\x8b\x08 by chance \x1f\x8b" + gzip.compress(b"WARC/1.0"))
    for start in range(16):
        assert find_member(str(path), start, b"WARC/") == 16


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from(SUFFIXES),
    parts=st.lists(st.binary(max_size=300), max_size=6),
    feed=st.integers(1, 200),
)
def test_any_members_in_any_feed(tmp_path_factory, suffix, parts, feed):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    before, streams.FEED_BYTES = streams.FEED_BYTES, feed
    try:
        assert read(path) == (b"".join(parts), None)
    finally:
        streams.FEED_BYTES = before

"""Token shards: exact content, accounts, the manifest last, interruptions, and the formats of other trainers."""

import csv
import gzip
import json
import struct
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from mills import Row, build, publish, publish_tokens

from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import write_tokens
from gristmill.pipelines.feed import TokenFeed
from gristmill.pipelines.ledger import read_ledger
from gristmill.pipelines.recipe_export import Tokens
from gristmill.pipelines.token_shards import TokensError, check_shard, open_shard, read_manifest
from gristmill.pipelines.verify import verify_workspace
from gristmill.scorers.base import RecipeError, WorkspaceError
from gristmill.scorers.doc_ids import random_keys

TEXTS = [f"1 0 0 1\n{'grain ' * (number % 9)}mill {number}" for number in range(60)]
SOURCES = ("web", "books", "code")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(TEXTS, 300).save(folder)
    return folder


@pytest.fixture
def mill(tmp_path):
    rows = [Row(number, text, SOURCES[number % 3]) for number, text in enumerate(TEXTS)]
    return build(tmp_path / "mill", [rows[:25], rows[25:30], rows[30:]])


def export(mill, tokenizer, part_bytes=300, **said):
    dataset = publish(mill, part_bytes=part_bytes)
    return publish_tokens(mill, dataset, **{"tokenizer": str(tokenizer), "sequence_length": 16, **said})


def folder(mill):
    return Path(mill.workspace.dataset("s", "tokens"))


def contents(mill):
    return {
        str(path.relative_to(folder(mill))): path.read_bytes()
        for path in sorted(folder(mill).rglob("*"))
        if path.is_file()
    }


def read(mill):
    """Every shard as Arrow."""
    return [
        pa.ipc.open_file(path).read_all().to_pylist() for path in sorted(folder(mill).glob("tokens-*.arrow"))
    ]


def in_order(mill, seed):
    rows = [row for shard in mill.rows for row in shard]
    ids = pa.array([row.doc_id.bytes for row in rows], pa.binary(16))
    keys = random_keys(pa.chunked_array([pa.ExtensionArray.from_storage(pa.uuid(), ids)]), seed)
    return [rows[i] for i in np.argsort(keys)]


@pytest.mark.parametrize("seed", [0, 7])
def test_shards_hold_the_documents_in_the_order_of_their_hashes(mill, tokenizer, seed):
    manifest = export(mill, tokenizer, seed=seed)
    loaded = Tokenizer.load(str(tokenizer))
    stream = []
    spans = []
    for row in in_order(mill, seed):
        tokens = loaded.encode(pa.array([row.text], pa.large_string())).tokens.tolist()
        for offset, token in enumerate([*tokens, loaded.end_of_text]):
            if offset == 0 or len(stream) % 16 == 0:
                spans.append(
                    {
                        "start": len(stream) % 16,
                        "doc_id": row.doc_id.bytes,
                        "offset": offset,
                        "source": row.source,
                    }
                )
            stream.append(token)
    (shard,) = read(mill)
    num_rows = len(stream) // 16
    assert [token for row in shard for token in row["tokens"]] == stream[: num_rows * 16]
    held = [span for row in shard for span in row["spans"]]
    assert held == spans[: len(held)]
    assert {tuple(row["masked"]) for row in shard} == {()}
    assert (manifest["num_rows"], manifest["num_tokens_dropped"]) == (num_rows, len(stream) % 16)


def test_manifest_ties_tokens_to_what_they_come_from(mill, tokenizer):
    manifest = export(mill, tokenizer)
    dataset = mill.workspace.read_json("datasets", "s", "manifest.json")
    assert manifest == read_manifest(folder(mill))
    assert manifest["dataset"] == dataset["identity"]
    assert manifest["tokenizer"] == {
        "path": str(tokenizer),
        "blake2b": Tokenizer.digest(str(tokenizer)),
        "vocab_size": 300,
        "end_of_text": Tokenizer.load(str(tokenizer)).end_of_text,
    }
    assert (manifest["sequence_length"], manifest["packing"], manifest["dtype"]) == (
        16,
        "concatenate",
        "uint16",
    )
    assert manifest["num_documents"] == 60
    assert sum(manifest["sources"].values()) == manifest["num_tokens"] == 16 * manifest["num_rows"]
    assert (
        manifest["num_tokens_of_documents"] + manifest["num_ends_of_text"]
        == manifest["num_tokens"] + manifest["num_tokens_dropped"]
    )
    assert sorted(contents(mill)) == ["manifest.json", "tokens-00000-of-00001.arrow"]
    assert verify_workspace(mill.workspace).problems == []
    assert verify_workspace(mill.workspace).orphans == []
    (row,) = read_ledger(mill.workspace, "pack:s")
    assert row.num_in == 60
    assert len(read_ledger(mill.workspace, "tokenise:s")) == len(dataset["files"]) > 1


def test_cells_become_shards_of_about_equal_size(mill, tokenizer, monkeypatch):
    monkeypatch.setattr(write_tokens, "SHARD_BYTES", 128)
    manifest = export(mill, tokenizer)
    assert len(manifest["shards"]) > 3
    ids = [{span["doc_id"] for row in shard for span in row["spans"]} for shard in read(mill)]
    assert sum(map(len, ids)) == len(set.union(*ids))
    assert sum(entry["num_rows"] for entry in manifest["shards"]) == manifest["num_rows"]
    assert verify_workspace(mill.workspace).problems == []


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_by_source_no_shard_mixes_sources(mill, tokenizer, monkeypatch, packing):
    monkeypatch.setattr(write_tokens, "SHARD_BYTES", 128)
    manifest = export(mill, tokenizer, by_source=True, packing=packing)
    named = [entry["source"] for entry in manifest["shards"]]
    assert named == sorted(named)
    assert {named.count(source) > 1 for source in SOURCES} == {True}
    loaded = Tokenizer.load(str(tokenizer))
    for source, shard in zip(named, read(mill), strict=True):
        rows = [row for row in in_order(mill, 0) if row.source == source]
        held = [span["doc_id"] for row in shard for span in row["spans"]]
        assert held
        assert set(held) <= {row.doc_id.bytes for row in rows}
        if packing == "concatenate":
            first = next(row.text for row in rows if row.doc_id.bytes == held[0])
            tokens = [*loaded.encode(pa.array([first], pa.large_string())).tokens, loaded.end_of_text]
            assert shard[0]["tokens"][: len(tokens)] == tokens[:16]
            assert list(dict.fromkeys(held)) == [row.doc_id.bytes for row in rows if row.doc_id.bytes in held]
    assert manifest["num_documents"] == 60
    assert verify_workspace(mill.workspace).problems == []
    entries = [(f"{scheme}{folder(mill)}", 1.0, "books") for scheme in ("", "file://")]
    disk, bucket = (
        [batch["tokens"].tolist() for batch in TokenFeed([entry], batch_size=1)] for entry in entries
    )
    assert len(disk) == sum(entry["num_rows"] for entry in manifest["shards"] if entry["source"] == "books")
    assert bucket == disk


def test_shards_of_mixed_sources_name_none(mill, tokenizer):
    assert "source" not in export(mill, tokenizer)["shards"][0]


def test_best_fit_masks_its_padding(mill, tokenizer):
    manifest = export(mill, tokenizer, packing="best_fit")
    (shard,) = read(mill)
    padding = sum(span["end"] - span["start"] for row in shard for span in row["masked"])
    assert padding == manifest["num_padding"] > 0
    assert manifest["num_tokens_dropped"] == 0
    assert {span["end"] for row in shard for span in row["masked"]} == {16}
    opened = open_shard(str(folder(mill) / manifest["shards"][0]["name"]))
    assert opened.tokens.tolist() == [row["tokens"] for row in shard]
    assert opened.masked.tolist() == [[m["start"], m["end"]] for row in shard for m in row["masked"]]


def test_same_bytes_for_other_parts_and_again_nothing_is_done(mill, tokenizer, tmp_path):
    export(mill, tokenizer)
    before = contents(mill)
    stamps = [path.stat().st_mtime_ns for path in sorted(folder(mill).iterdir())]
    export(mill, tokenizer)
    assert stamps == [path.stat().st_mtime_ns for path in sorted(folder(mill).iterdir())]
    other = build(tmp_path / "other", mill.rows)
    export(other, tokenizer, part_bytes=1)
    name = "tokens-00000-of-00001.arrow"
    assert contents(other)[name] == before[name]


def test_interrupted_export_keeps_what_is_whole(mill, tokenizer, monkeypatch):
    monkeypatch.setattr(write_tokens, "SHARD_BYTES", 128)
    export(mill, tokenizer)
    before = contents(mill)
    (folder(mill) / "manifest.json").unlink()
    first, second, *_ = sorted(folder(mill).glob("*.arrow"))
    first.write_bytes(b"damaged")
    stamp = second.stat().st_mtime_ns
    export(mill, tokenizer)
    assert contents(mill) == before
    assert second.stat().st_mtime_ns == stamp


def test_other_tokens_leave_nothing_behind(mill, tokenizer):
    export(mill, tokenizer, also=["olmo"])
    export(mill, tokenizer, seed=1)
    assert sorted(contents(mill)) == ["manifest.json", "tokens-00000-of-00001.arrow"]


def test_a_lost_document_stops_the_export(mill, tokenizer, monkeypatch):
    read_cell = write_tokens.pack_shard.__globals__["_read_cell"]
    monkeypatch.setitem(
        write_tokens.pack_shard.__globals__, "_read_cell", lambda *place: read_cell(*place).slice(1)
    )
    with pytest.raises(WorkspaceError, match="documents were lost or gained"):
        export(mill, tokenizer)


def test_an_empty_dataset_has_no_tokens(mill, tokenizer):
    dataset = publish(mill, {"where": {"none": "quality > 99"}})
    spec = Tokens(tokenizer=str(tokenizer))
    plan = write_tokens.plan_tokens(mill.workspace, mill.recipe, spec, dataset)
    manifest = write_tokens.export_tokens(plan, dataset, lambda elements, transform: None)
    assert (manifest["shards"], manifest["sources"]) == ([], {})


def test_verify_finds_damage_and_tokens_of_another_dataset(mill, tokenizer):
    manifest = export(mill, tokenizer)
    path = folder(mill) / manifest["shards"][0]["name"]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (problem,) = verify_workspace(mill.workspace).problems
    assert problem == f"{path}: checksum differs from the manifest; delete the file and export again"
    with pytest.raises(TokensError, match="delete it and export the tokens again"):
        check_shard(folder(mill), manifest["shards"][0])
    path.unlink()
    publish(mill, {"where": {"few": "source = 'web'"}})
    problems = verify_workspace(mill.workspace).problems
    assert problems == [
        f"{folder(mill)}: tokens of another dataset; export again",
        f"{path}: missing; export again",
    ]


def test_tokenizer_must_be_there(mill, tmp_path):
    with pytest.raises(RecipeError, match=r"export\.tokens\.tokenizer: no tokenizer at"):
        export(mill, tmp_path / "none")


# Formats of other trainers.


def flat(mill):
    return [token for shard in read(mill) for row in shard for token in row["tokens"]]


def test_olmo_reads_raw_tokens_and_document_borders(mill, tokenizer):
    export(mill, tokenizer, also=["olmo"])
    tokens = np.memmap(folder(mill) / "olmo/part-00000.npy", np.uint16, "r")
    assert tokens.tolist() == flat(mill)
    with gzip.open(folder(mill) / "olmo/part-00000.csv.gz", "rt") as file:
        rows = list(csv.reader(file))
    end = Tokenizer.load(str(tokenizer)).end_of_text
    ends = [int(row[1]) for row in rows]
    assert [int(row[0]) for row in rows] == [0, *ends[:-1]]
    assert all(tokens[border - 1] == end for border in ends[:-1])
    held = in_order(mill, 0)[: len(rows)]
    assert [(UUID(row[2]), row[3]) for row in rows] == [(row.doc_id, row.source) for row in held]


def test_megatron_reads_an_indexed_dataset(mill, tokenizer):
    export(mill, tokenizer, also=["megatron"])
    index = (folder(mill) / "megatron/part-00000.idx").read_bytes()
    magic, version, code, num_sequences, num_borders = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, code) == (b"MMIDIDX\x00\x00", 1, 8)
    lengths = np.frombuffer(index, np.int32, num_sequences, 34)
    pointers = np.frombuffer(index, np.int64, num_sequences, 34 + lengths.nbytes)
    borders = np.frombuffer(index, np.int64, num_borders, 34 + lengths.nbytes + pointers.nbytes)
    assert 34 + lengths.nbytes + pointers.nbytes + borders.nbytes == len(index)
    assert borders.tolist() == list(range(num_sequences + 1))
    content = (folder(mill) / "megatron/part-00000.bin").read_bytes()
    loaded = Tokenizer.load(str(tokenizer))
    for row, length, pointer in zip(in_order(mill, 0), lengths, pointers, strict=False):
        found = np.frombuffer(content, np.uint16, length, pointer)
        tokens = loaded.encode(pa.array([row.text], pa.large_string())).tokens
        assert found.tolist() == [*tokens, loaded.end_of_text][: len(found)]


def test_mosaic_reads_an_mds_folder(mill, tokenizer, monkeypatch):
    monkeypatch.setattr(write_tokens, "SHARD_BYTES", 512)
    manifest = export(mill, tokenizer, also=["mds"])
    index = json.loads((folder(mill) / "mds/index.json").read_bytes())
    assert (index["version"], len(index["shards"])) == (2, len(manifest["shards"]))
    tokens = []
    for shard in index["shards"]:
        content = (folder(mill) / "mds" / shard["raw_data"]["basename"]).read_bytes()
        assert len(content) == shard["raw_data"]["bytes"]
        (num_samples,) = struct.unpack_from("<I", content)
        assert num_samples == shard["samples"]
        offsets = np.frombuffer(content, np.uint32, num_samples + 1, 4)
        assert offsets[-1] == len(content)
        config = json.loads(content[8 + 4 * num_samples : offsets[0]])
        assert config == {
            name: shard[name] for name in shard if name not in ("raw_data", "samples", "zip_data")
        }
        assert (config["column_encodings"], config["column_sizes"]) == (["ndarray:uint16:16"], [32])
        for start, end in pairwise(offsets):
            tokens += np.frombuffer(content[start:end], np.uint16).tolist()
    assert tokens == flat(mill)


def test_formats_without_a_mask_refuse_padding_and_prefixes():
    with pytest.raises(ValueError, match="olmo does not say which tokens are padding"):
        Tokens(packing="best_fit", also=["olmo"])
    with pytest.raises(ValueError, match="megatron does not say which tokens are a prefix"):
        Tokens(prefix={}, also=["mds", "megatron"])

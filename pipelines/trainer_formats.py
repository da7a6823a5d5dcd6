"""Token shards in the formats of other trainers: OLMo's raw arrays, Megatron's indexed datasets, MosaicML's MDS.

Each function turns one shard into files, name -> content. Only MDS can say which tokens have a loss, in a column `mask`
like MeCo's (arXiv 2501.01956), 1 where they have; the others are for sequences in which all have.
"""

import csv
import gzip
import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

MEGATRON_HEADER = struct.Struct("<9sQBQQ")
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_CODES = {"int32": 4, "uint16": 8}
MDS_SIZE_LIMIT = 1 << 26
MDS_INDEX = "mds/index.json"


@dataclass(frozen=True)
class Documents:
    """The sequences of one shard, read as d documents end to end; the last may be cut.

    Args:
        tokens: uint16 or uint32, [n, sequence_length].
        starts: Where in the stream each document starts, int64[d].
        doc_ids: Of each, 16 bytes.
        sources: Of each.
        loss_mask: Which tokens have a loss, bool[n, sequence_length]; None: all.
    """

    tokens: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    doc_ids: Sequence[bytes]
    sources: Sequence[str]
    loss_mask: npt.NDArray[np.bool_] | None = None

    @property
    def borders(self) -> npt.NDArray[np.int64]:
        """Where documents start, and where the last ends, int64[d + 1]."""
        return np.append(self.starts, self.tokens.size)


def to_olmo(number: int, shard: Documents) -> dict[str, bytes]:
    """OLMo's memory-mapped tokens: a raw array without header, and borders, doc_id and source of its documents.

    The name ends in .npy because OLMo's tokenizer (dolma) names it so; it reads start and end of the second file.
    """
    rows = io.StringIO()
    borders = shard.borders.tolist()
    ids = (str(UUID(bytes=doc_id)) for doc_id in shard.doc_ids)
    csv.writer(rows, lineterminator="\n").writerows(
        zip(borders[:-1], borders[1:], ids, shard.sources, strict=True)
    )
    name = f"olmo/part-{number:05d}"
    return {
        f"{name}.npy": shard.tokens.tobytes(),
        f"{name}.csv.gz": gzip.compress(rows.getvalue().encode(), mtime=0),
    }


def to_megatron(number: int, shard: Documents) -> dict[str, bytes]:
    """Megatron-LM's indexed dataset, one sequence a document; Megatron knows no uint32, which becomes int32.

    Layout of the index (megatron/core/datasets/indexed_dataset.py): magic, version, code of the type, number of
    sequences, number of document borders, lengths int32, byte pointers int64, document borders int64.
    """
    tokens = shard.tokens if shard.tokens.dtype == np.uint16 else shard.tokens.astype(np.int32)
    num_documents = len(shard.starts)
    header = MEGATRON_HEADER.pack(
        MEGATRON_MAGIC, 1, MEGATRON_CODES[tokens.dtype.name], num_documents, num_documents + 1
    )
    index = [
        np.diff(shard.borders).astype("<i4"),
        (shard.starts * tokens.itemsize).astype("<i8"),
        np.arange(num_documents + 1).astype("<i8"),
    ]
    name = f"megatron/part-{number:05d}"
    return {
        f"{name}.bin": tokens.tobytes(),
        f"{name}.idx": header + b"".join(part.tobytes() for part in index),
    }


def to_mds(number: int, shard: Documents) -> dict[str, bytes]:
    """A shard of MosaicML's MDS: `tokens`, and `mask` where some have no loss; `mds_index` lists the shards.

    Layout (streaming/base/format/mds/writer.py): number of samples, byte offsets of the samples and of their end, the
    configuration as JSON, the samples, each its columns in the order of their names.
    """
    num_rows, sequence_length = shard.tokens.shape
    masks = [] if shard.loss_mask is None else [shard.loss_mask.astype(np.uint8)]
    columns = [*masks, shard.tokens.view(np.uint8).reshape(num_rows, -1)]
    samples = np.concatenate(columns, axis=1)
    config = _mds_bytes(_mds_config(shard.tokens.dtype, sequence_length, has_mask=bool(masks)))
    offsets = np.arange(num_rows + 1) * samples.shape[1] + _mds_head(num_rows, config)
    content = [np.uint32(num_rows).tobytes(), offsets.astype("<u4").tobytes(), config, samples.tobytes()]
    return {_mds_name(number): b"".join(content)}


def mds_index(
    rows_of_shards: Sequence[int], dtype: np.dtype[Any], sequence_length: int, *, has_mask: bool
) -> bytes:
    """The index of a folder of MDS shards.

    Args:
        rows_of_shards: Sequences of each.
        dtype: Of a token.
        sequence_length: Tokens of a sequence.
        has_mask: Whether they say which tokens have a loss.
    """
    config = _mds_config(dtype, sequence_length, has_mask=has_mask)
    head = _mds_bytes(config)
    shards = []
    for number, num_rows in enumerate(rows_of_shards):
        size = _mds_head(num_rows, head) + num_rows * sum(config["column_sizes"])
        raw = {"basename": _mds_name(number).removeprefix("mds/"), "bytes": size, "hashes": {}}
        shards.append({**config, "raw_data": raw, "samples": num_rows, "zip_data": None})
    return _mds_bytes({"version": 2, "shards": shards})


FORMATS: dict[str, Callable[[int, Documents], dict[str, bytes]]] = {
    "olmo": to_olmo,
    "megatron": to_megatron,
    "mds": to_mds,
}


def _mds_config(dtype: np.dtype[Any], sequence_length: int, *, has_mask: bool) -> dict[str, Any]:
    columns = {"mask": np.dtype(np.uint8)} if has_mask else {}
    columns["tokens"] = dtype
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": [],
        "size_limit": MDS_SIZE_LIMIT,
        "column_names": list(columns),
        "column_encodings": [f"ndarray:{kind.name}:{sequence_length}" for kind in columns.values()],
        "column_sizes": [sequence_length * kind.itemsize for kind in columns.values()],
    }


def _mds_head(num_rows: int, config: bytes) -> int:
    """Bytes before the first sample."""
    return 4 + 4 * (num_rows + 1) + len(config)


def _mds_name(number: int) -> str:
    return f"mds/shard.{number:05d}.mds"


def _mds_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()

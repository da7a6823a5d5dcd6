"""Small folders of token shards, made without a corpus, a tokenizer or Beam."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.models.tokenizer import TokenizedTexts
from gristmill.pipelines.pack_tokens import PACKINGS
from gristmill.pipelines.token_shards import digest, names_of, token_schema, write_shard
from gristmill.pipelines.tokenise import CELL, to_batch

END = 0


def write_rows(folder, rows_of_shards, identity="a", sequence_length=4, first=0):
    """Shards whose row n holds the token `first + n` and nothing else; a document a row."""
    rows = iter(range(first, first + sum(rows_of_shards)))
    batches = []
    for num_rows in rows_of_shards:
        tokens = np.repeat([next(rows) for _ in range(num_rows)], sequence_length).astype(np.uint32)
        texts = TokenizedTexts(tokens.astype(np.uint32), np.arange(num_rows + 1) * sequence_length)
        batches.append(_batch("concatenate", texts, sequence_length, keep_ends=False))
    return _write(folder, batches, identity, sequence_length)


def write_documents(folder, documents, packing, identity="a", sequence_length=8):
    """One shard with these documents, lists of tokens."""
    offsets = np.cumsum([0, *map(len, documents)])
    tokens = np.array([token for document in documents for token in document], np.uint32)
    batch = _batch(packing, TokenizedTexts(tokens, offsets), sequence_length, keep_ends=True)
    return _write(folder, [batch], identity, sequence_length)


def _batch(packing, texts, sequence_length, *, keep_ends):
    num_documents = len(texts.offsets) - 1
    if not keep_ends:  # the end of text is the last token of each row instead of one more
        keep = np.ones(len(texts.tokens), bool)
        keep[texts.offsets[1:] - 1] = False
        texts = TokenizedTexts(texts.tokens[keep], texts.offsets - np.arange(num_documents + 1))
    cells = pa.table(
        {
            "key": np.zeros(num_documents),
            "doc_id": pa.array([number.to_bytes(16) for number in range(num_documents)], pa.binary(16)),
            "source": ["web"] * num_documents,
            "tokens": pa.array([[]] * num_documents, pa.large_list(pa.uint32())),
            "num_prefix": [0] * num_documents,
            "lacks_field": [False] * num_documents,
            "num_good": [0] * num_documents,
            "num_bad": [0] * num_documents,
        },
        schema=CELL,
    )
    return to_batch(PACKINGS[packing](texts, END, sequence_length), cells, np.uint16)


def _write(folder, batches, identity, sequence_length):
    folder = Path(folder)
    folder.mkdir(parents=True)
    entries = []
    for name, batch in zip(names_of(len(batches)), batches, strict=True):
        with (folder / name).open("wb") as file:
            write_shard(file, batch, {"identity": identity})
        with (folder / name).open("rb") as file:
            entry = {"name": name, "num_rows": len(batch), "blake2b": digest(file)}
        entries.append({**entry, "num_bytes": (folder / name).stat().st_size})
    manifest = {
        "identity": identity,
        "sequence_length": sequence_length,
        "dtype": "uint16",
        "shards": entries,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert all(batch.schema.equals(token_schema(np.uint16, sequence_length)) for batch in batches)
    return str(folder)

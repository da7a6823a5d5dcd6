"""C4's cleaning of lines, an option of export: it edits texts, so it is no scorer."""

import numpy as np
import pyarrow as pa
from gristmill.scorers.c4 import c4_lines, cover, find_citations
from gristmill.scorers.text import TextBatch
from gristmill.scorers.words import Positions

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

    kept_bytes = np.zeros(len(batch.buffer), np.bool_)
    kept_bytes |= cover(batch.byte_position(stays.starts), batch.byte_position(stays.ends), len(kept_bytes))
    kept_bytes &= ~cover(
        batch.byte_position(citations.starts), batch.byte_position(citations.ends), len(kept_bytes)
    )
    followed = np.append(stays.documents[1:] == stays.documents[:-1], False)[: len(stays)]
    kept_bytes[batch.byte_position(lines.where(kept).ends[followed])] = True

    num_bytes = np.concatenate([[0], np.cumsum(kept_bytes)])
    buffers = [None, pa.py_buffer(num_bytes[batch.offsets]), pa.py_buffer(batch.buffer[kept_bytes])]
    return pa.LargeStringArray.from_buffers(len(text), buffers[1], buffers[2]), (
        lines.num_by_document - stays.num_by_document
    )

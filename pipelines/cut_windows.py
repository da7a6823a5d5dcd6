"""Documents cut into the windows that a selection keeps of them."""

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.scorers.color_filter import ColorFilter

WINDOW = pa.field("window", pa.int32(), nullable=False)
"""Number of a window in its document, from 0."""


def cut_windows(documents: pa.Table, numbers: pa.ListArray, scorer: ColorFilter) -> pa.Table:
    """The kept windows as rows: what their document says, their own text, and `window`.

    Args:
        documents: n documents with `text` as the second column.
        numbers: Windows kept of each, ascending, list<int32>[n].
        scorer: Whose windows they are, with its models on this machine.
    """
    texts = []
    for text, kept in zip(documents["text"].to_pylist(), numbers.to_pylist(), strict=True):
        windows = scorer.window_texts(text)
        texts += [windows[number] for number in kept]
    rows = documents.drop_columns(["text"]).take(pc.list_parent_indices(numbers))
    rows = rows.add_column(1, documents.schema.field("text"), pa.array(texts, pa.large_string()))
    return rows.append_column(WINDOW, pc.list_flatten(numbers))

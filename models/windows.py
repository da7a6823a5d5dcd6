"""Cut token sequences into windows that a language model can see at once, and windows into batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows over a flat array of tokens, each inside one document.

    Args:
        documents: Document of each window, ascending, int64[w].
        starts: First token of each, int64[w].
        ends: One past its last token, int64[w].
        scored: First token whose loss counts, the end of the document's window before, int64[w].
    """

    documents: Positions
    starts: Positions
    ends: Positions
    scored: Positions

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Positions:
        """Tokens of each window, int64[w]."""
        return self.ends - self.starts

    @property
    def num_scored(self) -> Positions:
        """Tokens of each window whose loss counts, int64[w]."""
        return self.ends - self.scored

    def where(self, mask: npt.NDArray[np.bool_]) -> "Windows":
        """The windows for which `mask` is true."""
        return Windows(self.documents[mask], self.starts[mask], self.ends[mask], self.scored[mask])


def split_windows(offsets: Positions, window: int, stride: int) -> Windows:
    """Cut documents into windows such that every token is scored in exactly one of them.

    Windows never cross documents, so no context leaks between them; an empty document has none. With a stride below
    the window, later windows repeat the end of the one before as context.

    Args:
        offsets: Document i has the tokens from offsets[i] to offsets[i + 1], int64[n + 1].
        window: Tokens of a window, at least 1.
        stride: Tokens from one window's start to the next one's, from 1 to `window`.
    """
    lengths = np.diff(offsets)
    beyond = np.maximum(lengths - window, 0)
    num_windows = np.where(lengths > 0, 1 + -(-beyond // stride), 0)
    documents = np.repeat(np.arange(len(lengths)), num_windows)
    first = np.cumsum(num_windows) - num_windows
    number = np.arange(len(documents)) - first[documents]
    starts = offsets[documents] + number * stride
    ends = np.minimum(starts + window, offsets[documents + 1])
    scored = np.where(number > 0, starts - stride + window, starts)
    return Windows(documents, starts, ends, scored)


def plan_batches(lengths: Positions, token_budget: int) -> Iterator[Positions]:
    """Group windows of similar length, longest first, so that a padded batch stays within a budget.

    Args:
        lengths: Tokens of each window, int64[w].
        token_budget: Tokens of a batch, padding included; a longer window is a batch of its own.

    Yields:
        Positions of the windows of one batch, int64.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(token_budget // int(lengths[order[start]]), 1)
        yield order[start : start + size]
        start += size

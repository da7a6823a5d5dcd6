"""Packing: tokenised documents -> sequences of one length, with what each holds of which document.

Every document is followed by an end-of-text token, which belongs to it; documents without tokens are left out.

concatenate = documents end to end, cut regardless of their borders; the tail that fills no sequence is dropped
best_fit    = no document is cut that fits a sequence: best-fit-decreasing bins (arXiv 2404.10830), the rest padding
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.models.tokenizer import TokenizedTexts

Tokens = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """n sequences that hold p spans, the spans in the order of the sequences.

    Args:
        tokens: uint32[n, sequence_length].
        span_offsets: Sequence i has the spans from span_offsets[i] to span_offsets[i + 1], int64[n + 1].
        starts: Where in its sequence a span starts, int64[p]; it ends where the next starts, or with `filled`.
        documents: Whose tokens it holds, int64[p].
        offsets: Tokens of the document before it, int64[p].
        filled: Tokens of a sequence before its padding, int64[n].
        num_dropped: Tokens that fill no sequence.
    """

    tokens: Tokens
    span_offsets: Integers
    starts: Integers
    documents: Integers
    offsets: Integers
    filled: Integers
    num_dropped: int

    def span_lengths(self) -> Integers:
        """Tokens of each span, int64[p]."""
        ends = np.append(self.starts[1:], 0)
        ends[self.span_offsets[1:] - 1] = self.filled
        return ends - self.starts

    def masked_ranges(self, num_prefix: Integers) -> tuple[Integers, Integers, Integers]:
        """Row, start and end of each range without loss: the documents' prefixes, and padding; in order.

        Args:
            num_prefix: Tokens of each document that are its prefix.
        """
        num_rows, sequence_length = self.tokens.shape
        rows = np.repeat(np.arange(num_rows), np.diff(self.span_offsets))
        lengths = np.clip(num_prefix[self.documents] - self.offsets, 0, self.span_lengths())
        prefixed = np.flatnonzero(lengths)
        padded = np.flatnonzero(self.filled < sequence_length)
        starts = np.concatenate([self.starts[prefixed], self.filled[padded]])
        ends = np.concatenate([(self.starts + lengths)[prefixed], np.full(len(padded), sequence_length)])
        rows = np.concatenate([rows[prefixed], padded])
        order = np.lexsort((starts, rows))
        return rows[order], starts[order], ends[order]

    def loss_mask(self, num_prefix: Integers) -> npt.NDArray[np.bool_]:
        """Which tokens have a loss, bool[n, sequence_length]; `num_prefix` as for `masked_ranges`."""
        rows, starts, ends = self.masked_ranges(num_prefix)
        borders = np.zeros((len(self.tokens), self.tokens.shape[1] + 1), np.int64)
        np.add.at(borders, (rows, starts), 1)
        np.add.at(borders, (rows, ends), -1)
        return np.cumsum(borders, axis=1)[:, :-1] == 0


def concatenate(texts: TokenizedTexts, end_of_text: int, sequence_length: int) -> Packed:
    """Documents end to end, cut into sequences (Radford et al. 2019, GPT-2).

    Args:
        texts: n documents.
        end_of_text: Token after each.
        sequence_length: Tokens of a sequence.
    """
    stream, documents, borders = _ended(texts, end_of_text)
    num_rows = len(stream) // sequence_length
    num_tokens = num_rows * sequence_length
    cuts = np.arange(num_rows) * sequence_length
    starts = np.union1d(cuts, borders[:-1][borders[:-1] < num_tokens])
    holder = np.searchsorted(borders, starts, "right") - 1
    return Packed(
        tokens=stream[:num_tokens].reshape(num_rows, sequence_length),
        span_offsets=np.append(np.searchsorted(starts, cuts), len(starts)),
        starts=starts % sequence_length,
        documents=documents[holder],
        offsets=starts - borders[holder],
        filled=np.full(num_rows, sequence_length),
        num_dropped=len(stream) - num_tokens,
    )


def best_fit(texts: TokenizedTexts, end_of_text: int, sequence_length: int) -> Packed:
    """Documents in as few sequences as best-fit-decreasing finds, cut only where longer than a sequence.

    As in "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830, algorithm 1). Sequences stand in the order
    of their longest pieces' documents, so that shuffled documents give shuffled sequences.

    Args:
        texts: n documents.
        end_of_text: Token after each, and padding.
        sequence_length: Tokens of a sequence.
    """
    stream, documents, borders = _ended(texts, end_of_text)
    num_pieces = -(-np.diff(borders) // sequence_length)
    holder = np.repeat(np.arange(len(documents)), num_pieces)
    number = np.arange(len(holder)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    offsets = number * sequence_length
    lengths = np.minimum(borders[holder + 1] - borders[holder] - offsets, sequence_length)
    longest_first = np.argsort(-lengths, kind="stable")
    bins = fill_bins(lengths[longest_first], sequence_length)
    openers = longest_first[np.unique(bins, return_index=True)[1]]
    rows = np.argsort(np.argsort(openers))[bins]
    by_row = np.argsort(rows, kind="stable")
    pieces, rows = longest_first[by_row], rows[by_row]
    lengths, sources = lengths[pieces], borders[holder[pieces]] + offsets[pieces]

    span_offsets = np.searchsorted(rows, np.arange(len(openers) + 1))
    before = np.cumsum(lengths) - lengths
    starts = before - before[span_offsets[rows]]
    filled = np.bincount(rows, lengths, len(openers)).astype(np.int64)
    tokens = np.full((len(openers), sequence_length), end_of_text, np.uint32)
    held = [stream[source : source + length] for source, length in zip(sources, lengths, strict=True)]
    tokens[np.arange(sequence_length) < filled[:, None]] = np.concatenate([stream[:0], *held])
    return Packed(
        tokens, span_offsets, starts, documents[holder[pieces]], offsets[pieces], filled, num_dropped=0
    )


PACKINGS: dict[str, Callable[[TokenizedTexts, int, int], Packed]] = {
    "concatenate": concatenate,
    "best_fit": best_fit,
}


def fill_bins(lengths: Integers, capacity: int) -> Integers:
    """Put each piece, in order, into the fullest bin that has room, or into a new one.

    Args:
        lengths: 1 to `capacity` each, longest first, int64[p].
        capacity: Of a bin.

    Returns:
        The bin of each piece, numbered as they are opened, int64[p].
    """
    bins = np.empty(len(lengths), np.int64)
    with_room: defaultdict[int, list[int]] = defaultdict(list)
    rooms: list[int] = []
    num_bins = 0
    for piece, length in enumerate(lengths.tolist()):
        best = bisect_left(rooms, length)
        if best < len(rooms):
            room = rooms[best]
            bins[piece] = with_room[room].pop()
            if not with_room[room]:
                del rooms[best]
        else:
            room = capacity
            bins[piece] = num_bins
            num_bins += 1
        if left := room - length:
            if not with_room[left]:
                insort(rooms, left)
            with_room[left].append(int(bins[piece]))
    return bins


def _ended(texts: TokenizedTexts, end_of_text: int) -> tuple[Tokens, Integers, Integers]:
    """The documents that have tokens, each with its end of text: their stream, numbers and borders."""
    lengths = np.diff(texts.offsets)
    documents = np.flatnonzero(lengths)
    stream = np.insert(texts.tokens, texts.offsets[1:][documents], np.uint32(end_of_text))
    borders = np.concatenate([[0], np.cumsum(lengths[documents] + 1)])
    return stream, documents, borders

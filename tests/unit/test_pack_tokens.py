"""Packing: exact sequences of small documents, and for all documents: nothing lost, nothing twice, nothing moved."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.tokenizer import TokenizedTexts
from gristmill.pipelines.pack_tokens import PACKINGS, best_fit, concatenate, fill_bins

END = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 60000), max_size=40), max_size=30)


def tokenised(documents):
    offsets = np.cumsum([0, *map(len, documents)])
    return TokenizedTexts(np.array([token for tokens in documents for token in tokens], np.uint32), offsets)


def spans(packed):
    """(row, start, document, offset, tokens) of every span."""
    found = []
    rows = np.repeat(np.arange(len(packed.tokens)), np.diff(packed.span_offsets))
    for row, start, document, offset, length in zip(
        rows, packed.starts, packed.documents, packed.offsets, packed.span_lengths(), strict=True
    ):
        found.append(
            (int(row), int(start), int(document), int(offset), packed.tokens[row, start : start + length])
        )
    return found


def read_back(packed, documents):
    """What the spans hold of each document, in the order of their offsets."""
    held = {number: [] for number in range(len(documents))}
    for _, _, document, offset, tokens in sorted(spans(packed), key=lambda span: (span[2], span[3])):
        assert offset == len(held[document])
        held[document] += tokens.tolist()
    return held


def test_documents_end_to_end_cut_into_sequences():
    packed = concatenate(tokenised([[1, 2], [], [3, 4, 5, 6, 7], [8]]), END, 4)
    assert packed.tokens.tolist() == [[1, 2, 0, 3], [4, 5, 6, 7]]
    assert packed.span_offsets.tolist() == [0, 2, 3]
    assert packed.starts.tolist() == [0, 3, 0]
    assert packed.documents.tolist() == [0, 2, 2]
    assert packed.offsets.tolist() == [0, 0, 1]
    assert packed.filled.tolist() == [4, 4]
    assert packed.num_dropped == 3  # the end of the long document, and the last one


def test_best_fit_cuts_only_what_is_longer_than_a_sequence():
    documents = [[1], [2, 3, 4, 5, 6], [], [7, 8], [9, 10, 11]]
    packed = best_fit(tokenised(documents), END, 4)
    assert packed.tokens.tolist() == [[1, 0, 6, 0], [2, 3, 4, 5], [7, 8, 0, 0], [9, 10, 11, 0]]
    assert packed.filled.tolist() == [4, 4, 3, 4]
    assert [(span[:4], span[4].tolist()) for span in spans(packed)] == [
        ((0, 0, 0, 0), [1, 0]),
        ((0, 2, 1, 4), [6, 0]),
        ((1, 0, 1, 0), [2, 3, 4, 5]),
        ((2, 0, 3, 0), [7, 8, 0]),
        ((3, 0, 4, 0), [9, 10, 11, 0]),
    ]
    assert packed.num_dropped == 0


@given(DOCUMENTS, st.integers(2, 17))
def test_concatenation_loses_only_its_tail(documents, sequence_length):
    packed = concatenate(tokenised(documents), END, sequence_length)
    stream = [token for tokens in documents if tokens for token in [*tokens, END]]
    assert packed.tokens.ravel().tolist() == stream[: packed.tokens.size]
    assert packed.num_dropped == len(stream) - packed.tokens.size < sequence_length
    held = read_back(packed, documents)
    assert all(held[number] == [*tokens, END][: len(held[number])] for number, tokens in enumerate(documents))
    assert sum(map(len, held.values())) == packed.tokens.size


@given(DOCUMENTS, st.integers(2, 17))
def test_best_fit_loses_nothing(documents, sequence_length):
    packed = best_fit(tokenised(documents), END, sequence_length)
    assert read_back(packed, documents) == {
        number: [*tokens, END] if tokens else [] for number, tokens in enumerate(documents)
    }
    for row, filled in zip(packed.tokens, packed.filled, strict=True):
        assert (row[filled:] == END).all()
    cut = {document for _, _, document, offset, _ in spans(packed) if offset > 0}
    assert all(len(documents[document]) + 1 > sequence_length for document in cut)


@given(st.lists(st.integers(1, 12), max_size=60))
def test_bins_are_those_of_best_fit_decreasing(lengths):
    lengths = sorted(lengths, reverse=True)
    found = fill_bins(np.array(lengths, np.int64), 12)
    rooms = []
    for length, bin_of in zip(lengths, found.tolist(), strict=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            assert rooms[bin_of] == min(fitting)
            rooms[bin_of] -= length
        else:
            assert bin_of == len(rooms)
            rooms.append(12 - length)


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_nothing_packs_into_nothing(packing):
    packed = PACKINGS[packing](tokenised([[], []]), END, 4)
    assert packed.tokens.shape == (0, 4)
    assert packed.num_dropped == len(packed.starts) == len(packed.span_lengths()) == 0

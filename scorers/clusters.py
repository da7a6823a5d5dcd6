"""Near-duplicate clusters from candidate pairs: rows of integers in, rows of integers out.

Rows are positions in the corpus, shard after shard. A cluster is a star: every member is a neighbour of its
representative at the threshold, so no chain of drifting copies, and no template, ties unrelated documents together
(a connected component would). Representatives are the first documents, in priority order, of which none is a
neighbour of another: the lexicographically first maximal independent set. So of every pair found, at most one is a
representative, and the result depends on the pairs and the priorities alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Positions of documents in the corpus, int64[n]."""
Pairs = npt.NDArray[np.int64]
"""Pairs of positions, int64[p, 2]."""
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LOOKAHEAD = 16
"""Candidates of a document that are verified before they are asked for, once another one is in doubt."""


class Buckets(NamedTuple):
    """Candidate pairs of one partition of band hashes.

    Args:
        pairs: int64, shape (p, 2), the smaller row first, sorted, each once.
        oversized: Sizes of the buckets above the cap, int64, shape (o,).
    """

    pairs: Pairs
    oversized: Rows


class Stars(NamedTuple):
    """Star clusters of n documents.

    Args:
        representative: Position of each document's representative, a representative's own.
        estimate: Similarity to it by signatures.
        jaccard: True similarity to it, NaN where it was not verified.
        num_parted: How many memberships verification undid.
    """

    representative: Rows
    estimate: Floats
    jaccard: Floats
    num_parted: int


def bucket_pairs(hashes: npt.NDArray[np.uint64], rows: Rows, *, max_bucket: int) -> Buckets:
    """All pairs of rows that share a band hash.

    In a bucket of more than `max_bucket` rows each row is paired with the next `max_bucket` ones only, in row order:
    linking all to the first would lose the pairs that differ from it.

    Args:
        hashes: uint64, shape (n,), hashes of (band, band's part of the signature).
        rows: int64, shape (n,), the document of each hash.
        max_bucket: Most rows of a bucket of which all pairs are formed.
    """
    hashes, rows = _repeated(hashes, rows)
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]]) if len(hashes) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[starts, len(hashes)])
    ends = np.repeat(starts + sizes, sizes)
    found = []
    step = 1
    left = np.arange(len(rows))
    while step <= max_bucket:
        left = left[left + step < ends[left]]
        if not len(left):
            break
        found.append(np.stack([rows[left], rows[left + step]], axis=1))
        step += 1
    pairs = unique_pairs(np.concatenate(found)) if found else np.empty((0, 2), np.int64)
    return Buckets(pairs, sizes[sizes > max_bucket])


def link_to_first(hashes: npt.NDArray[np.uint64], rows: Rows) -> Pairs:
    """Pairs of the first row and each other row of equal hash, in no matter how large a group.

    Args:
        hashes: uint64[n].
        rows: int64[n].
    """
    hashes, rows = _repeated(hashes, rows)
    is_first = np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)]
    first = rows[is_first][np.cumsum(is_first) - 1]
    return np.stack([first, rows], axis=1)[~is_first]


def _repeated(hashes: npt.NDArray[np.uint64], rows: Rows) -> tuple[npt.NDArray[np.uint64], Rows]:
    """The hashes that occur more than once with their rows, sorted; most occur once, and to sort rows is dear."""
    order = np.argsort(hashes)
    equals_next = hashes[order][1:] == hashes[order][:-1]
    is_repeated = np.zeros(len(hashes), np.bool_)
    is_repeated[1:] |= equals_next
    is_repeated[:-1] |= equals_next
    order = order[is_repeated]
    order = order[np.lexsort((rows[order], hashes[order]))]
    return hashes[order], rows[order]


def unique_pairs(pairs: Pairs) -> Pairs:
    """Pairs sorted, each once, the smaller row first, none of a row with itself; shape (p, 2)."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    is_new = np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])][: len(low)]
    return np.stack([low, high], axis=1)[is_new & (low != high)]


def choose_representatives(pairs: Pairs, priority: npt.NDArray[np.int64]) -> Flags:
    """The first documents in priority order of which none is a neighbour of another.

    Args:
        pairs: int64, shape (p, 2), neighbours, as positions in `priority`.
        priority: int64, shape (n,), distinct; the smallest comes first.

    Returns:
        bool, shape (n,): whether a document is a representative. Documents without a neighbour are.
    """
    is_open = np.ones(len(priority), bool)
    chosen = np.zeros(len(priority), bool)
    left, right = pairs[:, 0], pairs[:, 1]
    while len(left):
        best = priority.copy()
        np.minimum.at(best, left, priority[right])
        np.minimum.at(best, right, priority[left])
        new = is_open & (best == priority)
        chosen |= new
        taken = np.zeros(len(priority), bool)
        taken[left[new[right]]] = True
        taken[right[new[left]]] = True
        is_open &= ~(new | taken)
        remaining = is_open[left] & is_open[right]
        left, right = left[remaining], right[remaining]
    return chosen | is_open


def assign_members(
    pairs: Pairs,
    similarity: Floats,
    is_representative: Flags,
    priority: Rows,
) -> tuple[Rows, Floats]:
    """The representative each document belongs to: its most similar one, then the first in priority order.

    Args:
        pairs: int64[p, 2], neighbours, as positions in `priority`.
        similarity: float64[p].
        is_representative: bool[n].
        priority: int64[n], distinct.

    Returns:
        Position of the representative of each document, a representative's own; and their similarity.
    """
    both = np.concatenate([pairs, pairs[:, ::-1]])
    joins = is_representative[both[:, 1]] & ~is_representative[both[:, 0]]
    members, candidates = both[joins, 0], both[joins, 1]
    similarity = np.concatenate([similarity, similarity])[joins]
    order = np.lexsort((priority[candidates], -similarity, members))
    best = order[np.r_[True, members[order][1:] != members[order][:-1]][: len(order)]]
    assigned = np.arange(len(priority))
    assigned[members[best]] = candidates[best]
    reached = np.ones(len(priority))
    reached[members[best]] = similarity[best]
    return assigned, reached


def cluster_documents(pairs: Pairs, similarity: Floats, priority: Rows) -> tuple[Rows, Floats, Rows]:
    """Star clusters in which documents of equal signature stand together.

    Args:
        pairs: int64[p, 2], neighbours, as positions in `priority`; documents of equal signature (similarity 1) are
            linked to the first of them at least.
        similarity: float64[p].
        priority: int64[n], a permutation of 0 to n - 1; the smallest comes first.

    Returns:
        For each document: position of its representative, a representative's own; their estimated similarity; and the
        position of the leader of its signature, the first in priority.
    """
    first = np.arange(len(priority))
    is_equal = similarity == 1
    np.minimum.at(first, pairs[is_equal].max(axis=1), pairs[is_equal].min(axis=1))
    leading = np.full(len(priority), len(priority))
    np.minimum.at(leading, first, priority)
    leader = np.argsort(priority)[leading[first]]
    between = leader[pairs[~is_equal]]
    apart = between[:, 0] != between[:, 1]
    low, high = between[apart].min(axis=1), between[apart].max(axis=1)
    strength = similarity[~is_equal][apart]
    order = np.lexsort((-strength, high, low))
    low, high, strength = low[order], high[order], strength[order]
    is_new = np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])][: len(low)]
    edges = np.stack([low, high], axis=1)[is_new]
    chosen = choose_representatives(edges, priority)
    assigned, reached = assign_members(edges, strength[is_new], chosen, priority)
    return assigned[leader], reached[leader], leader


def cluster_verified(
    pairs: Pairs,
    similarity: Floats,
    priority: Rows,
    threshold: float,
    verify: Callable[[Pairs], Floats] | None,
) -> Stars:
    """Star clusters whose members reach their representative in truth, not only by their signatures.

    A member below the threshold loses that edge, and its documents are clustered again, until none is below. Every
    round removes an edge or divides the documents of a signature, so there is an end.

    Args:
        pairs: As in `cluster_documents`.
        similarity: As in `cluster_documents`.
        priority: As in `cluster_documents`.
        threshold: True Jaccard similarity that a member must reach.
        verify: Pairs of documents -> true Jaccard similarities; each pair is asked once. A call asks for a pair a
            member, and for the next candidates near those that were refuted or are estimated below the threshold, so
            that a document of many false candidates does not take as many calls. None trusts the signatures.
    """
    own = np.arange(len(priority))
    known, known_jaccard = np.empty(0, np.int64), np.empty(0)
    failing = np.zeros(len(own), bool)
    num_parted = 0
    while True:
        representative, estimate, leader = cluster_documents(pairs, similarity, priority)
        if verify is None:
            return Stars(representative, estimate, np.full(len(own), np.nan), 0)
        members = np.flatnonzero(representative != own)
        found = np.stack([members, representative[members]], axis=1)
        if not np.isin(_keys(found), known).all():
            doubtful = failing | (estimate < threshold)
            wanted = np.concatenate([found, _candidates(pairs, similarity, doubtful, leader)])
            keys, which = np.unique(_keys(wanted), return_index=True)
            is_unknown = ~np.isin(keys, known)
            jaccard = verify(wanted[which[is_unknown]])
            known, known_jaccard = np.append(known, keys[is_unknown]), np.append(known_jaccard, jaccard)
            order = np.argsort(known)
            known, known_jaccard = known[order], known_jaccard[order]
        jaccard = np.ones(len(own))
        jaccard[members] = known_jaccard[np.searchsorted(known, _keys(found))]
        failing = jaccard < threshold
        if not failing.any():
            return Stars(representative, estimate, jaccard, num_parted)
        num_parted += int(failing.sum())
        pairs, similarity = part(pairs, similarity, failing, representative, leader)


def _candidates(pairs: Pairs, similarity: Floats, doubtful: Flags, leader: Rows) -> Pairs:
    """Pairs that may be asked for soon: documents within two edges of doubtful ones, with their best neighbours.

    A neighbour stands for all of its signature, so its leader is what a document would be compared with.
    """
    is_near = doubtful.copy()
    for _ in range(2):
        touched = is_near[pairs].any(axis=1)
        is_near[pairs[touched]] = True
    touched = is_near[pairs].any(axis=1)
    both = np.concatenate([pairs[touched], pairs[touched][:, ::-1]])
    order = np.lexsort((both[:, 1], -np.tile(similarity[touched], 2), both[:, 0]))
    both = both[order]
    is_first = np.r_[True, both[1:, 0] != both[:-1, 0]][: len(both)]
    rank = np.arange(len(both)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    both = both[rank < LOOKAHEAD]
    both[:, 1] = leader[both[:, 1]]
    return both[both[:, 0] != both[:, 1]]


def part(
    pairs: Pairs, similarity: Floats, failing: Flags, representative: Rows, leader: Rows
) -> tuple[Pairs, Floats]:
    """The edges without those that verification refuted.

    Where the leader of a signature fails, all its documents lose their edges to those of the representative's. Where
    others fail but not the leader, they become a signature of their own without such edges.

    Args:
        pairs: int64[p, 2], positions of neighbours.
        similarity: float64[p].
        failing: bool[n], whether a document is below the threshold to its representative.
        representative: int64[n], position of each document's representative.
        leader: int64[n], position of the first in priority of each document's signature.
    """
    strays = failing & ~failing[leader]
    parts = failing[leader] | strays
    left, right = pairs[:, 0], pairs[:, 1]
    lost = parts[left] & (leader[right] == representative[left])
    lost |= parts[right] & (leader[left] == representative[right])
    affected = np.flatnonzero(np.isin(leader, leader[strays]))
    lost |= (similarity == 1) & np.isin(left, affected) & np.isin(right, affected)
    relinked = link_to_first((2 * leader + strays)[affected].astype(np.uint64), affected)
    return np.concatenate([pairs[~lost], relinked]), np.append(similarity[~lost], np.ones(len(relinked)))


def _keys(pairs: Pairs) -> Rows:
    """One number for each pair of positions, whichever comes first; positions are below 2^31."""
    return pairs.min(axis=1) << 32 | pairs.max(axis=1)

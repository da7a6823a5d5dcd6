"""Clusters against the sequential definitions."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.scorers.clusters import (
    assign_members,
    bucket_pairs,
    choose_representatives,
    cluster_documents,
    cluster_verified,
    link_to_first,
    unique_pairs,
)

small_graphs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30),
        st.permutations(range(n)),
    )
)


def as_pairs(pairs):
    return unique_pairs(np.array(pairs, np.int64).reshape(-1, 2))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), unique=True), st.integers(1, 12))
def test_pairs_are_those_of_each_bucket(entries, max_bucket):
    hashes = np.array([hash_ for hash_, _ in entries], np.uint64)
    rows = np.array([row for _, row in entries], np.int64)
    expected = set()
    oversized = []
    for value in range(4):
        members = sorted(row for hash_, row in entries if hash_ == value)
        if len(members) > max_bucket:
            oversized.append(len(members))
        for (i, left), (j, right) in combinations(enumerate(members), 2):
            if j - i <= max_bucket:
                expected.add((left, right))
    found = bucket_pairs(hashes, rows, max_bucket=max_bucket)
    assert [tuple(pair) for pair in found.pairs.tolist()] == sorted(expected)
    assert found.oversized.tolist() == oversized


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), unique=True))
def test_groups_are_linked_to_their_first_row(entries):
    hashes = np.array([hash_ for hash_, _ in entries], np.uint64)
    groups = [sorted(row for hash_, row in entries if hash_ == value) for value in range(6)]
    expected = [(group[0], row) for group in groups for row in group[1:]]
    found = link_to_first(hashes, np.array([row for _, row in entries], np.int64))
    assert [tuple(pair) for pair in found.tolist()] == expected


@given(small_graphs)
def test_representatives_are_those_of_the_sequential_greedy(graph):
    n, edges, priority = graph
    pairs = as_pairs(edges)
    neighbours = {node: set() for node in range(n)}
    for left, right in pairs.tolist():
        neighbours[left].add(right)
        neighbours[right].add(left)
    expected = set()
    for node in sorted(range(n), key=lambda node: priority[node]):
        if not neighbours[node] & expected:
            expected.add(node)
    chosen = choose_representatives(pairs, np.array(priority))
    assert set(np.flatnonzero(chosen).tolist()) == expected


@given(small_graphs, st.randoms(use_true_random=False))
def test_members_join_their_most_similar_representative(graph, random):
    n, edges, priority = graph
    pairs = as_pairs(edges)
    similarity = np.array([random.choice([0.7, 0.8, 0.9]) for _ in pairs])
    order = np.array(priority)
    chosen = choose_representatives(pairs, order)
    assigned, reached = assign_members(pairs, similarity, chosen, order)
    for node in range(n):
        options = [
            (-value, priority[other], other)
            for (left, right), value in zip(pairs.tolist(), similarity, strict=True)
            for here, other in ((left, right), (right, left))
            if here == node and chosen[other]
        ]
        assert assigned[node] == (node if chosen[node] else min(options)[2])
        assert reached[node] == (1 if chosen[node] else -min(options)[0])


def test_a_chain_of_drifting_copies_is_not_one_cluster():
    pairs = as_pairs([(0, 1), (1, 2), (2, 3), (3, 4)])
    order = np.arange(5)
    chosen = choose_representatives(pairs, order)
    assert chosen.tolist() == [True, False, True, False, True]
    assigned, _ = assign_members(pairs, np.full(4, 0.9), chosen, order)
    assert assigned.tolist() == [0, 0, 2, 2, 4]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=15), st.randoms(use_true_random=False))
def test_equal_documents_stand_together_behind_the_first_in_priority(values, random):
    hashes, rows = np.array(values, np.uint64), np.arange(len(values))
    pairs = link_to_first(hashes, rows)
    priority = np.array(random.sample(range(len(values)), len(values)))
    representative, similarity, leader = cluster_documents(pairs, np.ones(len(pairs)), priority)
    for row, value in enumerate(values):
        equals = [other for other, its in enumerate(values) if its == value]
        assert representative[row] == min(equals, key=lambda other: priority[other])
    assert similarity.tolist() == [1.0] * len(values)
    assert leader.tolist() == representative.tolist()


def test_a_group_of_equal_documents_follows_its_leader():
    """0 = 1 = 2, and 2 is like 3, which comes first."""
    pairs = np.array([[0, 1], [0, 2], [2, 3]])
    representative, similarity, leader = cluster_documents(
        pairs, np.array([1, 1, 0.85]), np.array([3, 1, 2, 0])
    )
    assert representative.tolist() == [3, 3, 3, 3]
    assert similarity.tolist() == [0.85, 0.85, 0.85, 1.0]
    assert leader.tolist() == [1, 1, 1, 3]


@given(small_graphs, st.randoms(use_true_random=False))
def test_verified_members_reach_their_representative_and_no_true_pair_stays(graph, random):
    """Truth is a similarity of its own for each pair of signatures, with a few documents that stray from theirs."""
    n, edges, order = graph
    signatures = [random.randrange(n) for _ in range(n)]
    strays = {node for node in range(n) if random.random() < 0.2}
    priority = np.array(order)
    edges = {frozenset((signatures[a], signatures[b])) for a, b in edges if signatures[a] != signatures[b]}
    estimates = {edge: random.choice([0.7, 0.8, 0.9]) for edge in edges}
    truths = {edge: value + random.choice([-0.15, 0, 0.05]) for edge, value in estimates.items()}

    def truth(a, b):
        if signatures[a] == signatures[b]:
            return 1.0 if (a in strays) == (b in strays) else 0.9
        penalty = 0.1 * ((a in strays) + (b in strays))
        return truths.get(frozenset((signatures[a], signatures[b])), 0.0) - penalty

    found = [(a, b, 1.0) for a, b in link_to_first(np.array(signatures, np.uint64), np.arange(n)).tolist()]
    for a, b in combinations(range(n), 2):
        if (edge := frozenset((signatures[a], signatures[b]))) in estimates:
            found.append((a, b, estimates[edge]))
    pairs = np.array([pair[:2] for pair in found], np.int64).reshape(-1, 2)
    similarity = np.array([pair[2] for pair in found])
    asked = []

    def verify(pairs):
        asked.extend(map(tuple, pairs.tolist()))
        return np.array([truth(a, b) for a, b in pairs.tolist()])

    stars = cluster_verified(pairs, similarity, priority, 0.75, verify)
    assert len(set(asked)) == len(asked)
    for node, representative in enumerate(stars.representative.tolist()):
        assert stars.representative[representative] == representative
        if node != representative:
            assert stars.jaccard[node] == truth(node, representative) >= 0.75
            assert priority[representative] < priority[node] or signatures[node] != signatures[representative]
    unverified = cluster_verified(pairs, similarity, priority, 0.75, None)
    assert np.isnan(unverified.jaccard).all()

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models import uncovered
from gristmill.models.candidates import Candidates
from gristmill.models.greedy import choose
from gristmill.models.similarity import UNIT, Similarities, assign
from gristmill.models.submodular import FacilityLocation, FeatureCoverage, GraphCut, LogDeterminant

FUNCTIONS = {
    "facility location": FacilityLocation,
    "facility location, rbf": lambda table: FacilityLocation(table, "rbf"),
    "graph cut": GraphCut,
    "graph cut that is not monotone": lambda table: GraphCut(table, 3.0),
    "log-determinant": LogDeterminant,
    "log-determinant, rbf": lambda table: LogDeterminant(table, 0.1, "rbf"),
    "feature coverage": lambda table: FeatureCoverage(np.abs(table)),
}


def cosines(table):
    """Cosines in float64, 0 with a zero vector."""
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table.astype(np.float64) / np.where(norms > 0, norms, 1)
    return unit @ unit.T


def kernels(table):
    """exp(-squared distance / mean squared distance), in float64."""
    squares = ((table[:, None].astype(np.float64) - table[None]) ** 2).sum(axis=2)
    return np.exp(-squares / squares.mean())


def facility_location(similar, chosen):
    return similar[:, chosen].max(axis=1).sum()


def graph_cut(similar, chosen):
    return similar[:, chosen].sum() - 0.4 * similar[np.ix_(chosen, chosen)].sum()


def log_determinant(similar, chosen):
    return np.linalg.slogdet(similar[np.ix_(chosen, chosen)] + np.eye(len(chosen)))[1]


DEFINITIONS = {
    "facility location": lambda table, chosen: facility_location(np.maximum(cosines(table), 0), chosen),
    "facility location, rbf": lambda table, chosen: facility_location(kernels(table), chosen),
    "graph cut": lambda table, chosen: graph_cut(np.maximum(cosines(table), 0), chosen),
    "log-determinant": lambda table, chosen: log_determinant(cosines(table), chosen),
    "feature coverage": lambda table, chosen: np.sqrt(np.abs(table[chosen]).sum(axis=0)).sum(),
}


def clustered(num_rows=300, width=24, num_clusters=15, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_clusters, width))
    table = centers[rng.integers(0, num_clusters, num_rows)] + 0.4 * rng.normal(size=(num_rows, width))
    return table.astype(np.float32)


@st.composite
def tables(draw):
    """Features of few distinct vectors, so with many copies, zero vectors among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_rows, width, num_kinds = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kinds = rng.normal(size=(num_kinds, width)) * (rng.random((num_kinds, 1)) < 0.9)
    return kinds[rng.integers(0, num_kinds, num_rows)].astype(np.float32)


def assert_same(one, other):
    np.testing.assert_array_equal(one.order, other.order)
    np.testing.assert_array_equal(one.gains, other.gains)
    assert one.num_chosen == other.num_chosen


@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
@settings(deadline=None, max_examples=25)
@given(table=tables(), data=st.data())
def test_lazy_finds_the_order_and_the_gains_of_naive(make, table, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    candidates = rng.permutation(len(table))[: data.draw(st.integers(1, len(table)))]
    function = data.draw(st.sampled_from([make(table), Candidates(make(table), candidates)]))
    num_rows = len(function)
    options = {
        "budget": data.draw(st.integers(0, num_rows + 1)),
        "keys": rng.permutation(num_rows),
        "costs": data.draw(st.sampled_from([None, rng.integers(1, 4, num_rows).astype(np.float64)])),
        "rank_all": data.draw(st.booleans()),
    }
    naive = choose(function, optimizer="naive", **options)
    max_bytes = data.draw(st.sampled_from([2**30, 20_000]))
    with patch.object(uncovered, "MAX_SHARE", 1):
        assert_same(choose(function, max_bytes=max_bytes, **options), naive)
    assert len(set(naive.order)) == len(naive.order)


def test_lazy_looks_at_few_candidates_and_still_finds_what_naive_finds(monkeypatch):
    table, looked_at = clustered(1000), []
    function = FacilityLocation(table)
    naive = choose(function, 100, optimizer="naive")
    state = type(function.start(1, "cpu", 2**30))
    gains = state.gains
    monkeypatch.setattr(state, "gains", lambda self, rows: looked_at.append(len(rows)) or gains(self, rows))
    assert_same(choose(function, 100), naive)
    assert sum(looked_at) < 1000 * 100 / 4


@pytest.mark.parametrize("optimizer", ["naive", "lazy", "stochastic"])
def test_listed_pairs_change_nothing(monkeypatch, optimizer):
    function, num_listed = FacilityLocation(clustered(1000)), []
    listed = choose(function, 200, optimizer=optimizer)
    find = uncovered.find_uncovered
    monkeypatch.setattr(
        "gristmill.models.facility_location.find_uncovered", lambda *_: num_listed.append(find(*_))
    )
    assert_same(choose(function, 200, optimizer=optimizer), listed)
    assert any(num_listed), "else the test could not fail"


def test_candidates_are_chosen_by_what_they_are_worth_to_all():
    table, rows = clustered(400), np.random.default_rng(0).permutation(400)[:150]
    similar, covered = np.maximum(cosines(table), 0), np.zeros(400)
    ranking = choose(Candidates(FacilityLocation(table), rows), 50)
    for place, gain in zip(ranking.order, ranking.gains, strict=True):
        gains = np.maximum(similar[rows], covered).sum(axis=1) - covered.sum()
        assert gain == pytest.approx(gains[place], abs=0.05)
        assert gains[place] >= gains.max() - 0.05
        covered = np.maximum(covered, similar[rows[place]])
    naive = choose(Candidates(FacilityLocation(table), rows), 50, optimizer="naive", max_bytes=20_000)
    assert_same(ranking, naive)


@pytest.mark.parametrize("kind", ["cosine", "rbf"])
def test_memory_and_threads_change_nothing(kind):
    function = FacilityLocation(clustered(), kind)
    kept = choose(function, 40)
    assert_same(choose(function, 40, max_bytes=20_000), kept)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(choose(function, 40), kept)
    finally:
        torch.set_num_threads(num_threads)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_gains_add_up_to_the_function(name):
    table = clustered()
    ranking = choose(FUNCTIONS[name](table), 30)
    assert ranking.gains.sum() == pytest.approx(DEFINITIONS[name](table, ranking.order), rel=1e-3)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_step_adds_the_most(name):
    table = clustered(60)
    order = choose(FUNCTIONS[name](table), 6).order
    for step in range(1, 6):
        others = np.setdiff1d(np.arange(60), order[:step])
        values = [DEFINITIONS[name](table, np.append(order[:step], other)) for other in others]
        chosen = DEFINITIONS[name](table, order[: step + 1])
        assert chosen >= max(values) - 1e-3 * abs(max(values))


def test_facility_location_takes_one_of_each_cluster_first():
    table = np.repeat(np.eye(4, dtype=np.float32), [5, 4, 3, 2], axis=0)
    ranking = choose(FacilityLocation(table), 4)
    np.testing.assert_array_equal(ranking.order, [0, 5, 9, 12])
    np.testing.assert_allclose(ranking.gains, [5, 4, 3, 2], rtol=1e-3)


def test_copies_are_taken_by_their_keys_and_add_nothing():
    table = np.ones((4, 3), np.float32)
    ranking = choose(FacilityLocation(table), 4, keys=np.array([3, 1, 0, 2]))
    np.testing.assert_array_equal(ranking.order, [2, 1, 3, 0])
    np.testing.assert_array_equal(ranking.gains[1:], 0)


def test_zero_vectors_are_similar_to_nothing_and_come_last():
    table = np.array([[0, 0], [1, 0], [0, 0], [0, 1]], np.float32)
    ranking = choose(FacilityLocation(table), 4)
    np.testing.assert_array_equal(ranking.order, [1, 3, 0, 2])
    np.testing.assert_array_equal(ranking.gains[2:], 0)


@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("optimizer", ["lazy", "naive", "stochastic"])
def test_no_budget_no_documents_and_budgets_beyond_all(make, optimizer):
    table = clustered(20)
    assert len(choose(make(table), 0, optimizer=optimizer).order) == 0
    assert len(choose(make(table[:0]), 3, optimizer=optimizer).order) == 0
    everything = choose(make(table), np.inf, optimizer=optimizer)
    assert sorted(everything.order) == list(range(20))
    assert everything.num_chosen == 20


@pytest.mark.parametrize("optimizer", ["lazy", "naive", "stochastic"])
def test_beyond_the_budget_every_document_gets_a_gain(optimizer):
    function = FacilityLocation(clustered(80))
    within = choose(function, 10, optimizer=optimizer)
    ranking = choose(function, 10, optimizer=optimizer, rank_all=True)
    assert sorted(ranking.order) == list(range(80))
    assert ranking.num_chosen == 10
    np.testing.assert_array_equal(ranking.order[:10], within.order)
    assert ranking.gains.sum() == pytest.approx(80, rel=2e-3)


def test_stochastic_is_seeded_and_nearly_as_good_even_where_all_are_ranked():
    function = FacilityLocation(clustered(600))
    best = choose(function, 30).gains.sum()
    found = [choose(function, 30, optimizer="stochastic", seed=seed, rank_all=True) for seed in (1, 1, 2)]
    assert_same(found[0], found[1])
    assert list(found[0].order) != list(found[2].order)
    assert min(ranking.gains[:30].sum() for ranking in found) > 0.97 * best


def test_stochastic_samples_by_the_true_budget(monkeypatch):
    function, looked_at = FacilityLocation(clustered(600)), []
    state = type(function.start(1, "cpu", 2**30))
    gains = state.gains
    monkeypatch.setattr(state, "gains", lambda self, rows: looked_at.append(len(rows)) or gains(self, rows))
    choose(function, 30, optimizer="stochastic", epsilon=0.1, rank_all=True)
    assert looked_at[:100] == [int(np.ceil(600 / 30 * np.log(10)))] * 100


def test_cheap_documents_come_first_and_the_budget_of_costs_holds():
    table, costs = clustered(), np.random.default_rng(0).integers(1, 100, 300).astype(np.float64)
    ranking = choose(FacilityLocation(table), 400, costs=costs)
    left = 400 - costs[ranking.order].sum()
    assert 0 <= left < np.delete(costs, ranking.order).min()
    plain = choose(FacilityLocation(table), 300).order
    affordable = plain[np.cumsum(costs[plain]) <= 400]
    assert ranking.gains.sum() > facility_location(np.maximum(cosines(table), 0), affordable)


def test_one_dear_document_beats_a_list_of_cheap_ones():
    table = np.array([[1, 0]] * 9 + [[0, 1]], np.float32)
    costs = np.array([10.0] * 9 + [1])
    ranking = choose(FacilityLocation(table), 10, costs=costs)
    np.testing.assert_array_equal(ranking.order, [0])
    ranked = choose(FacilityLocation(table), 10, costs=costs, rank_all=True)
    assert (list(ranked.order[:2]), ranked.num_chosen) == ([0, 9], 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_feature_that_is_no_number_is_refused_by_its_row(make, value):
    table = clustered(10)
    table[7, 2] = value
    with pytest.raises(ValueError, match="row 7 of the features holds NaN or infinity"):
        make(table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda table: FeatureCoverage(table), "negative number"),
        (lambda table: FacilityLocation(table[0]), r"shape \(24,\)"),
        (lambda table: GraphCut(table, -1), "expected 0 or more"),
        (lambda table: LogDeterminant(table, 0), "expected more than 0"),
        (lambda table: choose(FacilityLocation(table), -1), "budget -1"),
        (lambda table: choose(FacilityLocation(table), 1, epsilon=0), "epsilon 0"),
        (lambda table: choose(FacilityLocation(table), 1, costs=np.zeros(300)), "above 0"),
        (lambda table: choose(FacilityLocation(table), 1, costs=np.ones(3)), "expected 300"),
        (lambda table: choose(LogDeterminant(table), 9, max_bytes=9000), "holds 21,600 bytes"),
        (lambda table: assign(table, np.array([], np.int64)), "no chosen"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(clustered())


@pytest.mark.parametrize(("kind", "define"), [("cosine", cosines), ("rbf", kernels)])
def test_similarities_are_close_to_their_definition(kind, define):
    table = clustered(width=384)
    similarities = Similarities(table, kind)
    found = similarities.block(torch.arange(300), slice(0, 300)).numpy() / UNIT
    assert np.abs(found - np.maximum(define(table), 0)).max() < 1e-3
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(similarities.own().numpy() / UNIT, np.diag(found), rtol=1e-6)


def test_similarities_of_features_that_point_one_way_are_closer():
    table = clustered(width=384) + 5
    similarities = Similarities(table, "cosine")
    found = similarities.block(torch.arange(300), slice(0, 300)).numpy() / UNIT
    assert cosines(table).min() > 0.9
    assert np.abs(found - cosines(table)).max() < 3e-5


@pytest.mark.parametrize("max_bytes", [2**30, 5000])
def test_each_document_is_represented_by_the_most_similar_chosen_one(max_bytes):
    table, chosen = clustered(), np.array([250, 3, 77, 120])
    nearest, similarity = assign(table, chosen, max_bytes=max_bytes)
    similar = np.maximum(cosines(table)[:, chosen], 0)
    places = [list(chosen).index(row) for row in nearest]
    np.testing.assert_allclose(similarity, similar.max(axis=1), atol=1e-3)
    np.testing.assert_allclose(similar[np.arange(300), places], similarity, atol=1e-3)
    np.testing.assert_array_equal(nearest[chosen], chosen)


def test_copies_of_a_chosen_document_are_represented_by_the_first():
    table = np.array([[1, 0], [1, 0], [1, 0], [0, 0]], np.float32)
    nearest, similarity = assign(table, np.array([2, 0]))
    np.testing.assert_array_equal(nearest, [0, 2, 2, 2])
    np.testing.assert_allclose(similarity, [1, 1, 1, 0], rtol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_gpu_chooses_the_same(make):
    function = make(clustered())
    np.testing.assert_array_equal(choose(function, 40, device="cuda").order, choose(function, 40).order)

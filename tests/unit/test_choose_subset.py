"""Representative subsets: partitions, the merge of what they chose, and scores for every document."""

from collections import defaultdict
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.greedy import choose
from gristmill.models.similarity import assign, mean_squared_distance
from gristmill.models.submodular import FacilityLocation as Coverage
from gristmill.models.taylor_softmax import taylor_softmax
from gristmill.pipelines import choose_subset
from gristmill.pipelines.choose_subset import Subset, plan_subset, promoted, read_orders, stretched
from gristmill.pipelines.files import committed
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import ScorerError
from gristmill.scorers.facility_location import NOBODY, FacilityLocation
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.schema import DOC_ID
from gristmill.scorers.text import TextBatch

EMBEDDING = pa.list_(pa.field("item", pa.float16(), nullable=False))
VERSIONS = {"embedding": "embedding/0"}


def topics(num_documents, num_topics=40, width=16, seed=0):
    """Embeddings about centres of very different sizes, float16[n, d]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_topics, width))
    sizes = rng.dirichlet(np.full(num_topics, 0.3))
    noise = rng.normal(size=(num_documents, width)) * rng.gamma(1, 0.7, (num_documents, 1))
    return (1 + centres[rng.choice(num_topics, num_documents, p=sizes)] + noise).astype(np.float16)


def lay(root, vectors, shard_sizes, **scores):
    """A workspace with documents 1 to n, their embeddings (None for none) and other scores, in so many shards."""
    workspace = Workspace(str(root))
    doc_ids = pa.array([UUID(int=number + 1).bytes for number in range(len(vectors))], pa.uuid())
    lists = pa.array([[] if vector is None else list(vector) for vector in vectors], EMBEDDING)
    columns = {"embedding": lists} | {name: pa.array(values) for name, values in scores.items()}
    shards, start = [], 0
    for number, size in enumerate(shard_sizes):
        rows = slice(start, start + size)
        write(workspace.documents(f"part-{number}"), doc_ids[rows], {}, rows)
        for name in columns:
            write(workspace.scores(name, "0", f"part-{number}"), doc_ids[rows], {name: columns[name]}, rows)
        shards.append(Shard(f"part-{number}", size, 10 * size, f"content {start} {size}"))
        start += size
    return workspace, shards


def write(path, doc_ids, columns, rows):
    schema = pa.schema([DOC_ID, *(pa.field(name, column.type) for name, column in columns.items())])
    table = pa.table([doc_ids, *(column[rows] for column in columns.values())], schema=schema)
    with committed(path) as file:
        pq.write_table(table, file)


def run_here(elements, transform):
    """A transform of keyed blocks as a plain loop, grouped elements in an order of their own."""
    transform = transform.transform  # beneath its label
    subset = transform.subset
    if isinstance(transform, choose_subset.OrderPartitions):
        blocks = [block for number in elements for block in choose_subset.partition_shard(number, subset)]
        for group in grouped(blocks):
            choose_subset.order_partition(group, subset)
        return
    blocks = [
        block
        for group in elements
        for block in choose_subset.merge_group(group, subset, transform.num_documents)
    ]
    for group in grouped(blocks):
        choose_subset.write_shard(group, subset, transform.num_documents)


def grouped(blocks):
    groups = defaultdict(list)
    for key, block in reversed(blocks):
        groups[key].append(block)
    return list(groups.items())


def scored(workspace, shards, scorer, run=run_here):
    """The scores of all documents, in the order of doc_id."""
    choose_subset.choose_subset(workspace, shards, scorer, run)
    paths = [workspace.scores(scorer.name, scorer.fingerprint(), shard.name) for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        found = pq.read_table(path)
        assert found["doc_id"].equals(pq.read_table(workspace.documents(shard.name))["doc_id"])
        assert found.schema.remove_metadata().equals(pa.schema([DOC_ID, *scorer.schema()]))
    table = pa.concat_tables(map(pq.read_table, paths)).combine_chunks()
    return table.take(pa.array(np.argsort([doc_id.int for doc_id in table["doc_id"].to_pylist()])))


def make(**options):
    return FacilityLocation(**{"versions": VERSIONS, "corpus": "c", "partition_documents": 100} | options)


def ranks(table):
    return table["facility_location_rank"].to_numpy()


def coverage(vectors, rows):
    """What a subset is worth."""
    _, similarity = assign(vectors.astype(np.float32), np.asarray(rows))
    return float(similarity.sum())


# One partition is the greedy algorithm itself.


def test_one_partition_is_ranked_as_the_greedy_algorithm_chooses(tmp_path):
    vectors = topics(60)
    table = scored(*lay(tmp_path, vectors, [60]), make(budget=0.2))
    ranking = choose(Coverage(vectors.astype(np.float32)), 12, rank_all=True)
    assert np.argsort(ranks(table)).tolist() == ranking.order.tolist()
    np.testing.assert_allclose(table["facility_location_gain"].to_numpy()[ranking.order], ranking.gains)
    nearest, similarity = assign(vectors.astype(np.float32), ranking.order[:12])
    found = [value.int - 1 for value in table["facility_location_representative"].to_pylist()]
    assert found == nearest.tolist()
    np.testing.assert_allclose(table["facility_location_similarity"].to_numpy(), similarity, atol=1e-3)


def test_probabilities_are_a_taylor_softmax_of_the_gains(tmp_path):
    np.testing.assert_allclose(taylor_softmax(np.array([0.0, 1.0, 2.0])), np.array([1, 2.5, 5]) / 8.5)
    np.testing.assert_allclose(taylor_softmax(np.array([-1.0, 2.0]), 2.0), np.array([0.625, 2.5]) / 3.125)
    table = scored(*lay(tmp_path, topics(30), [30]), make(temperature=3.0))
    gains = table["facility_location_gain"].to_numpy()
    expected = taylor_softmax(gains, 3.0)
    np.testing.assert_allclose(table["facility_location_probability"].to_numpy(), expected)


# Many partitions.


@pytest.fixture(scope="module")
def pool():
    return topics(1000)


def test_partitions_cost_little_of_what_a_subset_is_worth(tmp_path, pool):
    table = scored(*lay(tmp_path, pool, [600, 400]), make(budget=0.05, partition_documents=250))
    chosen = np.argsort(ranks(table), kind="stable")[:50]
    best = choose(Coverage(pool.astype(np.float32)), 50).order
    random = coverage(pool, np.random.default_rng(0).choice(1000, 50, replace=False))
    assert coverage(pool, chosen) >= 0.98 * coverage(pool, best)
    assert random < 0.97 * coverage(pool, best), "else the test could not fail"


@pytest.mark.parametrize(("partition_documents", "budget"), [(250, 0.1), (100, 0.1), (250, 0.6)])
def test_the_subset_is_the_head_of_the_ranks_and_represents_all(tmp_path, pool, partition_documents, budget):
    scorer = make(budget=budget, partition_documents=partition_documents)
    table = scored(*lay(tmp_path, pool, [1000]), scorer)
    doc_ids, found = (
        np.array(table[name].to_pylist()) for name in ("doc_id", "facility_location_representative")
    )
    own = doc_ids == found
    assert abs(own.sum() - 1000 * budget) <= 5
    assert set(found) == set(doc_ids[own])
    head = np.argsort(ranks(table), kind="stable")[: own.sum()]
    assert own[head].mean() >= (1.0 if (partition_documents, budget) == (250, 0.1) else 0.95)
    assert table["facility_location_probability"].to_numpy().sum() == pytest.approx(1)


# Every function.

FUNCTIONS = [
    ("facility_location", "cosine"),
    ("facility_location", "rbf"),
    ("graph_cut", "cosine"),
    ("graph_cut", "rbf"),
    ("log_determinant", "cosine"),
    ("log_determinant", "rbf"),
    ("feature_coverage", "cosine"),
]


def worth_by(function, similarity, vectors, bandwidth):
    """What a subset is worth by the function's definition, in float64: chosen rows -> a number."""
    table = vectors.astype(np.float64)
    if similarity == "rbf":
        squares = ((table[:, None] - table[None]) ** 2).sum(axis=2)
        similar = np.exp(-squares / bandwidth)
    else:
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        similar = unit @ unit.T
    clipped = np.maximum(similar, 0)
    return {
        "facility_location": lambda rows: clipped[:, rows].max(axis=1).sum(),
        "graph_cut": lambda rows: clipped[:, rows].sum() - 0.4 * clipped[np.ix_(rows, rows)].sum(),
        "log_determinant": lambda rows: np.linalg.slogdet(similar[np.ix_(rows, rows)] + np.eye(len(rows)))[1],
        "feature_coverage": lambda rows: sum(
            np.sqrt(np.maximum(sign * table[rows], 0).sum(axis=0)).sum() for sign in (1, -1)
        ),
    }[function]


@pytest.mark.parametrize(("function", "similarity"), FUNCTIONS)
def test_of_candidates_each_step_takes_what_adds_most_to_all(tmp_path, function, similarity):
    vectors, candidates = topics(60).astype(np.float32), np.arange(1, 60, 3)
    scorer = make(function=function, similarity=similarity)
    subset = Subset(Workspace(str(tmp_path)), (), scorer, (1,), 0.1, 40.0)
    ranking = subset.choose(vectors, np.ones(60), candidates)
    worth, chosen = worth_by(function, similarity, vectors, 40.0), candidates[ranking.order]
    assert len(chosen) == 6
    for step in range(6):
        others = np.setdiff1d(candidates, chosen[:step])
        best = max(worth(np.append(chosen[:step], other)) for other in others)
        assert worth(chosen[: step + 1]) >= best - 1e-3 * abs(best)
    assert ranking.gains.sum() == pytest.approx(worth(chosen), rel=2e-3)


@pytest.mark.parametrize(("function", "similarity"), FUNCTIONS)
def test_partitions_choose_nearly_as_well_as_one_by_every_function(tmp_path, pool, function, similarity):
    vectors = pool[:320].astype(np.float32)
    scorer = make(function=function, similarity=similarity, budget=0.1, partition_documents=80)
    table = scored(*lay(tmp_path, pool[:320], [200, 120]), scorer)
    bandwidth = mean_squared_distance(vectors)
    worth = worth_by(function, similarity, vectors, bandwidth)
    one = Subset(Workspace(str(tmp_path)), (), scorer, (1,), 0.1, bandwidth)
    best = worth(one.choose(vectors, np.ones(320)).order)
    assert worth(np.argsort(ranks(table), kind="stable")[:32]) >= 0.97 * best
    random = worth(np.random.default_rng(0).choice(320, 32, replace=False))
    assert random < 0.95 * best, "else the test could not fail"


def test_one_bandwidth_serves_all_partitions_and_their_merge(tmp_path, pool):
    vectors = pool[:300].astype(np.float64)
    scorer = make(similarity="rbf", budget=0.1)
    workspace, shards = lay(tmp_path, [*pool[:300], None], [100, 1, 200])
    squares, bandwidth = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2), mean_squared_distance(vectors)
    assert bandwidth == pytest.approx(squares.mean())
    assert plan_subset(workspace, shards[::-1], scorer).bandwidth == pytest.approx(bandwidth, rel=1e-6)
    rows = scored(workspace, shards, scorer).to_pylist()[:300]
    nearest = [row["facility_location_representative"].int - 1 for row in rows]
    found = [row["facility_location_similarity"] for row in rows]
    np.testing.assert_allclose(found, np.exp(-squares[np.arange(300), nearest] / bandwidth), atol=5e-3)


def test_a_few_shards_tell_the_bandwidth_of_many(tmp_path, pool, monkeypatch):
    monkeypatch.setattr(choose_subset, "BANDWIDTH_DOCUMENTS", 250)
    workspace, shards = lay(tmp_path / "some", pool, [100] * 10)
    found = [
        plan_subset(workspace, shards, make(similarity="rbf", seed=seed)).bandwidth for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found == pytest.approx([mean_squared_distance(pool)] * 3, rel=0.2)
    assert plan_subset(workspace, shards, make()).bandwidth is None, "cosines have none"
    nothing = lay(tmp_path / "none", [None, None], [1, 1])
    assert plan_subset(*nothing, make(similarity="rbf")).bandwidth is None


def test_shards_and_their_order_change_nothing(tmp_path, pool):
    scorer = make(budget=0.1)
    first = scored(*lay(tmp_path / "a", pool[:400], [400]), scorer)
    workspace, shards = lay(tmp_path / "b", pool[:400], [150, 0, 10, 240])
    assert scored(workspace, shards[::-1], scorer).equals(first)


def test_what_is_done_is_not_done_again(tmp_path, pool, monkeypatch):
    workspace, shards = lay(tmp_path, pool[:300], [200, 100])
    scorer = make(budget=0.1)

    def run_half(elements, transform):
        if isinstance(transform.transform, choose_subset.MergeGroups):
            raise KeyboardInterrupt
        run_here(elements, transform)

    with pytest.raises(KeyboardInterrupt):
        scored(workspace, shards, scorer, run_half)
    ordered = choose_subset.order_partition
    monkeypatch.setattr(choose_subset, "order_partition", None)
    found = scored(workspace, shards, scorer)
    assert not list((tmp_path / "scores" / "facility_location").rglob("work"))
    assert scored(workspace, shards, scorer, run=None).equals(found)
    monkeypatch.setattr(choose_subset, "order_partition", ordered)
    assert scored(*lay(tmp_path / "new", pool[:300], [300]), scorer).equals(found)


def test_documents_without_an_embedding_come_last(tmp_path):
    vectors = [*topics(5), None, np.full(16, np.nan), *topics(3, seed=1)]
    workspace, shards = lay(tmp_path, vectors, [6, 1, 3])
    rows = scored(workspace, shards, make(budget=0.5)).to_pylist()
    for number in (5, 6):
        assert list(rows[number].values())[1:] == [0.0, 8, 0.0, NOBODY, 0.0]
    assert sorted(row["facility_location_rank"] for row in rows) == [*range(8), 8, 8]


def test_a_corpus_without_embeddings_has_scores_too(tmp_path):
    table = scored(*lay(tmp_path, [None, None], [1, 1]), make())
    assert ranks(table).tolist() == [0, 0]


def test_clusters_have_partitions_of_their_own(tmp_path, pool):
    cluster = np.repeat(np.array([0, 2], np.int32), [150, 250])
    workspace, shards = lay(tmp_path, pool[:400], [100, 300], cluster=cluster)
    scorer = make(budget=0.1, partitions="clusters", versions=VERSIONS | {"cluster": "cluster/0"})
    subset = plan_subset(workspace, shards, scorer)
    assert subset.pieces == (2, 1, 3)
    for number in range(2):
        for partition, block in choose_subset.partition_shard(number, subset):
            of_block = {cluster[doc_id.int - 1] for doc_id in block["doc_id"].to_pylist()}
            assert of_block == {0 if partition < 2 else 2}
    assert len(scored(workspace, shards, scorer)) == 400


def test_a_budget_of_tokens_prefers_short_documents(tmp_path, pool):
    num_tokens = np.where(np.arange(100) % 2, 10, 1000)
    vectors = np.repeat(pool[:50], 2, axis=0)
    scorer = make(budget=0.05, of="tokens", versions=VERSIONS | {"num_tokens": "num_tokens/0"})
    table = scored(*lay(tmp_path, vectors, [100], num_tokens=num_tokens), scorer)
    chosen = np.argsort(ranks(table))[:50]
    assert (num_tokens[chosen] == 10).all()


def test_a_whole_number_is_a_budget_of_the_documents_that_have_an_embedding(tmp_path, pool):
    vectors = [None, *pool[:100], *[None] * 9]
    for partition_documents, num_groups in ((200, 1), (10, 3)):
        root = tmp_path / str(num_groups)
        scorer = make(budget=10, partition_documents=partition_documents)
        table = scored(*lay(root, vectors, [50, 60]), scorer)
        chosen = set(table["facility_location_representative"].to_pylist()) - {NOBODY}
        assert 10 <= len(chosen) < 10 + num_groups


def test_a_whole_number_of_tokens_is_a_share_of_them(tmp_path, pool):
    num_tokens = np.arange(1, 101)
    tokens = {"of": "tokens", "versions": VERSIONS | {"num_tokens": "num_tokens/0"}}
    found = [
        scored(
            *lay(tmp_path / str(budget), pool[:100], [100], num_tokens=num_tokens),
            make(budget=budget, **tokens),
        )
        for budget in (505, 0.1)
    ]
    assert found[0].equals(found[1])


@pytest.mark.parametrize("similarity", ["cosine", "rbf"])
def test_copies_zeros_and_numbers_that_are_none_have_defined_scores(tmp_path, similarity):
    first, *others = topics(6)
    zero, infinite = np.zeros(16), np.full(16, np.inf)
    vectors = [first, first, first, zero, zero, np.full(16, np.nan), infinite, None, *others]
    rows = scored(*lay(tmp_path / "few", vectors, [5, 8]), make(budget=4, similarity=similarity)).to_pylist()
    gains, ranks, _, representatives, similarities = zip(
        *(list(row.values())[1:] for row in rows), strict=True
    )
    assert gains[1:3] == (0, 0), "copies add nothing to the first"
    assert similarities[:3] == pytest.approx((1, 1, 1), abs=1e-3)
    assert ranks[0] < ranks[1] < ranks[2]
    assert {value.int for value in representatives[:3]} == {1}
    assert (gains[3] == 0) == (similarity == "cosine"), (
        "zero has no direction, and is at a distance of others"
    )
    assert gains[4] == 0
    assert similarities[3:5] == pytest.approx((0, 0) if similarity == "cosine" else (1, 1), abs=1e-3)
    assert ranks[5:8] == (10, 10, 10), "as many as are ranked"
    assert set(representatives[5:8]) == {NOBODY}
    every = [
        scored(*lay(tmp_path / str(budget), vectors, [13]), make(budget=budget, similarity=similarity))
        for budget in (10, 10**9, 1.0)
    ]
    assert every[0].equals(every[1])
    assert every[0].equals(every[2])
    for row in every[0].to_pylist():
        assert row["facility_location_representative"] in (row["doc_id"], NOBODY)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.floats(0.05, 1))
def test_a_prefix_of_stretched_ranks_takes_the_same_share_of_every_partition(sizes, share):
    total = sum(sizes)
    for size in sizes:
        found = stretched(np.arange(size), total)
        assert (np.diff(found) >= 0).all()
        assert 0 <= found[0]
        assert found[-1] < total
        assert abs((found < share * total).sum() - share * size) <= 1.5, "ranks are whole numbers"


def test_groups_are_small_where_budgets_are_large(tmp_path):
    workspace, shards = lay(tmp_path, topics(4), [4])
    for budget, num_partitions, sizes in [(0.05, 9, [5, 4]), (0.25, 9, [3, 3, 3]), (0.6, 2, [1, 1])]:
        subset = Subset(workspace, tuple(shards), make(budget=budget), (num_partitions,), budget)
        assert list(map(len, subset.groups)) == sizes
    run_here([0], "Order" >> choose_subset.OrderPartitions(subset))
    assert read_orders(subset)[2] == 4


def test_what_the_merge_chooses_takes_the_lowest_ranks_of_the_candidates():
    found = promoted(np.array([0, 4, 1, 5, 3, 2]), np.array([4, 0]), np.array([0, 2, 4]))
    assert found.tolist() == [1, 4, 3, 5, 0, 2]


# The scorer.


def test_a_batch_alone_is_not_scored():
    with pytest.raises(ScorerError, match="facility_location scores the corpus as a whole"):
        make().score(TextBatch.from_texts(["a"]))


def test_a_recipe_says_a_share_or_a_whole_number():
    share, number = (make_scorer("facility_location", {"budget": value}) for value in (0.25, 500))
    assert (share.share_of(lambda: 1000), number.share_of(lambda: 1000), number.share_of(lambda: 200)) == (
        0.25,
        0.5,
        1.0,
    )
    for value in ("many", True):
        with pytest.raises(
            ScorerError, match=f"facility_location.budget: found {value!r}, allowed is int | float"
        ):
            make_scorer("facility_location", {"budget": value})


def test_one_more_document_makes_other_scores():
    prints = {make(corpus=corpus, budget=budget).fingerprint() for corpus in "ab" for budget in (0.1, 0.2)}
    assert len(prints) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"budget": 0},
        {"budget": -3},
        {"budget": 1.5},
        {"budget": float("nan")},
        {"temperature": 0},
        {"partition_documents": 1},
        {"partition_documents": 5001, "function": "log_determinant"},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} .*expected"):
        make(**options)

"""Near duplicates from documents to decisions, against the exact Jaccard similarity of every pair."""

import random
from itertools import combinations, pairwise
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mills import Row, build

from gristmill.pipelines import cluster_duplicates as clustering
from gristmill.pipelines import mark_duplicates as stages
from gristmill.pipelines.cluster_duplicates import mark_duplicates, require_marked
from gristmill.pipelines.mark_duplicates import Corpus
from gristmill.pipelines.recipe import Duplicates
from gristmill.pipelines.runner import beam_options, run_pipeline
from gristmill.pipelines.select_documents import BlockLists, select_documents
from gristmill.pipelines.verify import verify_workspace
from gristmill.scorers.base import SelectionError
from gristmill.scorers.duplicates import ExactDuplicate
from gristmill.scorers.minhash import MinHash
from gristmill.scorers.shingles import DATATROVE_SHINGLING, shingle_hashes
from gristmill.scorers.text import TextBatch

WORDS = [f"w{number}" for number in range(400)]
THRESHOLD = 0.8


def run(elements, transform):
    run_pipeline(beam_options([]), lambda pipeline: pipeline | beam.Create(list(elements)) | transform)


def templated_rows(seed=0):
    """Drifting copies of some texts, equal copies, unrelated texts, short ones and blank ones."""
    source = random.Random(seed)
    texts = []
    for _ in range(12):
        text = source.choices(WORDS, k=120)
        for _ in range(source.choice([1, 4, 9])):
            texts.append(" ".join(text))
            for place in source.sample(range(len(text)), source.choice([0, 1, 2, 3])):
                text[place] = source.choice(WORDS)
    texts += ["the same short", "the same short", "another short", "", " ", "equal " * 30, "equal " * 30]
    source.shuffle(texts)
    return [Row(number, text, source=source.choice(["web", "books"])) for number, text in enumerate(texts)]


def cut(rows, num_shards):
    return [rows[start::num_shards] for start in range(num_shards)]


def corpus_of(root, shards, **rule):
    mill = build(root, shards, scorers=(MinHash(), ExactDuplicate()))
    return mill, Corpus(
        mill.workspace, tuple(mill.shards), MinHash(), Duplicates(threshold=THRESHOLD, **rule)
    )


def table_of(corpus):
    tables = [pq.read_table(corpus.workspace.duplicates(shard.name)) for shard in corpus.shards]
    return {str(row["doc_id"]): row for table in tables for row in table.to_pylist()}


def buckets_of(corpus):
    return pq.read_table(corpus.workspace.path("duplicates", "buckets.parquet"))


def similarities(rows):
    """Exact Jaccard similarity of every pair of documents that have shingles."""
    hashes, offsets = shingle_hashes(TextBatch.from_texts([row.text for row in rows]), DATATROVE_SHINGLING)
    sets = [set(hashes[start:end].tolist()) for start, end in pairwise(offsets)]
    return {
        (str(a.doc_id), str(b.doc_id)): len(s & t) / len(s | t)
        for (a, s), (b, t) in combinations(zip(rows, sets, strict=True), 2)
        if s and t
    }


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    rows = templated_rows()
    mill, corpus = corpus_of(tmp_path_factory.mktemp("near"), cut(rows, 3))
    return rows, mill, corpus, mark_duplicates(corpus, run)


def test_every_member_reaches_its_representative_and_no_pair_stays(marked):
    rows, _, corpus, manifest = marked
    found = table_of(corpus)
    truth = similarities(rows)
    for doc_id, row in found.items():
        representative = str(row["representative"])
        pair = truth.get((doc_id, representative), truth.get((representative, doc_id), 1.0))
        assert row["jaccard"] == pytest.approx(pair)
        assert pair >= THRESHOLD
        assert row["cluster_id"] == row["matched_doc"] == row["representative"]
        assert str(found[representative]["representative"]) == representative
    dropped = {doc_id for doc_id, row in found.items() if row["representative"] != row["doc_id"]}
    assert not [p for p, s in truth.items() if s >= THRESHOLD and not dropped & set(p)]
    assert manifest["num_near_duplicates"] == len(dropped)
    assert manifest["num_clusters"] == len(found) - len(dropped)
    assert not {str(row.doc_id) for row in rows if not row.text.strip()} & found.keys()


@pytest.mark.parametrize("num_shards", [1, 5])
def test_division_and_passes_change_nothing(marked, tmp_path, monkeypatch, num_shards):
    rows, _, corpus, _ = marked
    monkeypatch.setattr(stages, "SHUFFLE_BYTES", 16 * len(rows) * 7)
    assert len(stages.plan_passes(len(rows), 18)) == 3
    _, other = corpus_of(tmp_path, cut(list(reversed(rows)), num_shards))
    mark_duplicates(other, run)
    expected, found = table_of(corpus), table_of(other)
    assert found.keys() == expected.keys()
    for doc_id, row in found.items():
        assert {**row, "position": 0} == {**expected[doc_id], "position": 0}


def test_what_is_marked_is_not_marked_again_and_an_interrupted_run_goes_on(marked, tmp_path, monkeypatch):
    rows, _, corpus, manifest = marked

    def never(elements, transform):
        raise AssertionError("nothing is left to do")

    assert mark_duplicates(corpus, never) == manifest
    monkeypatch.setattr(stages, "SHUFFLE_BYTES", 16 * len(rows) * 9)
    _, other = corpus_of(tmp_path, cut(rows, 3))
    calls = []

    def interrupted(elements, transform):
        calls.append(transform.label)
        if len(calls) == 2:
            raise KeyboardInterrupt
        run(elements, transform)

    with pytest.raises(KeyboardInterrupt):
        mark_duplicates(other, interrupted)
    mark_duplicates(other, run)
    for shard in corpus.shards:
        first, second = (Path(one.workspace.duplicates(shard.name)) for one in (corpus, other))
        assert first.read_bytes() == second.read_bytes()


def test_more_equal_documents_than_a_bucket_holds_are_one_cluster(tmp_path):
    text = " ".join(WORDS[:50])
    rows = [Row(number, text, source="books" if number == 30 else "web") for number in range(40)]
    _, corpus = corpus_of(tmp_path, cut(rows, 2), max_bucket=4, prefer=["books"])
    manifest = mark_duplicates(corpus, run)
    assert {str(row["representative"]) for row in table_of(corpus).values()} == {str(rows[30].doc_id)}
    assert (manifest["num_near_duplicates"], manifest["largest_cluster"]) == (39, 40)
    assert (manifest["largest_bucket"], manifest["num_oversized_buckets"]) == (40, 18)
    assert buckets_of(corpus).to_pylist() == [{"first_band": 0, "size": 40}] * 18


def test_each_pass_reports_its_buckets_and_nothing_is_left_behind(marked, tmp_path, monkeypatch):
    _, _, corpus, _ = marked
    assert (buckets_of(corpus).num_rows, buckets_of(corpus).schema) == (0, stages.DUPLICATE_BUCKETS)
    rows = [Row(number, " ".join(WORDS[:50])) for number in range(10)]
    monkeypatch.setattr(stages, "SHUFFLE_BYTES", 16 * len(rows) * 10)
    _, other = corpus_of(tmp_path, cut(rows, 2), max_bucket=4)
    mark_duplicates(other, run)
    expected = [{"first_band": 0, "size": 10}] * 10 + [{"first_band": 10, "size": 10}] * 8
    assert buckets_of(other).to_pylist() == expected
    for root in (corpus, other):
        names = {path.name for path in Path(root.workspace.path("duplicates")).iterdir()}
        assert names == {
            "buckets.parquet",
            "manifest.json",
            *(f"{shard.name}.parquet" for shard in root.shards),
        }


def test_verification_of_a_workspace_keeps_the_buckets(marked):
    _, mill, corpus, _ = marked
    report = verify_workspace(mill.workspace)
    assert corpus.workspace.path("duplicates", "buckets.parquet") not in report.orphans


def test_a_signature_travels_once_to_each_shard(marked):
    """Whatever the number of pairs, and whatever the order of the blocks."""
    _, _, corpus, _ = marked
    first, second, third = (int(start) for start in corpus.starts[:3])
    pairs = [
        (first, second),
        (first, third + 1),
        (first, first + 1),
        (first, second + 1),
        (first + 1, second),
    ]
    blocks = [
        pa.record_batch(list(zip(*some, strict=True)), schema=stages.PAIR) for some in (pairs[:3], pairs[2:])
    ]
    taken = [dict(stages.take_signatures((0, some), corpus)) for some in (blocks, blocks[::-1])]
    assert taken[0] == taken[1]
    found = {number: block.select(["left", "right"]).to_pydict() for number, block in taken[0].items()}
    assert found == {
        0: {"left": [first], "right": [[first + 1]]},
        1: {"left": [first, first + 1], "right": [[second, second + 1], [second]]},
        2: {"left": [first], "right": [[third + 1]]},
    }
    signatures, _ = corpus.read_signatures(0)
    assert taken[0][1]["signature"].to_pylist() == [signatures[0].tobytes(), signatures[1].tobytes()]


@pytest.mark.parametrize("few", [0, 10**6])
def test_pairs_compared_on_the_launcher_are_those_of_the_pipeline(marked, tmp_path, monkeypatch, few):
    rows, _, corpus, _ = marked
    monkeypatch.setattr(clustering, "FEW_PAIRS", few)
    _, other = corpus_of(tmp_path, cut(rows, 3))
    labels = []

    def noted(elements, transform):
        labels.append(transform.label)
        run(elements, transform)

    mark_duplicates(other, noted)
    assert ("VerifyMembers" in labels) == (few == 0)
    assert table_of(other) == table_of(corpus)


def test_a_cluster_keeps_one_member_that_passes_every_other_rule(marked):
    rows, mill, corpus, _ = marked
    mill.recipe = mill.recipe.model_copy(update={"duplicates": corpus.rule})
    compiled = mill.compile(where={"web": "source = 'web'"}, deduplicate={})
    select_documents(mill.workspace, mill.shards, mill.scorers, compiled, BlockLists())
    decisions = {}
    for shard in mill.shards:
        for row in pq.read_table(mill.workspace.decisions("s", shard.name)).to_pylist():
            decisions[str(row["doc_id"])] = row
    clusters = {}
    for doc_id, row in table_of(corpus).items():
        clusters.setdefault(row["cluster_id"], []).append(doc_id)
    of_web = {str(row.doc_id) for row in rows if row.source == "web" and row.text.strip()}
    for members in clusters.values():
        kept = [doc_id for doc_id in members if decisions[doc_id]["kept"]]
        assert len(kept) == min(len(of_web & set(members)), 1)
        for doc_id in of_web & set(members) - set(kept):
            assert decisions[doc_id]["step"] == "duplicate"
            assert str(decisions[doc_id]["survivor"]) == kept[0]


def test_duplicates_of_another_rule_are_refused(marked):
    _, mill, corpus, _ = marked
    require_marked(corpus)
    other = Corpus(mill.workspace, corpus.shards, MinHash(), Duplicates(threshold=0.7))
    with pytest.raises(SelectionError, match="run `gristmill dedup` first"):
        require_marked(other)


def test_a_layout_that_misses_most_pairs_at_the_threshold_is_worth_a_warning():
    assert stages.layout_warnings(Duplicates(), 112) == []
    (warning,) = stages.layout_warnings(Duplicates(threshold=0.5), 112)
    assert warning.startswith("duplicates: 18 bands of 6 rows find 25% of the pairs at 0.5; datasketch,")
    assert "would take 22 of 5" in warning

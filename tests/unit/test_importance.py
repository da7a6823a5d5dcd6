"""Importance weights against plain Python and by hand, their model file, and the key that samples by weight."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import rules_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models import ngram_counts
from gristmill.pipelines.records import doc_ids, uuid_array
from gristmill.scorers.base import ScorerError
from gristmill.scorers.domain_importance import DomainImportance
from gristmill.scorers.importance import Importance, count_ngrams, gumbel_noise, hash_ngrams, log_ratios
from gristmill.scorers.text import TextBatch

TEXTS = st.lists(st.one_of(st.text(max_size=30), st.text("abÄé.1磨 \n\0_", max_size=30)), max_size=6)


def ngrams(text: str) -> list[str]:
    words = reference.raw_words(reference.lower(text))
    return words + [" ".join(pair) for pair in pairwise(words)]


def bucket(ngram: str, num_buckets: int) -> int:
    """Bucket of an n-gram when it stands alone: it is the last one found."""
    return int(hash_ngrams(TextBatch.from_texts([ngram]), num_buckets).buckets[-1])


def slow_counts(texts: list[str], num_buckets: int) -> list[int]:
    counts = Counter(bucket(ngram, num_buckets) for text in texts for ngram in ngrams(text))
    return [counts[index] for index in range(num_buckets)]


def ids(num: int) -> pa.ExtensionArray:
    return uuid_array(doc_ids("web", "a.jsonl", range(num)))


def identified(texts: list[str]) -> pa.RecordBatch:
    columns = {"doc_id": ids(len(texts)), "text": pa.array(texts, pa.large_string())}
    return pa.RecordBatch.from_pydict(columns)


@pytest.fixture
def trained(tmp_path):
    """A function: texts of target and pool -> a scorer that knows their counts."""

    def train(target: list[str], pool: list[str], **options: int) -> Importance:
        counts = [count_ngrams(TextBatch.from_texts(texts)) for texts in (target, pool)]
        ngram_counts.save(str(tmp_path), *counts)
        return Importance(model=str(tmp_path), **options)

    return train


@given(TEXTS, st.integers(1, 50))
@settings(deadline=None)
def test_counts_are_those_of_plain_python(texts, num_buckets):
    counts = count_ngrams(TextBatch.from_texts(texts), num_buckets)
    assert counts.tolist() == slow_counts(texts, num_buckets)
    assert counts.dtype == np.int64
    parts = (TextBatch.from_texts([text]) for text in reversed(texts))
    assert sum(
        (count_ngrams(part, num_buckets) for part in parts), np.zeros(num_buckets, np.int64)
    ).tolist() == (counts.tolist())


@given(TEXTS, TEXTS, TEXTS)
@settings(deadline=None)
def test_weights_are_those_of_plain_python(tmp_path_factory, target, pool, texts):
    target, pool = [*target, "The mill grinds."], [*pool, "the mill"]
    folder = str(tmp_path_factory.mktemp("model"))
    totals = [slow_counts(part, 20) for part in (target, pool)]
    ngram_counts.save(folder, *np.array(totals))
    shares = [[count / sum(counts) + 1e-8 for count in counts] for counts in totals]
    rows = Importance(model=folder).score(TextBatch.from_texts(texts)).to_pylist()
    for row, text in zip(rows, texts, strict=True):
        buckets = [bucket(ngram, 20) for ngram in ngrams(text)]
        weight = sum(math.log(shares[0][index]) - math.log(shares[1][index]) for index in buckets)
        assert row["importance"] == row["importance_key"] == pytest.approx(weight, abs=1e-9)
        assert row["importance_per_ngram"] == pytest.approx(weight / max(len(buckets), 1), abs=1e-9)


def test_by_hand(trained):
    # Target: a, b, "a b". Pool: a, a, c, "a a", "a c".
    scorer = trained(["A b"], ["a a c"])
    rows = scorer.score(TextBatch.from_texts(["a", "c", "a A", "new", ""])).to_pylist()
    only_in_pool = math.log(1e-8) - math.log(1 / 5 + 1e-8)
    in_both = math.log(1 / 3 + 1e-8) - math.log(2 / 5 + 1e-8)
    expected = [(in_both, 1), (only_in_pool, 1), (2 * in_both + only_in_pool, 3), (0, 1), (0, 1)]
    for row, (weight, num_ngrams) in zip(rows, expected, strict=True):
        assert row["importance"] == pytest.approx(weight)
        assert row["importance_per_ngram"] == pytest.approx(weight / num_ngrams)


def test_each_domain_has_the_weights_of_its_own_counts(tmp_path):
    alone = {}
    for domain, texts in {"mill": ["The mill grinds."], "trade": ["cheap flour", "buy"]}.items():
        (tmp_path / domain).mkdir()
        counts = (count_ngrams(TextBatch.from_texts(part)) for part in (texts, ["the mill buys flour"]))
        ngram_counts.save(str(tmp_path / domain), *counts)
        alone[domain] = Importance(model=str(tmp_path / domain))
    batch = TextBatch.from_texts(["the mill", "buy flour", ""])
    scores = DomainImportance(model=str(tmp_path), domains=("mill", "trade")).score(batch)
    for domain, scorer in alone.items():
        assert scores[f"dsir_{domain}"].equals(scorer.score(batch)["importance"])
        assert scores[f"dsir_{domain}_per_ngram"].equals(scorer.score(batch)["importance_per_ngram"])
    assert scores["dsir_mill"] != scores["dsir_trade"]


def test_a_domain_without_counts_is_named(tmp_path):
    with pytest.raises(ScorerError, match=r"domain_importance.model: .*trade.*; give a folder with"):
        DomainImportance(model=str(tmp_path), domains=("trade",)).fingerprint()


def test_buckets_never_change():
    """Counts on disk are by these buckets: a change here makes every model wrong."""
    found = hash_ngrams(TextBatch.from_texts(["The mill.", "", "磨坊 3"]))
    assert found.buckets.tolist() == [2685, 6533, 4300, 7735, 5961, 3767, 304, 6970, 6228, 6711]
    assert found.documents.tolist() == [0, 0, 0, 2, 2, 2, 0, 0, 2, 2]


def test_the_target_outweighs_the_pool(trained):
    scorer = trained(["the miller grinds the corn"] * 5, ["buy cheap watches now", "the corn is cheap"] * 5)
    near, far = scorer.score(TextBatch.from_texts(["the miller grinds", "cheap watches"])).to_pylist()
    assert near["importance_per_ngram"] > 0 > far["importance_per_ngram"]


def test_noise_follows_doc_id_and_seed_alone(trained):
    texts = [f"the mill {index}" for index in range(50)]
    scorer = trained(["the mill"], texts)
    documents = identified(texts)
    scores = scorer.score(TextBatch(documents))
    noise = gumbel_noise(documents["doc_id"], 0)
    assert np.array_equal(scores["importance_key"], scores["importance"].to_numpy() + noise)
    assert scorer.score(TextBatch(documents[7:30])).equals(scores[7:30])
    order = pa.array(np.random.default_rng(0).permutation(50))
    assert scorer.score(TextBatch(documents.take(order))).equals(scores.take(order))
    assert not (gumbel_noise(documents["doc_id"], 1) == noise).any()
    other = trained(["the mill"], texts, seed=1).score(TextBatch(documents))
    assert other["importance"].equals(scores["importance"])
    assert not other["importance_key"].equals(scores["importance_key"])


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_noise_is_gumbel(seed):
    noise = np.sort(gumbel_noise(ids(100_000), seed))
    share = (np.arange(len(noise)) + 0.5) / len(noise)
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed once in a thousand times.
    assert np.abs(np.exp(-np.exp(-noise)) - share).max() < 1.95 / math.sqrt(len(noise))


def test_noise_of_extreme_ids_is_finite():
    halves = np.array([[0, 0], [2**64 - 1, 2**64 - 1]], np.uint64)
    assert np.isfinite(gumbel_noise(uuid_array(halves), 0)).all()


def test_the_largest_keys_are_a_sample_by_weight():
    """Of 4 documents with weights 1 to 4, the first two drawn without replacement, many times."""
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    draws = 100_000
    keys = np.log(weights) + gumbel_noise(ids(4 * draws), 3).reshape(draws, 4)
    first, second = np.argsort(-keys, axis=1)[:, :2].T
    shares = weights / weights.sum()
    assert np.bincount(first) / draws == pytest.approx(shares, abs=0.006)
    expected = [sum(shares[i] * shares[j] / (1 - shares[i]) for i in range(4) if i != j) for j in range(4)]
    assert np.bincount(second) / draws == pytest.approx(expected, abs=0.006)


def test_log_ratios_of_equal_distributions_are_zero():
    counts = np.array([[1, 0, 3], [10, 0, 30]])
    assert log_ratios(counts).tolist() == [0, 0, 0]


def test_counts_come_back_and_have_a_digest(tmp_path):
    counts = np.array([[1, 2], [3, 0]])
    ngram_counts.save(str(tmp_path), *counts)
    assert np.array_equal(ngram_counts.load(str(tmp_path)), counts)
    digest = ngram_counts.digest(str(tmp_path))
    ngram_counts.save(str(tmp_path), *counts)
    assert ngram_counts.digest(str(tmp_path)) == digest
    ngram_counts.save(str(tmp_path), *counts[::-1])
    assert ngram_counts.digest(str(tmp_path)) != digest


@pytest.mark.parametrize(
    ("target", "pool", "message"),
    [
        ([0, 0], [1, 0], "found no n-gram in the target, expected at least one"),
        ([1, 0], [0, 0], "found no n-gram in the pool, expected at least one"),
        ([1, -1], [1, 0], "found the count -1, expected none below 0"),
        ([0.5, 1], [1, 0], r"found float64 of shape \(2, 2\), expected int64 of shape \(2, buckets\)"),
        ([], [], "found no n-gram in the target"),
    ],
)
def test_impossible_counts(tmp_path, target, pool, message):
    dtype = np.float64 if 0.5 in target else np.int64
    with pytest.raises(ValueError, match=message):
        ngram_counts.save(str(tmp_path), np.array(target, dtype), np.array(pool, dtype))
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_none(tmp_path):
    scorer = Importance(model=str(tmp_path))
    for ask in (scorer.setup, scorer.fingerprint):
        with pytest.raises(ScorerError, match=r"importance\.model: .*ngram_counts\.npy.*give a folder with"):
            ask()
    for content in (b"", b"no counts", b"PK\x03\x04"):
        (tmp_path / "ngram_counts.npy").write_bytes(content)
        with pytest.raises(ScorerError, match=r"ngram_counts\.npy holds no n-gram counts"):
            scorer.setup()
    np.save(tmp_path / "ngram_counts.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ScorerError, match="holds no n-gram counts: Object arrays cannot be loaded"):
        scorer.setup()
    np.save(tmp_path / "ngram_counts.npy", np.ones((3, 4), np.int64))
    with pytest.raises(ScorerError, match=r"found int64 of shape \(3, 4\)"):
        scorer.setup()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_an_impossible_seed(seed):
    with pytest.raises(ValueError, match=r"must be from 0 to 2\^64 - 1"):
        Importance(model="model", seed=seed)

"""Raters trained here: what they read, what they learn, and that they are the same bytes and numbers every time."""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gristmill.models import rater_training
from gristmill.models.bag_of_words import Rarity, count_words
from gristmill.models.load_rater import describe, digest, load_rater
from gristmill.models.rater import RaterError, Reading
from gristmill.models.rater_head import HEAD_FILE
from gristmill.models.rater_quality import macro_f1, rater_quality, spearman
from gristmill.models.rater_training import LabelledTexts, judge, train_head

MILL = "the miller grinds corn and keeps flour for bread by river".split()
TRADE = "buy cheap watches now at best price with free shipping".split()
WORDS = st.text(alphabet="aB,;\n 水é", max_size=20)


def strings(texts):
    return pa.array(texts, pa.large_string())


def labelled(count, seed):
    """Texts of 12 words of which a random share is of trade, and that share."""
    rng = np.random.default_rng(seed)
    shares = rng.random(count)
    rows = [[rng.choice(TRADE if rng.random() < share else MILL) for _ in range(12)] for share in shares]
    return LabelledTexts(strings([" ".join(row) for row in rows]), shares)


def by_class(texts, *bounds):
    return LabelledTexts(texts.texts, np.searchsorted(bounds, texts.labels).astype(float))


@pytest.fixture(scope="module")
def regression():
    return train_head("readability", labelled(300, 0), labelled(60, 1), "regression").head


@pytest.fixture(scope="module")
def classification():
    parts = (by_class(labelled(300, seed), 0.3, 0.6) for seed in (0, 1))
    return train_head("cleanliness", *parts, "classification").head


def cut(text):
    """The words of a text, one by one."""
    spaced = re.sub(r"([^\w\s]|水)", r" \1 ", text.lower()).replace("\n", " ¶ ")
    return spaced.split()


@given(st.lists(WORDS, max_size=5))
def test_words_and_pairs_are_counted_in_each_text(texts):
    counts = count_words(strings(texts))
    assert counts.shape == (len(texts), 1 << 20)
    for row, text in enumerate(texts):
        words = cut(text)
        expected = Counter(words) + Counter(pairwise(words))
        assert sorted(counts[row].data) == sorted(expected.values())


def test_case_does_not_count_and_line_ends_do():
    counts = count_words(strings(["The mill", "the MILL", "the\nmill"])).toarray()
    assert np.array_equal(counts[0], counts[1])
    assert counts[2].sum() == 5
    assert (np.minimum(counts[0], counts[2])).sum() == 2


def test_what_one_text_alone_has_counts_nothing_and_rows_have_length_1():
    counts = count_words(strings(["corn flour", "corn bread", "corn corn corn bread", "unseen"]))
    weighed = Rarity.of(counts[:3]).weigh(counts)
    assert np.sqrt(weighed.multiply(weighed).sum(axis=1)) == pytest.approx([1, 1, 1, 0])
    assert [row.count_nonzero() for row in weighed] == [1, 3, 3, 0]
    corn, bread = np.log(4 / 4) + 1, np.log(4 / 3) + 1
    assert sorted(weighed[1].data[weighed[1].data > 0] ** 2) == pytest.approx(
        sorted(np.array([corn, bread, bread]) ** 2 / (corn**2 + 2 * bread**2))
    )


def test_a_regression_is_the_ridge_regression_of_the_chosen_penalty(monkeypatch):
    monkeypatch.setattr(rater_training, "PENALTIES", (1e-2,))
    train = labelled(80, 0)
    head = train_head("readability", train, labelled(20, 1), "regression").head
    features = head.rarity.weigh(count_words(train.texts)).toarray()
    kept = np.flatnonzero(head.rarity.weights)
    x, y = features[:, kept], train.labels
    slope = len(y) * 1e-2 * np.eye(len(kept))
    centred = x - x.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + slope, centred.T @ (y - y.mean()))
    assert head.weights[kept, 0] == pytest.approx(weights, abs=2e-3)
    assert head.bias[0] == pytest.approx(y.mean() - x.mean(axis=0) @ weights, abs=2e-3)


@pytest.mark.parametrize(("scale", "shift"), [(5, 0), (1, -3), (1e3, 7)])
def test_another_unit_of_the_labels_changes_the_unit_of_the_ratings_alone(regression, scale, shift):
    parts = [
        LabelledTexts(part.texts, part.labels * scale + shift) for part in (labelled(300, 0), labelled(60, 1))
    ]
    changed = train_head("readability", *parts, "regression").head
    texts = labelled(20, 2).texts
    expected = regression.rate(texts).values * scale + shift
    np.testing.assert_allclose(changed.rate(texts).values, expected, rtol=1e-3, atol=1e-3 * scale)


def test_a_share_is_learnt(regression):
    quality = judge(regression, labelled(100, 3))
    assert quality.spearman > 0.85
    assert quality.macro_f1 is None
    assert quality.num_texts == 100


def test_the_value_is_the_expectation_over_the_classes(classification):
    held_out = by_class(labelled(100, 3), 0.3, 0.6)
    ratings = classification.rate(held_out.texts)
    assert ratings.probabilities.shape == (100, 3)
    assert ratings.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(ratings.values[:, 0], ratings.probabilities @ [0, 1, 2], atol=1e-6)
    assert judge(classification, held_out).macro_f1 > 0.6


def test_classes_are_worth_their_labels():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1.0, 4.0], 60)
    texts = strings([" ".join(rng.choice(TRADE if label > 0 else MILL, 6)) for label in labels])
    head = train_head("x", LabelledTexts(texts, labels), LabelledTexts(texts, labels), "classification").head
    assert head.classes == (-1, 4)
    trade, mill = head.rate(strings([" ".join(TRADE), " ".join(MILL)])).values[:, 0]
    assert -1 <= mill < 0 < 3 < trade <= 4


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_text_has_the_same_ratings_in_any_batch(kind, request):
    head = request.getfixturevalue(kind)
    texts = labelled(30, 4).texts
    together = head.rate(texts)
    order = np.random.default_rng(0).permutation(30)
    apart = [head.rate(texts.slice(row, 1)) for row in range(30)]
    assert np.array_equal(together.values[order], head.rate(texts.take(pa.array(order))).values)
    assert np.array_equal(together.values, np.concatenate([ratings.values for ratings in apart]))


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_texts_without_words_get_0_and_no_texts_nothing(kind, request):
    head = request.getfixturevalue(kind)
    ratings = head.rate(strings(["", " \t", "\0"]))
    assert not ratings.values.any()
    assert kind == "regression" or not ratings.probabilities.any()
    assert head.rate(strings([])).values.shape == (0, 1)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_saved_head_is_the_same_and_the_same_bytes_each_time(kind, request, tmp_path):
    head, texts = request.getfixturevalue(kind), labelled(30, 5).texts
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        head.save(tmp_path / name)
    first, second = (str(tmp_path / name) for name in ("first", "second"))
    assert (tmp_path / "first" / HEAD_FILE).read_bytes() == (tmp_path / "second" / HEAD_FILE).read_bytes()
    assert digest(first) == digest(second)
    loaded = load_rater(first, Reading())
    assert np.array_equal(loaded.rate(texts).values, head.rate(texts).values)
    outputs = describe(first, Reading())
    assert (outputs.names, outputs.classes) == (head.names, head.classes)


def test_the_same_texts_give_the_same_head(regression):
    again = train_head("readability", labelled(300, 0), labelled(60, 1), "regression").head
    assert np.array_equal(again.weights, regression.weights)


def test_the_penalty_is_the_best_on_texts_of_their_own():
    trained = train_head("readability", labelled(60, 0), labelled(60, 1), "regression")
    assert trained.choices[trained.penalty] == max(trained.choices.values())
    assert len(set(trained.choices.values())) > 1


def test_other_folders_are_refused(regression, tmp_path):
    def refused(message):
        with pytest.raises(RaterError, match=message) as refusal:
            load_rater(str(tmp_path), Reading())
        assert "\n" not in str(refusal.value)

    regression.save(tmp_path)
    said = json.loads((tmp_path / "rater.json").read_text())
    with (tmp_path / HEAD_FILE).open("wb") as file:
        np.savez(file, buckets=np.array([object()]))
    refused("no head of a rater")
    (tmp_path / HEAD_FILE).write_bytes(b"PK")
    refused("no head of a rater")
    (tmp_path / "rater.json").write_text(json.dumps(said | {"kind": "forest"}))
    refused("found the kind 'forest'")
    (tmp_path / "rater.json").write_text("[]")
    refused("no rater that was trained here")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ([1.0, 1.0], [1.0], "found 2 texts of 1 labels in the part 'train'"),
        ([1.0, 2.0], [], "found 0 texts of 0 labels in the part 'val'"),
        ([], [1.0], "found 0 texts of 0 labels in the part 'train'"),
    ],
)
def test_labels_that_teach_nothing_are_refused(train, val, message):
    parts = (LabelledTexts(strings(["corn"] * len(part)), np.array(part)) for part in (train, val))
    with pytest.raises(ValueError, match=message):
        train_head("x", *parts, "regression")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_spearman_is_that_of_scipy(pairs):
    first, second = np.array(pairs, np.float64).T
    found = spearman(first, second)
    if np.ptp(first) and np.ptp(second):
        assert found == pytest.approx(stats.spearmanr(first, second).statistic)
    else:
        assert found is None


def test_macro_f1_counts_classes_alike():
    labels, likeliest = np.array([0.0, 0, 0, 0, 1, 2]), np.array([0.0, 0, 0, 1, 1, 0])
    assert macro_f1(likeliest, labels) == pytest.approx((6 / 8 + 2 / 3 + 0) / 3)


def test_a_rater_of_length_is_seen_through():
    labels = np.array([0.0, 0, 1, 1])
    lengths = np.array([9.0, 8, 7, 1])
    quality = rater_quality(-lengths, labels, lengths)
    assert (quality.auc, quality.length_alone_auc, quality.spearman_with_length) == (1, 1, pytest.approx(-1))
    assert quality.length_alone == pytest.approx(-quality.spearman)

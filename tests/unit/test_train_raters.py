"""Labels of a recipe: how they are read and divided, what is refused, and that a rater is made of them once."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import make_recipe, write_lines
from tiny_raters import make_rater

from gristmill.models.rater_quality import rater_quality
from gristmill.models.rater_training import judge, train_head
from gristmill.pipelines.model_files import read_manifest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.progress import QuietReporter
from gristmill.pipelines.recipe_raters import DIMENSIONS, RaterModel
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.train_models import KINDS
from gristmill.pipelines.train_raters import PARTS, labelled_parts, part_of, read_labels, warnings_of
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError
from gristmill.scorers.registry import SCORERS, scorer_class

LABELS = Path(__file__).resolve().parents[3] / "shared/data/quality"
MILL = "the miller grinds corn and keeps flour for bread by river".split()
TRADE = "buy cheap watches now at best price with free shipping".split()


def records(count=200, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        label = "spam" if rng.random() < 0.5 else "ham"
        words = rng.choice(TRADE if label == "spam" else MILL, 8)
        yield {"content": " ".join(words), "kind": label, "book": number // 4}


def write_labels(path, rows):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    return path


def said(path, **keys):
    path = path if isinstance(path, dict) else str(path)
    return {"labels": path, "text": "content", "label": "kind", "classes": {"ham": 1, "spam": 0}} | keys


@pytest.fixture
def recipe(tmp_path):
    """A function: a recipe over a small corpus with raters."""
    write_lines(tmp_path / "pool.jsonl", " ".join(MILL), " ".join(TRADE))

    def make(score=("cleanliness",), **raters):
        keys = {"score": list(score), "models": {"raters": raters}}
        return make_recipe(tmp_path / "mill", [str(tmp_path / "pool.jsonl")], **keys)

    return make


def run(recipe, *stages):
    return prepare(recipe, beam_options([]), QuietReporter()).run(stages)


def manifest_of(tmp_path, name):
    return read_manifest(Workspace(str(tmp_path / "mill")), name)


def test_a_rater_is_trained_judged_and_scores(tmp_path, recipe):
    labels = write_labels(tmp_path / "labels.jsonl.gz", records())
    run(recipe(cleanliness=said(labels)), "ingest", "train", "score")
    manifest = manifest_of(tmp_path, "cleanliness")
    sizes = [manifest[f"num_{part}"] for part in PARTS]
    assert sum(sizes) == 200
    assert sizes[0] > 130
    assert min(sizes) > 5
    assert manifest["quality"]["num_texts"] == sizes[2]
    assert manifest["quality"]["macro_f1"] > 0.9
    assert manifest["quality"]["auc"] > 0.95
    assert manifest["warnings"] == []
    [scores] = (tmp_path / "mill/scores/cleanliness").rglob("*.parquet")
    mill, trade = pq.read_table(scores).to_pylist()
    assert mill["cleanliness"] > 0.8 > 0.2 > trade["cleanliness"]
    assert (mill["cleanliness_class"], trade["cleanliness_class"]) == (1, 0)
    assert sum(mill["cleanliness_probabilities"]) == pytest.approx(1)


def test_a_rater_is_trained_again_when_its_labels_or_its_section_change(tmp_path, recipe):
    labels, found = tmp_path / "labels.jsonl", []

    def train(rows, **keys):
        write_labels(labels, rows)
        run(recipe(cleanliness=said(labels, **keys)), "ingest", "train")
        found.append(manifest_of(tmp_path, "cleanliness")["identity"])
        return found[-1]

    first = train(records())
    assert train(records()) == first
    made = (tmp_path / "mill/models/cleanliness/head.npz").stat().st_mtime_ns
    train(records())
    assert (tmp_path / "mill/models/cleanliness/head.npz").stat().st_mtime_ns == made
    train(records(seed=1))
    train(records(), seed=1)
    assert len(set(found)) == 3


def test_labels_elsewhere_make_the_same_rater(tmp_path, recipe):
    identities = []
    for name in ("a.jsonl", "b.jsonl"):
        labels = write_labels(tmp_path / name, records())
        run(recipe(cleanliness=said(labels)), "ingest", "train")
        identities.append(manifest_of(tmp_path, "cleanliness")["identity"])
    assert len(set(identities)) == 1


def test_a_rater_without_labels_is_refused(recipe):
    with pytest.raises(RecipeError, match=r"models.raters.cleanliness: nothing to train it from; .*`labels`"):
        run(recipe(), "ingest")


def test_labels_that_are_not_there_are_refused_before_any_work(tmp_path, recipe):
    with pytest.raises(RecipeError, match=r"models.raters.cleanliness.labels: .*gone.jsonl is not there"):
        run(recipe(cleanliness=said(tmp_path / "gone.jsonl")), "ingest")


def test_each_part_may_have_a_file(tmp_path):
    paths = {part: str(write_labels(tmp_path / part, records(n + 3, n))) for n, part in enumerate(PARTS)}
    parts = labelled_parts(RaterModel(**said(paths)))
    assert [len(parts[part].labels) for part in PARTS] == [3, 4, 5]
    assert parts["val"].texts.to_pylist() == [row["content"] for row in records(4, 1)]
    assert parts["val"].labels.tolist() == [row["kind"] == "ham" for row in records(4, 1)]


def test_equal_texts_stay_together(tmp_path):
    rows = [*records(60), *records(60)]
    parts = labelled_parts(RaterModel(**said(write_labels(tmp_path / "labels.jsonl", rows))))
    found = [set(part.texts.to_pylist()) for part in parts.values()]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))


def test_a_group_stays_together(tmp_path):
    path = write_labels(tmp_path / "labels.jsonl", records(400))
    spec = RaterModel(**said(path, group="book"))
    by_book = {}
    for record in read_labels(str(path), spec):
        by_book.setdefault(record.group, set()).add(part_of(record.group, 0))
    assert len(by_book) == 100
    assert all(len(parts) == 1 for parts in by_book.values())
    assert set.union(*by_book.values()) == set(PARTS)


def test_the_division_is_by_seed_and_of_about_the_stated_size():
    found = [part_of(str(number), 0) for number in range(3000)]
    assert [round(found.count(part) / 3000, 1) for part in PARTS] == [0.8, 0.1, 0.1]
    assert found != [part_of(str(number), 1) for number in range(3000)]


def test_labels_are_numbers_or_words_with_a_worth(tmp_path):
    rows = [{"text": "a", "n": {"x": 1}}, {"text": "b", "n": {"x": 2.5}}]
    path = write_labels(tmp_path / "labels.jsonl", rows)
    assert [record.label for record in read_labels(str(path), RaterModel(label="n.x"))] == [1, 2.5]
    worth = RaterModel(label="n.x", classes={"1": 7, "2.5": 8})
    assert [record.label for record in read_labels(str(path), worth)] == [7, 8]


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"text": "b"}, {}, "line 2: found None as 'label' among text; expected a string or a number"),
        ({"label": 1}, {}, "line 2: found None as 'text' among label; expected a string"),
        ({"text": 3, "label": 1}, {}, "line 2: found 3 as 'text'"),
        ([1], {}, "line 2: found list; expected an object"),
        ({"text": "b", "label": "hma"}, {"classes": {"ham": 1}}, "line 2: .* did you mean 'ham'"),
        ({"text": "b", "label": "hma"}, {}, "line 2: found the label 'hma', .*`classes` says"),
    ],
)
def test_records_that_do_not_match_are_refused(tmp_path, row, keys, message):
    first = {"text": "a", "label": "ham" if "classes" in keys else 1}
    path = write_labels(tmp_path / "labels.jsonl", [first, row])
    with pytest.raises(ValueError, match=message) as refusal:
        list(read_labels(str(path), RaterModel(**keys)))
    assert "\n" not in str(refusal.value)


def test_real_labels_are_no_classes(tmp_path):
    path = write_labels(tmp_path / "l.jsonl", ({"text": str(n), "label": n / 7} for n in range(200)))
    with pytest.raises(ValueError, match=r"found 200 different labels; .*say `kind: regression`"):
        labelled_parts(RaterModel(labels=str(path)))


def test_a_damaged_file_is_refused(tmp_path):
    path = write_labels(tmp_path / "labels.jsonl.gz", records())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged"):
        list(read_labels(str(path), RaterModel(**said(path))))


def test_a_rater_of_length_is_warned_of(tmp_path, recipe):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, 400)
    rows = ({"text": " ".join(rng.choice(MILL, n)), "label": float(n)} for n in lengths)
    labels = write_labels(tmp_path / "labels.jsonl", rows)
    summary = run(recipe(cleanliness={"labels": str(labels), "kind": "regression"}), "ingest", "train")
    [note] = [note for note in summary.notes if "models.raters.cleanliness" in note]
    assert "follow the length of texts" in note


def test_what_cannot_be_judged_is_said():
    same = np.ones(3)
    assert "nothing is known of its quality" in warnings_of(rater_quality(same, same, same))[0]


@pytest.mark.parametrize(
    ("rater", "message"),
    [
        ({"path": "p", "seed": 1}, "seed is of raters that are trained here; leave it out beside a path"),
        ({"labels": {"train": "a", "val": "b"}}, "found train, val; expected one file, or each of"),
        ({"labels": {"train": "a", "val": "b", "test": "c"}, "group": "g"}, "group says how one file"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(rater, message):
    with pytest.raises(ValueError, match=message):
        RaterModel(**rater)


def test_every_dimension_has_a_scorer_and_a_maker():
    assert set(DIMENSIONS) <= KINDS.keys() & SCORERS.keys()
    assert all(scorer_class(name).trained_models == {"model": name} for name in DIMENSIONS)
    assert "qurating" not in DIMENSIONS  # four values of one model


@pytest.mark.parametrize(
    ("name", "keys", "measure", "least"),
    [
        ("clear_readability", {"kind": "regression"}, "spearman", 0.7),
        ("davidson_hate_offensive", {"classes": {"hate": 1, "offensive": 1, "neither": 0}}, "auc", 0.93),
    ],
)
def test_human_labels_are_learnt(name, keys, measure, least):
    path = LABELS / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} lies in shared/data, which is not beside this repository")
    parts = labelled_parts(RaterModel(labels=str(path), **keys))
    kind = keys.get("kind", "classification")
    quality = judge(train_head("x", parts["train"], parts["val"], kind).head, parts["test"])
    assert getattr(quality, measure) >= least
    assert abs(quality.spearman_with_length) < 0.3


def test_an_encoder_is_fine_tuned_and_scores(tmp_path, recipe):
    labels = write_labels(tmp_path / "labels.jsonl", records())
    encoder = {"path": str(make_rater(tmp_path / "encoder")), "epochs": 3, "learning_rate": 3e-3}
    run(recipe(cleanliness=said(labels, encoder=encoder)), "ingest", "train", "score")
    manifest = manifest_of(tmp_path, "cleanliness")
    assert len(manifest["selection"]) == 3
    assert manifest["quality"]["auc"] > 0.8
    [scores] = (tmp_path / "mill/scores/cleanliness").rglob("*.parquet")
    mill, trade = pq.read_table(scores)["cleanliness"].to_pylist()
    assert mill > trade
    assert not list((tmp_path / "mill/models").glob(".tmp*"))

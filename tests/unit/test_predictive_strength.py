"""The ladder, the strength of seed documents under it, and the classifier that is trained on both ends."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import make_recipe, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import other, strings, tiny

from gristmill.models.classifier_training import POSITIVE
from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.seed_set import is_in_seed_set, load_seed_set
from gristmill.models.text_classifier import TextClassifier
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import TrainingPlan, join_documents, train
from gristmill.pipelines import train_ladder
from gristmill.pipelines.model_files import read_manifest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.questions import Questions
from gristmill.pipelines.recipe_models import PredictiveStrengthModel, Rung
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.train_ladder import (
    OrderedRung,
    family_warnings,
    inversions,
    is_apart,
)
from gristmill.pipelines.train_models import models_of
from gristmill.pipelines.train_predictive_strength import end_warnings, label, rung_scorers
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError
from gristmill.scorers.doc_ids import random_keys

MILL = "the miller grinds the corn and keeps a tenth of the flour for the mill by the river".split()
TRADE = "buy cheap watches now at the best price with free shipping and a discount for every customer".split()


def sentences(words, count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, 12)) + f" {seed}.{n}" for n in range(count)]


# Labels.


@settings(deadline=None)
@given(strength=st.lists(st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0, math.nan]), max_size=30), data=st.data())
def test_both_classes_are_of_equal_size_and_from_the_ends(strength, data):
    keys = np.array(data.draw(st.permutations(range(len(strength)))), np.float64)
    at_one = [value for value in strength if value == 1]
    below = sorted(value for value in strength if value < 1)
    strength = np.array(strength, np.float64)
    if not at_one or not below:
        with pytest.raises(RecipeError, match=r"of strength 1 and .* below; expected some of each"):
            label(strength, keys, keys)
        return
    found = label(strength, keys, keys / len(keys))
    count = min(len(at_one), len(below))
    assert strength[found.positive].tolist() == [1.0] * count
    assert sorted(strength[found.negative].tolist()) == below[:count], "filled from 0 upwards"
    assert not (found.positive & found.negative).any()
    for value in set(below):  # of equal ones, those of the smallest keys
        chosen, left = (keys[(strength == value) & mask] for mask in (found.negative, ~found.negative))
        assert not len(chosen) or not len(left) or chosen.max() < left.min()
    assert found.held_out.tolist() == (keys / len(keys) < 0.1).tolist()


@pytest.mark.parametrize(
    ("strength", "ends"),
    [([1.0] * 7 + [0.0] * 3, ["1"]), ([0.0] * 7 + [1.0, math.nan], ["0"]), ([0.0] * 6 + [1.0] * 4, [])],
)
def test_a_ladder_that_tells_nothing_apart_is_said_to(strength, ends):
    found = end_warnings(np.array(strength))
    assert [message.split("of strength ")[1][0] for message in found] == ends


# The order of the rungs.


def test_rungs_whose_losses_differ_by_chance_are_not_apart():
    rng = np.random.default_rng(0)
    worse = {"a": rng.normal(3, 1, 400), "b": rng.normal(1, 1, 100)}
    assert is_apart(worse, {task: losses - 0.01 for task, losses in worse.items()})
    assert not is_apart(worse, worse)
    assert not is_apart(worse, {task: rng.permutation(losses) for task, losses in worse.items()})


def test_an_order_that_a_measurement_turns_round_is_said():
    (message,) = inversions("averages", "bits a byte of piqa", ["a", "b", "c"], [3.0, 2.0, 2.5])
    assert message == (
        "models.ladder: by averages c is better than b, by bits a byte of piqa it is worse (2.5000 against 2.0000); "
        "strength follows averages"
    )
    assert inversions("averages", "bits", ["a", "b"], [2.0, 2.0]) == []
    assert inversions("averages", "bits", ["a", "b"], [math.nan, math.nan]) == []


def test_models_of_two_families(tmp_path):
    tiny().save(tmp_path / "llama")
    tiny(1).save(tmp_path / "second")
    other("gpt2").save_pretrained(tmp_path / "gpt2")
    tiny().tokenizer.save(tmp_path / "gpt2")
    paths = [tmp_path / name for name in ("llama", "second", "gpt2")]
    rungs = [Rung(path=str(path)) for path in paths]
    assert family_warnings(rungs[:2], paths[:2]) == []
    (message,) = family_warnings(rungs, paths)
    assert "llama is llama with BPE" in message
    assert "gpt2 is gpt2 with BPE" in message


def test_a_sample_of_questions_keeps_their_answers_together():
    lengths = np.array([2, 3, 2, 4])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    prompts = strings(*(f"{question}" for question, length in enumerate(lengths) for _ in range(length)))
    answers = strings(*(f"{question}.{n}" for question, length in enumerate(lengths) for n in range(length)))
    questions = Questions(prompts, answers, offsets, np.array([0, 2, 1, 3]))
    assert questions.sampled(4) is questions
    found = questions.sampled(3)
    assert len(found.right) == 3
    for number, right in enumerate(found.right.tolist()):
        of_question = found.continuations[found.offsets[number] : found.offsets[number + 1]].to_pylist()
        (asked,) = set(found.prompts[found.offsets[number] : found.offsets[number + 1]].to_pylist())
        assert of_question == [f"{asked}.{n}" for n in range(lengths[int(asked)])]
        assert right == questions.right[int(asked)]


# Windows.


def rungs_of(folder, *contexts):
    for context in contexts:
        tiny(context=context).save(folder / str(context))
    return [OrderedRung(str(c), str(folder / str(c)), None, None, None) for c in contexts]


@pytest.mark.parametrize(
    ("contexts", "spec", "expected"),
    [
        ((2048, 4096), {}, (1901, 512)),
        ((128, 64), {}, (64, 17)),
        ((128, 64), {"window": 32, "stride": 32}, (32, 32)),
    ],
)
def test_every_rung_sees_windows_of_one_length(tmp_path, contexts, spec, expected):
    scorers = rung_scorers(rungs_of(tmp_path, *contexts), PredictiveStrengthModel(**spec))
    assert {(scorer.window, scorer.stride) for scorer in scorers} == {expected}


@pytest.mark.parametrize("spec", [{"window": 65}, {"stride": 65}])
def test_windows_that_a_rung_cannot_see(tmp_path, spec):
    with pytest.raises(
        RecipeError, match=r"models\.predictive_strength: found a window of .*; expected at most 64"
    ):
        rung_scorers(rungs_of(tmp_path, 64, 128), PredictiveStrengthModel(**spec))


# From a corpus to a classifier.


@pytest.fixture(scope="module")
def given_rungs(tmp_path_factory):
    """Three models, of which the first knows mills best, and the last trade."""
    folder = tmp_path_factory.mktemp("rungs")
    tokenizer = Tokenizer.train([*sentences(MILL, 20, 1), *sentences(TRADE, 20, 2)], 300)
    paths = []
    for name, num_mill in (("mill", 90), ("both", 45), ("trade", 0)):
        texts = strings(*sentences(MILL, num_mill, 3), *sentences(TRADE, 90 - num_mill, 4))
        model = LanguageModel.make(Architecture(2, 32, heads=2, context=16), tokenizer, 0)
        stream = join_documents(tokenizer.encode(texts), tokenizer.end_of_text)
        plan = TrainingPlan(batch_tokens=128, learning_rate=1e-2, epochs=3)
        train(model, stream, plan, folder / f"{name}-work", lambda row, num_steps: None)
        model.save(folder / name)
        paths.append(str(folder / name))
    return paths


@pytest.fixture
def write(tmp_path):
    """A function: writes a pool of three hosts and a source without, and says what a recipe over it is."""
    records = [
        {"text": text, "url": f"https://{host}.example/{number}"}
        for host, words in (("mill", MILL), ("trade", TRADE), ("rare", TRADE))
        for number, text in enumerate(sentences(words, 4 if host == "rare" else 150, len(host)))
    ]
    write_lines(tmp_path / "pool.jsonl", *records)

    def recipe(**models):
        corpus = {"path": str(tmp_path / "pool.jsonl"), "source": "web", "url": "url"}
        return make_recipe(tmp_path / "mill", [corpus], score=["predictive_strength"], models=models)

    return recipe


def run(recipe, stages=("train",)):
    return prepare(recipe, beam_options([])).run(stages)


def manifest_of(tmp_path, name):
    return read_manifest(Workspace(str(tmp_path / "mill")), name)


SPEC = {"hosts": 2, "documents_per_host": 120}


def test_the_order_of_the_ladder_decides_what_is_strong(write, given_rungs, tmp_path, monkeypatch):
    ladder = {"rungs": [{"path": path, "average": n} for n, path in enumerate(given_rungs)]}
    summary = run(write(ladder=ladder, predictive_strength=SPEC), ("ingest", "train"))
    folder = tmp_path / "mill/models/predictive_strength"
    found = pq.read_table(folder / "strengths.parquet").to_pylist()
    assert len(found) == 240
    by_host = {
        host: np.mean([row["strength"] for row in found if row["host"] == host])
        for host in ("mill.example", "trade.example")
    }
    assert by_host["trade.example"] > 0.95
    assert by_host["mill.example"] < 0.2
    for row in found:
        losses = row["bits_per_character"]
        pairs = [losses[i] > losses[j] for i in range(3) for j in range(i + 1, 3)]
        assert row["strength"] == pytest.approx(sum(pairs) / 3)
        if row["label"] is not None:
            assert (row["label"] == "positive") == (row["strength"] == 1)
    classifier = TextClassifier.load(folder)
    probability = classifier.probability(strings(*sentences(TRADE, 5, 8), *sentences(MILL, 5, 9)), POSITIVE)
    assert probability[:5].min() > probability[5:].max()
    manifest = manifest_of(tmp_path, "predictive_strength")
    assert manifest["quality"]["auc"] > 0.95
    assert [rung["rung"] for rung in manifest["rungs"]] == given_rungs
    labels = [row["label"] for row in found if not row["held_out"]]
    assert (labels.count("positive"), labels.count("negative")) == (
        manifest["num_positives"],
        manifest["num_negatives"],
    )
    ids = pa.array([row["doc_id"].bytes for row in found], pa.uuid())
    assert is_in_seed_set(ids, load_seed_set(folder)).all()
    (note,) = summary.notes
    assert "trade is better than" in note
    assert "by bits per character of the seed documents it is worse" in note

    (scorer,) = prepare(write(ladder=ladder, predictive_strength=SPEC), beam_options([])).scorers
    assert scorer.model == str(folder)

    before = (folder / "classifier.bin").stat().st_mtime_ns
    run(write(ladder=ladder, predictive_strength=SPEC))
    assert (folder / "classifier.bin").stat().st_mtime_ns == before, "nothing is trained twice"

    scored = []
    monkeypatch.setattr(LanguageModel, "losses", lambda *arguments: scored.append(arguments))
    ladder = {"rungs": [{"path": path, "average": -n} for n, path in enumerate(given_rungs)]}
    run(write(ladder=ladder, predictive_strength=SPEC))
    assert not scored, "the losses of each rung are there already"
    turned = {
        row["doc_id"]: row["strength"] for row in pq.read_table(folder / "strengths.parquet").to_pylist()
    }
    assert np.mean([turned[row["doc_id"]] for row in found if row["host"] == "mill.example"]) > 0.8


TRAINED = [
    {"size": "300k", "context": 16, "tokens": tokens, "batch_tokens": 128, "learning_rate": 3e-3}
    for tokens in (2500, 300)
]


def test_rungs_trained_here_are_ordered_by_the_answers_and_see_no_seed(write, tmp_path, monkeypatch):
    questions = [
        {"prompt": " ".join(TRADE[:n]), "choices": [" ".join(TRADE[n:]), " ".join(MILL[:4])], "label": 0}
        for n in range(2, 9)
    ]
    write_lines(tmp_path / "tasks.jsonl", *questions)
    models = {
        "tokenizer": {"vocab_size": 300},
        "ladder": {"rungs": TRAINED, "tasks": {"path": str(tmp_path / "tasks.jsonl"), "source": "trade"}},
        "predictive_strength": SPEC,
    }
    made = []
    pretrain = train_ladder.pretrain

    def killed_in_the_second(title, *arguments):
        made.append(title)
        if len(made) == 2:
            raise KeyboardInterrupt
        return pretrain(title, *arguments)

    monkeypatch.setattr(train_ladder, "pretrain", killed_in_the_second)
    monkeypatch.setattr(
        "gristmill.pipelines.train_predictive_strength.label", lambda strength, keys, held_out: _halves(keys)
    )
    with pytest.raises(KeyboardInterrupt):
        run(write(**models), ("ingest", "train"))
    run(write(**models))
    long, short = "ladder: 300k, 2500 tokens", "ladder: 300k, 300 tokens"
    assert made == [long, short, short], "a finished rung is not trained again"
    ladder = manifest_of(tmp_path, "ladder")
    assert ladder["ordered_by"] == "bits a byte of the right answers of trade"
    assert [row["rung"] for row in ladder["rungs"]] == ["300k, 300 tokens", "300k, 2500 tokens"]
    assert ladder["rungs"][0]["task_loss"] > ladder["rungs"][1]["task_loss"]
    seeds = pq.read_table(tmp_path / "mill/models/predictive_strength/strengths.parquet")
    for row in ladder["rungs"]:
        sample = Sample(*row["sample"])
        keys = random_keys(seeds["doc_id"], sample.seed)
        assert not ((keys >= sample.low) & (keys < sample.high)).any()
        assert json.loads((tmp_path / "mill/models/ladder" / row["folder"] / "sample.json").read_text())

    more = [
        TRAINED[1] | {"average": 1},
        {**TRAINED[0], "tokens": 600, "average": 2},
        TRAINED[0] | {"average": 3},
    ]
    run(write(**models | {"ladder": {"rungs": more}}))
    assert made[3:] == ["ladder: 300k, 600 tokens"], "of a changed ladder, what is new is trained"
    ladder = manifest_of(tmp_path, "ladder")
    assert [row["folder"] for row in ladder["rungs"]] == ["rung-0", "rung-1", "rung-2"]
    steps = [
        pq.read_metadata(tmp_path / "mill/models/ladder" / row["folder"] / "training_log.parquet").num_rows
        for row in ladder["rungs"]
    ]
    assert steps == sorted(set(steps)), "each rung lies in its own folder"


def _halves(keys):
    from gristmill.pipelines.train_predictive_strength import Labels

    return Labels(keys < 0.5, keys >= 0.5, np.zeros(len(keys), bool))


def test_a_ladder_that_saw_everything_leaves_no_seed(write, tmp_path):
    rungs = [
        {**rung, "tokens": 10**9, "batch_tokens": 1 << 14, "context": 16 + n}
        for n, rung in enumerate(TRAINED)
    ]
    target = {"path": str(tmp_path / "pool.jsonl")}
    recipe = write(tokenizer={"vocab_size": 300}, ladder={"rungs": rungs[:1] + TRAINED[1:]})
    recipe = recipe.model_validate(recipe.model_dump() | {"target": target})
    with pytest.raises(RecipeError, match="the corpus holds no document that no rung was trained on"):
        run(recipe, ("ingest", "train"))
    assert manifest_of(tmp_path, "ladder")["ordered_by"] == "bits a byte of the target's held-out documents"


def test_a_recipe_without_rungs_or_target(write):
    with pytest.raises(
        RecipeError, match=r"models\.ladder: predictive strength compares at least two models"
    ):
        models_of(write(), ["predictive_strength"])
    with pytest.raises(
        RecipeError, match=r"models\.ladder: trained on the target, .* expected `target`, `tasks`"
    ):
        models_of(write(ladder={"rungs": TRAINED}), ["predictive_strength"])
    given = {"rungs": [{"path": "/a", "average": 1}, {"path": "/b", "average": 2}]}
    assert models_of(write(ladder=given), ["predictive_strength"]) == ["ladder", "predictive_strength"]
    assert models_of(write(predictive_strength={"path": "/c.bin"}), ["predictive_strength"]) == []

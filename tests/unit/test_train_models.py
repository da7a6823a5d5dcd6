"""Which models are trained, when they are trained again, and that a kill costs no more than time."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpora import make_recipe, write_lines
from tiny_models import other, tiny, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from gristmill.models import training as training_steps
from gristmill.models.language_model import LanguageModel, sample_of
from gristmill.pipelines import train_language_models, training
from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.model_files import read_manifest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.progress import QuietReporter
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.train_models import models_of, named_model
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError

MILL = "the miller grinds the corn and keeps a tenth of the flour for the mill by the river".split()
TRADE = "buy cheap watches now at the best price with free shipping and a discount for every customer".split()
MODELS = {
    "tokenizer": {"vocab_size": 300},
    "prior": {"size": "300k", "context": 16, "tokens": 3000, "batch_tokens": 128, "learning_rate": 3e-3},
    "conditional": {"batch_tokens": 128, "epochs": 2},
    "importance": {"num_buckets": 100},
}
SCORE = ["color_filter"]


def sentences(words, count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, 12)) + f" {seed}.{n}" for n in range(count)]


@pytest.fixture
def write(tmp_path):
    """A function: writes pool and target, and says what a recipe over them is."""
    write_lines(tmp_path / "pool/a.jsonl", *sentences(TRADE, 130, 0), *sentences(MILL, 10, 1))
    write_lines(tmp_path / "target.jsonl", *sentences(MILL, 100, 2))

    def recipe(**keys):
        keys = {"models": MODELS, "target": {"path": str(tmp_path / "target.jsonl")}, "score": SCORE} | keys
        return make_recipe(tmp_path / "mill", [f"{tmp_path}/pool/*.jsonl"], **keys)

    return recipe


def run(recipe, stages=("ingest", "train"), reporter=None):
    curation = prepare(recipe, beam_options([]), reporter or QuietReporter())
    return curation.run(stages)


def changed(**models):
    return {name: MODELS.get(name, {}) | models.get(name, {}) for name in MODELS.keys() | models.keys()}


def digests(tmp_path):
    """Content of every file of every model; seconds differ."""
    files = (path for path in (tmp_path / "mill/models").rglob("*") if path.is_file())
    kept = (path for path in files if path.name not in ("manifest.json", "training_log.parquet"))
    return {str(path.relative_to(tmp_path)): path.read_bytes() for path in kept}


@pytest.fixture
def made(monkeypatch):
    """Names of the models that are made, in order."""
    names = []
    make = train_language_models.LanguageModel.save

    def note(self, folder):
        names.append(folder.parent.name.removeprefix(".tmp-"))
        make(self, folder)

    monkeypatch.setattr(LanguageModel, "save", note)
    tokenizers = train_language_models.Tokenizer.train

    def count(texts, vocab_size):
        names.append("tokenizer")
        return tokenizers(texts, vocab_size)

    monkeypatch.setattr(train_language_models.Tokenizer, "train", count)
    return names


def test_nothing_is_trained_twice(write, tmp_path, made):
    summary = run(write())
    assert made == ["tokenizer", "prior", "conditional"]
    assert not [note for note in summary.notes if "look alike" in note]
    manifests = {name: read_manifest_of(tmp_path, name) for name in made}
    assert 2000 < manifests["prior"]["num_tokens"] < 4000
    assert manifests["conditional"]["target_against_pool_auc"] > 0.8
    log = pq.read_table(tmp_path / "mill/models/prior/training_log.parquet").to_pylist()
    assert len(log) == manifests["prior"]["num_steps"]
    assert log[-1]["loss"] < log[0]["loss"]
    assert not list((tmp_path / "mill/models").glob(".tmp*"))
    before = digests(tmp_path)
    run(write())
    assert len(made) == 3
    assert digests(tmp_path) == before


def test_the_target_classifier_is_judged_by_held_out_documents(write, tmp_path):
    run(write(score=["target_classifier"], models={"target_classifier": {"epoch": 50}}))
    manifest = read_manifest_of(tmp_path, "target_classifier")
    quality = manifest["quality"]
    assert 80 < manifest["num_positives"] < 100
    assert 0 < quality["num_positives"] <= 100 - manifest["num_positives"]
    assert 0 < quality["num_negatives"] <= 140 - manifest["num_negatives"]
    assert 0.8 < quality["auc"] <= 1
    assert quality["brier"] < 0.25
    assert (
        sum(part["count"] for part in quality["bins"]) == quality["num_positives"] + quality["num_negatives"]
    )


def test_few_documents_of_a_large_target_are_none_of_those_held_out(write, tmp_path):
    run(write(score=["target_classifier"], models={"target_classifier": {"max_documents": 9}}))
    assert 0 < read_manifest_of(tmp_path, "target_classifier")["num_positives"] < 30


def test_domains_are_counted_each_on_its_own_and_beside_the_pool(write, tmp_path):
    write_lines(tmp_path / "mill.jsonl", *sentences(MILL, 30, 3))
    write_lines(tmp_path / "pool.jsonl", *sentences(TRADE, 30, 4))
    domains = {name: str(tmp_path / f"{name}.jsonl") for name in ("mill", "pool")}
    recipe = write(score=["domain_importance"], models={"domain_importance": {"domains": domains}}, target=[])
    run(recipe, ("ingest", "train", "score"))
    manifest = read_manifest_of(tmp_path, "domain_importance")
    # Of 13 words, and of 12 pairs of them, a document; the number is two words and a mark.
    assert manifest["num_ngrams"] == {"mill": 30 * 29, "pool": 30 * 29}
    assert manifest["num_pool_ngrams"] == 140 * 29
    with open_catalog(Workspace(str(tmp_path / "mill"))) as connection:
        query = "SELECT dsir_mill > dsir_pool AS is_mill, count(*) AS n FROM scores GROUP BY 1 ORDER BY 1"
        found = run_query(connection, query).to_pylist()
    assert found == [{"is_mill": False, "n": 130}, {"is_mill": True, "n": 10}]
    run(recipe)
    assert read_manifest_of(tmp_path, "domain_importance") == manifest
    write_lines(tmp_path / "other.jsonl", *sentences(MILL, 5, 5))
    domains["mill"] = str(tmp_path / "other.jsonl")
    run(write(score=["domain_importance"], models={"domain_importance": {"domains": domains}}, target=[]))
    assert read_manifest_of(tmp_path, "domain_importance")["num_ngrams"]["mill"] == 5 * 29


def test_domains_that_cannot_be_counted_are_refused(write, tmp_path):
    with pytest.raises(RecipeError, match=r"models.domain_importance: .* expected `domains`, or a `path`"):
        models_of(write(models={}), ["domain_importance"])
    absent = {"domain_importance": {"domains": {"wiki": str(tmp_path / "wiki.jsonl")}}}
    with pytest.raises(RecipeError, match=r"domains.wiki.path: nothing matches .*wiki.jsonl"):
        run(write(score=["domain_importance"], models=absent))
    write_lines(tmp_path / "wiki.jsonl", " ")
    with pytest.raises(RecipeError, match=r"domains.wiki: found no n-gram in the target"):
        run(write(score=["domain_importance"], models=absent))


def read_manifest_of(tmp_path, name):
    return read_manifest(Workspace(str(tmp_path / "mill")), name)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"prior": {"seed": 1}}, ["prior", "conditional"]),
        ({"conditional": {"epochs": 1}}, ["conditional"]),
        ({"tokenizer": {"vocab_size": 310}}, ["tokenizer", "prior", "conditional"]),
        ({"importance": {"num_buckets": 90}}, []),
    ],
    ids=["prior", "conditional", "tokenizer", "importance"],
)
def test_a_changed_model_is_trained_again_with_its_children(write, made, change, again):
    run(write())
    made.clear()
    run(write(models=changed(**change)))
    assert made == again


def test_another_target_trains_the_conditional_again(write, tmp_path, made):
    run(write())
    first = digests(tmp_path)["mill/models/conditional/model.safetensors"]
    write_lines(tmp_path / "other.jsonl", *sentences(MILL, 30, 9))
    made.clear()
    run(write(target={"path": str(tmp_path / "other.jsonl")}))
    assert made == ["conditional"]
    assert read_manifest_of(tmp_path, "conditional")["num_tokens"] < 30 * 100
    run(write())
    assert made == ["conditional"] * 2
    assert digests(tmp_path)["mill/models/conditional/model.safetensors"] == first


def test_a_corpus_that_grows_trains_nothing(write, tmp_path, made):
    run(write())
    write_lines(tmp_path / "pool/b.jsonl", *sentences(TRADE, 50, 5))
    made.clear()
    run(write())
    assert made == []


class Killed(BaseException):
    """What a reporter raises in place of a kill."""


class Killer(QuietReporter):
    """Dies in the training of one model, at one step."""

    def __init__(self, model, step):
        self.model, self.step = model, step

    def start_training(self, model, num_tokens):
        self.current = model

    def update(self, num_documents, num_bytes, seconds):
        if getattr(self, "current", None) == self.model and num_documents == self.step:
            raise Killed


@pytest.mark.parametrize("model", ["prior", "conditional"])
def test_a_kill_resumes_and_changes_nothing(write, tmp_path, monkeypatch, model):
    run(write())
    expected = digests(tmp_path)
    (tmp_path / "mill").rename(tmp_path / "first")
    monkeypatch.setattr(training_steps, "CHECKPOINT_S", -1.0)
    steps = []
    step = training_steps._State.step
    monkeypatch.setattr(training_steps._State, "step", lambda *a: steps.append(1) or step(*a))
    with pytest.raises(Killed):
        run(write(), reporter=Killer(model, 5))
    assert (tmp_path / "mill/models" / f".tmp-{model}" / "checkpoint.safetensors").exists()
    done = len(steps)
    run(write())
    assert digests(tmp_path) == expected
    total = sum(read_manifest_of(tmp_path, name)["num_steps"] for name in ("prior", "conditional"))
    assert len(steps) == total + 1, f"{done} steps before the kill, one of them not in the checkpoint"


def test_a_killed_training_of_another_recipe_starts_anew(write, tmp_path, monkeypatch):
    monkeypatch.setattr(training_steps, "CHECKPOINT_S", -1.0)
    with pytest.raises(Killed):
        run(write(), reporter=Killer("prior", 5))
    run(write(models=changed(prior={"seed": 4})))
    resumed = digests(tmp_path)
    (tmp_path / "mill").rename(tmp_path / "first")
    run(write(models=changed(prior={"seed": 4})))
    assert digests(tmp_path) == resumed


def test_without_a_target(write):
    with pytest.raises(
        RecipeError, match=r"models\.conditional: trained on the target, and the recipe has none"
    ):
        prepare(write(target=[]), beam_options([]))
    assert models_of(write(target=[]), ["prior"]) == ["tokenizer", "prior"]


def test_an_empty_target(write, tmp_path):
    write_lines(tmp_path / "empty.jsonl", {"text": "something", "split": "test"})
    target = {"path": str(tmp_path / "empty.jsonl"), "only": {"split": "train"}}
    with pytest.raises(
        RecipeError, match="target: it holds no text; expected documents to fine-tune the prior on"
    ):
        run(write(target=target))


def test_a_target_that_is_not_there(write):
    with pytest.raises(
        RecipeError, match=r"target\.0\.path: nothing matches /nowhere\.jsonl; expected a file"
    ):
        prepare(write(target={"path": "/nowhere.jsonl"}), beam_options([]))


def test_few_documents_are_all_trained_on(write, tmp_path):
    write_lines(tmp_path / "book.jsonl", " ".join(sentences(MILL, 80, 7)))
    run(write(target={"path": str(tmp_path / "book.jsonl")}))
    manifest = read_manifest_of(tmp_path, "conditional")
    assert manifest["target_against_pool_auc"] is None
    assert manifest["num_tokens"] > 1000


def test_named_models(write):
    assert named_model(write(), "conditional") == ["tokenizer", "prior", "conditional"]
    assert named_model(write(), "importance") == ["importance"]
    with pytest.raises(RecipeError, match=r"no model 'priors'; allowed: .*; did you mean 'prior'\?"):
        named_model(write(), "priors")


def test_models_given_by_path_are_used_and_not_trained(write, tmp_path, made):
    tiny().save(tmp_path / "given")
    given = str(tmp_path / "given")
    made.clear()
    recipe = write(models=changed(prior={"path": given}))
    run(recipe)
    assert made == ["conditional"]
    assert prepare(recipe, beam_options([])).scorers[0].prior == given
    prior, conditional = (
        LanguageModel.load(path) for path in (given, str(tmp_path / "mill/models/conditional"))
    )
    assert prior.model.config.hidden_size == conditional.model.config.hidden_size == 32

    run(recipe)
    assert made == ["conditional"]
    tiny(seed=5).save(tmp_path / "given")
    made.clear()
    run(recipe)
    assert made == ["conditional"], "another model lies at the same path"


def test_a_prior_with_dropout_trains_the_same_way_every_time(write, tmp_path):
    other("gpt2").save_pretrained(tmp_path / "given")
    tokenizer().save(tmp_path / "given")
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        run(write(models=changed(prior={"path": str(tmp_path / "given")})))
        found.append(digests(tmp_path))
        (tmp_path / "mill").rename(tmp_path / f"mill-{seed}")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"tokenizer": {"path": "/nowhere"}}, r"models\.tokenizer\.path: /nowhere is not there"),
        (
            {"tokenizer": {"path": "{tmp}"}},
            r"models\.tokenizer: no tokenizer at .*: expected a tokenizer\.json",
        ),
        ({"prior": {"path": "{tmp}"}}, r"models\.prior: .*: no language model here; expected a Hugging Face"),
        (
            {"conditional": {"learning_rate": 1e30}},
            r"models\.conditional: step .* try a smaller learning rate",
        ),
    ],
)
def test_mistakes_are_one_line(write, tmp_path, models, message):
    models = {
        name: {key: str(tmp_path) if value == "{tmp}" else value for key, value in keys.items()}
        for name, keys in models.items()
    }
    with pytest.raises(RecipeError, match=message) as refusal:
        run(write(models=changed(**models)))
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_ends_nothing(write, tmp_path):
    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "mill": 1}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.save(str(tmp_path / "plain.json"))
    with pytest.raises(RecipeError, match=r"models\.tokenizer: the tokenizer names no end of text; expected"):
        run(write(models=changed(tokenizer={"path": str(tmp_path / "plain.json")})))


def test_target_and_pool_that_look_alike(write, tmp_path):
    target = {"path": f"{tmp_path}/pool/a.jsonl"}
    summary = run(write(target=target))
    assert [note for note in summary.notes if "target and pool look alike" in note]
    assert [note for note in run(write(target=target)).notes if "look alike" in note], (
        "said again by later runs"
    )


def test_flags_are_the_documents_trained_on(write, tmp_path, monkeypatch):
    models = changed(prior={"tokens": 1000})
    seen = []
    stream = train_language_models.write_stream

    def note(path, arrays, tokenizer):
        arrays = list(arrays)
        if path.parent.name == ".tmp-prior":
            seen.extend(text for texts in arrays for text in texts.to_pylist())
        return stream(path, arrays, tokenizer)

    monkeypatch.setattr(train_language_models, "write_stream", note)
    run(write(models=models), ["ingest", "train", "score"])
    (scores,) = (tmp_path / "mill/scores/color_filter").glob("*/part-*.parquet")
    flags = pq.read_table(scores)["in_prior_sample"].to_pylist()
    (shard,) = (tmp_path / "mill/corpus").glob("*.arrow")
    with pa.ipc.open_file(shard) as file:
        texts = file.read_all()["text"].to_pylist()
    assert [text for text, flag in zip(texts, flags, strict=True) if flag] == seen
    assert 5 < len(seen) < 70
    assert sample_of(str(tmp_path / "mill/models/prior"))[0] == 0


def test_the_first_batch_need_not_hold_the_probe(write, monkeypatch):
    """Of a large corpus the probe is a small share, and the first batch may have none of it."""
    monkeypatch.setattr(train_language_models, "PROBED_BYTES", 400)
    cut = training.sample_texts

    def one_by_one(workspace, shards, sample):
        for texts in cut(workspace, shards, sample):
            yield texts[:0]
            yield texts

    monkeypatch.setattr(training, "sample_texts", one_by_one)
    run(write(score=["perplexity"], models=changed(prior={"tokens": 4000})))

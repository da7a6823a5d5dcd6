"""Model scorers on shards: shared passes, steps that a kill leaves behind, and options that are refused."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mills import Row, build, write
from tiny_models import TEXT, fitted, slow_nll, tiny, tokens_of

from gristmill.models import likelihood
from gristmill.models.language_model import LanguageModel
from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import score_documents
from gristmill.pipelines.score_documents import score_shard, views
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers import language_models
from gristmill.scorers.base import ScorerError
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch

WORDS = TEXT.split()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Paths of two trained models of one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("prior", 0), ("conditional", 1)):
        fitted(folder / "work", seed=seed, steps=10).save(folder / name)
    return {name: str(folder / name) for name in ("prior", "conditional")}


@pytest.fixture
def scorers(models):
    """The three that share the prior."""
    made = [
        make_scorer("color_filter", {**models, "windows": True}),
        make_scorer("perplexity", {"model": models["prior"]}),
        make_scorer("embedding", {"model": models["prior"]}),
    ]
    for scorer in made:
        scorer.setup()
    return made


@pytest.fixture
def passes(monkeypatch):
    """Directories of the models that ran, a batch each."""
    ran = []
    losses = LanguageModel.losses

    def note(self, texts, window, stride):
        ran.append(len(texts.offsets) - 1)
        return losses(self, texts, window, stride)

    monkeypatch.setattr(LanguageModel, "losses", note)
    return ran


def rows(count):
    rng = np.random.default_rng(0)
    return [Row(n, " ".join(rng.choice(WORDS, n % 30))) for n in range(count)]


def mill(root, count=60):
    return build(root, [rows(count)], scorers=())


def side_files(root):
    files = sorted(Path(root).glob("scores/*/*/*.parquet"))
    return {path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_one_pass_of_each_model_serves_all_scorers(tmp_path, scorers, passes):
    made = mill(tmp_path)
    score_shard(made.workspace, made.shards[0], scorers)
    assert passes == [60, 60], "prior and conditional once each, not one a scorer"


def test_scores_are_those_of_the_losses(models, scorers):
    texts = [TEXT, "", "mill", TEXT * 5]
    batch = TextBatch.from_texts(texts)
    color, perplexity, embedding = (scorer.score(batch).to_pylist() for scorer in scorers)
    loaded = {name: LanguageModel.load(path) for name, path in models.items()}
    tokens = loaded["prior"].tokenizer.encode(batch.text)
    found = {name: model.losses(tokens, 16, 16) for name, model in loaded.items()}
    for row, text in enumerate(texts):
        num_tokens = int(found["prior"].num_tokens[row])
        prior, conditional = (found[name].nll[row] / max(num_tokens, 1) for name in ("prior", "conditional"))
        assert color[row]["num_tokens"] == num_tokens
        assert color[row]["nll_prior"] == prior
        assert color[row]["nll_conditional"] == conditional
        assert color[row]["color_filter"] == prior - conditional
        assert color[row]["bits_per_byte"] == pytest.approx(
            prior * num_tokens / np.log(2) / max(len(text.encode()), 1)
        )
        assert not color[row]["in_prior_sample"]
        assert perplexity[row]["perplexity"] == pytest.approx(np.exp(prior))
        windows = color[row]["color_filter_windows"]
        assert [window["num_tokens"] for window in windows] == [
            min(16, num_tokens - start) for start in range(0, num_tokens, 16)
        ]
        total = sum(window["num_tokens"] * window["nll_prior"] for window in windows)
        assert total == pytest.approx(prior * num_tokens, rel=1e-5)
        expected = found["prior"].hidden[row].astype(np.float16).tolist() if text else []
        assert embedding[row]["embedding"] == expected


def test_bits_are_counted_a_character_whatever_the_tokenizer(models):
    texts = [TEXT * 3, "", "müller 磨坊 🌾", "\n"]
    batch = TextBatch.from_texts(texts)
    scorer = make_scorer("bits_per_character", {"model": models["prior"], "window": 8, "stride": 3})
    scorer.setup()
    model = LanguageModel.load(models["prior"])
    expected = slow_nll(
        model.model, model.tokenizer.encode(batch.text), model.tokenizer.end_of_text, window=8, stride=3
    )
    found = scorer.score(batch)["bits_per_character"].to_numpy() * [len(text) for text in texts] * np.log(2)
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected[2] > expected[3] > expected[1] == 0


@pytest.fixture
def small_views(monkeypatch):
    """Several views a shard; a mill's batches have 7 rows."""
    monkeypatch.setattr(score_documents, "MODEL_VIEW_ROWS", 20)


class Killed(BaseException):
    """In place of a kill."""


@pytest.mark.parametrize("survived", [0, 1, 2, 4])
def test_a_kill_inside_a_shard_costs_one_step(tmp_path, scorers, passes, small_views, monkeypatch, survived):
    whole, cut = mill(tmp_path / "whole"), mill(tmp_path / "cut")
    score_shard(whole.workspace, whole.shards[0], scorers)
    assert passes == [14, 14] * 3 + [18, 18]
    expected = side_files(tmp_path / "whole")
    assert set(expected) == {"color_filter", "embedding", "perplexity"}

    del passes[:]
    counted = LanguageModel.losses

    def die(self, texts, window, stride):
        if len(passes) == 2 * survived:
            raise Killed
        return counted(self, texts, window, stride)

    monkeypatch.setattr(LanguageModel, "losses", die)
    if survived < 4:
        with pytest.raises(Killed):
            score_shard(cut.workspace, cut.shards[0], scorers)
        assert side_files(tmp_path / "cut") == {}
    monkeypatch.setattr(LanguageModel, "losses", counted)
    score_shard(cut.workspace, cut.shards[0], scorers)
    assert len(passes) == 8, "no batch passes twice"
    assert side_files(tmp_path / "cut") == expected
    assert not list((tmp_path / "cut").glob("scores/*/*/steps/*"))


def test_steps_of_other_documents_are_not_taken(tmp_path, scorers, small_views, monkeypatch):
    old, new = mill(tmp_path / "old"), mill(tmp_path / "new")
    monkeypatch.setattr(score_documents._Steps, "forget", lambda self: None)
    score_shard(old.workspace, old.shards[0], scorers)
    steps = {
        str(path.relative_to(tmp_path / "old")) for path in (tmp_path / "old").glob("scores/*/*/steps/*")
    }
    assert len(steps) == 12
    workspace = open_workspace(str(tmp_path / "other"), create=True)
    other = write(
        workspace, "part-00000-00000-0000", [Row(row.number, row.text + " mill") for row in rows(60)]
    )
    for step in steps:
        (tmp_path / "other" / step).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "old" / step, tmp_path / "other" / step)
    score_shard(workspace, other, scorers)
    assert side_files(tmp_path / "other") != side_files(tmp_path / "old")
    score_shard(new.workspace, new.shards[0], scorers)
    assert side_files(tmp_path / "new") == side_files(tmp_path / "old")


def test_views_for_models_are_full(monkeypatch, scorers):
    monkeypatch.setattr(score_documents, "MODEL_VIEW_BYTES", 3000)
    monkeypatch.setattr(score_documents, "MODEL_VIEW_ROWS", 50)
    texts = ["x" * (n % 97) for n in range(500)] + ["y" * 5000, ""]
    documents = TextBatch.from_texts(texts).documents
    found = list(views((documents[start : start + 11] for start in range(0, 502, 11)), scorers))
    assert [text for view in found for text in view["text"].to_pylist()] == texts
    assert max(map(len, found)) <= 50
    assert all(view.nbytes <= 3000 or len(view) <= 11 for view in found)
    assert len(found) < 30


def test_a_tokenizer_is_read_once(models, scorers, monkeypatch):
    language_models._loaded.cache_clear()
    loads = []
    load = Tokenizer.load
    monkeypatch.setattr(Tokenizer, "load", lambda path: loads.append(path) or load(path))
    for _ in range(3):
        for scorer in scorers:
            scorer.score(TextBatch.from_texts([TEXT]))
    assert len(loads) == 1


def refused(message, name, options):
    scorer = make_scorer(name, options)
    with pytest.raises(ScorerError, match=message) as refusal:
        scorer.fingerprint()
    assert "\n" not in str(refusal.value)


def test_options_that_do_not_fit_are_refused_before_any_scoring(models, tmp_path):
    prior = {"model": models["prior"]}
    expected = "expected 1 to 16, all that .*prior sees at once"
    refused(f"perplexity.model: found windows of 17 tokens; {expected}", "perplexity", prior | {"window": 17})
    refused("embedding.model: found windows of 0 tokens", "embedding", prior | {"window": 0})
    for stride in (0, 9, -1):
        message = f"perplexity.model: found a stride of {stride}; expected 1 to 8, the window"
        refused(message, "perplexity", prior | {"window": 8, "stride": stride})
    refused("no language model here", "perplexity", {"model": str(tmp_path)})


def test_two_models_that_do_not_belong_together(models, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(models["conditional"], other)
    Tokenizer.train([TEXT.upper()], 290).save(other)
    options = models | {"conditional": str(other)}
    refused(
        "color_filter: the tokenizers of .* differ; expected a conditional model that",
        "color_filter",
        options,
    )
    tiny(context=8).save(tmp_path / "short")
    options = models | {"conditional": str(tmp_path / "short")}
    refused("color_filter: the models see 16 and 8 tokens at once; say `window`", "color_filter", options)
    refused(
        "conditional: found windows of 16 tokens; expected 1 to 8", "color_filter", options | {"window": 16}
    )
    assert make_scorer("color_filter", options | {"window": 8}).fingerprint()


def test_broken_models_are_refused_by_setup(models, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(models["prior"], broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(ScorerError, match=r"perplexity\.model: .*broken: ") as refusal:
        make_scorer("perplexity", {"model": str(broken)}).setup()
    assert "\n" not in str(refusal.value)


def test_without_torch(models, monkeypatch):
    language_models.language_model.shared_model.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ScorerError, match=r"needs torch and transformers \(.*\); install gristmill\[models\]"
    ):
        make_scorer("perplexity", {"model": models["prior"]}).setup()


def test_the_prior_names_its_sample(models, tmp_path):
    prior = tmp_path / "prior"
    shutil.copytree(models["prior"], prior)
    options = models | {"prior": str(prior)}
    before = make_scorer("color_filter", options).fingerprint()
    (prior / "sample.json").write_text('{"seed": 1, "low": 0.0, "high": 0.5}')
    scorer = make_scorer("color_filter", options)
    assert scorer.fingerprint() != before
    made = mill(tmp_path / "mill")
    score_shard(made.workspace, made.shards[0], [scorer])
    (path,) = (tmp_path / "mill/scores/color_filter").glob("*/*.parquet")
    flags = pq.read_table(path)["in_prior_sample"].to_pylist()
    assert 15 < sum(flags) < 45


def test_hidden_states_of_many_documents_are_summed_at_once(monkeypatch):
    """A loop over documents or `np.add.at` would take seconds here."""
    model = tiny(width=64)
    texts = tokens_of(*[1] * 20_000)
    monkeypatch.setattr(
        "gristmill.models.language_model.window_losses",
        lambda *_: likelihood.WindowLosses(np.ones(20_000), np.ones((20_000, 64), np.float32)),
    )
    found = model.losses(texts, 16, 16)
    assert (found.hidden == 1).all()

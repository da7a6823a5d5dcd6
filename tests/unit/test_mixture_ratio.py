"""Tiny mixtures from end to end: what they tell, what is not trained again, and how they go on after a kill."""

import json
import random

import numpy as np
import pytest
from click.testing import CliRunner

from gristmill.models import training
from gristmill.pipelines import mixture_ratio as module
from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.cli import main
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.mixture_ratio import error_of_mean, find_mixture_ratio, join_streams, mix_steps
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.sample_texts import is_sampled
from gristmill.pipelines.score_documents import read_batches
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.base import RecipeError

RECIPE = """
workspace: {root}/mill
corpus: [{{path: {root}/corpus.jsonl, source: web}}]
target: {{path: {root}/target.jsonl}}
models:
  tokenizer: {{vocab_size: 300}}
  prior: {{size: 300k, context: 16, tokens: 6000, batch_tokens: 128, learning_rate: 0.01}}
score: [rules]
select: {{name: digits, where: {{digits: "rps_doc_frac_no_alph_words >= 0.5"}}}}
mixture: {{domain: digits, tokens: 2600, ratios: [1/8, 1/4, 1/2, 3/4], points: 6}}
"""
WORDS = ["mill", "grain", "river", "wheel", "stone", "flour", "bread", "farmer", "harvest", "barn"]


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A curated workspace of words, every tenth document of digits; the target is digits."""
    root = tmp_path_factory.mktemp("mixture")
    rng = random.Random(0)
    words = [" ".join(rng.choices(WORDS, k=40)) for _ in range(200)]
    digits = [" ".join(str(rng.randrange(1000)) for _ in range(40)) for _ in range(60)]
    write(root / "corpus.jsonl", [*words, *digits[:20]])
    write(root / "target.jsonl", digits[20:])
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    curation(root).run(["ingest", "score", "select"])
    return root


def curation(root, *overrides):
    return prepare(load_recipe(str(root / "recipe.yaml"), overrides), beam_options([]))


@pytest.fixture(scope="module")
def report(root):
    return find_mixture_ratio(curation(root))


def test_more_domain_text_teaches_more_of_the_domain(report):
    assert [curve.ratio for curve in report.curves] == ["1/8", "1/4", "1/2", "3/4"]
    changes = [curve.domain_change for curve in report.curves]
    assert changes[-1] < changes[0] < 0
    assert report.curves[-1].general_change > report.curves[0].general_change
    assert report.curves[-1].domain_epochs == pytest.approx(6 * report.curves[0].domain_epochs, rel=0.05)
    assert len(report.critical) == 6
    assert report.critical[-1].num_tokens == report.curves[0].num_tokens == 20 * 128
    assert report.notes == ()


def test_losses_are_in_sql_and_in_files(root, report):
    connection = open_catalog(open_workspace(str(root / "mill")))
    rows = run_query(connection, "SELECT * FROM mixtures ORDER BY ratio, num_tokens").to_pylist()
    connection.close()
    assert len(rows) == 4 * 7
    assert len({(row["domain_loss"], row["general_loss"]) for row in rows if row["num_tokens"] == 0}) == 1
    change = rows[6]["general_loss"] - rows[0]["general_loss"]
    assert (rows[6]["ratio"], change) == (1 / 8, pytest.approx(report.curves[0].general_change))
    folder = root / "mill" / "mixtures"
    assert (folder / "curves.svg").read_text().startswith("<?xml")
    assert json.loads((folder / "summary.json").read_text())["domain"] == "digits"
    found = verify_workspace(open_workspace(str(root / "mill")))
    assert (found.problems, found.orphans) == ([], [])


def test_nothing_is_trained_twice(root, report, monkeypatch):
    monkeypatch.setattr(module.Mixtures, "_train", None)
    assert find_mixture_ratio(curation(root)) == report


def test_the_command_prints_tables_and_refuses_to_extrapolate(root, report):
    found = CliRunner().invoke(main, ["mixture", str(root / "recipe.yaml"), "--at", "1000000000"])
    assert found.exit_code == 2
    assert "critical ratio of digits is" in found.stdout
    assert "nothing is claimed beyond" in found.stdout
    assert found.stderr.splitlines()[-1].startswith("error: ")


class Killed(Exception):
    """Stands for the end of a process."""


def test_killed_mixtures_go_on(root, report, monkeypatch):
    """Killed within a training, after a checkpoint; what comes out is what an undisturbed run gives."""
    trained = []
    train, observe = module.Mixtures._train, module.Mixtures._observe

    def noted(self, ratio, share):
        trained.append(ratio)
        return train(self, ratio, share)

    def killed(self, model, num_tokens):
        if (trained[-1:], num_tokens) == (["1/4"], 11 * 128):
            raise Killed
        return observe(self, model, num_tokens)

    for path in (root / "mill" / "mixtures").glob("ratio-*.json"):
        path.unlink()
    monkeypatch.setattr(training, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(module.Mixtures, "_train", noted)
    monkeypatch.setattr(module.Mixtures, "_observe", killed)
    with pytest.raises(Killed):
        find_mixture_ratio(curation(root))
    monkeypatch.setattr(module.Mixtures, "_observe", observe)
    assert find_mixture_ratio(curation(root)) == report
    assert trained == ["1/8", "1/4", "1/4", "1/2", "3/4"]


def test_another_ratio_trains_that_one_alone(root, report, monkeypatch):
    trained = []
    train = module.Mixtures._train
    monkeypatch.setattr(
        module.Mixtures, "_train", lambda *arguments: trained.append(arguments[1]) or train(*arguments)
    )
    find_mixture_ratio(curation(root, "mixture.ratios=[1/8, 1/4, 1/3, 1/2]"))
    assert trained == ["1/3"]
    assert not (root / "mill" / "mixtures" / "ratio-3-4.json").exists()


def test_held_out_documents_are_in_no_training(root, report, monkeypatch):
    seen = {}

    def noted(self, sample, without=None):
        seen.setdefault(self.name, []).append((sample, without))
        return texts(self, sample, without)

    texts = module.Pool.texts

    def stopped(self, ratio, share):
        assert all(len(stream) for stream in self.streams)
        raise Killed

    monkeypatch.setattr(module.Pool, "texts", noted)
    monkeypatch.setattr(module.Mixtures, "_train", stopped)
    with pytest.raises(Killed):
        find_mixture_ratio(curation(root, "mixture.seed=3"))
    ((held_out, prior), (general, _)) = seen["random"]
    ((domain, _),) = seen["digits"]
    workspace = open_workspace(str(root / "mill"))
    (batch,) = read_batches(workspace, "part-00000-00000-0000")
    held_out, prior, general, domain = (
        np.array(is_sampled(batch, sample)) for sample in (held_out, prior, general, domain)
    )
    judged = held_out & ~prior
    assert 0 < judged.sum() < held_out.sum() < 0.2 * len(batch)
    assert not (judged & (general | domain)).any()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mixture=null"], "mixture: the recipe has none; expected `mixture` with `domain` and `tokens`"),
        (["target=[]"], "mixture: nothing to judge by; expected `target`, or `ablate.held_out`"),
        (["mixture.tokens=2500"], "mixture.tokens: found 2,500, 19 steps of 128; expected at least 20 steps"),
        (
            ["models.prior.tokens=10000000", "models.prior.batch_tokens=4096"],
            "mixture: the prior was trained on all general documents",
        ),
        (
            ["mixture.domain=digit"],
            "domain: found 'digit', expected the name of a selection; allowed: digits",
        ),
        (["mixture.ratios=[1/8, 1/4, 1/2]"], r"mixture.ratios: found \[1/8, 1/4, 1/2\]; expected at least 4"),
        (["mixture.ratios=[1/8, 1/4, 1/2, 1]"], "ascending shares between 0 and 1"),
        (["mixture.ratios=[1/8, 1/2, 1/4, 3/4]"], "ascending shares between 0 and 1"),
        (["mixture.points=5"], "mixture.points: found 5; expected a number of at least 6"),
    ],
)
def test_impossible_mixtures(root, report, overrides, message):
    with pytest.raises(RecipeError, match=message):
        find_mixture_ratio(curation(root, *overrides))


def test_the_error_is_that_of_equal_passages_and_of_none_that_differ():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    assert error_of_mean(values * 10, np.full(4, 10)) == pytest.approx(values.std(ddof=1) / 2)
    assert error_of_mean(np.array([5.0, 50.0]), np.array([10, 100])) == pytest.approx(0)


def test_joined_streams_hold_the_domain_first(tmp_path):
    domain, general = np.arange(11, dtype=np.uint32), np.arange(100, 114, dtype=np.uint32)
    joined = join_streams(tmp_path / "joined", domain, general, context=4)
    sequences = training.cut_sequences(joined, 4)
    assert sequences.tolist() == [
        [0, 1, 2, 3, 4], [4, 5, 6, 7, 100], [100, 101, 102, 103, 104], [104, 105, 106, 107, 108],
        [108, 109, 110, 111, 112],
    ]  # fmt: skip


@pytest.mark.parametrize("share", [1 / 8, 1 / 3, 3 / 4])
def test_every_step_holds_nearly_its_share(share):
    steps = mix_steps([7, 50], share, batch_size=16, num_steps=25, seed=4)
    assert [len(step) for step in steps] == [16] * 25
    for step in steps:
        assert abs((step < 7).sum() - 16 * share) <= 2
    taken = np.concatenate(steps)
    domain, general = taken[taken < 7], taken[taken >= 7]
    assert abs(len(domain) - 400 * share) <= 2
    assert sorted(domain[:7].tolist()) == list(range(7))
    assert sorted(general[:50].tolist()) == list(range(7, 57))
    other = np.concatenate(mix_steps([7, 50], 1 / 2, 16, 25, 4))
    assert (general[:100] == other[other >= 7][:100]).all()

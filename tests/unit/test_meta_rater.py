"""Weights of quality signals: found by proxies, applied to stored scores, explained in SQL."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import make_recipe, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.signal_weights import Signal, SignalWeights
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.weight_search import Found
from gristmill.pipelines import proxies
from gristmill.pipelines.catalog import named_query, open_catalog, run_query
from gristmill.pipelines.model_files import PROXIES_FILE, model_path, read_manifest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.proxies import Pool, Proxy, TrainProxies, group_proxies, train_proxies
from gristmill.pipelines.recipe_models import MetaRaterModel
from gristmill.pipelines.runner import accelerated_transforms, beam_options
from gristmill.pipelines.score_documents import ACCELERATOR_HINT
from gristmill.pipelines.train_meta_rater import objective, warnings_of
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError, ScorerError
from gristmill.scorers.meta_rater import MetaRater
from gristmill.scorers.text import TextBatch

SIGNALS = (
    Signal("length", 0.25, True, (0.0, 10.0), (0.0, 5.0)),
    Signal("noise", 0.75, False, (0.0, 1.0), (0.0, 5.0)),
)
NUMBERS = st.floats(-20, 20) | st.just(float("nan"))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    SignalWeights(SIGNALS).save(folder)
    return MetaRater(model=str(folder))


def batch(lengths, noises):
    columns = {"noise": pa.array(noises, pa.float32()), "length": pa.array(lengths, pa.float64())}
    return TextBatch(pa.RecordBatch.from_pydict(columns))


# The scorer.


def test_the_score_is_the_sum_of_its_contributions(scorer):
    found = scorer.score(batch([10.0, 4.0, None], [0.0, 1.0, 0.5]))
    assert found["meta_rater"].to_pylist() == [5.0, 0.5, 1.875]
    assert found["meta_rater_contributions"].to_pylist() == [[1.25, 3.75], [0.5, 0.0], [0.0, 1.875]]
    assert found.schema == scorer.schema()


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12), st.randoms())
def test_splitting_or_reordering_changes_no_score(scorer, rows, random):
    order = random.sample(range(len(rows)), len(rows))
    together = scorer.score(batch(*([row[side] for row in rows] for side in (0, 1))))
    shuffled = scorer.score(batch(*([rows[place][side] for place in order] for side in (0, 1))))
    assert shuffled.equals(together.take(pa.array(order, pa.int64())))
    alone = [scorer.score(batch([length], [noise])) for length, noise in rows]
    assert pa.Table.from_batches(alone, scorer.schema()).equals(pa.Table.from_batches([together]))
    assert all(0 <= value <= 5 for value in together["meta_rater"].to_pylist())


def test_weights_and_versions_of_the_signals_are_the_fingerprint(scorer, tmp_path):
    SignalWeights((SIGNALS[0],)).save(tmp_path)
    prints = {
        scorer.fingerprint(),
        MetaRater(model=str(tmp_path)).fingerprint(),
        replace(scorer, versions={"length": "rules/0"}).fingerprint(),
        replace(scorer, versions={"length": "rules/1"}).fingerprint(),
    }
    assert len(prints) == 4
    assert pickle.loads(pickle.dumps(replace(scorer))).fingerprint() == scorer.fingerprint()


def test_a_folder_without_weights_is_said_to_be(tmp_path):
    with pytest.raises(ScorerError, match=r"meta_rater.model: .*weights.json: no signal weights"):
        _ = MetaRater(model=str(tmp_path)).inputs


# The proxies.


def pool(signals, lengths=None):
    lengths = [3] * len(signals) if lengths is None else lengths
    offsets = np.cumsum([0, *lengths])
    return Pool(
        np.arange(offsets[-1], dtype=np.uint32),
        offsets,
        np.array(signals, np.float64),
        np.linspace(0.9, 0.1, len(signals)),
        {"web": pa.array(["a text"], pa.large_string())},
    )


def test_the_best_documents_come_in_the_order_of_their_keys():
    four = pool([[5, 0], [0, 5], [4, 0], [1, 1]])
    assert four.best(np.array([1.0, 0.0]), 0.5).tolist() == [2, 0]
    assert four.best(np.array([0.0, 1.0]), 0.5).tolist() == [3, 1]
    assert four.best(np.array([1.0, 0.0]), 0.01).tolist() == [0], "one at least"
    assert four.join(np.array([2, 0])).tolist() == [6, 7, 8, 0, 1, 2]


def test_equal_documents_are_chosen_by_their_keys():
    assert pool([[1]] * 4).best(np.array([1.0]), 0.5).tolist() == [3, 2]


def test_a_pool_survives_the_disk(tmp_path):
    before = pool([[5, 0], [0, 5]])
    before.save(str(tmp_path))
    after = Pool.load(str(tmp_path))
    for name in ("stream", "offsets", "signals", "keys"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert dict(after.passages) == dict(before.passages)


SPEC = MetaRaterModel(tokens=256, batch_tokens=64, context=16, keep=0.5)
PROXIES = [Proxy(4, (1.0,)), Proxy(7, (-1.0,)), Proxy(9, (0.0,))]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    made = Tokenizer.train(["the mill grinds the corn"] * 5, 300)
    made.save(folder)
    return folder, made


@pytest.mark.parametrize("lengths", [[40] * 4, [40, 7, 40, 7]], ids=["stacked", "too short to stack"])
def test_proxies_learn_the_same_in_any_group(tokenizer, lengths):
    documents = pool([[5], [0], [4], [1]], lengths)
    alone = [train_proxies(documents, [proxy], SPEC, tokenizer[1])[0]["web"] for proxy in PROXIES]
    together = train_proxies(documents, PROXIES, SPEC, tokenizer[1])
    assert [losses["web"] for losses in together] == pytest.approx(alone, rel=1e-5)
    assert len(set(alone)) > 1
    assert all(0 < loss < 50 for loss in alone)


@pytest.mark.parametrize("proxies_of_group", [PROXIES, PROXIES[:1]], ids=["stacked", "alone"])
def test_a_proxy_that_diverges_is_named(tokenizer, proxies_of_group):
    spec = SPEC.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RecipeError, match=r"models.meta_rater: proxy 4: step 2 .* of norm nan"):
        train_proxies(pool([[5], [0]], [40] * 2), proxies_of_group, spec, tokenizer[1])


def test_groups_are_as_large_as_the_device_bears(tokenizer, monkeypatch):
    path = str(tokenizer[0])
    assert list(group_proxies(PROXIES, SPEC, path)) == [[proxy] for proxy in PROXIES]
    asked = []
    monkeypatch.setattr(proxies, "stack_size", lambda *numbers: asked.append(numbers) or 2)
    assert list(group_proxies(PROXIES, SPEC, path)) == [PROXIES[:2], PROXIES[2:]]
    assert asked == [(proxies.architecture_of(SPEC), tokenizer[1].vocab_size, 64)]


def test_groups_are_made_and_trained_where_gpus_are(tmp_path):
    pipeline = beam.Pipeline(options=beam_options([]))
    train = TrainProxies(Workspace(str(tmp_path)), "proxies", SPEC, "tokenizer")
    _ = pipeline | beam.Create([PROXIES]) | "TrainProxies" >> train
    assert dict(accelerated_transforms(pipeline.to_runner_api())) == {
        f"TrainProxies/{name}": ACCELERATOR_HINT for name in ("GroupProxies", "TrainGroups")
    }


def test_the_target_decides_where_there_is_one():
    assert objective({"web": 1.0, "books": 2.0}) == 1.5
    assert objective({"web": 1.0, "target": 3.0}) == 3.0


def test_losses_that_say_little_are_said_to():
    found = Found(np.ones(1), 1.0, "linear", {"linear": 1.1}, 0.1)
    (line,) = warnings_of(found, [{"web": 1.0}] * 9)
    assert line.startswith("the losses of 9 proxies hardly depend on the weights as far as linear can tell")
    assert warnings_of(replace(found, spearman=0.9), []) == []


# From the recipe to SQL.

MILL = "the miller grinds the corn and keeps a tenth of the flour for the mill by the river".split()


def make_search(folder):
    """A curation that searches for weights, in a workspace of this folder."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(MILL, 30)) if number % 2 else "".join(rng.choice(list("?!;,*#$ 0123456789"), 150))
        for number in range(240)
    ]
    write_lines(folder / "web.jsonl", *texts)
    write_lines(folder / "target.jsonl", *(" ".join(rng.choice(MILL, 30)) for _ in range(40)))
    signals = [{"rps_doc_frac_no_alph_words": "lowest"}, {"rps_doc_word_count": "highest"}]
    recipe = make_recipe(
        folder / "mill",
        [{"path": str(folder / "web.jsonl"), "source": "web"}],
        target=[{"path": str(folder / "target.jsonl")}],
        models={
            "tokenizer": {"vocab_size": 300, "max_bytes": 10_000},
            "meta_rater": {
                "signals": signals, "proxies": 12, "tokens": 2048, "batch_tokens": 256, "context": 32,
                "keep": 0.3, "rounds": 2,
            },
        },
        score=["rules", "meta_rater"],
        select=[{"name": "best", "top": {"by": "meta_rater", "keep": "1/4", "of": "documents"}}],
    )  # fmt: skip
    return prepare(recipe, beam_options([]))


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """A curation whose proxies are made once, and its folder."""
    folder = tmp_path_factory.mktemp("meta_rater")
    return make_search(folder), folder


@pytest.fixture(scope="module")
def workspace(curated):
    curation, folder = curated
    curation.run()
    return Workspace(str(folder / "mill"))


def test_signals_are_weighed_and_documents_chosen(workspace):
    manifest = read_manifest(workspace, "meta_rater")
    assert manifest["num_proxies"] == 12
    assert sum(weight for _, weight, _ in manifest["signals"]) == pytest.approx(1)
    connection = open_catalog(workspace)
    answer = run_query(
        connection,
        "SELECT count(*) AS documents, min(meta_rater) >= (SELECT max(meta_rater) FROM scores JOIN decisions USING "
        "(doc_id) WHERE NOT kept) AS best FROM scores JOIN decisions USING (doc_id) WHERE kept",
    ).to_pylist()
    assert answer == [{"documents": 60, "best": True}]
    rounds = run_query(
        connection, "SELECT round, count(*) AS n FROM proxies WHERE domain = 'target' GROUP BY 1 ORDER BY 1"
    )
    assert rounds.to_pylist() == [{"round": 1, "n": 9}, {"round": 2, "n": 3}]
    connection.close()


def test_a_query_says_why_a_document_is_rated_so(workspace):
    connection = open_catalog(workspace)
    (best,) = run_query(
        connection, "SELECT doc_id, meta_rater FROM scores ORDER BY meta_rater DESC, doc_id LIMIT 1"
    ).to_pylist()
    doc_id = best["doc_id"]
    doc_id = UUID(bytes=doc_id) if isinstance(doc_id, bytes) else doc_id
    why = run_query(connection, named_query(connection, "contributions", {"doc_id": str(doc_id)})).to_pylist()
    connection.close()
    assert {row["signal"] for row in why} == {"rps_doc_frac_no_alph_words", "rps_doc_word_count"}
    assert sum(row["contribution"] for row in why) == pytest.approx(best["meta_rater"], abs=1e-3)


def test_nothing_is_trained_or_scored_twice(workspace, curated, monkeypatch):
    monkeypatch.setattr(proxies, "train_proxies", None)
    curation, _ = curated
    before = read_manifest(workspace, "meta_rater")
    curation.run()
    assert read_manifest(workspace, "meta_rater") == before


@pytest.mark.parametrize(("size", "tolerance"), [(1, 0), (4, 1e-5)])
def test_a_killed_search_goes_on_in_groups_of_any_size(workspace, tmp_path, monkeypatch, size, tolerance):
    search, whole = make_search(tmp_path), read_proxies(workspace)
    trained, train = [], proxies.train_proxies

    def counts(pool, group, *how):
        trained.extend(proxy.number for proxy in group)
        return train(pool, group, *how)

    def dies_in_the_second_group(*how):
        if trained:
            raise RecipeError("killed")
        return counts(*how)

    monkeypatch.setattr(proxies, "stack_size", lambda *numbers: size)
    monkeypatch.setattr(proxies, "train_proxies", dies_in_the_second_group)
    with pytest.raises(RecipeError, match="killed"):
        search.run()
    assert len(trained) == size
    monkeypatch.setattr(proxies, "train_proxies", counts)
    search.run()
    assert sorted(trained) == list(range(12)), "each once"
    found = read_proxies(Workspace(str(tmp_path / "mill")))
    assert found["weights"][:9] == whole["weights"][:9]
    assert found["loss"][:9] == pytest.approx(whole["loss"][:9], rel=tolerance, abs=0)


def read_proxies(workspace):
    return pq.read_table(f"{model_path(workspace, 'meta_rater')}/{PROXIES_FILE}").to_pydict()


def test_scores_that_somebody_deleted_are_made_again(curated, workspace):
    before = read_proxies(workspace)
    shutil.rmtree(workspace.path("scores", "rules"))
    curated[0].run()
    assert read_proxies(workspace) == before
    assert list(Path(workspace.path("scores", "rules")).rglob("*.parquet"))


def recipe_of(folder, signals, score):
    write_lines(folder / "web.jsonl", "the mill")
    return make_recipe(
        folder / "mill",
        [{"path": str(folder / "web.jsonl"), "source": "web"}],
        models={"tokenizer": {"vocab_size": 300}, "meta_rater": {"signals": signals}},
        score=score,
    )


@pytest.mark.parametrize(
    ("signals", "line"),
    [
        ({"rps_doc_wordcount": None}, r"signals: nothing has scored 'rps_doc_wordcount'.*did you mean"),
        ({"rps_doc_word_count": None}, r"rps_doc_word_count has no better end; say"),
    ],
)
def test_signals_that_cannot_be_weighed_are_refused(tmp_path, signals, line):
    curation = prepare(recipe_of(tmp_path, signals, ["rules", "meta_rater"]), beam_options([]))
    with pytest.raises(RecipeError, match=line):
        curation.run()


def test_a_recipe_without_signals_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"models.meta_rater: it weighs scores .* expected `signals`"):
        prepare(recipe_of(tmp_path, {}, ["rules", "meta_rater"]), beam_options([]))


def test_signals_may_stand_as_a_list():
    spec = MetaRaterModel.model_validate({"signals": ["a", {"b": "lowest"}]})
    assert spec.signals == {"a": None, "b": "lowest"}
    with pytest.raises(ValueError, match="'a' stands twice"):
        MetaRaterModel.model_validate({"signals": ["a", {"a": "lowest"}]})


def test_a_second_round_needs_proxies_of_its_own():
    with pytest.raises(ValueError, match="found 11 proxies for 2 rounds; expected at least 12"):
        MetaRaterModel(proxies=11, rounds=2)


def test_weights_of_signals_that_nobody_scores_are_refused(tmp_path, scorer):
    recipe = recipe_of(tmp_path, {}, ["rules", {"meta_rater": {"model": scorer.model}}])
    with pytest.raises(ScorerError, match="it is made from length, which no scorer of this recipe makes"):
        prepare(recipe, beam_options([])).run()
    assert json.loads((tmp_path / "mill" / "workspace.json").read_text())

"""A representative subset from recipe to dataset: embeddings, clusters, ranks, a sample by probability."""

import shutil

import numpy as np
import pytest
from corpora import make_recipe, write_lines
from tiny_models import tiny
from tiny_raters import make_rater

from gristmill.pipelines.catalog import named_query, open_catalog, run_query
from gristmill.pipelines.model_files import read_manifest
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.preview import preview
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError, ScorerError

WORDS = {
    "mill": "the miller grinds the corn and keeps a tenth of the flour for the mill".split(),
    "sea": "waves wind storm harbour sailors anchor tide salt foam gulls mast rope".split(),
    "digits": [str(number) for number in range(900, 930)],
}
SUBSET = {"facility_location": {"budget": 0.25, "partition_documents": 40, "partitions": "clusters"}}


def texts(topic, count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[topic], 20)) for _ in range(count)]


def make(folder, root, score, **keys):
    model = folder / "model"
    if not model.exists():
        tiny(context=64).save(model)
        write_lines(folder / "web.jsonl", *texts("mill", 90, 0), *texts("sea", 20, 1), "")
        write_lines(folder / "digits.jsonl", *texts("digits", 10, 2))
        write_lines(folder / "target.jsonl", *texts("digits", 5, 3))
    embedding = {"embedding": {"model": str(model), "dtype": "float32"}}
    inputs = [{"path": str(folder / f"{name}.jsonl"), "source": name} for name in ("web", "digits")]
    return make_recipe(root, inputs, score=[embedding, *score], **keys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("subset")


@pytest.fixture(scope="module")
def curation(folder):
    recipe = make(
        folder,
        folder / "mill",
        ["exact_duplicate", "clusters", SUBSET],
        target=[{"path": str(folder / "target.jsonl"), "source": "target"}],
        models={"clusters": {"num_clusters": 12}},
        select=[
            {"name": "quarter", "top": {"by": "facility_location_rank", "keep": "1/4"}},
            {
                "name": "drawn",
                "sample": {
                    "keep": 30,
                    "seed": 1,
                    "draws": 2,
                    "weights": {"by": "facility_location_probability", "function": "proportional"},
                },
            },
            {"name": "near", "where": {"near_target": "cluster_target_share > 0"}},
        ],
    )
    found = prepare(recipe, beam_options([]))
    found.run()
    return found


def ask(curation, query):
    connection = open_catalog(Workspace(curation.recipe.workspace))
    try:
        return run_query(
            connection, named_query(connection, query, {}) if " " not in query else query
        ).to_pylist()
    finally:
        connection.close()


def test_selections_follow_ranks_probabilities_and_clusters(curation):
    kept = ask(curation, "SELECT selection, count(*) AS n FROM decisions WHERE kept GROUP BY 1 ORDER BY 1")
    numbers = {row["selection"]: row["n"] for row in kept}
    assert numbers["quarter"] == 30
    assert numbers["drawn-0"] == numbers["drawn-1"] == 30
    (row,) = ask(
        curation,
        "SELECT count(DISTINCT doc_id) AS n FROM decisions WHERE kept AND starts_with(selection, 'drawn')",
    )
    assert 35 < row["n"] < 60, "another draw, not another order"
    near = ask(
        curation,
        "SELECT source, count(*) AS n FROM decisions JOIN documents USING (doc_id) "
        "WHERE kept AND selection = 'near' GROUP BY 1",
    )
    of_source = {row["source"]: row["n"] for row in near}
    assert of_source["digits"] >= 8
    assert of_source.get("web", 0) <= 20
    manifest = read_manifest(Workspace(curation.recipe.workspace), "clusters")
    assert (manifest["num_clusters"], manifest["num_target"]) == (12, 5)


def test_representatives_are_listed_with_those_they_stand_for(curation):
    rows = ask(curation, "representatives")
    assert sum(row["num_documents"] for row in rows) == 120
    assert {source for row in rows for source in row["sources"]} == {"web", "digits"}
    blank = ask(
        curation,
        "SELECT facility_location_probability AS p FROM scores JOIN documents USING (doc_id) WHERE blank",
    )
    assert blank == [{"p": 0.0}]


def test_nothing_is_scored_twice_and_everything_verifies(curation, monkeypatch):
    workspace = Workspace(curation.recipe.workspace)
    monkeypatch.setattr("gristmill.pipelines.choose_subset.order_partition", None)
    curation.run()
    report = verify_workspace(workspace)
    assert (report.problems, report.orphans) == ([], [])
    assert any("facility_location" in line and "cached" in line for line in preview(curation))


def test_two_workers_choose_as_one_does(curation, folder):
    copy = folder / "two"
    shutil.copytree(folder / "mill", copy)
    alone = sides(copy)
    shutil.rmtree(copy / "scores" / "facility_location")
    recipe = curation.recipe.model_copy(update={"workspace": str(copy)})
    prepare(recipe, beam_options(["--direct_num_workers", "2"])).run(["score"])
    assert sides(copy) == alone
    assert len(alone) == 2


def test_newer_features_make_a_newer_order_and_nothing_else(curation, folder):
    copy = folder / "newer"
    shutil.copytree(folder / "mill", copy)
    before = score_files(copy)
    encoder = make_rater(folder / "encoder", context=64)
    score = [{"embedding": {"model": str(encoder)}}, *curation.recipe.score[1:]]
    recipe = curation.recipe.model_copy(update={"workspace": str(copy), "score": score})
    prepare(recipe, beam_options([])).run(["score"])
    made = score_files(copy).items() - before.items()
    assert before.items() <= score_files(copy).items()
    names = {path.split("/")[1] for path, _ in made}
    assert names == {"embedding", "clusters", "facility_location"}
    assert len(made) == 3 * 2
    assert sides(copy) != sides(folder / "mill")


def score_files(root):
    """Side files and when they were written."""
    found = (root / "scores").rglob("*.parquet")
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in found}


def sides(root):
    """The side files of the subset."""
    return [path.read_bytes() for path in sorted((root / "scores" / "facility_location").rglob("*.parquet"))]


def test_a_subset_without_embeddings_is_refused_before_any_work(tmp_path):
    write_lines(tmp_path / "web.jsonl", "the mill")
    recipe = make_recipe(tmp_path / "mill", [tmp_path / "web.jsonl"], score=["facility_location"])
    with pytest.raises((RecipeError, ScorerError), match="it is made from embedding, which no scorer"):
        prepare(recipe, beam_options([]))

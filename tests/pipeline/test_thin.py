"""Groups thinned by a whole recipe: from raw lines to decisions and dataset."""

import random
from itertools import product

import pytest
from corpora import write_lines

from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.base import RecipeError

RECIPE = """
workspace: mill
corpus:
  - {path: first.jsonl, source: first, url: url}
  - {path: second.jsonl, source: second, url: url}
score: [rules, simhash]
select:
  name: thinned
  thin: {within: host, prefer: [second], then: rps_doc_word_count, direction: highest}
"""
WORDS = ["".join(letters) for letters in product("bdfgklmn", "aeiou", "prst")]
PAGE = " ".join(random.Random(1).choices(WORDS, k=600))
OTHER = " ".join(random.Random(2).choices(WORDS, k=600))


@pytest.fixture
def recipe(tmp_path):
    write_lines(
        tmp_path / "first.jsonl",
        {"id": "short", "url": "https://a.example/1", "text": PAGE},
        {"id": "long", "url": "https://a.example/2", "text": f"{PAGE} Today."},
        {"id": "other", "url": "https://a.example/3", "text": OTHER},
        {"id": "elsewhere", "url": "https://b.example/1", "text": PAGE},
        {"id": "nowhere", "text": PAGE},
        {"id": "nowhere too", "text": PAGE},
    )
    write_lines(
        tmp_path / "second.jsonl", {"id": "preferred", "url": "https://a.example/4", "text": f"{OTHER} Ahoy."}
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return str(tmp_path / "recipe.yaml")


def test_what_is_near_an_exemplar_of_its_host_names_it(recipe, tmp_path):
    summary = prepare(load_recipe(recipe), beam_options([])).run()
    with open_catalog(open_workspace(str(tmp_path / "mill"))) as connection:
        dropped = run_query(
            connection,
            "SELECT d.id, step, reason, s.id AS exemplar FROM decisions JOIN documents d USING (doc_id) "
            "JOIN documents s ON s.doc_id = survivor ORDER BY d.id",
        ).to_pylist()
    assert [tuple(row.values()) for row in dropped] == [
        ("other", "thin", "thin", "preferred"),
        ("short", "thin", "thin", "long"),
    ]
    assert [step.step for step in summary.funnels["thinned"]] == ["empty", "block", "thin"]
    assert summary.datasets["thinned"]["num_documents"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("score=[rules]", "select.thin: no scorer makes simhash; add simhash to `score`"),
        ("select.thin.within=hots", "select.thin.within: no column 'hots' is stored; "),
        (
            "select.thin.max_distance=65",
            "select.thin.max_distance: found 65; expected a number of at most 64",
        ),
        (
            "select.thin.max_distance=-1",
            "select.thin.max_distance: found -1; expected a number of at least 0",
        ),
        ("select.thin={}", "select.thin.within: missing; expected keys: "),
    ],
)
def test_a_wrong_rule_is_refused_before_any_work(recipe, tmp_path, override, message):
    with pytest.raises(RecipeError) as caught:
        prepare(load_recipe(recipe, [override]), beam_options([]))
    assert message in str(caught.value)
    assert not (tmp_path / "mill").exists()

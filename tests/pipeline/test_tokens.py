"""From a recipe to token shards: by any number of workers the same bytes, and nothing done twice."""

import json
import re

import pytest

from gristmill.pipelines.catalog import open_catalog
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.preview import preview
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError

RECIPE = """
workspace: {root}/mill
corpus: [{{path: {root}/raw.jsonl, source: web}}]
models: {{tokenizer: {{vocab_size: 300}}}}
select: {{name: all}}
export: {{tokens: {{sequence_length: 32}}}}
"""


@pytest.fixture
def root(tmp_path):
    texts = (f"The miller of village {n} grinds the corn of {n * n} farmers." for n in range(200))
    lines = [json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(texts)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(root=tmp_path))
    return tmp_path


def planned(root, *overrides, workers=1):
    recipe = load_recipe(str(root / "recipe.yaml"), overrides)
    return prepare(recipe, beam_options(["--direct_num_workers", str(workers)]))


def run(root, *overrides, workers=1):
    return planned(root, *overrides, workers=workers).run()


def tokens(root, mill="mill"):
    folder = root / mill / "datasets/all/tokens"
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*.*"))
    }


def test_any_number_of_workers_gives_the_same_tokens(root):
    run(root)
    run(root, f"workspace={root}/other", workers=2)
    one, two = tokens(root), tokens(root, "other")
    assert {name: content for name, (content, _) in one.items()} == {
        name: content for name, (content, _) in two.items()
    }
    manifest = json.loads(one["manifest.json"][0])
    assert manifest["num_documents"] == 200
    assert manifest["num_rows"] > 50
    assert verify_workspace(Workspace(str(root / "mill"))).problems == []
    connection = open_catalog(Workspace(str(root / "mill")))
    assert connection.execute("SELECT selection, num_documents FROM datasets").fetchall() == [("all", 200)]
    connection.close()
    assert verify_workspace(Workspace(str(root / "mill"))).orphans == []


def test_any_number_of_workers_gives_the_same_conditioned_tokens(root):
    said = [
        "score=[pii]",
        "export.tokens.prefix={template: '{source}: ', cool_down: 0.2}",
        "export.tokens.control={by: num_emails, quantile: 0.5, per: sentence}",
    ]
    run(root, *said)
    run(root, f"workspace={root}/other", *said, workers=2)
    one, two = (
        {name: content for name, (content, _) in tokens(root, mill).items()} for mill in ("mill", "other")
    )
    assert one == two
    assert {"manifest.json", "cool_down/manifest.json", "cool_down/tokenizer/tokenizer.json"} < one.keys()
    report = verify_workspace(Workspace(str(root / "mill")))
    assert (report.problems, report.orphans) == ([], [])


def test_a_score_that_nobody_makes_is_refused_before_any_work(root):
    with pytest.raises(RecipeError, match="no scorer of this recipe makes column 'num_emails'"):
        planned(root, "export.tokens.control={by: num_emails, quantile: 0.5}")


def test_tokens_are_made_once_and_go_when_they_are_no_longer_wanted(root):
    said = "tokens     all: tokenizer prior, concatenate, sequences of 32; "
    assert list(preview(planned(root)))[-1] == f"{said}no history to estimate its cost from"
    run(root)
    assert re.fullmatch(
        f"{said}about [0-9.]+ s of one worker, .* [MG]B of memory a worker", list(preview(planned(root)))[-1]
    )
    before = tokens(root)
    run(root)
    run(root, "max_reject_rate=0.5")
    assert tokens(root) == before
    run(root, "export.tokens.packing=best_fit")
    assert tokens(root).keys() == before.keys()
    assert tokens(root) != before
    run(root, "export={}")
    assert tokens(root) == {}
    assert (root / "mill/datasets/all/manifest.json").exists()

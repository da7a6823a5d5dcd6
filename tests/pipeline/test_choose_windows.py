"""A recipe that chooses windows, with two tiny language models: from raw text to a dataset of windows."""

import json
from math import ceil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.base import RecipeError
from gristmill.scorers.color_filter import ColorFilter

PROSE = "The miller grinds the corn that the farmers bring, and keeps a tenth of the flour for himself. "
TEXTS = [
    PROSE * 3,
    "磨坊磨碎农民秋天从山上运来的谷物。" * 4,
    "é" * 90 + " \U0001f33e\U0001f33e \n\n" + PROSE,
    " leading and trailing space \n",
    "x",
    "   ",
]
CONTEXT = 24
RECIPE = """
workspace: {root}/mill
corpus: [{{path: {root}/raw.jsonl, source: web}}]
score:
  - color_filter: {{prior: {root}/prior, conditional: {root}/conditional, windows: true}}
select:
  - {{name: best, top: {{by: color_filter, keep: 1/4, of: tokens, unit: windows}}}}
  - {{name: streamed, top: {{by: color_filter, keep: 1/4, of: tokens, unit: windows, batch: 2}}}}
  - {{name: all, top: {{by: color_filter, keep: 100%, of: tokens, unit: windows}}}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("windows")
    for seed, name in enumerate(("prior", "conditional")):
        tokenizer = Tokenizer.train([PROSE], 300)
        architecture = Architecture(layers=1, width=16, heads=2, context=CONTEXT)
        LanguageModel.make(architecture, tokenizer, seed).save(root / name)
    lines = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(TEXTS)]
    (root / "raw.jsonl").write_text("\n".join(lines))
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    return root / "recipe.yaml"


@pytest.fixture(scope="module")
def curated(recipe):
    """The workspace, the manifests of its datasets, and the scores of its documents."""
    summary = prepare(load_recipe(str(recipe)), beam_options([])).run()
    workspace = open_workspace(str(recipe.parent / "mill"))
    (path,) = recipe.parent.glob("mill/scores/color_filter/*/*.parquet")
    return workspace, summary.datasets, pq.read_table(path).to_pylist()


def read(workspace, selection):
    return pq.read_table(workspace.dataset(selection, "train-00000-of-00001.parquet")).to_pylist()


def test_all_windows_end_to_end_are_the_documents(curated):
    workspace, manifests, scores = curated
    found = {}
    for row in read(workspace, "all"):
        assert row["window"] == len(found.setdefault(row["id"], []))
        found[row["id"]].append(row["text"])
    assert {number: "".join(parts) for number, parts in found.items()} == {
        str(number): text for number, text in enumerate(TEXTS) if text.strip()
    }
    assert [len(parts) for parts in found.values()] == [
        len(row["color_filter_windows"]) for row in scores[: len(found)]
    ]
    assert manifests["all"]["num_windows"] == sum(map(len, found.values()))


def test_windows_hold_the_tokens_that_were_scored(curated, recipe):
    workspace, _, scores = curated
    tokenizer = Tokenizer.load(str(recipe.parent / "prior"))
    whole = tokenizer.char_offsets(TEXTS[0])
    parts = [row["text"] for row in read(workspace, "all") if row["id"] == "0"]
    ends = [sum(map(len, parts[:count])) for count in range(1, len(parts) + 1)]
    assert ends == [*whole[CONTEXT:-1:CONTEXT], len(TEXTS[0])]
    sizes = [window["num_tokens"] for window in scores[0]["color_filter_windows"]]
    assert sizes == [CONTEXT] * (len(parts) - 1) + [len(whole) - 1 - CONTEXT * (len(parts) - 1)]


@given(text=st.text(min_size=1, max_size=120))
@example(text="\U0001f33e" * 50)
@example(text=" \n" * 40)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_cut_into_as_many_windows_as_are_scored(recipe, text):
    scorer = ColorFilter(prior=str(recipe.parent / "prior"), conditional=str(recipe.parent / "conditional"))
    (num_tokens,) = Tokenizer.load(scorer.prior).count(pa.array([text], pa.large_string()))
    parts = scorer.window_texts(text)
    assert "".join(parts) == text
    assert len(parts) == ceil(num_tokens / CONTEXT)


def test_the_best_windows_are_kept(curated):
    workspace, manifests, scores = curated
    windows = sorted(
        (window["nll_conditional"] - window["nll_prior"], score["doc_id"].int, number, window["num_tokens"])
        for score in scores[:5]
        for number, window in enumerate(score["color_filter_windows"])
    )
    total = sum(num_tokens for *_, num_tokens in windows)
    expected, reached = set(), 0
    for _, doc_id, number, num_tokens in windows:
        if 4 * reached >= total:
            break
        expected.add((doc_id, number))
        reached += num_tokens
    doc_ids = {str(score["doc_id"]): score["doc_id"].int for score in scores}
    found = {(doc_ids[row["doc_id"]], row["window"]) for row in read(workspace, "best")}
    assert found == expected
    assert 0 < manifests["best"]["num_windows"] < manifests["all"]["num_windows"]
    assert 4 * len(read(workspace, "streamed")) > len(windows)


def test_the_workspace_holds_and_nothing_is_made_again(curated, recipe):
    workspace, manifests, _ = curated
    assert verify_workspace(workspace).problems == []
    path = workspace.dataset("best", "train-00000-of-00001.parquet")
    before = (recipe.parent / path).stat().st_mtime_ns
    assert prepare(load_recipe(str(recipe)), beam_options([])).run().datasets == manifests
    assert (recipe.parent / path).stat().st_mtime_ns == before


def test_what_is_refused_has_its_place(recipe):
    with pytest.raises(RecipeError, match=r"^export\.clean_lines: the borders of windows cut lines"):
        prepare(load_recipe(str(recipe), ["export.clean_lines=c4"]), beam_options([]))
    with pytest.raises(
        RecipeError, match=r"select\.1\.top\.batch: each batch keeps a share of its own; found keep: 9"
    ):
        load_recipe(str(recipe), ["select.1.top.keep=9"])

"""A recipe from its file: what is no recipe, values set beside it, and paths, which are relative to it."""

import json
from fractions import Fraction

import pytest
from recipes import BASE, load, mistakes

from gristmill.pipelines.load_recipe import load_recipe, missing_files
from gristmill.pipelines.recipe import Recipe
from gristmill.scorers.base import RecipeError

HEAD = "workspace: mill\ncorpus: [{path: a, source: b}]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "expected a mapping with workspace, corpus, ...; found NoneType"),
        ("- a\n", "expected a mapping with workspace, corpus, ...; found list"),
        ("just words", "expected a mapping with workspace, corpus, ...; found str"),
        ("a: [1\n", "not YAML: while parsing a flow sequence"),
        ("a: b: c\n", "not YAML: mapping values are not allowed here"),
        ("a: !!python/object:os.system x\n", "not YAML: could not determine a constructor"),
        (HEAD + "workspace: other\n", "not YAML: key 'workspace' stands twice in one mapping"),
        (
            HEAD + "select: {name: a, where: {x: 'a', x: 'b'}}\n",
            "not YAML: key 'x' stands twice in one mapping",
        ),
        (HEAD + "when: 2020-13-45\n", "not YAML: month must be in 1..12"),
        (HEAD + "n: 0x_\n", "not YAML: invalid literal for int()"),
        (HEAD + "? [a]\n: b\n", "not YAML: while constructing a mapping"),
        (HEAD + "a: *nowhere\n", "not YAML: found undefined alias 'nowhere'"),
        (HEAD + "a: " + "[" * 5000, "not YAML: nested too deeply"),
        (HEAD + "---\nb: 1\n", "not YAML: expected a single document"),
        (HEAD + "yes: 1\n", "1: found True; expected a string as a key"),
        (HEAD + "5: 1\n", "5: found 5; expected a string as a key"),
    ],
)
def test_what_is_no_recipe(tmp_path, text, line):
    (found,) = mistakes(tmp_path, text)
    assert found[: len(line)] == line


def test_a_recipe_that_is_not_text(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"workspace: \xff\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml: not YAML: 'utf-8' codec"):
        load_recipe(str(path))


def test_a_recipe_that_is_not_there(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(RecipeError, match=r"cannot be read \(.*\); expected a recipe in YAML$"):
            load_recipe(str(path))


def test_a_file_system_that_is_not_there(tmp_path):
    for place in ("workspace", "corpus.0.path", "block.hosts.0"):
        content = {**BASE, "block": {"hosts": ["x"]}}
        content = json.loads(json.dumps(content))
        if place == "workspace":
            content["workspace"] = "zzz://bucket/a"
        elif place.startswith("corpus"):
            content["corpus"][0]["path"] = "zzz://bucket/a"
        else:
            content["block"]["hosts"] = ["zzz://bucket/a"]
        (line,) = mistakes(tmp_path, content)
        assert line.startswith(
            f"{place}: no file system for 'zzz://bucket/a'; expected a local path or one of "
        )
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe("zzz://bucket/recipe.yaml")


def test_merged_keys_may_be_overridden(tmp_path):
    text = HEAD + "select:\n- &base {name: a, where: {x: '1'}}\n- {<<: *base, name: b}\n"
    assert [(s.name, s.where) for s in load(tmp_path, text).select] == [("a", {"x": "1"}), ("b", {"x": "1"})]


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("select.0.name=test", "select.0.name", "test"),
        ("select.0.top.keep=1/4", "select.0.top.keep", Fraction(1, 4)),
        ("select.0.top.keep=7", "select.0.top.keep", 7),
        ("corpus.0.path=/x/a=b.jsonl", "corpus.0.path", "/x/a=b.jsonl"),
        ("select.0.where.english=a = 'b'", "select.0.where.english", "a = 'b'"),
        ("select.0.where.a=x > 1", "select.0.where.a", "x > 1"),
        ("select.0.deduplicate.prefer.0=books", "select.0.deduplicate.prefer", ["books"]),
        ("export.metadata=false", "export.metadata", False),
        ("max_reject_rate=0.5", "max_reject_rate", 0.5),
        ("score=[pii]", "score", ["pii"]),
        ("block.hosts=[/h.txt]", "block.hosts", ["/h.txt"]),
        ("select.0.quota=null", "select.0.quota", None),
    ],
)
def test_overrides(tmp_path, override, place, value):
    found = load(tmp_path, BASE, override)
    for part in place.split("."):
        found = (
            found[int(part)]
            if isinstance(found, list)
            else found[part]
            if isinstance(found, dict)
            else getattr(found, part)
        )
    assert found == value


def test_overrides_apply_in_order_and_to_one_place_only(tmp_path):
    text = HEAD + "select:\n- {name: a, where: &w {x: '1'}}\n- {name: b, where: *w}\n"
    recipe = load(tmp_path, text, "select.0.where.x=2 > 1", "select.0.where.x=3 > 1")
    assert [s.where for s in recipe.select] == [{"x": "3 > 1"}, {"x": "1"}]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("select", "--set select: expected key=value, such as --set select.name=test"),
        ("=x", "--set =x: expected key=value, such as --set select.name=test"),
        ("", "--set : expected key=value, such as --set select.name=test"),
        ("a..b=x", "--set a..b=x: expected key=value, such as --set select.name=test"),
        ("corpus.1.path=x", "--set corpus.1.path=x: expected a position below 1; found '1'"),
        ("corpus.path=x", "--set corpus.path=x: expected a position below 1; found 'path'"),
        ("corpus.-1.path=x", "--set corpus.-1.path=x: expected a position below 1; found '-1'"),
        ("corpus.².path=x", "--set corpus.².path=x: expected a position below 1; found '²'"),
        ("workspace.deep=x", "--set workspace.deep=x: 'workspace' holds a value, not a mapping"),
        ("score.0.x=1", "--set score.0.x=1: '0' holds a value, not a mapping"),
        ("export=[1", "--set export=[1: the value is not YAML: while parsing a flow sequence"),
        ("export={a: 1, a: 2}", "--set export={a: 1, a: 2}: the value is not YAML: key 'a' stands twice"),
        ("when=2020-13-45", "--set when=2020-13-45: the value is not YAML: month must be"),
        ("exprt.metadata=false", "exprt: unknown key 'exprt'; allowed: "),
        ("export.metdata=false", "export.metdata: unknown key 'metdata'; allowed: "),
        ("max_reject_rate=", "max_reject_rate: found None; expected a number"),
    ],
)
def test_wrong_overrides(tmp_path, override, line):
    (found,) = mistakes(tmp_path, BASE, override)
    assert found[: len(line)] == line


def test_paths_are_relative_to_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    content = {
        "workspace": "../mill/",
        "corpus": [
            {"path": "a/../b/*.jsonl", "source": "x"},
            {"path": "/abs/c.jsonl", "source": "x"},
            {"path": "gs://bucket/d.jsonl", "source": "x"},
            {"path": "~/e.jsonl", "source": "x"},
        ],
        "block": {"hosts": ["hosts.txt"], "ids": ["/abs/ids.txt"]},
    }
    recipe = load(tmp_path, content)
    assert recipe.workspace == f"{tmp_path.parent}/mill"
    assert [item.path for item in recipe.corpus] == [
        f"{tmp_path}/b/*.jsonl",
        "/abs/c.jsonl",
        "gs://bucket/d.jsonl",
        "/home/someone/e.jsonl",
    ]
    assert (recipe.block.hosts, recipe.block.ids) == ([f"{tmp_path}/hosts.txt"], ["/abs/ids.txt"])


def test_paths_by_name_are_relative_to_the_recipe(tmp_path):
    sets = {"quiz": "sets/quiz.jsonl", "far": "gs://bucket/far.jsonl", "wrong": 3}
    recipe = load(tmp_path, BASE | {"score": [{"decontamination": {"sets": sets, "fields": ["text"]}}]})
    assert recipe.scorer_options()["decontamination"] == {
        "sets": sets | {"quiz": f"{tmp_path}/sets/quiz.jsonl"},
        "fields": ["text"],
    }


def test_paths_are_relative_to_a_recipe_in_a_bucket(monkeypatch):
    content = {"workspace": "mill", "corpus": [{"path": "in/*.jsonl", "source": "x"}]}
    monkeypatch.setattr("gristmill.pipelines.files.read_bytes", lambda _: json.dumps(content).encode())
    recipe = load_recipe("gs://bucket/recipes/recipe.yaml")
    assert (recipe.workspace, recipe.corpus[0].path) == (
        "gs://bucket/recipes/mill",
        "gs://bucket/recipes/in/*.jsonl",
    )


def test_a_recipe_is_frozen_and_survives_json(tmp_path):
    recipe = load(tmp_path, BASE)
    with pytest.raises(ValueError, match="frozen"):
        recipe.workspace = "other"
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe


def test_missing_files_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.txt").write_text("x")
    content = {
        "workspace": "mill",
        "corpus": [
            {"path": "absent.jsonl", "source": "x"},
            {"path": "*.jsonl", "source": "x"},
            {"path": "empty", "source": "x"},
            {"path": "there.txt", "source": "x"},
        ],
        "block": {"hosts": ["absent.txt", "there.txt"]},
    }
    assert missing_files(load(tmp_path, content)) == [
        f"block.hosts: {tmp_path}/absent.txt is not there; expected a text file with one entry a line",
        f"corpus.0.path: nothing matches {tmp_path}/absent.jsonl; expected a file, a glob or a folder",
        f"corpus.1.path: nothing matches {tmp_path}/*.jsonl; expected a file, a glob or a folder",
        f"corpus.2.path: nothing matches {tmp_path}/empty; expected a file, a glob or a folder",
    ]


def test_a_workspace_inside_an_input_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("x")
    content = {"workspace": "in/mill", "corpus": [{"path": "in", "source": "x"}]}
    assert missing_files(load(tmp_path, content)) == [
        f"corpus.0.path: the workspace {tmp_path}/in/mill lies in this folder and would be read as its own input; "
        "move one of them"
    ]
    content = {
        "workspace": "in-mill",
        "corpus": [{"path": "in/*.txt", "source": "x"}, {"path": "in", "source": "y"}],
    }
    assert missing_files(load(tmp_path, content)) == []


def test_targets_and_models_that_are_not_there_are_missing(tmp_path):
    recipe = load(
        tmp_path,
        "workspace: ./mill\ncorpus: [{path: in.jsonl, source: web}]\ntarget: {path: qa.jsonl}\n"
        "models: {prior: {path: ./prior}}\n",
    )
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    assert missing_files(recipe) == [
        f"target.0.path: nothing matches {tmp_path}/qa.jsonl; expected a file, a glob or a folder",
        f"models.prior.path: {tmp_path}/prior is not there; expected a trained model",
    ]


def test_paths_of_a_ladder_are_relative_to_the_recipe(tmp_path):
    rungs = [{"path": "a", "average": 1.0}, {"path": "b", "average": 2.0}]
    models = {"ladder": {"rungs": rungs, "tasks": {"path": "qa.jsonl", "source": "qa"}}}
    recipe = load(tmp_path, BASE | {"models": models})
    assert [rung.path for rung in recipe.models.ladder.rungs] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    missing = [line for line in missing_files(recipe) if line.startswith("models")]
    assert missing == [
        f"models.ladder.rungs.0.path: {tmp_path}/a is not there; expected a trained model",
        f"models.ladder.rungs.1.path: {tmp_path}/b is not there; expected a trained model",
        f"models.ladder.tasks.0.path: nothing matches {tmp_path}/qa.jsonl; expected a file, a glob or a folder",
    ]

"""Every mistake in a recipe is one line: the place, what was found, what is allowed, the nearest valid name."""

import json
from fractions import Fraction

import pytest

from gristmill.pipelines.load_recipe import load_recipe, missing_files
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_values import nearest
from gristmill.scorers.base import RecipeError

BASE = {
    "workspace": "./mill",
    "corpus": [{"path": "crawl/*.jsonl", "source": "web"}],
    "score": ["rules", {"language": {"model": "lid.bin"}}],
    "select": [
        {
            "name": "main",
            "where": {"english": "language = 'en'"},
            "deduplicate": {"prefer": ["web"]},
            "quota": {"keep": {"web": 5}},
            "sample": {"keep": "10%"},
            "top": {"by": "score", "keep": "1/16", "of": "tokens"},
            "keep_rates": {"english": [0.1, 0.9]},
        }
    ],
    "export": {"redact_pii": True},
    "max_reject_rate": 0.02,
}


def load(tmp_path, content, *overrides):
    path = tmp_path / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_recipe(str(path), overrides)


def mistakes(tmp_path, content, *overrides):
    """The lines of the error, without the recipe's path in front."""
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, content, *overrides)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{tmp_path}/recipe.yaml: ") or line.startswith("--set ") for line in lines)
    return [line.removeprefix(f"{tmp_path}/recipe.yaml: ") for line in lines]


def changed(place, value):
    """The base recipe with one value replaced, or removed where it is `...`."""
    content = json.loads(json.dumps(BASE))
    *parents, last = (int(part) if part.isdigit() else part for part in place.split("."))
    target = content
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return content


def test_the_base_recipe_is_sound(tmp_path):
    recipe = load(tmp_path, BASE)
    assert recipe.workspace == f"{tmp_path}/mill"
    assert recipe.corpus[0].path == f"{tmp_path}/crawl/*.jsonl"
    assert recipe.scorer_options() == {"rules": {}, "language": {"model": f"{tmp_path}/lid.bin"}}
    assert recipe.select[0].steps() == ["empty", "block", "english", "duplicate", "quota", "sample", "top"]
    assert recipe.select[0].top.keep == Fraction(1, 16)


RECIPE_KEYS = ", ".join(sorted(Recipe.model_fields))


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("workspce", f"workspce: unknown key 'workspce'; allowed: {RECIPE_KEYS}; did you mean 'workspace'?"),
        ("zzz", f"zzz: unknown key 'zzz'; allowed: {RECIPE_KEYS}"),
        (
            "corpus.0.sorce",
            "corpus.0.sorce: unknown key 'sorce'; allowed: created, format, id, licence, path, source, source_field, "
            "text, url; did you mean 'source'?",
        ),
        ("block", None),
        (
            "select.0.wehre",
            "select.0.wehre: unknown key 'wehre'; allowed: deduplicate, keep_rates, name, quota, sample, thin, top, "
            "where; did you mean 'where'?",
        ),
        (
            "select.0.deduplicate.prefr",
            "select.0.deduplicate.prefr: unknown key 'prefr'; allowed: direction, prefer, then; did you mean 'prefer'?",
        ),
        (
            "select.0.top.Of",
            "select.0.top.Of: unknown key 'Of'; allowed: batch, by, direction, keep, of, unit; did you mean 'of'?",
        ),
        (
            "select.0.quota.kep",
            "select.0.quota.kep: unknown key 'kep'; allowed: by, direction, keep, of; did you mean 'keep'?",
        ),
        (
            "select.0.sample.sed",
            "select.0.sample.sed: unknown key 'sed'; allowed: draws, keep, of, seed, weights; did you mean 'seed'?",
        ),
        (
            "export.redact",
            "export.redact: unknown key 'redact'; allowed: clean_lines, metadata, redact_pii, tokens; "
            "did you mean 'redact_pii'?",
        ),
    ],
)
def test_unknown_keys_at_every_level(tmp_path, place, line):
    content = changed(place, "x") if line else changed("block", {"host": []})
    line = line or "block.host: unknown key 'host'; allowed: doc_ids, hosts, ids, urls; did you mean 'hosts'?"
    assert mistakes(tmp_path, content) == [line]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("workspace", "workspace: missing; expected keys: workspace, corpus, block, target, "),
        ("corpus", "corpus: missing; expected keys: workspace, corpus, "),
        ("corpus.0.source", "corpus.0.source: missing; expected keys: path, source, format, "),
        ("select.0.name", "select.0.name: missing; expected keys: name, where, "),
        ("select.0.top.by", "select.0.top.by: missing; expected keys: by, keep, of, direction"),
        ("select.0.quota.keep", "select.0.quota.keep: missing; expected keys: keep, by, of, direction"),
    ],
)
def test_missing_keys(tmp_path, place, line):
    (found,) = mistakes(tmp_path, changed(place, ...))
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ("workspace", 5, "workspace: found 5; expected a string"),
        ("workspace", None, "workspace: found None; expected a string"),
        ("workspace", "", "workspace: found ''; expected a string of at least 1 character"),
        ("corpus", [], "corpus: found []; expected a list of at least 1 item"),
        ("corpus", "a.jsonl", "corpus: found 'a.jsonl'; expected a list"),
        (
            "corpus",
            ["a.jsonl"],
            "corpus.0: found 'a.jsonl'; expected a mapping with the keys path, source, format, source_field, text, id, "
            "url, created, licence",
        ),
        ("corpus.0.path", "", "corpus.0.path: found ''; expected a string of at least 1 character"),
        ("corpus.0.source", "", "corpus.0.source: found ''; expected a string of at least 1 character"),
        ("corpus.0.source", False, "corpus.0.source: found False; expected a string"),
        ("corpus.0.text", "", "corpus.0.text: found ''; expected a string of at least 1 character"),
        (
            "corpus.0.format",
            "jsnol",
            "corpus.0.format: found 'jsnol'; allowed: html, jsonl, parquet, text, warc; did you mean 'jsonl'?",
        ),
        ("block", None, "block: found None; expected a mapping with the keys hosts, urls, ids, doc_ids"),
        ("block", {"hosts": "hosts.txt"}, "block.hosts: found 'hosts.txt'; expected a list"),
        ("score", "rules", "score: found 'rules'; expected a list"),
        (
            "score",
            [5],
            "score.0: expected a scorer's name, or one name with a mapping of its options; found 5",
        ),
        (
            "score",
            [{"rules": {}, "language": {}}],
            "score.0: expected a scorer's name, or one name with a mapping of its options; "
            "found {'rules': {}, 'language': {}}",
        ),
        (
            "score",
            [{"rules": ["x"]}],
            "score.0: expected a scorer's name, or one name with a mapping of its options; found {'rules': ['x']}",
        ),
        ("score", ["rules", {"rules": {}}], "score: 'rules' stands twice; name every scorer once"),
        ("select", "main", "select: found 'main'; expected a list"),
        (
            "select.0.name",
            "Main",
            "select.0.name: found 'Main'; expected lower-case letters, digits, - and _",
        ),
        ("select.0.where", ["x > 1"], "select.0.where: found ['x > 1']; expected a mapping"),
        (
            "select.0.where",
            {"Not A Name": "x"},
            "select.0.where: found 'Not A Name'; expected lower-case letters, digits, - and _",
        ),
        ("select.0.where.english", True, "select.0.where.english: found True; expected a string"),
        (
            "select.0.top.of",
            "words",
            "select.0.top.of: found 'words'; allowed: characters, documents, tokens",
        ),
        (
            "select.0.top.direction",
            "lowst",
            "select.0.top.direction: found 'lowst'; allowed: highest, lowest; did you mean 'lowest'?",
        ),
        ("select.0.sample.seed", 1.5, "select.0.sample.seed: found 1.5; expected a whole number"),
        ("select.0.sample.draws", 1, "select.0.sample.draws: found 1; expected a number of at least 2"),
        ("select.0.sample.seed", "x", "select.0.sample.seed: found 'x'; expected a whole number"),
        (
            "select.0.keep_rates",
            {"english": [0.1]},
            "select.0.keep_rates.english: found [0.1]; expected [low, high]",
        ),
        (
            "select.0.keep_rates",
            {"english": [0.1, 0.2, 0.3]},
            "select.0.keep_rates.english: found [0.1, 0.2, 0.3]; expected [low, high]",
        ),
        (
            "select.0.keep_rates",
            {"english": [0.9, 0.1]},
            "select.0.keep_rates.english: found [0.9, 0.1]; expected [low, high]",
        ),
        (
            "select.0.keep_rates",
            {"english": [0.1, 2]},
            "select.0.keep_rates.english: found [0.1, 2]; expected [low, high]",
        ),
        ("export.redact_pii", "maybe", "export.redact_pii: found 'maybe'; expected true or false"),
        ("export.clean_lines", "c5", "export.clean_lines: found 'c5'; allowed: c4"),
        ("max_reject_rate", 1.5, "max_reject_rate: found 1.5; expected a number of at most 1"),
        ("max_reject_rate", -0.1, "max_reject_rate: found -0.1; expected a number of at least 0"),
        ("max_reject_rate", True, "max_reject_rate: found True; expected a number"),
        ("max_reject_rate", "high", "max_reject_rate: found 'high'; expected a number"),
        ("max_document_bytes", 0, "max_document_bytes: found 0; expected a number of at least 1"),
        ("max_document_bytes", True, "max_document_bytes: found True; expected a whole number"),
        ("max_document_bytes", 2.5, "max_document_bytes: found 2.5; expected a whole number"),
    ],
)
def test_wrong_types_and_impossible_values(tmp_path, place, value, line):
    assert [found[: len(line)] for found in mistakes(tmp_path, changed(place, value))] == [line]


def test_every_mistake_has_its_line(tmp_path):
    content = changed("corpus.0.source", ...)
    content["max_reject_rate"] = 7
    content["scor"] = []
    lines = mistakes(tmp_path, content)
    assert sorted(line.partition(":")[0] for line in lines) == ["corpus.0.source", "max_reject_rate", "scor"]


@pytest.mark.parametrize("length", [50, 5000])
def test_what_was_found_is_shown_shortly(tmp_path, length):
    (line,) = mistakes(tmp_path, changed("max_reject_rate", "x" * length))
    assert len(line) < 200


@pytest.mark.parametrize(
    ("amount", "value"),
    [
        ("1/16", Fraction(1, 16)),
        ("10%", Fraction(1, 10)),
        ("12.5%", Fraction(1, 8)),
        (0.25, Fraction(1, 4)),
        (0.1, Fraction(1, 10)),
        ("0.1", Fraction(1, 10)),
        (0, 0),
        (5, 5),
        (10**12, 10**12),
        ("100%", Fraction(1)),
        (1.0, Fraction(1)),
    ],
)
def test_amounts(tmp_path, amount, value):
    for place in ("top.keep", "sample.keep", "quota.keep.web"):
        recipe = load(tmp_path, changed(f"select.0.{place}", amount))
        section = getattr(recipe.select[0], place.split(".")[0])
        found = section.keep["web"] if place.startswith("quota") else section.keep
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ("17/16", "expected a share between 0 and 1; found '17/16'"),
        ("110%", "expected a share between 0 and 1; found '110%'"),
        (1.5, "expected a share between 0 and 1; found 1.5"),
        ("-1/2", "expected a share between 0 and 1; found '-1/2'"),
        (-1, "expected a number of at least 0; found -1"),
        (-0.5, "expected a share between 0 and 1; found -0.5"),
        (True, "expected a share such as 1/16, 0.25 or 10%, or a whole number; found True"),
        ("1/0", "expected a share such as 1/16, 0.25 or 10%, or a whole number; found '1/0'"),
        ("ten", "expected a share such as 1/16, 0.25 or 10%, or a whole number; found 'ten'"),
        ("", "expected a share such as 1/16, 0.25 or 10%, or a whole number; found ''"),
        ("%", "expected a share such as 1/16, 0.25 or 10%, or a whole number; found '%'"),
        (None, "expected a share such as 1/16, 0.25 or 10%, or a whole number; found None"),
        ([1], "expected a share such as 1/16, 0.25 or 10%, or a whole number; found [1]"),
        (
            "1e-999999999",
            "expected a share such as 1/16, 0.25 or 10%, or a whole number; found '1e-999999999'",
        ),
    ],
)
def test_impossible_amounts(tmp_path, amount, message):
    assert mistakes(tmp_path, changed("select.0.top.keep", amount)) == [f"select.0.top.keep: {message}"]
    assert mistakes(tmp_path, changed("select.0.quota.keep.web", amount)) == [
        f"select.0.quota.keep.web: {message}"
    ]


@pytest.mark.parametrize("amount", [".nan", ".inf"])
def test_amounts_that_are_no_numbers(tmp_path, amount):
    text = f"workspace: mill\ncorpus: [{{path: a, source: b}}]\nselect: {{name: x, sample: {{keep: {amount}}}}}\n"
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("select.sample.keep: expected a share such as 1/16")


def test_every_draw_is_a_selection_of_its_own(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "workspace: mill\ncorpus: [{path: a, source: b}]\n"
        "select: [{name: x, where: {some: num_chars > 1}, sample: {keep: 1/4, seed: 7, draws: 3}}, {name: y}]\n"
    )
    selections = load_recipe(str(path)).select
    assert [selection.name for selection in selections] == ["x-0", "x-1", "x-2", "y"]
    assert [selection.sample.seed for selection in selections[:3]] == [7, 8, 9]
    assert {selection.sample.keep for selection in selections[:3]} == {Fraction(1, 4)}
    assert all(selection.where == {"some": "num_chars > 1"} for selection in selections[:3])
    more = load_recipe(str(path), ["select.0.sample.draws=4"]).select
    assert more[:3] == selections[:3]
    with pytest.raises(RecipeError, match="select: 'x-1' names two selections"):
        load_recipe(str(path), ["select.1.name=x-1"])


@pytest.mark.parametrize("step", ["empty", "block", "duplicate", "quota", "sample", "top"])
def test_steps_may_not_take_a_built_in_name(tmp_path, step):
    assert mistakes(tmp_path, changed("select.0.where", {step: "x > 1", "english": "y"})) == [
        f"select.0.where: {step} names a built-in step; choose another name"
    ]


def test_two_selections_of_one_name(tmp_path):
    content = changed("select", [{"name": "a"}, {"name": "b"}, {"name": "a"}])
    assert mistakes(tmp_path, content) == [
        "select: 'a' names two selections; every selection needs a name of its own"
    ]


def test_keep_rates_of_a_step_that_is_not_there(tmp_path):
    content = changed("select.0.keep_rates", {"englsh": [0, 1]})
    assert mistakes(tmp_path, content) == [
        "select.0: keep_rates: no step 'englsh'; allowed: block, duplicate, empty, english, quota, sample, top; "
        "did you mean 'english'?"
    ]


def test_one_selection_needs_no_list_and_its_mistakes_no_number(tmp_path):
    content = {**BASE, "select": {"name": "main", "wher": {}}}
    (line,) = mistakes(tmp_path, content)
    assert line.startswith("select.wher: unknown key 'wher'")
    assert load(tmp_path, {**BASE, "select": {"name": "main"}}).select[0].name == "main"


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


def test_of_many_allowed_names_the_most_similar_are_shown():
    names = [f"column_{number:02d}" for number in range(40)] + ["word_count"]
    message = nearest("word_cont", names)
    assert message.endswith(" and 25 more; did you mean 'word_count'?")
    assert message.count(",") == 15
    assert nearest("b", ["a", "c"]) == "; allowed: a, c"


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


RUNGS = [{"path": "a", "average": 1.0}, {"path": "b", "average": 2.0}]
SIZED = [{"size": "300k"}, {"size": "1m"}]


@pytest.mark.parametrize(
    ("rungs", "line"),
    [
        (RUNGS[:1], "found one rung; expected at least 2, since strength compares models"),
        (
            [RUNGS[0], {"path": "b", "average": 1}],
            "two rungs have the average 1; of equal models none is better",
        ),
        (
            [RUNGS[0], {"path": "b"}],
            "some rungs have an average and some have none; give it to all, or to none",
        ),
        (
            [SIZED[0], {"path": "b"}],
            "some rungs are given by a path and some are trained; give every one its",
        ),
        ([RUNGS[0], RUNGS[0] | {"average": 3}], "stands twice; every rung is another model"),
        ([SIZED[0], SIZED[0]], "'300k, 1000000 tokens' stands twice; every rung is another model"),
        ([{}, RUNGS[0]], "a rung is either a model given by its `path`, or a `size` to train; give one"),
        (
            [RUNGS[0] | SIZED[0], RUNGS[1]],
            "a rung is either a model given by its `path`, or a `size` to train",
        ),
        (
            [RUNGS[0] | {"tokens": 5}, RUNGS[1]],
            "tokens is of rungs that are trained here; leave it out beside",
        ),
    ],
)
def test_impossible_ladders(tmp_path, rungs, line):
    with pytest.raises(RecipeError, match=r"models\.ladder.*: ") as refusal:
        load(tmp_path, BASE | {"models": {"ladder": {"rungs": rungs}}})
    assert line in str(refusal.value)


def test_ladders_of_averages_of_sizes_and_of_both(tmp_path):
    for rungs in (RUNGS, SIZED, [RUNGS[0], SIZED[1] | {"average": 3}], [{"path": "a"}, {"path": "b"}]):
        ladder = load(tmp_path, BASE | {"models": {"ladder": {"rungs": rungs}}}).models.ladder
        assert len(ladder.rungs) == 2
        assert ladder.needs_target == all("average" not in rung for rung in rungs)


def test_paths_of_a_ladder_are_relative_to_the_recipe(tmp_path):
    models = {"ladder": {"rungs": RUNGS, "tasks": {"path": "qa.jsonl", "source": "qa"}}}
    recipe = load(tmp_path, BASE | {"models": models})
    assert [rung.path for rung in recipe.models.ladder.rungs] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    missing = [line for line in missing_files(recipe) if line.startswith("models")]
    assert missing == [
        f"models.ladder.rungs.0.path: {tmp_path}/a is not there; expected a trained model",
        f"models.ladder.rungs.1.path: {tmp_path}/b is not there; expected a trained model",
        f"models.ladder.tasks.0.path: nothing matches {tmp_path}/qa.jsonl; expected a file, a glob or a folder",
    ]

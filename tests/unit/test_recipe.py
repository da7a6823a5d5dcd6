"""Every mistake in a recipe is one line: the place, what was found, what is allowed, the nearest valid name."""

from fractions import Fraction

import pytest
from recipes import BASE, changed, load, mistakes

from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_values import nearest
from gristmill.scorers.base import RecipeError


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


def test_of_many_allowed_names_the_most_similar_are_shown():
    names = [f"column_{number:02d}" for number in range(40)] + ["word_count"]
    message = nearest("word_cont", names)
    assert message.endswith(" and 25 more; did you mean 'word_count'?")
    assert message.count(",") == 15
    assert nearest("b", ["a", "c"]) == "; allowed: a, c"


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

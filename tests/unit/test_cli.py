"""The command line: a frozen surface, one line an error, nothing heavy imported before it is needed."""

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from mills import Row, build, publish

from gristmill.pipelines.cli import main
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.workspace import locked
from gristmill.scorers.base import RecipeError

RECIPE_OPTIONS = {"--quiet", "--set"}
SURFACE = {
    "run": ["recipe", RECIPE_OPTIONS | {"--dry-run", "--sample"}],
    "ingest": ["recipe", RECIPE_OPTIONS],
    "train": ["recipe model", RECIPE_OPTIONS],
    "score": ["recipe", RECIPE_OPTIONS],
    "dedup": ["recipe", RECIPE_OPTIONS],
    "select": ["recipe", RECIPE_OPTIONS],
    "export": ["recipe", RECIPE_OPTIONS],
    "ablate": ["recipe", RECIPE_OPTIONS],
    "mixture": ["recipe", RECIPE_OPTIONS | {"--at"}],
    "sql": ["workspace query", {"-f", "--file", "--query", "--param", "--format", "-o", "--output"}],
    "verify": ["workspace", {"--gc"}],
    "demo": ["folder", set()],
}
"""What users and scripts rely on: adding is a decision, taking away breaks them."""


def call(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*arguments):
    """The one line on standard error of a command that is refused."""
    result = call(*arguments, code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_commands_and_options_are_those_written_down():
    found = {}
    for name, command in main.commands.items():
        arguments = [item.name for item in command.params if isinstance(item, click.Argument)]
        options = {word for item in command.params if isinstance(item, click.Option) for word in item.opts}
        found[name] = [" ".join(arguments), options]
    assert found == SURFACE
    (form,) = [item for item in main.commands["sql"].params if item.name == "form"]
    assert list(form.type.choices) == ["table", "csv", "json", "parquet"]


def test_every_command_has_help():
    for name in SURFACE:
        assert len(call(name, "--help").output.splitlines()) > 4
        assert main.commands[name].get_short_help_str()
    assert "gristmill" in call("--version").output or "version" in call("--version").output


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one two three"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "workspace: ./mill\ncorpus: [{path: a.jsonl, source: web}]\nscore: [rules]\nselect: {name: s}\n"
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "scor=[]"], "scor: unknown key 'scor'; allowed: "),
        (["--set", "score=[rule]"], "score.0: unknown scorer 'rule', did you mean 'rules'?"),
        (["--set", "corpus.0.path=nothing.jsonl"], "corpus.0.path: nothing matches "),
        (
            ["--set", "select.where={a: lenght > 1}"],
            "select.where.a: no scorer of this recipe makes column 'lenght'",
        ),
        (
            ["--num_wrokers", "3"],
            "unknown option '--num_wrokers'; expected one of gristmill's (--help) or of Beam's",
        ),
        (["--quite"], "unknown option '--quite'"),
        (["surplus"], "unknown option 'surplus'"),
    ],
)
def test_mistakes_are_one_line_each(recipe, arguments, line):
    found = refused("run", recipe, *arguments)
    assert found.startswith("error: ")
    assert line in found
    assert not (recipe.parent / "mill").exists()


def test_several_mistakes_are_several_lines(recipe):
    result = call("run", recipe, "--set", "score=[rule, langage]", code=2)
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == ["error", "error"]


def test_absent_recipe_and_workspace(tmp_path):
    assert "none.yaml: cannot be read" in refused("run", tmp_path / "none.yaml")
    for command in (["sql", tmp_path, "SELECT 1"], ["verify", tmp_path], ["verify", tmp_path, "--gc"]):
        assert "no workspace.json here" in refused(*command)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["score", "select", "export"])
def test_a_stage_before_ingest_makes_no_workspace(recipe, stage):
    assert "no workspace.json here; expected a workspace made by `gristmill run`" in refused(stage, recipe)
    assert not (recipe.parent / "mill").exists()


def test_dry_run_does_nothing(recipe):
    output = call("run", recipe, "--dry-run").stdout
    assert [line.split()[0] for line in output.splitlines()] == [
        "workspace",
        "input",
        "ingest",
        "score",
        "select",
        "export",
    ]
    assert not (recipe.parent / "mill").exists()


ROWS = [Row(number, f"{number % 3} 0 0 {number}\nbody {number}", id=str(number)) for number in range(6)]


@pytest.fixture(scope="module")
def mill(tmp_path_factory):
    mill = build(tmp_path_factory.mktemp("cli") / "mill", [ROWS])
    publish(mill, {"where": {"good": "quality >= 1"}})
    return mill


def ask(mill, *arguments):
    return call("sql", mill.workspace.root, *arguments).stdout


def test_sql_answers_in_every_form(mill, tmp_path):
    question = (
        "SELECT id, num_tokens FROM documents JOIN scores USING (doc_id) WHERE num_tokens > 3 ORDER BY id"
    )
    assert ask(mill, question) == "id  num_tokens\n4            4\n5            5\n"
    assert ask(mill, question, "--format", "csv") == '"id","num_tokens"\n"4",4\n"5",5\n'
    assert json.loads(ask(mill, question, "--format", "json")) == [
        {"id": "4", "num_tokens": 4},
        {"id": "5", "num_tokens": 5},
    ]
    file = tmp_path / "question.sql"
    file.write_text(question + ";\n")
    assert ask(mill, "-f", file, "--format", "csv", "-o", tmp_path / "answer.csv") == ""
    assert (tmp_path / "answer.csv").read_text() == '"id","num_tokens"\n"4",4\n"5",5\n'
    assert ask(mill, question, "-o", tmp_path / "answer.txt") == ""
    assert (tmp_path / "answer.txt").read_text() == "id\tnum_tokens\n4\t4\n5\t5\n"


def test_sql_runs_named_queries_and_lists_them(mill):
    assert '"good",6,4,' in ask(mill, "--query", "funnel", "--format", "csv")
    swept = ask(mill, "--query", "threshold_sweep", "--param", "score=quality", "--format", "csv")
    assert swept.startswith('"threshold","source","year"')
    listed = ask(mill)
    assert "threshold_sweep" in listed
    assert "decisions" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELEC 1"], "error: Parser Error: syntax error at or near"),
        (
            ["DROP VIEW documents"],
            "error: expected one SELECT; found DROP. The workspace is read-only in SQL",
        ),
        (["--query", "funel"], "did you mean 'funnel'?"),
        (["--query", "threshold_sweep"], "takes parameters score; found none"),
    ],
)
def test_wrong_questions_are_one_line(mill, arguments, message):
    assert message in refused("sql", mill.workspace.root, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT 1", "--query", "funnel"], "expected one of a query, --file and --query"),
        (["SELECT 1", "--param", "a=b"], "--param goes with --query"),
        (["--query", "threshold_sweep", "--param", "score"], "--param score: expected NAME=VALUE"),
        (["SELECT 1", "--format", "xml"], "'xml' is not one of 'table', 'csv', 'json', 'parquet'"),
    ],
)
def test_wrong_usage_is_explained(mill, arguments, message):
    assert message in call("sql", mill.workspace.root, *arguments, code=2).stderr


def test_verify_reports_and_collects(tmp_path):
    root = build(tmp_path / "mill", [ROWS]).workspace.root
    call("verify", root, "--gc")
    assert call("verify", root).stdout.splitlines()[-1] == "verified: every promise holds"
    orphan = tmp_path / "mill" / "corpus" / ".tmp-0"
    orphan.write_bytes(b"left")
    assert f"orphan: {orphan}\n" in call("verify", root).stdout
    assert orphan.exists()
    assert f"deleted: {orphan}\n" in call("verify", root, "--gc").stdout
    assert not orphan.exists()
    (tmp_path / "mill" / "documents" / "part-00000-00000-0000.parquet").unlink()
    result = call("verify", root, code=2)
    assert "error: " in result.stderr
    assert "verified" not in result.stdout


def test_garbage_is_not_collected_under_a_run(tmp_path):
    mill = build(tmp_path / "mill", [ROWS])
    with locked(mill.workspace):
        assert "locked by process" in refused("verify", mill.workspace.root, "--gc")
        call("verify", mill.workspace.root)


def imported(*arguments):
    """Modules that a command of its own process has imported."""
    code = (
        "import sys\nfrom gristmill.pipelines.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('modules', *sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    modules = imported("--help")
    assert not modules & {"torch", "transformers", "apache_beam", "duckdb", "fasttext", "resiliparse"}


def test_ingest_and_rules_import_no_torch(recipe):
    modules = imported("run", recipe, "--quiet")
    assert "apache_beam" in modules
    assert not modules & {"torch", "transformers", "tensorflow"}
    assert (recipe.parent / "mill" / "datasets" / "s" / "manifest.json").exists()


def test_an_unknown_runner_is_refused_before_any_work():
    with pytest.raises(
        RecipeError, match=r"^--runner Foo: Unexpected pipeline runner: Foo\. Valid values are "
    ):
        beam_options(["--runner", "Foo"])
    with pytest.raises(RecipeError, match=r"^--runner no\.such\.Runner: No module named 'no'"):
        beam_options(["--runner", "no.such.Runner"])

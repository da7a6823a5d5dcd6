"""The command line: parse, call, print. Nothing else in the project prints or exits."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import IO, Any

import click
from rich.console import Console
from rich.table import Table

from gristmill.scorers.base import GristmillError

DUPLICATE_COUNTS = (
    "num_clusters",
    "num_near_duplicates",
    "largest_cluster",
    "num_parted",
    "num_oversized_buckets",
    "largest_bucket",
)
BEAM = {"ignore_unknown_options": True, "allow_extra_args": True}


class _Failure(click.ClickException):
    """A user's error: its lines on standard error, exit status 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"error: {line}", file=file or sys.stderr)


class _Group(click.Group):
    """Turns the errors a user can cure into one line each; everything else keeps its traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GristmillError as error:
            raise _Failure(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gristmill")
def main() -> None:
    """Grind raw text corpora into training data: score once, choose in SQL, lose nothing."""


def _recipe_command(name: str, help_text: str) -> Callable[[Callable[..., None]], click.Command]:
    def decorate(function: Callable[..., None]) -> click.Command:
        for option in (
            click.option("--quiet", is_flag=True, help="No progress and no closing table."),
            click.option(
                "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe."
            ),
            click.argument("recipe", type=click.Path()),
        ):
            function = option(function)
        command = main.command(name, help=help_text, context_settings=BEAM)
        return command(click.pass_context(function))

    return decorate


@_recipe_command(
    "run", "Ingest, train, score, dedup, select and export; whatever is done already is not done again."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the plan and its cost; do nothing. (--dry_run=true is Beam's: translate for Dataflow.)",
)
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Run about N documents into WORKSPACE-sample-N."
)
def run(
    context: click.Context,
    recipe: str,
    overrides: Sequence[str],
    quiet: bool,
    dry_run: bool,
    sample: int | None,
) -> None:
    """Everything."""
    from gristmill.pipelines.curate import STAGES
    from gristmill.pipelines.preview import preview
    from gristmill.pipelines.sample import sampled

    curation = _prepare(context, recipe, overrides, quiet)
    if sample is not None:
        curation = sampled(curation, sample)
    if dry_run:
        for line in preview(curation):
            click.echo(line)
        return
    _execute(curation, STAGES, "run", quiet)


@_recipe_command("ingest", "Read the recipe's inputs into shards.")
def ingest(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> None:
    """One stage."""
    _run_stage(context, recipe, overrides, quiet, "ingest")


@_recipe_command("train", "Train the auxiliary models that the recipe's scorers use, or the one named.")
@click.argument("model", required=False)
def train(
    context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool, model: str | None
) -> None:
    """One stage."""
    from gristmill.pipelines.train_models import named_model, of_texts

    curation = _prepare(context, recipe, overrides, quiet)
    names = named_model(curation.recipe, model) if model is not None else of_texts(curation.trained)
    curation = replace(curation, trained=tuple(names))
    _execute(curation, ["train"], "train", quiet)


@_recipe_command("score", "Score what the recipe's scorers have not scored yet.")
def score(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> None:
    """One stage."""
    _run_stage(context, recipe, overrides, quiet, "score")


@_recipe_command("dedup", "Mark near duplicates by the signatures of minhash; drops nothing.")
def dedup(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> None:
    """One stage."""
    _run_stage(context, recipe, overrides, quiet, "dedup")


@_recipe_command("select", "Decide on every document; never scores.")
def select(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> None:
    """One stage."""
    _run_stage(context, recipe, overrides, quiet, "select")


@_recipe_command("export", "Write the kept documents.")
def export(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> None:
    """One stage."""
    _run_stage(context, recipe, overrides, quiet, "export")


@_recipe_command(
    "ablate",
    "Train the same small model on each selection and on random documents, and compare what they learn.",
)
def ablate(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> None:
    """Proof that a selection teaches."""
    from gristmill.pipelines.ablate import PLOT, SUMMARY
    from gristmill.pipelines.ablate import ablate as run_ablation
    from gristmill.pipelines.ablation_report import FOLDER

    curation = _prepare(context, recipe, overrides, quiet)
    rows = run_ablation(curation).table()
    if quiet:
        return
    _print_table("ablation", list(rows[0]), rows)
    workspace = _shown(curation.recipe.workspace)
    for title, name in (("curves", PLOT), ("numbers", SUMMARY)):
        click.echo(f"{title:<10} {os.path.join(workspace, FOLDER, name)}")
    click.echo(f'questions  gristmill sql {workspace} "from ablations"')


@_recipe_command(
    "mixture",
    "Continue training the prior on shares of domain text, and find the largest that general text bears.",
)
@click.option(
    "--at", type=click.IntRange(min=1), metavar="TOKENS", help="The critical ratio at another length, too."
)
def mixture(
    context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool, at: int | None
) -> None:
    """The critical mixture ratio."""
    from gristmill.pipelines.mixture_ratio import PLOT, SUMMARY, find_mixture_ratio
    from gristmill.pipelines.mixture_report import FOLDER

    curation = _prepare(context, recipe, overrides, quiet)
    report = find_mixture_ratio(curation)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    if not quiet:
        for title, rows in (("mixtures", report.table()), ("critical ratio", report.critical_table())):
            _print_table(title, list(rows[0]), rows)
        click.echo(report.verdict())
        workspace = _shown(curation.recipe.workspace)
        for title, name in (("curves", PLOT), ("numbers", SUMMARY)):
            click.echo(f"{title:<10} {os.path.join(workspace, FOLDER, name)}")
        click.echo(f'questions  gristmill sql {workspace} "from mixtures"')
    if at is not None:
        click.echo(report.at(at))


def _run_stage(
    context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool, stage: str
) -> None:
    curation = _prepare(context, recipe, overrides, quiet)
    _execute(curation, [stage], stage, quiet)


def _execute(curation: Any, stages: Sequence[str], command: str, quiet: bool) -> None:
    from gristmill.pipelines.runner import accelerated_transforms, is_translation

    if not is_translation(curation.options):
        _report(curation.run(stages, command=command), curation.recipe.workspace, quiet)
        return
    for stage, pipeline in curation.translate(stages):
        click.echo(f"translated {stage}: {len(pipeline.components.transforms)} transforms; nothing was run")
        for transform, accelerator in accelerated_transforms(pipeline):
            click.echo(f"  {transform} asks for {accelerator}")


@main.command("sql")
@click.argument("workspace", type=click.Path())
@click.argument("query", required=False)
@click.option("-f", "--file", type=click.File(), help="Read the query from a file.")
@click.option("--query", "name", metavar="NAME", help="Run a named query; without a query, they are listed.")
@click.option(
    "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the named query."
)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write here instead of standard output."
)
def sql(
    workspace: str,
    query: str | None,
    file: IO[str] | None,
    name: str | None,
    parameters: Sequence[str],
    form: str,
    output: str | None,
) -> None:
    """Ask a workspace a question in SQL; it is opened read-only."""
    from gristmill.pipelines.answers import describe_nouns, write_answer
    from gristmill.pipelines.catalog import named_query, open_catalog, run_query
    from gristmill.pipelines.workspace import open_workspace

    if sum(given is not None for given in (query, file, name)) > 1:
        raise click.UsageError("expected one of a query, --file and --query")
    connection = open_catalog(open_workspace(workspace))
    try:
        if name is not None:
            question: str | None = named_query(
                connection, name, dict(_pair(parameter) for parameter in parameters)
            )
        elif parameters:
            raise click.UsageError("--param goes with --query")
        else:
            question = file.read() if file else query
        if question is None:
            _print_tables(describe_nouns())
            return
        answer = run_query(connection, question)
        if form == "table" and output is None:
            _print_table("", answer.column_names, answer.to_pylist())
        else:
            write_answer(answer, form, output)
    finally:
        connection.close()


@main.command("verify")
@click.argument("workspace", type=click.Path())
@click.option("--gc", is_flag=True, help="Delete what nothing refers to.")
def verify(workspace: str, gc: bool) -> None:
    """Check checksums, alignment and conservation, and list what nothing refers to."""
    from gristmill.pipelines.verify import collect_garbage, verify_workspace
    from gristmill.pipelines.workspace import locked, open_workspace

    opened = open_workspace(workspace)
    with locked(opened) if gc else nullcontext():
        report = verify_workspace(opened)
        if gc:
            collect_garbage(opened, report)
    for line in report.facts:
        click.echo(line)
    for path in report.orphans:
        click.echo(f"{'deleted' if gc else 'orphan'}: {path}")
    if report.problems:
        raise _Failure("\n".join(report.problems))
    click.echo("verified: every promise holds")


@main.command("demo")
@click.argument("folder", type=click.Path(file_okay=False), default="gristmill-demo")
def demo(folder: str) -> None:
    """A whole curation on text that this machine has anyway: no network, no GPU."""
    from gristmill.pipelines.demo import run_demo

    recipe, summary, answers = run_demo(folder, _reporter(quiet=False))
    _report(summary, recipe.workspace, quiet=False)
    for question, answer in answers.items():
        click.echo(f"\n$ gristmill sql {_shown(recipe.workspace)} {question}")
        _print_table("", answer.column_names, answer.to_pylist())


def _prepare(context: click.Context, recipe: str, overrides: Sequence[str], quiet: bool) -> Any:
    from gristmill.pipelines.load_recipe import load_recipe
    from gristmill.pipelines.prepare import prepare
    from gristmill.pipelines.runner import beam_options

    options = beam_options(context.args)
    return prepare(load_recipe(recipe, overrides), options, _reporter(quiet=quiet))


def _reporter(*, quiet: bool) -> Any:
    from gristmill.pipelines.progress import JsonReporter, QuietReporter, TerminalReporter

    if quiet:
        return QuietReporter()
    if sys.stderr.isatty():
        return TerminalReporter(Console(stderr=True))
    return JsonReporter(sys.stderr)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"--param {text}: expected NAME=VALUE")
    return name, value


def _report(summary: Any, workspace: str, quiet: bool) -> None:
    for note in summary.notes:
        click.echo(f"note: {note}", err=True)
    if quiet:
        return
    if summary.ingested:
        rows = summary.ingested
        totals = {
            name: sum(getattr(row, name) for row in rows)
            for name in ("num_in", "num_out", "num_dropped", "num_rejected")
        }
        _print_table("ingest", list(totals), [totals])
    if summary.duplicates:
        lines = [{"count": name, "number": summary.duplicates[name]} for name in DUPLICATE_COUNTS]
        _print_table("near duplicates", ["count", "number"], lines)
    for name, funnel in summary.funnels.items():
        lines = [
            {
                "step": step.step,
                "documents in": step.num_in,
                "kept": step.num_kept,
                "keep rate": f"{step.keep_rate:.1%}",
                "characters kept": step.num_chars_kept,
            }
            for step in funnel
        ]
        _print_table(f"selection {name}", list(lines[0]), lines)
    for name, manifest in summary.datasets.items():
        path = os.path.join(_shown(workspace), "datasets", name)
        windows = f"{manifest['num_windows']:,} windows of " if "num_windows" in manifest else ""
        click.echo(f"dataset    {path}: {windows}{manifest['num_documents']:,} documents")
    click.echo(f"questions  gristmill sql {_shown(workspace)}")


def _shown(path: str) -> str:
    """A path as a user would type it here."""
    relative = path if "://" in path else os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _print_tables(tables: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> None:
    for title, rows in tables:
        _print_table(title, list(rows[0]), rows)


def _print_table(title: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    from gristmill.pipelines.answers import as_text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in names:
        numeric = rows and all(isinstance(row[name], (int, float)) or row[name] is None for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(as_text(row[name]) for name in names))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, markup=False).print(table)

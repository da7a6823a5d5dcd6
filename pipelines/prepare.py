"""Check everything a recipe asks for before any work starts."""

from collections.abc import Iterator, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from gristmill.pipelines import files
from gristmill.pipelines.control_tokens import find_column
from gristmill.pipelines.curate import Curation
from gristmill.pipelines.derived_scores import require_inputs
from gristmill.pipelines.load_recipe import missing_files
from gristmill.pipelines.model_files import localised
from gristmill.pipelines.progress import QuietReporter, Reporter
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.runner import is_dataflow
from gristmill.pipelines.select_sql import compile_selection, score_columns
from gristmill.pipelines.train_models import is_trained, models_of, wanted_models, with_trained_models
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError, Scorer, ScorerError
from gristmill.scorers.clusters_of_embeddings import EmbeddingClusters
from gristmill.scorers.facility_location import FacilityLocation
from gristmill.scorers.minhash import MinHash
from gristmill.scorers.registry import make_scorer


def prepare(recipe: Recipe, options: PipelineOptions, reporter: Reporter | None = None) -> Curation:
    """Check everything a recipe asks for before any work starts.

    Raises:
        RecipeError: One line for every mistake.
    """
    mistakes = missing_files(recipe)
    if is_dataflow(options):
        mistakes += _unreachable(recipe)
    workspace = Workspace(recipe.workspace.rstrip("/"))
    scorers = []
    for position, (name, arguments) in enumerate(recipe.scorer_options().items()):
        try:
            scorer = make_scorer(name, with_trained_models(recipe, name, arguments))
            if is_trained(workspace, recipe, name):
                localised(scorer).fingerprint()
            scorers.append(scorer)
        except ScorerError as error:
            mistakes.append(f"score.{position}: {error}")
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    score_columns(scorers)
    for scorer in scorers:
        if isinstance(scorer, EmbeddingClusters | FacilityLocation):
            require_inputs(scorer, scorers)
    _check_duplicates(recipe, scorers)
    if recipe.export.tokens is not None and recipe.export.tokens.control is not None:
        find_column(recipe.export.tokens.control, scorers)
    trained = models_of(recipe, wanted_models(recipe))
    compiled = []
    for position, selection in enumerate(recipe.select):
        try:
            compiled.append(
                compile_selection(recipe, selection, scorers, _place(recipe, position, selection))
            )
        except RecipeError as error:
            mistakes.append(str(error))
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    return Curation(
        recipe, tuple(scorers), tuple(trained), tuple(compiled), options, reporter or QuietReporter()
    )


def _check_duplicates(recipe: Recipe, scorers: Sequence[Scorer]) -> None:
    rule = recipe.duplicates
    if rule is None:
        return
    scorer = next((scorer for scorer in scorers if isinstance(scorer, MinHash)), None)
    if scorer is None:
        raise RecipeError("duplicates: no scorer makes signatures; add minhash to `score`")
    needed = rule.num_bands * rule.rows_per_band
    if needed > scorer.num_perm:
        raise RecipeError(
            f"duplicates: {rule.num_bands} bands of {rule.rows_per_band} rows need {needed} values of a signature, "
            f"minhash makes {scorer.num_perm}; use fewer bands or rows, or raise minhash's num_perm"
        )


def _unreachable(recipe: Recipe) -> Iterator[str]:
    """One line for every path that only this machine can open."""
    paths = {f"corpus.{number}.path": item.path for number, item in enumerate(recipe.corpus)}
    for place, path in {"workspace": recipe.workspace, **paths}.items():
        if files.is_local(path):
            yield f"{place}: {path} is on this machine, out of reach of Dataflow's workers; expected a gs:// path"


def _place(recipe: Recipe, position: int, selection: Selection) -> str:
    return f"select.{position}" if len(recipe.select) > 1 else "select"

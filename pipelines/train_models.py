"""Train: the auxiliary models that the recipe's scorers use, on samples of the corpus and on the target.

A model stays until what the recipe says of it changes; a corpus that grows does not train it again. Training happens on
the launcher, on its GPU where it has one, and goes on from its last checkpoint after a kill.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

from gristmill.models import language_model, sequence_classifier
from gristmill.models.hugging_face import check_files
from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import files
from gristmill.pipelines.model_files import (
    claim_folder,
    commit_model,
    local_copy,
    localised,
    model_path,
    read_manifest,
    work_folder,
)
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_models import Models
from gristmill.pipelines.recipe_raters import DIMENSIONS
from gristmill.pipelines.recipe_values import nearest
from gristmill.pipelines.signals import find_signals
from gristmill.pipelines.train_language_models import usable
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError, Scorer
from gristmill.scorers.registry import make_scorer, scorer_class

Maker = Callable[[Training, Path, Path], dict[str, Any]]
"""Trains a model: its inputs, a folder for what a resumed training needs, a folder for the model -> facts about it."""


@dataclass(frozen=True)
class Kind:
    """A model that can be trained.

    Args:
        maker: Where its `Maker` is; imported when it is asked for, since it loads torch.
        parents: Models it is made from.
        needs_target: Whether it is made from the target.
        needs_scores: Whether it is made from scores of the corpus, and so after them.
        dimension: What the maker of raters is told first, which of them it makes.
    """

    maker: str
    parents: tuple[str, ...] = ()
    needs_target: bool = False
    needs_scores: bool = False
    dimension: str | None = None

    def load(self) -> Maker:
        """The maker."""
        module, _, name = self.maker.partition(":")
        found: Callable[..., dict[str, Any]] = getattr(import_module(module), name)
        return found if self.dimension is None else partial(found, self.dimension)


LANGUAGE_MODELS = "gristmill.pipelines.train_language_models"
KINDS = {
    "tokenizer": Kind(f"{LANGUAGE_MODELS}:make_tokenizer"),
    "prior": Kind(f"{LANGUAGE_MODELS}:make_prior", parents=("tokenizer",)),
    "conditional": Kind(f"{LANGUAGE_MODELS}:make_conditional", parents=("prior",), needs_target=True),
    "importance": Kind("gristmill.pipelines.train_baselines:make_importance", needs_target=True),
    "domain_importance": Kind("gristmill.pipelines.train_baselines:make_domain_importance"),
    "target_classifier": Kind(
        "gristmill.pipelines.train_baselines:make_target_classifier", needs_target=True
    ),
    "ladder": Kind("gristmill.pipelines.train_ladder:make_ladder", parents=("tokenizer",), needs_target=True),
    "predictive_strength": Kind(
        "gristmill.pipelines.train_predictive_strength:make_predictive_strength", parents=("ladder",)
    ),
    "meta_rater": Kind(
        "gristmill.pipelines.train_meta_rater:make_meta_rater", parents=("tokenizer",), needs_scores=True
    ),
    "clusters": Kind("gristmill.pipelines.train_clusters:make_clusters", needs_scores=True),
    **{name: Kind("gristmill.pipelines.train_raters:make_rater", dimension=name) for name in DIMENSIONS},
}
"""Every model, parents first; a ladder may need less."""


def parents_of(models: Models, name: str) -> tuple[str, ...]:
    """The models that one is made from."""
    return () if name == "ladder" and not models.ladder.is_trained else KINDS[name].parents


def needs_target(models: Models, name: str) -> bool:
    """Whether a model is made from the target."""
    return models.ladder.needs_target if name == "ladder" else KINDS[name].needs_target


def uses_target(recipe: Recipe, name: str) -> bool:
    """Whether a model is made from the target, or judged by it where there is one."""
    return needs_target(recipe.models, name) or (KINDS[name].needs_scores and bool(recipe.target))


def of_texts(names: Sequence[str]) -> list[str]:
    """The models that are made before anything is scored."""
    return [name for name in names if not KINDS[name].needs_scores]


def is_given(models: Models, name: str) -> bool:
    """Whether a recipe gives a model by its path; a ladder is always made, if only by putting rungs in order."""
    return name != "ladder" and models.of(name).path is not None


def models_of(recipe: Recipe, wanted: Iterable[str]) -> list[str]:
    """The models that must be trained so that some are there, parents first; those with a path are there.

    Raises:
        RecipeError: If the recipe has no target for one that needs it.
    """
    needed: set[str] = set()
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if not is_given(recipe.models, name):
            needed.add(name)
            pending += parents_of(recipe.models, name)
    for name in KINDS:
        if name in needed and (lacking := recipe.models.of(name).lacking):
            raise RecipeError(f"models.{'raters.' if name in DIMENSIONS else ''}{name}: {lacking}")
    for name in KINDS:
        if name in needed and needs_target(recipe.models, name) and not recipe.target:
            instead = "`tasks`, or averages" if name == "ladder" else "or a `path`"
            raise RecipeError(
                f"models.{name}: trained on the target, and the recipe has none; expected `target`, {instead}"
            )
    return [name for name in KINDS if name in needed]


def named_model(recipe: Recipe, name: str) -> list[str]:
    """The models that must be trained for one that a user names.

    Raises:
        RecipeError: If there is no such model.
    """
    if name not in KINDS:
        raise RecipeError(f"no model {name!r}{nearest(name, KINDS)}")
    return models_of(recipe, [name])


def wanted_models(recipe: Recipe) -> set[str]:
    """The models that scorers and export use without saying where they are."""
    tokens = recipe.export.tokens
    needs_tokenizer = tokens is not None and tokens.tokenizer == "prior" and recipe.models.prior.path is None
    of_scorers = {
        model
        for name, options in recipe.scorer_options().items()
        for option, model in scorer_class(name).trained_models.items()
        if option not in options
    }
    return of_scorers | ({"tokenizer"} if needs_tokenizer else set())


def with_trained_models(recipe: Recipe, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A scorer's options with the paths of the models that the recipe left out."""
    workspace = Workspace(recipe.workspace.rstrip("/"))
    trained = {
        option: recipe.models.of(model).path or model_path(workspace, model)
        for option, model in scorer_class(name).trained_models.items()
    }
    domains = list(recipe.models.domain_importance.domains)
    return trained | ({"domains": domains} if name == "domain_importance" and domains else {}) | options


def trained_scorer(recipe: Recipe, name: str) -> Scorer:
    """One of the recipe's scorers, with its models, which are there, on this machine.

    Raises:
        RecipeError: If the recipe does not name it.
    """
    options = recipe.scorer_options()
    if name not in options:
        raise RecipeError(f"score: expected {name}, from which a model is made; found {', '.join(options)}")
    return localised(make_scorer(name, with_trained_models(recipe, name, options[name])))


def is_trained(workspace: Workspace, recipe: Recipe, name: str) -> bool:
    """Whether every model is there that a scorer leaves to the workspace."""
    options = recipe.scorer_options()[name]
    return all(
        option in options
        or recipe.models.of(model).path is not None
        or read_manifest(workspace, model) is not None
        for option, model in scorer_class(name).trained_models.items()
    )


def train_models(training: Training, names: Sequence[str]) -> list[str]:
    """Train models that are not there or were made from another recipe.

    Args:
        training: From what.
        names: Models, parents first.

    Returns:
        Warnings.

    Raises:
        RecipeError: If there is nothing to train one on.
    """
    notes: list[str] = []
    for name in names:
        identity = identity_of(training, name)
        manifest = read_manifest(training.workspace, name)
        if manifest is None or manifest["identity"] != identity:
            manifest = _make(training, name, identity)
        notes += manifest["warnings"]
    return notes


def identity_of(training: Training, name: str) -> str:
    """Hash of what the recipe says of a model and what it is made from, but for the corpus."""
    section = training.models.of(name)
    said: list[Any] = [name, section.model_dump(mode="json", exclude={"labels"})]
    said += [_identity_of_parent(training, parent) for parent in parents_of(training.models, name)]
    if name in INGREDIENTS:
        said += INGREDIENTS[name](training)
    if uses_target(training.recipe, name):
        said += [
            entry.model_dump(mode="json", exclude={"path", "licence"}) for entry in training.recipe.target
        ]
        said += [asdict(training.held_out), *(shard.content for shard in training.target)]
    return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def _identity_of_parent(training: Training, name: str) -> str:
    """Of a model that is given by its path, its content: another one may come to lie there."""
    if is_given(training.models, name):
        return _content_of(f"models.{name}", training.path(name))
    manifest = read_manifest(training.workspace, name)
    identity: str = manifest["identity"] if manifest else ""
    return identity


def _content_of(place: str, path: str) -> str:
    if place == "models.tokenizer":
        return usable(place, lambda: Tokenizer.digest(path))
    return usable(place, lambda: _language_model(path))


def _language_model(path: str) -> str:
    language_model.check_directory(path)
    return language_model.digest(path)


def _encoder(path: str) -> str:
    check_files(path, "encoder")
    return sequence_classifier.digest(path)


def _rungs_and_questions(training: Training) -> list[Any]:
    given = training.models.ladder.paths()
    rungs = [_content_of(f"models.ladder.{key}", local_copy(path)) for key, path in given.items()]
    return [*rungs, *(shard.content for shard in training.task_shards)]


def _domains(training: Training) -> list[Any]:
    return [
        [domain, [shard.content for shard in shards]] for domain, shards in training.domain_shards.items()
    ]


def _signals(training: Training) -> list[Any]:
    return [asdict(column) for column in find_signals(training.workspace, training.models.meta_rater)]


def _embedding(training: Training) -> list[Any]:
    return [trained_scorer(training.recipe, "embedding").fingerprint()]


def _labels_and_encoder(dimension: str, training: Training) -> list[Any]:
    section = training.models.of(dimension)
    labels = [
        [key, blake2b(files.read_bytes(path)).hexdigest()] for key, path in section.label_paths().items()
    ]
    if section.encoder is None:
        return labels
    place, path = f"models.raters.{dimension}.encoder.path", local_copy(section.encoder.path)
    return [*labels, usable(place, lambda: _encoder(path))]


INGREDIENTS: dict[str, Callable[[Training], list[Any]]] = {
    "domain_importance": _domains,
    "ladder": _rungs_and_questions,
    "meta_rater": _signals,
    "clusters": _embedding,
    **{name: partial(_labels_and_encoder, name) for name in DIMENSIONS},
}
"""What some models are made from besides their parents and the target, as their identity says it."""


def _make(training: Training, name: str, identity: str) -> dict[str, Any]:
    folder = work_folder(training.workspace, name)
    claim_folder(folder, identity)
    made = folder / "made"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    started = time.monotonic()
    facts = KINDS[name].load()(training, folder, made)
    seconds = round(time.monotonic() - started, 3)
    manifest = {"model": name, "identity": identity, "warnings": [], "seconds": seconds, **facts}
    commit_model(training.workspace, name, made, manifest)
    shutil.rmtree(folder)
    return manifest

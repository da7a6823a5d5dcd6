"""Read a recipe: YAML to a checked `Recipe`, every mistake one line, paths made absolute.

Relative paths are relative to the recipe's folder. A mistake names the place, what was found, what is allowed and the
nearest valid name.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from gristmill.pipelines import files
from gristmill.pipelines.recipe import Block, Recipe
from gristmill.pipelines.recipe_export import Export
from gristmill.pipelines.recipe_inputs import Input
from gristmill.pipelines.recipe_models import Models
from gristmill.pipelines.recipe_values import MAX_FOUND, Section, nearest
from gristmill.scorers.base import RecipeError, ScorerError
from gristmill.scorers.registry import path_options


def load_recipe(path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: A YAML file.
        overrides: `key=value` pairs; keys are dotted paths (`select.0.name`, `corpus.1.path`), values YAML.

    Raises:
        RecipeError: One line for every mistake.
    """
    try:
        raw = files.read_bytes(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); expected a recipe in YAML") from error
    try:
        content = _parse_yaml(raw.decode())
    except ValueError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path}: expected a mapping with workspace, corpus, ...; found {type(content).__name__}"
        )
    for override in overrides:
        _override(content, override)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {line}" for line in _mistakes(error, content))) from error
    folder = os.path.dirname(os.path.abspath(path)) if files.is_local(path) else path.rpartition("/")[0]
    recipe = _with_absolute_paths(recipe, folder)
    if lines := [f"{path}: {line}" for line in _unreachable(recipe)]:
        raise RecipeError("\n".join(lines))
    return recipe


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping with the same key twice, where YAML keeps the last."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    merge = "tag:yaml.org,2002:merge"
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"key {key!r} stands twice in one mapping, {str(node.start_mark).strip()}")
    loader.flatten_mapping(node)  # after the check: a key may override what `<<` merges
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def _parse_yaml(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        ValueError: In one line; PyYAML lets errors of the values' own types through.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader that also refuses duplicate keys)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _override(content: dict[str, Any], override: str) -> None:
    """Set one value; what an alias of YAML shares with other places is copied first."""
    path, separator, text = override.partition("=")
    *parents, last = path.split(".")
    if not separator or not all([*parents, last]):
        raise RecipeError(f"--set {override}: expected key=value, such as --set select.name=test")

    def key(place: Any, part: str) -> Any:
        if isinstance(place, dict):
            return part
        if not (part.isdecimal() and int(part) < len(place)):
            raise RecipeError(f"--set {override}: expected a position below {len(place)}; found {part!r}")
        return int(part)

    place: Any = content
    for part in parents:
        at = key(place, part)
        child = place.get(at) if isinstance(place, dict) else place[at]
        if not isinstance(child, dict | list | None):
            raise RecipeError(f"--set {override}: {part!r} holds a value, not a mapping")
        place[at] = child = {} if child is None else copy(child)
        place = child
    try:
        place[key(place, last)] = _parse_yaml(text)
    except ValueError as error:
        raise RecipeError(f"--set {override}: the value is not YAML: {error}") from error


def _mistakes(error: ValidationError, content: dict[str, Any]) -> list[str]:
    return [_mistake(mistake, is_one=isinstance(content.get("select"), dict)) for mistake in error.errors()]


def _mistake(mistake: Any, *, is_one: bool) -> str:
    """One line for one mistake.

    Args:
        mistake: What pydantic says.
        is_one: Whether `select` is a single selection, which has no number.
    """
    location, kind, found = list(mistake["loc"]), mistake["type"], mistake["input"]
    if location[-1:] == ["[key]"]:
        location, found = location[:-2], location[-2]
    shown = location[:1] + location[2:] if is_one and location[:2] == ["select", 0] else location
    place = ".".join(str(part) for part in shown) or "recipe"
    if kind == "extra_forbidden":
        return f"{place}: unknown key {location[-1]!r}{nearest(str(location[-1]), _allowed(location[:-1]))}"
    if kind == "missing":
        return f"{place}: missing; expected keys: {', '.join(_allowed(location[:-1]))}"
    if kind == "value_error":
        return f"{place}: {mistake['msg'].removeprefix('Value error, ')}"
    text = repr(found)
    text = text if len(text) <= MAX_FOUND else f"{text[:MAX_FOUND]}..."
    if kind == "literal_error":
        return f"{place}: found {text}{nearest(str(found), _choices(mistake))}"
    limits = {
        name: value
        for name, value in mistake.get("ctx", {}).items()
        if name in ("ge", "gt", "le", "min_length")
    }
    expected = EXPECTED.get(kind, mistake["msg"]).format(keys=", ".join(_allowed(location)), **limits)
    return f"{place}: found {text}; expected {expected}"


EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_type": "a whole number",
    "invalid_key": "a string as a key",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "model_type": "a mapping with the keys {keys}",
    "string_pattern_mismatch": "lower-case letters, digits, - and _, a letter first",
    "string_too_short": "a string of at least {min_length} character",
    "string_type": "a string",
    "too_short": "a list of at least {min_length} item",
}
"""What the mistakes of pydantic mean to the author of a recipe."""


def _choices(mistake: Any) -> list[str]:
    return [part.strip("' ") for part in mistake["ctx"]["expected"].replace(" or ", ",").split(",")]


def _allowed(location: list[Any]) -> list[str]:
    """The keys allowed at a place of the recipe."""
    section: type[Section] = Recipe
    for part in location:
        if part in section.model_fields:
            section = next(_sections(section.model_fields[part].annotation), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _with_absolute_paths(recipe: Recipe, folder: str) -> Recipe:
    def absolute(path: str) -> str:
        if not files.is_local(path):
            return path
        path = os.path.expanduser(path)
        if files.is_local(folder) or os.path.isabs(path):
            return os.path.normpath(os.path.join(folder, path))
        return f"{folder}/{os.path.normpath(path)}"

    def entries(inputs: Sequence[Input]) -> list[Input]:
        return [item.model_copy(update={"path": absolute(item.path)}) for item in inputs]

    return recipe.model_copy(
        update={
            "workspace": absolute(recipe.workspace),
            "corpus": entries(recipe.corpus),
            "block": Block(
                **{kind: [absolute(p) for p in paths] for kind, paths in recipe.block.model_dump().items()}
            ),
            "export": _with_absolute_tokenizer(recipe.export, absolute),
            "target": entries(recipe.target),
            "ablate": recipe.ablate.model_copy(
                update={"held_out": entries(recipe.ablate.held_out), "tasks": entries(recipe.ablate.tasks)}
            ),
            "models": recipe.models.model_copy(
                update={
                    name: getattr(recipe.models, name).with_paths(absolute) for name in Models.model_fields
                }
            ),
            "score": [
                {name: _with_absolute_models(name, options, absolute)} if options else name
                for name, options in recipe.scorer_options().items()
            ],
        }
    )


def _with_absolute_tokenizer(export: Export, absolute: Callable[[str], str]) -> Export:
    tokens = export.tokens
    if tokens is None or tokens.tokenizer == "prior":
        return export
    tokens = tokens.model_copy(update={"tokenizer": absolute(tokens.tokenizer)})
    return export.model_copy(update={"tokens": tokens})


def _with_absolute_models(
    name: str, options: dict[str, Any], absolute: Callable[[str], str]
) -> dict[str, Any]:
    try:
        paths = path_options(name)
    except ScorerError:  # named, with its place, when the scorers are built
        return options

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: resolve(path) for name, path in value.items()}
        return absolute(value) if isinstance(value, str) else value

    return {option: resolve(value) if option in paths else value for option, value in options.items()}


def _unreachable(recipe: Recipe) -> Iterator[str]:
    """One line for every path whose file system is not there."""
    paths = {"workspace": recipe.workspace}
    paths |= {f"corpus.{number}.path": item.path for number, item in enumerate(recipe.corpus)}
    paths |= {f"target.{number}.path": item.path for number, item in enumerate(recipe.target)}
    for kind in ("held_out", "tasks"):
        of_kind = enumerate(getattr(recipe.ablate, kind))
        paths |= {f"ablate.{kind}.{number}.path": item.path for number, item in of_kind}
    paths |= {
        f"models.ladder.tasks.{number}.path": item.path
        for number, item in enumerate(recipe.models.ladder.tasks)
    }
    paths |= {
        f"models.domain_importance.domains.{name}.path": item.path
        for name, item in recipe.models.domain_importance.domains.items()
    }
    paths |= {f"models.raters.{key}": path for key, path in recipe.models.raters.label_paths().items()}
    for kind, lists in recipe.block.model_dump().items():
        paths |= {f"block.{kind}.{number}": path for number, path in enumerate(lists)}
    schemes = files.schemes()
    for place, path in paths.items():
        if not files.is_local(path) and path.partition("://")[0] not in schemes:
            yield f"{place}: no file system for {path!r}; expected a local path or one of {', '.join(schemes)}"


def missing_files(recipe: Recipe) -> list[str]:
    """One line for every list, input or model of the recipe that is not there, or would hold what the run writes."""
    lines = [
        f"block.{kind}: {path} is not there; expected a text file with one entry a line"
        for kind, paths in recipe.block.model_dump().items()
        for path in paths
        if not files.exists(path)
    ]
    lines += [
        f"target.{number}.path: nothing matches {item.path}; expected a file, a glob or a folder"
        for number, item in enumerate(recipe.target)
        if not files.list_files(item.path)
    ]
    lines += [
        f"models.{name}.{key}: {path} is not there; expected a trained model"
        for name in Models.model_fields
        for key, path in getattr(recipe.models, name).paths().items()
        if not (files.list_folder(path) or files.exists(path))
    ]
    lines += [
        f"models.ladder.tasks.{number}.path: nothing matches {item.path}; expected a file, a glob or a folder"
        for number, item in enumerate(recipe.models.ladder.tasks)
        if not files.list_files(item.path)
    ]
    lines += [
        f"models.domain_importance.domains.{name}.path: nothing matches {item.path}; expected a file, a glob or a "
        "folder"
        for name, item in recipe.models.domain_importance.domains.items()
        if not files.list_files(item.path)
    ]
    lines += [
        f"models.raters.{key}: {path} is not there; expected a file of JSON lines with texts and labels"
        for key, path in recipe.models.raters.label_paths().items()
        if not files.exists(path)
    ]
    is_ingested = files.exists(files.join(recipe.workspace, "corpus", "inputs.json"))
    for number, item in enumerate(recipe.corpus):
        if f"{recipe.workspace}/".startswith(f"{item.path.rstrip('/')}/"):
            lines.append(
                f"corpus.{number}.path: the workspace {recipe.workspace} lies in this folder and would be read as its "
                "own input; move one of them"
            )
        elif not is_ingested and not files.list_files(item.path):  # later, planning says what vanished
            lines.append(
                f"corpus.{number}.path: nothing matches {item.path}; expected a file, a glob or a folder"
            )
    return lines

"""A recipe: one YAML file that reads like the method section of a paper, refused whole when anything is wrong.

Relative paths are relative to the recipe's folder. Every mistake becomes one line: the place, what was found,
what is allowed and the nearest valid name.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from gristmill.pipelines import files
from gristmill.scorers.base import RecipeError, ScorerError
from gristmill.scorers.registry import path_options

Format = Literal["jsonl", "parquet", "warc", "text", "html"]
Unit = Literal["documents", "characters", "tokens"]
NAME = r"^[a-z][a-z0-9_-]*$"
SHARE = re.compile(r"(-?(?:\d+/\d+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?))(%?)")
MAX_FOUND = 100
"""Characters of a wrong value that an error shows."""


def _parse_amount(value: Any) -> int | Fraction:
    """A share (`1/16`, `0.25`, `10%`) of what survived so far, or an absolute number (a whole number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"expected a number of at least 0; found {value}")
        return value
    found = SHARE.fullmatch(str(value))
    try:
        share = Fraction(found[1]) / (100 if found[2] else 1) if found else None
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None:
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share between 0 and 1; found {value!r}")
    return share


def _parse_bounds(value: Any) -> tuple[float, float]:
    """The lowest and the highest keep rate that raise no alarm."""
    match value:
        case [float() | int() as low, float() | int() as high] if 0 <= low <= high <= 1:
            return float(low), float(high)
    raise ValueError(f"found {value!r}; expected [low, high] with 0 <= low <= high <= 1")


def _parse_scorer(value: Any) -> Any:
    """A scorer's name, alone or with a mapping of its options."""
    match value:
        case str():
            return value
        case dict() if len(value) == 1:
            ((name, options),) = value.items()
            if isinstance(name, str) and isinstance(options, dict | None):
                return {name: options or {}}
    raise ValueError(f"expected a scorer's name, or one name with a mapping of its options; found {value!r}")


Amount = Annotated[int | Fraction, BeforeValidator(_parse_amount)]
Bounds = Annotated[tuple[float, float], BeforeValidator(_parse_bounds)]
ScorerEntry = Annotated[str | dict[str, dict[str, Any]], BeforeValidator(_parse_scorer)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Text = Annotated[str, Field(min_length=1)]
Flag = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Input(Section):
    """One input of the corpus: a file, a glob, or a folder (plain, Hugging Face or dolma layout).

    `text`, `id`, `url` and `created` name fields of the input; dots reach into nested objects.
    """

    path: Text
    source: Text
    format: Format | None = None
    source_field: Text | None = None
    text: Text = "text"
    id: Text = "id"
    url: Text | None = None
    created: Text | None = None
    licence: Text | None = None


class Block(Section):
    """Block lists and take-down lists: text files with one entry a line, `#` starts a comment."""

    hosts: list[Text] = []
    urls: list[Text] = []
    ids: list[Text] = []
    doc_ids: list[Text] = []


class Duplicates(Section):
    """When two documents are near duplicates, by the signatures of `minhash`.

    A pair of Jaccard similarity s is found with probability 1 - (1 - s^rows_per_band)^num_bands: more bands find more,
    more rows find less. The default leaves 0.4 % of the pairs at 0.8; `num_bands: 14, rows_per_band: 8` is datatrove's,
    which leaves 8 %. `verify` compares every member's shingles with its representative's; `prefer` says whose
    documents represent; a bucket of more than `max_bucket` documents is not compared all with all, and reported.
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    num_bands: Annotated[int, Field(ge=1)] = 18
    rows_per_band: Annotated[int, Field(ge=1)] = 6
    max_bucket: Annotated[int, Field(ge=1)] = 64
    verify: bool = True
    prefer: list[str] = []
    max_cluster_size: Annotated[int, Field(ge=2)] | None = None


class Deduplicate(Section):
    """Which member of a duplicate cluster survives: source priority, then a score's better end, then doc_id.

    `direction` names the better end where the score itself has none.
    """

    prefer: list[str] = []
    then: str | None = None
    direction: Literal["highest", "lowest"] | None = None


class Top(Section):
    """Keep the best by a score: the shortest prefix that reaches the budget, ties broken by doc_id."""

    by: str
    keep: Amount
    of: Unit = "documents"
    direction: Literal["highest", "lowest"] | None = None


class Quota(Section):
    """A budget for each named source; sources not named keep everything."""

    keep: dict[str, Amount]
    by: str | None = None
    of: Unit = "documents"
    direction: Literal["highest", "lowest"] | None = None


class Sample(Section):
    """A seeded random sample of what survived so far."""

    keep: Amount
    of: Unit = "documents"
    seed: Annotated[int, Field(strict=True)] = 0


class Selection(Section):
    """What to keep, in this order: block lists, `where`, duplicates, `quota`, `sample`, `top`."""

    name: Annotated[str, Field(pattern=NAME)]
    where: dict[Annotated[str, Field(pattern=NAME)], str] = {}
    deduplicate: Deduplicate | None = None
    quota: Quota | None = None
    sample: Sample | None = None
    top: Top | None = None
    keep_rates: dict[str, Bounds] = {}

    @field_validator("where")
    @classmethod
    def _refuse_reserved(cls, where: dict[str, str]) -> dict[str, str]:
        if taken := RESERVED_STEPS & where.keys():
            raise ValueError(f"{', '.join(sorted(taken))} names a built-in step; choose another name")
        return where

    @model_validator(mode="after")
    def _check_keep_rates(self) -> "Selection":
        if unknown := self.keep_rates.keys() - set(self.steps()):
            name = min(unknown)
            raise ValueError(f"keep_rates: no step {name!r}{nearest(name, self.steps())}")
        return self

    def steps(self) -> list[str]:
        """The names of the steps this selection runs, in order."""
        built_in = ["quota", "sample", "top"]
        return [
            "empty",
            "block",
            *self.where,
            *(["duplicate"] if self.deduplicate is not None else []),
            *(name for name in built_in if getattr(self, name) is not None),
        ]


RESERVED_STEPS = {"empty", "block", "duplicate", "quota", "sample", "top"}


class Export(Section):
    """How the kept documents are written."""

    clean_lines: Literal["c4"] | None = None
    redact_pii: Flag = False
    metadata: Flag = True


class Recipe(Section):
    """A whole recipe, every path absolute."""

    workspace: Text
    corpus: Annotated[list[Input], Field(min_length=1)]
    block: Block = Block()
    score: list[ScorerEntry] = []
    duplicates: Duplicates | None = None
    select: list[Selection] = []
    export: Export = Export()
    max_reject_rate: Share = 0.01
    max_document_bytes: Annotated[int, Field(ge=1, strict=True)] = 32 << 20

    @field_validator("select", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("select")
    @classmethod
    def _refuse_twins(cls, selections: list[Selection]) -> list[Selection]:
        names = [selection.name for selection in selections]
        if twins := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twins)!r} names two selections; every selection needs a name of its own")
        return selections

    @field_validator("score")
    @classmethod
    def _refuse_twin_scorers(cls, entries: list[Any]) -> list[Any]:
        names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
        if twins := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twins)!r} stands twice; name every scorer once")
        return entries

    def scorer_options(self) -> dict[str, dict[str, Any]]:
        """Scorer name -> its options, in the recipe's order."""
        return dict(
            next(iter(entry.items())) if isinstance(entry, dict) else (entry, {}) for entry in self.score
        )


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


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: what is allowed, and the nearest valid name."""
    names = sorted(allowed)
    by_lower_case = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), by_lower_case, n=1)
    guess = f"; did you mean {by_lower_case[close[0]]!r}?" if close else ""
    return f"; allowed: {', '.join(names)}{guess}"


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
        name: value for name, value in mistake.get("ctx", {}).items() if name in ("ge", "le", "min_length")
    }
    expected = EXPECTED.get(kind, mistake["msg"]).format(keys=", ".join(_allowed(location)), **limits)
    return f"{place}: found {text}; expected {expected}"


EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
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

    return recipe.model_copy(
        update={
            "workspace": absolute(recipe.workspace),
            "corpus": [item.model_copy(update={"path": absolute(item.path)}) for item in recipe.corpus],
            "block": Block(
                **{kind: [absolute(p) for p in paths] for kind, paths in recipe.block.model_dump().items()}
            ),
            "score": [
                {name: _with_absolute_models(name, options, absolute)} if options else name
                for name, options in recipe.scorer_options().items()
            ],
        }
    )


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
    for kind, lists in recipe.block.model_dump().items():
        paths |= {f"block.{kind}.{number}": path for number, path in enumerate(lists)}
    schemes = files.schemes()
    for place, path in paths.items():
        if not files.is_local(path) and path.partition("://")[0] not in schemes:
            yield f"{place}: no file system for {path!r}; expected a local path or one of {', '.join(schemes)}"


def missing_files(recipe: Recipe) -> list[str]:
    """One line for every list or input of the recipe that is not there, or would hold what the run writes."""
    lines = [
        f"block.{kind}: {path} is not there; expected a text file with one entry a line"
        for kind, paths in recipe.block.model_dump().items()
        for path in paths
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

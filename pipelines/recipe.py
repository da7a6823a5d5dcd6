"""A recipe: one YAML file that reads like the method section of a paper, refused whole when anything is wrong.

Relative paths are relative to the recipe's folder. Every mistake becomes one line: the place, what was found,
what is allowed and the nearest valid name.
"""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

import yaml
from gristmill.pipelines import files
from gristmill.scorers.base import RecipeError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

Format = Literal["jsonl", "parquet", "warc", "text", "html"]
Unit = Literal["documents", "characters", "tokens"]
NAME = r"^[a-z][a-z0-9_-]*$"


def _parse_amount(value: Any) -> int | Fraction:
    """A share (`1/16`, `0.25`, `10%`) of what survived so far, or an absolute number (a whole number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"expected a number of at least 0; found {value}")
        return value
    try:
        share = (
            Fraction(value[:-1]) / 100
            if isinstance(value, str) and value.endswith("%")
            else Fraction(str(value))
        )
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}"
        ) from None
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share between 0 and 1; found {value!r}")
    return share


Amount = Annotated[int | Fraction, BeforeValidator(_parse_amount)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Input(Section):
    """One input of the corpus: a file, a glob, or a folder (plain, Hugging Face or dolma layout).

    `text`, `id`, `url` and `created` name fields of the input; dots reach into nested objects.
    """

    path: str
    source: Annotated[str, Field(min_length=1)]
    format: Format | None = None
    source_field: str | None = None
    text: str = "text"
    id: str = "id"
    url: str | None = None
    created: str | None = None
    licence: str | None = None


class Block(Section):
    """Block lists and take-down lists: text files with one entry a line, `#` starts a comment."""

    hosts: list[str] = []
    urls: list[str] = []
    ids: list[str] = []
    doc_ids: list[str] = []


class Deduplicate(Section):
    """Which member of a duplicate cluster survives: source priority, then a score's better end, then doc_id."""

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
    seed: int = 0


class Selection(Section):
    """What to keep, in this order: block lists, `where`, duplicates, `quota`, `sample`, `top`."""

    name: Annotated[str, Field(pattern=NAME)]
    where: dict[Annotated[str, Field(pattern=NAME)], str] = {}
    deduplicate: Deduplicate | None = None
    quota: Quota | None = None
    sample: Sample | None = None
    top: Top | None = None
    keep_rates: dict[str, tuple[Share, Share]] = {}

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
    redact_pii: bool = False
    metadata: bool = True


class Recipe(Section):
    """A whole recipe, every path absolute."""

    workspace: str
    corpus: Annotated[list[Input], Field(min_length=1)]
    block: Block = Block()
    score: list[str | dict[str, dict[str, Any]]] = []
    select: list[Selection] = []
    export: Export = Export()
    max_reject_rate: Share = 0.01
    max_document_bytes: Annotated[int, Field(ge=1)] = 32 << 20

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
    def _single_keys(cls, entries: list[str | dict[str, dict[str, Any]]]) -> list[Any]:
        for entry in entries:
            if isinstance(entry, dict) and len(entry) != 1:
                raise ValueError(f"expected a scorer's name, or one name with its options; found {entry!r}")
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
        text = files.read_bytes(path).decode()
        content = yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader that also refuses duplicate keys)
    except (OSError, files.BeamIOError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); expected a recipe in YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
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
    return _with_absolute_paths(
        recipe, os.path.dirname(os.path.abspath(path)) if files.is_local(path) else ""
    )


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: what is allowed, and the nearest valid name."""
    names = sorted(allowed)
    close = get_close_matches(name, names, n=1)
    return f"; allowed: {', '.join(names)}" + (f"; did you mean {close[0]!r}?" if close else "")


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping with the same key twice, where YAML keeps the last."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"key {key!r} stands twice in one mapping, {str(node.start_mark).strip()}")
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def _override(content: Any, override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}: expected key=value, such as --set select.name=test")
    *parents, last = path.split(".")
    place = content
    for part in [*parents, last]:
        if isinstance(place, list) and not (part.isdigit() and int(part) < len(place)):
            raise RecipeError(f"--set {override}: expected a position below {len(place)}; found {part!r}")
        if part is last:
            break
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if not isinstance(place, (dict, list)):
            raise RecipeError(f"--set {override}: {part!r} holds a value, not a mapping")
    try:
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--set {override}: the value is not YAML: {' '.join(str(error).split())}"
        ) from error


def _mistakes(error: ValidationError, content: dict[str, Any]) -> list[str]:
    lines = []
    for mistake in error.errors():
        location = [part for part in mistake["loc"] if not (isinstance(part, str) and part[:1].isupper())]
        place = ".".join(str(part) for part in location) or "recipe"
        kind, message = mistake["type"], mistake["msg"].removeprefix("Value error, ")
        if kind == "extra_forbidden":
            line = (
                f"{place}: unknown key {location[-1]!r}{nearest(str(location[-1]), _allowed(location[:-1]))}"
            )
        elif kind == "missing":
            line = f"{place}: missing; expected keys: {', '.join(_allowed(location[:-1]))}"
        elif kind == "value_error":
            line = f"{place}: {message}"
        else:
            close = nearest(str(mistake["input"]), _choices(mistake)).removeprefix("; ")
            detail = close if kind == "literal_error" else message[0].lower() + message[1:]
            line = f"{place}: found {mistake['input']!r}; {detail}"
        lines.append(line)
    return lines


def _choices(mistake: Any) -> list[str]:
    if mistake["type"] != "literal_error":
        return []
    return [part.strip("' ") for part in mistake["ctx"]["expected"].replace(" or ", ",").split(",")]


def _allowed(location: list[Any]) -> list[str]:
    """The keys allowed at a place of the recipe."""
    section: type[Section] = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        section = next((kind for kind in _sections(section.model_fields[part].annotation)), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterable[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _with_absolute_paths(recipe: Recipe, folder: str) -> Recipe:
    def absolute(path: str) -> str:
        return (
            path
            if not files.is_local(path)
            else os.path.normpath(os.path.join(folder, os.path.expanduser(path)))
        )

    return recipe.model_copy(
        update={
            "workspace": absolute(recipe.workspace),
            "corpus": [item.model_copy(update={"path": absolute(item.path)}) for item in recipe.corpus],
            "block": Block(
                **{kind: [absolute(p) for p in paths] for kind, paths in recipe.block.model_dump().items()}
            ),
        }
    )


def missing_files(recipe: Recipe) -> list[str]:
    """One line for every list or input of the recipe that is not there."""
    lines = [
        f"block.{kind}: {path} is not there; expected a text file with one entry a line"
        for kind, paths in recipe.block.model_dump().items()
        for path in paths
        if not files.exists(path)
    ]
    return lines + [
        f"corpus.{number}.path: nothing matches {item.path}; expected a file, a glob or a folder"
        for number, item in enumerate(recipe.corpus)
        if not files.list_files(item.path)
    ]

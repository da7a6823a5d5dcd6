"""Which scorers there are: the built-in table, and those of installed packages by entry point.

A package adds a scorer in its own pyproject:

    [project.entry-points."gristmill.scorers"]
    my_score = "my_package.my_module:MyScore"
"""

import json
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gristmill.scorers.base import ModelPath, Scorer, ScorerError

ENTRY_POINT_GROUP = "gristmill.scorers"

SCORERS = {
    "rules": "gristmill.scorers.rules:Rules",
    "language": "gristmill.scorers.language:Language",
    "exact_duplicate": "gristmill.scorers.duplicates:ExactDuplicate",
    "minhash": "gristmill.scorers.minhash:MinHash",
    "simhash": "gristmill.scorers.simhash:SimHash",
    "decontamination": "gristmill.scorers.decontamination:Decontamination",
    "pii": "gristmill.scorers.pii:Pii",
    "tokens": "gristmill.scorers.tokens:Tokens",
    "importance": "gristmill.scorers.importance:Importance",
    "domain_importance": "gristmill.scorers.domain_importance:DomainImportance",
    "target_classifier": "gristmill.scorers.target_classifier:TargetClassifier",
    "fasttext": "gristmill.scorers.classifier:FastText",
    "dclm_quality": "gristmill.scorers.dclm_quality:DclmQuality",
    "predictive_strength": "gristmill.scorers.predictive_strength:PredictiveStrength",
    "color_filter": "gristmill.scorers.color_filter:ColorFilter",
    "perplexity": "gristmill.scorers.perplexity:Perplexity",
    "bits_per_character": "gristmill.scorers.bits_per_character:BitsPerCharacter",
    "meta_rater": "gristmill.scorers.meta_rater:MetaRater",
    "embedding": "gristmill.scorers.embedding:Embedding",
    "clusters": "gristmill.scorers.clusters_of_embeddings:EmbeddingClusters",
    "facility_location": "gristmill.scorers.facility_location:FacilityLocation",
    "professionalism": "gristmill.scorers.raters:Professionalism",
    "readability": "gristmill.scorers.raters:Readability",
    "reasoning": "gristmill.scorers.raters:Reasoning",
    "cleanliness": "gristmill.scorers.raters:Cleanliness",
    "educational_value": "gristmill.scorers.raters:EducationalValue",
    "advertisement": "gristmill.scorers.raters:Advertisement",
    "fluency": "gristmill.scorers.raters:Fluency",
    "qurating": "gristmill.scorers.raters:QuRating",
    "toxicity": "gristmill.scorers.raters:Toxicity",
    "machine_written": "gristmill.scorers.raters:MachineWritten",
    "rater": "gristmill.scorers.raters:AnyRater",
}
"""Built-in scorers, by where they are: a scorer is imported when it is asked for."""


def scorer_names() -> list[str]:
    """Names of all scorers, built in and installed.

    Raises:
        ScorerError: If two scorers have one name.
    """
    return sorted(_locations())


def scorer_class(name: str) -> type[Scorer]:
    """The class of a scorer.

    Raises:
        ScorerError: If there is no such scorer, or it cannot be imported or is none.
    """
    locations = _locations()
    if name not in locations:
        raise ScorerError(f"unknown scorer {name!r}{_nearest(name, list(locations))}")
    module, _, attribute = locations[name].partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ScorerError(f"scorer {name!r} cannot be imported from {locations[name]}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Scorer) and is_dataclass(found)):
        raise ScorerError(f"scorer {name!r}: {locations[name]} is no dataclass derived from Scorer")
    if found.name != name:
        raise ScorerError(f"scorer {name!r}: the class at {locations[name]} calls itself {found.name!r}")
    return found


def path_options(name: str) -> set[str]:
    """The options of a scorer that are paths, or name -> path, which recipes write relative to themselves."""
    hints = get_type_hints(scorer_class(name), include_extras=True)
    return {option for option, hint in hints.items() if ModelPath in (hint, *get_args(hint))}


def make_scorer(name: str, options: dict[str, Any]) -> Scorer:
    """Build a scorer from the options of a recipe.

    Args:
        name: Name of the scorer.
        options: Values as YAML knows them; lists stand for tuples, text for paths, mappings for dataclasses.

    Raises:
        ScorerError: If there is no such scorer or option, an option has the wrong type or an impossible
            value, or
            a required one is missing. One line: what was found, what is allowed, what was probably meant.
    """
    return _make(scorer_class(name), options, name)


def _make(dataclass: type[Any], options: dict[str, Any], place: str) -> Any:
    """Build a scorer, or an option of one that has options of its own, from its options."""
    allowed = {field.name: field for field in fields(dataclass) if field.init}
    types = get_type_hints(dataclass)
    values = {}
    for option, value in options.items():
        if option not in allowed:
            raise ScorerError(f"{place}: unknown option {option!r}{_nearest(option, list(allowed))}")
        if is_dataclass(types[option]) and isinstance(value, dict):
            values[option] = _make(types[option], value, f"{place}.{option}")
            continue
        try:
            # Strict, but as JSON: text is no number, and a list may stand for a tuple.
            values[option] = TypeAdapter(types[option]).validate_json(json.dumps(value), strict=True)
        except (ValidationError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ScorerError(
                f"{place}.{option}: found {value!r}, allowed is {_type_name(types[option])} ({reason})"
            ) from error
    for option, field in allowed.items():
        if option not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ScorerError(f"{place}: option {option!r} is missing; it takes {_type_name(types[option])}")
    try:
        return dataclass(**values)
    except ValueError as error:
        raise ScorerError(f"{place}: {error}") from error


def _locations() -> dict[str, str]:
    locations = dict(SCORERS)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if locations.setdefault(point.name, point.value) != point.value:
            raise ScorerError(
                f"two scorers are called {point.name!r}: {locations[point.name]} and {point.value}; "
                "rename or uninstall one"
            )
    return locations


def _nearest(found: str, allowed: list[str]) -> str:
    if not allowed:
        return "; there are none"
    nearest = get_close_matches(found, allowed, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else ""
    return f"{hint} (there are: {', '.join(sorted(allowed))})"


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_type_name, get_args(annotation)))
    if annotation is NoneType:
        return "None"
    if is_dataclass(annotation):
        return f"a mapping of {', '.join(field.name for field in fields(annotation))}"
    is_plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if is_plain else str(annotation).replace("typing.", "")

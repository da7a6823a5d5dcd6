"""A sound recipe, and what loading it with a change says."""

import json

import pytest

from gristmill.pipelines.load_recipe import load_recipe
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

"""Workspaces of benchmarks."""

import json
from collections.abc import Sequence
from pathlib import Path

from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.workspace import Workspace

SOURCE = "texts.jsonl"
"""The file that the texts are ingested from."""


def ingested(folder: Path, texts: Sequence[str]) -> Workspace:
    """A workspace that holds some texts, beside the file they come from."""
    source = folder / SOURCE
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = [{"path": str(source), "source": "bench"}]
    recipe = Recipe.model_validate({"workspace": str(folder / "mill"), "corpus": corpus})
    prepare(recipe, beam_options([])).run(["ingest"])
    return Workspace(recipe.workspace)
